"""Names, paths, hosts and numbers for synthetic requests, drawn from large seeded pools.

The words of the pools are dealt out to the train and held-out splits, so that no name made for
one is made for the other. Closed classes (extensions, numbers, permission digits) are shared.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass

from hybriko_jax.korean import EXTENSIONS, SPOKEN_KINDS

ENGLISH = tuple(
    """account adapter admin agenda album alert alpha analysis android answer apollo archive army
    article asset atlas audit author avatar badge balance banner baseline basket batch beacon beta
    billing binary block blog board book bookmark boot border bot branch bridge broker browser
    bucket budget bug build bundle button cache calendar camera campaign canvas capture card cart
    catalog center chapter chart chat check city class cleaner client clock cloud cluster code
    collector color column command comment common company compare compile component config
    connect console contact content contract control convert cookie copy core corpus counter
    country course cover crawler credit cron customer daily dashboard data dataset date debug
    decoder deploy design desktop detail device dialog diary diff dispatch display docker docs
    domain download draft driver dump editor email embed employee encoder engine entry episode
    error estimate event example exchange expense experiment export extra factory family feature
    feed feedback fetch field figure filter final finance firmware fixture flask flow folder font
    form forum frame friend frontend gallery game gateway general generator global graph green
    grid group guest guide handler harbor hardware header health helper history holiday home hook
    host hotfix icon image import inbox index info input insight install internal inventory
    invoice island issue item job journal kernel keyboard label language latest launch layer
    layout leader legacy lesson letter level library license lifecycle light limit linear link
    list loader local locale location logger login lotus machine mail main manager manual map
    market master matrix media meeting member memory menu merge message metadata metric migrate
    minutes mirror mobile model module monitor month movie music native network news nginx night
    node note notice number object office offline online option orange order origin outline
    output owner package page paper parser partner patch path payment peach people photo picture
    pipeline plan planet plugin policy poll portal poster prefix preview price print private
    process product profile program project prompt proxy public purchase python quality query
    queue quick quiz quota random ranking rate raw reader receipt recipe record recovery redis
    reference region register release remote render report request research reserve resource
    response result resume retry return review river robot rocket role room root route router
    rule runner sales sample scanner schedule schema school score screen script search season
    secret section seed select sensor server service session setting setup shadow share sheet
    shipping shop signal simple site sketch slide snapshot social solution source space spec
    spider sprint stable staff stage standard start state static station statistics status stock
    storage store story stream student studio study style submit subtitle summary supply support
    survey switch symbol system table target task team template temp tensor terminal test theme
    thread ticket timeline title token tool topic total trace traffic train transfer translate
    travel trend trigger tutorial unit update upload user utils vacation valid vector vendor
    version video view vision visitor voice wallet warehouse water weather web weekly widget
    window winter wiki worker workflow world writer yellow zebra zone""".split()
)
KOREAN = tuple(
    """가계부 가이드 가족 감사 강의 강의록 개발 개요 거래 검토 견적 결과 결산 결재 경력 경비 계약
    계정 계획 고객 고양이 공고 공문 공부 공유 공지 과제 관리 광고 교안 교육 교재 구매 규정 그래프
    그림 근무 급여 기록 기말 기사 기안 기획 길찾기 꽃 나들이 날씨 납품 노래 노트 논문 뉴스 단어장
    달력 답안 대본 대회 데이터 도면 도서 독서 동아리 동영상 동의 드라마 등록 등산 디자인 레시피
    로고 리뷰 마감 마케팅 매뉴얼 매출 메뉴 메모 면담 면접 명단 명세 명함 모의고사 목록 목차 문서
    문의 문제 물품 미술 바다 발표 방학 배경 배포 백서 번역 벚꽃 변경 병원 보고 보고서 보관 보도
    보험 봄 부록 분석 분기 비용 비품 사업 사용법 사전 사진 산책 상담 상품 새해 생일 서류 서명 서식
    선물 선생님 설계 설명 설문 성적 세금 세미나 소개 소설 소식 송장 수강 수업 수학 수첩 숙제 스캔
    스터디 시간표 시험 식단 신청 실습 실적 실험 심사 아이디어 악보 안내 앨범 야구 약관 약도 양식
    언어 여름 여행 역사 연구 연락처 연습 연차 영상 영수증 영어 예산 예약 예제 오답 요리 요약 요청
    우편 운동 운영 원고 원본 월간 위치 유튜브 음식 음악 응답 의견 의뢰 이력 이미지 이벤트 인사 인쇄
    일기 일정 일지 임시 입금 입사 자격증 자기소개 자료 자막 작업 장부 재고 재무 전시 전화 점검 정리
    정산 제안 제품 조사 졸업 종합 주간 주문 주소 주소록 준비 증명 지도 지출 진단 질문 집계 차트
    참고 채용 책 청구 체크 초대 초안 총무 최종 추천 축제 출석 출장 출판 취미 친구 캠핑 캡처 커피
    코드 콘텐츠 통계 통장 투자 특강 틀린문제 파티 판매 편지 평가 포스터 표지 품질 풍경 프로필 필기
    학교 학급 학생 한글 할일 합격 해외 행사 혈압 홍보 화면 환불 활동 회계 회비 회원 회의 회의록
    후기 휴가 휴일 흑백 희망""".split()
)
_SYLLABLES = (
    "가나다라마바사아자차카타파하고노도로모보소오조초코토포호구누두루무부수우주추기니디리미비시이지"
)
_QUALIFIERS = (
    "최종",
    "수정",
    "사본",
    "원본",
    "복사본",
    "초안",
    "확정",
    "안",
    "v2",
    "1",
    "2",
    "임시",
)
_FILE_EXTENSIONS = tuple(e for e in EXTENSIONS if e not in ("yml", "jpeg", "tsv", "dat", "db"))
_ARCHIVES = (".tar.gz", ".tgz", ".tar", ".tar.bz2", ".tar.xz")
_TLDS = ("com", "net", "org", "io", "dev", "kr", "co.kr", "ac.kr", "go.kr", "internal", "local")
_ROOTS = ("/var/log", "/etc", "/srv", "/opt", "/tmp", "/usr/local", "/data", "/mnt", "/home")
_PROCESSES = tuple(
    """nginx mysqld python python3 java node redis-server postgres sshd docker chrome firefox bash
    code httpd php-fpm mongod celery gunicorn uvicorn jupyter cron apache2 dockerd kubelet vim tmux
    zsh systemd ffmpeg""".split()
)


def in_held_out(word: str) -> bool:
    """Whether a word of a pool belongs to the held-out split."""
    return hashlib.blake2b(word.encode(), digest_size=2).digest()[0] < 50


@dataclass(frozen=True)
class Values:
    """Draws values of one split with one random generator."""

    rng: random.Random
    english: tuple[str, ...]
    korean: tuple[str, ...]
    processes: tuple[str, ...]

    @classmethod
    def of(cls, rng: random.Random, held_out: bool) -> Values:
        """The pools of a split."""
        pools = (ENGLISH, KOREAN, _PROCESSES)
        return cls(rng, *(tuple(w for w in p if in_held_out(w) == held_out) for p in pools))

    def draw(self, slot: str) -> str:
        """A value for a slot's name: file, dir, name, pattern, host, url, ..."""
        return getattr(self, slot)()

    def file(self) -> str:
        return self._placed(self._file_name())

    def dir(self) -> str:
        rng = self.rng
        if rng.random() < 0.72:
            return self._stem(space=0.05)
        return self._placed(self._stem(space=0.02), 1.0)

    def name(self) -> str:
        return self._file_name() if self.rng.random() < 0.5 else self._stem(space=0.04)

    def name_file(self) -> str:
        return self._file_name()

    def name_dir(self) -> str:
        return self._stem(space=0.04)

    def archive(self) -> str:
        return self._stem(space=0.02) + self._pick(_ARCHIVES, 3)

    def pattern(self) -> str:
        rng = self.rng
        kind = rng.random()
        if kind < 0.4:
            word = self._english()
            return rng.choice(
                (word, word.upper(), word.capitalize(), f"{word}_{self._english()}", word + "()")
            )
        if kind < 0.5:
            return rng.choice(("ERROR", "WARN", "TODO", "FIXME", "404", "500", "timeout", "failed"))
        if kind < 0.6:
            return f"{self._english()} {self._english()}"
        if kind < 0.68:
            return f"{rng.randint(2018, 2027)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
        if kind < 0.75:
            return str(rng.randint(10, 99999))
        if kind < 0.9:
            return rng.choice(self.korean)
        return f"{rng.choice(self.korean)} {rng.choice(self.korean)}"

    def host(self) -> str:
        rng = self.rng
        if rng.random() < 0.35:
            return ".".join(str(rng.randint(0 if i else 10, 254)) for i in range(4))
        if rng.random() < 0.12:
            return "localhost"
        labels = [self._english() for _ in range(rng.choice((1, 1, 2)))]
        return ".".join([*labels, rng.choice(_TLDS)]) if rng.random() < 0.9 else labels[0]

    def url(self) -> str:
        rng = self.rng
        host = self.host()
        if rng.random() < 0.25:
            host += f":{rng.choice((80, 3000, 5000, 8000, 8080, 8443, 9000, 9090))}"
        path = "".join("/" + self._english() for _ in range(rng.choice((0, 1, 1, 2, 3))))
        if rng.random() < 0.25:
            path += f"/{rng.randint(1, 9999)}"
        if rng.random() < 0.3:
            pairs = [f"{self._english()}={self._word()}" for _ in range(rng.choice((1, 1, 2)))]
            path += "?" + "&".join(pairs)
        return f"{rng.choice(('http', 'https', 'https'))}://{host}{path}"

    def url_file(self) -> str:
        rng = self.rng
        path = "".join(self._english() + "/" for _ in range(rng.choice((0, 1, 1, 2))))
        extension = rng.choice((*_ARCHIVES, ".zip", ".sh", ".csv", ".pdf", ".json", ".png", ".txt"))
        name = self._stem(korean=0.03, space=0) + extension
        return f"{rng.choice(('http', 'https', 'https'))}://{self.host()}/{path}{name}"

    def user(self) -> str:
        rng = self.rng
        common = ("root", "ubuntu", "postgres", "www-data", "nobody", "deploy", "git", "jenkins")
        pseudo = self._pseudo() + rng.choice(("", "", str(rng.randint(1, 99))))
        return rng.choice((rng.choice(common), self._english(), pseudo))

    def process(self) -> str:
        return self.rng.choice(self.processes)

    def pid(self) -> str:
        return str(self.rng.randint(2, 65535))

    def mode(self) -> str:
        rng = self.rng
        if rng.random() < 0.6:
            return rng.choice(
                ("755", "644", "600", "700", "777", "640", "664", "750", "400", "444")
            )
        return ("0" if rng.random() < 0.15 else "") + "".join(rng.choice("01234567") for _ in "rwx")

    def kind(self) -> tuple[str, str]:
        """How a kind of file is called, and its extension."""
        rng = self.rng
        if rng.random() < 0.4:
            spoken = rng.choice(tuple(SPOKEN_KINDS))
            return spoken, SPOKEN_KINDS[spoken]
        extension = rng.choice(EXTENSIONS)
        form = rng.choice(("{}", "{}", ".{}", ".{}", "*.{}"))
        spoken = extension.upper() if rng.random() < 0.12 else extension
        return form.format(spoken), extension

    def n(self) -> int:
        rng = self.rng
        if rng.random() < 0.75:
            return rng.randint(2, 30)
        return rng.choice((rng.randint(31, 999), 50, 100, 200, 500, 1000, rng.randint(1, 9) * 10))

    def decoy_of(self, value: str) -> str:
        """A name like this one, but another."""
        rng = self.rng
        head, dot, extension = value.rpartition(".")
        folder, slash, stem = (head if dot else value).rpartition("/")
        tail = dot + extension if dot else ""
        changed = (
            stem + rng.choice(("2", "_old", "_new", "_backup", "1", "-copy", "_v2", "_최종")),
            rng.choice(("old_", "new_", "my_", "test_")) + stem,
            self._word(),
            self._stem(),
        )
        other = folder + slash + rng.choice(changed) + tail
        if dot and rng.random() < 0.25:
            other = head + "." + rng.choice(_FILE_EXTENSIONS)
        return other if other != value else other + "2"

    def _placed(self, name: str, chance: float = 0.2) -> str:
        """The name, now and then behind a path."""
        rng = self.rng
        if rng.random() >= chance:
            return name
        kind = rng.random()
        if kind < 0.5:
            folders = [self._stem(space=0) for _ in range(rng.choice((1, 1, 2)))]
            return "/".join([*folders, name])
        if kind < 0.65:
            return "~/" + "/".join([*[self._stem(space=0)] * rng.randint(0, 1), name])
        if kind < 0.9:
            return rng.choice(_ROOTS) + "/" + "/".join([*[self._word()] * rng.randint(0, 1), name])
        return rng.choice(("./", "../")) + name

    def _file_name(self) -> str:
        rng = self.rng
        stem = self._stem(space=0.06)
        kind = rng.random()
        if kind < 0.04:
            return rng.choice((stem, "." + self._english(), stem.capitalize()))
        if kind < 0.09:
            return f"{stem}({rng.choice(_QUALIFIERS)}).{rng.choice(_FILE_EXTENSIONS)}"
        if kind < 0.14:
            return f"{stem}-{rng.randint(0, 9)}.{rng.randint(0, 30)}.{rng.choice(_FILE_EXTENSIONS)}"
        if kind < 0.19:
            return f"{stem}.{rng.choice(_FILE_EXTENSIONS)}.{rng.choice(('bak', 'old', 'gz', '1'))}"
        return f"{stem}.{self._pick(_FILE_EXTENSIONS, 16)}"

    def _stem(self, korean: float = 0.36, space: float = 0.0) -> str:
        """A name without an extension."""
        rng = self.rng
        if rng.random() < korean:
            words = [rng.choice(self.korean) for _ in range(rng.choice((1, 1, 2, 2, 3)))]
            if rng.random() < 0.12:
                words = ["".join(rng.choice(_SYLLABLES) for _ in range(rng.randint(2, 4)))]
            if rng.random() < 0.2:
                words.append(self._number())
            joint = " " if rng.random() < space * 2.5 else rng.choice(("", "", "_", "_", "-"))
            return joint.join(words)
        words = [self._word() for _ in range(rng.choice((1, 1, 1, 2, 2, 3)))]
        if rng.random() < 0.2:
            words.append(self._number())
        if len(words) > 1 and rng.random() < 0.12:
            return words[0] + "".join(w.capitalize() for w in words[1:])
        joint = " " if rng.random() < space else rng.choice(("_", "_", "_", "-", "", "."))
        return joint.join(words)

    def _word(self) -> str:
        rng = self.rng
        kind = rng.random()
        if kind < 0.68:
            return self._english()
        if kind < 0.9:
            return self._pseudo()
        if kind < 0.95:
            return "".join(rng.choice("abcdef0123456789") for _ in range(rng.randint(3, 7)))
        return rng.choice(("IMG", "DSC", "a", "b", "x", "t", "v1", "v2", "tmp", "KakaoTalk"))

    def _english(self) -> str:
        word = self.rng.choice(self.english)
        return word + "s" if self.rng.random() < 0.12 else word

    def _pseudo(self) -> str:
        rng = self.rng
        n = rng.choice((2, 2, 3))
        syllables = [
            rng.choice("bcdfghjklmnprstvwz")
            + rng.choice("aeiou")
            + rng.choice(("", "", "n", "r", "x"))
            for _ in range(n)
        ]
        return "".join(syllables)

    def _number(self) -> str:
        rng = self.rng
        year, month, day = rng.randint(2015, 2027), rng.randint(1, 12), rng.randint(1, 28)
        return rng.choice(
            (
                str(rng.randint(0, 99)),
                f"{rng.randint(1, 99):02}",
                str(year),
                f"{month:02}{day:02}",
                f"{year}{month:02}{day:02}",
                f"{year}-{month:02}-{day:02}",
                f"v{rng.randint(1, 9)}",
            )
        )

    def _pick(self, items: Sequence[str], common: int) -> str:
        """One of the first few more often than the rest."""
        return self.rng.choice(items[:common] if self.rng.random() < 0.7 else items)

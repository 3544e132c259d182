"""Facts of written Korean that making requests and reading them share."""

from __future__ import annotations

import re

HANGUL = re.compile("[\uac00-\ud7a3\u3131-\u318e\u1100-\u11ff]")
LETTER = re.compile(r"[^\W\d_]")

# The form after a final consonant, and the one after a vowel.
PARTICLES = {
    "을": "를",
    "이": "가",
    "은": "는",
    "과": "와",
    "으로": "로",
    "이랑": "랑",
    "이라는": "라는",
    "이라고": "라고",
    "이라": "라",
    "이야": "야",
    "이니까": "니까",
    "이래": "래",
    "이면": "면",
    "이고": "고",
    "이든": "든",
}
# What may follow a name without a space, the longest first; see `split_particles`.
GLUED = sorted(
    {
        *PARTICLES,
        *PARTICLES.values(),
        *"에 의 도 만 께 란 에서 에다 에다가 에게 에는 에만 에도 에서만 에서는 한테".split(),
        *"까지 부터 마다 까지만 부터는 이란 으로만 로만 이라도 라도 이나 나 하고 보다 처럼".split(),
        *"안 안에 밑에 속 이고 폴더 폴더를 폴더에 폴더로 폴더의 폴더에서".split(),
        *"디렉토리 디렉토리를 디렉토리로 파일 파일을 꺼 거 것 들 들을 들만 인데 인지".split(),
        *"이라는데 라는데 이요 요 좀 님 서 다 다가 쪽 쪽으로".split(),
    },
    key=lambda p: (-len(p), p),
)

# How a kind of file is called, besides its extension itself.
SPOKEN_KINDS = {
    "파이썬": "py",
    "파이선": "py",
    "자바스크립트": "js",
    "타입스크립트": "ts",
    "자바": "java",
    "텍스트": "txt",
    "메모장": "txt",
    "로그": "log",
    "씨에스브이": "csv",
    "엑셀": "xlsx",
    "워드": "docx",
    "파워포인트": "pptx",
    "피피티": "pptx",
    "한글": "hwp",
    "피디에프": "pdf",
    "마크다운": "md",
    "제이슨": "json",
    "야믈": "yaml",
    "쉘 스크립트": "sh",
    "셸 스크립트": "sh",
    "쉘": "sh",
    "설정": "conf",
    "컨프": "conf",
    "백업": "bak",
    "임시": "tmp",
    "집": "zip",
    "제이펙": "jpg",
    "엠피쓰리": "mp3",
    "동영상": "mp4",
    "주피터 노트북": "ipynb",
    "에이치티엠엘": "html",
}
EXTENSIONS = (
    *"py js ts java c h cpp go rs rb sh txt log csv tsv xlsx docx pptx hwp pdf md json".split(),
    *"yaml yml toml ini conf bak tmp zip jpg jpeg png gif svg mp3 wav mp4 mov ipynb html".split(),
    *"css xml sql dat pkl db hwpx".split(),
)

_NATIVE_ONES = ("", "한", "두", "세", "네", "다섯", "여섯", "일곱", "여덟", "아홉")
_NATIVE_TENS = ("", "열", "스물", "서른", "마흔", "쉰", "예순", "일흔", "여든", "아흔")
_SINO = ("", "일", "이", "삼", "사", "오", "육", "칠", "팔", "구")
_VARIANTS = {"하나": 1, "둘": 2, "셋": 3, "넷": 4, "석": 3, "넉": 4, "스무": 20}

# Letters and digits whose Korean names end in a consonant (엘, 엠, 엔, 알; 영, 일, 삼, 육, 칠, 팔).
_CLOSED = frozenset("lmnr013678")


def letter_share(text: str, letters: re.Pattern[str] = HANGUL) -> float:
    """Letters of a kind among all letters of a text, from 0 to 1; 0 without letters."""
    return len(letters.findall(text)) / max(len(LETTER.findall(text)), 1)


def ends_closed(text: str) -> bool:
    """Whether a word ends in a consonant as it is read aloud."""
    last = re.sub(r"[^0-9A-Za-z가-힣]", "", text)[-1:].lower()
    if "가" <= last <= "힣":
        return (ord(last) - 0xAC00) % 28 > 0
    return last in _CLOSED


def particle(word: str, closed_form: str) -> str:
    """The form of a particle that fits a word: particle("서울", "으로") is "로".

    Args:
      closed_form: its form after a consonant, a key of PARTICLES.
    """
    if not ends_closed(word):
        return PARTICLES[closed_form]
    last = re.sub(r"[^0-9A-Za-z가-힣]", "", word)[-1:].lower()
    rieul = last in "l178r" or ("가" <= last <= "힣" and (ord(last) - 0xAC00) % 28 == 8)
    return "로" if closed_form == "으로" and rieul else closed_form


def native_number(n: int) -> str:
    """1 to 99 before a counter: 한, 두, ..., 스무, 스물한."""
    return "스무" if n == 20 else _NATIVE_TENS[n // 10] + _NATIVE_ONES[n % 10]


def sino_number(n: int) -> str:
    """1 to 9999: 십오, 이백."""
    out = ""
    for unit, name in ((1000, "천"), (100, "백"), (10, "십"), (1, "")):
        digit, n = divmod(n, unit)
        if digit:
            out += ("" if digit == 1 and name else _SINO[digit]) + name
    return out


_NATIVE = {**{native_number(n): n for n in range(1, 100)}, **_VARIANTS}
_SINO_UNITS = {"십": 10, "백": 100, "천": 1000, "만": 10_000}
_COUNTER = re.compile(r"줄|행|번|회|개|초|라인|차례|군데|패킷|분|단계|레벨|뎁스|건|글자|쪽|장|칸")
_DIGITS = re.compile(r"(\d[\d,]*)\s?([십백천만]?)")
_LAST_WORDS = re.compile(r"(?<![\d가-힣])([가-힣]+(?: [가-힣]+)?) ?$")


def parse_number(word: str) -> int | None:
    """The number that a word spells, native (열다섯) or Sino-Korean (십오), or None."""
    if word in _NATIVE:
        return _NATIVE[word]
    total = part = digit = 0
    for c in word:
        if c in _SINO[1:]:
            if digit:
                return None
            digit = _SINO.index(c)
        elif unit := _SINO_UNITS.get(c):
            if unit == 10_000:
                total, part, digit = total + (part + digit or 1) * unit, 0, 0
            else:
                part, digit = part + (digit or 1) * unit, 0
        else:
            return None
    return total + part + digit or None


def numbers_in(text: str) -> list[int]:
    """Whole numbers that a text names in digits, or in words before a counter."""
    found = []
    for match in _DIGITS.finditer(text):
        digits = int(match[1].replace(",", "")[:9] or 0)
        found.append(digits * _SINO_UNITS.get(match[2], 1))
        if match[2] == "만":  # or the particle: 41459만 보여줘
            found.append(digits)
    for counter in _COUNTER.finditer(text):
        # The number is what stands nearest to the counter: "위에서 다섯 줄", "맨 뒤열 다섯 개".
        if before := _LAST_WORDS.search(text[max(0, counter.start() - 20) : counter.start()]):
            word = before[1].replace(" ", "")
            tails = (parse_number(word[i:]) for i in range(len(word)))
            found.append(next((n for n in tails if n), 0))
    return list(dict.fromkeys(n for n in found if n))


def split_particles(word: str) -> list[str]:
    """The word, and what is left of it without the particles that may be glued to it.

    split_particles("메모를") is ["메모를", "메모"].
    """
    found = [word]
    for _ in range(2):  # 폴더 + 로, 파일 + 만
        for base in list(found):
            found += [base[: -len(p)] for p in GLUED if len(base) > len(p) and base.endswith(p)]
    return list(dict.fromkeys(found))

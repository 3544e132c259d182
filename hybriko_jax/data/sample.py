"""A seeded Korean sample corpus written from the project's own sentence material.

Nothing is downloaded: every document is put together from the tables below.  The tables use a
small template language, in which `` / `` stands between sentences:

* ``{name}`` is a slot.  Its word is drawn once per document, so people, places and things recur.
  ``{name2}`` is another word of the same list, ``{*name}`` is drawn afresh every time.
* ``{name:을}`` adds the particle that fits the word's final consonant (see ``JOSA``).
* ``{#3-9}`` is a whole number from 3 to 9, ``{#10-30-5}`` one of 10, 15, 20, 25 and 30.

A *plan* is a list of stages.  A stage starts with a marker and a count (``@ 2-3``: pick two or
three of the following sentences, in order); ``*`` stands for the sentences of the document's
topic.  ``@`` usually opens a paragraph, ``+`` continues one, ``%`` gives each pick its own.

A *topic* is a block of ``# slot = word / word ; slot = word`` headers followed by sentences.
"""

import datetime
import random
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

# --- Particles: (after a final consonant, after a vowel) -----------------------------------

JOSA_PAIRS = "은/는 이/가 을/를 과/와 으로/로 이에요/예요 이라는/라는 아/야"
JOSA = {pair.split("/")[0]: pair.split("/") for pair in JOSA_PAIRS.split()}

# --- Slot words ------------------------------------------------------------------------------

WORDS_TEXT = {
    "person": """지민, 서연, 민준, 하은, 도윤, 수아, 준호, 예린, 태현, 유나, 성훈, 미라, 동욱,
        은비, 재희, 소율, 현우, 가영, 승민, 나래, 정우, 보람, 한결, 다온, 영수, 순희, 철민, 혜진,
        규리, 상호, 윤서, 라온, 진수, 아름, 건우, 선아, 찬영, 이슬, 대호, 주은""",
    "place": """도서관, 시장, 공원, 우체국, 서점, 미술관, 박물관, 빵집, 카페, 체육관, 수영장,
        강변, 꽃집, 문구점, 놀이터, 기차역, 영화관, 동네 책방, 호숫가, 식물원, 과학관, 분식집,
        마을 회관, 주말농장, 약수터, 뒷산 입구, 구청 광장, 학교 운동장, 떡집, 사진관""",
    "object": """우산, 공책, 열쇠고리, 모자, 손수건, 카메라, 만년필, 엽서, 지도, 안경, 손목시계,
        목도리, 일기장, 사진첩, 편지지, 라디오, 장갑, 필통, 배낭, 물병, 나침반, 손전등, 돋보기,
        하모니카, 동전 지갑, 오르골, 인형, 부채, 책갈피, 도시락통""",
    "animal": """고양이, 강아지, 참새, 까치, 오리, 토끼, 비둘기, 청설모, 박새, 까마귀, 직박구리,
        동고비, 족제비""",
    "hobby": """사진 찍기, 뜨개질, 달리기, 기타 연습, 그림 그리기, 영어 회화, 요가, 등산, 바둑,
        수영, 자전거 타기, 피아노 연습, 도자기 만들기, 글쓰기, 코딩 공부, 텃밭 가꾸기, 우표 수집,
        별 보기, 춤 연습, 붓글씨, 탁구, 목공, 노래 부르기, 종이접기""",
    "food": """김밥, 비빔밥, 칼국수, 냉면, 된장찌개, 떡볶이, 만두, 우동, 카레, 샌드위치, 볶음밥,
        순두부찌개, 잔치국수, 돈가스, 육개장, 감자전, 수제비, 콩나물국밥, 오므라이스, 불고기""",
    "drink": """보리차, 커피, 녹차, 유자차, 코코아, 우유, 생강차, 매실차, 두유, 대추차, 홍차,
        율무차, 쌍화차, 모과차""",
    "family": "어머니, 아버지, 할머니, 할아버지, 동생, 이모, 삼촌, 고모, 사촌",
    "elder": "할머니, 할아버지, 어머니, 아버지, 이모, 삼촌, 고모, 외할머니, 외할아버지",
    "job": """선생님, 의사, 목수, 기자, 요리사, 사서, 정원사, 집배원, 소방관, 간호사, 농부,
        기관사, 약사, 사진사, 화가, 번역가, 개발자, 어부, 수의사, 건축가""",
    "color": "빨간, 파란, 노란, 하얀, 까만, 초록색, 보라색, 회색, 분홍색, 갈색, 하늘색, 주황색",
    "adverb": "천천히, 조심스럽게, 조용히, 서둘러, 신나게, 씩씩하게, 부지런히, 느긋하게",
    "feeling": """기분이 좋았다, 마음이 놓였다, 괜히 웃음이 났다, 가슴이 뿌듯했다, 힘이 났다,
        마음이 따뜻해졌다, 왠지 설렜다, 마음이 가벼웠다, 입가에 미소가 번졌다""",
    "subject": "수학, 국어, 역사, 영어, 과학, 음악, 미술, 체육, 지리, 한문, 사회, 통계학",
    "event": """음악회, 벼룩시장, 독서 모임, 체육 대회, 사진 전시회, 요리 교실, 코딩 교실,
        소방 훈련, 김장 나눔 행사, 환경 정화 활동, 영화 상영회, 글짓기 대회, 헌혈 행사,
        주민 간담회, 걷기 대회, 바둑 대회, 도자기 체험, 천문 관측회""",
    "org": """주민 센터, 관리 사무소, 시립 도서관, 학생회, 평생 학습관, 청소년 센터, 문화 회관,
        구립 체육관, 자원봉사 센터, 환경 동아리, 총무팀, 마을 조합""",
    "room": """대강당, 3층 회의실, 1층 로비, 시청각실, 다목적실, 옥상 정원, 지하 강의실,
        201호 강의실, 야외 무대, 소극장, 중앙 광장, 체험 학습실""",
    "item": """편한 신발, 필기도구, 개인 컵, 신분증, 돗자리, 작은 물병, 얇은 겉옷, 실내화,
        장바구니, 앞치마""",
    "file": """report_2024.txt, notes.md, data.csv, config.yaml, train.log, index.html, main.py,
        todo.txt, results.json, server.log, budget_2025.csv, draft_v2.txt, access.log,
        memo_0315.txt, words.txt, readme.md""",
    "dir": "docs, src, backup, photos, logs, project, data, archive, scripts, reports, drafts, old",
    "user": "minsu, jiwoo, dev01, student, guest, sora, tester, hana, user3, bora",
    "project": """Python 번역기, 가계부 앱, 날씨 API, 챗봇, 사내 위키, 검색 엔진, 일정 관리 앱,
        사진 정리 프로그램, 퀴즈 게임, 뉴스레터, 데이터 분석 도구, 모바일 쇼핑몰""",
    "work": """meeting, 코드 review, demo 준비, 발표 자료 정리, 고객 인터뷰, 디자인 회의, QA 점검,
        예산 검토, 신입 교육, 문서 작성, 서버 점검, 주간 회고, workshop 준비, 화상 회의""",
    "fruit": """사과, 배, 귤, 감, 자두, 복숭아, 참외, 살구, 토마토, 감자, 고구마, 옥수수, 키위,
        참다래""",
    "sheet": "색종이, 스티커, 엽서, 우표, 사진, 그림 카드, 도화지, 쿠폰",
    "goods": "지우개, 연필 세트, 물감, 색연필, 가위, 풀, 필통, 줄넘기, 배드민턴공, 손거울, 돋보기",
    "shop": "편의점, 문구점, 마트, 온라인 쇼핑몰, 동네 가게, 전자 상가, 공동 구매, 중고 장터",
    "title": "푸른 언덕, 느린 기차, 달빛 상점, 열두 번째 계단, 바람의 지도, 고요한 항구, 작은 등대",
}

# --- Topics: headers bind slots, the lines below them are the topic's own sentences ------------

SEASONS = """
# season = 봄 ; month = 3월 / 4월 / 5월
# sky = 하늘이 맑고 바람이 부드러웠다 / 옅은 안개가 끼었다 / 봄비가 조용히 내렸다 / 햇살이 따뜻했다
# bloom = 벚꽃 / 개나리 / 진달래 / 목련 / 철쭉 ; wear = 얇은 겉옷 / 가벼운 카디건 / 봄 점퍼
# snack = 딸기 / 쑥떡 / 냉이된장국 / 화전
겨우내 얼어 있던 땅이 녹으면서 흙냄새가 올라왔다. / 낮 기온은 {#12-22}도까지 올랐지만 아침저녁으로는
아직 쌀쌀했다. / 황사가 심한 날에는 창문을 닫고 지냈다. / 밭에서는 농부들이 감자를 심느라 바빴다. /
새 학기를 맞은 아이들이 큰 가방을 메고 걸어갔다. / 나뭇가지마다 연둣빛 새순이 돋아났다.
# season = 여름 ; month = 6월 / 7월 / 8월
# sky = 아침부터 무더웠다 / 소나기가 쏟아졌다 / 장맛비가 하루 종일 내렸다
# bloom = 해바라기 / 수국 / 나팔꽃 / 능소화 / 연꽃
# wear = 얇은 반소매 셔츠 / 밀짚모자 / 시원한 샌들 ; snack = 수박 / 팥빙수 / 콩국수 / 찐 옥수수
한낮 기온이 {#30-36}도를 넘어 그늘을 찾아다녔다. / 매미가 아침부터 쉬지 않고 울었다. / 장마가
길어지자 빨래가 좀처럼 마르지 않았다. / 아이들은 분수대에서 물을 맞으며 뛰놀았다. / 밤에도 더위가
식지 않아 선풍기를 켜고 잤다. / 소나기가 지나간 뒤에는 풀 냄새가 짙게 퍼졌다.
# season = 가을 ; month = 9월 / 10월 / 11월
# sky = 하늘이 높고 푸르렀다 / 바람이 제법 선선했다 / 안개가 걷히고 해가 났다
# bloom = 코스모스 / 국화 / 억새 / 구절초 / 쑥부쟁이 ; wear = 도톰한 스웨터 / 긴소매 셔츠 / 바람막이
# snack = 군밤 / 송편 / 홍시 / 햇사과
산은 위쪽부터 조금씩 붉게 물들었다. / 아침 기온이 {#5-12}도까지 내려가 입김이 보였다. / 들판에는
누렇게 익은 벼가 고개를 숙였다. / 은행잎이 떨어져 길이 온통 노랗게 변했다. / 귀뚜라미 소리가
밤늦도록 이어졌다. / 해가 짧아져 저녁 산책을 조금 일찍 나섰다.
# season = 겨울 ; month = 12월 / 1월 / 2월
# sky = 밤새 눈이 쌓였다 / 찬 바람이 매섭게 불었다 / 하늘이 잔뜩 흐렸다 / 춥지만 햇볕은 밝았다
# bloom = 동백꽃 / 눈꽃 / 서리꽃 / 수선화 ; wear = 두꺼운 외투 / 털장갑 / 긴 목도리
# snack = 군고구마 / 호빵 / 떡국 / 붕어빵
기온이 영하 {#3-14}도까지 떨어져 강물이 얼었다. / 아이들은 골목 끝에서 눈사람을 만들었다. / 처마
끝에는 고드름이 길게 매달렸다. / 건조한 날이 이어져 가습기를 틀어 두었다. / 길이 미끄러워서 모두
종종걸음으로 다녔다. / 따뜻한 방에 모여 앉아 귤을 까먹는 시간이 즐거웠다."""

RECIPES = """
# dish = 김치볶음밥 ; main = 잘 익은 김치 ; side = 달걀 프라이
김치는 잘게 썰고 양파는 {#2-3}숟가락 분량만 다져 주세요. / 팬에 기름을 두르고 김치를 중불에서
{#3-5}분 동안 볶아요. / 밥 {#1-2}공기를 넣고 뭉친 밥알을 풀어 가며 섞어요. / 간장 반 숟가락을 팬
가장자리에 둘러 향을 내요. / 불을 끄고 참기름을 조금 넣어 마무리해요.
# dish = 된장찌개 ; main = 두부 ; side = 열무김치
멸치와 다시마를 넣고 육수를 {#10-15-5}분 정도 끓여요. / 감자와 애호박은 한입 크기로 썰어 두세요. /
육수에 된장 {#2-3}숟가락을 풀고 감자부터 넣어요. / 감자가 반쯤 익으면 애호박과 두부를 넣어요. /
마지막에 대파와 고추를 올리고 한소끔 더 끓이면 돼요.
# dish = 잡채 ; main = 당면 ; side = 동치미
당면은 미지근한 물에 {#30-40-5}분쯤 불려 주세요. / 시금치는 살짝 데쳐 찬물에 헹군 뒤 물기를 꼭 짜요.
/ 당근, 양파, 버섯은 따로따로 볶아야 색이 살아요. / 삶은 당면에 간장과 설탕, 참기름을 넣고 버무려요.
/ 볶은 채소를 모두 섞고 통깨를 뿌려요.
# dish = 토마토 파스타 ; main = 토마토 ; side = 마늘빵
넓은 냄비에 물을 끓이고 소금을 한 숟가락 넣어요. / 스파게티 면은 {#8-10}분 동안 삶아 건져요. /
올리브유에 마늘을 볶다가 잘게 썬 토마토를 넣어요. / 소스가 걸쭉해지면 면수를 반 국자 넣고 면을
섞어요. / 접시에 담고 치즈 가루와 바질 잎을 올려요.
# dish = 미역국 ; main = 마른미역 ; side = 깍두기
마른미역은 찬물에 {#15-20-5}분 동안 불려 주세요. / 불린 미역을 참기름에 달달 볶아요. / 국간장 한
숟가락을 넣고 조금 더 볶아 간이 배게 해요. / 물 {#5-6}컵을 붓고 중불에서 {#20-30-5}분 끓여요. / 다진
마늘을 넣고 부족한 간은 소금으로 맞춰요.
# dish = 채소 카레 ; main = 감자와 당근 ; side = 단무지
감자와 당근, 양파를 비슷한 크기로 썰어요. / 양파가 갈색이 될 때까지 약불에서 오래 볶아 주세요. /
나머지 채소를 넣고 물 {#3-4}컵을 부어 끓여요. / 불을 잠시 끄고 카레 가루를 덩어리 없이 풀어요. /
다시 약불로 {#8-12}분 저어 가며 끓이면 완성이에요."""

SCIENCE = """
# topic = 무지개
무지개는 햇빛이 물방울 안에서 꺾이고 반사되어 생깁니다. / 빛은 색마다 꺾이는 정도가 조금씩 다릅니다.
/ 그래서 하얀 햇빛이 여러 색으로 나뉘어 보입니다. / 무지개를 보려면 해를 등지고 서야 합니다. /
바깥쪽은 붉은색이고 안쪽은 보라색입니다. / 분수나 물뿌리개로도 작은 무지개를 만들 수 있습니다.
# topic = 밀물과 썰물
바닷물의 높이는 하루에 대개 두 번씩 오르내립니다. / 가장 큰 원인은 달이 지구를 끌어당기는 힘입니다.
/ 태양의 중력도 영향을 주지만 달보다는 작습니다. / 해와 달과 지구가 한 줄로 놓이면 물높이 차이가 더
커집니다. / 우리나라 서해안은 밀물과 썰물의 차이가 큰 곳입니다. / 썰물 때 드러나는 넓은 땅을
갯벌이라고 부릅니다.
# topic = 광합성
식물은 햇빛을 이용해 스스로 양분을 만듭니다. / 잎은 공기에서 이산화탄소를, 뿌리는 땅에서 물을
얻습니다. / 식물은 이산화탄소와 물로 포도당을 만들고 산소를 내보냅니다. / 이 일은 잎 속의 엽록체에서
일어납니다. / 엽록소는 초록빛을 덜 흡수하기 때문에 잎이 초록색으로 보입니다. / 빛이 없는 밤에는 이
과정이 멈추고 호흡만 이어집니다.
# topic = 번개
구름 속에서 얼음 알갱이들이 부딪치면 전기가 쌓입니다. / 쌓인 전기가 한꺼번에 흐를 때 밝은 빛이
납니다. / 주변 공기가 갑자기 뜨거워져 팽창하면서 천둥소리가 납니다. / 빛이 소리보다 훨씬 빠르기
때문에 천둥은 늦게 들립니다. / 번쩍인 뒤 3초쯤 지나 소리가 나면 약 1km 떨어진 곳입니다. / 벼락이 칠
때는 큰 나무 밑을 피하고 건물 안으로 들어가야 합니다.
# topic = 소리
소리는 물체의 떨림이 공기를 통해 퍼지는 것입니다. / 공기 중에서 소리는 1초에 약 340m를 갑니다. /
물속에서는 공기 중보다 네 배 넘게 빠릅니다. / 떨림이 빠르면 높은 소리가, 느리면 낮은 소리가 납니다.
/ 진공에는 떨림을 전할 물질이 없어서 소리가 퍼지지 않습니다. / 박쥐는 사람이 듣지 못하는 높은 소리로
주변을 살핍니다.
# topic = 인공지능 언어 모델
언어 모델은 앞에 나온 말을 보고 다음에 올 말을 예측합니다. / 글은 먼저 token이라는 작은 조각으로
나뉩니다. / 모델은 많은 글을 읽으며 예측이 틀린 만큼 값을 조금씩 고칩니다. / 이런 계산에는 GPU처럼
많은 곱셈을 한꺼번에 하는 장치가 쓰입니다. / 모델이 크다고 해서 답이 늘 옳은 것은 아닙니다. / 그래서
중요한 내용은 사람이 다시 확인해야 합니다."""

LINUX = """
# goal = 파일 목록 보기 ; cmd = `ls -l` / `ls -la` / `ls -lh`
이 명령은 파일의 권한, 소유자, 크기, 수정 시간을 한 줄씩 보여 준다. / 이름이 점으로 시작하는 숨은
파일까지 보려면 `-a` 옵션을 붙인다. / `ls -lt`라고 쓰면 최근에 고친 {file:이} 위쪽에 나타난다.
# goal = 파일 복사하기 ; cmd = `cp {file} backup_{file}` / `cp -i {file} /tmp`
첫 번째 이름은 원본이고 두 번째 이름은 새로 생길 복사본이나 폴더이다. / 폴더 전체를 복사할 때는 `cp
-r {dir} {dir}_copy`처럼 `-r` 옵션을 쓴다. / 같은 이름의 파일이 있으면 덮어쓰므로 `-i` 옵션으로
확인을 받는 편이 안전하다.
# goal = 파일 이름 바꾸기 ; cmd = `mv {file} new_{file}` / `mv -n {file} old_{file}`
`mv`는 파일을 옮기는 명령이지만 같은 폴더에서 쓰면 이름이 바뀐다. / 여러 파일을 옮기려면 맨 끝에
`{dir}/` 같은 폴더 이름을 적는다. / `-n` 옵션을 주면 이미 있는 파일을 덮어쓰지 않는다.
# goal = 글자 찾기 ; cmd = `grep error {file}` / `grep -n error {file}` / `grep -i error {file}`
`grep`은 파일에서 원하는 글자가 들어 있는 줄만 골라 보여 준다. / `-n` 옵션은 줄 번호를, `-i` 옵션은
대소문자를 구분하지 않는 검색을 뜻한다. / `grep -r error {dir}`처럼 쓰면 폴더 안을 모두 뒤진다.
# goal = 권한 바꾸기 ; cmd = `chmod u+x {file}` / `chmod 644 {file}` / `chmod 600 {file}`
권한은 읽기(r), 쓰기(w), 실행(x) 세 가지로 나뉜다. / 숫자로 쓸 때는 읽기 4, 쓰기 2, 실행 1을 더한
값을 적는다. / 파일 주인을 바꾸려면 관리자 권한으로 `chown {user} {file}` 명령을 쓴다.
# goal = 파일 내용 보기
# cmd = `cat {file}` / `less {file}` / `head -n 20 {file}` / `tail -n 20 {file}`
짧은 파일은 `cat`으로, 긴 파일은 `less`로 보는 것이 편하다. / `less`에서는 스페이스 키로 다음 쪽을
보고 q 키로 빠져나온다. / `tail -f {file}` 명령은 새로 추가되는 내용을 계속 보여 준다.
# goal = 실행 중인 프로그램 확인하기 ; cmd = `ps aux` / `top` / `ps -u {user}`
프로그램마다 PID라는 고유한 번호가 붙어 있다. / 멈추지 않는 프로그램은 `kill` 뒤에 그 번호를 적어
끝낼 수 있다. / 메모리를 얼마나 쓰는지는 `free -h`로 확인한다."""

TRIPS = """
# city = 부산 ; sight = 해운대 / 광안리 / 태종대 / 감천 문화 마을
# dishes = 돼지국밥 / 밀면 / 씨앗호떡 ; ride = KTX / 고속버스
밤이 되자 다리 위의 불빛이 바다에 길게 비쳤다. / 자갈치 시장에서는 상인들의 목소리가 활기찼다.
# city = 경주 ; sight = 불국사 / 첨성대 / 대릉원 / 동궁과 월지 ; dishes = 황남빵 / 쌈밥 / 찰보리빵
# ride = 고속버스 / KTX
자전거를 빌려 커다란 무덤 사이를 달렸다. / 천 년 전 사람들도 같은 달을 보았으리라 생각했다.
# city = 제주 ; sight = 성산 일출봉 / 협재 해변 / 비자림 / 한라산
# dishes = 고기국수 / 옥돔구이 / 감귤 주스 ; ride = 비행기 / 배
돌담 너머로 노란 귤이 주렁주렁 달려 있었다. / 바람이 세서 모자를 두 번이나 놓칠 뻔했다.
# city = 강릉 ; sight = 경포대 / 오죽헌 / 안목 해변 / 정동진
# dishes = 초당 순두부 / 감자옹심이 / 커피 ; ride = KTX / 고속버스
소나무 숲 사이로 파도 소리가 들려왔다. / 새벽에 일어나 바다 위로 해가 떠오르는 모습을 보았다.
# city = 전주 ; sight = 한옥 마을 / 경기전 / 전동 성당 / 덕진 공원
# dishes = 비빔밥 / 콩나물국밥 / 수제 초코파이 ; ride = 기차 / 고속버스
기와지붕이 이어진 골목을 느린 걸음으로 걸었다. / 한지로 작은 등을 만드는 체험도 해 보았다.
# city = 여수 ; sight = 오동도 / 돌산 공원 / 향일암 / 해양 공원
# dishes = 갓김치 / 게장 백반 / 서대회무침 ; ride = KTX / 고속버스
케이블카를 타고 바다 위를 천천히 건넜다. / 항구에는 작은 고깃배들이 줄지어 묶여 있었다."""

PRODUCTS = """
# product = 무선 이어폰
소리가 생각보다 또렷해서 지하철에서도 가사가 다 들려요. / 충전 케이스가 작아서 주머니에 쏙
들어가네요. / 다만 바람 부는 날 통화하면 상대방이 잘 안 들린대요 ㅠㅠ
# product = 보온병
아침에 담은 보리차가 점심때까지 따뜻해요. / 뚜껑이 꽉 닫혀서 가방에 눕혀도 안 새요. / 입구가 좁아서
씻기는 조금 귀찮아요…
# product = 블루투스 키보드
타자 치는 느낌이 쫀득하고 소리도 조용해요. / 노트북이랑 태블릿을 버튼 하나로 오갈 수 있어서 편해요.
/ 한글 자판 글씨가 작아서 처음엔 좀 헷갈렸어요 ㅋㅋ
# product = 책상 스탠드
밝기를 여러 단계로 바꿀 수 있어서 밤에 책 읽기 좋아요. / USB 단자가 있어서 휴대폰 충전도 돼요. /
받침이 생각보다 커서 책상이 좁은 분은 크기를 꼭 보세요.
# product = 보조 배터리
휴대폰을 두 번은 꽉 채워 줘서 여행 갈 때 든든해요. / 남은 양이 숫자로 나와서 보기 편해요. / 무게가
좀 있어서 오래 들고 있으면 손목이 아파요.
# product = 에어프라이어
냉동 만두가 겉은 바삭하고 속은 촉촉하게 나와요. / 바구니가 통째로 빠져서 설거지가 쉬워요. / 돌아가는
소리는 드라이어 정도로 크긴 해요…"""

CHATS = """
# matter = 컴퓨터
{person}: 노트북이 자꾸 느려지는데 왜 그럴까요? {person2}: 켜 둔 프로그램이 많으면 느려져요. 안 쓰는
것부터 닫아 보세요. / {person}: 실수로 지운 {file:은} 되살릴 수 있나요? {person2}: 휴지통을 먼저
확인해 보세요. 거기 있으면 바로 복원할 수 있어요. / {person}: 비밀번호는 어떻게 만드는 게 좋아요?
{person2}: 길고 서로 다르게 만드는 게 중요해요. password manager를 쓰면 편해요. / {person}: Wi-Fi가
자꾸 끊겨요. {person2}: 공유기를 껐다가 {#20-30-10}초 뒤에 다시 켜 보세요. 그래도 안 되면 자리를
옮겨 보시고요.
# matter = 요리
{person}: {food:을} 처음 만들어 보려고 해요. 어렵나요? {person2}: 순서만 잘 지키면 어렵지 않아요.
간은 마지막에 맞추세요. / {person}: 밥이 너무 질게 됐어요. {person2}: 뚜껑을 열고 잠시 김을 빼
보세요. 다음에는 물을 조금만 덜 넣으면 돼요. / {person}: 양파를 썰 때 눈물이 너무 나요. {person2}:
냉장고에 잠깐 넣었다가 썰어 보세요. 칼이 잘 들어도 훨씬 덜 매워요. / {person}: 남은 국은 얼마나
보관해도 돼요? {person2}: 식혀서 냉장고에 넣고 이틀 안에 드세요. 먹기 전에는 꼭 다시 끓이시고요.
# matter = 공부
{person}: {subject} 시험이 {#3-9}일 남았어요. 뭐부터 할까요? {person2}: 틀린 문제부터 다시 풀어
보세요. 새 문제집은 나중에 사도 돼요. / {person}: 책상에 앉으면 자꾸 졸려요. {person2}:
{#20-40-10}분 공부하고 5분씩 일어나 보세요. 창문을 여는 것도 도움이 돼요. / {person}: 영어 단어가 잘
안 외워져요. {person2}: 짧은 문장에 넣어서 소리 내어 읽어 보세요. 자기 전에 한 번 더 보면 오래 가요.
/ {person}: 같이 공부할 만한 곳이 있을까요? {person2}: 도서관 2층이 조용해요. 오후에는 자리가 없으니
일찍 가세요.
# matter = 취미
{person}: 요즘 {hobby:을} 시작했는데 잘 안 늘어요. {person2}: 처음에는 다 그래요. 매일
{#10-20-5}분씩만 해도 한 달 뒤에는 달라져요. / {person}: 준비물은 어디에서 사세요? {person2}: 저는
{place} 근처 가게에서 사요. 주인이 친절해서 물어보기 좋아요. / {person}: 혼자 하니까 심심하네요.
{person2}: 그럼 {org}에서 하는 모임에 같이 가요. 처음 온 사람도 많아요. / {person}: {hobby2:은}
어때요? {person2}: 그것도 재미있어요. 다만 돈이 조금 더 들어요."""

# --- Plans --------------------------------------------------------------------------------------

DIARY = """
@ 1 {month} {#1-28}일, {sky}. / 오늘은 {month} {#1-28}일이다. {sky}. / {sky}. {month}의 어느 평범한
하루였다.
+ 1-2 늦잠을 자는 바람에 아침은 {drink} 한 잔으로 때웠다. / {wear:을} 꺼내 놓고 {family:과} 함께
아침을 먹었다. / 알람보다 먼저 일어나 방 청소부터 했다. / 창밖을 보며 {drink:을} 마시는 시간이 참
좋았다.
@ 1 점심 무렵 {person:을} 만나 {place} 쪽으로 걸어갔다. / {place} 앞에서 우연히 {person:을} 만났다.
/ {person:이} 전화를 걸어 와서 {place} 앞에서 보기로 했다.
+ 2-4 우리는 {food:을} 먹으며 {*hobby} 이야기를 한참 나누었다. / {person:은} 요즘 {hobby}에 푹 빠져
지낸다고 했다. / 돌아오는 길에 {color} {object:을} 하나 샀다. / {person:이} 전에 빌려 간
{object2:을} 돌려주었다. / 길모퉁이에서 {animal} 한 마리가 우리를 빤히 쳐다보았다. / {place} 쪽은
사람이 많아서 조용한 길로 {#2-9}분쯤 돌아갔다. / 헤어지기 아쉬워 {drink:을} 한 잔씩 더 마셨다.
@ 2-3 집에 오니 {family:이} {snack:을} 준비해 두었다. / 저녁에는 밀린 빨래를 하고 책상을 정리했다. /
자기 전에 소설책 『{title}』 앞부분을 {#10-60}쪽쯤 읽었다. / 휴대폰을 끄고 조용한 음악을 틀어
놓았다. / 창문을 여니 {bloom} 사진을 찍던 작년 이맘때가 떠올랐다.
+ 1-2 별일 없는 하루였지만 {feeling}. / 내일은 {place2}에도 가 보고 싶다. / {person:과} 나눈 말이
자꾸 생각났다. / 이렇게 적어 두면 나중에 다시 읽는 재미가 있다."""

WORK_DIARY = """
@ 1-2 {t1}에 사무실에 도착했다. / 오늘은 {project} 일로 하루가 꽉 찼다. / {project} 마감이 {#2-9}일
앞으로 다가왔다.
+ 1-2 먼저 밤사이 들어온 email {#5-40}통을 확인했다. / {drink} 한 잔을 옆에 두고 할 일 목록을
적었다. / {person:이} 먼저 와서 {file:을} 열어 보고 있었다.
@ 2-4 오전에는 {work:과} {work2:이} 이어졌다. / {person:은} 사용자 feedback을 표로 정리해 보여
주었다. / 우리는 버그 {#3-12}개를 찾아 그중 {#1-2}개를 바로 고쳤다. / test가 자꾸 실패해서 {file:을}
처음부터 다시 읽었다. / 알고 보니 설정 파일의 띄어쓰기 하나가 문제였다. / 점심으로 {food:을}
먹으면서도 {project} 이야기만 했다.
@ 2-3 오후에 {person2:이} {work3:을} 도와주었다. / 발표 slide는 {#8-20}장으로 줄이기로 했다. /
회의가 길어져서 {*drink:을} 두 잔이나 마셨다. / {person:이} "급할수록 작은 것부터 고치자"라고
말했다. / 완성한 내용을 {dir} 폴더에 저장하고 동료에게 알렸다.
+ 2 퇴근길에 {place} 앞을 지나며 잠시 쉬었다. / 내일은 {*work}부터 시작할 생각이다. / 힘든
하루였지만 {feeling}. / 배운 것을 잊지 않으려고 이렇게 적어 둔다."""

WEATHER = """
@ 1-2 {season:이} 되면 가장 먼저 {bloom:이} 떠오른다. / {month:은} {season:을} 느끼기에 좋은 때이다.
/ 올해 {season:은} 작년보다 조금 일찍 찾아온 것 같다. / 우리 동네의 {season:은} {place} 앞에서
시작된다.
+ 1-2 어제는 {sky}. / {person:은} {season:이} 오면 늘 {wear:을} 꺼낸다. / 달력을 보니 어느새 {month}
{#2-27}일이었다.
@ 3-5 *
@ 2-4 {place}에 가면 {bloom:을} 가까이에서 볼 수 있다. / {person:은} {bloom} 사진을 {#5-30}장이나
찍었다. / 이맘때는 역시 {snack:이} 제일 맛있다. / {family:은} {snack:을} 나누어 먹자며 우리를
불렀다. / {animal} 한 마리가 길을 가로질러 갔다. / 뉴스에서는 주말에 날씨가 바뀐다고 전했다.
+ 1-2 계절은 말없이 왔다가 말없이 지나간다. / {season:이} 다 가기 전에 {person:과} {place}에 다시
가기로 했다. / 작은 변화를 알아차리는 것만으로도 하루가 새롭다. / 내년 {season}에도 같은 자리에서 이
풍경을 보고 싶다."""

RECIPE = """
@ 1 오늘은 {family:과} 함께 집에 있는 재료로 {dish:을} 만들어 볼게요. / {person} 님이 물어보신
{dish} 만드는 법을 정리했어요.
+ 1-2 가장 중요한 재료는 {main:이에요}. / {#2-4}인분 기준이고 준비부터 완성까지 {#30-60-10}분 정도
걸려요. / 어려운 과정이 없어서 요리가 처음인 분도 할 수 있어요. / {place} 근처 가게에서 {main:을}
싸게 사 왔어요.
@ 9 *
@ 2-3 곁들이는 음식으로는 {side:이} 잘 어울려요. / 남은 것은 식혀서 냉장고에 넣고 {#2-3}일 안에
드세요. / 취향에 따라 깨나 후추를 조금 뿌려도 좋아요. / {elder}도 맛있다며 한 그릇을 다 비우셨어요.
/ 양념은 한꺼번에 넣지 말고 맛을 보면서 더하세요. / 다 먹은 뒤에 {drink} 한 잔을 마시니 속이
편안했어요.
+ 1 다음에는 {food:을} 만들어 볼게요! / {person} 님, 만들어 보고 맛이 어땠는지 알려 주세요. / 맛있게
드세요!"""

LINUX_HOWTO = """
@ 1-2 이 글에서는 Linux에서 {goal:을} 다룬다. / {person:은} 처음 Linux를 쓸 때 {goal:이} 가장
어려웠다고 한다. / 터미널이 낯설어도 {goal:은} 금방 익힐 수 있다. / 준비물은 터미널 하나와
{user:이라는} 계정뿐이다.
@ 1 먼저 터미널을 열고 {cmd:을} 입력한다. / `cd /home/{user}/{dir}`로 이동한 뒤 {cmd:을} 실행한다.
+ 9 *
@ 2-4 예를 들어 {file:이} {#2-90}KB라면 눈 깜짝할 사이에 끝난다. / "Permission denied"라는 메시지가
나오면 권한이 없다는 뜻이다. / "No such file or directory"가 나오면 파일 이름을 다시 살펴보자. /
명령의 자세한 설명은 `man` 뒤에 명령 이름을 적으면 볼 수 있다. / 탭 키를 누르면 긴 파일 이름이
자동으로 완성된다. / 위쪽 화살표 키를 누르면 앞에서 쓴 명령이 다시 나타난다. / {dir} 폴더에는 {file}
외에 {file2}도 들어 있다고 하자. / 중요한 파일은 다른 디스크에도 backup해 두는 것이 좋다.
+ 1-2 처음에는 연습용 폴더에서 시험해 보기를 권한다. / {cmd:을} 세 번만 직접 쳐 보면 손이 기억한다.
/ 다음 글에서는 간단한 shell script를 만들어 보겠다."""

SCIENCE_TALK = """
@ 1-2 오늘은 {person} 님과 함께 {topic:을} 쉽게 알아보겠습니다. / {person} 님은 {topic}에 대해
궁금했던 적이 있습니까? / {place}에서 만난 {person:이} {topic:이} 무엇인지 물었습니다. / {topic:은}
우리 생활과 가까운 이야기입니다.
@ 4-6 *
@ 2-3 {person:은} 설명을 듣고 공책에 그림을 그렸습니다. / {job} 한 분은 {topic} 이야기를 아이들에게
자주 들려준다고 합니다. / 어려운 말보다 직접 관찰하는 것이 이해에 도움이 됩니다. / 과학은 당연해
보이는 일에 "왜?"라고 묻는 데서 시작합니다. / {#2-5}명씩 모둠을 지어 조사한 내용을 발표해 봅시다. /
더 알고 싶다면 도서관이나 과학관에서 관련 자료를 찾아보십시오.
+ 1 다음 시간에는 {person2:이} 추천한 주제로 찾아뵙겠습니다. / {person2} 님처럼 질문이 있으면
언제든지 적어 보내 주십시오. / 오늘 이야기는 {place2}에서 {person2:이} 던진 질문 덕분에
시작되었습니다."""

TRAVEL = """
@ 1 {person:과} 함께 {#2-4}일 동안 {city} 여행을 다녀왔다. / 오래전부터 가 보고 싶던 {city}에
{person:과} 함께 다녀왔다.
+ 1-2 {ride:을} 타고 가는 동안 창밖 풍경이 계속 바뀌었다. / 짐은 {object:과} 갈아입을 옷 몇 벌이
전부였다. / {month}의 {city:은} 생각보다 한산했다.
@ 2-4 첫날에는 {sight}부터 들렀다. / 입구에서 만난 {job} 한 분이 길을 자세히 알려 주셨다. / * /
{person:은} {sight} 앞에서 사진을 {#10-60}장이나 찍었다. / 길을 잘못 들었지만 덕분에 조용한 골목을
발견했다.
@ 2-3 점심으로 먹은 {dishes:은} 소문대로 맛있었다. / {dishes:을} 기다리는 줄이 길어서 {#15-50-5}분쯤
서 있었다. / 숙소는 작았지만 창문으로 {bloom:이} 보였다. / 저녁에는 {drink:을} 마시며 다음 날 계획을
세웠다. / 둘이서 쓴 하루 식비는 {#3-6}만 원 정도였다.
@ 2-3 돌아오는 날 {person:은} {color} {object2:을} 기념품으로 샀다. / 떠나기 전에 {sight:을} 한 번
더 바라보았다. / 다음에는 {family:과} 같이 와야겠다고 생각했다. / 걸음 수를 보니 하루에 만 {#2-9}천
보나 걸었다. / 집에 돌아와 사진을 정리하니 {feeling}."""

LOST_STORY = """
@ 1 {person:은} 작은 마을에서 {elder:과} 함께 살았다. / {person:은} {place} 가까이에 사는 호기심
많은 아이였다. / {bloom:이} 한창이던 무렵의 일이다.
+ 1 어느 날 {person:은} {place} 근처에서 {color} {object:을} 주웠다. / 집에 가던 {person:은}
길가에서 {color} {object:을} 발견했다.
+ 1-2 {object:은} 낡았지만 누군가 오래 아낀 물건처럼 보였다. / 안쪽에는 작은 글씨로 이름이 적혀
있었다. / 흙이 조금 묻어 있었지만 망가진 곳은 없었다. / {animal} 한 마리가 그 옆을 지키듯 앉아
있었다.
@ 1-2 "이 {object:은} 누구 것일까?" {person:이} 혼잣말을 했다. / "주인이 애타게 찾고 있을 거야."
{elder:이} 말했다.
+ 1 "그럼 같이 찾아 주자!" 친구 {person2:이} 눈을 반짝이며 말했다. / "{person:아}, 먼저 {place2}
쪽에 가서 물어보자." 친구 {person2:이} 말했다.
@ 2 두 사람은 {place2}까지 {adverb} 걸어갔다. / 만나는 사람마다 {object} 이야기를 꺼냈지만 모두
고개를 저었다. / {person:은} {object:을} 두 손으로 꼭 쥐고 있었다.
+ 1 해가 기울 무렵 늙은 {job} 한 사람이 다가왔다. "혹시 {color} {object:을} 보았니?" 노인이 물었다.
/ 그때 {job} 일을 했다는 노인이 두 사람을 불렀다. "그건 내가 {#20-40-10}년 전에 받은 선물이란다."
@ 1 {person:은} 잠시 망설이다가 {object:을} 내밀었다. / {person:은} 말없이 {object:을} 노인의 손에
올려놓았다.
+ 2-3 노인의 눈가가 촉촉해졌다. / "고맙구나. 이걸 다시 보게 될 줄은 몰랐어." / 돌아오는 길에
{person2:이} 휘파람을 불었다. / 그날 밤 {person:은} 오래도록 하늘을 바라보았다. {feeling}. / 그 뒤로
세 사람은 자주 모여 {food:을} 나누어 먹었다."""

REVIEW = """
@ 1-2 {product} 산 지 {#2-8}주 됐는데 후기 남겨요~ / 고민하다가 {color} {product:으로} 골랐어요. /
{person} 님 추천으로 {product:을} 샀는데 대만족이에요 ㅋㅋ / {shop}에서 할인하길래 {product:을} 바로
주문했어요.
+ 1-2 가격은 {#2-8}만 {#1-9}천 원이었고 배송은 {#2-5}일 걸렸어요. / 포장이 꼼꼼해서 선물 받는
기분이었어요 ㅎㅎ / 상자가 살짝 찌그러져서 왔지만 제품은 멀쩡했어요.
@ 9 *
@ 2-3 {elder}도 보시더니 하나 사 달라고 하시네요 ㅋㅋㅋ / {place} 근처에 사는 {person2} 님에게도
추천했어요. / 설명서가 English로만 되어 있어서 조금 당황했어요… / 고객 센터에 문의했더니
{#10-50-10}분 만에 답이 왔어요! / 전에 쓰던 것보다 확실히 나아요. / {person} 님도 써 보더니 바로
주문했어요 ㅋㅋ
+ 1-2 별점은 5점 만점에 {#4-5}점 드릴게요. / 이 가격이면 충분히 살 만해요! / 고장 나면 또 후기 쓰러
올게요 ㅎㅎ"""

NOTICE = """
@ 1 [안내] {org}에서 {event:을} 엽니다. / 안녕하십니까? {org}에서 {event} 소식을 알려 드립니다. /
{event} 참가자를 다음과 같이 모집합니다.
@ 2 일시: {date} {t2}부터 {t4}까지입니다. / 장소: {room}입니다.
+ 2-3 대상: 관심 있는 주민 누구나 참여할 수 있으며 정원은 {#20-80-10}명입니다. / 신청: {due}까지
{org} 안내 창구에서 받습니다. / 참가비는 없으나 재료비 {#2-9}천 원은 개인이 부담합니다.
@ 2-4 참가하시는 분은 {item:과} {item2:을} 준비해 주시기 바랍니다. / 주차 공간이 좁으니 되도록
대중교통을 이용해 주십시오. / 사정이 생기면 {date2:으로} 연기할 수 있습니다. / 어린이는 보호자와
함께 참여해야 합니다. / {room} 주변에서는 담배를 피울 수 없습니다. / {food} 등 간단한 식사를 {t3}에
제공합니다.
+ 2 궁금한 점은 담당자 {person}에게 문의해 주십시오. / 신청 결과는 문자나 email로 알려 드립니다. /
여러분의 많은 관심과 참여를 부탁드립니다. / 행사 사진은 홈페이지에 올릴 예정입니다."""

CHAT = """
% 1 {person}: 안녕하세요, {person2} 님. {matter} 관련해서 여쭤볼 게 있어요. {person2}: 네,
말씀하세요. / {person}: {person2} 님, 잠깐 시간 괜찮으세요? {person2}: 그럼요. {t2}까지는 한가해요.
/ {person}: 오랜만이에요! {person2}: 반가워요. 요즘 {hobby:은} 잘되세요? / {person}: 지금 {place}
앞인데 {matter} 이야기 좀 해요. {person2}: 좋아요. 저도 심심했어요.
% 2-3 *
% 1 {person}: 덕분에 도움이 많이 됐어요. {person2}: 별말씀을요. 또 궁금하면 연락 주세요! / {person}:
고마워요. 다음에 {food} 살게요. {person2}: ㅎㅎ 기대할게요. / {person}: 그럼 {day}에 봬요.
{person2}: 네, {t3}에 {place}에서 만나요. / {person}: 한번 해 보고 알려 드릴게요. {person2}: 좋아요.
천천히 해 보세요."""

SCHEDULE = """
@ 1-2 {person} 님, {project} 일정을 공유합니다. / 이번 주 {project} 팀의 일정은 다음과 같습니다. /
{date} 일정표입니다. 바뀐 내용이 있으니 확인해 주세요.
@ 3-4 {date} {t1}: {work:을} 진행합니다. / {date} {t2}: {room}에서 {work2:을} 합니다. / {date} {t3}:
{person:과} {person2:이} {work3:을} 맡습니다. / {date} {t4}: 하루 진행 상황을 공유하고 마칩니다.
@ 2-3 {date2} {t1}: {work4} 관련 파일을 {dir} 폴더에 올립니다. / {date2} {t2}: 점심은 {place}
근처에서 {food:으로} 합니다. / {date2} {t3}: {person2:이} {file:을} 최종 확인합니다. / {date2} {t4}:
deadline이니 시간을 꼭 지켜 주세요.
@ 2-3 회의는 한 번에 {#20-50-10}분을 넘기지 않겠습니다. / 참석이 어려우면 {due}까지 알려 주세요. /
온라인으로 참석하는 분께는 회의 링크를 보내 드립니다. / 준비물은 노트북과 {item:이에요}. 잊지 말고
챙겨 주세요. / 다음 일정은 {date3}에 다시 안내하겠습니다."""

MATH = """
@ 1-2 오늘은 {person:과} {person2:이} 함께 수학 문제를 풀었습니다. / 수학 시간이 끝나고 {person:은}
계산 문제를 펼쳤습니다. / {person:은} {drink:을} 마시며 문제집을 {#2-9}쪽이나 풀었습니다. / 다음
문제를 읽고 답을 구해 봅시다.
% 9 *
+ 1 단위를 빠뜨리지 않았는지 다시 살펴봅시다. / {person2:은} 답을 확인하고 고개를 끄덕였습니다. /
{person:은} 검산까지 마치고 연필을 내려놓았습니다. / 식을 먼저 세우면 계산이 한결 쉬워집니다."""


class Problem(NamedTuple):
    """A word problem: ``ranges`` draws a, b, c and ``results`` gives x, y, z."""

    question: str
    answer: str
    ranges: tuple[range, ...]
    results: Callable[..., tuple[int, ...]]


PROBLEMS = (
    Problem(
        "{person:은} {fruit:을} {a}개 샀고 {person2:은} {b}개 샀습니다. 모두 몇 개입니까?",
        "{a} + {b} = {x}이므로 모두 {x}개입니다.",
        (range(3, 40), range(3, 40)),
        lambda a, b: (a + b,),
    ),
    Problem(
        "{sheet:이} 한 묶음에 {a}장씩 들어 있습니다. {b}묶음을 사면 모두 몇 장입니까?",
        "{a} × {b} = {x}이므로 {sheet:은} {x}장입니다.",
        (range(4, 25), range(3, 13)),
        lambda a, b: (a * b,),
    ),
    Problem(
        "{goods:은} 한 개에 {a}원입니다. {b}개를 사고 {c}원을 내면 거스름돈은 얼마입니까?",
        "{a} × {b} = {x}이고 {c} - {x} = {y}이므로 거스름돈은 {y}원입니다.",
        (range(300, 2100, 100), range(2, 5), range(10000, 30000, 10000)),
        lambda a, b, c: (a * b, c - a * b),
    ),
    Problem(
        "{person:은} 오전 {a}시 {b}분에 출발해 {c}분 동안 걸었습니다. 언제 도착했습니까?",
        "{b}분에 {c}분을 더하면 {x}분이므로 오전 {y}시 {z}분에 도착했습니다.",
        (range(7, 11), range(5, 60, 10), range(20, 60, 10)),
        lambda a, b, c: (b + c, a + (b + c) // 60, (b + c) % 60),
    ),
    Problem(
        "가로가 {a}cm, 세로가 {b}cm인 직사각형이 있습니다. 넓이와 둘레는 각각 얼마입니까?",
        "넓이는 {a} × {b} = {x}㎠이고 둘레는 ({a} + {b}) × 2 = {y}cm입니다.",
        (range(3, 30), range(3, 30)),
        lambda a, b: (a * b, 2 * (a + b)),
    ),
    Problem(
        "{person2:은} 사흘 동안 책을 {a}쪽, {b}쪽, {c}쪽 읽었습니다. 하루 평균은 몇 쪽입니까?",
        "모두 {x}쪽이고 {x} ÷ 3 = {y}이므로 하루 평균 {y}쪽입니다.",
        (range(12, 60, 3), range(12, 60, 3), range(12, 60, 3)),
        lambda a, b, c: (a + b + c, (a + b + c) // 3),
    ),
    Problem(
        "정가가 {a}원인 {object:을} {b}% 할인해서 팝니다. 얼마를 내야 합니까?",
        "할인 금액은 {x}원이므로 {a} - {x} = {y}, 곧 {y}원을 냅니다.",
        (range(3000, 30000, 1000), range(10, 60, 10)),
        lambda a, b: (a * b // 100, a - a * b // 100),
    ),
    Problem(
        "{fruit} {x}개를 한 상자에 {a}개씩 담습니다. 몇 상자가 되고 몇 개가 남습니까?",
        "{x} ÷ {a}의 몫은 {b}, 나머지는 {c}입니다. {b}상자가 되고 {c}개가 남습니다.",
        (range(6, 10), range(3, 13), range(1, 6)),
        lambda a, b, c: (a * b + c,),
    ),
)

# --- Functions ------------------------------------------------------------------------------------

Slots = dict[str, str]
WEEKDAYS = "월화수목금토일"
_SLOT = re.compile(r"\{([^{}:]+)(?::([^{}]+))?\}")
_RIEUL = 8
_DIGIT_FINALS = {"0": 21, "1": 8, "3": 16, "6": 1, "7": 8, "8": 8}


class Topic(NamedTuple):
    """Words bound together, and sentences that fit them."""

    headers: dict[str, list[str]]
    lines: list[str]


class Stage(NamedTuple):
    """Between ``low`` and ``high`` of some lines; ``mark`` says how paragraphs break."""

    mark: str
    low: int
    high: int
    lines: list[str]


def _sentences(text: str) -> list[str]:
    return " ".join(text.split()).split(" / ")


def _topics(text: str) -> list[Topic]:
    topics = []
    for header, body in re.findall(r"((?:^# .*\n)+)((?:^[^#].*\n?)+)", text, re.M):
        pairs = [pair.split(" = ") for pair in re.split(r"\n?# | ; ", header.strip()) if pair]
        topics.append(Topic({name: words.split(" / ") for name, words in pairs}, _sentences(body)))
    return topics


def _plan(text: str) -> list[Stage]:
    stages = re.findall(r"^([@+%]) (\d)-?(\d?) (.*?)(?=^[@+%] |\Z)", text, re.M | re.S)
    return [Stage(m, int(a), int(b or a), _sentences(s)) for m, a, b, s in stages]


WORDS = {name: re.split(r",\s+", text) for name, text in WORDS_TEXT.items()}
SEASON_TOPICS = _topics(SEASONS)
NO_TOPICS = [Topic({}, [])]
MATH_PLAN = _plan(MATH)
GENRES = (
    (NO_TOPICS, _plan(DIARY)),
    (NO_TOPICS, _plan(WORK_DIARY)),
    (SEASON_TOPICS, _plan(WEATHER)),
    (_topics(RECIPES), _plan(RECIPE)),
    (_topics(LINUX), _plan(LINUX_HOWTO)),
    (_topics(SCIENCE), _plan(SCIENCE_TALK)),
    (_topics(TRIPS), _plan(TRAVEL)),
    (NO_TOPICS, _plan(LOST_STORY)),
    (_topics(PRODUCTS), _plan(REVIEW)),
    (NO_TOPICS, _plan(NOTICE)),
    (_topics(CHATS), _plan(CHAT)),
    (NO_TOPICS, _plan(SCHEDULE)),
    (NO_TOPICS, MATH_PLAN),
)


def _latin_final(word: str) -> int:
    """A guess at the final consonant of a Latin word read aloud; 0 for none."""
    last, before = word[-1], word[-2:-1]
    if word.isupper():
        return {"L": 8, "M": 16, "N": 4, "R": 8}.get(last, 0)
    if last == "l":
        return _RIEUL
    if last in "mn" or word.endswith("ng"):
        return 4
    return 1 if last in "pkbtc" and before and before in "aeiou" else 0


def final_consonant(word: str) -> int:
    """Index of the final consonant of the last sound, as in Unicode Hangul; 0 for none."""
    tail = re.search(r"([가-힣]|[0-9]|[A-Za-z]+)[^가-힣0-9A-Za-z]*$", word)
    if tail is None:
        return 0
    last = tail[1]
    if "가" <= last <= "힣":
        return (ord(last) - ord("가")) % 28
    return _DIGIT_FINALS.get(last, 0) if last.isdigit() else _latin_final(last)


def josa(word: str, particle: str) -> str:
    """The word with the form of the particle that fits its final consonant."""
    closed, opened = JOSA[particle]
    final = final_consonant(word)
    if particle == "으로" and final == _RIEUL:
        final = 0
    return word + (closed if final else opened)


def _draw(name: str, slots: Slots, rng: random.Random) -> str:
    """The word of a slot: a number, a bound word, or a new one of its list, then bound."""
    if name.startswith("#"):
        low, high, *step = map(int, name[1:].split("-"))
        return str(rng.randrange(low, high + 1, *step))
    if name in slots:
        return slots[name]
    key = name.lstrip("*")
    taken = set(slots.values())
    word = rng.choice([w for w in WORDS[key.rstrip("234")] if w not in taken])
    if key == name:
        slots[name] = word
    return word


def _fill(template: str, slots: Slots, rng: random.Random) -> str:
    """The template with every slot filled and its particle chosen."""

    def replace(match: re.Match[str]) -> str:
        word = _draw(match[1], slots, rng)
        return josa(word, match[2]) if match[2] else word

    return _SLOT.sub(replace, template)


def _clock(minutes: int) -> str:
    hour, minute = divmod(minutes, 60)
    half = "오전" if hour < 12 else "낮" if hour == 12 else "오후"
    return f"{half} {(hour - 1) % 12 + 1}시" + (f" {minute}분" if minute else "")


def _day(day: datetime.date) -> str:
    return f"{day.month}월 {day.day}일 {WEEKDAYS[day.weekday()]}요일"


def _calendar(rng: random.Random) -> Slots:
    """Dates and times in order: due < date < date2 < date3 and t1 < t2 < t3 < t4."""
    monday = datetime.date(2024, 1, 1) + datetime.timedelta(weeks=rng.randrange(156))
    first = rng.randint(0, 3)
    offsets = (first - rng.randint(3, 9), first, rng.randint(first + 1, 4), first + 7)
    days = [_day(monday + datetime.timedelta(days=offset)) for offset in offsets]
    slots: Slots = dict(zip(("due", "date", "date2", "date3"), days, strict=True))
    slots["day"] = f"{rng.choice(WEEKDAYS)}요일"
    for name, (low, high) in zip("1234", ((18, 21), (22, 24), (26, 30), (32, 36)), strict=True):
        slots[f"t{name}"] = _clock(30 * rng.randint(low, high))
    return slots


def _problems(slots: Slots, rng: random.Random) -> Topic:
    """Two to four numbered word problems with their answers, as a topic's lines."""
    lines = []
    for number, problem in enumerate(rng.sample(PROBLEMS, rng.randint(2, 4)), 1):
        drawn = [rng.choice(values) for values in problem.ranges]
        named = [*zip("abc", drawn, strict=False)]
        named += zip("xyz", problem.results(*drawn), strict=False)
        slots.update((name, f"{value:,}") for name, value in named)
        text = f"문제 {number}. {problem.question} 풀이: {problem.answer}"
        lines.append(_fill(text, slots, rng))
    return Topic({}, lines)


def _pick(stage: Stage, topic: Topic, rng: random.Random) -> list[str]:
    """Some of the stage's lines in their order; ``*`` stands for the topic's lines."""
    lines = []
    for line in stage.lines:
        lines += topic.lines if line == "*" else [line]
    count = min(rng.randint(stage.low, stage.high), len(lines))
    return [lines[i] for i in sorted(rng.sample(range(len(lines)), count))]


def _document(rng: random.Random) -> str:
    """One document of a genre drawn by chance."""
    topics, plan = rng.choice(GENRES)
    topic = rng.choice(topics)
    slots = _calendar(rng)
    for bound in (topic,) if topics is SEASON_TOPICS else (rng.choice(SEASON_TOPICS), topic):
        for name, words in bound.headers.items():
            slots[name] = _fill(rng.choice(words), slots, rng)
    if plan is MATH_PLAN:
        topic = _problems(slots, rng)
    paragraphs: list[list[str]] = []
    for stage in plan:
        sentences = [_fill(line, slots, rng) for line in _pick(stage, topic, rng)]
        if stage.mark == "%":
            paragraphs += [[sentence] for sentence in sentences]
        elif not paragraphs or (stage.mark == "@" and rng.random() < 0.8):
            paragraphs.append(sentences)
        else:
            paragraphs[-1] += sentences
    return "\n".join(" ".join(sentences) for sentences in paragraphs)


def sample_documents(n: int, seed: int = 0) -> Iterator[str]:
    """Yields n Korean documents; document i depends on the seed and i alone."""
    for index in range(n):
        yield _document(random.Random(f"{seed}:{index}"))

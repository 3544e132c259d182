"""What people do to a sentence as they type it: endings, fillers, spacing and slips."""

from __future__ import annotations

import random
import re

_ENDINGS = (
    *(
        "줘",
        "줘",
        "줘",
        "줘",
        "줘요",
        "주세요",
        "주세요",
        "줄래?",
        "줄래요?",
        "주라",
        "줘봐",
        "줘 봐",
    ),
    *(
        "주십시오",
        "줄 수 있어?",
        "줄 수 있나요?",
        "주실 수 있나요?",
        "주실래요?",
        "주시겠어요?",
        "줘라",
    ),
    *(
        "주겠니?",
        "줬으면 해",
        "주면 좋겠어",
        "주면 고맙겠어",
        "주면 돼",
        "달라",
        "주시면 감사하겠습니다",
    ),
    *("줄 수 있을까?", "줄 수 있을까요?", "줘야 해", "줘야 돼", "주셔요", "주삼", "줘용", "줭"),
)
_AFTER_HAE = (
    "해",
    "해라",
    "하자",
    "해봐",
    "합시다",
    "하고 싶어",
    "해야 해",
    "해 봐",
    "하기",
    "해요",
    "함",
)
_BEFORE = (
    "혹시 ",
    "저기 ",
    "저기요 ",
    "야 ",
    "지금 ",
    "일단 ",
    "음 ",
    "그럼 ",
    "급한데 ",
    "미안한데 ",
)
_BEFORE += (
    "이제 ",
    "빨리 ",
    "얼른 ",
    "그냥 ",
    "안녕 ",
    "자 ",
    "제발 ",
    "부탁인데 ",
    "있잖아 ",
    "아 ",
)
_AFTER = (
    "!",
    "~",
    ".",
    "..",
    "...",
    "ㅎㅎ",
    "ㅋㅋ",
    " ㅠㅠ",
    " 부탁해",
    " 부탁드려요",
    " 고마워",
    "!!",
)
_AFTER += (" 플리즈", " 빨리", " 얼른", " 지금", " ㄱㄱ", "~~", " 알았지?", ", 고마워요")

_VOWEL_SLIPS = {1: 5, 5: 1, 8: 4, 4: 8, 13: 8, 20: 18, 11: 10, 10: 15}  # ㅐ-ㅔ, ㅗ-ㅓ, ㅜ-ㅗ, ㅣ-ㅡ
_FINAL_SLIPS = {20: 19, 6: 4, 18: 17, 9: 1, 11: 8, 4: 21, 8: 4}  # ㅆ-ㅅ, ㄶ-ㄴ, ㅄ-ㅂ, ㄺ-ㄱ, ...


def vary_ending(text: str, rng: random.Random) -> str:
    """A request that ends in 줘, as politely or curtly as it comes."""
    if not text.endswith("줘"):
        return text
    if text.endswith("해줘") and rng.random() < 0.18:
        return text[:-2] + rng.choice(_AFTER_HAE)
    gap = " " if rng.random() < 0.12 and not text.endswith(" 줘") else ""
    return text[:-1] + gap + rng.choice(_ENDINGS)


def add_fillers(text: str, rng: random.Random) -> tuple[str, str]:
    """What may stand before and after a request."""
    before = rng.choice(_BEFORE) if rng.random() < 0.07 else ""
    after = rng.choice(_AFTER) if rng.random() < 0.12 else ""
    return before, "" if text.endswith("?") else after


def slip(text: str, rng: random.Random) -> str:
    """Text with one syllable mistyped."""
    places = [i for i, c in enumerate(text) if "가" <= c <= "힣"]
    if not places:
        return text
    i = rng.choice(places)
    lead, rest = divmod(ord(text[i]) - 0xAC00, 588)
    vowel, final = divmod(rest, 28)
    if final in _FINAL_SLIPS and rng.random() < 0.5:
        final = _FINAL_SLIPS[final]
    else:
        vowel = _VOWEL_SLIPS.get(vowel, vowel)
    return text[:i] + chr(0xAC00 + lead * 588 + vowel * 28 + final) + text[i + 1 :]


def close_up(text: str, rng: random.Random, share: float) -> str:
    """Text with a share of the spaces between its Korean words left out."""
    return re.sub(r"(?<=[가-힣]) (?=[가-힣])", lambda _: "" if rng.random() < share else " ", text)

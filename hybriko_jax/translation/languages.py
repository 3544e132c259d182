"""In which language a text is, by the share of its letters."""

from __future__ import annotations

import re
from typing import Literal

from hybriko_jax.errors import UserError
from hybriko_jax.korean import HANGUL, LETTER, letter_share
from hybriko_jax.prompts import LANGUAGES

_SCRIPTS = {
    "ko": HANGUL,
    "en": re.compile("[A-Za-z\u00c0-\u024f]"),
    "ja": re.compile("[\u3040-\u30ff\u4e00-\u9fff]"),
}
# Two and a half Latin letters say as much as one syllable.
_WEIGHTS = {"ko": 2.5, "en": 1.0, "ja": 2.5}
# Share of the source's letters from which a text is one to translate. Korean and Japanese texts
# are full of English names, English ones hold hardly any Hangul.
_LEAST = {"ko": 0.1, "en": 0.5, "ja": 0.1}

Kind = Literal["source", "target", "other", "none"]


def share(text: str, language: str) -> float:
    """The letters of a language among the letters of a text, from 0 to 1; 0 without letters."""
    return letter_share(text, _SCRIPTS[language])


def kind(text: str, source: str, target: str) -> Kind:
    """What a text is to a translator; mixed scripts are the source where it has a fair share.

    Returns:
      "source": to be translated. "target": it is so already. "other": most letters are of neither
      language. "none": it has no letters.
    """
    letters = len(LETTER.findall(text))
    if not letters:
        return "none"
    ours, theirs = (len(_SCRIPTS[language].findall(text)) for language in (source, target))
    if ours + theirs < letters / 2:
        return "other"
    weighted = ours * _WEIGHTS[source]
    enough = weighted >= _LEAST[source] * (weighted + theirs * _WEIGHTS[target])
    return "source" if ours and enough else "target"


def check(text: str, source: str, target: str) -> None:
    """Refuses a text of which nothing could be translated.

    Raises:
      UserError: it has no letters, is in the target language already, or in neither of the two.
    """
    names = LANGUAGES[source], LANGUAGES[target]
    shown = repr(text.strip()[:20])
    found = kind(text, source, target)
    if found == "none":
        raise UserError(f"{shown}: 글자가 없어 번역할 것이 없습니다. 글자가 있는 글을 주세요.")
    if found == "target":
        raise UserError(
            f"{shown}: 이미 {names[1]}입니다. {names[0]}로 옮기려면 --to {source}를 주세요."
        )
    if found == "other":
        raise UserError(
            f"{shown}: {names[0]}도 {names[1]}도 아닙니다. 두 말 가운데 하나로 된 글을 주세요."
        )

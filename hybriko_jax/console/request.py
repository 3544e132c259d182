"""What a user types: a request that can be answered, or a word that the assistant itself knows."""

from __future__ import annotations

import re
import unicodedata

from hybriko_jax.console.messages import fault

LONGEST = 1000  # characters of a request

_WORDS = {
    "undo": "되돌려|되돌려줘|되돌려 줘|되돌려주세요|되돌려 주세요|되돌리기|undo",
    "help": "도움말|도움|help|?",
    "trash": "휴지통 비우기|휴지통 비워|휴지통 비워줘|휴지통 비워 줘|empty trash",
    "exit": "끝|종료|exit|quit",
}
_COMMANDS = {word: name for name, words in _WORDS.items() for word in words.split("|")}


def command(text: str) -> str | None:
    """ "undo", "help", "trash" or "exit" where a text is one of their words, else None."""
    words = " ".join(unicodedata.normalize("NFC", text).lower().split())
    return _COMMANDS.get(words) or _COMMANDS.get(words.rstrip(".!~"))


def check(query: str, lang: str = "ko") -> str:
    """The request, if it can be answered.

    Raises:
      UserError: it is empty, too long, or has no letters.
    """
    query = unicodedata.normalize("NFC", query.strip())
    if not query.isascii() and any("\ud800" <= c <= "\udfff" for c in query):
        raise fault(lang, "encoding")
    if not query:
        raise fault(lang, "empty")
    if len(query) > LONGEST:
        raise fault(lang, "long", n=len(query), most=LONGEST)
    if not re.search(r"\w", query):
        raise fault(lang, "no_letters", query=query[:20])
    return query

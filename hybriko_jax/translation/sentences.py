"""Texts cut into sentences: nothing is lost, and only white space lies between them."""

from __future__ import annotations

import re
import unicodedata
from collections import deque
from collections.abc import Callable, Iterator

import sentencex

Span = tuple[int, int]

_WINDOW = 5000  # characters; the time that sentencex takes may grow with their square
_GLUED = re.compile(r"(?:[가-힣][다요죠까]|[a-z]{2})[.!?]+$")
# What goes on with a sentence that someone has said: "정말?" 이라고 물었다.
_QUOTED = re.compile(r"(?:이?라(?:고|는|며|면서)|하(?:고|며|면서)|고|는|란)(?![가-힣])")
_SAFE = re.compile(r"[.!?。…]\s|[,;:，、]\s|[)\]}」』”]\s|\s")


def sentences(text: str, language: str, kept: re.Pattern[str] | None = None) -> list[Span]:
    """Where the sentences of a text begin and end, without the white space around them.

    The borders are those of sentencex, less some: inside of `kept`, between letters that no full
    stop parts ("3.가", "가.나"), and before what goes on with a quotation.

    Args:
      text: a paragraph; its line ends are mere spaces.
      language: of the text, as "ko".
      kept: what no border may lie in: code, addresses.
    """
    parts = [
        part
        for i, j in cut(text, lambda _: True, _WINDOW)
        for part in _segments(language, text[i:j])
    ]
    closed = deque(m.span() for m in kept.finditer(text)) if kept else deque()
    found, begin, at = [], 0, 0
    for part in parts:
        at += len(part)
        while closed and closed[0][1] <= at:
            closed.popleft()
        if at == len(text) or not (closed and closed[0][0] < at) and _ends(text, at):
            found.append(trimmed(text, begin, at))
            begin = at
    return [(i, j) for i, j in found if i < j]


def _segments(language: str, text: str) -> list[str]:
    parts = list(sentencex.segment(language, text))  # type: ignore[attr-defined]
    # So says its documentation; nothing may hang on it.
    return parts if "".join(parts) == text else [text]


def _ends(text: str, at: int) -> bool:
    before, after = text[max(0, at - 20) : at], text[at : at + 20]
    if before == before.rstrip():  # nothing stands between
        return bool(_GLUED.search(before)) and after[:1].isalpha()
    return not _QUOTED.match(after)


def trimmed(text: str, begin: int, end: int) -> Span:
    """The same without the white space at both ends."""
    part = text[begin:end]
    return begin + len(part) - len(part.lstrip()), end - len(part) + len(part.rstrip())


def cut(
    text: str,
    fits: Callable[[str], bool],
    longest: int,
    kept: re.Pattern[str] | None = None,
) -> Iterator[Span]:
    """Parts of a text that each fit, cut where it hurts least; together they are the text.

    A part ends behind a mark, else behind a space, else between two characters, but never before
    a mark that belongs to the character before it.

    Args:
      fits: whether the model can take a part; one character always fits.
      longest: characters of a part.
      kept: what no cut may lie in, even where it does not fit.
    """
    begin, closed = 0, deque(m.span() for m in kept.finditer(text)) if kept else deque()
    while begin < len(text):
        size = min(longest, len(text) - begin)
        while size > 1 and not fits(text[begin : begin + size]):
            size //= 2
        end = begin + size
        if end < len(text):
            end = begin + _safe(text[begin : end + 1])
        while closed and closed[0][1] <= end:
            closed.popleft()
        if closed and closed[0][0] < end:
            end = closed[0][0] if closed[0][0] > begin else closed[0][1]
        yield begin, end
        begin = end


def _safe(window: str) -> int:
    """Where to cut a window before its last character."""
    half = len(window) // 2
    ends = [(m.group()[0], m.end()) for m in _SAFE.finditer(window[:-1]) if m.end() > half]
    for marks in (".!?。…", ",;:，、)]}」』”"):
        if at := max((end for mark, end in ends if mark in marks), default=0):
            return at
    if ends:
        return ends[-1][1]
    at = len(window) - 1
    while at > 1 and (unicodedata.combining(window[at]) or _joins(window, at)):
        at -= 1
    return at


def _joins(window: str, at: int) -> bool:
    """Whether two characters are one picture: joiners, variants, tones of skin, flags."""
    glue = "\u200d\ufe0e\ufe0f"
    return (
        window[at] in glue
        or window[at - 1] == "\u200d"
        or "\U0001f3fb" <= window[at] <= "\U0001f3ff"
    )

"""Texts inside a file: each character knows where it stands there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from hybriko_jax.translation.sentences import Span

LINE = re.compile(r"\r\n|\r|\n")
_BULLET = re.compile(
    r"\s*(?:[-*+•·‣▪○●]|\(?\d{1,3}[.)]|[가나다라마바사아자차카타파하A-Za-z][.)])\s+|[^\S\r\n]+"
)
_WRAPPED = 50  # columns from which a line that ends in mid-sentence goes on in the next one
_CLOSED_LINE = re.compile(r"[.!?。…:;]['\"”’)\]]*\s*$")


class Stretch(NamedTuple):
    """Text of a file without what the format adds to it.

    Character i stands from at[i] to at[i + 1] of the file.
    """

    text: str
    at: Sequence[int]
    put: Callable[[str], str] = str


def paragraphs(whole: Stretch) -> Iterator[Stretch]:
    """The lines of a text without bullets; a line that is wrapped is put together with the next."""
    text, block = whole.text, None
    for begin, end in lines(text):
        m = _BULLET.match(text, begin, end)
        indent = m.end() - begin if m else 0
        blank = not text[begin + indent : end].strip()
        if block:
            goes_on = not blank and indent == block.indent and not (m and m.group().strip())
            if goes_on and _is_wrapped(text[block.last : block.end]):
                block = block._replace(last=begin, end=end)
                continue
            yield _slice(whole, block.begin, block.end)
        block = None if blank else _Block(begin + indent, begin, end, indent)
    if block:
        yield _slice(whole, block.begin, block.end)


class _Block(NamedTuple):
    begin: int
    last: int  # where its last line begins
    end: int
    indent: int  # columns before its first line's text


def _slice(whole: Stretch, begin: int, end: int) -> Stretch:
    return Stretch(whole.text[begin:end], whole.at[begin : end + 1], whole.put)


def _is_wrapped(line: str) -> bool:
    width = len(line) + len(re.findall("[\u1100-\u11ff\u2e80-\ud7ff\uff00-\uff60]", line))
    return width >= _WRAPPED and not _CLOSED_LINE.search(line)


def lines(text: str, begin: int = 0) -> Iterator[Span]:
    """Where lines begin and end, without their ends."""
    for m in LINE.finditer(text, begin):
        yield begin, m.start()
        begin = m.end()
    yield begin, len(text)


def unescaped(
    file: str,
    span: Span,
    escape: re.Pattern[str],
    read: Callable[[str], str],
    put: Callable[[str], str],
) -> Stretch:
    """A text with escapes, each of which `read` reads."""
    text, at, i = [], [], span[0]
    for m in escape.finditer(file, *span):
        one = read(m.group())
        text += [file[i : m.start()], one]
        at += [*range(i, m.start()), *[m.start()] * len(one)]
        i = m.end()
    text.append(file[i : span[1]])
    return Stretch("".join(text), [*at, *range(i, span[1] + 1)], put)


def last(escape: str) -> str:
    """What an escape stands for that only doubles or marks a character."""
    return escape[-1]

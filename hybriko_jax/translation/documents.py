"""Documents as pieces to translate, and the file around them that stays byte for byte.

What a model gets is plain text in one line; what comes back is put where the piece stood, in the
way its format writes text: a cell, a JSON string, a line of a table.
"""

from __future__ import annotations

import bisect
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from hybriko_jax.korean import LETTER
from hybriko_jax.translation.kept import KEPT, Format
from hybriko_jax.translation.markdown import markdown
from hybriko_jax.translation.sentences import Span, cut, sentences, trimmed
from hybriko_jax.translation.stretches import LINE, Stretch, paragraphs
from hybriko_jax.translation.subtitles import relined, subtitles
from hybriko_jax.translation.tables import json_lines, table

SUFFIXES: dict[str, Format] = {
    ".txt": "txt",
    ".text": "txt",
    ".md": "md",
    ".markdown": "md",
    ".srt": "srt",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}


class Piece(NamedTuple):
    """A part of a file, in order: all `raw` together are the file."""

    raw: str
    text: str = ""
    """What to translate, in one line; empty where the piece stays as it is."""
    line: int = 0
    """Of the file, from 1."""
    put: Callable[[str], str] = str
    """How the file writes a translation."""


@dataclass(frozen=True)
class Layout:
    """How to read a file, and what a piece may be."""

    format: Format
    language: str
    """Of the texts, as "ko"."""
    column: str = ""
    """Of a TSV: its name, or its number from 1."""
    field: str = ""
    """Of the objects of a JSONL."""
    fits: Callable[[str], bool] = lambda text: True
    """Whether the model can take a text."""
    longest: int = 600
    """Characters of a piece."""


def pieces(file: str, layout: Layout) -> list[Piece]:
    """The pieces of a file; those with a text are to be translated.

    Raises:
      UserError: the file is not of the format, or has no such column or field.
    """
    body = 1 if file.startswith("\ufeff") else 0
    kept = KEPT[layout.format]
    starts = [0, *(m.end() for m in LINE.finditer(file))]
    found, at = [], 0
    for stretch in _READERS[layout.format](file, body, layout):
        for begin, end in _parts(stretch.text, layout, kept):
            raw_begin, raw_end = stretch.at[begin], stretch.at[end]
            if at < raw_begin:
                found.append(Piece(file[at:raw_begin]))
            text = " ".join(LINE.sub(" ", stretch.text[begin:end]).split())
            line = bisect.bisect(starts, raw_begin)
            raw = file[raw_begin:raw_end]
            put = functools.partial(relined, raw) if layout.format == "srt" else stretch.put
            found.append(Piece(raw, text, line, put))
            at = raw_end
    if at < len(file):
        found.append(Piece(file[at:]))
    return found


def put_back(pieces: Iterable[Piece], translations: Mapping[str, str]) -> str:
    """The file with translations, by the texts of its pieces; others stay as they are."""

    def written(piece: Piece) -> str:
        translation = " ".join(translations.get(piece.text, "").split())
        return piece.put(translation) if translation not in ("", piece.text) else piece.raw

    return "".join(map(written, pieces))


def _parts(text: str, layout: Layout, kept: re.Pattern[str]) -> Iterator[Span]:
    """Sentences without what lies around them, cut where they are too long."""
    for begin, end in sentences(text, layout.language, kept):
        begin, end = _core(text, begin, end, kept)
        for b, e in _whole(text[begin:end], kept, layout.longest // 3):
            part = text[begin + b : begin + e]
            for i, j in cut(part, layout.fits, layout.longest, kept):
                if LETTER.search(kept.sub("", part[i:j])):
                    yield trimmed(text, begin + b + i, begin + b + j)


def _whole(text: str, kept: re.Pattern[str], longest: int) -> Iterator[Span]:
    """The parts between addresses and code that are too long to be shown to a model."""
    at = 0
    for m in kept.finditer(text):
        if m.end() - m.start() > longest:
            yield at, m.start()
            at = m.end()
    yield at, len(text)


_PAIRS = re.compile(r"(\*\*\*|\*\*|\*|__|_|~~)(?=\S)((?:(?!\1).)+)(?<=\S)\1", re.DOTALL)
_LINK = re.compile(r"\[([^\[\]]+)\](?:\([^()\s]*(?: [^()]*)?\)|\[[^\[\]]*\])", re.DOTALL)
_TAG = r"(?:<[^<>]*>|\{\\[^{}]*\})"
_TAGGED = re.compile(rf"(?:{_TAG}\s*)*(.*?)(?:\s*{_TAG})*", re.DOTALL)


def _core(text: str, begin: int, end: int, kept: re.Pattern[str]) -> Span:
    """A sentence without tags at its ends, and without emphasis or a link around all of it."""
    if kept not in (KEPT["md"], KEPT["srt"]):
        return begin, end
    while True:
        old = begin, end
        for pattern, group in ((_TAGGED, 1), (_PAIRS, 2), (_LINK, 1)):
            if kept is KEPT["md"] or pattern is _TAGGED:
                if m := pattern.fullmatch(text, begin, end):
                    begin, end = m.span(group)
        if kept is KEPT["md"] and text.count("**", begin, end) % 2:  # it spans sentences
            if text.startswith("**", begin, end):
                begin += 2
            elif text.endswith("**", begin, end):
                end -= 2
        if (begin, end) == old:
            return begin, end


_READERS: dict[Format, Callable[[str, int, Layout], Iterator[Stretch]]] = {
    "txt": lambda file, at, _: paragraphs(Stretch(file[at:], range(at, len(file) + 1))),
    "md": lambda file, at, _: markdown(file, at),
    "srt": lambda file, at, _: subtitles(file, at),
    "tsv": lambda file, at, layout: table(file, at, layout.language, layout.column),
    "jsonl": lambda file, at, layout: json_lines(file, at, layout.language, layout.field),
}

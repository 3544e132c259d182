"""The texts of a Markdown file: paragraphs, headings and cells, without what marks them as such."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from markdown_it import MarkdownIt

from hybriko_jax.translation.kept import KEPT, fragments
from hybriko_jax.translation.sentences import Span
from hybriko_jax.translation.stretches import Stretch, last, lines, unescaped

_FRONT_MATTER = re.compile(
    r"(---|\+\+\+)[ \t]*(?:\r\n|\r|\n).*?(?<=[\r\n])\1[ \t]*(?=[\r\n]|\Z)", re.DOTALL
)
_MARK = re.compile(r"\[[ xX]\]\s+|\[\^[^\[\]]+\]:\s*|\[![A-Za-z]+\][-+]?")
_PIPE = re.compile(r"\\\|")
# What would begin a block of another kind.
_OPENS = re.compile(r"(?=(?:#{1,6}|[-+*])(?:\s|$)|>|~~~)|(\d{1,9})(?=[.)](?:\s|$))")


def markdown(file: str, body: int) -> Iterator[Stretch]:
    """The texts of paragraphs, headings and cells; markdown-it tells their lines."""
    if m := _FRONT_MATTER.match(file, body):
        body = m.end()
    rows = list(lines(file, body))
    text = "\n".join(file[i:j] for i, j in rows)
    in_table, cursor = False, 0
    for token in MarkdownIt("commonmark").enable("table").disable("inline").parse(text):
        in_table = token.type == "table_open" or in_table and token.type != "table_close"
        if token.type == "tr_open" and token.map:
            cursor = rows[token.map[0]][0]
        if token.type != "inline" or not token.map or not token.content:
            continue
        first = token.map[0]
        if not in_table:
            yield from _joined(file, rows[first:], token.content.split("\n"))
            continue
        cell = token.content.replace("|", r"\|")
        begin = file.find(cell, cursor, rows[first][1])
        if begin >= 0:
            cursor = begin + len(cell)
            yield unescaped(file, (begin, cursor), _PIPE, last, _put_in_cell)


def _joined(file: str, rows: Sequence[Span], contents: Sequence[str]) -> Iterator[Stretch]:
    """The lines of a block as one text, and one more behind every hard break."""
    text, at = "", []
    for (begin, end), content in zip(rows, contents, strict=False):
        line = content.strip()
        found = file.rfind(line, begin, end)  # what the block puts around it stands before it
        if found < 0:
            continue
        if not text and (m := _MARK.match(line)):
            found, line = found + m.end(), line[m.end() :]
        if hard := content.endswith(("  ", "\\")):
            line = line.removesuffix("\\")
        text += line + "\n"
        at += range(found, found + len(line) + 1)
        if hard:
            yield Stretch(text[:-1], at, _put_in_text)
            text, at = "", []
        elif text == "\n":
            text, at = "", []
    if text:
        yield Stretch(text[:-1], at, _put_in_text)


def _put_in_text(text: str) -> str:
    """A translation that begins no block, ends no code and leaves no emphasis open."""
    parts = fragments(text, KEPT["md"])
    bold = sum(part.count("**") for part in parts[::2]) % 2 == 0
    for i in range(0, len(parts), 2):
        part = parts[i].replace("`", "")
        parts[i] = part if bold else part.replace("**", "")
    text = "".join(parts)
    m = _OPENS.match(text)
    return f"{m[1] or ''}\\{text[m.end() :]}" if m else text


def _put_in_cell(text: str) -> str:
    return _put_in_text(text).replace("|", r"\|")

"""The texts of a column of a TSV, and of a field of a JSONL."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from hybriko_jax.data.pairs import USUAL_NAMES
from hybriko_jax.errors import UserError
from hybriko_jax.translation.sentences import Span
from hybriko_jax.translation.stretches import LINE, Stretch, last, lines, paragraphs, unescaped


def table(file: str, body: int, language: str, wanted: str = "") -> Iterator[Stretch]:
    rows = list(_rows(file, body, _QUOTED_CELL))
    if len({len(row) for row in rows}) > 1:  # a quotation mark that is only that
        rows = list(_rows(file, body, _PLAIN_CELL))
    column, header = _column([file[i:j] for i, j in rows[0]], language, wanted)
    if all(len(row) <= column for row in rows):
        raise UserError(f"--column {wanted}: 표에 열이 {len(rows[0])}개뿐입니다.")
    for row in rows[header:]:
        if len(row) > column:
            begin, end = row[column]
            if file[begin : begin + 1] == '"' == file[end - 1 : end] and end - begin > 1:
                yield from paragraphs(
                    unescaped(file, (begin + 1, end - 1), _QUOTE, last, _requoted)
                )
            else:
                yield from paragraphs(Stretch(file[begin:end], range(begin, end + 1)))


_QUOTED_CELL = re.compile(r'"(?:[^"]|"")*+"(?=[\t\r\n]|\Z)|[^\t\r\n]*')
_PLAIN_CELL = re.compile(r"[^\t\r\n]*")
_QUOTE = re.compile(r'""')


def _requoted(text: str) -> str:
    return text.replace('"', '""')


def _rows(file: str, at: int, cell: re.Pattern[str]) -> Iterator[list[Span]]:
    row: list[Span] = []
    while m := cell.match(file, at):
        row.append(m.span())
        at = m.end()
        if file[at : at + 1] == "\t":
            at += 1
            continue
        yield row
        row = []
        end = LINE.match(file, at)
        if not end or end.end() == len(file):
            return
        at = end.end()


def _column(first: list[str], language: str, wanted: str) -> tuple[int, bool]:
    """Which column to translate, and whether the first row is a header."""
    names = [cell.strip().strip('"') for cell in first]
    if wanted in names:
        return names.index(wanted), True
    if wanted.isdecimal() and int(wanted):
        return int(wanted) - 1, False
    shown = ", ".join(name[:20] for name in names[:10])
    if wanted:
        raise UserError(
            f"--column {wanted}: 그런 열이 없습니다. 첫 줄에 있는 것: {shown}. 이름이나 "
            "번호(1부터)를 주세요."
        )
    if (name := _usual(names, language)) is not None:
        return names.index(name), True
    if len(names) == 1:
        return 0, False
    raise UserError(
        f"열이 {len(names)}개입니다({shown}). 옮길 열을 --column 이름이나 번호로 주세요."
    )


def _usual(names: Sequence[str], language: str) -> str | None:
    """The one of these names under which texts of a language are mostly found."""
    for usual in USUAL_NAMES[language]:
        for name in names:
            if name.lower() == usual:
                return name
    return None


# JSON lines


def json_lines(file: str, body: int, language: str, field: str = "") -> Iterator[Stretch]:
    found = False
    names: dict[str, None] = {}
    for number, (begin, end) in enumerate(lines(file, body), 1):
        if not file[begin:end].strip():
            continue
        values = _fields(file, begin, end, number)
        names |= dict.fromkeys(values)
        if not field and values:
            field = _usual(list(values), language) or ("text" if "text" in values else "")
        if field in values and file[values[field][0]] == '"':
            found = True
            i, j = values[field]
            text = unescaped(file, (i + 1, j - 1), _ESCAPE, _loaded, _escaped)
            if not re.search("[\ud800-\udfff]", text.text):  # which no model can read
                yield from paragraphs(text)
    if not found:
        what = f"--field {field}: 그런 글이 없습니다." if field else "어느 글을 옮길지 모릅니다."
        raise UserError(f"{what} 있는 이름: {', '.join(list(names)[:10])}. --field 이름을 주세요.")


# Two escapes may be one character beyond U+FFFF.
_ESCAPE = re.compile(r"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\u....|\\.")
_SPACE = re.compile(r"[ \t\r\n]*")


def _loaded(escape: str) -> str:
    return json.loads(f'"{escape}"')


def _escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _fields(file: str, begin: int, end: int, number: int) -> dict[str, Span]:
    """Where the values of the object in a line stand.

    Raises:
      UserError: the line holds no object.
    """
    line = file[begin:end]
    try:
        if not isinstance(json.loads(line), dict):
            raise ValueError("객체가 아닙니다")
    except (ValueError, RecursionError) as e:
        why = e.msg if isinstance(e, json.JSONDecodeError) else e
        raise UserError(
            f"{number}번째 줄: JSON 객체로 읽을 수 없습니다({why}). 줄을 고쳐 주세요."
        ) from None
    read = json.JSONDecoder().raw_decode

    def past(at: int) -> int:
        m = _SPACE.match(line, at)
        return m.end() if m else at

    found: dict[str, Span] = {}
    at = past(past(0) + 1)
    while line[at] != "}":
        name, at = read(line, at)
        value = past(past(at) + 1)
        _, at = read(line, value)
        found[name] = begin + value, begin + at
        at = past(at)
        if line[at] == ",":
            at = past(at + 1)
    return found

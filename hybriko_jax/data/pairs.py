"""Pairs of texts that translate each other: from tables, spreadsheets, JSON, Parquet and TFDS."""

from __future__ import annotations

import csv
import glob
import itertools
import json
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hybriko_jax.data.sources import COMPRESSIONS, BadLines, hub_files, read_lines, tfds_documents
from hybriko_jax.errors import UserError
from hybriko_jax.korean import HANGUL, letter_share

# Names that columns are found by, preferred ones first; letter case does not matter. *_original,
# 원문 (original), 최종번역문 and 번역문 (translation) are AI-Hub's. Its originals are mostly
# Korean; where they are not, the share of Hangul tells.
USUAL_NAMES = {
    "ko": ("ko", "kor", "korean", "한국어", "국문", "ko_original", "원문"),
    "en": ("en", "eng", "english", "영어", "영문", "en_original", "최종번역문", "번역문"),
    "ja": ("ja", "jpn", "japanese", "일본어", "일문", "ja_original", "최종번역문", "번역문"),
}
_LONGEST_FIELD = 2**31 - 1  # characters of a table's cell; the csv module allows 131,072 by default
_MANY = 100  # pairs, of which it is strange that most are the same
_SAMPLED = 10_000  # pairs of a file, spread over it, that the share of Hangul is taken from
_SAMPLED_LENGTH = 200  # characters of each text


class Pair(NamedTuple):
    """Two texts that mean the same, in the two languages that `read_pairs` was asked for."""

    left: str
    right: str


def read_pairs(
    source: str,
    languages: tuple[str, str] = ("ko", "en"),
    columns: Mapping[str, str] | None = None,
    bad: BadLines | None = None,
) -> list[Pair]:
    r"""The pairs of a source, in order.

    White space around a text is dropped, and its lines end in \n. Rows without any text are no
    pairs.

    - .tsv, .csv: the first row is the header if it names the columns. If it names none of them, the
      table has no header: its first columns are the languages, in order. In .csv, quotes are
      syntax. In .tsv they are syntax if all of them stand as a program that quotes would put them,
      else they are plain characters.
    - .xlsx: every sheet whose first row names the columns.
    - .jsonl: one object a line. .json: the one list of objects that have such keys, wherever in
      the file it is. The texts may also be in an object under "translation".
    - .parquet: two columns of strings, or of a struct "translation".
    - tfds:NAME or tfds:DIRECTORY: the train split; fields are called as the languages, or by
      `columns`.

    Tables and JSON may be compressed (`sources.COMPRESSIONS`).

    Args:
      source: a file, directory or glob, hf:OWNER/NAME@REVISION:GLOB, or tfds:NAME.
      languages: of the left and of the right text.
      columns: the name of a language's column; without it one of `USUAL_NAMES`. Two numbers, from
        1, are places of columns in a table or sheet without a header.
      bad: told of every pair that cannot be read; without it the first one is refused.

    Raises:
      UserError: nothing is there, it cannot be read, a column is not found, or holds another
        language: the share of Hangul tells where Korean is one of the two.
    """
    return [pair for pair, _ in _read(source, _Wanted(languages, dict(columns or {})), bad)]


def read_labelled_pairs(
    source: str,
    label: str,
    languages: tuple[str, str] = ("ko", "en"),
    columns: Mapping[str, str] | None = None,
    bad: BadLines | None = None,
) -> list[tuple[Pair, str]]:
    """`read_pairs`, each with what one more column says of it; "" where that says nothing.

    Args:
      label: the column's name; or its place, from 1, in a table or sheet.

    Raises:
      UserError: as `read_pairs`, or the column is not there.
    """
    return _read(source, _Wanted(languages, dict(columns or {}), label), bad)


def _read(source: str, wanted: _Wanted, bad: BadLines | None) -> list[tuple[Pair, str]]:
    bad = BadLines("refuse") if bad is None else bad
    if source.startswith("tfds:"):
        return _pairs(source, _tfds(source, wanted), wanted, bad)
    return [
        pair
        for path in _files(source)
        for pair in _pairs(str(path), _READERS[_kind(path)](path, wanted, bad), wanted, bad)
    ]


@dataclass(frozen=True)
class _Wanted:
    """The languages, and the columns that the user has named."""

    languages: tuple[str, str]
    columns: dict[str, str]
    label: str | None = None
    """A third column."""

    def __post_init__(self):
        if len(set(self.languages)) != 2 or len(self.languages) != 2:
            raise UserError(
                f"languages={' '.join(self.languages)}: a pair has two different ones, as 'ko en'."
            )
        if unknown := sorted(self.columns.keys() - set(self.languages)):
            raise UserError(
                f"columns names one for {', '.join(unknown)}, which is not among the languages "
                f"{' '.join(self.languages)}."
            )
        if len(set(self.columns.values())) < len(self.columns):
            raise UserError(
                f"columns gives {self.columns[self.languages[0]]!r} for both languages. Name two "
                "columns."
            )

    def places(self) -> list[int] | None:
        """Indices of the columns, where the user has numbered them."""
        given = [self.columns.get(language, "") for language in self.languages]
        if not all(re.fullmatch("[1-9][0-9]*", g) for g in given):
            return None
        return [int(g) - 1 for g in given]

    def find(self, names: Sequence[str]) -> list[str | None]:
        """Which of these names are the columns of the languages."""
        usual = {name.casefold(): name for name in reversed(names)}
        found = []
        for language in self.languages:
            if language in self.columns:
                name = self.columns[language]
                found.append(name if name in names else None)
            else:
                known = USUAL_NAMES.get(language, (language,))
                found.append(next((usual[n] for n in known if n in usual), None))
        return found if found[0] != found[1] else [None, None]

    def choose(self, where: str, names: Sequence[str]) -> list[str]:
        """The names of both columns.

        Raises:
          UserError: one is not there, or is there twice.
        """
        found = [name for name in self.find(names) if name is not None]
        if len(found) < 2:
            raise self.missing(where, names)
        for name in found:
            if list(names).count(name) > 1:
                raise UserError(f"{where} has two columns {name!r}. Rename one of them.")
        return found

    def third(self, where: str, names: Sequence[str]) -> list[str]:
        """The name of the label's column, if one is wanted.

        Raises:
          UserError: it is not there, or is there twice.
        """
        if self.label is None:
            return []
        if list(names).count(self.label) > 1:
            raise UserError(f"{where} has two columns {self.label!r}. Rename one of them.")
        if self.label not in names:
            raise UserError(f"{where} has no column {self.label!r}; it has {_listed(names)}.")
        return [self.label]

    def third_place(self, where: str, names: Sequence[str], headed: bool) -> list[int]:
        """Its index, by name or by number."""
        numbers = [str(n) for n in range(1, len(names) + 1)]
        named = headed and (self.label in names or self.label not in numbers)
        known = names if named else numbers
        return [known.index(name) for name in self.third(where, known)]

    def missing(self, where: str, names: Sequence[str]) -> UserError:
        """That these names lack a column."""
        lacking = [
            repr(self.columns[language]) if language in self.columns else language
            for language, name in zip(self.languages, self.find(names), strict=True)
            if name is None
        ]
        return UserError(
            f"{where} has no column for {' and '.join(lacking)}; it has {_listed(names)}. Name the "
            "columns by --columns."
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(n if len(n) <= 40 else f"{n[:40]}..." for n in names if n) or "none"


class _Table(NamedTuple):
    """What its columns are called, and where and what the two texts of every row are.

    The label comes third, where one is wanted.
    """

    labels: list[str]
    rows: Iterable[tuple[str, Sequence[Any]]]
    headless: bool = False
    """The first row was taken for a pair, since it has no known name."""


def _pairs(name: str, table: _Table, wanted: _Wanted, bad: BadLines) -> list[tuple[Pair, str]]:
    pairs, labels, skipped = [], [], bad.count
    for where, values in table.rows:
        texts = [_clean(v) if isinstance(v, str) else "" if v is None else v for v in values[:2]]
        if texts == ["", ""]:
            continue
        if fault := _fault(texts, wanted.languages):
            bad.add(where, fault)
        else:
            pairs.append(Pair(*texts))
            labels.append(_label(values[2:]))
    if not pairs:
        why = (
            f" ({bad.count - skipped} bad rows, as {bad.first[-1]})" if bad.count > skipped else ""
        )
        raise UserError(f"{name} holds no pair of {' and '.join(wanted.languages)}{why}.")
    if "ko" in wanted.languages:
        _check_hangul(name, table, pairs, wanted.languages)
    return list(zip(pairs, labels, strict=True))


def _label(values: Sequence[Any]) -> str:
    label = str(values[0]) if values and values[0] is not None else ""
    return _clean(label.encode(errors="replace").decode())


def _clean(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def _fault(texts: Sequence[Any], languages: Sequence[str]) -> str | None:
    for language, text in zip(languages, texts, strict=True):
        if text == "":
            return f"the {language} side is empty"
        if not isinstance(text, str):
            return f"the {language} side is of type {type(text).__name__}, not text"
        try:
            text.encode()
        except UnicodeEncodeError:
            return "half of a surrogate pair, which no UTF-8 text can hold"
    return None


def _check_hangul(name: str, table: _Table, pairs: list[Pair], languages: Sequence[str]) -> None:
    """Refuses columns that are swapped, or that do not hold their language."""
    ko = languages.index("ko")
    other = 1 - ko
    columns = [f"column {label!r} ({c})" for label, c in zip(table.labels, languages, strict=True)]
    sample = pairs[:: -(-len(pairs) // _SAMPLED)]
    for column, texts in zip(columns, zip(*sample, strict=True), strict=True):
        if len(texts) >= _MANY and len(set(texts)) < len(texts) / 20:
            raise UserError(
                f"{name}: {column} holds only {len(set(texts))} different texts in {len(texts)} "
                "rows, as labels do. Name the right columns by --columns."
            )
    share = [_hangul_share(texts) for texts in zip(*sample, strict=True)]
    measured = (
        f"{name}: {columns[ko]} holds {share[ko]:.0%} Hangul, {columns[other]} {share[other]:.0%}"
    )
    if share[other] > share[ko]:
        left, right = (
            f"{c} {label}" for c, label in zip(languages, table.labels[::-1], strict=True)
        )
        raise UserError(f"{measured}. Swap them by --columns: {left} {right}.")
    if share[ko] < 0.05 or share[other] > 0.5:
        raise UserError(f"{measured}. Name the right columns by --columns.")
    if table.headless and not HANGUL.search(pairs[0][ko]):
        raise UserError(
            f"{name} begins with {pairs[0][ko][:40]!r} in {columns[ko]}, without Hangul. If that "
            "is a header, name the columns by --columns; if it is a pair, number them: "
            f"{languages[0]} 1 {languages[1]} 2."
        )


def _hangul_share(texts: Iterable[str]) -> float:
    """Hangul among the letters."""
    return letter_share("".join(t[:_SAMPLED_LENGTH] for t in texts))


# Files


def _files(source: str) -> list[Path]:
    if source.startswith("hf:"):
        files = hub_files(source)
    elif (path := Path(source).expanduser()).is_file():
        files = [path]  # before globs: names may hold brackets
    elif path.is_dir():
        files = [p for p in sorted(path.rglob("*")) if p.is_file() and _kind(p) in _READERS]
        # What editors and file managers leave beside a file.
        files = [p for p in files if not p.name.startswith((".", "~$"))]
    else:
        files = sorted(Path(p) for p in glob.glob(str(path), recursive=True))
    known = f"{', '.join(_READERS)} files, tables and JSON also with {', '.join(COMPRESSIONS)}"
    if not files:
        raise UserError(f"{source}: no such file, directory or glob. Give {known}.")
    for f in files:
        if _kind(f) not in _READERS:
            raise UserError(f"{f}: unknown suffix. Give {known}.")
        if f.stat().st_size == 0:
            raise UserError(f"{f} is empty. Leave it out.")
    return files


def _kind(path: Path) -> str:
    """The suffix that tells the format; of Parquet and XLSX none behind it is known."""
    inner = Path(path.stem).suffix.lower()
    compressed = path.suffix in COMPRESSIONS and inner not in (".parquet", ".xlsx")
    return inner if compressed else path.suffix.lower()


# Tables


class _Layout(NamedTuple):
    labels: list[str]
    places: list[int]
    headed: bool
    guessed: bool = False


def _layout(where: str, first: Sequence[Any], wanted: _Wanted, guess: bool) -> _Layout | None:
    """Where the columns are, by the first row of a table; None if it does not tell."""
    layout = _layout_of_texts(where, first, wanted, guess)
    if layout is None:
        return None
    third = wanted.third_place(where, _names(first), layout.headed)
    return layout._replace(places=layout.places + third)


def _layout_of_texts(where, first, wanted, guess):
    names = _names(first)
    if all(wanted.find(names)):
        labels = wanted.choose(where, names)
        return _Layout(labels, [names.index(label) for label in labels], headed=True)
    places = wanted.places()
    if places and max(places) < len(names):
        headed = all(_Wanted(wanted.languages, {}).find(names))
        return _Layout([str(p + 1) for p in places], places, headed)
    if guess and not wanted.columns and not any(wanted.find(names)) and len(names) > 1:
        return _Layout(["1", "2"], [0, 1], headed=False, guessed=True)
    return None


def _names(row: Sequence[Any]) -> list[str]:
    return ["" if cell is None else str(cell).strip() for cell in row]


def _table(path: Path, wanted: _Wanted, bad: BadLines) -> _Table:
    lines = [line for _, line in read_lines(path, bad, whole=True)]
    lines[:1] = [line.removeprefix("\ufeff") for line in lines[:1]]
    delimiter, plain = ("\t", _plain_quote(lines)) if _kind(path) == ".tsv" else (",", None)
    if plain is None:
        rows, note = _quoted_rows(path, lines, delimiter), ""
    else:
        rows = ((n, line.rstrip("\r\n").split(delimiter)) for n, line in enumerate(lines, 1))
        note = f"; quotes are plain characters in this file, because of the one in line {plain}"
    rows = ((n, row) for n, row in rows if any(map(str.strip, row)))
    n, first = next(rows, (1, []))
    layout = _layout(str(path), first, wanted, guess=True)
    if layout is None:
        raise wanted.missing(str(path), _names(first))
    if not layout.headed:
        rows = itertools.chain([(n, first)], rows)

    def texts() -> Iterator[tuple[str, list[str]]]:
        for n, row in rows:
            # A tab or comma within a text has put the rest of it in other columns.
            if len(row) <= max(layout.places) or any(map(str.strip, row[len(first) :])):
                bad.add(f"{path}:{n}", f"{len(row)} columns, the first row has {len(first)}{note}")
            else:
                yield f"{path}:{n}", [row[p] for p in layout.places]

    return _Table(layout.labels, texts(), layout.guessed)


def _quoted_rows(path: Path, lines: list[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(number of its first line, cells) of every row."""
    csv.field_size_limit(_LONGEST_FIELD)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        n = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as e:
            raise UserError(
                f"{path}:{n}: the row that begins here is not CSV ({e}). Mend its quotes."
            ) from None
        yield n, row


# A cell that is quoted, or one without quotes; and what ends it.
_CELL = re.compile(r'(?:"((?:[^"]++|"")*+)"|([^"\t\n]*+))(?:\t|\r?\n|\Z)')


def _plain_quote(lines: list[str]) -> int | None:
    """The line of a tab-separated table that shows its quotes to be no syntax; else None.

    A program that quotes puts quotes around whole cells and doubles those inside. It does so for
    all cells, numbers aside, or only for those that hold a tab, newline, quote or comma.
    """
    text = "".join(lines)
    if '"' not in text:
        return None
    at, bare, needless = 0, False, None
    while at < len(text):
        cell = _CELL.match(text, at)
        if cell is None:
            return 1 + text.count("\n", 0, at)
        quoted, plain = cell.groups()
        if quoted is None:
            bare = bare or not re.fullmatch(r"[\d.+-]*\r?", plain)
        elif needless is None and not re.search(r'[\t\n",]', quoted):
            needless = 1 + text.count("\n", 0, at)
        at = cell.end()
    return needless if bare else None


def _workbook(path: Path, wanted: _Wanted, bad: BadLines) -> _Table:
    try:
        import openpyxl
        from openpyxl.utils.escape import unescape
    except ImportError:
        raise UserError(
            f"{path}: spreadsheets are read by openpyxl, which is not installed. Install the extra "
            "xlsx (pip install 'hybriko-jax[xlsx]'), or save the sheet as CSV in UTF-8."
        ) from None

    def text(cell: Any) -> Any:
        if isinstance(cell, str):
            return unescape(cell)  # Excel writes a carriage return as _x000D_
        is_number = isinstance(cell, int | float) and not isinstance(cell, bool)
        return str(cell) if is_number else cell  # what looks like a number is made one

    first_names, labels, found = None, [], []
    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")  # of styles and the like
            for sheet in openpyxl.load_workbook(file, read_only=True, data_only=True).worksheets:
                sheet.reset_dimensions()  # some programs write wrong ones
                rows = enumerate(sheet.iter_rows(values_only=True), 1)
                n, first = next(rows, (1, ()))
                first_names = first_names or _names(first)
                where = f"{path}, sheet {sheet.title!r}"
                layout = _layout(where, first, wanted, guess=False)
                if layout is None:
                    continue
                labels = labels or layout.labels
                if not layout.headed:
                    rows = itertools.chain([(n, first)], rows)
                for n, row in rows:
                    cells = [text(row[p]) if p < len(row) else None for p in layout.places]
                    found.append((f"{where}, row {n}", cells))
    except UserError:
        raise
    except Exception as e:  # zip, XML and openpyxl each raise their own
        raise UserError(f"{path}: not an XLSX file that can be read ({e}).") from None
    if not labels:
        raise wanted.missing(str(path), first_names or [])
    return _Table(labels, found)


# Objects


def _json_lines(path: Path, wanted: _Wanted, bad: BadLines) -> _Table:
    def objects() -> Iterator[tuple[str, dict[str, Any]]]:
        for where, line in read_lines(path, bad):
            if line.strip():
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError) as e:
                    bad.add(where, f"not JSON ({getattr(e, 'msg', e)})")
                    continue
                if isinstance(value, dict):
                    yield where, value
                else:
                    bad.add(where, "not an object")

    return _fields(str(path), objects(), wanted, bad)


def _json(path: Path, wanted: _Wanted, bad: BadLines) -> _Table:
    text = "".join(line for _, line in read_lines(path, bad, whole=True))
    try:
        value = json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as e:
        raise UserError(
            f"{path}: not JSON ({e}). If it holds one object a line, name it .jsonl."
        ) from None
    lists: dict[str, list[dict[str, Any]]] = {}
    for at, found in _objects(value):
        lists.setdefault(at, []).append(found)
    fitting = [at for at, found in lists.items() if all(wanted.find(list(found[0])))]
    if len(fitting) > 1:
        raise UserError(
            f"{path} has several lists of pairs: {', '.join(fitting)}. Put one in a file."
        )
    if not fitting:
        longest = max(reversed(lists.values()), key=len, default=[{}])
        raise wanted.missing(str(path), list(longest[0]))
    at = fitting[0]
    objects = ((f"{path}, object {n} of {at}", o) for n, o in enumerate(lists[at], 1))
    return _fields(str(path), objects, wanted, bad)


def _objects(value: Any, at: str = "$") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object of a JSON value and its place, which those of one list have in common."""
    if isinstance(value, dict):
        yield at, value
        inner = [(f"{at}.{key}", v) for key, v in value.items()]
    else:
        inner = ((f"{at}[]", v) for v in value) if isinstance(value, list) else ()
    for place, v in inner:
        if isinstance(v, dict | list):
            yield from _objects(v, place)


def _fields(
    name: str, objects: Iterator[tuple[str, dict[str, Any]]], wanted: _Wanted, bad: BadLines
) -> _Table:
    """The columns are called as the first object calls them."""
    objects = ((where, _unwrapped(o)) for where, o in objects)
    first = next(objects, None)
    if first is None:
        raise UserError(f"{name} holds no object. Leave it out.")
    labels = wanted.choose(name, list(first[1]))
    keys = [*labels, *wanted.third(name, list(first[1]))]

    def texts() -> Iterator[tuple[str, list[Any]]]:
        for where, o in itertools.chain([first], objects):
            missing = [key for key in keys if key not in o]
            if missing:
                bad.add(where, f"no field {missing[0]!r}")
            else:
                yield where, [o[key] for key in keys]

    return _Table(labels, texts())


def _unwrapped(o: dict[str, Any]) -> dict[str, Any]:
    inner = o.get("translation")
    return inner if isinstance(inner, dict) else o


# Columns


def _parquet(path: Path, wanted: _Wanted, bad: BadLines) -> _Table:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as e:
        raise UserError(f"{path}: not a Parquet file that can be read ({e}).") from None
    fields = {f.name: f for f in file.schema_arrow}
    struct = fields.get("translation")
    nested = struct is not None and pyarrow.types.is_struct(struct.type)
    if struct is not None and nested:
        fields = {f.name: f for f in struct.type}
    labels = wanted.choose(str(path), list(fields))
    for label in labels:
        kind = fields[label].type
        kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
        if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
            raise UserError(f"{path}: column {label!r} holds {kind}, not text.")
    keys = [*labels, *wanted.third(str(path), list(fields))]

    def texts() -> Iterator[tuple[str, list[Any]]]:
        n = 0
        try:
            for batch in file.iter_batches(columns=["translation"] if nested else keys):
                for row in batch.to_pylist():
                    n += 1
                    row = (row["translation"] or {}) if nested else row
                    yield f"{path}, row {n}", [row.get(key) for key in keys]
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as e:
            raise UserError(f"{path}: not a Parquet file that can be read ({e}).") from None

    return _Table(labels, texts())


def _tfds(source: str, wanted: _Wanted) -> _Table:
    labels = [wanted.columns.get(language, language) for language in wanted.languages]
    keys = labels if wanted.label is None else [*labels, wanted.label]
    # Skipping in one field would shift it against the other.
    sides = [tfds_documents(source.removeprefix("tfds:"), key, BadLines("refuse")) for key in keys]
    rows = zip(*sides, strict=True)
    return _Table(labels, ((f"{source}:{n}", row) for n, row in enumerate(rows)))


_READERS: dict[str, Callable[[Path, _Wanted, BadLines], _Table]] = {
    ".tsv": _table,
    ".csv": _table,
    ".jsonl": _json_lines,
    ".json": _json,
    ".parquet": _parquet,
    ".xlsx": _workbook,
}

"""Documents from text, JSONL, Parquet, TFDS, the Hugging Face Hub, or our own sample."""

from __future__ import annotations

import bz2
import glob
import gzip
import hashlib
import io
import json
import lzma
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import zstandard

from hybriko_jax.data import sample
from hybriko_jax.errors import UserError

SUFFIXES = (".txt", ".jsonl", ".parquet")
COMPRESSIONS = (".gz", ".xz", ".zst", ".bz2")
SAMPLE_DOCUMENTS = 4000
_SAMPLE_MATERIAL = hashlib.sha256(Path(sample.__file__).read_bytes()).hexdigest()


@dataclass
class BadLines:
    """Lines that could not be read: refused at once, or counted and named."""

    policy: Literal["skip", "refuse"]
    count: int = 0
    first: list[str] = field(default_factory=list)
    """Where and why, for the first few."""

    def add(self, where: str, why: str) -> None:
        if self.policy == "refuse":
            raise UserError(
                f"{where}: {why}. Mend the line, or pass --data.on-bad-line skip to leave such "
                "lines out."
            )
        self.count += 1
        if len(self.first) < 5:
            self.first.append(f"{where}: {why}")

    def report(self) -> None:
        """Prints what was skipped."""
        for line in self.first:
            print(f"skipped {line}")
        if self.count > len(self.first):
            print(f"skipped {self.count:,} bad lines in all")


def fingerprint(source: str) -> Any:
    """What changes when the documents of a source may have changed; JSON data."""
    if source == "sample":
        return [source, SAMPLE_DOCUMENTS, _SAMPLE_MATERIAL]
    if source.startswith("tfds:"):
        return source
    files = [p.stat() for p in source_files(source)]
    return [source, [(s.st_size, s.st_mtime_ns) for s in files]]


def documents(source: str, text_field: str, bad: BadLines, whole: bool = False) -> Iterator[str]:
    """The documents of a source, in order.

    Args:
      source: "sample", tfds:NAME or tfds:DIRECTORY, hf:OWNER/NAME@REVISION:GLOB, a file, directory
        or glob.
      text_field: field that holds the text, in records that have fields.
      bad: told of every line that cannot be read.
      whole: documents of a .txt file keep their line ends and the blank lines after them: put
        together they are the file.

    Raises:
      UserError: nothing is there, or nothing that can be read.
    """
    if source == "sample":
        yield from sample.sample_documents(SAMPLE_DOCUMENTS)
    elif source.startswith("tfds:"):
        yield from tfds_documents(source.removeprefix("tfds:"), text_field, bad)
    else:
        for path in source_files(source):
            yield from file_documents(path, text_field, bad, whole)


def source_files(source: str) -> list[Path]:
    """The files a source names, sorted; those of the Hub are downloaded first.

    Raises:
      UserError: none, one is empty, or one has an unknown suffix.
    """
    if source.startswith("hf:"):
        return hub_files(source)
    path = Path(source).expanduser()
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file() and _kind(p))
    else:
        files = sorted(Path(p) for p in glob.glob(str(path), recursive=True))
    if not files:
        raise UserError(
            f"{source}: no such file, directory or glob. Give .txt or .jsonl files (also with "
            f"{', '.join(COMPRESSIONS)}), .parquet files, or 'sample'."
        )
    for f in files:
        if not _kind(f):
            raise UserError(
                f"{f}: unknown suffix. Known are {', '.join(SUFFIXES)}, and for text and JSONL "
                f"also with {', '.join(COMPRESSIONS)}."
            )
        if f.stat().st_size == 0:
            raise UserError(f"{f} is empty. Leave it out.")
    return files


def file_documents(
    path: Path, text_field: str, bad: BadLines, whole: bool = False
) -> Iterator[str]:
    """The documents of one file; in .txt they are separated by blank lines."""
    kind = _kind(path)
    if kind == ".parquet":
        yield from _parquet_documents(path, text_field)
    elif kind == ".jsonl":
        for where, line in read_lines(path, bad):
            if line.strip():
                yield from _json_document(where, line, text_field, bad)
    else:
        for block in _blocks(line for _, line in read_lines(path, bad, whole)):
            lines = block if whole else [line.rstrip("\r\n") for line in block if line.strip()]
            if lines:
                yield ("" if whole else "\n").join(lines)


def _open(path: Path) -> BinaryIO:
    """A file's bytes, decompressed by its suffix."""
    if path.suffix == ".zst":
        return io.BufferedReader(zstandard.open(path, "rb"))  # type: ignore[arg-type]
    return {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}.get(path.suffix, open)(path, "rb")


def _kind(path: Path) -> str | None:
    suffix = Path(path.stem).suffix if path.suffix in COMPRESSIONS else path.suffix
    known = suffix in SUFFIXES and (suffix != ".parquet" or path.suffix == suffix)
    return suffix if known else None


def read_lines(path: Path, bad: BadLines, whole: bool = False) -> Iterator[tuple[str, str]]:
    """(where, line with its end); `whole` keeps the byte order mark and refuses other encodings."""
    try:
        with _open(path) as f:
            for n, raw in enumerate(f, 1):
                try:
                    yield f"{path}:{n}", raw.decode("utf-8" if whole or n > 1 else "utf-8-sig")
                except UnicodeDecodeError as e:
                    why = f"not UTF-8 (byte {e.start + 1} of the line)"
                    if whole:
                        raise UserError(f"{path}:{n}: {why}. Convert the file to UTF-8.") from None
                    bad.add(f"{path}:{n}", why)
    except (OSError, EOFError, lzma.LZMAError, zstandard.ZstdError) as e:
        raise UserError(f"{path}: cannot be read ({e}).") from None


def _blocks(lines: Iterable[str]) -> Iterator[list[str]]:
    """The lines of each document of a .txt file, the blank ones after it among them."""
    block: list[str] = []
    begun = ended = False
    for line in lines:
        if line.strip():
            if ended:
                yield block
                block = []
            begun, ended = True, False
        else:
            ended = begun
        block.append(line)
    if block:
        yield block


def _json_document(where, line, text_field, bad):
    try:
        record = json.loads(line)
    except ValueError as e:  # also a number of thousands of digits
        bad.add(where, f"not JSON ({getattr(e, 'msg', e)})")
        return
    if not isinstance(record, dict) or not isinstance(record.get(text_field), str):
        bad.add(where, f"no string field {text_field!r} (option text-field)")
    elif any("\ud800" <= c <= "\udfff" for c in record[text_field]):
        bad.add(where, "half of a surrogate pair, which no UTF-8 text can hold")
    else:
        yield record[text_field]


def _parquet_documents(path, text_field):
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        names = file.schema_arrow.names
        if text_field not in names:
            raise UserError(
                f"{path} has no column {text_field!r}; it has {', '.join(names)}. Name one by the "
                "option text-field."
            )
        kind = file.schema_arrow.field(text_field).type
        if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
            raise UserError(f"{path}: column {text_field!r} holds {kind}, not text.")
        for batch in file.iter_batches(batch_size=512, columns=[text_field]):
            yield from (t for t in batch.column(0).to_pylist() if t)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as e:
        raise UserError(f"{path}: not a Parquet file that can be read ({e}).") from None


def tfds_documents(name: str, text_field: str, bad: BadLines) -> Iterator[str]:
    """The texts of one field of a dataset's train split."""
    import tensorflow_datasets as tfds

    try:
        builder: Any
        if Path(name).expanduser().is_dir():
            builder = tfds.builder_from_directory(str(Path(name).expanduser()))
        else:
            builder = tfds.builder(name)
        data = builder.as_data_source("train")
    except Exception as e:  # TFDS raises whatever its builder does
        reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise UserError(
            f"tfds:{name} cannot be read here ({reason}). Build it once where TensorFlow is: "
            "python -m venv tf && tf/bin/pip install tensorflow tensorflow-datasets apache-beam && "
            f"tf/bin/tfds build {name} --file_format=array_record, then give tfds:DIRECTORY."
        ) from None
    for n, record in enumerate(data):
        if text_field not in record:
            raise UserError(
                f"tfds:{name} has no field {text_field!r}; it has {', '.join(record)}. Name one by "
                "the option text-field."
            )
        value = record[text_field]
        if not isinstance(value, bytes | str):
            raise UserError(
                f"tfds:{name}: field {text_field!r} holds {type(value).__name__}, not text. Name "
                "another by the option text-field."
            )
        try:
            yield value.decode() if isinstance(value, bytes) else value
        except UnicodeDecodeError as e:
            bad.add(f"tfds:{name}:{n}", f"not UTF-8 (byte {e.start + 1})")


def hub_files(source: str) -> list[Path]:
    """The files of hf:OWNER/NAME:GLOB, or of hf:OWNER/NAME@REVISION:GLOB."""
    from huggingface_hub import snapshot_download

    name, _, pattern = source.removeprefix("hf:").partition(":")
    repository, _, revision = name.partition("@")
    if not pattern or "/" not in repository:
        raise UserError(f"{source}: give hf:OWNER/NAME:GLOB or hf:OWNER/NAME@REVISION:GLOB.")
    try:
        folder = snapshot_download(
            repository,
            repo_type="dataset",
            revision=revision or None,
            allow_patterns=pattern,
        )
    except Exception as e:  # the Hub's client raises many kinds where it cannot be reached
        reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise UserError(
            f"{source}: the Hugging Face Hub cannot be reached, or has no such dataset ({reason}). "
            "Give files of your own in its place, or 'sample', the built-in one (launch.pretrain: "
            "--data.source sample)."
        ) from None
    files = sorted(Path(folder).glob(pattern))
    if not files:
        raise UserError(f"{source}: the dataset has no file that matches {pattern}.")
    return files

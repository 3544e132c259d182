"""Sources, once, into a local TFDS dataset of token ids in ArrayRecord form."""

from __future__ import annotations

import hashlib
import heapq
import json
import os
import shutil
import socket
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hybriko_jax.config import DataConfig, TokenizerConfig
from hybriko_jax.data.sources import BadLines, documents, fingerprint
from hybriko_jax.errors import UserError
from hybriko_jax.tokenizer import SentencePiece, Tokenizer, train_sentencepiece

SPLITS = ("train", "held_out")
FORMAT = 2  # change it when a dataset that an older version prepared must not be reused
_BATCH = 256  # documents tokenized at a time
_TEMPORARY = f".tmp-{socket.gethostname()}-"  # and the process; other machines may share the cache

Progress = Callable[[str, int, int], None]
"""Told (what is done, documents so far, bytes of text so far)."""


def no_progress(what: str, n_documents: int, n_bytes: int) -> None:
    """A Progress that says nothing."""


@dataclass(frozen=True, eq=False)
class Split:
    """One split: documents in storage order, each start token + text + end token."""

    directory: Path
    name: str
    length_N: np.ndarray
    """Tokens of every document, its start and end tokens included."""
    source_N: np.ndarray
    """Which of data.source it came from."""
    n_bytes: int
    """UTF-8 bytes of all texts."""

    @cached_property
    def _records(self) -> Any:
        import tensorflow_datasets as tfds

        builder: Any = tfds.builder_from_directory(str(self.directory))
        return builder.as_data_source(self.name)

    def read(self, indices: list[int]) -> list[np.ndarray]:
        """Token ids of the documents with these indices; many at a time are read faster."""
        return [r["tokens"] for r in self._records.__getitems__(indices)]


@dataclass(frozen=True)
class Prepared:
    """A prepared dataset."""

    directory: Path
    train: Split
    held_out: Split
    digest: str
    """Names the tokens, order and sources of the training documents: what row numbers count."""


def train_tokenizer(
    data: DataConfig,
    config: TokenizerConfig,
    vocab_size: int,
    progress: Progress = no_progress,
    bad: BadLines | None = None,
) -> SentencePiece:
    """A new tokenizer, trained on a sample of the training documents.

    The sample is the documents with the smallest hashes, up to config.train_megabytes: the same
    whatever the order of the files.
    """
    bad = bad or BadLines(data.on_bad_line)
    budget, total, n = int(config.train_megabytes * 1e6), 0, 0
    kept: list[tuple[int, str]] = []
    for source in data.source:
        for text in documents(source, data.text_field, bad):
            rank = text_hash(text)
            if is_held_out(rank, data.held_out):
                continue
            heapq.heappush(kept, (-rank, text))
            total += len(text.encode())
            n += 1
            while total > budget and len(kept) > 1:
                total -= len(heapq.heappop(kept)[1].encode())
            if n % 1000 == 0:
                progress("reading text for the tokenizer", n, total)
    progress("training the tokenizer", len(kept), total)
    texts = (text for _, text in sorted(kept, reverse=True))
    return train_sentencepiece(texts, vocab_size, config.character_coverage)


def prepare(
    data: DataConfig, tokenizer: Tokenizer, cache: Path, progress: Progress = no_progress
) -> Prepared:
    """The prepared dataset of these sources and this tokenizer, made if it is not there.

    It is written beside its final place and renamed when it is whole: a run that is stopped in
    the middle leaves nothing that looks finished. If two runs prepare it at once, the second one
    takes what the first one made.

    Raises:
      UserError: a source cannot be read, a split would be empty, or the dataset is damaged.
    """
    key = [FORMAT, [fingerprint(s) for s in data.source], data.text_field, data.held_out]
    key += [data.on_bad_line, tokenizer.digest()]
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    directory = cache / name
    if not directory.exists():
        _sweep(cache)
        temporary = cache / f"{name}{_TEMPORARY}{os.getpid()}"
        temporary.mkdir(parents=True)
        try:
            _write(data, tokenizer, temporary, progress)
            try:
                temporary.rename(directory)
            except OSError:
                if not directory.exists():
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return load_prepared(directory)


def load_prepared(directory: Path) -> Prepared:
    """A dataset that `prepare` wrote.

    Raises:
      UserError: it is damaged.
    """
    try:
        facts = json.loads((directory / "prepared.json").read_text())
        with open(directory / "index.npz", "rb") as f:
            index = dict(np.load(f))
        splits = [
            Split(directory, s, index[f"{s}_length"], index[f"{s}_source"], facts["bytes"][s])
            for s in SPLITS
        ]
        return Prepared(directory, *splits, digest=facts["digest"])
    except (FileNotFoundError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as e:
        raise UserError(
            f"{directory} is a damaged dataset ({e}). Remove it, and it is prepared again."
        ) from None


def _sweep(cache):
    """Removes what killed preparations of this machine left."""
    for path in cache.glob(f"*{_TEMPORARY}*"):
        pid = path.name.rpartition("-")[2]
        if pid.isdigit() and (int(pid) == os.getpid() or not _is_alive(int(pid))):
            shutil.rmtree(path, ignore_errors=True)


def _is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True


def _write(data, tokenizer, directory, progress):
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.dataset_info import DatasetIdentity

    dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
    tokens = tfds.features.Tensor(shape=(None,), dtype=dtype, encoding=tfds.features.Encoding.BYTES)
    identity = DatasetIdentity(
        name="prepared",
        version=tfds.core.Version("1.0.0"),
        data_dir=str(directory),
        module_name=__name__,
    )
    info = tfds.core.DatasetInfo(
        builder=identity,
        features=tfds.features.FeaturesDict({"tokens": tokens}),
        disable_shuffling=True,  # the index below tells the documents by their order
    )
    writer = tfds.core.SequentialWriter(
        info, max_examples_per_shard=1_000_000, overwrite=True, file_format="array_record"
    )
    writer.initialize_splits(list(SPLITS))
    lengths = {s: [] for s in SPLITS}
    sources = {s: [] for s in SPLITS}
    n_bytes = dict.fromkeys(SPLITS, 0)
    digest = hashlib.sha256()
    bad, n = BadLines(data.on_bad_line), 0
    for i, source in enumerate(data.source):
        for texts in _batches(documents(source, data.text_field, bad), _BATCH):
            for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
                split = "held_out" if is_held_out(text_hash(text), data.held_out) else "train"
                ids = np.array([*tokenizer.begin, *ids, tokenizer.eos_id], dtype)
                writer.add_examples({split: [{"tokens": ids}]})
                if split == "train":
                    digest.update(ids.tobytes())
                lengths[split].append(len(ids))
                sources[split].append(i)
                n_bytes[split] += len(text.encode())
            n += len(texts)
            progress("tokenizing", n, sum(n_bytes.values()))
    writer.close_all()
    for split in SPLITS:
        if not lengths[split]:
            raise UserError(
                f"The {split} split is empty: {n} documents were found in {', '.join(data.source)}"
                f" ({bad.count} bad lines skipped). Give more documents, or another data.held_out "
                f"than {data.held_out}."
            )
    index = {f"{s}_length": np.array(lengths[s], np.int32) for s in SPLITS}
    index |= {f"{s}_source": np.array(sources[s], np.int16) for s in SPLITS}
    np.savez(directory / "index.npz", **index)  # type: ignore[arg-type]
    bad.report()
    digest.update(index["train_length"].tobytes())
    digest.update(index["train_source"].tobytes())
    facts = {
        "digest": digest.hexdigest()[:16],
        "source": data.source,
        "documents": {s: len(lengths[s]) for s in SPLITS},
        "tokens": {s: int(np.sum(lengths[s])) for s in SPLITS},
        "bytes": n_bytes,
        "bad_lines": bad.count,
        "tokenizer": tokenizer.digest(),
    }
    (directory / "prepared.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False))


def _batches(items: Iterator[str], n: int) -> Iterator[list[str]]:
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == n:
            yield batch
            batch = []
    if batch:
        yield batch


def text_hash(text: str) -> int:
    """64 bits that decide what happens to a document, the same wherever it stands."""
    text = unicodedata.normalize("NFC", text)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def is_held_out(rank: int, share: float) -> bool:
    """Whether a text of this hash is for evaluation."""
    # The top of the range: the tokenizer's sample is taken from the bottom.
    return rank >= (1 - share) * 2**64

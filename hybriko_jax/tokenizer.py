"""Text to token ids and back, exactly."""

from __future__ import annotations

import hashlib
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import sentencepiece as spm

from hybriko_jax.errors import UserError
from hybriko_jax.files import write_file

PAD_ID, UNK_ID, BOS_ID, EOS_ID = range(4)
IM_START, IM_END = "<|im_start|>", "<|im_end|>"
SPACE = "\u2581"  # how SentencePiece writes a space


class Tokenizer(Protocol):
    """What data, decoding and evaluation ask of a tokenizer."""

    vocab_size: int
    pad_id: int
    bos_id: int
    eos_id: int

    def encode(self, text: str) -> list[int]: ...
    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]: ...
    def decode(self, ids: Sequence[int]) -> str: ...
    def control_id(self, symbol: str) -> int: ...
    def pieces(self) -> list[bytes]: ...
    def token_bytes(self) -> np.ndarray: ...
    def digest(self) -> str: ...
    def save(self, path: Path) -> None: ...


class SentencePiece:
    """A SentencePiece model, such that decode(encode(text)) is text in NFC.

    Control symbols (<s>, <|im_start|>, ...) typed in a text are spelled out in ordinary pieces;
    only `control_id` gives their ids.

    Raises:
      UserError: the file is missing or is not a SentencePiece model.
    """

    def __init__(self, model: Path | str | bytes):
        try:
            self._model = model if isinstance(model, bytes) else Path(model).read_bytes()
            self._sp = spm.SentencePieceProcessor(model_proto=self._model)
        except (OSError, RuntimeError) as e:
            raise UserError(
                f"{model}: not a SentencePiece model that can be read ({e}). Train one with "
                "python -m launch.train_tokenizer."
            ) from None
        self.vocab_size: int = self._sp.GetPieceSize()
        self.pad_id: int = self._sp.pad_id()
        self.bos_id: int = self._sp.bos_id()
        self.eos_id: int = self._sp.eos_id()
        self._space_ids = [self._sp.PieceToId(f"<0x{b:02X}>") for b in SPACE.encode()]

    def encode(self, text: str) -> list[int]:
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        texts = [unicodedata.normalize("NFC", t) for t in texts]
        ids = self._sp.Encode(texts, num_threads=-1)
        for i, text in enumerate(texts):
            if SPACE in text:  # SentencePiece would read it as a space: spell it in bytes
                ids[i] = self._encode_with_space_marks(text)
        return ids

    def _encode_with_space_marks(self, text: str) -> list[int]:
        first, *rest = self._sp.Encode(text.split(SPACE))
        return first + [i for part in rest for i in (*self._space_ids, *part)]

    def decode(self, ids: Sequence[int]) -> str:
        return self._sp.Decode([int(i) for i in ids])

    def control_id(self, symbol: str) -> int:
        """Id of a control symbol.

        Raises:
          KeyError: the tokenizer has no such symbol.
        """
        i = self._sp.PieceToId(symbol)
        if not self._sp.IsControl(i):
            raise KeyError(symbol)
        return i

    def pieces(self) -> list[bytes]:
        """What each id spells; nothing for control symbols."""
        return [self._piece(i) for i in range(self.vocab_size)]

    def _piece(self, i: int) -> bytes:
        if self._sp.IsControl(i) or self._sp.IsUnknown(i):
            return b""
        piece = self._sp.IdToPiece(i)
        if self._sp.IsByte(i):
            return bytes([int(piece[3:5], 16)])
        return piece.replace(SPACE, " ").encode()

    def token_bytes(self) -> np.ndarray:
        """UTF-8 bytes that each id spells; 0 for control symbols."""
        return np.array([len(piece) for piece in self.pieces()], np.int32)

    def digest(self) -> str:
        """Short hash of the model: equal digests tokenize equally."""
        return hashlib.sha256(self._model).hexdigest()[:16]

    def save(self, path: Path) -> None:
        write_file(path, self._model)


def train_sentencepiece(
    texts: Iterable[str], vocab_size: int, character_coverage: float = 0.9995
) -> SentencePiece:
    """A unigram model that spells every text exactly.

    The default normaliser of SentencePiece rewrites casual Korean ("ㅋㅋㅋ", "…"): text is only put
    in NFC here. Unknown characters become bytes, digits stand alone, a newline is a piece.

    Args:
      texts: documents.
      vocab_size: pieces, the 256 bytes and the control symbols included.
      character_coverage: share of characters that get pieces of their own.

    Raises:
      UserError: the texts are too few for so large a vocabulary, or too many characters for
        so small a one.

    Source: Unigram language model, arXiv:1804.10959.
    """
    model = io.BytesIO()
    try:
        spm.SentencePieceTrainer.Train(
            sentence_iterator=_lines(texts),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            character_coverage=character_coverage,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            byte_fallback=True,
            pad_id=PAD_ID,
            unk_id=UNK_ID,
            bos_id=BOS_ID,
            eos_id=EOS_ID,
            control_symbols=[IM_START, IM_END],
            user_defined_symbols=["\n"],
            max_sentence_length=1 << 16,
            minloglevel=2,
        )
    except RuntimeError as e:
        raise UserError(_why_not_trained(str(e), vocab_size)) from None
    return SentencePiece(model.getvalue())


def _lines(texts):
    for text in texts:
        for line in unicodedata.normalize("NFC", text).split("\n"):
            if line:
                yield line


def _why_not_trained(message: str, vocab_size: int) -> str:
    if limit := re.search(r"value <= (\d+)", message):
        return (
            f"vocab_size={vocab_size} is larger than the text supports: at most {limit[1]} pieces "
            "occur in it. Give more text or a smaller vocab-size."
        )
    if limit := re.search(r"required_chars. (\d+)|(\d+) vs (\d+)", message):
        return (
            f"vocab_size={vocab_size} is smaller than the characters of the text and the 256 bytes "
            f"need ({message.strip().splitlines()[-1]}). Give a larger vocab-size or lower "
            "--tokenizer.character-coverage."
        )
    if "empty" in message or "sentences_.size" in message:
        return "There is no text to train a tokenizer on. Check --data.source."
    return f"SentencePiece could not be trained: {message.strip()}"

"""Text to token ids and back, exactly."""

from __future__ import annotations

import hashlib
import io
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

import numpy as np
import sentencepiece as spm
import tokenizers
from tokenizers import models, pre_tokenizers

from hybriko_jax.errors import UserError
from hybriko_jax.files import write_file

PAD_ID, UNK_ID, BOS_ID, EOS_ID = range(4)
IM_START, IM_END = "<|im_start|>", "<|im_end|>"
SPACE = "\u2581"  # how SentencePiece writes a space


class Tokenizer(Protocol):
    """What data, decoding and evaluation ask of a tokenizer.

    FILE is the name it is saved under. eos_id and pad_id are always ids; bos_id is -1 where texts
    there is no start token. `begin` is what texts begin with, and `ends` are the ids after which a
    model has no more to say. Where no token is there for padding, pad_id is eos_id: losses and
    positions mask it, whatever it is.
    """

    FILE: ClassVar[str]
    vocab_size: int
    pad_id: int
    bos_id: int
    eos_id: int
    begin: list[int]
    ends: list[int]

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

    FILE: ClassVar[str] = "tokenizer.model"

    def __init__(self, model: Path | str | bytes):
        try:
            self._model = model if isinstance(model, bytes) else Path(model).read_bytes()
            self._sp = spm.SentencePieceProcessor(model_proto=self._model)
            if not self._sp.GetPieceSize():  # of an empty file
                raise RuntimeError("it holds no piece")
        except (OSError, RuntimeError) as e:
            raise UserError(
                f"{model}: not a SentencePiece model that can be read ({e}). Train one with "
                "python -m launch.train_tokenizer."
            ) from None
        self.vocab_size: int = self._sp.GetPieceSize()
        self.pad_id: int = self._sp.pad_id()
        self.bos_id: int = self._sp.bos_id()
        self.eos_id: int = self._sp.eos_id()
        self.begin: list[int] = [self.bos_id] if self.bos_id >= 0 else []
        im_end = self._sp.PieceToId(IM_END)
        self.ends: list[int] = [self.eos_id, *([im_end] if self._sp.IsControl(im_end) else [])]
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
          UserError: the tokenizer has no such symbol.
        """
        i = self._sp.PieceToId(symbol)
        if not self._sp.IsControl(i):
            raise _no_control(symbol)
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


# How the two kinds of tokenizer.json write a single byte. In byte-level files the bytes that print
# stand for themselves, and the others, in order, are the letters from U+0100 on.
_LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
_BYTE_LEVEL = dict(
    zip(_LETTERS, sorted(range(256), key=lambda b: (chr(b) not in _LETTERS, b)), strict=True)
)
_BYTE_FALLBACK = {f"<0x{b:02X}>": b for b in range(256)}


class TokenizerJson:
    """A tokenizer.json of the tokenizers library, byte-level or with byte fallback.

    A byte-level file gives decode(encode(text)) == text for every text, but for what its own
    normalizer rewrites (NFC, if any). So characters are kept that the file would drop, such as the
    U+0CF1 of Polyglot-ko, and no space is put before a text. All other ids are those of
    transformers with split_special_tokens=True. With byte fallback the file is taken as it is.

    Special tokens (<|endoftext|>, ...) typed in a text are spelled out in ordinary pieces; only
    `control_id` gives their ids. Ids beyond the vocabulary, which a padded embedding has, spell
    nothing.

    Args:
      file: a path, or what the file holds.
      eos_id, bos_id, pad_id: eos_token_id, ... of the model's config.json, which the file does not
        know; None or -1 where there is none. Texts and answers end in eos_id, so it must be one.

    Raises:
      UserError: the file is missing or damaged, cannot spell every byte, or lacks a special id.
    """

    FILE: ClassVar[str] = "tokenizer.json"

    def __init__(
        self,
        file: Path | str | bytes,
        *,
        eos_id: int | None,
        bos_id: int | None = None,
        pad_id: int | None = None,
    ):
        name = self.FILE if isinstance(file, bytes) else file
        try:
            self._file = file if isinstance(file, bytes) else Path(file).read_bytes()
            self._tokenizer = tokenizers.Tokenizer.from_buffer(self._file)
        except (OSError, ValueError) as e:
            raise UserError(
                f"{name}: not a tokenizer.json that can be read ({e}). Take it again from where "
                "the model comes from."
            ) from None
        self._byte_level = "ByteLevel" in str(self._tokenizer.decoder)
        self._check_bytes(name)
        self._check_special_ids(name, eos=eos_id, bos=bos_id, pad=pad_id)
        self.eos_id: int = cast(int, eos_id)
        self.bos_id: int = -1 if bos_id is None else bos_id
        self.pad_id: int = self.eos_id if pad_id is None or pad_id == -1 else pad_id
        _take_texts_whole(self._tokenizer, self._byte_level)
        # The file tells, and not bos_id: that is often a default of a config (GPT-NeoX: 0).
        whole, text = (self._tokenizer.encode("a", add_special_tokens=s).ids for s in (True, False))
        at = next(i for i in range(len(whole)) if whole[i : i + len(text)] == text)
        self.begin: list[int] = whole[:at]
        # Some files do not say that it is special.
        self._tokenizer.add_special_tokens([self._tokenizer.id_to_token(self.eos_id)])
        added = self._tokenizer.get_added_tokens_decoder()
        self.controls = {token.content: i for i, token in added.items() if token.special}
        im_end = self.controls.get(IM_END, self.eos_id)
        self.ends: list[int] = [self.eos_id, *([im_end] if im_end != self.eos_id else [])]
        self._spelled = {i: self._spell(piece) for piece, i in self._tokenizer.get_vocab().items()}
        self._spelled |= {i: b"" if t.special else t.content.encode() for i, t in added.items()}
        # More than the library counts where ids leave gaps.
        self.vocab_size: int = max(self._spelled) + 1

    def _check_bytes(self, name: Path | str) -> None:
        letters = _BYTE_LEVEL if self._byte_level else _BYTE_FALLBACK
        if self._tokenizer.decoder is None or letters.keys() - self._tokenizer.get_vocab().keys():
            raise UserError(
                f"{name}: not every text can be spelled, since not each of the 256 bytes has a "
                "piece. Give a byte-level tokenizer, or one with byte fallback."
            )

    def _check_special_ids(self, name: Path | str, **ids: int | None) -> None:
        if ids["eos"] in (None, -1):
            raise UserError(
                f"{name}: the eos_token_id of the model, in which texts end, is not known. Put it "
                "in the config.json beside the file."
            )
        known = self._tokenizer.get_vocab().values()
        for kind, i in ids.items():
            if i not in (None, -1) and i not in known:
                raise UserError(
                    f"{kind}_token_id={i} is none of the {len(known)} ids of {name}. Take "
                    "config.json and tokenizer.json from one model."
                )

    def _spell(self, piece: str) -> bytes:
        if not self._byte_level:
            if piece in _BYTE_FALLBACK:
                return bytes([_BYTE_FALLBACK[piece]])
            # Behind another piece: of the first one a decoder may take the space off.
            return self._tokenizer.decoder.decode(["a", piece]).removeprefix("a").encode()
        try:
            return bytes(_BYTE_LEVEL[c] for c in piece)
        except KeyError:
            return piece.encode()  # put in by hand: the library, too, takes it literally

    def encode(self, text: str) -> list[int]:
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [e.ids for e in encoded]

    def decode(self, ids: Sequence[int]) -> str:
        if not self._byte_level:
            return self._tokenizer.decode([int(i) for i in ids])
        # The library takes letters of added tokens for bytes (huggingface/tokenizers#1392).
        return b"".join(self._spelled.get(int(i), b"") for i in ids).decode("utf-8", "replace")

    def control_id(self, symbol: str) -> int:
        """Id of a special token.

        Raises:
          UserError: the tokenizer has no such token.
        """
        if symbol not in self.controls:
            raise _no_control(symbol)
        return self.controls[symbol]

    def pieces(self) -> list[bytes]:
        """What each id spells; nothing for special tokens."""
        return [self._spelled.get(i, b"") for i in range(self.vocab_size)]

    def token_bytes(self) -> np.ndarray:
        """UTF-8 bytes that each id spells; 0 for special tokens."""
        return np.array([len(piece) for piece in self.pieces()], np.int32)

    def digest(self) -> str:
        """Short hash of file and special ids: equal digests tokenize, begin and end equally."""
        ids = f"{self.pad_id} {self.bos_id} {self.eos_id}"
        return hashlib.sha256(self._file + ids.encode()).hexdigest()[:16]

    def save(self, path: Path) -> None:
        write_file(path, self._file)


def _no_control(symbol: str) -> UserError:
    return UserError(
        f"The tokenizer has no control symbol {symbol!r}: its model knows no conversations. Give a "
        "model whose tokenizer launch.train_tokenizer made."
    )


def _take_texts_whole(tokenizer: tokenizers.Tokenizer, byte_level: bool) -> None:
    """Switches off what a file may do to a text besides cutting it, always in the same way."""
    tokenizer.encode_special_tokens = True  # as ordinary text, that is
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if isinstance(tokenizer.model, models.BPE):
        tokenizer.model.dropout = None
    if not byte_level:
        return
    steps: Any = tokenizer.pre_tokenizer
    for step in steps if isinstance(steps, pre_tokenizers.Sequence) else [steps]:
        if isinstance(step, pre_tokenizers.Split) and step.behavior == "removed":
            step.behavior = "isolated"
        if isinstance(step, pre_tokenizers.ByteLevel):
            step.add_prefix_space = False


def load_tokenizer(
    folder: Path,
    *,
    eos_id: int | None = None,
    bos_id: int | None = None,
    pad_id: int | None = None,
) -> Tokenizer:
    """The tokenizer of a folder: tokenizer.model if it is there, else tokenizer.json.

    Args:
      folder: a run's workdir, or a model in the format of transformers.
      eos_id, bos_id, pad_id: special ids of tokenizer.json, -1 for none; those that are None are
        eos_token_id, ... of the folder's config.json, if it has one. A tokenizer.model has its own.

    Raises:
      UserError: the folder holds neither file, or one that cannot be read.
    """
    if (folder / SentencePiece.FILE).exists():
        return SentencePiece(folder / SentencePiece.FILE)
    file = folder / TokenizerJson.FILE
    if not file.exists():
        raise UserError(
            f"{folder} holds neither {SentencePiece.FILE} nor {TokenizerJson.FILE}. Give the "
            "workdir of a run or the folder of a model."
        )
    fields = _fields(folder / "config.json")
    given = {"eos": eos_id, "bos": bos_id, "pad": pad_id}
    ids = {f"{k}_id": fields.get(f"{k}_token_id") if i is None else i for k, i in given.items()}
    return TokenizerJson(file, **ids)


def _fields(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_bytes()) if path.exists() else {}
    except (OSError, ValueError) as e:
        raise UserError(f"{path} cannot be read ({e}). Give the folder of a model.") from None
    if not isinstance(fields, dict):
        raise UserError(f"{path} is not the config of a model.")
    return fields


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

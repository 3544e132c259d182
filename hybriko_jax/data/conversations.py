"""Conversations to tune a model on, packed into rows, with ordinary text mixed in."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hybriko_jax.data.batch import Batch
from hybriko_jax.data.loader import Documents, Rows
from hybriko_jax.data.packing import Plan, pack
from hybriko_jax.errors import UserError
from hybriko_jax.linux.tools import call_fault
from hybriko_jax.prompts import Message, chat_tokens, parse_call
from hybriko_jax.tokenizer import Tokenizer

_ROLES = ("system", "user", "assistant", "tool")


def read_samples(path: Path) -> list[dict[str, Any]]:
    """The samples of a JSONL file.

    Raises:
      UserError: a line is no sample: its number and what is wrong with it.
    """
    samples = []
    for where, line in sample_lines(path):
        try:
            samples.append(json.loads(line))
        except ValueError as e:
            raise UserError(f"{where}: not JSON ({e}). Mend or remove the line.") from None
        if fault := _fault(samples[-1]):
            raise UserError(f"{where}: {fault}. Mend or remove the line.")
    return samples


def sample_lines(path: Path) -> list[tuple[str, str]]:
    """(FILE:LINE, line) for every line of a JSONL file that is not blank.

    Raises:
      UserError: the file cannot be read, or there is none.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"{path}: cannot be read ({e}). Give a JSONL file of samples.") from None
    found = [(f"{path}:{n}", line) for n, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise UserError(f"{path} holds no sample. Make some: python -m launch.synthesize.")
    return found


def _fault(sample: Any) -> str | None:
    messages = sample.get("messages") if isinstance(sample, dict) else None
    if not isinstance(messages, list) or not messages:
        return "no list 'messages'"
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            return f"a message's role is not one of {', '.join(_ROLES)}"
        if not isinstance(message.get("content"), str):
            return f"the content of a {message['role']} message is not a string"
        if message["role"] == "assistant":
            _, action, arguments = parse_call(message["content"])
            if fault := call_fault(action, arguments):
                return fault
    if messages[-1]["role"] != "assistant":
        return "the last message is not the assistant's"
    return None


@dataclass(frozen=True, eq=False)
class Conversations:
    """Tokenized conversations, and the documents of a text split after them.

    Source 0 is the conversations, 1 the text.
    """

    tokens: Sequence[np.ndarray]
    said: Sequence[np.ndarray]
    """Which tokens are the assistant's: those that are learned."""
    text: Documents | None

    @functools.cached_property
    def length_N(self) -> np.ndarray:
        lengths = np.array([len(t) for t in self.tokens], np.int32)
        return lengths if self.text is None else np.concatenate([lengths, self.text.length_N])

    @functools.cached_property
    def source_N(self) -> np.ndarray:
        return (np.arange(len(self.length_N)) >= len(self.tokens)).astype(np.int16)

    def digest(self) -> str:
        """Names the tokens that row numbers count."""
        digest = hashlib.sha256()
        for tokens in self.tokens:
            digest.update(tokens.tobytes())
        digest.update(self.length_N.tobytes())
        return digest.hexdigest()[:16]

    def read(self, indices: list[int]) -> list[np.ndarray]:
        """Token ids of conversations and documents."""
        n = len(self.tokens)
        found = {i: self.tokens[i] for i in indices if i < n}
        text = [i for i in indices if i >= n]
        if self.text is not None and text:
            found |= dict(zip(text, self.text.read([i - n for i in text]), strict=True))
        return [found[i] for i in indices]

    def learned(self, indices: list[int]) -> list[np.ndarray]:
        """1 for every token that is learned, 0 for the others."""
        lengths, n = self.length_N, len(self.tokens)
        return [
            self.said[i].astype(np.int32) if i < n else np.ones(lengths[i], np.int32)
            for i in indices
        ]


@dataclass(frozen=True, eq=False)
class ConversationRows(Rows):
    """`Rows` in which only the assistant's words and the ordinary text are learned."""

    packed: bool = True
    """False puts one conversation in a row: behind a shared prefix, position 0 of a second one
    would forget the prefix."""

    @functools.lru_cache(maxsize=2)  # noqa: B019  (a few objects a process)
    def plan(self, epoch: int) -> Plan:
        if self.packed:
            return super().plan(epoch)
        lengths = self.split.length_N
        order = np.random.default_rng([self.seed, epoch]).permutation(len(lengths))
        zeros = np.zeros(len(lengths), np.int64)
        return Plan(np.arange(len(lengths) + 1), order, zeros, lengths[order])

    def batch(self, numbers: Iterable[int]) -> Batch:
        numbers = list(numbers)
        batch = super().batch(numbers)
        conversations: Any = self.split
        learned_BL = (
            pack(self.pieces(numbers), self.seq_len, conversations.learned, 0).tokens_BL == 1
        )
        return replace(batch, loss_mask_BL=batch.loss_mask_BL & learned_BL)


def conversations(
    tokenizer: Tokenizer,
    samples: Sequence[dict[str, Any]],
    system: str | None,
    text: Documents | None = None,
    longest: int | None = None,
) -> Conversations:
    """Samples as tokens, each behind the system prompt.

    Args:
      system: the system prompt; None where it is a shared prefix: a sample then begins in the
        middle, without a start token.
      longest: tokens that a row holds; longer samples are left out.

    Raises:
      UserError: all samples are longer than a row.
    """
    before: list[Message] = [{"role": "system", "content": system}] if system else []
    begin = system is not None
    both = [chat_tokens(tokenizer, [*before, *s["messages"]], begin) for s in samples]
    kept = [pair for pair in both if longest is None or len(pair[0]) <= longest]
    if not kept:
        raise UserError(
            f"All {len(both)} samples are longer than train.seq_len={longest} tokens. Raise "
            "--train.seq-len."
        )
    return Conversations([t for t, _ in kept], [s for _, s in kept], text)


def text_weight(conversations_tokens: int, text_tokens: int, share: float) -> float:
    """Passes over the text in an epoch for it to make up this share of all tokens."""
    return share / (1 - share) * conversations_tokens / max(text_tokens, 1)

"""Pairs of texts as translations to tune a model on."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from hybriko_jax.data.conversations import Conversations
from hybriko_jax.data.pairs import Pair
from hybriko_jax.data.prepare import is_held_out, text_hash
from hybriko_jax.errors import UserError
from hybriko_jax.prompts import Translation, translation_tokens_batch
from hybriko_jax.tokenizer import Tokenizer

_BATCH = 1024  # pairs tokenized at a time


def translations(
    tokenizer: Tokenizer,
    pairs: Sequence[Pair],
    languages: tuple[str, str] = ("ko", "en"),
    longest: int | None = None,
) -> Conversations:
    """Pairs as tokens: the even ones from left to right, the odd ones from right to left.

    Args:
      languages: of the left and of the right texts, keys of `prompts.LANGUAGES`.
      longest: tokens that a row holds; longer pairs are left out. The others keep their direction.

    Raises:
      UserError: there is no pair, all are longer than a row, or a language has no prompt.

    Source: Gugugo, github.com/jwj7140/Gugugo, GugugoTrain.ipynb (even and odd numbers).
    """
    if not pairs:
        raise UserError("There is no pair to learn from. Give a source that holds some.")
    left, right = languages
    directed = [
        Translation(p.right, p.left, right, left)
        if i % 2
        else Translation(p.left, p.right, left, right)
        for i, p in enumerate(pairs)
    ]
    kept = [
        both
        for i in range(0, len(directed), _BATCH)
        for both in translation_tokens_batch(tokenizer, directed[i : i + _BATCH])
        if longest is None or len(both[0]) <= longest
    ]
    if not kept:
        raise UserError(
            f"All {len(pairs)} pairs are longer than train.seq_len={longest} tokens. Raise "
            "--train.seq-len."
        )
    return Conversations([t for t, _ in kept], [s for _, s in kept], None)


def split_pairs(pairs: Sequence[Pair], held_out_share: float) -> tuple[list[Pair], list[Pair]]:
    """Pairs to train on, and those held out, both in order.

    The texts of a pair decide alone, in NFC and in either order: whatever stands beside a pair, it
    is on the same side, and so are its copies. A larger share only adds pairs. Two pairs that have
    one text in common may part. Either side may be empty where pairs are few.

    Args:
      held_out_share: part of all different pairs, at least 0 and below 1.

    Raises:
      UserError: another share.
    """
    if not 0 <= held_out_share < 1:
        raise UserError(
            f"held_out={held_out_share} is not a share of the pairs: give at least 0, below 1."
        )
    sides: tuple[list[Pair], list[Pair]] = ([], [])
    for pair in pairs:
        sides[is_held_out(_pair_hash(pair), held_out_share)].append(pair)
    return sides


def _pair_hash(pair: Pair) -> int:
    return text_hash("\0".join(sorted(unicodedata.normalize("NFC", text) for text in pair)))

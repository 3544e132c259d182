"""Texts that end an answer, or that must occur in it, in whatever tokens they are written."""

from __future__ import annotations

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from hybriko_jax.decode.generate import round_up


def stop_table(
    vocab_size: int, ids: Sequence[int] = (), text: str = "", pieces: Sequence[bytes] = ()
) -> np.ndarray:
    """What ends a row: tokens, or a text, however it is cut into tokens.

    Args:
      vocab_size: V of the model; the tokenizer may know fewer.
      ids: tokens that end a row.
      text: text that ends a row as soon as it stands in it; "" for none.
      pieces: bytes that each id spells.

    Returns:
      next_SV: row s is for rows that end in the first s bytes of the text, and its numbers are
      those rows after one more token; S says that the row has ended.
    """
    wanted = text.encode()
    size = max(len(wanted), 1)
    next_SV = np.zeros((size, vocab_size), np.int32)
    if wanted:
        # Of one byte: an automaton. Of a piece: the automaton, byte by byte, on all pieces.
        after = [
            [_overlap(wanted[:s] + bytes([b]), wanted) for b in range(256)] for s in range(size)
        ]
        after_SX = np.array([*after, [size] * 256], np.int32)
        next_SV[:] = np.arange(size)[:, None]
        length_V = np.array([len(p) for p in pieces])
        for i in range(length_V.max(initial=0)):
            (longer,) = np.nonzero(length_V > i)
            byte = np.array([pieces[int(v)][i] for v in longer])
            next_SV[:, longer] = after_SX[next_SV[:, longer], byte]
    next_SV[:, list(ids)] = size
    return next_SV


def _overlap(written: bytes, wanted: bytes) -> int:
    """The longest beginning of what is wanted that ends what is written."""
    return next(n for n in range(len(wanted), -1, -1) if written.endswith(wanted[:n]))


@flax.struct.dataclass
class Terms:
    """Texts that must occur, T of them."""

    next_TSV: jax.Array
    """As `stop_table`; a text that occurs goes on occurring."""
    begins_TSV: jax.Array
    """Which tokens begin a text, perhaps behind a space, or go on with it."""
    size_T: jax.Array
    """Bytes."""
    needed_BT: jax.Array
    """By which prompt."""


def make_terms(terms: Sequence[Sequence[str]], vocab_size: int, pieces: Sequence[bytes]) -> Terms:
    """The texts that each of B prompts needs, as tables over tokens."""
    texts = sorted({text for row in terms for text in row})
    # The number of texts and of their bytes is rounded up, so that few shapes are compiled.
    size_T = np.array([len(text.encode()) for text in texts])
    size_T = np.pad(size_T, (0, -len(texts) % 4))
    S = round_up(int(size_T.max()) + 1, 32)
    next_TSV = np.zeros((len(size_T), S, vocab_size), np.int16) + size_T[:, None, None]
    for t, text in enumerate(texts):
        next_TSV[t, : size_T[t]] = stop_table(vocab_size, (), text, pieces)
    length_SV = np.zeros((S, vocab_size), int)
    length_SV[:, : len(pieces)] = [len(piece) for piece in pieces]
    length_SV[0, : len(pieces)] = [len(piece.lstrip(b" ")) for piece in pieces]
    goal_TSV = np.minimum(np.arange(S)[:, None] + length_SV, size_T[:, None, None])
    needed_BT = np.array(
        [[t < len(texts) and texts[t] in row for t in range(len(size_T))] for row in terms]
    )
    begins_TSV = (next_TSV == goal_TSV) & (length_SV > 0)
    return Terms(*map(jnp.asarray, (next_TSV, begins_TSV, size_T, needed_BT)))


def progress(terms, before_BCT, token_BC):
    """Bytes written of each text and of all that are needed, and whether these are written."""
    row_T = jnp.arange(len(terms.size_T))
    progress_BCT = terms.next_TSV[row_T, before_BCT, token_BC[..., None]].astype(jnp.int32)
    needed_B1T = terms.needed_BT[:, None]
    have_BC = jnp.where(needed_B1T, progress_BCT, 0).sum(axis=-1)
    return progress_BCT, have_BC, (~needed_B1T | (progress_BCT == terms.size_T)).all(axis=-1)


def towards(terms, progress_BKT, score_BK, logits_BKV):
    """For each beam and each text that it lacks, the likeliest token towards it."""
    score_BK = score_BK - jax.nn.logsumexp(logits_BKV, axis=-1)
    begins_BKTV = terms.begins_TSV[jnp.arange(len(terms.size_T)), progress_BKT]
    logits_BKTV = jnp.where(begins_BKTV, logits_BKV[:, :, None], -jnp.inf)
    lacks_BKT = terms.needed_BT[:, None] & (progress_BKT < terms.size_T)
    best_BKT = jnp.where(lacks_BKT, logits_BKTV.max(axis=-1), -jnp.inf) + score_BK[..., None]
    parent_BKT = jnp.broadcast_to(jnp.arange(score_BK.shape[1])[:, None], best_BKT.shape)
    forced = (best_BKT, parent_BKT, logits_BKTV.argmax(axis=-1).astype(jnp.int32))
    return tuple(a.reshape(len(a), -1) for a in forced)


def joined(natural, forced):
    """The candidates of both kinds, each once."""
    score_BN, parent_BN, token_BN = (
        jnp.concatenate(both, axis=1) for both in zip(natural, forced, strict=True)
    )
    alike_BNN = (parent_BN[:, None] == parent_BN[..., None]) & (
        token_BN[:, None] == token_BN[..., None]
    )
    again_BN = jnp.tril(alike_BNN, -1).any(axis=-1)
    return jnp.where(again_BN, -jnp.inf, score_BN), parent_BN, token_BN


def shared_out(score_BN, have_BN, n):
    """The scores of n candidates, others -inf: the best of those that have the same, the second
    best, and so on; those that have most come first."""
    better_BNN = score_BN[:, None] > score_BN[..., None]
    place_BN = (better_BNN & (have_BN[:, None] == have_BN[..., None])).sum(axis=-1)
    order_BN = jnp.where(score_BN > -jnp.inf, have_BN - 1e5 * place_BN, -jnp.inf)
    _, kept_Bn = jax.lax.top_k(order_BN, n)
    kept_BN = (kept_Bn[..., None] == jnp.arange(score_BN.shape[1])).any(axis=1)
    return jnp.where(kept_BN, score_BN, -jnp.inf)

"""Beam search: the likeliest continuations of many prompts, in steps that stay on the device."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from hybriko_jax.decode.generate import read, round_up
from hybriko_jax.decode.texts import (
    Terms,
    joined,
    make_terms,
    progress,
    shared_out,
    stop_table,
    towards,
)
from hybriko_jax.layers.attention import KVCache
from hybriko_jax.layers.beam_cache import BeamCache, beam_cache

EarlyStopping = bool | Literal["never"]

_STEPS = 16  # on the device before the host looks whether all rows are done
_UNIT = 128  # of the slots of keys that a state has: few shapes are compiled
_CHUNK = 64  # tokens of the vocabulary that are compared at a time


@dataclass(frozen=True)
class Hypothesis:
    """One way to go on."""

    tokens: tuple[int, ...]
    """With the token that ended it, if one did."""
    score: float
    """Sum of the log-probabilities of its tokens / their number ** length_penalty."""
    stopped: bool
    """Whether it ended by itself, and was not cut off at the most tokens."""


@flax.struct.dataclass
class _Ended:
    """The best hypotheses that have ended, the best first; rank -inf where there is none."""

    rank_BK: jax.Array
    """The score, far lower where a text is missing that must occur."""
    score_BK: jax.Array
    length_BK: jax.Array
    parent_BK: jax.Array
    """The beam that its last token was put behind."""
    token_BK: jax.Array
    stopped_BK: jax.Array


@flax.struct.dataclass
class _Beams:
    """The hypotheses that go on."""

    length: jax.Array
    """Tokens of each."""
    token_BK: jax.Array
    """The last ones."""
    score_BK: jax.Array
    """Sums of log-probabilities; -inf where there is no such beam."""
    match_BK: jax.Array
    """Rows of stops_SV."""
    progress_BKT: jax.Array | None
    """Bytes written of each text that must occur."""
    open_B: jax.Array
    """Whether a prompt's hypotheses may still become better."""
    ended: _Ended


@flax.struct.dataclass
class _How:
    """The settings that only change values."""

    stops_SV: jax.Array
    limit_B: jax.Array
    penalty: jax.Array
    temperature: jax.Array
    key: jax.Array
    terms: Terms | None


def beam_search(
    model: nn.Module,
    params: Any,
    prompts: Sequence[Sequence[int]],
    max_tokens: int | Sequence[int],
    *,
    beams: int = 5,
    stops_SV: np.ndarray | None = None,
    length_penalty: float = 1.0,
    early_stopping: EarlyStopping = False,
    temperature: float = 0.0,
    seed: int = 0,
    terms: Sequence[Sequence[str]] = (),
    pieces: Sequence[bytes] = (),
) -> list[list[Hypothesis]]:
    """The best hypotheses of each prompt, as `generate(num_beams=...)` of transformers has them.

    One beam is greedy, or draws: it ends at its first stop.

    Args:
      prompts: token ids of each row, the start token first.
      max_tokens: how many to write at most, at least 1: of all rows, or of each.
      beams: K, how many hypotheses are kept.
      stops_SV: what ends a row; see `texts.stop_table`.
      length_penalty: above 0 longer hypotheses are favoured, 0 compares plain sums.
      early_stopping: True ends a row once K hypotheses have ended. False goes on while the best
        that has not ended would, ended now, be among the K best; "never", while it would with
        max_tokens tokens.
      temperature: above 0, tokens are drawn; for one beam only. The score stays that of the
        model.
      seed: of the draws.
      terms: texts that must occur in the hypotheses of each row; for several beams only. None
        stops without them, and the beams are shared out among those that have more and less of
        them. Hypotheses that are cut off without all of them come last.
      pieces: bytes that each id spells; for `terms`.

    Returns:
      At most K of each prompt, the best first.

    Raises:
      ValueError: no beam, no token, one beam and terms, or several and a temperature.

    Source: terms, Post and Vilar, arXiv:1804.06609; here by bytes, in any spelling.
    """
    limit_B = np.broadcast_to(np.asarray(max_tokens, np.int32), len(prompts))
    if beams < 1 or limit_B.min(initial=1) < 1 or (temperature and beams > 1):
        raise ValueError(
            f"beams={beams} and max_tokens={max_tokens} must be at least 1, and "
            f"temperature={temperature} is for one beam only."
        )
    if any(terms) and beams == 1:
        raise ValueError("beams=1 must be at least 2 where texts must occur.")
    if stops_SV is None:
        stops_SV = stop_table(model.config.vocab_size)
    how = _How(
        jnp.asarray(stops_SV),
        jnp.asarray(limit_B),
        jnp.float32(length_penalty),
        jnp.float32(temperature or 1),
        jax.random.key(seed),
        make_terms(terms, model.config.vocab_size, pieces) if any(terms) else None,
    )
    early = True if beams == 1 else early_stopping
    kind = (early, temperature > 0)
    begin_B = np.array([len(p) for p in prompts], np.int32)
    used = round_up(begin_B.max(initial=0), 64)
    logits_BV, state = read(model, params, prompts, tokens=0, unit=1)
    found, state = _begin(kind, beams, logits_BV, state, begin_B, how)
    token_NBK, parent_NBK = [np.asarray(found.token_BK)], [np.zeros((len(prompts), beams), int)]
    while np.asarray(found.open_B).any():
        used += _STEPS * beams
        state = _widened(state, used)
        found, state, tokens, parents = _go_on(model, kind, params, found, state, begin_B, how)
        token_NBK += list(np.asarray(tokens))
        parent_NBK += list(np.asarray(parents))
    ended = jax.tree.map(np.asarray, found.ended)
    return [_hypotheses(ended, b, token_NBK, parent_NBK) for b in range(len(prompts))]


def _hypotheses(ended, b, token_NBK, parent_NBK):
    found = []
    for k in np.flatnonzero(ended.rank_BK[b] > -np.inf):
        beam, tokens = ended.parent_BK[b, k], [int(ended.token_BK[b, k])]
        for n in range(ended.length_BK[b, k] - 2, -1, -1):
            tokens.append(int(token_NBK[n][b, beam]))
            beam = parent_NBK[n][b, beam]
        score, stopped = float(ended.score_BK[b, k]), bool(ended.stopped_BK[b, k])
        found.append(Hypothesis(tuple(reversed(tokens)), score, stopped))
    return found


@functools.partial(jax.jit, static_argnums=(0, 1))
def _begin(kind, K, logits_BV, state, begin_B, how):
    """The first token of each beam, and a state for each."""
    B = len(logits_BV)
    zero_BK = jnp.zeros((B, K), jnp.int32)
    score_BK = jnp.where(jnp.arange(K) > 0, -jnp.inf, jnp.zeros((B, K)))
    none_BK = jnp.full((B, K), -jnp.inf)
    none = _Ended(none_BK, none_BK, zero_BK, zero_BK, zero_BK, zero_BK > 0)
    progress_BKT = how.terms and jnp.zeros((B, K, len(how.terms.size_T)), jnp.int32)
    beams = _Beams(jnp.int32(0), zero_BK, score_BK, zero_BK, progress_BKT, jnp.ones(B, bool), none)
    logits_BKV = jnp.broadcast_to(logits_BV[:, None], (B, K, logits_BV.shape[1]))
    state = tuple(
        beam_cache(layer, begin_B, K)
        if isinstance(layer, KVCache)
        else jax.tree.map(lambda a: jnp.repeat(a, K, axis=0), layer)
        for layer in state
    )
    return _choose(kind, beams, logits_BKV, how)[0], state


def _widened(state, slots):
    """The state with at least so many slots of keys."""
    return tuple(
        layer.widened(round_up(slots, _UNIT)) if isinstance(layer, BeamCache) else layer
        for layer in state
    )


def _reordered(state, parent_BK):
    """The state in which each beam has the past of the one it goes on from."""
    B, K = parent_BK.shape
    row_X = (jnp.arange(B)[:, None] * K + parent_BK).reshape(-1)
    return tuple(
        layer.reordered(parent_BK)
        if isinstance(layer, BeamCache)
        else jax.tree.map(lambda a: a[row_X], layer)
        for layer in state
    )


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=(3, 4))
def _go_on(model, kind, params, beams, state, begin_B, how):
    """So many steps as `_STEPS`, or until all rows are done."""
    B, K = beams.token_BK.shape

    def step(carry):
        n, beams, state, token_NBK, parent_NBK = carry
        position_X1 = jnp.repeat(begin_B + beams.length - 1, K)[:, None]
        variables, token_X1 = {"params": params}, beams.token_BK.reshape(-1, 1)
        x_X1D, state = model.apply(variables, token_X1, position_X1, state, method="hidden")
        logits_X1V = model.apply(variables, x_X1D, method="logits")
        beams, parent_BK = _choose(kind, beams, logits_X1V.reshape(B, K, -1), how)
        state = _reordered(state, parent_BK)
        token_NBK = token_NBK.at[n].set(beams.token_BK)
        return n + 1, beams, state, token_NBK, parent_NBK.at[n].set(parent_BK)

    def goes_on(carry):
        n, beams, *_ = carry
        return (n < _STEPS) & beams.open_B.any()

    none = jnp.zeros((_STEPS, B, K), jnp.int32)
    _, *out = jax.lax.while_loop(goes_on, step, (jnp.int32(0), beams, state, none, none))
    return out


def _choose(kind, beams, logits_BKV, how):
    """The beams with one more token each, and which beam each goes on from."""
    early_stopping, drawn = kind
    K = logits_BKV.shape[1]
    length = beams.length + 1
    if drawn:
        key = jax.random.fold_in(how.key, beams.length)
        score_BC, token_BC = _draw(key, beams.score_BK, logits_BKV, how.temperature)
        parent_BC = jnp.zeros_like(token_BC)
    else:
        # As many again as there are beams: all K best may end.
        score_BC, parent_BC, token_BC = _likeliest(beams.score_BK, logits_BKV, 2 * K)
    if how.terms:
        forced = towards(how.terms, beams.progress_BKT, beams.score_BK, logits_BKV)
        score_BC, parent_BC, token_BC = joined((score_BC, parent_BC, token_BC), forced)
    match_BC = how.stops_SV[_of(beams.match_BK, parent_BC), token_BC]
    stopped_BC = match_BC == len(how.stops_SV)
    ends_BC = stopped_BC | (length >= how.limit_B)[:, None]
    counted_BC = jnp.broadcast_to(jnp.arange(token_BC.shape[1]) < K, token_BC.shape)
    progress_BCT, have_BC, rank_BC = None, None, score_BC / length**how.penalty
    if how.terms:
        before_BCT = _of(beams.progress_BKT, parent_BC)
        progress_BCT, have_BC, whole_BC = progress(how.terms, before_BCT, token_BC)
        counted_BC |= how.terms.needed_BT.any(axis=-1, keepdims=True)
        # Nor may it begin to stop: it could not go on from there.
        stops_BC = match_BC >= min(2, len(how.stops_SV))
        score_BC = jnp.where(stops_BC & ~whole_BC, -jnp.inf, score_BC)
        rank_BC = jnp.where(whole_BC, rank_BC, score_BC - 1e6)
    new = _Ended(
        jnp.where(ends_BC & counted_BC & beams.open_B[:, None], rank_BC, -jnp.inf),
        score_BC / length**how.penalty,
        jnp.full_like(token_BC, length),
        parent_BC,
        token_BC,
        stopped_BC,
    )
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), beams.ended, new)
    _, best_BK = jax.lax.top_k(both.rank_BK, K)
    ended = jax.tree.map(lambda a: _of(a, best_BK), both)

    live_BC = jnp.where(ends_BC, -jnp.inf, score_BC)
    if how.terms:
        live_BC = shared_out(live_BC, have_BC, K)
    score_BK, best_BK = jax.lax.top_k(live_BC, K)
    parent_BK, token_BK, match_BK, progress_BKT = jax.tree.map(
        lambda a: _of(a, best_BK), (parent_BC, token_BC, match_BC, progress_BCT)
    )
    favours_long = (early_stopping == "never") & (how.penalty > 0)
    longest_B = jnp.where(favours_long, how.limit_B, length)
    full_B = ended.rank_BK[:, -1] > -jnp.inf
    better_B = score_BK[:, 0] / longest_B**how.penalty > ended.rank_BK[:, -1]
    more_B = ~full_B if early_stopping is True else ~full_B | better_B
    open_B = beams.open_B & more_B & (score_BK[:, 0] > -jnp.inf)
    beams = _Beams(length, token_BK, score_BK, match_BK, progress_BKT, open_B, ended)
    return beams, parent_BK


def _of(values, chosen_BN):
    """The chosen ones along axis 1."""
    shape = chosen_BN.shape + (1,) * (values.ndim - 2)
    return jnp.take_along_axis(values, chosen_BN.reshape(shape), axis=1)


def _likeliest(score_BK, logits_BKV, n):
    """Of the ways to go on with one token, the n likeliest: their scores, beams and tokens."""
    B, K, V = logits_BKV.shape
    score_BK = score_BK - jax.nn.logsumexp(logits_BKV, axis=-1)
    # A chunk that holds one of the n largest is one of the n with the largest maxima: all others
    # need not be sorted. In the order of chunks, so that the first of equals stays the first.
    chunks = -(-V // _CHUNK)
    room = ((0, 0), (0, 0), (0, chunks * _CHUNK - V))
    logits_BXC = jnp.pad(logits_BKV, room, constant_values=-jnp.inf).reshape(B, K * chunks, -1)
    score_BX = jnp.repeat(score_BK, chunks, axis=1)
    _, chosen_BN = jax.lax.top_k(logits_BXC.max(axis=-1) + score_BX, min(n, K * chunks))
    chosen_BN = jnp.sort(chosen_BN, axis=1)
    all_BNC = jnp.take_along_axis(logits_BXC, chosen_BN[..., None], axis=1)
    all_BNC += jnp.take_along_axis(score_BX, chosen_BN, axis=1)[..., None]
    best_BN, at_BN = jax.lax.top_k(all_BNC.reshape(B, -1), n)
    chunk_BN = jnp.take_along_axis(chosen_BN, at_BN // _CHUNK, axis=1)
    token_BN = jnp.minimum(chunk_BN % chunks * _CHUNK + at_BN % _CHUNK, V - 1)
    return best_BN, chunk_BN // chunks, token_BN


def _draw(key, score_B1, logits_B1V, temperature):
    token_B1 = jax.random.categorical(key, logits_B1V / temperature).astype(jnp.int32)
    drawn_B1 = jnp.take_along_axis(logits_B1V, token_B1[..., None], axis=-1)[..., 0]
    return score_B1 + drawn_B1 - jax.nn.logsumexp(logits_B1V, axis=-1), token_B1

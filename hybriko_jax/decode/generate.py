"""Prompts continued token by token, many at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hybriko_jax.decode.prefix import Prefix
from hybriko_jax.decode.sampling import sample
from hybriko_jax.models import init_state

_PIECE = 32  # tokens of a prompt read at a time behind a prefix
_UNIT = 256  # of the tokens that a state has room for

Mask = Callable[[np.ndarray | None], np.ndarray]
"""From the tokens chosen last (None at first) to the bits of those that may come next."""


def generate(
    model: nn.Module,
    params: Any,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    *,
    stop: Sequence[int] = (),
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    mask: Mask | None = None,
    prefix: Prefix | None = None,
) -> Iterator[np.ndarray]:
    """Tokens after prompts, each step as soon as it is drawn.

    Args:
      prompts: token ids of each row, the start token first.
      max_tokens: how many to draw at most for a row.
      stop: ids that end a row.
      temperature, top_k, top_p: see `sample`.
      mask: tokens that are allowed, as in `constrain.Masks`; None allows all.
      prefix: what stands before the prompt; for one prompt only.

    Yields:
      token_B of every step, -1 in rows that have ended; the token that ends a row is not
      yielded. Ends when all rows have.
    """
    position_B = np.array([len(p) for p in prompts], np.int32)
    if prefix is None:
        logits_BV, state = read(model, params, prompts, max_tokens)
    else:
        (prompt,) = prompts
        logits_BV, state = _read_on(model, params, prefix, prompt, max_tokens)
        position_B = position_B + len(prefix.tokens)
    live_B = np.ones(len(prompts), bool)
    key, token_B = jax.random.key(seed), None
    for n in range(max_tokens):
        bits_BN = None if mask is None else mask(token_B)  # while the device is still at work
        token_B = np.asarray(_choose(logits_BV, bits_BN, key, n, temperature, top_k, top_p))
        live_B = live_B & ~np.isin(token_B, stop)
        if not live_B.any():
            return
        yield np.where(live_B, token_B, -1)
        logits_BV, state = _step(model, params, token_B[:, None], (position_B + n)[:, None], state)


def continuations(
    model: nn.Module, params: Any, prompts: Sequence[Sequence[int]], *args: Any, **kwargs: Any
) -> list[list[int]]:
    """`generate`, all at once: the new tokens of every row."""
    rows: list[list[int]] = [[] for _ in prompts]
    for token_B in generate(model, params, prompts, *args, **kwargs):
        for row, token in zip(rows, token_B.tolist(), strict=True):
            row += [token] if token >= 0 else []
    return rows


def read(
    model: Any, params: Any, prompts: Sequence[Sequence[int]], tokens: int, unit: int = _UNIT
) -> tuple[jax.Array, Any]:
    """Logits_BV after prompts of different lengths, and the state.

    Args:
      tokens: how many more the state has room for.
      unit: its capacity is a multiple of this.
    """
    # The length and the capacity are rounded up, so that few shapes are compiled.
    length = round_up(max(len(p) for p in prompts), 64)
    state = init_state(model.config, len(prompts), round_up(length + tokens, unit))
    # Padding comes first: pad tokens are documents of their own, and the prompt forgets them.
    rows = [np.pad(np.array(p, np.int32), (length - len(p), 0)) for p in prompts]
    counts = [np.pad(np.arange(len(p), dtype=np.int32), (length - len(p), 0)) for p in prompts]
    return _step(model, params, np.stack(rows), np.stack(counts), state)


def _read_on(model, params, prefix, prompt, max_tokens):
    """Logits after a prefix and a prompt, and the state.

    Padding would make the model forget the prefix: the prompt is read in pieces of one length,
    then token by token, so that two shapes are compiled whatever its length.
    """
    begin, logits_BV = len(prefix.tokens), None
    state = prefix.state_for(round_up(begin + len(prompt) + max_tokens, _UNIT))
    at = 0
    while at < len(prompt):
        n = _PIECE if len(prompt) - at >= _PIECE else 1
        positions = np.arange(begin + at, begin + at + n, dtype=np.int32)
        piece = np.array(prompt[at : at + n], np.int32)
        logits_BV, state = _step(model, params, piece[None], positions[None], state)
        at += n
    return logits_BV, state


def round_up(n: int, unit: int) -> int:
    """The least multiple of a unit that is not below n."""
    return -(-n // unit) * unit


@functools.partial(jax.jit, static_argnums=0, donate_argnums=4)
def _step(model, params, tokens_BL, positions_BL, state):
    x_BLD, state = model.apply({"params": params}, tokens_BL, positions_BL, state, method="hidden")
    return model.apply({"params": params}, x_BLD[:, -1:], method="logits")[:, 0], state


@functools.partial(jax.jit, static_argnums=(4, 5, 6))
def _choose(logits_BV, bits_BN, key, n, temperature, top_k, top_p):
    if bits_BN is not None:
        allowed_BNK = (bits_BN[..., None] >> jnp.arange(32)) & 1
        allowed_BV = allowed_BNK.reshape(len(bits_BN), -1)[:, : logits_BV.shape[1]]
        logits_BV = jnp.where(allowed_BV == 1, logits_BV, -jnp.inf)
    return sample(jax.random.fold_in(key, n), logits_BV, temperature, top_k, top_p)

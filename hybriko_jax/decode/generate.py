"""A prompt continued token by token."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from hybriko_jax.decode.sampling import sample
from hybriko_jax.models import init_state


def generate(
    model: nn.Module,
    params: Any,
    prompt: Sequence[int],
    max_tokens: int,
    *,
    stop: Sequence[int] = (),
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
) -> Iterator[int]:
    """Tokens after a prompt, each as soon as it is drawn.

    Args:
      prompt: token ids, the start token first.
      max_tokens: how many to draw at most.
      stop: ids that end the text; not yielded themselves.
      temperature, top_k, top_p: see `sample`.
    """
    step = jax.jit(
        functools.partial(_step, model, temperature=temperature, top_k=top_k, top_p=top_p),
        donate_argnames="state",
    )
    # The prompt's length and the capacity are rounded up, so that few shapes are compiled.
    length = -(-len(prompt) // 64) * 64
    pad = length - len(prompt)
    state = init_state(model.config, batch=1, capacity=-(-(length + max_tokens) // 256) * 256)
    # Padding comes first: pad tokens are documents of their own, and the prompt forgets them.
    tokens_BL = np.pad(np.array(prompt, np.int32), (pad, 0))[None]
    positions_BL = np.pad(np.arange(len(prompt), dtype=np.int32), (pad, 0))[None]
    key = jax.random.key(seed)
    for n in range(max_tokens):
        token_B, state = step(params, tokens_BL, positions_BL, state=state, key=key, n=n)
        token = int(token_B[0])
        if token in stop:
            return
        yield token
        tokens_BL = token_B[:, None]
        positions_BL = np.array([[len(prompt) + n]], np.int32)


def _step(model, params, tokens_BL, positions_BL, *, state, key, n, **how):
    logits_BLV, state = model.apply({"params": params}, tokens_BL, positions_BL, state)
    return sample(jax.random.fold_in(key, n), logits_BLV[:, -1], **how), state

"""How well a model predicts a text: nats per token and bits per byte, exact over the whole text."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hybriko_jax.data.packing import pack, plan_epoch
from hybriko_jax.errors import UserError
from hybriko_jax.models import init_state, make_room
from hybriko_jax.tokenizer import Tokenizer
from hybriko_jax.training.step import eval_step

ROW = 2048  # tokens of a packed row, at most
ROWS = 4  # rows evaluated at a time


@dataclass(frozen=True)
class Perplexity:
    """Sums over a text."""

    documents: int
    tokens: int
    bytes: int
    """UTF-8 bytes of the text."""
    nats: float

    @property
    def nats_per_token(self) -> float:
        return self.nats / self.tokens

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / self.bytes


def perplexity(
    model: nn.Module, params: Any, tokenizer: Tokenizer, documents: Iterable[str]
) -> Perplexity:
    """Evaluates every token of every document, each from a start token on.

    Documents of up to a row's length are packed; longer ones run in pieces that hand their state
    on, attention seeing the last config.window tokens.

    Raises:
      UserError: there is no text.
    """
    texts = list(documents)
    begin = tokenizer.begin or [tokenizer.eos_id]  # a text's first token is predicted, too
    ids = [np.array([*begin, *i], np.int32) for i in tokenizer.encode_batch(texts)]
    ids = [i for i in ids if len(i) > 1]
    if not ids:
        raise UserError("There is no text to evaluate: every document is empty.")
    row = min(model.config.max_seq_len, ROW)
    short = [i for i in ids if len(i) <= row]
    nats = _packed_nats(model, params, short, row) if short else 0.0
    nats += sum(_long_nats(model, params, i, row) for i in ids if len(i) > row)
    return Perplexity(
        documents=len(texts),
        tokens=sum(len(i) - 1 for i in ids),
        bytes=sum(len(t.encode()) for t in texts),
        nats=nats,
    )


def _packed_nats(model, params, ids, row):
    lengths = np.array([len(i) for i in ids])
    row = min(row, -(-int(lengths.max()) // 128) * 128)
    plan = plan_epoch(lengths, np.zeros(len(ids), int), (), row, seed=0, epoch=0)
    step = jax.jit(functools.partial(eval_step, model=model))
    total = 0.0
    for first in range(0, plan.n_rows, ROWS):
        rows = [plan.pieces(r) for r in range(first, min(first + ROWS, plan.n_rows))]
        rows += [[]] * (ROWS - len(rows))
        nats, _ = step(params, pack(rows, row, lambda documents: [ids[i] for i in documents], 0))
        total += float(nats)
    return total


def _long_nats(model, params, ids, row):
    config = model.config
    state = init_state(config, batch=1, capacity=config.window + row)
    total = 0.0
    for begin in range(0, len(ids) - 1, row):
        inputs_L, targets_L = ids[:-1][begin : begin + row], ids[1:][begin : begin + row]
        pad = (0, row - len(inputs_L))  # only the last piece is short: its padding harms nothing
        nats, state = _piece_nats(
            model,
            params,
            np.pad(inputs_L, pad)[None],
            np.pad(targets_L, pad)[None],
            np.pad(np.arange(begin, begin + len(inputs_L), dtype=np.int32), pad)[None],
            np.arange(row)[None] < len(inputs_L),
            make_room(state, row),
        )
        total += float(nats)
    return total


@functools.partial(jax.jit, static_argnums=0)
def _piece_nats(model, params, inputs_BL, targets_BL, positions_BL, mask_BL, state):
    logits_BLV, state = model.apply({"params": params}, inputs_BL, positions_BL, state)
    log_p_BLV = jax.nn.log_softmax(logits_BLV)
    nats_BL = -jnp.take_along_axis(log_p_BLV, targets_BL[..., None], axis=-1)[..., 0]
    return jnp.sum(nats_BL * mask_BL), state

"""One optimizer step and one evaluation step, as pure functions."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from hybriko_jax.config import TrainConfig
from hybriko_jax.data.batch import Batch
from hybriko_jax.models import init_state
from hybriko_jax.sharding import constrain
from hybriko_jax.training.loss import next_token_loss
from hybriko_jax.training.state import TrainState


def loss_sums(
    model: nn.Module,
    params: Any,
    batch: Batch,
    *,
    chunk: int,
    z_loss: float = 0.0,
    prefix_P: Any = None,
    frozen: Any = None,
    dropout: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Loss and nats of a batch, summed over the tokens that its mask keeps.

    Args:
      params: the parameters, or where `frozen` is given an adapter of it; see `lora`.
      prefix_P: tokens that stand before every row, run once for all; None for none. A row then
        holds one sample: position 0 within it would forget the prefix.
      frozen: parameters that get no gradient.
      dropout: random key; None drops nothing.
    """
    variables = {"params": params} if frozen is None else {"params": frozen, "lora": params}
    rngs = None if dropout is None else {"dropout": dropout}
    state, positions_BL = None, batch.positions_BL
    if prefix_P is not None:
        state = _state_after(model, variables, jnp.asarray(prefix_P), batch.tokens_BL.shape)
        positions_BL = positions_BL + len(prefix_P)
    x_BLD, _ = model.apply(
        variables, batch.tokens_BL, positions_BL, state, method="hidden", rngs=rngs
    )
    kernel_VD: Any = model.apply(variables, method="unembedding")
    return next_token_loss(
        x_BLD,
        kernel_VD,
        batch.tokens_BL,
        batch.loss_mask_BL,
        soft_cap=model.config.logits_soft_cap,
        z_loss=z_loss,
        chunk=chunk,
        dtype=model.config.dtype,
    )


def _state_after(model, variables, prefix_P, shape):
    """The state after a prefix, the same for every row; gradients flow back through it."""
    (B, L), P = shape, len(prefix_P)
    state = init_state(model.config, batch=1, capacity=P + L)
    positions_P = jnp.arange(P)
    _, state = model.apply(variables, prefix_P[None], positions_P[None], state, method="hidden")
    return jax.tree.map(lambda a: jnp.broadcast_to(a, (B, *a.shape[1:])) if a.ndim else a, state)


def target_count(batch: Batch) -> jax.Array:
    """How many tokens of a batch are predicted; at least 1."""
    return jnp.maximum(jnp.sum(batch.loss_mask_BL[:, 1:]), 1)


def train_step(
    state: TrainState,
    batch: Batch,
    frozen: Any = None,
    *,
    model: nn.Module,
    tx: optax.GradientTransformation,
    config: TrainConfig,
    prefix_P: Any = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """The state after one optimizer step, and what was measured in it.

    A step whose loss or gradient is not finite changes nothing but the counters.

    Args:
      frozen, prefix_P: see `loss_sums`.

    Returns:
      The state, and scalars: loss and nats (per kept token, before the update), grad_norm,
      tokens (kept), skipped and bad_in_a_row.
    """
    count = target_count(batch)
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)

    def loss_fn(params, part, key):
        how: Any = {"chunk": config.loss_chunk, "z_loss": config.z_loss, "prefix_P": prefix_P}
        loss, nats = loss_sums(model, params, part, frozen=frozen, dropout=key, **how)
        return loss / count, nats / count

    value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)
    if config.accumulation == 1:
        (loss, nats), grads = value_and_grad(state.params, batch, key)
    else:

        def add_part(total, part_and_key):
            part, key = part_and_key
            part = jax.tree.map(lambda a: constrain(a, "BL"), part)
            return jax.tree.map(jnp.add, total, value_and_grad(state.params, part, key)), None

        zero = ((jnp.float32(0), jnp.float32(0)), jax.tree.map(jnp.zeros_like, state.params))
        parts = jax.tree.map(lambda a: _split_rows(a, config.accumulation), batch)
        keys = jax.random.split(key, config.accumulation)
        ((loss, nats), grads), _ = jax.lax.scan(add_part, zero, (parts, keys))

    grad_norm = optax.tree.norm(grads)
    good = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    params, opt_state = jax.tree.map(
        lambda new, old: jnp.where(good, new, old),
        (params, opt_state),
        (state.params, state.opt_state),
    )
    bad = 1 - good.astype(jnp.int32)
    state = TrainState(
        step=state.step + 1,
        params=params,
        opt_state=opt_state,
        skipped=state.skipped + bad,
        bad_in_a_row=(state.bad_in_a_row + 1) * bad,
    )
    metrics = {
        "loss": loss,
        "nats": nats,
        "grad_norm": grad_norm,
        "tokens": count,
        "skipped": state.skipped,
        "bad_in_a_row": state.bad_in_a_row,
    }
    return state, metrics


def eval_step(
    params: Any,
    batch: Batch,
    frozen: Any = None,
    *,
    model: nn.Module,
    chunk: int = 512,
    prefix_P: Any = None,
) -> tuple[jax.Array, jax.Array]:
    """Nats of a batch, summed, and how many tokens they are of."""
    _, nats = loss_sums(model, params, batch, chunk=chunk, prefix_P=prefix_P, frozen=frozen)
    return nats, jnp.sum(batch.loss_mask_BL[:, 1:])


def _split_rows(a_BL, parts):
    # Neighbouring rows go to different parts, so that each part keeps the batch's sharding.
    return jnp.swapaxes(a_BL.reshape(a_BL.shape[0] // parts, parts, -1), 0, 1)

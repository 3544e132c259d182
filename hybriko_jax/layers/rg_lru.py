"""The real-gated linear recurrent unit (RG-LRU) of Griffin."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hybriko_jax.layers.linear import Linear
from hybriko_jax.sharding import declare

C = 8.0  # a_t = a^(C r_t)


def rg_lru(
    x_BLW: jax.Array,
    r_BLW: jax.Array,
    i_BLW: jax.Array,
    lambda_W: jax.Array,
    starts_BL: jax.Array,
    h0_BW: jax.Array,
    recurrence: str = "auto",
) -> tuple[jax.Array, jax.Array]:
    """Real-gated linear recurrent unit over time.

    h_t = a_t h_{t-1} + sqrt(1 - a_t^2) (i_t x_t),  a_t = sigmoid(lambda)^(8 r_t)

    Args:
      x_BLW: input, any float dtype; the recurrence runs in float32.
      r_BLW, i_BLW: recurrence and input gates, in [0, 1].
      lambda_W: decay logits.
      starts_BL: True on a document's first token, where h is forgotten.
      h0_BW: state before the first token, float32.
      recurrence: "associative", "loop", or "auto": by the platform it is compiled for.

    Returns:
      h_BLW, and the last state h_BW, both float32.

    Source: Griffin, arXiv:2402.19427, section 2.4.
    """
    log_a_BLW = C * r_BLW.astype(jnp.float32) * jax.nn.log_sigmoid(lambda_W)
    log_a_BLW = jnp.where(starts_BL[..., None], -jnp.inf, log_a_BLW)
    # expm1 keeps 1 - a^2 exact where a is near one.
    b_BLW = _sqrt(-jnp.expm1(2 * log_a_BLW)) * (i_BLW * x_BLW)
    h_BLW = linear_recurrence(jnp.exp(log_a_BLW), b_BLW, h0_BW, recurrence)
    return h_BLW, h_BLW[:, -1]


def init_lambda(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    """Decay logits such that a^8 is uniform in (0.9, 0.999). Source: Griffin, section 2.4."""
    log_a = jnp.log(jax.random.uniform(key, shape, dtype, 0.9, 0.999)) / C
    return log_a - jnp.log(-jnp.expm1(log_a))  # logit(a)


def _sqrt(x):
    # Equal to sqrt(x); its derivative stays finite where a gate is shut and x is 0.
    return x * jax.lax.rsqrt(jnp.maximum(x, 1e-12))


def linear_recurrence(
    a_BLW: jax.Array, b_BLW: jax.Array, h0_BW: jax.Array, recurrence: str = "auto"
) -> jax.Array:
    """h_t = a_t h_{t-1} + b_t over axis 1. All float32; see `rg_lru` for `recurrence`."""
    return _recurrence(a_BLW, b_BLW, h0_BW, recurrence)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _recurrence(a_BLW, b_BLW, h0_BW, recurrence) -> Any:
    return _forward(a_BLW, b_BLW, h0_BW, recurrence)[0]


def _forward(a_BLW, b_BLW, h0_BW, recurrence):
    h_BLW = _by_platform(recurrence, _loop, _associative)(a_BLW, b_BLW, h0_BW)
    return h_BLW, (a_BLW, h_BLW, h0_BW)


def _backward(recurrence, residuals, g_BLW):
    # The gradient runs the same recurrence from the end: d_t = g_t + a_{t+1} d_{t+1}.
    return _by_platform(recurrence, _loop_backward, _associative_backward)(*residuals, g_BLW)


_recurrence.defvjp(_forward, _backward)


def _by_platform(recurrence, loop, associative) -> Any:
    if recurrence != "auto":
        return {"loop": loop, "associative": associative}[recurrence]
    # Decided for the platform compiled for: a CPU host also compiles for GPUs. A step of the loop
    # is one kernel launch there, while on a CPU the loop reads memory once.
    return functools.partial(jax.lax.platform_dependent, cpu=loop, default=associative)


def _loop(a_BLW, b_BLW, h0_BW):
    def step(t, carry):
        h_BW, h_BLW = carry
        h_BW = a_BLW[:, t] * h_BW + b_BLW[:, t]
        return h_BW, h_BLW.at[:, t].set(h_BW)

    return jax.lax.fori_loop(0, a_BLW.shape[1], step, (h0_BW, jnp.empty_like(b_BLW)))[1]


def _loop_backward(a_BLW, h_BLW, h0_BW, g_BLW):
    last = a_BLW.shape[1] - 1

    def step(n, carry):
        d_BW, da_BLW, db_BLW = carry
        t = last - n
        d_BW = d_BW + g_BLW[:, t]
        before_BW = jnp.where(t > 0, h_BLW[:, jnp.maximum(t - 1, 0)], h0_BW)
        da_BLW = da_BLW.at[:, t].set(d_BW * before_BW)
        db_BLW = db_BLW.at[:, t].set(d_BW)
        return a_BLW[:, t] * d_BW, da_BLW, db_BLW

    empty = jnp.empty_like(g_BLW)
    dh0_BW, da_BLW, db_BLW = jax.lax.fori_loop(
        0, last + 1, step, (jnp.zeros_like(h0_BW), empty, empty)
    )
    return da_BLW, db_BLW, dh0_BW


def _scan(a_BLW, b_BLW, reverse=False):
    def combine(left, right):
        (a_l, h_l), (a_r, h_r) = left, right
        return a_l * a_r, a_r * h_l + h_r

    return jax.lax.associative_scan(combine, (a_BLW, b_BLW), axis=1, reverse=reverse)[1]


def _associative(a_BLW, b_BLW, h0_BW):
    return _scan(a_BLW, b_BLW.at[:, 0].add(a_BLW[:, 0] * h0_BW))


def _associative_backward(a_BLW, h_BLW, h0_BW, g_BLW):
    next_a_BLW = jnp.concatenate([a_BLW[:, 1:], jnp.zeros_like(a_BLW[:, :1])], axis=1)
    d_BLW = _scan(next_a_BLW, g_BLW, reverse=True)
    before_BLW = jnp.concatenate([h0_BW[:, None], h_BLW[:, :-1]], axis=1)
    return d_BLW * before_BLW, d_BLW, a_BLW[:, 0] * d_BLW[:, 0]


class RGLRU(nn.Module):
    """The unit with its dense gates and decay."""

    dtype: str = "float32"
    recurrence: str = "auto"

    @nn.compact
    def __call__(
        self, x_BLW: jax.Array, starts_BL: jax.Array, h0_BW: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        width = x_BLW.shape[-1]
        r_BLW = jax.nn.sigmoid(Linear(width, ("U", "W"), self.dtype, name="recurrence_gate")(x_BLW))
        i_BLW = jax.nn.sigmoid(Linear(width, ("U", "W"), self.dtype, name="input_gate")(x_BLW))
        lambda_W = declare(self, "lambda", init_lambda, ("W",), (width,))
        return rg_lru(x_BLW, r_BLW, i_BLW, lambda_W, starts_BL, h0_BW, self.recurrence)

"""Next-token cross entropy that never holds the logits of more than one chunk."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from hybriko_jax.sharding import batch_parts, constrain


def next_token_loss(
    x_BLD: jax.Array,
    kernel_VD: jax.Array,
    tokens_BL: jax.Array,
    weights_BL: jax.Array,
    *,
    soft_cap: float | None = None,
    z_loss: float = 0.0,
    chunk: int = 512,
    dtype: str = "float32",
) -> tuple[jax.Array, jax.Array]:
    """Cross entropy of each token given the ones before it, summed.

    Args:
      x_BLD: hidden states; x_t predicts token t + 1.
      kernel_VD: the unembedding.
      tokens_BL: token ids.
      weights_BL: what token t counts as a target. A document's first token has nothing before it
        and must be 0; the first of a row is taken as 0.
      soft_cap: c in c tanh(logits / c).
      z_loss: weight of the squared log-partition in the loss.
      chunk: tokens of a row whose logits exist at one time.
      dtype: operands of the products.

    Returns:
      loss and nats, scalars, weighted sums over targets; loss = nats + z_loss * lse^2, and only
      it carries a gradient, to x and kernel.
    """
    targets_BL = jnp.roll(tokens_BL, -1, axis=1)
    weights_BL = jnp.roll(jnp.asarray(weights_BL, jnp.float32).at[:, 0].set(0), -1, axis=1)
    static = (soft_cap, z_loss, min(chunk, x_BLD.shape[1]), dtype)
    return _cross_entropy(static, x_BLD, kernel_VD, targets_BL, weights_BL)


# The gradient is formed in the forward pass, while a chunk's logits are at hand: they are then
# never kept for the backward pass nor computed twice.
@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _cross_entropy(static, x_BLD, kernel_VD, targets_BL, weights_BL) -> Any:
    sums, _ = _over_chunks(static, False, x_BLD, kernel_VD, targets_BL, weights_BL)
    return sums


def _forward(static, x_BLD, kernel_VD, targets_BL, weights_BL):
    return _over_chunks(static, True, x_BLD, kernel_VD, targets_BL, weights_BL)


def _backward(static, gradients, g):
    dx_BLD, dkernel_VD = gradients
    return dx_BLD * g[0], dkernel_VD * g[0], None, None


_cross_entropy.defvjp(_forward, _backward)


def _over_chunks(static, with_gradient, x_BLD, kernel_VD, targets_BL, weights_BL):
    *_, chunk, dtype = static
    B, L, D = x_BLD.shape
    # Each batch shard S sums its own gradient of the kernel, and the shards are added once at the
    # end; else every chunk would wait for a sum over devices.
    S = batch_parts(jax.sharding.get_abstract_mesh())
    S = S if B % S == 0 else 1
    pad = -L % chunk

    def chunks(a_BL):
        a_BL = jnp.pad(a_BL, ((0, 0), (0, pad), *((0, 0),) * (a_BL.ndim - 2)))
        a_SBNC = a_BL.reshape(S, B // S, (L + pad) // chunk, chunk, *a_BL.shape[2:])
        return jnp.moveaxis(a_SBNC, 2, 0)

    xs = (chunks(x_BLD.astype(dtype)), chunks(targets_BL), chunks(weights_BL))
    kernel_VD = kernel_VD.astype(dtype)

    def step(carry, x) -> Any:
        sums, dkernel_SVD = carry
        chunk_sums, dx_SBCD, chunk_dkernel_SVD = _chunk(static, with_gradient, kernel_VD, *x)
        if with_gradient:
            dkernel_SVD = constrain(dkernel_SVD + chunk_dkernel_SVD, "BVA")
        return (jax.tree.map(jnp.add, sums, chunk_sums), dkernel_SVD), dx_SBCD

    dkernel_SVD: Any = jnp.zeros((S, *kernel_VD.shape)) if with_gradient else None
    dx_NSBCD: Any
    zero = (jnp.float32(0), jnp.float32(0))
    (sums, dkernel_SVD), dx_NSBCD = jax.lax.scan(step, (zero, dkernel_SVD), xs)
    if not with_gradient:
        return sums, None
    dx_BLD = jnp.moveaxis(dx_NSBCD, 0, 2).reshape(B, L + pad, D)[:, :L]
    return sums, (dx_BLD, dkernel_SVD.sum(axis=0))


def _chunk(static, with_gradient, kernel_VD, x_SBCD, targets_SBC, weights_SBC) -> Any:
    soft_cap, z_loss, _, dtype = static
    product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
    logits_SBCV = product("SBCD,VD->SBCV", x_SBCD, kernel_VD)
    if soft_cap is not None:
        logits_SBCV = soft_cap * jnp.tanh(logits_SBCV / soft_cap)
    lse_SBC = jax.nn.logsumexp(logits_SBCV, axis=-1)
    target_SBC = jnp.take_along_axis(logits_SBCV, targets_SBC[..., None], axis=-1)[..., 0]
    nats = jnp.sum(weights_SBC * (lse_SBC - target_SBC))
    loss = nats + z_loss * jnp.sum(weights_SBC * jnp.square(lse_SBC))
    if not with_gradient:
        return (loss, nats), None, None
    p_SBCV = jnp.exp(logits_SBCV - lse_SBC[..., None])
    hit_SBCV = targets_SBC[..., None] == jnp.arange(kernel_VD.shape[0])
    scale_SBC = 1 + 2 * z_loss * lse_SBC
    dlogits_SBCV = weights_SBC[..., None] * (p_SBCV * scale_SBC[..., None] - hit_SBCV)
    if soft_cap is not None:
        dlogits_SBCV *= 1 - jnp.square(logits_SBCV / soft_cap)
    dlogits_SBCV = dlogits_SBCV.astype(dtype)
    dx_SBCD = product("SBCV,VD->SBCD", dlogits_SBCV, kernel_VD)
    dkernel_SVD = product("SBCV,SBCD->SVD", dlogits_SBCV, x_SBCD)
    return (loss, nats), dx_SBCD, dkernel_SVD

"""Grouped-query attention over packed documents, with or without a key-value cache."""

from __future__ import annotations

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from hybriko_jax.layers.linear import Linear, einsum
from hybriko_jax.layers.rope import rope_angles, rotate

# Queries are taken in at most so many blocks, each against the keys up to its own end: half of
# the L x L square lies in the future and is not computed.
MAX_BLOCKS = 8
MIN_BLOCK = 128


@flax.struct.dataclass
class KVCache:
    """Keys (already rotated) and values of the tokens so far, in slots 0 to length - 1."""

    k_BMGK: jax.Array
    v_BMGK: jax.Array
    length: jax.Array
    """Slots in use, the same for every row; int32 scalar."""


def make_room(cache: KVCache, tokens: int) -> KVCache:
    """The cache with its oldest keys forgotten, as far as `tokens` more would not fit else."""
    drop = jnp.maximum(cache.length + tokens - cache.k_BMGK.shape[1], 0)
    return KVCache(
        jnp.roll(cache.k_BMGK, -drop, axis=1),
        jnp.roll(cache.v_BMGK, -drop, axis=1),
        cache.length - drop,
    )


def attend(
    q_BLHK: jax.Array,
    k_BMGK: jax.Array,
    v_BMGK: jax.Array,
    positions_BL: jax.Array,
    offset: jax.Array | int,
    window: int,
    dtype: str,
) -> jax.Array:
    """Softmax attention of queries in slots offset, offset + 1, ... over keys in slots 0, 1, ...

    Positions within a document grow by one a slot, so a key belongs to the query's document and
    is not in its future exactly when 0 <= distance <= the query's position. That is the whole
    mask: packed documents and padding (each pad token a document of its own) need no more.

    Args:
      q_BLHK: rotated queries; H / G of them share a kv head.
      positions_BL: distance of the queries from their document's start.
      window: how many tokens a query sees, itself included.
      dtype: operands of the products.

    Returns:
      y_BLHK, float32.
    """
    B, L, H, K = q_BLHK.shape
    M, G = k_BMGK.shape[1:3]
    q_BLGRK = q_BLHK.reshape(B, L, G, H // G, K) * K**-0.5
    logits_BGRLM = einsum("BLGRK,BMGK->BGRLM", q_BLGRK, k_BMGK, dtype)
    distance_LM = offset + jnp.arange(L)[:, None] - jnp.arange(M)
    visible_LM = (distance_LM >= 0) & (distance_LM < window)
    visible_BLM = visible_LM & (distance_LM <= positions_BL[..., None])
    logits_BGRLM = jnp.where(visible_BLM[:, None, None], logits_BGRLM, -1e30)
    p_BGRLM = jax.nn.softmax(logits_BGRLM, axis=-1)
    return einsum("BGRLM,BMGK->BLGRK", p_BGRLM, v_BMGK, dtype).reshape(B, L, H, K)


def attend_causally(q_BLHK, k_BLGK, v_BLGK, positions_BL, window, dtype):
    """`attend` where queries and keys are the same tokens, block by block."""
    L = q_BLHK.shape[1]
    block = max(MIN_BLOCK, -(-L // MAX_BLOCKS))
    parts = []
    for begin in range(0, L, block):
        end, first = min(begin + block, L), max(0, begin - window + 1)
        parts.append(
            attend(
                q_BLHK[:, begin:end],
                k_BLGK[:, first:end],
                v_BLGK[:, first:end],
                positions_BL[:, begin:end],
                begin - first,
                window,
                dtype,
            )
        )
    return jnp.concatenate(parts, axis=1)


def attend_and_remember(q_BLHK, k_BLGK, v_BLGK, positions_BL, cache, window, dtype):
    """Attention to these tokens and those of a cache, where there is one.

    Args:
      cache: a `KVCache`, or one that attends by itself, as `beam_cache.BeamCache` does.

    Returns:
      y_BLHK in float32, and the cache with these tokens in it (None where none was given).
    """
    if cache is None:
        return attend_causally(q_BLHK, k_BLGK, v_BLGK, positions_BL, window, dtype), None
    if not isinstance(cache, KVCache):
        return cache.attend(q_BLHK, k_BLGK, v_BLGK, window)
    offset = cache.length
    cache = KVCache(
        jax.lax.dynamic_update_slice_in_dim(cache.k_BMGK, k_BLGK, offset, axis=1),
        jax.lax.dynamic_update_slice_in_dim(cache.v_BMGK, v_BLGK, offset, axis=1),
        offset + q_BLHK.shape[1],
    )
    y_BLHK = attend(q_BLHK, cache.k_BMGK, cache.v_BMGK, positions_BL, offset, window, dtype)
    return y_BLHK, cache


class Attention(nn.Module):
    """Causal grouped-query attention with RoPE."""

    n_heads: int
    n_kv_heads: int
    rope_theta: float
    window: int
    dtype: str
    init_scale: float

    @nn.compact
    def __call__(
        self, x_BLD: jax.Array, positions_BL: jax.Array, cache: KVCache | None
    ) -> tuple[jax.Array, KVCache | None]:
        B, L, D = x_BLD.shape
        K = D // self.n_heads
        kv_features = self.n_kv_heads * K
        q_BLH = Linear(D, ("D", "H"), self.dtype, name="q")(x_BLD)
        k_BLG = Linear(kv_features, ("D", "G"), self.dtype, name="k")(x_BLD)
        v_BLG = Linear(kv_features, ("D", "G"), self.dtype, name="v")(x_BLD)
        angles_BLE = rope_angles(positions_BL, K, self.rope_theta)
        q_BLHK = rotate(q_BLH.reshape(B, L, -1, K), angles_BLE)
        k_BLGK = rotate(k_BLG.reshape(B, L, -1, K), angles_BLE)
        v_BLGK = v_BLG.reshape(B, L, -1, K)
        y_BLHK, cache = attend_and_remember(
            q_BLHK, k_BLGK, v_BLGK, positions_BL, cache, self.window, self.dtype
        )
        out = Linear(D, ("H", "D"), self.dtype, self.init_scale, name="o")
        return out(y_BLHK.reshape(B, L, D)), cache

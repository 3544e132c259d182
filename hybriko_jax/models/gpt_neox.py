"""GPT-NeoX: attention and MLP side by side, rotary on a part of each head, biases everywhere.

Sources: GPT-NeoX-20B, arXiv:2204.06745; the sizes are Polyglot-ko-1.3B's.
"""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from hybriko_jax.config import GPTNeoXConfig
from hybriko_jax.layers.attention import KVCache, attend_and_remember
from hybriko_jax.layers.linear import Linear
from hybriko_jax.layers.norm import LayerNorm
from hybriko_jax.layers.rope import rope_angles, rotate_part
from hybriko_jax.models.language_model import LanguageModel
from hybriko_jax.sharding import constrain

State = tuple[KVCache, ...]

_ACTIVATIONS = {
    "gelu": functools.partial(nn.gelu, approximate=False),
    "gelu_tanh": nn.gelu,
    "relu": nn.relu,
    "silu": nn.silu,
}


def init_state(config: GPTNeoXConfig, batch: int, capacity: int) -> State:
    """The state before the first token.

    Args:
      batch: B.
      capacity: M, the most tokens that it can hold.
    """
    shape = (batch, capacity, config.n_heads, config.head_size)
    return tuple(
        KVCache(jnp.zeros(shape), jnp.zeros(shape), jnp.int32(0)) for _ in range(config.n_layers)
    )


class Attention(nn.Module):
    """Causal attention; one matrix gives query, key and value of each head in turn."""

    config: GPTNeoXConfig

    @nn.compact
    def __call__(
        self, x_BLD: jax.Array, positions_BL: jax.Array, cache: KVCache | None
    ) -> tuple[jax.Array, KVCache | None]:
        c, (B, L, D) = self.config, x_BLD.shape
        bias = c.attention_bias
        qkv = Linear(3 * D, ("D", "H"), c.dtype, use_bias=bias, name="query_key_value")
        q_BLHK, k_BLHK, v_BLHK = jnp.split(qkv(x_BLD).reshape(B, L, c.n_heads, -1), 3, axis=-1)
        angles_BLE = rope_angles(positions_BL, c.rotary_size, c.rope_theta)
        q_BLHK, k_BLHK = rotate_part(q_BLHK, angles_BLE), rotate_part(k_BLHK, angles_BLE)
        y_BLHK, cache = attend_and_remember(
            q_BLHK, k_BLHK, v_BLHK, positions_BL, cache, c.window, c.dtype
        )
        out = Linear(D, ("H", "D"), c.dtype, _residual_scale(c), bias, name="dense")
        return out(y_BLHK.reshape(B, L, D)), cache


class MLP(nn.Module):
    config: GPTNeoXConfig

    @nn.compact
    def __call__(self, x_BLD: jax.Array) -> jax.Array:
        c = self.config
        up = Linear(c.d_ff, ("D", "F"), c.dtype, use_bias=True, name="dense_h_to_4h")
        down = Linear(
            c.d_model, ("F", "D"), c.dtype, _residual_scale(c), True, name="dense_4h_to_h"
        )
        return down(_ACTIVATIONS[c.activation](up(x_BLD)))


class Block(nn.Module):
    config: GPTNeoXConfig

    @nn.compact
    def __call__(self, x_BLD: jax.Array, positions_BL: jax.Array, cache: KVCache | None):
        c = self.config
        y_BLD = LayerNorm(c.norm_eps, name="input_layernorm")(x_BLD)
        y_BLD, cache = Attention(c, name="attention")(y_BLD, positions_BL, cache)
        mlp_norm = LayerNorm(c.norm_eps, name="post_attention_layernorm")
        if c.parallel_residual:
            y_BLD += MLP(c, name="mlp")(mlp_norm(x_BLD))
            return constrain(x_BLD + y_BLD, "BLA"), cache
        x_BLD = constrain(x_BLD + y_BLD, "BLA")
        return constrain(x_BLD + MLP(c, name="mlp")(mlp_norm(x_BLD)), "BLA"), cache


class GPTNeoX(LanguageModel):
    config: GPTNeoXConfig

    def blocks(self) -> list[nn.Module]:
        return [Block(self.config) for _ in range(self.config.n_layers)]

    def final_norm(self) -> nn.Module:
        return LayerNorm(self.config.norm_eps)


def _residual_scale(config):
    # Two additions a layer: the residual stream keeps a variance of order one at any depth.
    return 1 / (2 * config.n_layers)

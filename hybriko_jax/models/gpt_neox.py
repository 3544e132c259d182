"""GPT-NeoX: attention and MLP side by side, rotary on a part of each head, biases everywhere.

Sources: GPT-NeoX-20B, arXiv:2204.06745; the sizes are Polyglot-ko-1.3B's.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hybriko_jax.config import GPTNeoXConfig
from hybriko_jax.layers.attention import KVCache, attend_and_remember
from hybriko_jax.layers.linear import Linear, einsum
from hybriko_jax.layers.norm import LayerNorm
from hybriko_jax.layers.remat import recomputed
from hybriko_jax.layers.rope import rope_angles, rotate_part
from hybriko_jax.sharding import constrain, declare

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


class GPTNeoX(nn.Module):
    """Tokens to logits; called as `models.hybriko.HybriKo` is."""

    config: GPTNeoXConfig

    def setup(self):
        c = self.config
        init, shape = nn.initializers.normal(0.02), (c.vocab_size, c.d_model)
        self.embedding_VD = declare(self, "embedding", init, "VD", shape)
        if not c.tie_embeddings:
            self.head_VD = declare(self, "head", init, "VD", shape)
        self.layers = [Block(c) for _ in range(c.n_layers)]
        self.norm = LayerNorm(c.norm_eps)

    def __call__(
        self, tokens_BL: jax.Array, positions_BL: jax.Array, state: State | None = None
    ) -> tuple[jax.Array, State | None]:
        """Logits of the token after each token.

        Args:
          tokens_BL: token ids.
          positions_BL: distance from the document's start; 0 starts a document and hides
            everything before.
          state: None in training; else what `init_state` or the call before gave.

        Returns:
          logits_BLV in float32, and the state after the last token (None if none was given).
        """
        x_BLD, state = self.hidden(tokens_BL, positions_BL, state)
        return self.logits(x_BLD), state

    def logits(self, x_BLD: jax.Array) -> jax.Array:
        """logits_BLV of hidden states."""
        return einsum("BLD,VD->BLV", x_BLD, self.unembedding(), self.config.dtype)

    def hidden(self, tokens_BL, positions_BL, state=None) -> tuple[jax.Array, State | None]:
        """x_BLD that the unembedding turns into logits, and the state."""
        x_BLD = constrain(self._whole(self.embedding_VD)[tokens_BL], "BLA").astype(jnp.float32)
        caches: list[Any] = []
        for i, layer in enumerate(self.layers):
            inputs = x_BLD, positions_BL, None if state is None else state[i]
            x_BLD, cache = recomputed(layer, *inputs) if self.config.remat else layer(*inputs)
            caches.append(cache)
        return self.norm(x_BLD), None if state is None else tuple(caches)

    def unembedding(self) -> jax.Array:
        """kernel_VD of the output."""
        return self._whole(self.embedding_VD if self.config.tie_embeddings else self.head_VD)

    def _whole(self, kernel_VD):
        # Gathered over FSDP by name, so that lookup and output of a tied embedding share it.
        return constrain(kernel_VD, "XA")


def _residual_scale(config):
    # Two additions a layer: the residual stream keeps a variance of order one at any depth.
    return 1 / (2 * config.n_layers)

"""HybriKo: a hybrid of gated linear recurrences and attention.

Source: Griffin, arXiv:2402.19427; the sizes are HybriKo-117M's.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from hybriko_jax.config import HybriKoConfig
from hybriko_jax.layers.attention import Attention, KVCache
from hybriko_jax.layers.conv import TemporalConv
from hybriko_jax.layers.linear import Linear, einsum
from hybriko_jax.layers.norm import RMSNorm
from hybriko_jax.layers.remat import recomputed
from hybriko_jax.layers.rg_lru import RGLRU
from hybriko_jax.sharding import constrain, declare


@flax.struct.dataclass
class RecurrentState:
    """What a Griffin layer remembers."""

    h_BW: jax.Array
    """State of the RG-LRU, float32."""
    conv_BCW: jax.Array
    """The last inputs of the convolution; C = 0 without one."""


State = tuple[RecurrentState | KVCache, ...]


def init_state(config: HybriKoConfig, batch: int, capacity: int) -> State:
    """The state before the first token.

    Args:
      batch: B.
      capacity: M, the most tokens that attention layers can hold.
    """

    def layer(kind):
        if kind == "griffin":
            return _init_recurrent(config, batch)
        shape = (batch, capacity, config.n_kv_heads, config.head_size)
        return KVCache(jnp.zeros(shape), jnp.zeros(shape), jnp.int32(0))

    return tuple(layer(kind) for kind in config.layer_types)


def _init_recurrent(config, batch):
    taps = max(config.conv_width - 1, 0)
    return RecurrentState(
        jnp.zeros((batch, config.d_model)), jnp.zeros((batch, taps, config.d_model))
    )


class MLP(nn.Module):
    """Gated: down(activation(gate(x)) * up(x))."""

    config: HybriKoConfig

    @nn.compact
    def __call__(self, x_BLD: jax.Array) -> jax.Array:
        c = self.config
        activation = getattr(nn, c.activation)
        gate_BLF = activation(Linear(c.d_ff, ("D", "F"), c.dtype, name="gate")(x_BLD))
        up_BLF = Linear(c.d_ff, ("D", "F"), c.dtype, name="up")(x_BLD)
        down = Linear(c.d_model, ("F", "D"), c.dtype, _residual_scale(c), name="down")
        return down(gate_BLF * up_BLF)


class Griffin(nn.Module):
    """Recurrent mixing: out(rg_lru(conv(x)) * gelu(gate(x)))."""

    config: HybriKoConfig

    @nn.compact
    def __call__(
        self, x_BLD: jax.Array, positions_BL: jax.Array, state: RecurrentState
    ) -> tuple[jax.Array, RecurrentState]:
        c, width = self.config, self.config.d_model
        gate_BLW = nn.gelu(Linear(width, ("D", "W"), c.dtype, name="gate")(x_BLD))
        x_BLW = Linear(width, ("D", "W"), c.dtype, name="x")(x_BLD)
        conv_BCW = state.conv_BCW
        if c.conv_width:
            x_BLW, conv_BCW = TemporalConv(c.conv_width, name="conv")(x_BLW, positions_BL, conv_BCW)
        h_BLW, h_BW = RGLRU(c.dtype, c.recurrence, name="rg_lru")(
            x_BLW, positions_BL == 0, state.h_BW
        )
        out = Linear(width, ("W", "D"), c.dtype, _residual_scale(c), name="out")
        return out(h_BLW * gate_BLW), RecurrentState(h_BW, conv_BCW)


class Block(nn.Module):
    """Temporal mixing, then an MLP, each behind a norm and added to the residual stream."""

    config: HybriKoConfig
    kind: str

    @nn.compact
    def __call__(self, x_BLD: jax.Array, positions_BL: jax.Array, state: Any):
        c = self.config
        y_BLD = RMSNorm(c.norm_eps, name="mixing_norm")(x_BLD)
        if self.kind == "griffin":
            before = _init_recurrent(c, x_BLD.shape[0]) if state is None else state
            y_BLD, state = Griffin(c, name="griffin")(y_BLD, positions_BL, before)
        else:
            attention = Attention(
                n_heads=c.n_heads,
                n_kv_heads=c.n_kv_heads,
                rope_theta=c.rope_theta,
                window=c.window,
                dtype=c.dtype,
                init_scale=_residual_scale(c),
                name="attention",
            )
            y_BLD, state = attention(y_BLD, positions_BL, state)
        # Without this, FSDP gathers activations as well as parameters.
        x_BLD = constrain(x_BLD + y_BLD, "BLA")
        y_BLD = MLP(c, name="mlp")(RMSNorm(c.norm_eps, name="mlp_norm")(x_BLD))
        return constrain(x_BLD + y_BLD, "BLA"), state


class HybriKo(nn.Module):
    """Tokens to logits; one call serves training, prefill and decoding."""

    config: HybriKoConfig

    def setup(self):
        c = self.config
        init, shape = nn.initializers.normal(0.02), (c.vocab_size, c.d_model)
        self.embedding_VD = declare(self, "embedding", init, "VD", shape)
        if not c.tie_embeddings:
            self.head_VD = declare(self, "head", init, "VD", shape)
        self.layers = [Block(c, kind) for kind in c.layer_types]
        self.norm = RMSNorm(c.norm_eps)

    def __call__(
        self, tokens_BL: jax.Array, positions_BL: jax.Array, state: State | None = None
    ) -> tuple[jax.Array, State | None]:
        """Logits of the token after each token.

        Args:
          tokens_BL: token ids.
          positions_BL: distance from the document's start; 0 starts a document, forgets the
            recurrent state and hides everything before from attention.
          state: None in training; else what `init_state` or the call before gave.

        Returns:
          logits_BLV in float32, and the state after the last token (None if none was given).
        """
        x_BLD, state = self.hidden(tokens_BL, positions_BL, state)
        return self.logits(x_BLD), state

    def logits(self, x_BLD: jax.Array) -> jax.Array:
        """logits_BLV of hidden states."""
        logits_BLV = einsum("BLD,VD->BLV", x_BLD, self.unembedding(), self.config.dtype)
        cap = self.config.logits_soft_cap
        return logits_BLV if cap is None else cap * jnp.tanh(logits_BLV / cap)

    def hidden(self, tokens_BL, positions_BL, state=None) -> tuple[jax.Array, State | None]:
        """x_BLD that the unembedding turns into logits, and the state."""
        x_BLD = constrain(self._whole(self.embedding_VD)[tokens_BL], "BLA")
        states = []
        for i, layer in enumerate(self.layers):
            inputs = x_BLD, positions_BL, None if state is None else state[i]
            x_BLD, layer_state = recomputed(layer, *inputs) if self.config.remat else layer(*inputs)
            states.append(layer_state)
        return self.norm(x_BLD), None if state is None else tuple(states)

    def unembedding(self) -> jax.Array:
        """kernel_VD of the output."""
        return self._whole(self.embedding_VD if self.config.tie_embeddings else self.head_VD)

    def _whole(self, kernel_VD):
        # Gathered over FSDP by name, so that lookup and output of a tied embedding share it.
        return constrain(kernel_VD, "XA")


def _residual_scale(config):
    # Two additions a layer: the residual stream keeps a variance of order one at any depth.
    return 1 / (2 * config.n_layers)

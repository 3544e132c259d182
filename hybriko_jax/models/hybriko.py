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
from hybriko_jax.layers.linear import Linear
from hybriko_jax.layers.norm import RMSNorm
from hybriko_jax.layers.rg_lru import RGLRU
from hybriko_jax.models.language_model import LanguageModel
from hybriko_jax.sharding import constrain


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


class HybriKo(LanguageModel):
    config: HybriKoConfig

    def blocks(self) -> list[nn.Module]:
        return [Block(self.config, kind) for kind in self.config.layer_types]

    def final_norm(self) -> nn.Module:
        return RMSNorm(self.config.norm_eps)


def _residual_scale(config):
    # Two additions a layer: the residual stream keeps a variance of order one at any depth.
    return 1 / (2 * config.n_layers)

"""All models by their configs; the only place that names them."""

from typing import Any

import flax.linen as nn
import jax

from hybriko_jax.config import HybriKoConfig
from hybriko_jax.layers.attention import KVCache
from hybriko_jax.layers.attention import make_room as _make_room
from hybriko_jax.models import hybriko


def build(config: HybriKoConfig) -> nn.Module:
    """The model of a config."""
    return hybriko.HybriKo(config)


def init_state(config: HybriKoConfig, batch: int, capacity: int) -> Any:
    """The state before the first token; attention layers hold `capacity` tokens."""
    return hybriko.init_state(config, batch, capacity)


def make_room(state: Any, tokens: int) -> Any:
    """A state into which `tokens` more fit: attention forgets its oldest keys where it must."""
    return jax.tree.map(
        lambda s: _make_room(s, tokens) if isinstance(s, KVCache) else s,
        state,
        is_leaf=lambda s: isinstance(s, KVCache),
    )

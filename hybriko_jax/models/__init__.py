"""All models by their configs; the only place that names them."""

from typing import Any

import flax.linen as nn
import jax

from hybriko_jax.config import GPTNeoXConfig, ModelConfig
from hybriko_jax.layers.attention import KVCache
from hybriko_jax.layers.attention import make_room as _make_room
from hybriko_jax.models import gpt_neox, hybriko


def build(config: ModelConfig) -> nn.Module:
    """The model of a config."""
    if isinstance(config, GPTNeoXConfig):
        return gpt_neox.GPTNeoX(config)
    return hybriko.HybriKo(config)


def init_state(config: ModelConfig, batch: int, capacity: int) -> Any:
    """The state before the first token; attention layers hold `capacity` tokens."""
    if isinstance(config, GPTNeoXConfig):
        return gpt_neox.init_state(config, batch, capacity)
    return hybriko.init_state(config, batch, capacity)


def make_room(state: Any, tokens: int) -> Any:
    """A state into which `tokens` more fit: attention forgets its oldest keys where it must."""
    return jax.tree.map(
        lambda s: _make_room(s, tokens) if isinstance(s, KVCache) else s,
        state,
        is_leaf=lambda s: isinstance(s, KVCache),
    )

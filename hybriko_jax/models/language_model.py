"""What every model has: an embedding, layers one after the other, and an output."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hybriko_jax.layers.linear import einsum
from hybriko_jax.layers.remat import recomputed, recomputed_loop
from hybriko_jax.sharding import constrain, declare

STACK = "layers"
"""In the place of layers_0, layers_1, ...: their parameters, stacked; `training.state.place_frozen`
makes it."""


class LanguageModel(nn.Module):
    """Tokens to logits; one call serves training, prefill and decoding."""

    config: Any

    def blocks(self) -> list[nn.Module]:
        """The layers: (x_BLD, positions_BL, state) -> (x_BLD, state)."""
        raise NotImplementedError

    def final_norm(self) -> nn.Module:
        raise NotImplementedError

    def setup(self):
        c = self.config
        init, shape = nn.initializers.normal(0.02), (c.vocab_size, c.d_model)
        self.embedding_VD = declare(self, "embedding", init, "VD", shape)
        if not c.tie_embeddings:
            self.head_VD = declare(self, "head", init, "VD", shape)
        self.layers = self.blocks()
        self.norm = self.final_norm()

    def __call__(
        self, tokens_BL: jax.Array, positions_BL: jax.Array, state: Any = None
    ) -> tuple[jax.Array, Any]:
        """Logits of the token after each token.

        Args:
          tokens_BL: token ids.
          positions_BL: distance from the document's start; 0 starts a document, forgets recurrent
            state and hides everything before from attention.
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

    def hidden(
        self, tokens_BL: jax.Array, positions_BL: jax.Array, state: Any = None
    ) -> tuple[jax.Array, Any]:
        """x_BLD that the unembedding turns into logits, and the state."""
        # A base that is kept in bfloat16 has a residual stream in float32 all the same.
        x_BLD = constrain(self._whole(self.embedding_VD)[tokens_BL], "BLA").astype(jnp.float32)
        if STACK in self.variables.get("params", {}):
            return self.norm(self._looped(x_BLD, positions_BL)), None
        states: list[Any] = []
        for i, layer in enumerate(self.layers):
            inputs = x_BLD, positions_BL, None if state is None else state[i]
            x_BLD, its = recomputed(layer, *inputs) if self.config.remat else layer(*inputs)
            states.append(its)
        return self.norm(x_BLD), None if state is None else tuple(states)

    def _looped(self, x_BLD, positions_BL):
        """x_BLD after layers whose frozen parameters are stacked, without a state."""
        N = len(self.layers)

        def stacked(tree):
            return jax.tree.map(lambda *a: jnp.stack(a), *(tree[f"layers_{i}"] for i in range(N)))

        frozen = self.variables["params"][STACK]
        adapters = {
            name: stacked(self.variables[name]) for name in self.variables.keys() - {"params"}
        }
        keys_N = jax.random.split(self.make_rng("dropout"), N) if self.has_rng("dropout") else None
        layer = self.layers[0].clone(parent=None, name=None)
        return recomputed_loop(layer, frozen, adapters, keys_N, x_BLD, positions_BL, None)

    def unembedding(self) -> jax.Array:
        """kernel_VD of the output."""
        return self._whole(self.embedding_VD if self.config.tie_embeddings else self.head_VD)

    def _whole(self, kernel_VD):
        # Gathered over FSDP by name, so that lookup and output of a tied embedding share it.
        return constrain(kernel_VD, "XA")

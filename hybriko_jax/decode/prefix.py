"""A prompt's beginning, run once: its state is kept in a file and taken up from there."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hybriko_jax.files import write_file
from hybriko_jax.layers.attention import KVCache
from hybriko_jax.models import init_state


@dataclass(frozen=True)
class Prefix:
    """Tokens that begin a prompt, and the state after them (one row)."""

    tokens: tuple[int, ...]
    state: Any

    def state_for(self, capacity: int) -> Any:
        """A copy of the state with room for so many tokens in all."""

        def widen(layer):
            if not isinstance(layer, KVCache):
                return layer
            room = ((0, 0), (0, capacity - layer.k_BMGK.shape[1]), (0, 0), (0, 0))
            k_BMGK, v_BMGK = (jnp.pad(a, room) for a in (layer.k_BMGK, layer.v_BMGK))
            return KVCache(k_BMGK, v_BMGK, layer.length)

        return jax.tree.map(jnp.array, tuple(widen(layer) for layer in self.state))


def load_prefix(model: nn.Module, params: Any, tokens: Sequence[int], path: Path) -> Prefix:
    """The prefix that a file keeps; it is run, and kept if it can be, where the file does not.

    Args:
      path: the file; one of other tokens or other parameters is written anew.
    """
    empty = init_state(model.config, batch=1, capacity=len(tokens))
    leaves, tree = jax.tree.flatten(empty)
    key = _digest(params, tokens)
    try:
        with np.load(path) as kept:
            if str(kept["key"]) == key:
                stored = [kept[str(i)] for i in range(len(leaves))]
                return Prefix(tuple(tokens), jax.tree.unflatten(tree, stored))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        pass
    tokens_BL = np.array([tokens], np.int32)
    run = jax.jit(lambda params, *args: model.apply({"params": params}, *args, method="hidden")[1])
    state: Any = run(params, tokens_BL, np.arange(len(tokens), dtype=np.int32)[None], empty)
    content = io.BytesIO()
    arrays = {str(i): np.asarray(a) for i, a in enumerate(jax.tree.leaves(state))}
    np.savez(content, key=np.array(key), **arrays)  # type: ignore[arg-type]
    try:
        write_file(path, content.getvalue())
    except OSError:
        pass  # a folder that cannot be written: it is run again next time
    return Prefix(tuple(tokens), state)


def _digest(params, tokens):
    digest = hashlib.sha256(np.array(tokens, np.int32).tobytes())
    for p in jax.tree.leaves(params):
        digest.update(np.asarray(p).tobytes())
    return digest.hexdigest()

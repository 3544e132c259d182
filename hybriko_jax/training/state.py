"""What a training run carries from step to step, and where it lies on the mesh."""

from __future__ import annotations

import collections
import math
import operator
import re
from typing import Any

import flax.linen as nn
import flax.struct
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from hybriko_jax.config import LoRAConfig
from hybriko_jax.lora import init as init_adapter
from hybriko_jax.lora import targets
from hybriko_jax.memory import give_back
from hybriko_jax.models.language_model import STACK
from hybriko_jax.quant import NF4, with_axes
from hybriko_jax.sharding import tree_shardings

_LAYER = re.compile("^layers_[0-9]+/")


@flax.struct.dataclass
class TrainState:
    step: jax.Array
    """Optimizer steps taken or skipped, int32."""
    params: Any
    opt_state: Any
    skipped: jax.Array
    """Steps skipped because the loss or gradient was not finite, int32."""
    bad_in_a_row: jax.Array
    """The same, since the last good step, int32."""


def abstract_state(
    model: nn.Module,
    tx: optax.GradientTransformation,
    seed: int,
    mesh: Mesh,
    lora: LoRAConfig | None = None,
) -> tuple[TrainState, Any]:
    """Shapes of a train state, with shardings, and the function that makes one.

    Its parameters are the model's, or with `lora` those of an adapter.

    Optimizer moments take the shardings of their parameters explicitly: left to itself, jit puts
    all of them on the first device.

    Returns:
      The state as ShapeDtypeStructs that carry NamedShardings, and a function of no arguments
      that initialises the state in place on the mesh.
    """

    def boxed():
        key = jax.random.key(seed)
        if lora:
            shapes = jax.eval_shape(lambda: _boxed_params(model, key))
            params = init_adapter(key, shapes, lora)
        else:
            params = _boxed_params(model, key)
        zero = jnp.int32(0)
        return TrainState(zero, params, tx.init(params), zero, zero)

    shapes = jax.eval_shape(boxed)
    shardings = tree_shardings(shapes, mesh)
    abstract = jax.tree.map(
        lambda s, sharding: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding),
        nn.unbox(shapes),
        shardings,
    )
    return abstract, jax.jit(lambda: nn.unbox(boxed()), out_shardings=shardings)


def place_frozen(
    model: nn.Module, params: list[Any], mesh: Mesh, stacked_for: LoRAConfig | None = None
) -> Any:
    """Parameters on the mesh, laid out as trained ones are; NF4 leaves like their kernels.

    Args:
      params: a list of one tree; it is emptied, so that each array can be freed as soon as its
        copy is there.
      stacked_for: an adapter. If the layers of the model and of the adapter are alike, in 4 bits
        and recomputed, they are stacked, and one is compiled instead of all. A stacked model takes
        no state.
    """
    boxed: Any = jax.eval_shape(lambda: _boxed_params(model, jax.random.key(0)))
    axes: Any = flax.traverse_util.flatten_dict(boxed, sep="/")
    leaves: Any = flax.traverse_util.flatten_dict(params.pop(), sep="/")
    placed = {}
    stack = stacked_for and model.config.remat and _alike(leaves, stacked_for)
    groups = collections.defaultdict(list)
    for path in leaves:
        groups[_LAYER.sub(f"{STACK}/", path) if stack else path].append(path)
    for path, members in groups.items():
        letters = axes[members[0]].names
        if path in axes:
            leaf = leaves.pop(path)
        else:
            leaf, letters = _stacked(leaves, members), (None, *letters)
        named: Any = nn.LogicallyPartitioned(leaf, letters)
        if isinstance(leaf, NF4):
            named = with_axes(leaf, letters)
        placed[path] = jax.device_put(leaf, tree_shardings(named, mesh))
        jax.block_until_ready(placed[path])
        del leaf, named
        give_back()
    return flax.traverse_util.unflatten_dict(placed, sep="/")


def _stacked(leaves, members):
    """Leaves stacked along a first axis; each is freed as soon as it is copied."""
    stack = jax.tree.map(lambda a: np.empty((len(members), *a.shape), a.dtype), leaves[members[0]])
    for i, member in enumerate(members):
        jax.tree.map(lambda whole, a, i=i: operator.setitem(whole, i, a), stack, leaves.pop(member))
        give_back()
    return stack


def _alike(leaves, lora):
    """Whether all layers have the same kernels, some of them NF4, and are adapted alike."""
    adapted, layers = set(targets(leaves, lora.targets)), collections.defaultdict(set)
    for path, leaf in leaves.items():
        if layer := _LAYER.match(path):
            facts = path[layer.end() :], leaf.shape, isinstance(leaf, NF4), path in adapted
            layers[layer[0]].add(facts)
    first, *others = layers.values()
    return any(quantized for _, _, quantized, _ in first) and all(o == first for o in others)


def _boxed_params(model, key):
    tokens_BL = jnp.zeros((1, 1), jnp.int32)
    return model.init(key, tokens_BL, tokens_BL)["params"]


def param_count(params: Any) -> int:
    """Numbers in a tree of parameters; those that NF4 leaves stand for."""
    leaves = jax.tree.leaves(params, is_leaf=lambda leaf: isinstance(leaf, NF4))
    return sum(math.prod(leaf.shape) for leaf in leaves)

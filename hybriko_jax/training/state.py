"""What a training run carries from step to step, and where it lies on the mesh."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import flax.struct
import flax.traverse_util
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from hybriko_jax.config import LoRAConfig
from hybriko_jax.lora import init as init_adapter
from hybriko_jax.quant import NF4, with_axes
from hybriko_jax.sharding import tree_shardings


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


def place_frozen(model: nn.Module, params: list[Any], mesh: Mesh) -> Any:
    """Parameters on the mesh, laid out as trained ones are; NF4 leaves like their kernels.

    Args:
      params: a list of one tree; it is emptied, so that each array can be freed as soon as its
        copy is there.
    """
    boxed: Any = jax.eval_shape(lambda: _boxed_params(model, jax.random.key(0)))
    axes: Any = flax.traverse_util.flatten_dict(boxed, sep="/")
    leaves: Any = flax.traverse_util.flatten_dict(params.pop(), sep="/")
    placed = {}
    for path in list(leaves):
        leaf = leaves.pop(path)
        if isinstance(leaf, NF4):
            named: Any = with_axes(leaf, axes[path].names)
        else:
            named = nn.LogicallyPartitioned(leaf, axes[path].names)
        placed[path] = jax.device_put(leaf, tree_shardings(named, mesh))
        jax.block_until_ready(placed[path])
    return flax.traverse_util.unflatten_dict(placed, sep="/")


def _boxed_params(model, key):
    tokens_BL = jnp.zeros((1, 1), jnp.int32)
    return model.init(key, tokens_BL, tokens_BL)["params"]


def param_count(params: Any) -> int:
    """Numbers in a tree of parameters; those that NF4 leaves stand for."""
    leaves = jax.tree.leaves(params, is_leaf=lambda leaf: isinstance(leaf, NF4))
    return sum(math.prod(leaf.shape) for leaf in leaves)

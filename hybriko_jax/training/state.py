"""What a training run carries from step to step, and where it lies on the mesh."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

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
    model: nn.Module, tx: optax.GradientTransformation, seed: int, mesh: Mesh
) -> tuple[TrainState, Any]:
    """Shapes of a train state, with shardings, and the function that makes one.

    Optimizer moments take the shardings of their parameters explicitly: left to itself, jit puts
    all of them on the first device.

    Returns:
      The state as ShapeDtypeStructs that carry NamedShardings, and a function of no arguments
      that initialises the state in place on the mesh.
    """

    def boxed():
        tokens_BL = jnp.zeros((1, 1), jnp.int32)
        params = model.init(jax.random.key(seed), tokens_BL, tokens_BL)["params"]
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


def param_count(params: Any) -> int:
    """Numbers in a tree of parameters."""
    return sum(p.size for p in jax.tree.leaves(params))

"""One table from axis letters to mesh axes; every sharding of the project is read from it.

Axis letters: B batch, L time, M key time, D model width, V vocabulary, F feed-forward,
U gate input (a kernel may not name one axis twice), H query heads x head size, G kv heads x
head size, W recurrence width, A width of activations, X vocabulary in use, C taps of the
convolution, R rank of an adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from hybriko_jax.config import MESH_AXES, parse_mesh
from hybriko_jax.errors import UserError

# Axis letter -> mesh axes. If two axes of an array want one mesh axis, the earlier rule wins.
AXIS_RULES = (
    ("B", ("data", "fsdp")),
    ("V", ("tensor", "fsdp")),  # the embedding is split by rows only
    ("X", ("tensor",)),  # vocabulary of an embedding in use
    ("D", ("fsdp",)),  # splits weights and optimizer state
    ("U", ("fsdp",)),
    ("H", ("tensor",)),
    ("F", ("tensor",)),
    ("W", ("tensor",)),
    ("G", ()),  # 3 kv heads divide no mesh of 2, 4 or 8
    ("L", ()),
    ("A", ()),  # width of activations
    ("C", ()),  # taps of the convolution
    ("R", ()),  # rank of an adapter
)


def make_mesh(text: str) -> Mesh:
    """The mesh that --mesh describes, over all devices of all processes.

    Raises:
      UserError: the mesh is unreadable or its size is not the number of devices.
    """
    sizes = parse_mesh(text)
    wanted, present = int(np.prod(list(sizes.values()))), jax.device_count()
    # A smaller mesh on one machine is fine; over several it would leave a process with no device.
    if wanted > present or (wanted != present and jax.process_count() > 1):
        raise UserError(
            f"--mesh {text} needs {wanted} devices, but there are {present} "
            f"({jax.devices()[0].platform}). Use --mesh {present}."
        )
    return jax.make_mesh(
        tuple(sizes.values()),
        MESH_AXES,
        axis_types=(AxisType.Auto,) * len(MESH_AXES),
        devices=jax.devices()[:wanted],
    )


def partition_spec(axes: Sequence[str | None]) -> PartitionSpec:
    """Mesh axes of an array whose axes have these letters, by AXIS_RULES.

    Raises:
      ValueError: a letter is not in AXIS_RULES.
    """
    letters = [letter for letter, _ in AXIS_RULES]
    order = sorted((letters.index(a), i) for i, a in enumerate(axes) if a is not None)
    spec: list[Any] = [None] * len(axes)
    used: set[str] = set()
    for rule, i in order:
        free = tuple(m for m in AXIS_RULES[rule][1] if m not in used)
        used.update(free)
        spec[i] = free[0] if len(free) == 1 else free or None
    return PartitionSpec(*spec)


def declare(
    module: nn.Module, name: str, init: Callable[..., Any], axes: Sequence[str | None], shape: Any
) -> Any:
    """A parameter of a module, with the axis letters that its sharding is read from."""
    return module.param(name, nn.with_logical_partitioning(init, tuple(axes)), shape)


def constrain(x: jax.Array, axes: str) -> jax.Array:
    """x, laid out over the current mesh by its axis letters; x itself where no mesh is set.

    Size-1 batches and other axes that do not divide stay whole.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    spec = [_divisible(m, n, mesh) for m, n in zip(partition_spec(axes), x.shape, strict=True)]
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*spec))


def batch_parts(mesh: Mesh | AbstractMesh) -> int:
    """In how many parts a mesh splits a batch."""
    return 1 if mesh.empty else mesh.shape["data"] * mesh.shape["fsdp"]


def batch_sharding(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, partition_spec("B"))


def tree_shardings(boxed: Any, mesh: Mesh) -> Any:
    """NamedShardings of a tree of parameters or of anything made from them.

    Args:
      boxed: shapes, in which parameters are boxed with their axis letters
        (`flax.linen.with_logical_partitioning`); leaves without a box are replicated.
      mesh: the mesh.

    Returns:
      A tree like `boxed`, unboxed.
    """

    def sharding(leaf):
        if not isinstance(leaf, nn.LogicallyPartitioned):
            return NamedSharding(mesh, PartitionSpec())
        if isinstance(leaf.value, optax.MaskedNode):  # an optimizer leaves this parameter alone
            return leaf.value
        spec = partition_spec(leaf.names)
        shape = leaf.value.shape
        parts = [_divisible(m, n, mesh) for m, n in zip(spec, shape, strict=True)]
        return NamedSharding(mesh, PartitionSpec(*parts))

    return jax.tree.map(sharding, boxed, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned))


def _divisible(mesh_axes: Any, size: int, mesh: Any) -> Any:
    """The mesh axes if they divide an axis of this size, else None: the axis stays whole."""
    names = (mesh_axes,) if isinstance(mesh_axes, str) else (mesh_axes or ())
    return mesh_axes if size % int(np.prod([mesh.shape[m] for m in names])) == 0 else None

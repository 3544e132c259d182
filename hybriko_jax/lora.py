"""LoRA as transforms of parameter trees.

An adapter is a tree beside the parameters: where a kernel of the base is adapted, it has a `LoRA`
leaf at the same path. A model takes it as the collection "lora":
`model.apply({"params": base, "lora": adapter}, ...)`, and `layers.linear.Linear` adds its product.

Source: LoRA, arXiv:2106.09685.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import flax.linen as nn
import flax.struct
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from hybriko_jax.config import LoRAConfig
from hybriko_jax.errors import UserError
from hybriko_jax.quant import NF4, dequantize


@flax.struct.dataclass
class LoRA:
    """kernel_DF + scale * a_DR b_RF, applied factor by factor."""

    a_DR: Any
    b_RF: Any
    scale: float = flax.struct.field(pytree_node=False)
    dropout: float = flax.struct.field(pytree_node=False, default=0.0)
    """Of the input, where a "dropout" random stream is given."""


def is_matrix(path: str) -> bool:
    """Whether `layers.linear.Linear` applies the parameter: all kernels but the convolution's."""
    return path.endswith("/kernel") and "/conv/" not in path


def targets(paths: Iterable[str], wanted: str) -> list[str]:
    """The matrices among the paths of a model in which a regular expression is found.

    Raises:
      UserError: in none.
    """
    matrices = [path for path in paths if is_matrix(path)]
    found = [path for path in matrices if re.search(wanted, path)]
    if not found:
        kinds = sorted({re.sub("layers_[0-9]+", "layers_N", path) for path in matrices})
        raise UserError(
            f"lora.targets={wanted!r} is found in no matrix of the model. Its matrices: "
            f"{', '.join(kinds)}."
        )
    return found


def init(key: jax.Array, boxed: Any, config: LoRAConfig) -> Any:
    """An adapter that changes nothing yet: A is drawn from U(+-1/sqrt(D)), as PEFT does, B is 0.

    Args:
      boxed: a model's parameters or their shapes, boxed with their axis letters as Linen's init
        gives them.

    Returns:
      The adapter, boxed with its letters.

    Raises:
      UserError: config.targets is found in the path of no kernel.
    """
    paths: Any = flax.traverse_util.flatten_dict(boxed, sep="/")
    found = targets(paths, config.targets)

    def adapter(key, leaf):
        (D, F), (d, f) = leaf.value.shape, leaf.names
        a_DR = jax.random.uniform(key, (D, config.rank), jnp.float32, -(D**-0.5), D**-0.5)
        return LoRA(
            nn.LogicallyPartitioned(a_DR, (d, "R")),
            nn.LogicallyPartitioned(jnp.zeros((config.rank, F)), ("R", f)),
            scale=config.scale,
            dropout=config.dropout,
        )

    keys = jax.random.split(key, len(found))
    leaves = {path: adapter(k, paths[path]) for k, path in zip(keys, found, strict=True)}
    return flax.traverse_util.unflatten_dict(leaves, sep="/")


def from_factors(tree: Any, config: LoRAConfig) -> Any:
    """An adapter of its bare factors, a tree of {"a_DR", "b_RF"}, as a checkpoint has it."""
    if set(tree) == {"a_DR", "b_RF"}:
        return LoRA(**tree, scale=config.scale, dropout=config.dropout)
    return {name: from_factors(subtree, config) for name, subtree in tree.items()}


def scale(adapter: Any, factor: float) -> Any:
    """The adapter, so many times as strong."""
    return _map(lambda leaf: leaf.replace(scale=leaf.scale * factor), adapter)


def merge(params: Any, adapter: Any) -> Any:
    """Parameters in which the adapter is contained; dropout, being of training, is not.

    NF4 kernels become float32: quantised again, they would lose what the adapter learned. The sums
    are NumPy's, float32, in PEFT's order: compiled, a product and a sum become one rounding.
    """
    return _add(params, adapter, 1)


def unmerge(params: Any, adapter: Any) -> Any:
    """Parameters without the adapter that `merge` added, up to rounding."""
    return _add(params, adapter, -1)


def _add(params, adapter, sign):
    kernels: Any = flax.traverse_util.flatten_dict(params, sep="/")
    leaves: Any = flax.traverse_util.flatten_dict(adapter, sep="/")
    if strangers := sorted(set(leaves) - set(kernels)):
        raise UserError(
            f"The adapter has {strangers[0]}, which the model has not: it is of another base."
        )
    changed = {path: _added(kernels[path], leaf, sign) for path, leaf in leaves.items()}
    return flax.traverse_util.unflatten_dict({**kernels, **changed}, sep="/")


def _added(kernel, leaf, sign):
    if isinstance(kernel, NF4):
        kernel = np.asarray(dequantize(kernel)).T
    kernel_DF = np.asarray(kernel)
    delta_FD = np.asarray(leaf.b_RF).T @ np.asarray(leaf.a_DR).T
    delta_FD *= np.float32(sign * leaf.scale)
    return (kernel_DF.astype(np.float32) + delta_FD.T).astype(kernel_DF.dtype)


def _map(function, adapter):
    return jax.tree.map(function, adapter, is_leaf=lambda leaf: isinstance(leaf, LoRA))

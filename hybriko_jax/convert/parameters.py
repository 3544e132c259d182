"""A model's parameters under the names and in the layout of PyTorch, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import flax.traverse_util
import jax
import numpy as np

from hybriko_jax import int8
from hybriko_jax.config import ModelConfig
from hybriko_jax.convert.bitsandbytes import read_nf4, write_nf4
from hybriko_jax.convert.tables import torch_name, transposed
from hybriko_jax.convert.weights import DTYPES, Tensor
from hybriko_jax.errors import UserError
from hybriko_jax.lora import is_matrix
from hybriko_jax.models import build
from hybriko_jax.quant import NF4, dequantize, quantize

Kept = Literal["float32", "bfloat16", "nf4", "int8"]
"""How parameters are kept in memory."""


def our_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of a model's parameters by their path."""
    tokens_BL = jax.ShapeDtypeStruct((1, 1), np.int32)
    variables = jax.eval_shape(build(config).init, jax.random.key(0), tokens_BL, tokens_BL)
    params: Any = nn.unbox(variables)["params"]
    paths: Any = flax.traverse_util.flatten_dict(params, sep="/")
    return {path: tuple(p.shape) for path, p in paths.items()}


def not_finite(params: Any) -> list[str]:
    """Paths of parameters that hold NaN or infinite numbers."""
    paths: Any = flax.traverse_util.flatten_dict(params, sep="/")
    return [
        path
        for path, leaf in paths.items()
        if not all(np.isfinite(np.asarray(a)).all() for a in jax.tree.leaves(leaf))
    ]


def to_torch(
    config: ModelConfig, params: Any, dtype: str, packed: bool = False
) -> dict[str, Tensor]:
    """A model's parameters as PyTorch keeps them, by their names.

    Args:
      params: arrays in float32, or NF4 leaves.
      dtype: a key of DTYPES. The decay of the RG-LRU is float32 always: in bfloat16 its distance
        from one, which is its memory, would be off by up to 1.5 %.
      packed: NF4 leaves stay so, in the parts that bitsandbytes has; else they are dequantised.

    Returns:
      Tensors that are converted when they are wanted; one that holds numbers beyond the range
      of `dtype` raises a UserError then.
    """
    paths: Any = flax.traverse_util.flatten_dict(params, sep="/")

    def tensor(path, p):
        kind = "float32" if path.endswith("/lambda") else dtype
        shape = p.shape[::-1] if transposed(path) else p.shape

        def make():
            a = np.asarray(dequantize(p)).T if isinstance(p, NF4) else np.asarray(p)
            with np.errstate(over="ignore"):
                converted = (a.T if transposed(path) else a).astype(DTYPES[kind])
            if kind == "float16" and np.isinf(converted).sum() > np.isinf(a).sum():
                raise UserError(
                    f"{torch_name(config, path)} holds {np.abs(a).max():.4g}, beyond the 65504 of "
                    "float16. Give --dtype bfloat16 or float32."
                )
            return converted

        return Tensor(tuple(shape), kind, make)

    tensors: dict[str, Tensor] = {}
    for path, p in paths.items():
        name = torch_name(config, path)
        nf4 = packed and isinstance(p, NF4)
        tensors |= write_nf4(name, p, dtype) if nf4 else {name: tensor(path, p)}
    return tensors


def quantized(config: ModelConfig, params: Any, dtype: str) -> Any:
    """The parameters with the kernels of layers as NF4, quantised from `dtype`."""
    tensors = to_torch(config, params, dtype)
    paths: Any = flax.traverse_util.flatten_dict(params, sep="/")
    leaves = {
        path: quantize(tensors[torch_name(config, path)].make().T)
        if is_matrix(path) and not isinstance(p, NF4)
        else p
        for path, p in paths.items()
    }
    return flax.traverse_util.unflatten_dict(leaves, sep="/")


def parameters(
    tensors: Mapping[str, Tensor],
    found: Mapping[str, tuple[str, bool]],
    kept: Kept = "float32",
    quantized: Mapping[str, NF4] | None = None,
) -> Any:
    """A tree of parameters, read tensor by tensor.

    Args:
      found: our path -> the tensor that holds it, and whether it lies the other way round.
      kept: float32; bfloat16, in which vectors stay float32; nf4, in which the kernels of layers
        are quantised from bfloat16, and embedding and head are bfloat16; or int8, in which they are
        quantised from float32, and all else is that.
      quantized: tensors that are NF4 already.
    """

    def parameter(path, name, turned):
        if quantized and name in quantized:
            return quantized[name]
        if (dtype := tensors[name].dtype) not in DTYPES:
            raise UserError(f"{name} is {dtype}; a weight is one of {', '.join(DTYPES)}.")
        a = tensors[name].make()
        if kept == "int8" and is_matrix(path):
            return int8.quantize(a.T if turned else a)
        if kept in ("float32", "int8") or a.ndim < 2:
            return _turned(a.astype(np.float32), turned)
        a = a.astype(DTYPES["bfloat16"])
        if kept == "nf4" and is_matrix(path):
            return quantize(a.T if turned else a)
        return _turned(a, turned)

    ours = {path: parameter(path, *where) for path, where in found.items()}
    return flax.traverse_util.unflatten_dict(ours, sep="/")


def in_int8(params: Any) -> Any:
    """Parameters with the kernels of layers in eight bits."""
    paths: Any = flax.traverse_util.flatten_dict(params, sep="/")

    def leaf(path, p):
        if not is_matrix(path):
            return p
        return int8.quantize(np.asarray(dequantize(p)).T if isinstance(p, NF4) else p)

    return flax.traverse_util.unflatten_dict(
        {path: leaf(path, p) for path, p in paths.items()}, sep="/"
    )


def _turned(a, turned):
    return np.ascontiguousarray(a.T) if turned else a


def rounded(config: ModelConfig, params: Any, dtype: str, packed: bool = False) -> Any:
    """Parameters in float32 with the values that `to_torch` gives them; NF4 stays if `packed`."""
    leaves, tensors = read_nf4(to_torch(config, params, dtype, packed))
    paths: Any = flax.traverse_util.flatten_dict(params, sep="/")
    found = {path: (torch_name(config, path), transposed(path)) for path in paths}
    return parameters(tensors, found, quantized=leaves)

"""HybriKo's parameters under the names and layout of PyTorch.

One table, read both ways. PyTorch keeps a kernel as (out, in), so kernels are transposed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import numpy as np

from hybriko_jax.config import HybriKoConfig
from hybriko_jax.convert.weights import DTYPES, Tensor
from hybriko_jax.errors import UserError
from hybriko_jax.models import build

# Our path -> their name; N is the layer. Kernels are transposed.
TABLE = (
    ("embedding", "model.embed_tokens.weight"),
    ("head", "lm_head.weight"),
    ("norm/scale", "model.norm.weight"),
    ("layers_N/mixing_norm/scale", "model.layers.N.mixing_norm.weight"),
    ("layers_N/mlp_norm/scale", "model.layers.N.mlp_norm.weight"),
    ("layers_N/griffin/x/kernel", "model.layers.N.griffin.x_proj.weight"),
    ("layers_N/griffin/gate/kernel", "model.layers.N.griffin.gate_proj.weight"),
    ("layers_N/griffin/out/kernel", "model.layers.N.griffin.out_proj.weight"),
    ("layers_N/griffin/conv/kernel", "model.layers.N.griffin.conv.weight"),
    (
        "layers_N/griffin/rg_lru/recurrence_gate/kernel",
        "model.layers.N.griffin.rg_lru.recurrence_gate.weight",
    ),
    (
        "layers_N/griffin/rg_lru/input_gate/kernel",
        "model.layers.N.griffin.rg_lru.input_gate.weight",
    ),
    ("layers_N/griffin/rg_lru/lambda", "model.layers.N.griffin.rg_lru.lam"),
    ("layers_N/attention/q/kernel", "model.layers.N.attention.q_proj.weight"),
    ("layers_N/attention/k/kernel", "model.layers.N.attention.k_proj.weight"),
    ("layers_N/attention/v/kernel", "model.layers.N.attention.v_proj.weight"),
    ("layers_N/attention/o/kernel", "model.layers.N.attention.o_proj.weight"),
    ("layers_N/mlp/gate/kernel", "model.layers.N.mlp.gate_proj.weight"),
    ("layers_N/mlp/up/kernel", "model.layers.N.mlp.up_proj.weight"),
    ("layers_N/mlp/down/kernel", "model.layers.N.mlp.down_proj.weight"),
)


_TO_TORCH = dict(TABLE)


def torch_name(path: str) -> str:
    """The name of a parameter: of "layers_0/mlp/up/kernel", model.layers.0.mlp.up_proj.weight."""
    layer = re.search(r"layers_(\d+)", path)
    name = _TO_TORCH[re.sub(r"layers_\d+", "layers_N", path)]
    return name.replace(".N.", f".{layer[1]}.") if layer else name


def transposed(path: str) -> bool:
    """Whether PyTorch has the parameter the other way round."""
    return path.endswith("/kernel")


def our_shapes(config: HybriKoConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of a model's parameters by their path."""
    tokens_BL = jax.ShapeDtypeStruct((1, 1), np.int32)
    variables = jax.eval_shape(build(config).init, jax.random.key(0), tokens_BL, tokens_BL)
    params: Any = nn.unbox(variables)["params"]
    paths: Any = flax.traverse_util.flatten_dict(params, sep="/")
    return {path: tuple(p.shape) for path, p in paths.items()}


def to_torch(params: Any, dtype: str) -> dict[str, Tensor]:
    """A model's parameters as PyTorch keeps them, by their names.

    Args:
      params: arrays in float32.
      dtype: a key of DTYPES. The decay of the RG-LRU is float32 always: in bfloat16 its distance
        from one, which is its memory, would be off by up to 1.5 %.

    Returns:
      Tensors that are converted when they are wanted; one that holds numbers beyond the range
      of `dtype` raises a UserError then.
    """
    paths: Any = flax.traverse_util.flatten_dict(params, sep="/")

    def tensor(path, p):
        kind = "float32" if path.endswith("/lambda") else dtype
        shape = p.shape[::-1] if transposed(path) else p.shape

        def make():
            a = np.asarray(p)
            with np.errstate(over="ignore"):
                converted = (a.T if transposed(path) else a).astype(DTYPES[kind])
            if kind == "float16" and np.isinf(converted).sum() > np.isinf(a).sum():
                raise UserError(
                    f"{torch_name(path)} holds {np.abs(a).max():.4g}, beyond the 65504 of float16. "
                    "Give --dtype bfloat16 or float32."
                )
            return converted

        return Tensor(tuple(shape), kind, make)

    return {torch_name(path): tensor(path, p) for path, p in paths.items()}


def parameters(tensors: Mapping[str, Tensor], found: Mapping[str, tuple[str, bool]]) -> Any:
    """A tree of parameters in float32.

    Args:
      found: our path -> the tensor that holds it, and whether it lies the other way round.
    """

    def parameter(name, turned):
        a = tensors[name].make().astype(np.float32)
        return np.ascontiguousarray(a.T) if turned else a

    ours = {path: parameter(name, turned) for path, (name, turned) in found.items()}
    return flax.traverse_util.unflatten_dict(ours, sep="/")


def rounded(params: Any, dtype: str) -> Any:
    """Parameters in float32 with the values that an export in `dtype` gives them."""
    tensors = to_torch(params, dtype)
    paths: Any = flax.traverse_util.flatten_dict(params, sep="/")
    return parameters(tensors, {path: (torch_name(path), transposed(path)) for path in paths})

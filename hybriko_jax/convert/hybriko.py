"""HybriKo's parameters under the names and layout of a transformers folder.

One table, read both ways. PyTorch keeps a kernel as (out, in), so kernels are transposed.
"""

from __future__ import annotations

import re
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import numpy as np

from hybriko_jax.config import HybriKoConfig
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
_FROM_TORCH = {b: a for a, b in TABLE}


def to_torch_layout(ours: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Tensors by their name, from parameters by their path ("layers_0/mlp/up/kernel")."""
    # safetensors writes a transposed view wrongly and silently: it must be contiguous.
    return {
        _rename(path, _TO_TORCH): np.ascontiguousarray(p.T) if _is_kernel(path) else p
        for path, p in ours.items()
    }


def from_torch_layout(theirs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The way back, of tensors that `torch_shapes` names."""
    paths = {name: _rename(name, _FROM_TORCH) for name in theirs}
    return {
        path: np.ascontiguousarray(theirs[name].T) if _is_kernel(path) else theirs[name]
        for name, path in paths.items()
    }


def torch_shapes(config: HybriKoConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of a model by their name."""
    tokens_BL = jax.ShapeDtypeStruct((1, 1), np.int32)
    variables = jax.eval_shape(build(config).init, jax.random.key(0), tokens_BL, tokens_BL)
    params: Any = nn.unbox(variables)["params"]
    paths: Any = flax.traverse_util.flatten_dict(params, sep="/")
    return {
        _rename(path, _TO_TORCH): p.shape[::-1] if _is_kernel(path) else p.shape
        for path, p in paths.items()
    }


def _rename(name, table):
    layer = re.search(r"layers[_.](\d+)", name)
    renamed = table[re.sub(r"(layers[_.])\d+", r"\1N", name)]
    return re.sub(r"(layers[_.])N", rf"\g<1>{layer[1]}", renamed) if layer else renamed


def _is_kernel(path):
    return path.endswith("/kernel")

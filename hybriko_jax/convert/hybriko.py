"""HybriKo's parameters under the names and layout of a transformers folder.

One table, read both ways. PyTorch keeps a kernel as (out, in), so kernels are transposed.
"""

from __future__ import annotations

import re

import numpy as np

from hybriko_jax.errors import UserError

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


def to_torch_layout(ours: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Tensors by their name, from parameters by their path ("layers_0/mlp/up/kernel")."""
    return _convert(ours, dict(TABLE), r"layers_(\d+)", "layers_{}")


def from_torch_layout(theirs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The way back.

    Raises:
      UserError: a name is not in the table.
    """
    table = {b: a for a, b in TABLE}
    return _convert(theirs, table, r"model\.layers\.(\d+)", "model.layers.{}")


def _convert(tensors, table, layer_pattern, layer_format):
    out = {}
    for name, tensor in tensors.items():
        layer = re.match(layer_pattern, name)
        number = layer[1] if layer else ""
        key = name.replace(layer_format.format(number), layer_format.format("N"), 1)
        if key not in table:
            raise UserError(f"{name} is not a tensor of HybriKo. Is this another kind of model?")
        new_name = re.sub(r"(layers[_.])N", rf"\g<1>{number}", table[key])
        kernel = name.endswith("kernel") or new_name.endswith("kernel")
        # safetensors writes a transposed view wrongly and silently: it must be contiguous.
        out[new_name] = np.ascontiguousarray(tensor.T) if kernel else tensor
    return out

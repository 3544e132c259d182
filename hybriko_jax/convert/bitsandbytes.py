"""NF4 kernels in files, as transformers saves those of bitsandbytes.

A weight has its codes under its own name as (bytes, 1). Beside it stand NAME.absmax,
NAME.nested_absmax, two tables, and NAME.quant_state.bitsandbytes__nf4, which is JSON in bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from hybriko_jax.convert.weights import Tensor
from hybriko_jax.errors import UserError
from hybriko_jax.quant import BLOCK, NESTED_BLOCK, NF4, VALUES

_STATE = ".quant_state.bitsandbytes__"
_PARTS = (".absmax", ".nested_absmax", ".nested_quant_map", ".quant_map", f"{_STATE}nf4")


def quantization_config(dtype: str) -> dict[str, Any]:
    """The field `quantization_config` of a config.json whose weights `write_nf4` made.

    Args:
      dtype: that transformers is to compute in, "float32", "bfloat16" or "float16".
    """
    return {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": dtype,
    }


def write_nf4(name: str, leaf: NF4, dtype: str) -> dict[str, Tensor]:
    """The tensors of a quantised kernel.

    Args:
      name: of the weight, such as "lm_head.weight".
      dtype: that transformers is to dequantise it to.
    """
    D, F = leaf.shape
    state = {
        "quant_type": "nf4",
        "blocksize": BLOCK,
        "dtype": dtype,
        "shape": [F, D],
        "nested_blocksize": NESTED_BLOCK,
        "nested_dtype": "float32",
        "nested_offset": float(leaf.offset),
    }
    codes = np.asarray(leaf.codes_FC).reshape(-1, 1)
    parts = (
        np.asarray(leaf.absmax_FS).reshape(-1),
        np.asarray(leaf.nested_absmax_N),
        np.asarray(leaf.nested_map),
        VALUES,
        np.frombuffer(bytearray(json.dumps(state).encode()), np.uint8),
    )
    return {name: _tensor(codes)} | {
        name + part: _tensor(a) for part, a in zip(_PARTS, parts, strict=True)
    }


def _tensor(a):
    return Tensor(a.shape, a.dtype.name, lambda: a)


def read_nf4(tensors: Mapping[str, Tensor]) -> tuple[dict[str, NF4], dict[str, Tensor]]:
    """Takes quantised weights out of what a folder holds.

    Returns:
      Leaves (NumPy) by the name of their weight, and the tensors that are no part of one.

    Raises:
      UserError: a weight is of another 4-bit format, or a part of it is missing or damaged.
    """
    kinds = {name: kind for name, _, kind in (n.partition(_STATE) for n in tensors) if kind}
    leaves = {name: _read(tensors, name, kind) for name, kind in kinds.items()}
    used = {name + part for name in leaves for part in ("", *_PARTS)}
    return leaves, {name: tensor for name, tensor in tensors.items() if name not in used}


def _read(tensors: Mapping[str, Tensor], name: str, kind: str) -> NF4:
    try:
        state = json.loads(bytes(tensors[name + _STATE + kind].make()))
        blocks = state["blocksize"], state.get("nested_blocksize")
        (F, D), offset = state["shape"], np.float32(state.get("nested_offset", 0))
    except (ValueError, KeyError, TypeError) as e:
        raise UserError(f"{name}: bad quant_state ({e!r}). Copy the folder anew.") from None
    if kind != "nf4" or blocks != (BLOCK, NESTED_BLOCK):
        raise UserError(
            f"{name} is {kind} in blocks of {blocks[0]} weights and of {blocks[1]} scales. Only "
            f"nf4 of {BLOCK} and {NESTED_BLOCK} can be read: give the original weights, or "
            "quantise them with bnb_4bit_quant_type='nf4' and bnb_4bit_use_double_quant=True."
        )
    if D % BLOCK:
        raise UserError(
            f"{name} has {D} inputs, but NF4 is read in whole blocks of {BLOCK}: give the original "
            "weights."
        )
    n = F * D // BLOCK
    codes, absmax, nested_absmax, nested_map = (
        _part(tensors, name, F * D // 2, np.uint8),
        _part(tensors, f"{name}.absmax", n, np.uint8),
        _part(tensors, f"{name}.nested_absmax", -(-n // NESTED_BLOCK), np.float32),
        _part(tensors, f"{name}.nested_quant_map", 256, np.float32),
    )
    return NF4(codes.reshape(F, -1), absmax.reshape(F, -1), nested_absmax, nested_map, offset)


def _part(tensors, name, size, dtype):
    # A view, since codes may be kept as numbers of another type (bnb_4bit_quant_storage).
    found = np.ascontiguousarray(tensors[name].make()).view(dtype) if name in tensors else None
    if found is None or found.size != size:
        n = "missing" if found is None else f"{found.size} long"
        raise UserError(f"{name} should be {size} long, but is {n}. Copy the folder anew.")
    return found.reshape(-1)

"""A model as a folder: config.json, model.safetensors, and a tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hybriko_jax.config import ModelConfig
from hybriko_jax.convert.bitsandbytes import quantization_config, read_nf4
from hybriko_jax.convert.config import from_transformers, to_transformers
from hybriko_jax.convert.parameters import Kept, our_shapes, parameters, to_torch
from hybriko_jax.convert.tables import torch_name, transposed, usual_name
from hybriko_jax.convert.weights import Tensor, read_weights, some, write_weights
from hybriko_jax.errors import UserError
from hybriko_jax.tokenizer import Tokenizer, load_tokenizer

CONFIG = "config.json"
SHARD_BYTES = 5_000_000_000


def save_folder(
    folder: Path,
    config: ModelConfig,
    params: Any,
    tokenizer: Tokenizer,
    dtype: str,
    shard_bytes: int = SHARD_BYTES,
    packed: bool = False,
) -> dict[str, Tensor]:
    """Writes a model into a folder that is there.

    Args:
      params: arrays in float32, or NF4 leaves.
      dtype: "float32", "bfloat16" or "float16".
      shard_bytes: see `write_weights`.
      packed: see `to_torch`.

    Returns:
      What was written.
    """
    tensors = to_torch(config, params, dtype, packed)
    write_weights(folder, tensors, shard_bytes)
    described = to_transformers(config) | {
        "dtype": dtype,
        **special_ids(tokenizer),
    }
    if packed:
        described["quantization_config"] = quantization_config(dtype)
    (folder / CONFIG).write_text(json.dumps(described, indent=2) + "\n")
    tokenizer.save(folder / tokenizer.FILE)
    return tensors


def special_ids(tokenizer: Tokenizer) -> dict[str, int | None]:
    """The fields of config.json that name special tokens; None for one that is not there."""
    ids = {"pad": tokenizer.pad_id, "bos": tokenizer.bos_id, "eos": tokenizer.eos_id}
    return {f"{name}_token_id": i if i >= 0 else None for name, i in ids.items()}


def read_fields(path: Path) -> dict[str, Any]:
    """What a config.json holds.

    Raises:
      UserError: it cannot be read.
    """
    try:
        described = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as e:
        raise UserError(f"{path} cannot be read ({e}). Give the folder of a model.") from None
    if not isinstance(described, dict):
        raise UserError(f"{path} is not the config of a model.")
    return described


def read_config(path: Path) -> ModelConfig:
    """The model that a config.json describes.

    Raises:
      UserError: it cannot be read, or is of another model.
    """
    described = read_fields(path)
    try:
        return from_transformers(described)
    except UserError as e:
        raise UserError(f"{path}: {e}") from None


def load_folder(folder: Path, kept: Kept = "float32") -> tuple[ModelConfig, Any, Tokenizer]:
    """`load_weights`, and the tokenizer.

    Raises:
      UserError: as `load_weights`, or there is no tokenizer.
    """
    return *load_weights(folder, kept), load_tokenizer(folder)


def load_weights(folder: Path, kept: Kept = "float32") -> tuple[ModelConfig, Any]:
    """A model's config and parameters (NumPy), read tensor by tensor.

    Args:
      kept: see `parameters.parameters`. What bitsandbytes has quantised stays NF4.

    Raises:
      UserError: a file is missing, damaged, or of another model.
    """
    config = read_config(folder / CONFIG)
    tensors = {
        usual: tensor
        for name, tensor in read_weights(folder).items()
        if (usual := usual_name(config, name))
    }
    quantized, tensors = read_nf4(tensors)
    shapes = our_shapes(config)
    paths = {path: (torch_name(config, path), transposed(path)) for path in shapes}
    found = {name: t.shape for name, t in tensors.items()}
    found |= {name: leaf.shape[::-1] for name, leaf in quantized.items()}
    if misfits := _misfits(config, found, shapes):
        raise UserError(
            f"{folder}: the weights do not fit {CONFIG}: {some(misfits)}. Export the model again, "
            "or bring it in with launch.import_torch."
        )
    return config, parameters(tensors, paths, kept, quantized)


def _misfits(config, found, shapes):
    expected = {
        torch_name(config, path): shape[::-1] if transposed(path) else shape
        for path, shape in shapes.items()
    }
    return (
        [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
        + [f"{name} is not of this model" for name in sorted(found.keys() - expected.keys())]
        + [
            f"{name} has shape {found[name]}, not {shape}"
            for name, shape in expected.items()
            if found.get(name, shape) != shape
        ]
    )

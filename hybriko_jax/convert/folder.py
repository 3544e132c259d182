"""A model as a folder: config.json, model.safetensors, tokenizer.model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hybriko_jax.config import HybriKoConfig
from hybriko_jax.convert.config import from_transformers, to_transformers
from hybriko_jax.convert.hybriko import our_shapes, parameters, to_torch, torch_name, transposed
from hybriko_jax.convert.weights import Tensor, read_weights, some, write_weights
from hybriko_jax.errors import UserError
from hybriko_jax.tokenizer import SentencePiece, Tokenizer

CONFIG, TOKENIZER = "config.json", "tokenizer.model"
SHARD_BYTES = 5_000_000_000


def save_folder(
    folder: Path,
    config: HybriKoConfig,
    params: Any,
    tokenizer: Tokenizer,
    dtype: str,
    shard_bytes: int = SHARD_BYTES,
) -> dict[str, Tensor]:
    """Writes a model into a folder that is there.

    Args:
      params: arrays in float32.
      dtype: "float32", "bfloat16" or "float16".
      shard_bytes: see `write_weights`.

    Returns:
      What was written.
    """
    tensors = to_torch(params, dtype)
    write_weights(folder, tensors, shard_bytes)
    described = to_transformers(config) | {
        "dtype": dtype,
        "pad_token_id": tokenizer.pad_id,
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
    }
    (folder / CONFIG).write_text(json.dumps(described, indent=2) + "\n")
    tokenizer.save(folder / TOKENIZER)
    return tensors


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


def read_config(path: Path) -> HybriKoConfig:
    """The model that a config.json describes.

    Raises:
      UserError: it cannot be read, or is of another model.
    """
    described = read_fields(path)
    try:
        return from_transformers(described)
    except UserError as e:
        raise UserError(f"{path}: {e}") from None


def load_folder(folder: Path) -> tuple[HybriKoConfig, Any, SentencePiece]:
    """A model's config, parameters (NumPy, float32) and tokenizer.

    Raises:
      UserError: a file is missing, damaged, or of another model.
    """
    config, tensors = read_config(folder / CONFIG), read_weights(folder)
    shapes = our_shapes(config)
    paths = {path: (torch_name(path), transposed(path)) for path in shapes}
    if misfits := _misfits({name: t.shape for name, t in tensors.items()}, shapes):
        raise UserError(
            f"{folder}: the weights do not fit {CONFIG}: {some(misfits)}. Export the model again, "
            "or bring it in with launch.import_torch."
        )
    return config, parameters(tensors, paths), SentencePiece(folder / TOKENIZER)


def _misfits(found, shapes):
    expected = {
        torch_name(path): shape[::-1] if transposed(path) else shape
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

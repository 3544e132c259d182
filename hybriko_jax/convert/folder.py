"""A model as a folder: config.json, model.safetensors, tokenizer.model."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import flax.traverse_util
import ml_dtypes
import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from hybriko_jax.config import HybriKoConfig, from_json
from hybriko_jax.convert.hybriko import from_torch_layout, to_torch_layout, torch_shapes
from hybriko_jax.errors import UserError
from hybriko_jax.tokenizer import SentencePiece, Tokenizer

WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.model"
MODEL_TYPE = "hybriko"


def save_folder(
    folder: Path, config: HybriKoConfig, params: Any, tokenizer: Tokenizer, dtype: str
) -> None:
    """Writes a model.

    Args:
      folder: must be new or empty.
      params: arrays in float32.
      dtype: "float32" or "bfloat16". The decay of the RG-LRU is float32 always: in bfloat16 its
        distance from one, which is its memory, would be off by up to 1.5 %.

    Raises:
      UserError: the folder holds something.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty. Give a new folder.")
    folder.mkdir(parents=True, exist_ok=True)
    stored = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}[dtype]
    paths = flax.traverse_util.flatten_dict(params, sep="/")
    tensors = {
        name: tensor.astype(np.float32 if name.endswith(".lam") else stored)
        for name, tensor in to_torch_layout(
            {path: np.asarray(p) for path, p in paths.items()}
        ).items()
    }
    # save_file would make the file readable by its owner only.
    (folder / WEIGHTS).write_bytes(safetensors.numpy.save(tensors, metadata={"format": "pt"}))
    described = {"model_type": MODEL_TYPE, "torch_dtype": dtype} | {
        f.name: getattr(config, f.name)
        for f in dataclasses.fields(config)
        if not f.metadata.get("compute")
    }
    (folder / CONFIG).write_text(json.dumps(described, indent=2) + "\n")
    tokenizer.save(folder / TOKENIZER)


def load_folder(folder: Path) -> tuple[HybriKoConfig, Any, SentencePiece]:
    """A model's config, parameters (NumPy, float32) and tokenizer.

    Raises:
      UserError: a file is missing, damaged, or of another model.
    """
    try:
        described = json.loads((folder / CONFIG).read_text())
        tensors = safetensors.numpy.load_file(folder / WEIGHTS)
        (folder / TOKENIZER).stat()
    except (OSError, ValueError, SafetensorError) as e:
        raise UserError(f"{folder} is not a model that can be read ({e}).") from None
    if not isinstance(described, dict) or described.pop("model_type", None) != MODEL_TYPE:
        raise UserError(f"{folder / CONFIG}: model_type is not {MODEL_TYPE!r}.")
    described.pop("torch_dtype", None)
    config = from_json(HybriKoConfig, json.dumps(described))
    if misfits := _misfits({n: t.shape for n, t in tensors.items()}, torch_shapes(config)):
        more = f" and {len(misfits) - 5} more" if len(misfits) > 5 else ""
        raise UserError(
            f"{folder / WEIGHTS} does not fit {CONFIG}: {', '.join(misfits[:5])}{more}. Export the "
            "model again, or copy the folder anew."
        )
    ours = {path: t.astype(np.float32) for path, t in from_torch_layout(tensors).items()}
    params = flax.traverse_util.unflatten_dict(ours, sep="/")
    return config, params, SentencePiece(folder / TOKENIZER)


def _misfits(found, expected):
    return (
        [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
        + [f"{name} is not of this model" for name in sorted(found.keys() - expected.keys())]
        + [
            f"{name} has shape {found[name]}, not {shape}"
            for name, shape in expected.items()
            if found.get(name, shape) != shape
        ]
    )

"""An export proves itself: what was written is read again, and runs."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from hybriko_jax.convert.weights import Tensor, read_weights, some
from hybriko_jax.errors import UserError

MANIFEST = "manifest.json"
_LENGTH = 64  # tokens of the rows that both models read


def prove_written(source: Path, tensors: Mapping[str, Tensor]) -> None:
    """Reads weights again and compares them with what they were made of, bit for bit.

    Raises:
      UserError: something differs.
    """
    found = read_weights(source)
    wrong = sorted(set(found) ^ set(tensors))
    for name in set(found) & set(tensors):
        written, meant = found[name].make(), np.ascontiguousarray(tensors[name].make())
        if written.dtype != meant.dtype or written.shape != meant.shape:
            wrong.append(name)
        elif not np.array_equal(written.view(np.uint8), meant.view(np.uint8)):
            wrong.append(name)
    if wrong:
        raise UserError(f"{source}: what was written is not what was meant: {some(wrong)}.")


def write_manifest(folder: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Writes the number of parameters, `facts`, and the SHA-256 of every file of a folder."""
    digests = {}
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        with path.open("rb") as file:
            digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    count = sum(t.size for t in tensors.values())
    content = {"parameters": count, **facts, "sha256": digests}
    (folder / MANIFEST).write_text(json.dumps(content, indent=2) + "\n")


def can_run_torch(package: str) -> bool:
    """Whether PyTorch and a package are there to run what was exported."""
    return all(importlib.util.find_spec(name) for name in ("torch", package))


def logits_of_transformers(folder: Path, tokens_BL: np.ndarray) -> np.ndarray:
    """float32 logits_BLV of a transformers folder, by the code in it."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, trust_remote_code=True, dtype=torch.float32, local_files_only=True
    )
    with torch.inference_mode():
        return model.eval()(torch.from_numpy(tokens_BL)).logits.numpy()


def logits_of_published(folder: Path, tokens_BL: np.ndarray) -> np.ndarray:
    """float32 logits_BLV of a folder in the published layout, by the code in it."""
    import torch

    config = json.loads((folder / "config.json").read_text())
    sys.path.insert(0, str(folder))
    try:
        names = ("configuration_hybridko", "modeling_hybridko")
        for name in names:
            sys.modules.pop(name, None)
        configuration, modeling = (importlib.import_module(name) for name in names)
    finally:
        sys.path.remove(str(folder))
    model = modeling.HybriKoModel(configuration.HybriKoConfig(**config))
    path = folder / "pytorch_model.pt"
    state = torch.load(path, map_location="cpu", weights_only=True)["model_state_dict"]
    model.load_state_dict({name: t.float() for name, t in state.items()})
    with torch.inference_mode():
        return model.eval()(torch.from_numpy(tokens_BL))["logits"].numpy()


def largest_difference(model: nn.Module, params: Any, logits: Any, folder: Path) -> float:
    """The largest difference between our logits and those of an exported folder, on random ids.

    Args:
      params: in the precision that was exported.
      logits: logits_of_transformers or logits_of_published.

    Raises:
      UserError: it is beyond 1e-4 of the size of the logits, or the code cannot be run.
    """
    rng = np.random.default_rng(0)
    tokens_BL = rng.integers(4, model.config.vocab_size, (2, _LENGTH))
    positions_BL = np.tile(np.arange(_LENGTH, dtype=np.int32), (2, 1))
    ours, _ = jax.jit(model.apply)({"params": params}, tokens_BL.astype(np.int32), positions_BL)
    theirs = logits(folder, tokens_BL)
    worst = float(np.abs(np.asarray(ours) - theirs).max())
    if not worst <= 1e-4 * max(1.0, float(np.abs(theirs).max())):
        raise UserError(
            f"The exported model computes other logits than ours (by {worst:.3g}): nothing was "
            "written."
        )
    return worst

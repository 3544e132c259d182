"""An export proves itself: what was written is read again, and runs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from hybriko_jax.convert.weights import Tensor, read_weights, some
from hybriko_jax.errors import UserError

MANIFEST = "manifest.json"
_LENGTH = 64  # tokens, at most, of the rows that both models read


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


def write_manifest(folder: Path, parameters: int, facts: Mapping[str, Any]) -> None:
    """Writes the number of parameters, `facts`, and the SHA-256 of every file of a folder."""
    digests = {}
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        with path.open("rb") as file:
            digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    content = {"parameters": parameters, **facts, "sha256": digests}
    (folder / MANIFEST).write_text(json.dumps(content, indent=2) + "\n")


def logits_of_export(folder: Path, tokens_BL: np.ndarray) -> np.ndarray:
    """float32 logits_BLV of an exported folder, by PyTorch and the code in it.

    They are computed in a process of its own: what fails there fails nothing here, and the copy of
    the code that transformers keeps is gone with it.

    Raises:
      UserError: the code cannot be run.
    """
    with tempfile.TemporaryDirectory() as aside:
        tokens, logits = Path(aside, "tokens.npy"), Path(aside, "logits.npy")
        np.save(tokens, tokens_BL)
        settings = {
            "HF_MODULES_CACHE": f"{aside}/modules",
            "PYTHONDONTWRITEBYTECODE": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        ran = subprocess.run(
            [sys.executable, "-m", "hybriko_jax.convert.torch_logits", folder, tokens, logits],
            env=os.environ | settings,
            capture_output=True,
            text=True,
            errors="replace",
        )
        if ran.returncode:
            said = ran.stderr.strip().splitlines() or [f"status {ran.returncode}"]
            raise UserError(
                f"PyTorch cannot run what was exported ({said[-1][:300]}), so nothing was written. "
                "Mend its set-up (transformers 5.23 or newer), or give --no-verify."
            )
        return np.load(logits)


def largest_difference(model: nn.Module, params: Any, folder: Path) -> float:
    """The largest difference between our logits and those of an exported folder, on random ids.

    Args:
      params: in the precision that was exported.

    Raises:
      UserError: it is beyond 1e-4 of the size of the logits, or the code cannot be run.
    """
    rng = np.random.default_rng(0)
    length = min(_LENGTH, model.config.max_seq_len)
    tokens_BL = rng.integers(4, model.config.vocab_size, (2, length))
    positions_BL = np.tile(np.arange(length, dtype=np.int32), (2, 1))
    ours, _ = jax.jit(model.apply)({"params": params}, tokens_BL.astype(np.int32), positions_BL)
    theirs = logits_of_export(folder, tokens_BL)
    worst = float(np.abs(np.asarray(ours) - theirs).max())
    if not worst <= 1e-4 * max(1.0, float(np.abs(theirs).max())):
        raise UserError(
            f"The exported model computes other logits than ours (by {worst:.3g}): nothing was "
            "written."
        )
    return worst

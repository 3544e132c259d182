"""Runs the code of an exported folder, in a process without JAX; see `proof.logits_of_export`."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch


def main(folder: Path, tokens: Path, logits: Path) -> None:
    """Writes the float32 logits_BLV of tokens_BL, both .npy."""
    is_published = (folder / "modeling_hybridko.py").exists()
    model = _published(folder) if is_published else _transformers(folder)
    with torch.inference_mode():
        said = model.eval()(torch.from_numpy(np.load(tokens)))
    np.save(logits, said["logits"].numpy())


def _transformers(folder: Path) -> Any:
    import transformers

    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        folder, trust_remote_code=True, dtype=torch.float32, local_files_only=True
    )
    for module in model.modules():
        if state := getattr(getattr(module, "weight", None), "quant_state", None):
            # NF4 in float32, whatever the folder asks for, and by no kernel that rounds in between.
            module.compute_dtype = state.dtype = torch.float32
            module.support_avx512bf16_for_cpu = False
    for p in model.parameters():
        # Beside NF4, transformers leaves weights in the type of the file.
        p.data = p.data.float() if p.is_floating_point() else p.data
    return model


def _published(folder: Path) -> Any:
    sys.path.insert(0, str(folder))
    configuration: Any = importlib.import_module("configuration_hybridko")
    modeling: Any = importlib.import_module("modeling_hybridko")
    config = json.loads((folder / "config.json").read_text())
    model = modeling.HybriKoModel(configuration.HybriKoConfig(**config))
    state = torch.load(folder / "pytorch_model.pt", map_location="cpu", weights_only=True)
    model.load_state_dict({name: t.float() for name, t in state["model_state_dict"].items()})
    return model


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

"""The layout in which HybriKo was published: pytorch_model.pt and plain PyTorch code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from hybriko_jax.config import HybriKoConfig, ModelConfig
from hybriko_jax.convert.config import PUBLISHED
from hybriko_jax.convert.parameters import to_torch
from hybriko_jax.convert.weights import Tensor, write_pt
from hybriko_jax.errors import UserError
from hybriko_jax.tokenizer import SentencePiece, Tokenizer

WEIGHTS, TOKENIZER = "pytorch_model.pt", "HybriKo_tok.model"
CODE = ("configuration_hybridko.py", "modeling_hybridko.py")


def save_published(
    folder: Path, config: ModelConfig, params: Any, tokenizer: Tokenizer, dtype: str
) -> dict[str, Tensor]:
    """Writes a model into a folder that is there; see `folder.save_folder`.

    Raises:
      UserError: the model is none that the published config can describe.
    """
    if not isinstance(config, HybriKoConfig):
        raise UserError("The published layout is HybriKo's. Give --format transformers.")
    if not isinstance(tokenizer, SentencePiece):
        raise UserError("The published layout has no tokenizer.json. Give --format transformers.")
    described = {name: getattr(config, name) for name in PUBLISHED}
    plain = HybriKoConfig(**described, dtype=config.dtype, remat=config.remat)
    other = [
        f"{name}={getattr(config, name)}"
        for name in ("activation", "attention_window", "conv_width", "logits_soft_cap", "norm_eps")
        + ("rope_theta", "tie_embeddings", "layer_types")
        if getattr(config, name) != getattr(plain, name)
    ]
    if other:
        raise UserError(
            f"The published layout has no {', '.join(other)}. Give --format transformers."
        )
    theirs = to_torch(config, params, dtype)
    tensors = {name.removeprefix("model."): t for name, t in theirs.items()}
    write_pt(folder / WEIGHTS, tensors)
    (folder / "config.json").write_text(json.dumps(described, indent=2) + "\n")
    tokenizer.save(folder / TOKENIZER)
    for name in CODE:
        shutil.copyfile(Path(__file__).parent / "pytorch" / name, folder / name)
    return tensors

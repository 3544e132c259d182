"""Models to use or to go on from: runs, folders, names on the Hub, and adapters."""

from __future__ import annotations

import dataclasses
import site
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybriko_jax.config import LoRAConfig, ModelConfig, RunConfig, from_json
from hybriko_jax.errors import UserError

if TYPE_CHECKING:
    from hybriko_jax.convert.parameters import Kept
    from hybriko_jax.tokenizer import Tokenizer

SYSTEM_PROMPT = "system_prompt.txt"  # in a run's workdir, and in a model's folder


def shipped(name: str) -> Path:
    """The folder of a model that ships: of the checkout, or where pip has put it."""
    bases = (sys.prefix, site.getuserbase())
    places = [Path(__file__).parents[2], *(Path(b, "share", "hybriko_jax") for b in bases)]
    folders = [place / "checkpoints" / name for place in places]
    return next((f for f in folders if (f / "config.json").is_file()), folders[0])


@dataclass(frozen=True)
class Loaded:
    """A model to use: `config` and `params` make it, `tokenizer` speaks to it."""

    config: ModelConfig
    params: Any
    tokenizer: Tokenizer
    system: str = ""
    """The system prompt that the model was tuned with."""


def checkpoint(path: Path, dtype: str = "float32", kept: Kept = "float32") -> Loaded:
    """The newest weights of a run's workdir, or a model's folder; NumPy arrays.

    A run that trained an adapter gives its base with the adapter merged in.

    Args:
      path: the workdir or folder.
      dtype: of the operands of matrix products; float32 is the faster on a CPU at one row.
      kept: how a folder's weights are held; see `convert.parameters.parameters`.

    Raises:
      UserError: the path holds no model.
    """
    from hybriko_jax.convert.folder import load_folder
    from hybriko_jax.convert.weights import has_weights

    if has_weights(path):
        config, params, tokenizer = load_folder(path, kept)
    else:
        from hybriko_jax.convert.parameters import in_int8

        # What an adapter changes is quantised after it is merged.
        config, params, tokenizer = _trained(path, dtype, "float32" if kept == "int8" else kept)
        params = in_int8(params) if kept == "int8" else params
    prompt = path / SYSTEM_PROMPT
    system = prompt.read_text("utf-8", errors="replace") if prompt.exists() else ""
    return Loaded(dataclasses.replace(config, dtype=dtype, remat=False), params, tokenizer, system)


def _trained(path: Path, dtype: str, kept: Kept) -> tuple[ModelConfig, Any, Tokenizer]:
    # Orbax takes a second to import, which a model's folder does not need.
    from hybriko_jax.lora import merge
    from hybriko_jax.tokenizer import load_tokenizer
    from hybriko_jax.training.checkpoint import latest_step, restore_params

    step = latest_step(path / "checkpoints")
    if not step:
        raise UserError(
            f"{path} holds no model. Give the workdir of a run (with checkpoints/) or a model's "
            "folder (with model.safetensors)."
        )
    run = run_config(path)
    if not run.lora:
        return run.model, restore_params(step), load_tokenizer(path)
    base = checkpoint(find(run.lora.base), dtype, kept)
    return base.config, merge(base.params, adapter(path, base.config)[0]), base.tokenizer


def run_config(workdir: Path) -> RunConfig:
    """The config that a run has saved in its workdir.

    Raises:
      UserError: there is none, or it is damaged.
    """
    if not (workdir / "checkpoints").is_dir():
        raise UserError(f"{workdir} is no run's workdir: it has no checkpoints/.")
    try:
        return from_json(RunConfig, (workdir / "config.json").read_text())
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"{workdir}/config.json cannot be read ({e}). Give a run.") from None


def adapter(path: Path, model: ModelConfig) -> tuple[Any, LoRAConfig]:
    """An adapter of a model: a LoRA run's newest, or a folder as PEFT writes it.

    Raises:
      UserError: the path holds none, or one of another base.
    """
    from hybriko_jax.convert import peft
    from hybriko_jax.lora import from_factors
    from hybriko_jax.training.checkpoint import latest_step, restore_params

    if (path / peft.CONFIG).exists():
        return peft.load_adapter(path, model)
    step = latest_step(path / "checkpoints")
    lora = run_config(path).lora if step else None
    if step is None or lora is None:
        raise UserError(
            f"{path} holds no adapter. Give the workdir of launch.lora, or a folder with "
            f"{peft.CONFIG}."
        )
    return from_factors(restore_params(step), lora), lora


def find(name: str) -> Path:
    """A local path; or where the Hugging Face Hub's model of this name lies once it is fetched.

    Raises:
      UserError: it is neither.
    """
    if Path(name).exists():
        return Path(name)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise UserError(f"{name} is not there. Give a folder, or OWNER/NAME of a model on the Hub.")
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.safetensors", "tokenizer.model"]
    try:
        folder = Path(snapshot_download(name, allow_patterns=wanted))
        if not any(folder.glob("*.safetensors")):
            snapshot_download(name, allow_patterns=["*.bin"])
    except Exception as e:  # whatever the network or the Hub says
        reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise UserError(
            f"{name} is no local folder, and could not be had from the Hugging Face Hub "
            f"({reason[:150]}). A folder in the format of transformers works too: --base FOLDER."
        ) from None
    return folder

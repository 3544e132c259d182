"""Export a model: python -m launch.export --checkpoint RUN --format transformers --out FOLDER."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hybriko_jax.errors import UserError
from hybriko_jax.files import new_folder
from launch import common, load


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Write a model as a folder: for this project, for transformers, or as HybriKo was published.

    Every export is read again and compared bit by bit; with PyTorch at hand the exported code is
    run and its logits are compared with ours. One that fails leaves nothing behind.
    """

    checkpoint: Path
    """A run's workdir, or a model's folder."""
    out: Path
    """A new folder."""
    format: Literal["hybriko", "transformers", "hybridko", "peft"] = "hybriko"
    """hybriko: config, weights and tokenizer alone. transformers: with PyTorch code, tokenizer.json
    and a card. hybridko: the published layout, pytorch_model.pt. peft: only the adapter that a run
    has trained."""
    merge: bool = False
    """The base with the adapter that a run has trained, in the format of transformers."""
    dtype: Literal["bfloat16", "float32", "float16"] = "bfloat16"
    max_shard_size: str = "5GB"
    """Larger weights are split over files of at most this size."""
    verify: bool = True
    """Run the exported code and compare logits, where PyTorch is installed."""
    overwrite: bool = False
    """Replace an earlier export."""


def main() -> None:
    common.prepare_cpu(1)
    arguments = common.parse(Arguments, command="launch.export")
    if arguments.merge and arguments.format not in ("hybriko", "transformers"):
        raise UserError(f"--merge writes the format transformers, not {arguments.format}.")
    if arguments.merge:
        arguments = dataclasses.replace(arguments, format="transformers")
    if arguments.format == "peft":
        export_adapter(arguments)
    else:
        export(arguments)


def export_adapter(arguments: Arguments) -> None:
    """Writes the adapter of a run, for PEFT."""
    from hybriko_jax.convert import peft, proof
    from hybriko_jax.training.state import param_count

    run = load.run_config(arguments.checkpoint)
    adapter, _ = load.adapter(arguments.checkpoint, run.model)
    lora = run.lora
    if lora is None:
        raise UserError(f"{arguments.checkpoint} trained no adapter. Give --format transformers.")
    with new_folder(arguments.out, proof.MANIFEST if arguments.overwrite else "") as folder:
        tensors = peft.save_adapter(folder, run.model, adapter, lora)
        proof.prove_written(folder / peft.WEIGHTS, tensors)
        proof.write_manifest(folder, tensors, {"format": "peft", "dtype": "float32"})
    print(f"{param_count(adapter):,} parameters of an adapter of {lora.base}: {arguments.out}")


def export(arguments: Arguments) -> None:
    """Writes a whole model; the adapter that a run has trained is merged in."""
    shard_bytes = parse_size(arguments.max_shard_size)

    from hybriko_jax.convert import proof
    from hybriko_jax.convert.folder import save_folder
    from hybriko_jax.convert.parameters import rounded
    from hybriko_jax.convert.published import WEIGHTS, save_published
    from hybriko_jax.convert.transformers_folder import save_transformers
    from hybriko_jax.models import build
    from hybriko_jax.training.state import param_count

    verify = can_verify(arguments)
    if arguments.merge and load.run_config(arguments.checkpoint).lora is None:
        raise UserError(f"{arguments.checkpoint} trained no adapter that could be merged.")
    loaded = load.checkpoint(arguments.checkpoint)
    what = (loaded.config, loaded.params, loaded.tokenizer, arguments.dtype)
    before = proof.MANIFEST if arguments.overwrite else ""
    with new_folder(arguments.out, before) as folder:
        if arguments.format == "hybridko":
            tensors = save_published(folder, *what)
        elif arguments.format == "transformers":
            card = arguments.checkpoint / "README.md"
            text = card.read_text("utf-8", errors="replace") if card.is_file() else ""
            tensors = save_transformers(folder, *what, shard_bytes, text)
        else:
            tensors = save_folder(folder, *what, shard_bytes)
        if loaded.system:
            (folder / load.SYSTEM_PROMPT).write_text(loaded.system, "utf-8")
        written = folder / WEIGHTS if arguments.format == "hybridko" else folder
        proof.prove_written(written, tensors)
        facts = {"format": arguments.format, "dtype": arguments.dtype}
        if verify:
            run = {
                "transformers": proof.logits_of_transformers,
                "hybridko": proof.logits_of_published,
            }[arguments.format]
            params = rounded(loaded.config, loaded.params, arguments.dtype)
            worst = proof.largest_difference(build(loaded.config), params, run, folder)
            facts["largest_logit_difference"] = f"{worst:.3g}"
            print(f"largest difference of a logit from ours: {worst:.3g}")
        proof.write_manifest(folder, tensors, facts)
    print(f"{param_count(loaded.params):,} parameters in {arguments.dtype}: {arguments.out}")


def can_verify(arguments: Arguments) -> bool:
    """Whether the exported code shall be run and can be."""
    from hybriko_jax.convert.proof import can_run_torch

    needs = {"transformers": "transformers", "hybridko": "torch"}.get(arguments.format)
    if needs is None or not arguments.verify:
        return False
    if not can_run_torch(needs):
        print(f"{needs} is not installed: the exported code was not run.")
        return False
    return True


def parse_size(text: str) -> int:
    """Bytes of "5GB" or "200MB".

    Raises:
      UserError: it is none of that kind.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s?([KMG])B", text.strip(), re.IGNORECASE)
    if not match or not float(match[1]):
        raise UserError(f"--max-shard-size {text}: give a size such as 5GB or 200MB.")
    return int(float(match[1]) * {"K": 1e3, "M": 1e6, "G": 1e9}[match[2].upper()])


if __name__ == "__main__":
    common.run(main)

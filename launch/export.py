"""Export a model: python -m launch.export --checkpoint RUN --format transformers --out FOLDER."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hybriko_jax.config import GPTNeoXConfig
from hybriko_jax.console import load
from hybriko_jax.errors import UserError
from hybriko_jax.files import new_folder
from launch import common


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
    quantize: Literal["nf4"] | None = None
    """Keep the matrices of a GPT-NeoX's layers in 4 bits, as bitsandbytes does, in the format of
    transformers."""
    dtype: Literal["bfloat16", "float32", "float16"] = "bfloat16"
    max_shard_size: str = "5GB"
    """Larger weights are split over files of at most this size."""
    verify: bool = True
    """Refuse weights that are not finite; run the exported code and compare logits, where PyTorch
    is installed."""
    overwrite: bool = False
    """Replace an earlier export."""


def main() -> None:
    common.prepare_cpu(1)
    arguments = common.parse(Arguments, command="launch.export")
    common.end_in_order()
    for option in ("merge", "quantize"):
        if not getattr(arguments, option):
            continue
        if arguments.format not in ("hybriko", "transformers"):
            raise UserError(f"--{option} writes the format transformers, not {arguments.format}.")
        arguments = dataclasses.replace(arguments, format="transformers")
    shard_bytes = parse_size(arguments.max_shard_size)

    from hybriko_jax.convert.proof import MANIFEST

    with new_folder(arguments.out, MANIFEST if arguments.overwrite else "") as folder:
        if arguments.format == "peft":
            export_adapter(arguments, folder)
        else:
            export(arguments, folder, shard_bytes)


def export_adapter(arguments: Arguments, folder: Path) -> None:
    """Writes the adapter of a run, for PEFT, into a folder that is there."""
    from hybriko_jax.convert import peft, proof
    from hybriko_jax.training.state import param_count

    run = load.run_config(arguments.checkpoint)
    adapter, _ = load.adapter(arguments.checkpoint, run.model)
    lora = run.lora
    if lora is None:
        raise UserError(f"{arguments.checkpoint} trained no adapter. Give --format transformers.")
    check_finite(arguments, adapter)
    tensors = peft.save_adapter(folder, run.model, adapter, lora)
    proof.prove_written(folder / peft.WEIGHTS, tensors)
    n = param_count(adapter)
    proof.write_manifest(folder, n, {"format": "peft", "dtype": "float32"})
    print(f"{n:,} parameters of an adapter of {lora.base}: {arguments.out}")


def export(arguments: Arguments, folder: Path, shard_bytes: int) -> None:
    """Writes a whole model into a folder that is there; a trained adapter is merged in."""
    from hybriko_jax.convert import proof
    from hybriko_jax.convert.folder import save_folder
    from hybriko_jax.convert.parameters import quantized, rounded
    from hybriko_jax.convert.published import WEIGHTS, save_published
    from hybriko_jax.convert.transformers_folder import save_transformers
    from hybriko_jax.models import build
    from hybriko_jax.training.state import param_count

    verify = can_verify(arguments)
    if arguments.merge and load.run_config(arguments.checkpoint).lora is None:
        raise UserError(f"{arguments.checkpoint} trained no adapter that could be merged.")
    loaded = load.checkpoint(arguments.checkpoint)
    config, params, dtype = loaded.config, loaded.params, arguments.dtype
    check_finite(arguments, params)
    packed = arguments.quantize == "nf4"
    if packed:
        if not isinstance(config, GPTNeoXConfig):
            raise UserError("--quantize is for GPT-NeoX; HybriKo has no 4-bit code in PyTorch.")
        params = quantized(config, params, dtype)
    what = (config, params, loaded.tokenizer, dtype)
    if arguments.format == "hybridko":
        tensors = save_published(folder, *what)
    elif arguments.format == "transformers":
        card = arguments.checkpoint / "README.md"
        text = card.read_text("utf-8", errors="replace") if card.is_file() else ""
        tensors = save_transformers(folder, *what, shard_bytes, text, packed)
    else:
        tensors = save_folder(folder, *what, shard_bytes)
    if loaded.system:
        (folder / load.SYSTEM_PROMPT).write_text(loaded.system, "utf-8")
    proof.prove_written(folder / WEIGHTS if arguments.format == "hybridko" else folder, tensors)
    facts = {"format": arguments.format, "dtype": dtype}
    if packed:
        facts["quantize"] = "nf4"
    if verify:
        exported = rounded(config, params, dtype, packed)
        worst = proof.largest_difference(build(config), exported, folder)
        facts["largest_logit_difference"] = f"{worst:.3g}"
        print(f"largest difference of a logit from ours: {worst:.3g}")
    n = param_count(loaded.params)
    proof.write_manifest(folder, n, facts)
    print(f"{n:,} parameters in {arguments.quantize or dtype}: {arguments.out}")


def check_finite(arguments: Arguments, params: Any) -> None:
    """Refuses NaN and infinite weights, or warns of them where nothing is to be verified."""
    from hybriko_jax.convert.parameters import not_finite
    from hybriko_jax.convert.weights import some

    if broken := not_finite(params):
        said = f"{arguments.checkpoint} holds NaN or infinite weights, in {some(broken)}"
        if arguments.verify:
            raise UserError(
                f"{said}. Give other weights, or --no-verify to export them as they are."
            )
        print(f"warning: {said}")


def can_verify(arguments: Arguments) -> bool:
    """Whether the exported code shall be run and can be."""
    needs = {"transformers": ["torch", "transformers"], "hybridko": ["torch"]}
    wanted = needs.get(arguments.format, [])
    if arguments.quantize:
        wanted += ["bitsandbytes", "accelerate"]
    absent = [name for name in wanted if importlib.util.find_spec(name) is None]
    if absent and arguments.verify:
        print(f"{', '.join(absent)} is not installed: the exported code was not run.")
    return arguments.verify and bool(wanted) and not absent


def parse_size(text: str) -> int:
    """Bytes of "5GB" or "200MB".

    Raises:
      UserError: it is none of that kind.
    """
    match = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)\s?([KMG])B", text.strip(), re.IGNORECASE)
    if not match or not float(match[1]):
        raise UserError(f"--max-shard-size {text}: give a size such as 5GB or 200MB.")
    return int(float(match[1]) * {"K": 1e3, "M": 1e6, "G": 1e9}[match[2].upper()])


if __name__ == "__main__":
    common.run(main)

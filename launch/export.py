"""Export a model: python -m launch.export --checkpoint RUN --out FOLDER."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hybriko_jax.files import write_file
from launch import common


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Write a model as a folder of config.json, model.safetensors and tokenizer.model."""

    checkpoint: Path
    """A run's workdir, or a model's folder."""
    out: Path
    """A new folder."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"


def main() -> None:
    common.prepare_cpu(1)
    arguments = common.parse(Arguments, command="launch.export")

    from hybriko_jax.convert.folder import save_folder
    from hybriko_jax.training.state import param_count

    loaded = common.load_checkpoint(arguments.checkpoint)
    save_folder(arguments.out, loaded.config, loaded.params, loaded.tokenizer, arguments.dtype)
    if loaded.system:
        write_file(arguments.out / common.SYSTEM_PROMPT, loaded.system)
    print(f"{param_count(loaded.params):,} parameters in {arguments.dtype}: {arguments.out}")


if __name__ == "__main__":
    common.run(main)

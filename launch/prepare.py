"""Prepare data once: python -m launch.prepare --tokenizer.path MODEL --data.source FILES."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hybriko_jax.config import DataConfig, TokenizerConfig
from hybriko_jax.errors import UserError
from launch import common


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Tokenize sources into a local TFDS dataset, which pretraining then reuses."""

    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)


def main() -> None:
    arguments = common.parse(Arguments, command="launch.prepare")

    from hybriko_jax.data.prepare import prepare
    from hybriko_jax.tokenizer import SentencePiece

    if not arguments.tokenizer.path:
        raise UserError("--tokenizer.path is missing. Train one: python -m launch.train_tokenizer.")
    cache = Path(arguments.data.cache or "runs/data")
    common.make_directory(cache)
    with common.progress_line() as progress:
        prepared = prepare(arguments.data, SentencePiece(arguments.tokenizer.path), cache, progress)
    for split in (prepared.train, prepared.held_out):
        print(
            f"{split.name}: {len(split.length_N):,} documents, {split.length_N.sum():,} tokens, "
            f"{split.n_bytes / 1e6:,.1f} MB"
        )
    print(f"in {prepared.directory}; pretrain finds it with --data.cache {cache}")


if __name__ == "__main__":
    common.run(main)

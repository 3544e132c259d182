"""Train a tokenizer: python -m launch.train_tokenizer --data.source FILES --out tokenizer.model."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hybriko_jax.config import DataConfig, TokenizerConfig
from hybriko_jax.errors import UserError
from launch import common


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train a SentencePiece unigram tokenizer that spells every text exactly."""

    out: Path
    """Where the model is written."""
    vocab_size: int = 32_000
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)


def main() -> None:
    arguments = common.parse(Arguments, command="launch.train_tokenizer")

    from hybriko_jax.data.prepare import train_tokenizer
    from hybriko_jax.data.sources import BadLines

    if arguments.out.exists():
        raise UserError(f"{arguments.out} exists. Give another --out.")
    common.make_directory(arguments.out.absolute().parent)
    data, bad = arguments.data, BadLines(arguments.data.on_bad_line)
    with common.progress_line() as progress:
        tokenizer = train_tokenizer(data, arguments.tokenizer, arguments.vocab_size, progress, bad)
    bad.report()
    tokenizer.save(arguments.out)
    print(f"{tokenizer.vocab_size:,} pieces, digest {tokenizer.digest()}: {arguments.out}")


if __name__ == "__main__":
    common.run(main)

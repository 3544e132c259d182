"""Evaluate a model: python -m launch.evaluate perplexity --checkpoint C --data FILES."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from hybriko_jax.config import nearest
from hybriko_jax.errors import UserError
from launch import common


@dataclass(frozen=True, kw_only=True)
class Perplexity:
    """Nats per token and bits per byte of text files, exact over the whole of each."""

    checkpoint: Path
    """A run's workdir, or a model's folder."""
    data: tuple[str, ...]
    """Sources, as --data.source of launch.pretrain takes them; text files to their last byte."""
    text_field: str = "text"
    json: Path | None = None
    """Also write the figures to this file."""


def main() -> None:
    if not common.accelerator():
        common.prepare_cpu(1)
    kind = sys.argv[1] if len(sys.argv) > 1 else ""
    if kind in ("-h", "--help"):
        print(f"usage: python -m launch.evaluate {{{','.join(EVALUATIONS)}}} [--help] ...")
        return
    if kind not in EVALUATIONS:
        raise UserError(
            f"launch.evaluate {kind}: there is no such evaluation.{nearest(kind, EVALUATIONS)}"
        )
    settings, evaluate = EVALUATIONS[kind]
    evaluate(common.parse(settings, command=f"launch.evaluate {kind}", arguments=sys.argv[2:]))


def evaluate_perplexity(arguments: Perplexity) -> None:
    from hybriko_jax.data.sources import BadLines, documents
    from hybriko_jax.evaluate.perplexity import perplexity
    from hybriko_jax.models import build

    loaded = common.load_checkpoint(arguments.checkpoint)
    figures = {}
    for source in arguments.data:
        bad = BadLines("skip")
        texts = documents(source, arguments.text_field, bad, whole=True)
        result = perplexity(build(loaded.config), loaded.params, loaded.tokenizer, texts)
        bad.report()
        figures[source] = {
            "documents": result.documents,
            "bytes": result.bytes,
            "tokens": result.tokens,
            "nats_per_token": result.nats_per_token,
            "bits_per_byte": result.bits_per_byte,
        }
        print(source)
        for name, value in figures[source].items():
            text = f"{value:,.4f}" if isinstance(value, float) else f"{value:,}"
            print(f"  {name:<16}{text:>14}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")


EVALUATIONS = {"perplexity": (Perplexity, evaluate_perplexity)}

if __name__ == "__main__":
    common.run(main)

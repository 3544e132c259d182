"""Evaluate a model.

python -m launch.evaluate perplexity --checkpoint C --data FILES
python -m launch.evaluate function-calling --checkpoint C --data SAMPLES.jsonl
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from hybriko_jax.config import nearest
from hybriko_jax.errors import UserError
from launch import common, load


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


@dataclass(frozen=True, kw_only=True)
class FunctionCalling:
    """Right actions and arguments of a model's calls, with grounded decoding and without."""

    checkpoint: Path
    """A run's workdir, or a model's folder."""
    data: Path
    """JSONL: lines of launch.synthesize, {"id", "query", "action", "arguments"}, or dialogues."""
    grounded: bool = True
    """Which predictions --out gets; the report has both, side by side."""
    out: Path | None = None
    """Write {"id", "action", "arguments"} of every prediction to this JSONL file."""
    batch_size: int = 32
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

    loaded = load.checkpoint(arguments.checkpoint)
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


def evaluate_function_calling(arguments: FunctionCalling) -> None:
    from rich.console import Console
    from rich.table import Table

    from hybriko_jax.evaluate import function_calling as fc
    from hybriko_jax.models import build

    for file in (arguments.out, arguments.json):
        if file:
            common.make_directory(file.absolute().parent)
    asked = fc.read_questions(arguments.data)
    loaded = load.checkpoint(arguments.checkpoint)
    model = build(loaded.config)
    scores: dict[str, dict[str, fc.Score]] = {}
    for grounded in (True, False):
        how = "grounded" if grounded else "not grounded"
        predictions = []
        for prediction in fc.predict(
            model,
            loaded.params,
            loaded.tokenizer,
            asked,
            system=loaded.system,
            grounded=grounded,
            batch_size=arguments.batch_size,
        ):
            predictions.append(prediction)
            if len(predictions) % (8 * arguments.batch_size) == 0:
                print(f"{how}: {len(predictions):,} of {len(asked):,}", file=sys.stderr)
        scores[how] = fc.score(asked, predictions)
        if arguments.out and grounded == arguments.grounded:
            lines = [
                {"id": p.id, "action": p.action, "arguments": p.arguments} for p in predictions
            ]
            arguments.out.write_text(
                "".join(json.dumps(x, ensure_ascii=False) + "\n" for x in lines)
            )
    loss = fc.evaluation_loss(model, loaded.params, loaded.tokenizer, asked, loaded.system)
    figures = {
        name: {how: by_name[name].rates() for how, by_name in scores.items()}
        for name in scores["grounded"]
    }
    table = Table("", "asked", "", *figures["all"]["grounded"])
    for name, by_way in figures.items():
        for how, rates in by_way.items():
            cells = [f"{p:.1%} ({low:.1%} to {high:.1%})" for p, low, high in rates.values()]
            table.add_row(name, f"{scores[how][name].asked:,}", how, *cells)
    Console(width=max(Console().width, 150)).print(table)
    print(f"evaluation loss {loss:.4f} nats per token of the right answers")
    if arguments.json:
        report = {"loss": loss, "scores": figures}
        arguments.json.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")


EVALUATIONS = {
    "perplexity": (Perplexity, evaluate_perplexity),
    "function-calling": (FunctionCalling, evaluate_function_calling),
}

if __name__ == "__main__":
    common.run(main)

"""Evaluate a model.

python -m launch.evaluate perplexity --checkpoint C --data FILES
python -m launch.evaluate function-calling --checkpoint C --data SAMPLES.jsonl
python -m launch.evaluate translation --checkpoint C --data PAIRS.tsv
"""

from __future__ import annotations

import functools
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hybriko_jax.config import nearest
from hybriko_jax.console import load
from hybriko_jax.errors import UserError
from hybriko_jax.files import write_file
from launch import common

if TYPE_CHECKING:
    from hybriko_jax.data.pairs import Pair
    from hybriko_jax.evaluate.translation import Evaluation, Translate

MOST_LABELS = 30  # that figures are given for


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


@dataclass(frozen=True, kw_only=True)
class Translation:
    """BLEU and chrF of a translator, beside what copying and shuffled references reach."""

    checkpoint: str
    """A run's workdir, a model's folder, or OWNER/NAME on the Hugging Face Hub."""
    data: tuple[str, ...]
    """Pairs of texts, as --data of launch.lora takes them."""
    base: str | None = None
    """A second model to set beside it, as the one before tuning."""
    directions: str = "both"
    """both, or one: en-ko, ko-en."""
    languages: tuple[str, str] = ("ko", "en")
    """Of the two texts: ko, en, ja."""
    columns: dict[str, str] = field(default_factory=dict)
    """Columns by language (ko 원문 en 번역문; by number, ko 2 en 1), where they have other than the
    usual names."""
    by: str | None = None
    """Also figures for each value of this column: its name, or in a table its number. Without it,
    for each of several --data."""
    limit: int | None = None
    """At most so many pairs, spread evenly over all."""
    beams: int = 5
    batch_size: int = 16
    """Sentences that are translated at once."""
    precision: Literal["float32", "bfloat16", "nf4", "int8"] = "float32"
    """How the weights are kept; int8 is the fast way for a large model on a CPU."""
    html: Path | None = None
    """Write all texts side by side to this page, the worst first."""
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
        write_file(arguments.json, json.dumps(figures, indent=2, ensure_ascii=False) + "\n")


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
        write_file(arguments.json, json.dumps(report, indent=2, ensure_ascii=False) + "\n")


def evaluate_translation(arguments: Translation) -> None:
    from hybriko_jax.evaluate import translation as t
    from hybriko_jax.evaluate.translation_report import page

    ways = t.directions(arguments.directions, arguments.languages)
    for name in ("limit", "beams", "batch_size"):
        if (n := getattr(arguments, name)) is not None and n < 1:
            raise UserError(f"--{name.replace('_', '-')} {n}: give at least 1.")
    if not arguments.data:
        raise UserError("--data names nothing. Give a source of pairs.")
    for _, target in ways:
        t.metrics(target)  # sacrebleu is there
    for file in (arguments.html, arguments.json):
        if file:
            common.make_directory(file.absolute().parent)
            if file.is_dir():
                raise UserError(f"{file} is a folder. Give a file.")
    pairs = _labelled_pairs(arguments)
    pairs = t.spread(pairs, arguments.limit or len(pairs))
    asked = {way: t.directed(pairs, arguments.languages, way[0]) for way in ways}

    names = {"model": arguments.checkpoint} | ({"base": arguments.base} if arguments.base else {})
    dtype = "float32" if arguments.precision in ("float32", "int8") else "bfloat16"
    # All at once, so that a damaged one is known before hours of translating.
    models = {
        name: load.checkpoint(load.find(path), dtype, arguments.precision)
        for name, path in names.items()
    }
    outputs = {way: {} for way in ways}
    for name in names:
        translate = _translate(models.pop(name), arguments)
        for source, target in ways:

            def progress(done, what=f"{name}, {source} to {target}"):
                print(f"{what}: {done:,} of {len(pairs):,}", file=sys.stderr)

            texts = [item.source for item in asked[source, target]]
            at_a_time = 8 * arguments.batch_size
            outputs[source, target][name] = t.translate_all(
                translate, texts, source, target, at_a_time, progress
            )
    found = [t.evaluate(asked[way], outputs[way], *way) for way in ways]
    _print_translation(found)
    if arguments.json:
        report = {"models": names, "data": arguments.data, "beams": arguments.beams}
        report["directions"] = [t.as_json(e) for e in found]
        write_file(arguments.json, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    if arguments.html:
        title = f"{arguments.checkpoint} on {', '.join(arguments.data)}"
        write_file(arguments.html, page(title, found))


def _labelled_pairs(arguments: Translation) -> list[tuple[Pair, str]]:
    from hybriko_jax.data.pairs import read_labelled_pairs, read_pairs
    from hybriko_jax.data.sources import BadLines

    bad, pairs = BadLines("skip"), []
    how = (arguments.languages, arguments.columns, bad)
    for source in arguments.data:
        if arguments.by:
            pairs += read_labelled_pairs(source, arguments.by, *how)
        else:
            pairs += [(pair, source) for pair in read_pairs(source, *how)]
    if bad.count:
        print(f"{bad.count:,} rows are left out, as {bad.first[0]}", file=sys.stderr)
    if arguments.by and (n := len({label for _, label in pairs})) > MOST_LABELS:
        raise UserError(
            f"--by {arguments.by}: the column has {n:,} different values, and figures are given "
            f"for at most {MOST_LABELS}. Give the column that tells where a pair comes from."
        )
    return pairs


def _translate(loaded: load.Loaded, arguments: Translation) -> Translate:
    import jax

    from hybriko_jax.decode.translate import Translator, translate
    from hybriko_jax.models import build

    params = jax.device_put(loaded.params)  # once, and not with every call
    translator = Translator(build(loaded.config), params, loaded.tokenizer)
    beams, batch_size = arguments.beams, arguments.batch_size
    return functools.partial(translate, translator, beams=beams, batch_size=batch_size)


def _print_translation(found: list[Evaluation]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from hybriko_jax.evaluate.translation import missing_tokenizers
    from hybriko_jax.evaluate.translation_report import (
        explanation,
        faults_shown,
        rows_of_scores,
    )

    for e in found:
        signatures = e.whole.signatures
        table = Table("", "sentences", "", *signatures, title=f"{e.source} to {e.target}")
        for row in rows_of_scores(e):
            table.add_row(*map(Text, row))
        Console(width=max(Console().width, 150)).print(table)
        for name, counts in e.faults.items():
            print(f"{name}: {faults_shown(counts, len(e.items))}")
        for metric, signature in signatures.items():
            print(f"{metric}: {signature}")
        for tokenizer in missing_tokenizers(e.target):
            extra = tokenizer.partition("-")[0]
            print(f"BLEU {tokenizer} is left out: pip install 'sacrebleu[{extra}]' brings it")
        print()
    print(explanation())


EVALUATIONS = {
    "perplexity": (Perplexity, evaluate_perplexity),
    "function-calling": (FunctionCalling, evaluate_function_calling),
    "translation": (Translation, evaluate_translation),
}

if __name__ == "__main__":
    common.run(main)

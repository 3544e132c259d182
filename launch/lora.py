"""Tune a translator by LoRA: python -m launch.lora --base MODEL --data PAIRS.tsv."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from hybriko_jax.config import LoRAConfig, RunConfig
from hybriko_jax.console import load
from hybriko_jax.errors import UserError
from launch import common, start

if TYPE_CHECKING:
    from jax.sharding import Mesh

SETTINGS = "lora.json"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is learned, besides how."""

    data: tuple[str, ...]
    """Pairs of texts: .tsv, .csv, .jsonl, .json, .parquet, .xlsx, or tfds:NAME."""
    languages: tuple[str, str] = ("ko", "en")
    """Of the two texts: ko, en, ja."""
    columns: dict[str, str] = field(default_factory=dict)
    """Columns by language (ko 원문 en 번역문), where they have other than the usual names."""
    held_out: str | None = None
    """Pairs to evaluate on. None keeps data.held_out of --data for it."""
    init_adapter: str | None = None
    """An adapter to go on from: a run of launch.lora, or a folder of PEFT."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Tune an adapter on pairs of texts that translate each other, in both directions."""

    config: str = "gugugo_v09"
    """A name in configs/."""
    base: str | None = None
    """A model's folder, a run's workdir, or OWNER/NAME on the Hugging Face Hub."""
    quantize: Literal["nf4", "none"] | None = None
    """Keep the base in 4 bits, or in bfloat16; None is as the config says."""
    mesh: str = "1"
    """Devices, as in launch.pretrain."""
    workdir: Path | None = None
    """Where everything is written. Default: runs/CONFIG. A run that it holds is continued."""
    settings: Annotated[Settings, tyro.conf.arg(name="")]
    run: Annotated[RunConfig, tyro.conf.arg(name="")] = field(default_factory=RunConfig)


def main() -> None:
    accelerator = start.devices()
    name = common.option("config") or "gugugo_v09"
    config = common.load_config(name)
    if config.lora is None:
        raise UserError(
            f"--config {name} trains all weights; launch.lora needs a config with lora."
        )
    settings = Settings(data=tyro.MISSING)
    default = Arguments(config=name, settings=settings, run=config)
    arguments = common.parse(Arguments, default, "launch.lora")
    common.start_jax(accelerator)
    with start.enough_memory():
        tune(arguments, start.mesh(arguments.mesh, arguments.run.train))


def tune(arguments: Arguments, mesh: Mesh) -> None:
    """Loads the base, tokenizes the pairs, trains the adapter, and reports."""
    from hybriko_jax.data.conversations import ConversationRows
    from hybriko_jax.data.translation import translations
    from hybriko_jax.prompts import translation_prompt

    workdir = arguments.workdir or Path("runs") / arguments.config
    settings = arguments.settings
    translation_prompt("", *settings.languages)  # refuses languages that have no name
    run, lora = arguments.run, _lora(arguments)
    training, unseen = _pairs(settings, run)
    base = load.checkpoint(load.find(lora.base), kept=lora.precision)
    dtype = "float32" if lora.precision == "float32" else "bfloat16"
    model = dataclasses.replace(base.config, dtype=dtype, remat=run.model.remat)
    config = dataclasses.replace(run, model=model, lora=lora)
    adapter = None
    if settings.init_adapter:
        adapter = start.adapter_to_go_on(Path(settings.init_adapter), model, lora)
    start.open_workdir(workdir, SETTINGS, settings, base.tokenizer, config)
    c, tokenizer = config.train, base.tokenizer

    def rows_of(pairs):
        found: Any = translations(tokenizer, pairs, settings.languages, c.seq_len)
        return ConversationRows(found, (1.0,), c.seq_len, c.seed, tokenizer.pad_id), found

    (rows, learned), (unseen_rows, _) = rows_of(training), rows_of(unseen)
    plan, tokens = rows.plan(0), learned.tokens
    if left_out := len(training) - len(tokens):
        common.say(f"{left_out:,} pairs are longer than a row of {c.seq_len} and left out")
    common.say(
        f"{len(tokens):,} pairs, {sum(map(len, tokens)):,} tokens; an epoch is {plan.n_rows:,} "
        f"rows, {plan.fill(c.seq_len):.2%} full"
    )
    frozen = [base.params]
    del base  # place_frozen frees it as it goes
    start.run(
        config,
        mesh,
        workdir,
        tokenizer,
        rows,
        unseen_rows,
        frozen=frozen,
        data_digest=learned.digest(),
        init_params=adapter,
    )


def _lora(arguments: Arguments) -> LoRAConfig:
    lora = arguments.run.lora
    if lora is None:
        raise UserError("launch.lora trains an adapter: the config needs lora.")
    if arguments.base:
        # Absolute, so that the run finds it from wherever it is used.
        path = Path(arguments.base)
        base = str(path.resolve()) if path.exists() else arguments.base
        lora = dataclasses.replace(lora, base=base)
    if arguments.quantize:
        precision = "nf4" if arguments.quantize == "nf4" else "bfloat16"
        lora = dataclasses.replace(lora, precision=precision)
    if not lora.base:
        raise UserError("--base is missing. Give a model's folder, or OWNER/NAME on the Hub.")
    return lora


def _pairs(settings: Settings, run: RunConfig):
    """The pairs to train on, and those to evaluate on."""
    from hybriko_jax.data.pairs import read_pairs
    from hybriko_jax.data.sources import BadLines
    from hybriko_jax.data.translation import split_pairs

    bad = BadLines(run.data.on_bad_line)

    def read(source):
        return read_pairs(source, settings.languages, settings.columns, bad)

    if not settings.data:
        raise UserError("--data is empty. Give a file of pairs: pairs.tsv.")
    pairs = [pair for source in settings.data for pair in read(source)]
    if settings.held_out:
        sides = pairs, read(settings.held_out)
    else:
        sides = split_pairs(pairs, run.data.held_out)
    bad.report()
    if not all(sides):
        raise UserError(
            f"{len(pairs)} pairs leave none to {'evaluate on' if sides[0] else 'train on'}. Give "
            "more, or --held-out FILE."
        )
    return sides


if __name__ == "__main__":
    common.run(main)

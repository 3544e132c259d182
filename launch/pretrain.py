"""Pretrain a model: python -m launch.pretrain --mesh 8 [--config NAME] [--data.source FILES]."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from hybriko_jax.config import RunConfig, model_differences, to_json
from hybriko_jax.console import load
from hybriko_jax.errors import UserError
from hybriko_jax.files import write_file
from launch import common, start

if TYPE_CHECKING:
    from jax.sharding import Mesh


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Pretrain a language model on text."""

    config: str
    """A name in configs/. The default is tiny without an accelerator, else hybriko_117m."""
    mesh: str = "1"
    """Devices: a number (FSDP over so many), or sizes by name: data=2,fsdp=2,tensor=2."""
    workdir: Path | None = None
    """Where everything is written. Default: runs/CONFIG."""
    resume: bool = True
    """Continue the run that the workdir holds."""
    init: Path | None = None
    """A run whose newest weights and tokenizer to start from."""
    describe: bool = False
    """Print sizes, FLOPs and memory, and exit."""
    profile: bool = False
    """Trace the 11th to 15th step of this run with the JAX profiler, into WORKDIR/profile."""
    peak_tflops: float | None = None
    """Peak of one device, which MFU is a share of. Known for A100 and H100."""
    run: Annotated[RunConfig, tyro.conf.arg(name="")] = field(default_factory=RunConfig)


def main() -> None:
    accelerator = start.devices()
    name = common.option("config") or ("hybriko_117m" if accelerator else "tiny")
    default = Arguments(config=name, run=common.load_config(name))
    arguments = common.parse(Arguments, default, "launch.pretrain")
    common.start_jax(accelerator)
    if not accelerator and not common.option("config"):
        common.say("No accelerator: the config is tiny (--config hybriko_117m overrides).")
    with start.enough_memory():
        mesh = start.mesh(arguments.mesh, arguments.run.train)
        (describe if arguments.describe else pretrain)(arguments, mesh)


def pretrain(arguments: Arguments, mesh: Mesh) -> None:
    """Prepares the data where that is not done yet, trains, and reports."""
    from hybriko_jax.data.loader import Rows

    config, workdir = arguments.run, arguments.workdir or Path("runs") / arguments.config
    init_params = _init_params(arguments.init, config.model, workdir)
    tokenizer = _open_workdir(arguments, config, workdir)
    common.say(to_json(config).rstrip())
    prepared = common.prepared_data(config, tokenizer, workdir)

    def rows(split, weights):
        found = Rows(split, weights, config.train.seq_len, config.train.seed, tokenizer.pad_id)
        if not found.plan(0).n_rows:
            raise UserError(f"data.weights={weights} leaves no document of the {split.name} split.")
        return found

    held_out = rows(prepared.held_out, ())
    train_rows = rows(prepared.train, config.data.weights)
    plan, lengths = train_rows.plan(0), prepared.train.length_N
    common.say(
        f"{len(lengths):,} documents, {lengths.sum():,} tokens; an epoch is {plan.n_rows:,} rows, "
        f"{plan.fill(config.train.seq_len):.2%} full"
    )
    start.run(
        config,
        mesh,
        workdir,
        tokenizer,
        train_rows,
        held_out,
        peak_tflops=arguments.peak_tflops,
        data_digest=prepared.digest,
        init_params=init_params,
        profile=arguments.profile,
    )


def _open_workdir(arguments, config, workdir):
    """The tokenizer of a run, new or the workdir's; the config is saved there."""
    from hybriko_jax.tokenizer import SentencePiece
    from hybriko_jax.training.processes import on_main_process

    path = workdir / "tokenizer.model"

    def open_it():
        common.make_directory(workdir)
        common.lock(workdir)
        saved = workdir / "config.json"
        if saved.exists():
            if not arguments.resume:
                raise UserError(f"{workdir} holds a run. Give another --workdir, or remove it.")
            start.check_same_run(workdir, config)
        given = arguments.init / "tokenizer.model" if arguments.init else config.tokenizer.path
        tokenizer = SentencePiece(given) if given else None
        if path.exists():
            old = SentencePiece(path)
            if tokenizer and tokenizer.digest() != old.digest():
                raise UserError(f"{given} is not the tokenizer of the run in {workdir}.")
            tokenizer = old
        tokenizer = tokenizer or common.new_tokenizer(config)
        if tokenizer.vocab_size != config.model.vocab_size:
            raise UserError(
                f"model.vocab_size={config.model.vocab_size}, but the tokenizer has "
                f"{tokenizer.vocab_size} pieces. Pass --model.vocab-size {tokenizer.vocab_size}."
            )
        if not path.exists():
            tokenizer.save(path)
        write_file(saved, to_json(config))

    on_main_process(open_it)
    return SentencePiece(path)


def _init_params(init, model, workdir):
    """The weights that a new run starts from, or None where none are given or needed."""
    from hybriko_jax.training.checkpoint import latest_step

    if not init or latest_step(workdir / "checkpoints"):
        return None
    loaded = load.checkpoint(init)
    if changed := model_differences(loaded.config, model):
        raise UserError(
            f"The weights of {init} are of another model: {'; '.join(changed)}. Give that model's "
            "values, or leave out --init."
        )
    start.refuse_quantized(loaded.params, init)
    return loaded.params


def describe(arguments: Arguments, mesh: Mesh) -> None:
    """Prints what a run would take, without reading data."""
    from hybriko_jax.models import build
    from hybriko_jax.training.describe import description

    config = arguments.run
    common.say(to_json(config).rstrip())
    common.say(description(config, build(config.model), mesh))


if __name__ == "__main__":
    common.run(main)

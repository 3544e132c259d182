"""Pretrain a model: python -m launch.pretrain --mesh 8 [--config NAME] [--data.source FILES]."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from hybriko_jax.config import RunConfig, from_json, model_differences, parse_mesh, to_json
from hybriko_jax.errors import UserError
from hybriko_jax.files import write_file
from launch import common


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
    """Trace steps 10 to 15 with the JAX profiler, into WORKDIR/profile."""
    peak_tflops: float | None = None
    """Peak of one device, which MFU is a share of. Known for A100 and H100."""
    run: Annotated[RunConfig, tyro.conf.arg(name="")] = field(default_factory=RunConfig)


def main() -> None:
    accelerator = common.accelerator()
    if not accelerator:
        sizes = parse_mesh(common.option("mesh") or "1")
        common.prepare_cpu(math.prod(sizes.values()))
    name = common.option("config")
    if name is None:
        name = "hybriko_117m" if accelerator else "tiny"
        if not accelerator:
            print("No accelerator found: taking the config tiny (--config hybriko_117m overrides).")
    default = Arguments(config=name, run=common.load_config(name))
    arguments = common.parse(Arguments, default, "launch.pretrain")
    if arguments.describe:
        describe(arguments)
    else:
        pretrain(arguments)


def pretrain(arguments: Arguments) -> None:
    """Prepares the data where that is not done yet, trains, and reports."""
    import jax

    from hybriko_jax.data.loader import Rows, batches, fixed_batches
    from hybriko_jax.models import build
    from hybriko_jax.sharding import batch_parts, make_mesh
    from hybriko_jax.training.flops import matmul_flops_per_token
    from hybriko_jax.training.signals import Stopped
    from hybriko_jax.training.train import held_out_evaluation, train

    config, workdir = arguments.run, arguments.workdir or Path("runs") / arguments.config
    common.start_processes()
    mesh = make_mesh(arguments.mesh)
    rows_per_part = config.train.batch_size // config.train.accumulation
    if rows_per_part % batch_parts(mesh):
        raise UserError(
            f"train.batch_size={config.train.batch_size} in accumulation="
            f"{config.train.accumulation} parts leaves {rows_per_part} rows, which do not divide "
            f"over the {batch_parts(mesh)} devices of the mesh axes data and fsdp. Use a multiple "
            f"of {batch_parts(mesh) * config.train.accumulation}, or a smaller --mesh."
        )
    tokenizer = _open_workdir(arguments, config, workdir)
    print(to_json(config), end="")
    prepared = common.prepared_data(config, tokenizer, workdir)

    def rows(split, weights):
        found = Rows(split, weights, config.train.seq_len, config.train.seed, tokenizer.pad_id)
        if not found.plan(0).n_rows:
            raise UserError(f"data.weights={weights} leaves no document of the {split.name} split.")
        return found

    model, held_out = build(config.model), rows(prepared.held_out, ())
    evaluate = held_out_evaluation(
        model,
        config,
        mesh,
        fixed_batches(held_out, config.train.batch_size, mesh, config.train.eval_batches),
        token_bytes_V=tokenizer.token_bytes(),
    )
    train_rows = rows(prepared.train, config.data.weights)
    plan, lengths = train_rows.plan(0), prepared.train.length_N
    print(
        f"{len(lengths):,} documents, {lengths.sum():,} tokens; an epoch is {plan.n_rows:,} rows, "
        f"{plan.fill(config.train.seq_len):.2%} full"
    )
    try:
        records = train(
            config,
            model,
            mesh,
            workdir,
            lambda row: batches(train_rows, config.train.batch_size, mesh, row),
            evaluate,
            init_params=common.load_checkpoint(arguments.init).params if arguments.init else None,
            flops_per_token=matmul_flops_per_token(config.model, config.train.seq_len),
            peak_flops=common.peak_flops(arguments.peak_tflops, mesh, config.model.dtype),
            profile_steps=(10, 15) if arguments.profile else None,
        )
    except Stopped as stopped:
        print(f"saved in {workdir}; the same command goes on from there")
        common.leave(stopped.exit_code)
    if jax.process_index() == 0:
        _report(records, workdir)


def _open_workdir(arguments, config, workdir):
    """The tokenizer of a run, new or the workdir's; the config is saved there."""
    from hybriko_jax.tokenizer import SentencePiece

    path = workdir / "tokenizer.model"

    def open_it():
        saved = workdir / "config.json"
        if saved.exists():
            if not arguments.resume:
                raise UserError(f"{workdir} holds a run. Give another --workdir, or remove it.")
            _check_same_run(from_json(RunConfig, saved.read_text()), config, workdir)
        common.make_directory(workdir)
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

    common.on_main_process(open_it)
    return SentencePiece(path)


def _check_same_run(old, new, workdir):
    changed = model_differences(old.model, new.model)
    # A row number of the old data would name other documents in the new.
    for section, name in (
        *(("data", n) for n in ("source", "weights", "text_field", "held_out")),
        *(("train", n) for n in ("seq_len", "seed")),
    ):
        a, b = getattr(getattr(old, section), name), getattr(getattr(new, section), name)
        if a != b:
            changed.append(f"{section}.{name}: {a} -> {b}")
    if changed:
        raise UserError(
            f"The run in {workdir} cannot go on with {'; '.join(changed)}. Keep the old values, "
            f"or start a new run from its weights: --workdir NEW --init {workdir}."
        )


def _report(records, workdir):
    nats = [(r["step"], r["nats"]) for r in records if "nats" in r]
    held_out = [r for r in records if "held_out_nats" in r]
    if not nats or not held_out:
        return
    last = held_out[-1]
    print(
        f"training loss {nats[0][1]:.3f} nats per token at step {nats[0][0]}, "
        f"{nats[-1][1]:.3f} at step {nats[-1][0]}\n"
        f"held out      {held_out[0]['held_out_nats']:.3f} nats per token at step "
        f"{held_out[0]['step']}, {last['held_out_nats']:.3f} at step {last['step']} "
        f"= {last['held_out_bits_per_byte']:.3f} bits per byte\n"
        f"written to    {workdir}: checkpoints/, tensorboard/, metrics.jsonl, loss.png"
    )


def describe(arguments: Arguments) -> None:
    """Prints what a run would take, without reading data."""
    from hybriko_jax.models import build
    from hybriko_jax.sharding import make_mesh
    from hybriko_jax.training.describe import description

    config = arguments.run
    print(to_json(config), end="")
    print(description(config, build(config.model), make_mesh(arguments.mesh)))


if __name__ == "__main__":
    common.run(main)

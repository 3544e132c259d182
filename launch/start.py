"""What launch.pretrain and launch.sft share: devices, mesh, memory, the run and its report."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybriko_jax.config import (
    LoRAConfig,
    ModelConfig,
    RunConfig,
    TrainConfig,
    model_differences,
    parse_mesh,
    to_json,
)
from hybriko_jax.console import load
from hybriko_jax.errors import UserError
from hybriko_jax.files import write_file
from launch import common

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from hybriko_jax.data.loader import Rows
    from hybriko_jax.tokenizer import Tokenizer


def devices() -> str | None:
    """The accelerator, or None after making this process one with the devices of --mesh."""
    accelerator = common.accelerator()
    if not accelerator:
        text = common.option("mesh") or "1"
        size, processes = math.prod(parse_mesh(text).values()), common.cluster()["num_processes"]
        if size % processes:
            raise UserError(
                f"--mesh {text} is {size} devices, which do not divide over {processes} processes. "
                f"Use a multiple of {processes}."
            )
        common.prepare_cpu(size // processes)
    return accelerator


def mesh(text: str, config: TrainConfig) -> Mesh:
    """The mesh of --mesh.

    Raises:
      UserError: it does not fit the devices, or the batch does not divide over it.
    """
    import jax

    from hybriko_jax.sharding import batch_parts, make_mesh

    found = make_mesh(text)
    if found.size < jax.device_count():
        common.say(f"--mesh {text} uses {found.size} of {jax.device_count()} devices")
    rows, parts = config.batch_size // config.accumulation, batch_parts(found)
    if rows % parts:
        raise UserError(
            f"train.batch_size={config.batch_size} in accumulation={config.accumulation} parts "
            f"leaves {rows} rows, which do not divide over the {parts} devices of the mesh axes "
            f"data and fsdp. Use a multiple of {parts * config.accumulation}, or a smaller --mesh."
        )
    return found


@contextlib.contextmanager
def enough_memory() -> Iterator[None]:
    """Turns XLA's error of too little memory into a UserError."""
    import jax

    try:
        yield
    except jax.errors.JaxRuntimeError as e:
        if "RESOURCE_EXHAUSTED" not in str(e):
            raise
        raise UserError(
            f"The devices have too little memory ({str(e).splitlines()[0]}). Give a smaller "
            "--train.batch-size, a larger --train.accumulation, --model.remat, or more devices by "
            "--mesh; --describe tells what a step takes."
        ) from e


def run(
    config: RunConfig,
    mesh: Mesh,
    workdir: Path,
    tokenizer: Tokenizer,
    rows: Rows,
    held_out: Rows,
    *,
    prefix_P: Any = None,
    frozen: Any = None,
    peak_tflops: float | None = None,
    **how: Any,
) -> None:
    """Trains on rows, evaluates on others, and reports; a signal saves and ends the process.

    Args:
      prefix_P: tokens before every row; see `training.step.loss_sums`.
      frozen: parameters of the base, in a list of their own: they are taken out of it as they are
        laid out on the mesh. None where config.lora is None.
      peak_tflops: of one device; None is by its data sheet.
      how: more arguments of `training.train.train`.
    """
    from hybriko_jax.data.loader import batches, fixed_batches
    from hybriko_jax.models import build
    from hybriko_jax.training.flops import matmul_flops_per_token
    from hybriko_jax.training.signals import Stopped
    from hybriko_jax.training.state import place_frozen
    from hybriko_jax.training.train import held_out_evaluation, train

    config = counted(config, rows)
    model, c = build(config.model), config.train
    stacked_for = config.lora if prefix_P is None else None
    base = place_frozen(model, frozen, mesh, stacked_for) if frozen else None
    evaluate = held_out_evaluation(
        model,
        config,
        mesh,
        fixed_batches(held_out, c.batch_size, mesh, c.eval_batches),
        token_bytes_V=tokenizer.token_bytes(),
        prefix_P=prefix_P,
        frozen=base,
    )
    peak = common.peak_flops(peak_tflops, mesh, config.model.dtype)
    try:
        records = train(
            config,
            model,
            mesh,
            workdir,
            lambda row: batches(rows, c.batch_size, mesh, row),
            evaluate,
            prefix_P=prefix_P,
            frozen=base,
            peak_tokens_per_second=peak and peak / matmul_flops_per_token(config.model, c.seq_len),
            **how,
        )
    except Stopped as stopped:
        common.say(f"saved in {workdir}; the same command goes on from there")
        common.leave(stopped.exit_code)
    report(records, workdir)


# What a run cannot change: the adapter, and what a row number names.
_LASTING = {
    "lora": ("rank", "alpha", "rslora", "targets", "base", "precision"),
    "data": ("source", "weights", "text_field", "held_out"),
    "train": ("seq_len", "seed"),
}


def check_same_run(workdir: Path, new: RunConfig) -> None:
    """Refuses to go on with a run in a workdir by a config that would make another of it.

    Raises:
      UserError: so it is, or the run's config cannot be read.
    """
    old = load.run_config(workdir)
    changed = model_differences(old.model, new.model)
    for section, names in _LASTING.items():
        for name in names:
            before, now = (getattr(getattr(c, section), name, None) for c in (old, new))
            if before != now:
                changed.append(f"{section}.{name}: {before} -> {now}")
    if changed:
        raise UserError(
            f"The run in {workdir} cannot go on with {'; '.join(changed)}. Keep the old values, "
            "or start a new run from its weights in another --workdir."
        )


def open_workdir(
    workdir: Path,
    name: str,
    settings: Any,
    tokenizer: Tokenizer,
    config: RunConfig,
    system: str | None = None,
) -> None:
    """Makes and locks a workdir, and saves there what decides the run.

    Args:
      name: the file of `settings`.
      system: the system prompt, where there is one.

    Raises:
      UserError: it holds a run of other settings, or of another model.
    """
    from hybriko_jax.training.processes import on_main_process

    def open_it():
        common.make_directory(workdir)
        common.lock(workdir)
        saved = workdir / name
        if saved.exists() and saved.read_text() != to_json(settings):
            raise UserError(
                f"The run in {workdir} was begun with other settings ({saved}). Keep them, or give "
                "another --workdir."
            )
        if saved.exists():
            check_same_run(workdir, config)
        tokenizer.save(workdir / tokenizer.FILE)
        write_file(saved, to_json(settings))
        if system is not None:
            write_file(workdir / load.SYSTEM_PROMPT, system)
        write_file(workdir / "config.json", to_json(config))

    on_main_process(open_it)
    common.say(to_json(settings).rstrip())
    common.say(to_json(config).rstrip())


def refuse_quantized(params: Any, base: Path) -> None:
    """Raises a UserError where a base, all of which is to be trained, is kept in 4 bits."""
    import jax

    from hybriko_jax.quant import NF4

    leaves = jax.tree.leaves(params, is_leaf=lambda leaf: isinstance(leaf, NF4))
    if any(isinstance(leaf, NF4) for leaf in leaves):
        raise UserError(
            f"The weights of {base} are in 4 bits, which steps of training are too small to "
            "change. Train an adapter on them (a --config with lora), or give the model in floats."
        )


def adapter_to_go_on(path: Path, model: ModelConfig, lora: LoRAConfig) -> Any:
    """An adapter to start from, with the dropout and scale of `lora`.

    Raises:
      UserError: it is of another base, or has another rank, scale or targets.
    """
    import flax.traverse_util
    import jax

    from hybriko_jax.convert.parameters import our_shapes
    from hybriko_jax.lora import LoRA, targets

    found, its = load.adapter(path, model)
    adapted = set(flax.traverse_util.flatten_dict(found, sep="/"))
    if others := sorted(adapted ^ set(targets(our_shapes(model), lora.targets))):
        raise UserError(
            f"The adapter {path} cannot go on with lora.targets={lora.targets!r}: {others[0]} is "
            f"in one of the two only. Give its own (--lora.targets {its.targets!r})."
        )
    changed = [
        f"{name}: {getattr(its, name):g} -> {getattr(lora, name):g}"
        for name in ("rank", "scale")
        if getattr(its, name) != getattr(lora, name)
    ]
    if changed:
        raise UserError(
            f"The adapter {path} cannot go on with {'; '.join(changed)}. Give its own values "
            f"(--lora.rank {its.rank} --lora.alpha {its.alpha:g})."
        )
    return jax.tree.map(
        lambda leaf: leaf.replace(dropout=lora.dropout),
        found,
        is_leaf=lambda leaf: isinstance(leaf, LoRA),
    )


def counted(config: RunConfig, rows: Rows) -> RunConfig:
    """The config with train.epochs as steps, where it is given."""
    c = config.train
    if c.epochs is None:
        return config
    steps = max(1, round(c.epochs * rows.plan(0).n_rows / c.batch_size))
    # In a run of few steps the rate would only rise.
    warmup = min(config.optimizer.warmup_steps, steps // 10)
    common.say(f"{c.epochs:g} epochs are {steps:,} steps")
    return dataclasses.replace(
        config,
        train=dataclasses.replace(c, steps=steps, epochs=None),
        optimizer=dataclasses.replace(config.optimizer, warmup_steps=warmup),
    )


def report(records: list[dict[str, Any]], workdir: Path) -> None:
    """Says what a run began and ended with."""
    nats = [(r["step"], r["nats"]) for r in records if "nats" in r]
    held_out = [r for r in records if "held_out_nats" in r]
    if not nats or not held_out:
        return
    last = held_out[-1]
    common.say(
        f"training loss {nats[0][1]:.3f} nats per token at step {nats[0][0]}, "
        f"{nats[-1][1]:.3f} at step {nats[-1][0]}\n"
        f"held out      {held_out[0]['held_out_nats']:.3f} nats per token at step "
        f"{held_out[0]['step']}, {last['held_out_nats']:.3f} at step {last['step']} "
        f"= {last['held_out_bits_per_byte']:.3f} bits per byte\n"
        f"written to    {workdir}: checkpoints/, tensorboard/, metrics.jsonl, loss.png"
    )

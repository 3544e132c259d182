"""The loop: batches in; a trained state, checkpoints and measurements out."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from hybriko_jax.config import RunConfig
from hybriko_jax.data.batch import Batch
from hybriko_jax.errors import UserError
from hybriko_jax.memory import give_back
from hybriko_jax.sharding import batch_sharding
from hybriko_jax.training.checkpoint import Checkpoints
from hybriko_jax.training.metrics import Metrics
from hybriko_jax.training.optimizer import learning_rate, make_optimizer
from hybriko_jax.training.processes import is_main
from hybriko_jax.training.signals import Stopped, StopSignals
from hybriko_jax.training.state import TrainState, abstract_state
from hybriko_jax.training.step import eval_step, train_step

Evaluate = Callable[[Any], dict[str, float]]
"""Parameters to measurements; `held_out_nats` among them decides which checkpoint is best."""

PROFILED = (10, 15)  # steps of a run after which its trace begins and ends


def train(
    config: RunConfig,
    model: nn.Module,
    mesh: Mesh,
    workdir: Path,
    batches_from: Callable[[int], Iterator[Batch]],
    evaluate: Evaluate,
    *,
    data_digest: str,
    init_params: Any = None,
    prefix_P: Any = None,
    frozen: Any = None,
    peak_tokens_per_second: float | None = None,
    profile: bool = False,
) -> list[dict[str, Any]]:
    """Trains until config.train.steps, from the newest checkpoint in workdir if there is one.

    Args:
      workdir: a directory; see `checkpoint` and `metrics` for what is written there.
      batches_from: endless batches from a row number on.
      evaluate: run every eval_every steps and at the end.
      data_digest: names what row numbers count.
      init_params: parameters to start from where there is no checkpoint; None draws them.
      prefix_P: tokens that stand before every row; see `step.loss_sums`.
      frozen: the base on the mesh, where config.lora is trained; see `place_frozen`.
      peak_tokens_per_second: of the model on all devices at their peak; None leaves MFU out.
      profile: trace some steps into workdir/profile.

    Returns:
      The records of the run, as in metrics.jsonl.

    Raises:
      Stopped: SIGTERM or Ctrl-C came; the state is saved. The process must end by os._exit, since
        XLA may still compile in threads of its own.
      UserError: the loss was not finite for max_bad_steps in a row, a checkpoint could not be
        written, or the newest one is of other data.
    """
    c = config.train
    tx = make_optimizer(config.optimizer, c.steps)
    checkpoints = Checkpoints(workdir / "checkpoints", c.keep_last)
    with (
        jax.set_mesh(mesh),
        StopSignals() as signals,
        contextlib.ExitStack() as trace,
    ):
        abstract, init = abstract_state(model, tx, c.seed, mesh, config.lora)
        restored = checkpoints.restore(abstract)
        state, progress = restored or (init(), {"row": 0})
        if restored is None and init_params is not None:
            state = dataclasses.replace(state, params=_place(init_params, abstract.params))
        step, row = int(state.step), progress["row"]
        if progress.get("data_digest", data_digest) != data_digest:
            raise UserError(
                f"The data has changed since checkpoint {step} of {workdir}: its row numbers "
                "would name other rows. Restore the files, or start a new run from its weights in "
                "another --workdir."
            )
        metrics = Metrics(workdir, c.steps, step)
        if restored:
            metrics.say(f"continuing from checkpoint {step}, row {row:,} of the data")
        # What the run has measured of the last complete state.
        saved_with: dict[str, float] = {}

        def due(every):
            return step % every == 0 or step == c.steps

        def save():
            checkpoints.save(state, {"row": row, "data_digest": data_digest, **saved_with})

        def measure() -> bool:
            """Whether the state is the best so far."""
            nonlocal saved_with
            before = [r["held_out_nats"] for r in metrics.records if "held_out_nats" in r]
            with signals.interruptible():
                measured = evaluate(state.params)
            saved_with = {name: v for name, v in measured.items() if math.isfinite(v)}
            metrics.write(step, **saved_with)
            metrics.plot()
            return saved_with.get("held_out_nats", math.inf) < min(before, default=math.inf)

        try:
            with signals.interruptible():
                compiled = compile_step(model, tx, config, abstract, mesh, prefix_P, frozen)
            batches = batches_from(row)
            pending: list[dict[str, jax.Array]] = []
            measured_at = {r["step"] for r in metrics.records if "held_out_nats" in r}
            if step and due(c.eval_every) and step not in measured_at:
                measure()  # the run was stopped in the middle of it
            traced = [step + n for n in PROFILED] if profile and is_main() else []
            since = time.monotonic()
            while step < c.steps:
                with signals.interruptible():
                    batch = next(batches)
                if step in traced[:1]:
                    trace.enter_context(jax.profiler.trace(str(workdir / "profile")))
                elif step in traced:
                    jax.block_until_ready(state)
                    trace.close()
                state, measured = compiled(state, batch, *([frozen] if frozen else []))
                step, row = step + 1, row + c.batch_size
                saved_with = {}
                pending.append(measured)
                if len(pending) > 1:
                    # JAX runs ahead: a signal would wait for all the steps it has queued.
                    jax.block_until_ready(pending[-2])
                if due(c.log_every) or len(pending) % c.max_bad_steps == 0:
                    values = jax.tree.map(float, pending)
                    _abort_if_diverged(values, step, c.max_bad_steps)
                if due(c.log_every):
                    seconds = (time.monotonic() - since) / len(pending)
                    record = _record(config, step, row, values, seconds, peak_tokens_per_second)
                    metrics.write(step, **record)
                    pending, since = [], time.monotonic()
                begin = time.monotonic()
                best = due(c.eval_every) and measure()
                # While steps are skipped, what the last checkpoint holds is the better.
                if (best or due(c.save_every)) and not int(state.bad_in_a_row):
                    save()
                since += time.monotonic() - begin  # speed is that of training alone
                signals.check()
            save()
            checkpoints.wait()
            signals.check()
        except Stopped as stopped:
            metrics.say(f"stopped by signal {stopped.signum}: saving step {step}")
            save()
            checkpoints.wait()
            raise
        finally:
            try:
                metrics.close()
            finally:
                checkpoints.close()  # a save that has begun is finished, whatever ended the run
    return metrics.records


def held_out_evaluation(
    model: nn.Module,
    config: RunConfig,
    mesh: Mesh,
    batches: list[Batch],
    token_bytes_V: Any,
    prefix_P: Any = None,
    frozen: Any = None,
) -> Evaluate:
    """Measures held-out loss on fixed batches.

    Args:
      token_bytes_V: UTF-8 bytes that each token spells.
      prefix_P, frozen: see `step.loss_sums`.
    """
    step = jax.jit(
        functools.partial(eval_step, model=model, chunk=config.train.loss_chunk, prefix_P=prefix_P)
    )
    count_bytes = jax.jit(
        lambda b: jnp.sum(jnp.where(b.loss_mask_BL, jnp.asarray(token_bytes_V)[b.tokens_BL], 0))
    )
    n_bytes = sum(int(count_bytes(b)) for b in batches)

    def evaluate(params):
        nats, tokens = 0.0, 0
        for batch in batches:
            batch_nats, batch_tokens = step(params, batch, frozen)
            nats, tokens = nats + float(batch_nats), tokens + int(batch_tokens)
        nats_per_token = nats / max(tokens, 1)
        return {
            "held_out_nats": nats_per_token,
            "held_out_bits_per_byte": nats / math.log(2) / max(n_bytes, 1),
        }

    return evaluate


def compile_step(
    model: nn.Module,
    tx: optax.GradientTransformation,
    config: RunConfig,
    abstract: TrainState,
    mesh: Mesh,
    prefix_P: Any = None,
    frozen: Any = None,
) -> jax.stages.Compiled:
    """The train step, compiled for a mesh; it gives its first argument away.

    Args:
      frozen: the base of an adapter, or its shapes and shardings: the step's third argument then.
    """
    shape = (config.train.batch_size, config.train.seq_len)

    def like(dtype):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(mesh))

    batch = Batch(like(jnp.int32), like(jnp.int32), like(jnp.bool_))
    step = functools.partial(train_step, model=model, tx=tx, config=config.train, prefix_P=prefix_P)
    shardings = jax.tree.map(lambda s: s.sharding, abstract)
    jitted = jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))
    compiled = jitted.lower(abstract, batch, *([frozen] if frozen else [])).compile()
    give_back()  # what the compiler needed
    return compiled


def _place(params, abstract_params):
    """A copy of params laid out as abstract_params: what training donates is its own."""
    return jax.tree.map(
        lambda p, a: jax.device_put(jnp.array(p, a.dtype, copy=True), a.sharding),
        params,
        abstract_params,
    )


def _record(config, step, row, values, seconds, peak_tokens_per_second):
    """What the steps since the last record measured, each of which took so many seconds."""
    nats = [v["nats"] for v in values if math.isfinite(v["nats"])]
    skipped = int(values[-1]["skipped"])
    rate = learning_rate(config.optimizer, config.train.steps)
    speed = config.tokens_per_step / seconds
    record = {
        "nats": sum(nats) / len(nats) if nats else math.nan,
        "grad_norm": values[-1]["grad_norm"],
        "learning_rate": float(jnp.asarray(rate(step - 1 - skipped))),
        "tokens": row * config.train.seq_len,
        "tokens_per_second": speed,
        "step_seconds": seconds,
    }
    if peak_tokens_per_second:
        record["mfu"] = speed / peak_tokens_per_second
    if skipped:
        record["skipped"] = skipped
    return record


def _abort_if_diverged(values, step, limit):
    if max(int(v["bad_in_a_row"]) for v in values) >= limit:
        raise UserError(
            f"The loss or gradient was not finite for {limit} steps in a row, up to step {step}; "
            "those steps were skipped. Lower --optimizer.learning-rate, and run the command again: "
            "it goes on from the last checkpoint."
        )

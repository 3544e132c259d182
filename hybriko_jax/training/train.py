"""The loop: batches in; a trained state, checkpoints and measurements out."""

from __future__ import annotations

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
from hybriko_jax.sharding import batch_sharding
from hybriko_jax.training.checkpoint import Checkpoints, shape_difference
from hybriko_jax.training.metrics import Metrics
from hybriko_jax.training.optimizer import learning_rate, make_optimizer
from hybriko_jax.training.signals import Stopped, StopSignals
from hybriko_jax.training.state import TrainState, abstract_state
from hybriko_jax.training.step import eval_step, train_step

Evaluate = Callable[[Any], dict[str, float]]
"""Parameters to measurements; `held_out_nats` among them decides which checkpoint is best."""


def train(
    config: RunConfig,
    model: nn.Module,
    mesh: Mesh,
    workdir: Path,
    batches_from: Callable[[int], Iterator[Batch]],
    evaluate: Evaluate,
    *,
    init_params: Any = None,
    flops_per_token: float = 0.0,
    peak_flops: float | None = None,
    profile_steps: tuple[int, int] | None = None,
) -> list[dict[str, Any]]:
    """Trains until config.train.steps, from the newest checkpoint in workdir if there is one.

    Args:
      workdir: a directory; see `checkpoint` and `metrics` for what is written there.
      batches_from: endless batches from a row number on.
      evaluate: run every eval_every steps and at the end.
      init_params: parameters to start from where there is no checkpoint; None draws them.
      flops_per_token: of the model, for the report.
      peak_flops: of all devices together, in FLOP/s; None leaves MFU out.
      profile_steps: first and last step of a profiler trace in workdir/profile.

    Returns:
      The records of the run, as in metrics.jsonl.

    Raises:
      Stopped: SIGTERM or Ctrl-C came; the state is saved. The process must end by os._exit, since
        XLA may still compile in threads of its own.
      UserError: the loss was not finite for max_bad_steps in a row, or a checkpoint could not be
        written.
    """
    c = config.train
    tx = make_optimizer(config.optimizer, c.steps)
    rate = learning_rate(config.optimizer, c.steps)
    checkpoints = Checkpoints(workdir / "checkpoints", c.keep_last)
    is_main = jax.process_index() == 0
    with jax.set_mesh(mesh), StopSignals() as signals:
        abstract, init = abstract_state(model, tx, c.seed, mesh)
        restored = checkpoints.restore(abstract)
        state, progress = restored or (init(), {"row": 0})
        if restored is None and init_params is not None:
            if fault := shape_difference(init_params, abstract.params):
                raise UserError(
                    f"The weights to start from are of another model: {fault}. Give that model's "
                    "own config."
                )
            state = dataclasses.replace(state, params=_place(init_params, abstract.params))
        step, row = int(state.step), progress["row"]
        metrics = Metrics(workdir, c.steps, step, enabled=is_main)
        if restored:
            metrics.say(f"continuing from checkpoint {step}, row {row:,} of the data")
        # The last complete state, and what the run has measured of it.
        saved_with: dict[str, float] = {}

        def due(every):
            return step % every == 0 or step == c.steps

        def save():
            checkpoints.save(state, {"row": row, **saved_with})

        def measure():
            nonlocal saved_with
            with signals.interruptible():
                saved_with = evaluate(state.params)
            metrics.write(step, **saved_with)
            metrics.plot()

        try:
            with signals.interruptible():
                compiled = compile_step(model, tx, config, abstract, mesh)
            batches = batches_from(row)
            pending: list[dict[str, jax.Array]] = []
            measured_at = {r["step"] for r in metrics.records if "held_out_nats" in r}
            if step and due(c.eval_every) and step not in measured_at:
                measure()  # the run was stopped in the middle of it
            since, profiling = time.monotonic(), False
            while step < c.steps:
                with signals.interruptible():
                    batch = next(batches)
                if profile_steps and step == profile_steps[0]:
                    jax.profiler.start_trace(str(workdir / "profile"))
                    profiling = True
                state, measured = compiled(state, batch)
                step, row = step + 1, row + c.batch_size
                saved_with = {}
                pending.append(measured)
                if len(pending) > 1:
                    # JAX runs ahead: a signal would wait for all the steps it has queued.
                    jax.block_until_ready(pending[-2])
                if profiling and step == profile_steps[1]:  # type: ignore[index]
                    jax.block_until_ready(state)
                    jax.profiler.stop_trace()
                    profiling = False
                if due(c.log_every) or len(pending) % c.max_bad_steps == 0:
                    values = jax.tree.map(float, pending)
                    _abort_if_diverged(values, step, c.max_bad_steps)
                if due(c.log_every):
                    seconds = (time.monotonic() - since) / len(pending)
                    speed = config.tokens_per_step / seconds
                    skipped = int(values[-1]["skipped"])
                    record = {
                        "nats": _mean_finite([v["nats"] for v in values]),
                        "grad_norm": values[-1]["grad_norm"],
                        "learning_rate": float(jnp.asarray(rate(step - 1 - skipped))),
                        "tokens": row * c.seq_len,
                        "tokens_per_second": speed,
                        "step_seconds": seconds,
                    }
                    if peak_flops:
                        record["mfu"] = speed * flops_per_token / peak_flops
                    if skipped:
                        record["skipped"] = skipped
                    metrics.write(step, **record)
                    pending, since = [], time.monotonic()
                if due(c.eval_every):
                    begin = time.monotonic()
                    measure()
                    since += time.monotonic() - begin  # speed is that of training alone
                if due(c.save_every):
                    begin = time.monotonic()
                    # While steps are skipped, what the last checkpoint holds is the better.
                    if not int(state.bad_in_a_row):
                        save()
                    since += time.monotonic() - begin
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
    model: nn.Module, config: RunConfig, mesh: Mesh, batches: list[Batch], token_bytes_V: Any
) -> Evaluate:
    """Measures held-out loss on fixed batches.

    Args:
      token_bytes_V: UTF-8 bytes that each token spells.
    """
    step = jax.jit(functools.partial(eval_step, model=model, config=config.train))
    n_bytes = sum(
        int(jnp.sum(jnp.where(b.loss_mask_BL, jnp.asarray(token_bytes_V)[b.tokens_BL], 0)))
        for b in batches
    )

    def evaluate(params):
        nats, tokens = 0.0, 0
        for batch in batches:
            batch_nats, batch_tokens = step(params, batch)
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
) -> jax.stages.Compiled:
    """The train step, compiled for a mesh; it gives its first argument away."""
    shape = (config.train.batch_size, config.train.seq_len)

    def like(dtype):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(mesh))

    batch = Batch(like(jnp.int32), like(jnp.int32), like(jnp.bool_))
    step = functools.partial(train_step, model=model, tx=tx, config=config.train)
    shardings = jax.tree.map(lambda s: s.sharding, abstract)
    jitted = jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))
    return jitted.lower(abstract, batch).compile()


def _place(params, abstract_params):
    """A copy of params laid out as abstract_params: what training donates is its own."""
    return jax.tree.map(
        lambda p, a: jax.device_put(jnp.array(p, a.dtype, copy=True), a.sharding),
        params,
        abstract_params,
    )


def _mean_finite(values):
    finite = [v for v in values if math.isfinite(v)]
    return sum(finite) / len(finite) if finite else math.nan


def _abort_if_diverged(values, step, limit):
    if max(int(v["bad_in_a_row"]) for v in values) >= limit:
        raise UserError(
            f"The loss or gradient was not finite for {limit} steps in a row, up to step {step}; "
            "those steps were skipped. Lower --optimizer.learning-rate, and run the command again: "
            "it goes on from the last checkpoint."
        )

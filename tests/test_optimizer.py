"""Schedules, decay on matrices only, and steps that are not finite."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybriko_jax.config import OptimizerConfig, RunConfig, TrainConfig
from hybriko_jax.data.batch import Batch
from hybriko_jax.models import build
from hybriko_jax.sharding import make_mesh
from hybriko_jax.training.optimizer import learning_rate, make_optimizer
from hybriko_jax.training.state import abstract_state
from hybriko_jax.training.step import train_step


def rates(schedule, **kwargs):
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=10, schedule=schedule, **kwargs)
    rate = learning_rate(config, 110)
    return np.array([rate(step) for step in range(110)])


def test_warm_up_is_linear_and_reaches_the_peak():
    for schedule in ("cosine", "wsd", "constant"):
        np.testing.assert_allclose(rates(schedule)[:10], np.arange(1, 11) / 10, rtol=1e-5)


def test_shapes_after_the_warm_up():
    t = np.arange(100) / 100
    cosine = 0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * t))
    np.testing.assert_allclose(rates("cosine")[10:], cosine, rtol=1e-5)
    np.testing.assert_allclose(rates("constant")[10:], 1.0)
    wsd = np.interp(np.arange(100), [0, 80, 100], [1, 1, 0.1])
    np.testing.assert_allclose(rates("wsd", decay_fraction=0.2)[10:], wsd, rtol=1e-5)


def test_no_warm_up():
    rate = learning_rate(OptimizerConfig(learning_rate=0.5, warmup_steps=0), 10)
    assert rate(0) == pytest.approx(0.5)


def test_only_matrices_decay():
    params = {"kernel": jnp.ones((2, 2)), "scale": jnp.ones(2)}
    tx = make_optimizer(OptimizerConfig(learning_rate=0.1, warmup_steps=0, weight_decay=0.5), 10)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.05)
    np.testing.assert_allclose(updates["scale"], 0.0)


def test_muon_orthogonalizes_kernels_and_leaves_the_rest_to_adamw():
    rng = np.random.default_rng(0)
    shapes = {"up": {"kernel": (8, 24)}, "embedding": (24, 8), "scale": (8,)}
    params = jax.tree.map(jnp.ones, shapes, is_leaf=lambda s: isinstance(s, tuple))
    grads = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape) * 1e-3), params)
    config = OptimizerConfig(learning_rate=0.1, warmup_steps=0, weight_decay=0.0)
    updates = {}
    for name in ("muon", "adamw"):
        tx = make_optimizer(dataclasses.replace(config, name=name), 10)
        updates[name], _ = tx.update(grads, tx.init(params), params)
    # The update is the nearest orthogonal matrix, roughly, with AdamW's root mean square of 0.2.
    step = np.asarray(updates["muon"]["up"]["kernel"]) / -0.1
    u, _, vt = np.linalg.svd(np.asarray(grads["up"]["kernel"]), full_matrices=False)
    singular = np.linalg.svd(step, compute_uv=False)
    assert np.all(np.abs(singular / (0.2 * 24**0.5) - 1) < 0.4)
    assert np.sum(step * (u @ vt)) / np.linalg.norm(step) / 8**0.5 > 0.95
    for name in ("embedding", "scale"):
        # With Nesterov's momentum, so not as long at the first step.
        np.testing.assert_array_equal(
            np.sign(updates["muon"][name]), np.sign(updates["adamw"][name])
        )


def test_muon_decays_matrices_only():
    params = {"up": {"kernel": jnp.ones((2, 2))}, "scale": jnp.ones(2), "lambda": jnp.ones(2)}
    config = OptimizerConfig(name="muon", learning_rate=0.1, warmup_steps=0, weight_decay=0.5)
    tx = make_optimizer(config, 10)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    np.testing.assert_allclose(updates["up"]["kernel"], -0.05)
    np.testing.assert_allclose(updates["scale"], 0.0)
    np.testing.assert_allclose(updates["lambda"], 0.0)


@pytest.fixture
def training(small):
    config = RunConfig(
        model=small,
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=5),
        train=TrainConfig(steps=200, batch_size=4, seq_len=16),
    )
    model, tx = build(small), make_optimizer(config.optimizer, 200)
    _, init = abstract_state(model, tx, 0, make_mesh("1"))
    step = jax.jit(lambda s, b: train_step(s, b, model=model, tx=tx, config=config.train))
    tokens = np.random.default_rng(0).integers(0, small.vocab_size, (4, 16)).astype(np.int32)
    positions = np.tile(np.arange(16, dtype=np.int32), (4, 1))
    return step, init(), Batch(tokens, positions, positions > 0)


def test_a_step_that_is_not_finite_changes_nothing_but_counters(training):
    step, state, batch = training
    good, metrics = step(state, batch)
    assert int(metrics["bad_in_a_row"]) == 0
    broken = dataclasses.replace(
        good, params={**good.params, "embedding": good.params["embedding"].at[:, 0].set(jnp.nan)}
    )
    after, metrics = step(broken, batch)
    chex.assert_trees_all_equal((after.params, after.opt_state), (broken.params, broken.opt_state))
    assert int(after.step) == 2 and int(after.skipped) == 1 and int(after.bad_in_a_row) == 1
    after, _ = step(after, batch)
    assert int(after.bad_in_a_row) == 2
    mended, _ = step(dataclasses.replace(after, params=good.params), batch)
    assert int(mended.skipped) == 2 and int(mended.bad_in_a_row) == 0


def test_loss_is_per_kept_token(training):
    step, state, batch = training
    _, metrics = step(state, batch)
    assert float(metrics["nats"]) == pytest.approx(np.log(96), rel=0.05)
    assert int(metrics["tokens"]) == 4 * 15
    nothing = dataclasses.replace(batch, loss_mask_BL=np.zeros((4, 16), bool))
    after, metrics = step(state, nothing)
    assert float(metrics["loss"]) == 0 and float(metrics["grad_norm"]) == 0
    assert int(after.skipped) == 0


def test_pretraining_learns(training):
    step, state, batch = training
    losses = []
    for _ in range(60):
        state, metrics = step(state, batch)
        losses.append(float(metrics["nats"]))
    assert losses[-1] < losses[0] - 1

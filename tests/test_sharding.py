"""Eight devices compute what one computes, and FSDP moves each parameter once."""

import dataclasses
import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from hybriko_jax.config import OptimizerConfig, RunConfig, TrainConfig, parse_mesh
from hybriko_jax.data.batch import Batch
from hybriko_jax.data.loader import put
from hybriko_jax.errors import UserError
from hybriko_jax.models import build
from hybriko_jax.sharding import make_mesh, partition_spec
from hybriko_jax.training.optimizer import make_optimizer
from hybriko_jax.training.state import abstract_state, param_count
from hybriko_jax.training.train import compile_step

MESHES = ["data=8", "fsdp=8", "data=2,fsdp=2,tensor=2", "tensor=4", "data=4,tensor=2"]


def random_batch(vocab_size, batch_size, seq_len, seed):
    rng = np.random.default_rng(seed)
    positions = np.tile(np.arange(seq_len, dtype=np.int32) % (seq_len // 2 + 1), (batch_size, 1))
    tokens = rng.integers(0, vocab_size, (batch_size, seq_len)).astype(np.int32)
    return Batch(tokens, positions, positions > 0)


def run(config, mesh_text, steps=10):
    mesh = make_mesh(mesh_text)
    model, tx = build(config.model), make_optimizer(config.optimizer, config.train.steps)
    losses = []
    with jax.set_mesh(mesh):
        abstract, init = abstract_state(model, tx, 0, mesh)
        state, step = init(), compile_step(model, tx, config, abstract, mesh)
        for n in range(steps):
            batch = random_batch(config.model.vocab_size, config.train.batch_size, 32, n % 3)
            state, metrics = step(state, put(batch, mesh, config.train.batch_size))
            losses.append(float(metrics["loss"]))
    return np.array(losses), state


def run_config(small, **train):
    return RunConfig(
        model=small,
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=1),
        train=TrainConfig(
            **{"steps": 10, "batch_size": 8, "seq_len": 32, "loss_chunk": 16} | train
        ),
    )


@pytest.fixture(scope="module")
def alone():
    return functools.cache(lambda config: run(config, "1"))


# Two axes are in the third; the others run with -m slow.
@pytest.mark.parametrize(
    "mesh", [*MESHES[:3], *(pytest.param(m, marks=pytest.mark.slow) for m in MESHES[3:])]
)
def test_eight_devices_equal_one(small, alone, mesh):
    config = run_config(small)
    losses, state = run(config, mesh)
    expected, expected_state = alone(config)
    assert losses[-1] < losses[0] - 0.2
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    # AdamW divides by the root of the second moment: where that is nearly zero, rounding shows.
    chex.assert_trees_all_close(
        jax.device_get(state.params), jax.device_get(expected_state.params), atol=2e-3
    )


def test_muon_on_eight_devices_equals_one(small, alone):
    muon = OptimizerConfig(name="muon", learning_rate=1e-2, warmup_steps=1)
    config = dataclasses.replace(run_config(small), optimizer=muon)
    losses, _ = run(config, "fsdp=4,tensor=2")
    assert losses[-1] < losses[0] - 0.2
    np.testing.assert_allclose(losses, alone(config)[0], rtol=1e-5)


@pytest.mark.parametrize("mesh", ["1", "data=2,fsdp=2"])
def test_accumulation_equals_the_whole_batch(small, alone, mesh):
    losses, _ = run(run_config(small, accumulation=2), mesh)
    np.testing.assert_allclose(losses, alone(run_config(small))[0], rtol=1e-5)


def test_parameters_and_moments_are_split(small):
    model, tx = build(small), make_optimizer(OptimizerConfig(), 200)
    mesh = make_mesh("fsdp=8")
    _, init = abstract_state(model, tx, 0, mesh)
    state = init()
    matrices = [a for a in jax.tree.leaves((state.params, state.opt_state)) if a.ndim == 2]
    assert len(matrices) > 60
    for a in matrices:
        assert a.addressable_shards[0].data.size * 8 == a.size


def test_fsdp_gathers_each_parameter_once():
    """Bytes of all-gather in a step are the bytes of the parameters, not of activations."""
    from configs import tiny

    config = tiny.config()
    mesh = make_mesh("fsdp=8")
    model, tx = build(config.model), make_optimizer(config.optimizer, config.train.steps)
    with jax.set_mesh(mesh):
        abstract, _ = abstract_state(model, tx, 0, mesh)
        text = compile_step(model, tx, config, abstract, mesh).as_text()
    gathered = sum(_bytes(line) for line in text.splitlines() if _is_all_gather(line))
    assert gathered <= 1.05 * 4 * param_count(abstract.params)
    assert "all-to-all" not in text


def _is_all_gather(line):
    return re.search(r" all-gather(-start)?\(", line)


def _bytes(line):
    result = line.split(" all-gather")[0]
    shape = re.findall(r"(f32|bf16|s32|pred)\[([\d,]*)\]", result)[-1]
    size = np.prod([int(n) for n in shape[1].split(",") if n])
    return size * {"f32": 4, "bf16": 2, "s32": 4, "pred": 1}[shape[0]]


def test_an_earlier_rule_wins():
    assert partition_spec("BLA") == P(("data", "fsdp"), None, None)
    assert partition_spec("VD") == P(("tensor", "fsdp"), None)
    assert partition_spec("DF") == P("fsdp", "tensor")
    assert partition_spec(("V", "B")) == P("tensor", ("data", "fsdp"))


@pytest.mark.parametrize(
    "text,sizes",
    [
        ("8", {"data": 1, "fsdp": 8, "tensor": 1}),
        ("data=2, fsdp=2,tensor=2", {"data": 2, "fsdp": 2, "tensor": 2}),
    ],
)
def test_mesh_text(text, sizes):
    assert parse_mesh(text) == sizes


@pytest.mark.parametrize("text", ["", "0", "x", "data", "data=0", "data=2,data=4", "model=2", "-8"])
def test_unreadable_meshes_are_refused(text):
    with pytest.raises(UserError, match="cannot read"):
        parse_mesh(text)


def test_a_mesh_larger_than_the_machine_is_refused():
    with pytest.raises(UserError, match=r"--mesh 16 needs 16 devices, but there are 8"):
        make_mesh("16")


def test_batches_are_split_over_data_and_fsdp():
    mesh = make_mesh("data=2,fsdp=2,tensor=2")
    batch = put(random_batch(50, 8, 32, 0), mesh, 8)
    assert batch.tokens_BL.sharding.spec == P(("data", "fsdp"))
    np.testing.assert_array_equal(batch.tokens_BL, random_batch(50, 8, 32, 0).tokens_BL)
    assert jnp.asarray(batch.loss_mask_BL).dtype == jnp.bool_

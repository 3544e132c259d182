"""What launch.pretrain, launch.sft and launch.lora check before they train."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hybriko_jax.config import LoRAConfig, RunConfig, to_json
from hybriko_jax.errors import UserError
from hybriko_jax.quant import quantize
from launch import start

OLD = RunConfig(lora=LoRAConfig(base="base"))


@pytest.fixture
def workdir(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").write_text(to_json(OLD))
    return tmp_path


def changed(section, **fields):
    part = dataclasses.replace(getattr(OLD, section), **fields)
    return dataclasses.replace(OLD, **{section: part})


@pytest.mark.parametrize(
    "section, fields, said",
    [
        ("lora", {"rank": 4}, "lora.rank: 8 -> 4"),
        ("lora", {"alpha": 64.0}, "lora.alpha: 32.0 -> 64.0"),
        ("lora", {"base": "other"}, "lora.base: base -> other"),
        ("lora", {"targets": "kernel"}, "lora.targets: query_key_value -> kernel"),
        ("model", {"d_model": 1536}, "model.d_model: 768 -> 1536"),
        ("data", {"held_out": 0.5}, "data.held_out: 0.01 -> 0.5"),
        ("train", {"seq_len": 8}, "train.seq_len: 512 -> 8"),
    ],
)
def test_a_run_does_not_become_another(workdir, section, fields, said):
    with pytest.raises(UserError, match=f"cannot go on with {said}"):
        start.check_same_run(workdir, changed(section, **fields))


def test_a_run_goes_on_with_what_is_not_its_nature(workdir):
    start.check_same_run(workdir, OLD)
    start.check_same_run(workdir, changed("lora", dropout=0.1))
    start.check_same_run(workdir, changed("train", steps=700, batch_size=32))


@pytest.mark.parametrize("rows, steps, warmup", [(160, 10, 1), (16, 1, 0), (64_000, 4000, 100)])
def test_epochs_are_counted_and_leave_the_rate_time_to_fall(rows, steps, warmup):
    config = dataclasses.replace(OLD, train=dataclasses.replace(OLD.train, epochs=1, batch_size=16))
    plan = SimpleNamespace(n_rows=rows)
    counted = start.counted(config, SimpleNamespace(plan=lambda epoch: plan))  # type: ignore
    assert (counted.train.steps, counted.optimizer.warmup_steps) == (steps, warmup)


def test_weights_in_4_bits_are_no_base_to_train_whole():
    kernel = np.ones((64, 64), np.float32)
    start.refuse_quantized({"a": kernel}, Path("base"))
    with pytest.raises(UserError, match="base are in 4 bits.*Train an adapter"):
        start.refuse_quantized({"a": quantize(kernel)}, Path("base"))

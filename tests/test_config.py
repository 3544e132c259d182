"""Configs check themselves, and survive JSON."""

import dataclasses
import json
import pkgutil

import pytest

import configs
from hybriko_jax.config import (
    DataConfig,
    HybriKoConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
    from_json,
    model_differences,
    nearest,
    to_json,
)
from hybriko_jax.errors import UserError
from launch.common import load_config

NAMES = [m.name for m in pkgutil.iter_modules(configs.__path__)]


@pytest.mark.parametrize("name", NAMES)
def test_out_and_back_is_identical(name):
    config = load_config(name)
    assert from_json(RunConfig, to_json(config)) == config


def test_an_unknown_config_gets_the_nearest_name():
    with pytest.raises(UserError, match=r"no configs/hybriko_117.py. Did you mean hybriko_117m\?"):
        load_config("hybriko_117")


def test_an_unknown_field_gets_the_nearest_name():
    text = json.dumps({"model": {"d_modle": 8}})
    with pytest.raises(UserError, match=r"no field 'd_modle'. Did you mean d_model\?"):
        from_json(RunConfig, text)


def test_names_without_a_near_one_are_listed():
    assert nearest("zzz", ["b", "a"]) == " Known: a, b."


@pytest.mark.parametrize(
    "make,message",
    [
        (
            lambda: RunConfig(train=TrainConfig(seq_len=9000)),
            "seq_len=9000 is longer",
        ),
        (
            lambda: RunConfig(
                train=TrainConfig(steps=5), optimizer=OptimizerConfig(warmup_steps=6)
            ),
            "warmup_steps=6 is more than train.steps=5",
        ),
        (lambda: TrainConfig(batch_size=6, accumulation=4), "batch_size=6 must be a multiple"),
        (lambda: TrainConfig(steps=0), "steps=0 must be positive"),
        (lambda: DataConfig(source=()), "source is empty"),
        (lambda: DataConfig(source=("a", "b"), weights=(1.0,)), "1 numbers for 2 sources"),
        (lambda: DataConfig(weights=(-1.0,)), "not negative"),
        (lambda: DataConfig(weights=(0.0,)), "not all 0"),
        (lambda: DataConfig(held_out=0.0), "held_out=0.0 must be between"),
        (lambda: OptimizerConfig(learning_rate=0.0), "learning_rate=0.0 must be positive"),
    ],
)
def test_impossible_values_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_differences_name_what_decides_the_parameters():
    old = HybriKoConfig()
    new = dataclasses.replace(old, d_model=384, dtype="bfloat16", remat=True)
    assert model_differences(old, new) == ["model.d_model: 768 -> 384"]

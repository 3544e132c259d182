"""Sampling keeps to its distribution; generation is the model's own."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybriko_jax.decode.generate import generate
from hybriko_jax.decode.sampling import sample
from hybriko_jax.models import build

LOGITS = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05]]))


def frequencies(**how):
    keys = jax.random.split(jax.random.key(0), 20_000)
    tokens = jax.jit(jax.vmap(lambda k: sample(k, LOGITS, **how)[0]))(keys)
    return np.bincount(tokens, minlength=4) / len(keys)


@pytest.mark.parametrize(
    "how,expected",
    [
        ({}, [0.5, 0.3, 0.15, 0.05]),
        ({"top_k": 2}, [0.625, 0.375, 0, 0]),
        ({"top_p": 0.7}, [0.625, 0.375, 0, 0]),
        ({"top_p": 0.1}, [1, 0, 0, 0]),
        ({"top_k": 3, "top_p": 0.45}, [1, 0, 0, 0]),
        ({"temperature": 0.5}, np.array([0.25, 0.09, 0.0225, 0.0025]) / 0.365),
        ({"temperature": 0}, [1, 0, 0, 0]),
    ],
)
def test_sampling_follows_its_distribution(how, expected):
    np.testing.assert_allclose(frequencies(**how), expected, atol=0.015)


@pytest.fixture
def model_and_params(small):
    model = build(small)
    tokens = jnp.zeros((1, 1), jnp.int32)
    params = nn.unbox(jax.jit(model.init)(jax.random.key(0), tokens, tokens))["params"]
    return model, params


def test_greedy_generation_repeats_the_full_forward(model_and_params):
    model, params = model_and_params
    prompt = [2, 17, 45, 8, 60]
    found = list(generate(model, params, prompt, 12, temperature=0))
    ids = np.array([*prompt, *found])[None]
    out, _ = model.apply({"params": params}, ids, np.arange(ids.shape[1])[None])
    assert found == out[0, len(prompt) - 1 : -1].argmax(axis=-1).tolist()


def test_a_stop_token_ends_and_is_not_given(model_and_params):
    model, params = model_and_params
    found = list(generate(model, params, [2, 5], 10, temperature=0))
    stop = found[4]
    assert (
        list(generate(model, params, [2, 5], 10, temperature=0, stop=(stop,)))
        == (found[: found.index(stop)])
    )


def test_a_seed_repeats_itself(model_and_params):
    model, params = model_and_params
    a, b, c = (list(generate(model, params, [2, 5], 20, seed=s)) for s in (1, 1, 2))
    assert a == b != c

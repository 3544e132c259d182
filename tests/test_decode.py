"""Sampling keeps to its distribution; generation is the model's own."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybriko_jax.decode.generate import continuations
from hybriko_jax.decode.prefix import load_prefix
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
    found = continuations(model, params, [prompt], 12, temperature=0)[0]
    ids = np.array([*prompt, *found])[None]
    out, _ = model.apply({"params": params}, ids, np.arange(ids.shape[1])[None])
    assert found == out[0, len(prompt) - 1 : -1].argmax(axis=-1).tolist()


def test_a_stop_token_ends_and_is_not_given(model_and_params):
    model, params = model_and_params
    found = continuations(model, params, [[2, 5]], 10, temperature=0)[0]
    stop = found[4]
    assert (
        continuations(model, params, [[2, 5]], 10, temperature=0, stop=(stop,))[0]
        == (found[: found.index(stop)])
    )


def test_every_row_answers_where_all_stop_at_once(model_and_params):
    model, params = model_and_params
    stop = tuple(range(model.config.vocab_size))
    assert continuations(model, params, [[2, 5], [2, 7]], 10, stop=stop) == [[], []]


def test_a_seed_repeats_itself(model_and_params):
    model, params = model_and_params
    a, b, c = (continuations(model, params, [[2, 5]], 20, seed=s) for s in (1, 1, 2))
    assert a == b != c


def test_rows_of_a_batch_do_not_know_of_each_other(model_and_params):
    model, params = model_and_params
    prompts = [[2, 17, 45, 8, 60], [2, 9], [2, 30, 31, 32]]
    together = continuations(model, params, prompts, 12, temperature=0)
    apart = [continuations(model, params, [p], 12, temperature=0)[0] for p in prompts]
    assert together == apart


def test_only_tokens_that_the_mask_allows_are_chosen(model_and_params):
    model, params = model_and_params
    allowed = [{33, 40}, {5}]

    def mask(last_B):
        bits_BN = np.zeros((2, -(-model.config.vocab_size // 32)), np.int32)
        for b, tokens in enumerate(allowed):
            for t in tokens:
                bits_BN[b, t // 32] |= 1 << t % 32
        return bits_BN

    found = continuations(model, params, [[2, 17], [2, 9]], 8, mask=mask)
    assert all(set(row) <= tokens for row, tokens in zip(found, allowed, strict=True))


def test_behind_a_kept_prefix_the_answer_is_the_same(model_and_params, tmp_path):
    model, params = model_and_params
    rng = np.random.default_rng(0)
    begin, prompt = rng.integers(1, 96, 9).tolist(), rng.integers(1, 96, 40).tolist()
    path = tmp_path / "prefix.npz"
    whole = continuations(model, params, [begin + prompt], 10, temperature=0)
    params = jax.tree.map(np.asarray, params)  # as a checkpoint gives them
    for _ in ("run", "read"):
        prefix = load_prefix(model, params, begin, path)
        assert continuations(model, params, [prompt], 10, temperature=0, prefix=prefix) == whole


def test_a_kept_prefix_of_other_weights_or_tokens_is_not_taken(model_and_params, tmp_path):
    model, params = model_and_params
    path = tmp_path / "prefix.npz"
    first = load_prefix(model, params, [2, 5], path)
    doubled = jax.tree.map(lambda p: 2 * p, params)
    for tokens, weights in (([2, 6], params), ([2, 5], doubled)):
        other = load_prefix(model, weights, tokens, path)
        a, b = (jax.tree.leaves(p.state)[0] for p in (first, other))
        assert np.abs(np.asarray(a) - np.asarray(b)).max() > 1e-6
    path.write_bytes(b"damaged")
    assert load_prefix(model, params, [2, 5], path).tokens == (2, 5)
    load_prefix(model, params, [2, 5], tmp_path / "no" / "folder.npz")  # cannot be kept

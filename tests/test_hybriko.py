"""The model as a whole: size, and the laws that training, packing and decoding rest on."""

import dataclasses
import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import hybriko_117m
from hybriko_jax.config import HybriKoConfig
from hybriko_jax.models import build, init_state
from hybriko_jax.sharding import AXIS_RULES
from hybriko_jax.training.state import param_count

OPTIONS = {
    "plain": {},
    "conv": {"conv_width": 4},
    "window": {"attention_window": 5},
    "soft cap": {"logits_soft_cap": 2.0},
    "untied": {"tie_embeddings": False},
    "silu": {"activation": "silu"},
    "associative": {"recurrence": "associative"},
    "remat": {"remat": True},
}


@pytest.fixture(params=OPTIONS)
def config(request, small):
    return dataclasses.replace(small, **OPTIONS[request.param])


def make(config, seed=0):
    model = build(config)
    tokens = jnp.zeros((1, 1), jnp.int32)
    params = nn.unbox(jax.jit(model.init)(jax.random.key(seed), tokens, tokens))["params"]
    # Norms and decays at their initial values would hide a mistake in them, and small
    # embeddings would make logits of order 0.1.
    keys = iter(jax.random.split(jax.random.key(1), 1000))
    params = jax.tree.map(
        lambda p: p + 0.3 * jax.random.normal(next(keys), p.shape) if p.ndim == 1 else p, params
    )
    for name in {"embedding", "head"} & params.keys():
        params[name] *= 10
    return model, params


def tokens_of(config, batch, length, seed=0):
    return np.random.default_rng(seed).integers(0, config.vocab_size, (batch, length), np.int32)


def positions_of(*lengths):
    return np.concatenate([np.arange(n, dtype=np.int32) for n in lengths])[None]


@functools.partial(jax.jit, static_argnums=0)
def logits(model, params, tokens, positions):
    return model.apply({"params": params}, tokens, positions)[0]


def test_the_default_has_117_793_536_parameters():
    for config in (HybriKoConfig(), hybriko_117m.config().model):
        tokens = jnp.zeros((1, 1), jnp.int32)
        shapes = jax.eval_shape(build(config).init, jax.random.key(0), tokens, tokens)
        assert param_count(shapes) == 117_793_536


def test_every_axis_has_a_rule(config):
    tokens = jnp.zeros((1, 1), jnp.int32)
    boxed = jax.eval_shape(build(config).init, jax.random.key(0), tokens, tokens)["params"]
    boxes = jax.tree.leaves(boxed, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned))
    letters = {letter for letter, _ in AXIS_RULES} | {None}
    for box in boxes:
        assert isinstance(box, nn.LogicallyPartitioned)
        assert set(box.names) <= letters


@pytest.mark.parametrize("option", ["conv", "window", "soft cap", "untied", "silu"])
def test_options_change_the_output(option, small):
    config = dataclasses.replace(small, **OPTIONS[option])
    tokens, positions = tokens_of(small, 1, 20), positions_of(20)
    base = logits(*make(small), tokens, positions)
    assert jnp.max(jnp.abs(logits(*make(config), tokens, positions) - base)) > 1e-3


@pytest.mark.parametrize("prefill", [1, 7, 20])
def test_cached_decoding_equals_the_full_forward(config, prefill):
    model, params = make(config)
    tokens, positions = tokens_of(config, 2, 24), np.tile(positions_of(24), (2, 1))
    full = logits(model, params, tokens, positions)
    assert 0.3 < jnp.std(full) < 30
    step = jax.jit(lambda t, p, s: model.apply({"params": params}, t, p, s))
    state = init_state(config, 2, 32)
    out, state = step(tokens[:, :prefill], positions[:, :prefill], state)
    parts = [out]
    for t in range(prefill, 24):
        out, state = step(tokens[:, t : t + 1], positions[:, t : t + 1], state)
        parts.append(out)
    chex.assert_trees_all_close(jnp.concatenate(parts, 1), full, rtol=0, atol=1e-5)


def test_packed_equals_apart(config):
    model, params = make(config)
    tokens = tokens_of(config, 1, 30)
    packed = logits(model, params, tokens, positions_of(11, 12, 7))
    begin = 0
    for n in (11, 12, 7):
        apart = logits(model, params, tokens[:, begin : begin + n], positions_of(n))
        chex.assert_trees_all_close(packed[:, begin : begin + n], apart, rtol=0, atol=1e-5)
        begin += n


def test_packed_documents_do_not_leak(config):
    """Changing one document changes not one bit of its neighbours."""
    model, params = make(config)
    apply = functools.partial(logits, model, params, positions=positions_of(11, 12, 7))
    tokens = tokens_of(config, 1, 30)
    before = apply(tokens=tokens)
    tokens = tokens.copy()  # the call above may not have read it yet
    tokens[:, 11:23] = (tokens[:, 11:23] + 1) % config.vocab_size
    after = apply(tokens=tokens)
    chex.assert_trees_all_equal(before[:, :11], after[:, :11])
    chex.assert_trees_all_equal(before[:, 23:], after[:, 23:])
    assert jnp.any(before[:, 11:23] != after[:, 11:23])


@pytest.mark.parametrize("changed", [1, 13, 29])
def test_a_future_token_changes_nothing_before_it(config, changed):
    model, params = make(config)
    apply = functools.partial(logits, model, params, positions=positions_of(30))
    tokens = tokens_of(config, 1, 30)
    before = apply(tokens=tokens)
    tokens = tokens.copy()  # the call above may not have read it yet
    tokens[0, changed] = (tokens[0, changed] + 1) % config.vocab_size
    after = apply(tokens=tokens)
    chex.assert_trees_all_equal(before[:, :changed], after[:, :changed])
    assert jnp.any(before[:, changed:] != after[:, changed:])


def test_left_padding_changes_nothing(config):
    """Pad tokens at position 0 are documents of their own, in the state too."""
    model, params = make(config)
    tokens = tokens_of(config, 1, 12)
    state = init_state(config, 1, 32)
    plain, plain_state = model.apply({"params": params}, tokens, positions_of(12), state)
    padded_tokens = np.pad(tokens, ((0, 0), (5, 0)), constant_values=3)
    padded_positions = np.pad(positions_of(12), ((0, 0), (5, 0)))
    padded, padded_state = model.apply(
        {"params": params}, padded_tokens, padded_positions, init_state(config, 1, 32)
    )
    chex.assert_trees_all_close(padded[:, 5:], plain, rtol=0, atol=1e-5)
    step = (tokens[:, :1], np.array([[12]]))
    next_plain, _ = model.apply({"params": params}, *step, plain_state)
    next_padded, _ = model.apply({"params": params}, *step, padded_state)
    chex.assert_trees_all_close(next_padded, next_plain, rtol=0, atol=1e-5)


def test_bfloat16_keeps_parameters_and_state_in_float32(small):
    config = dataclasses.replace(small, dtype="bfloat16")
    model, params = make(config)
    tokens, positions = tokens_of(config, 2, 16), np.tile(positions_of(16), (2, 1))
    out, state = model.apply({"params": params}, tokens, positions, init_state(config, 2, 16))
    dtypes = {a.dtype for a in jax.tree.leaves((params, state)) if a.ndim}
    assert dtypes == {jnp.dtype("float32")} and out.dtype == jnp.float32
    exact = logits(build(small), params, tokens, positions)
    assert 0 < jnp.max(jnp.abs(out - exact)) < 0.2


def test_bfloat16_gradients_come_from_float32_sums(small):
    """No product of the compiled step, forward or backward, has a bfloat16 result."""
    config = dataclasses.replace(small, dtype="bfloat16")
    model, params = make(config)
    tokens, positions = tokens_of(config, 2, 16), np.tile(positions_of(16), (2, 1))
    jaxpr = jax.make_jaxpr(jax.grad(lambda p: jnp.sum(logits(model, p, tokens, positions) ** 2)))(
        params
    )
    products = [e for e in _equations(jaxpr.jaxpr) if e.primitive.name == "dot_general"]
    assert len(products) > 50
    for product in products:
        assert {v.aval.dtype for v in product.invars} == {jnp.dtype("bfloat16")}
        assert product.outvars[0].aval.dtype == jnp.float32


def _equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from _equations(inner)


def test_remat_has_the_same_gradients(small):
    tokens, positions = tokens_of(small, 2, 16), np.tile(positions_of(16), (2, 1))

    def gradient(config):
        model, params = make(config)
        return jax.grad(lambda p: jnp.sum(logits(model, p, tokens, positions) ** 2))(params)

    chex.assert_trees_all_close(
        gradient(dataclasses.replace(small, remat=True)), gradient(small), rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize(
    "change,message",
    [
        ({"n_heads": 5}, "d_model=32 must be n_heads=5"),
        ({"n_kv_heads": 3}, "n_heads=4 must be a multiple of n_kv_heads=3"),
        ({"n_layers": 0}, "n_layers=0 must be positive"),
        ({"pattern": ()}, "must name at least one"),
        ({"attention_window": 0}, "attention_window=0 must be positive"),
        ({"logits_soft_cap": -1.0}, "logits_soft_cap=-1.0 must be positive"),
    ],
)
def test_impossible_sizes_are_refused(small, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(small, **change)

"""The recurrence against its definition; its gradient against one worked out by hand."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybriko_jax.layers.rg_lru import RGLRU, init_lambda, linear_recurrence, rg_lru
from tests import reference

KINDS = ("loop", "associative", "auto")


def inputs(length, batch=3, width=8, seed=0):
    rng = np.random.default_rng(seed)
    shape = (batch, length, width)
    starts = rng.random((batch, length)) < 0.05
    return (
        rng.uniform(-1, 1, shape).astype(np.float32),
        rng.uniform(0, 1, shape).astype(np.float32),
        rng.uniform(0, 1, shape).astype(np.float32),
        np.asarray(init_lambda(jax.random.key(seed), (width,))),
        starts,
        rng.uniform(-1, 1, (batch, width)).astype(np.float32),
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 2, 7, 64, 4096])
def test_equals_its_definition(length, kind):
    args = inputs(length)
    expected = reference.rg_lru_loop(*args)
    h_BLW, h_BW = jax.jit(rg_lru, static_argnums=6)(*args, kind)
    chex.assert_trees_all_close(h_BLW, expected.astype(np.float32), rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_equal(h_BW, h_BLW[:, -1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 5, 256, 4096])
def test_gradient_equals_the_loop(length, kind):
    rng = np.random.default_rng(1)
    a_BLW = rng.uniform(0, 1, (2, length, 4)).astype(np.float32)
    b_BLW, g_BLW = rng.uniform(-1, 1, (2, 2, length, 4)).astype(np.float32)
    h0_BW = rng.uniform(-1, 1, (2, 4)).astype(np.float32)
    primal = jax.tree.map(jnp.asarray, (a_BLW, b_BLW, h0_BW))
    _, pull_back = jax.vjp(lambda a, b, h: linear_recurrence(a, b, h, kind), *primal)
    expected = reference.recurrence_gradients_loop(a_BLW, b_BLW, h0_BW, g_BLW)
    expected = jax.tree.map(lambda e: e.astype(np.float32), expected)
    chex.assert_trees_all_close(pull_back(jnp.asarray(g_BLW)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["loop", "associative"])
def test_gradient_equals_finite_differences(kind):
    args = inputs(12)

    def loss(x, r, i, lam, h0):
        h_BLW, h_BW = rg_lru(x, r, i, lam, args[4], h0, kind)
        return jnp.sum(jnp.sin(h_BLW)) + jnp.sum(h_BW**2)

    primal = (*args[:4], args[5])
    gradients = jax.grad(loss, argnums=(0, 1, 2, 3, 4))(*primal)
    for n, gradient in enumerate(gradients):
        direction = np.random.default_rng(n).normal(size=gradient.shape).astype(np.float32)

        def along(eps, n=n, direction=direction):
            moved = [p + eps * direction if i == n else p for i, p in enumerate(primal)]
            # The definition in float64: float32 differences would drown in rounding.
            h_BLW = reference.rg_lru_loop(*moved[:4], args[4], moved[4])
            return np.sum(np.sin(h_BLW)) + np.sum(h_BLW[:, -1] ** 2)

        expected = (along(1e-3) - along(-1e-3)) / 2e-3
        assert np.sum(gradient * direction) == pytest.approx(expected, rel=2e-3, abs=2e-3)


class Variants(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True, with_device=True)
    def test_compiled_or_not_it_is_the_definition(self):
        for kind in ("loop", "associative"):
            args = inputs(20)
            h_BLW, h_BW = self.variant(lambda *a, kind=kind: rg_lru(*a, kind))(*args)
            expected = reference.rg_lru_loop(*args).astype(np.float32)
            chex.assert_trees_all_close(h_BLW, expected, rtol=1e-4, atol=1e-5)
            chex.assert_trees_all_close(h_BW, expected[:, -1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["loop", "associative"])
def test_split_equals_whole(kind):
    x, r, i, lam, starts, h0 = inputs(40)
    whole, last = rg_lru(x, r, i, lam, starts, h0, kind)
    left, h = rg_lru(x[:, :17], r[:, :17], i[:, :17], lam, starts[:, :17], h0, kind)
    right, h = rg_lru(x[:, 17:], r[:, 17:], i[:, 17:], lam, starts[:, 17:], h, kind)
    chex.assert_trees_all_close(jnp.concatenate([left, right], 1), whole, rtol=1e-6, atol=1e-6)
    chex.assert_trees_all_close(h, last, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["loop", "associative"])
def test_nothing_crosses_a_start(kind):
    x, r, i, lam, _, h0 = inputs(30)
    starts = np.zeros((3, 30), bool)
    starts[:, 11] = True
    before = rg_lru(x, r, i, lam, starts, h0, kind)[0]
    x = np.where(np.arange(30)[None, :, None] < 11, np.float32(1e6), x)
    after = rg_lru(x, r, i, lam, starts, 1e6 * h0, kind)[0]
    chex.assert_trees_all_equal(before[:, 11:], after[:, 11:])


@pytest.mark.parametrize("gate", [0.0, 1.0])
@pytest.mark.parametrize("decay", [-100.0, 0.0, 100.0])
def test_gradients_are_finite_with_closed_and_open_gates(gate, decay):
    x, _, _, _, starts, h0 = inputs(50)
    gates = np.full(x.shape, gate, np.float32)
    lam = np.full(x.shape[-1], decay, np.float32)
    gradients = jax.grad(
        lambda *args: jnp.sum(rg_lru(*args[:4], starts, args[4])[0]), argnums=(0, 1, 2, 3, 4)
    )(x, gates, gates, lam, h0)
    chex.assert_tree_all_finite(gradients)


def test_initial_decay_is_uniform(key):
    decay = np.asarray(jax.nn.sigmoid(init_lambda(key, (20_000,)))) ** 8.0
    assert 0.9 <= decay.min() < 0.901 and 0.998 < decay.max() <= 0.999 + 1e-6
    quartiles = np.quantile(decay, [0.25, 0.5, 0.75])
    np.testing.assert_allclose(quartiles, [0.92475, 0.9495, 0.97425], atol=2e-3)


@pytest.mark.parametrize("platform,expected", [("cpu", False), ("cuda", True), ("tpu", True)])
def test_the_platform_compiled_for_decides(platform, expected):
    """A CPU host lowers for GPUs too; there the recurrence is no loop over time."""
    shape = jax.ShapeDtypeStruct((2, 64, 8), jnp.float32)
    last = jax.ShapeDtypeStruct((2, 8), jnp.float32)
    exported = jax.export.export(jax.jit(linear_recurrence), platforms=[platform])(
        shape, shape, last
    )
    assert ("while" not in exported.mlir_module()) == expected


def test_layer_equals_recurrent_gemma():
    """transformers has block-diagonal gates with biases: one block without bias is ours."""
    torch = pytest.importorskip("torch")
    modeling = pytest.importorskip("transformers.models.recurrent_gemma.modeling_recurrent_gemma")
    transformers = pytest.importorskip("transformers")
    width, length = 16, 48
    config = transformers.RecurrentGemmaConfig(
        lru_width=width, hidden_size=width, num_attention_heads=1
    )
    theirs = modeling.RecurrentGemmaRglru(config)
    ours = RGLRU()
    rng = np.random.default_rng(3)
    x_BLW = rng.normal(size=(2, length, width)).astype(np.float32)
    positions_BL = np.stack([np.arange(length), np.r_[np.arange(20), np.arange(length - 20)]])
    h0_BW = np.zeros((2, width), np.float32)
    starts_BL = positions_BL == 0
    variables = ours.init(jax.random.key(0), x_BLW, starts_BL, h0_BW)
    variables = jax.tree.map(np.asarray, nn.unbox(variables))
    params = variables["params"]
    with torch.no_grad():
        # They decay by softplus(p), we by softplus(-lambda).
        theirs.recurrent_param.copy_(torch.tensor(-params["lambda"]))
        theirs.input_gate_weight.copy_(torch.tensor(params["input_gate"]["kernel"])[None])
        theirs.recurrent_gate_weight.copy_(torch.tensor(params["recurrence_gate"]["kernel"])[None])
        theirs.input_gate_bias.zero_()
        theirs.recurrent_gate_bias.zero_()
        expected = theirs(torch.tensor(x_BLW), torch.tensor(positions_BL)).numpy()
    actual, _ = ours.apply(variables, x_BLW, starts_BL, h0_BW)
    chex.assert_trees_all_close(np.asarray(actual), expected, rtol=0, atol=1e-5)

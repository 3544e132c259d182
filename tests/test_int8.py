"""Eight bits: exact where the numbers are, within the bound of its roundings elsewhere."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybriko_jax import int8
from hybriko_jax.console import load
from hybriko_jax.decode.translate import Translator, translate
from hybriko_jax.errors import UserError
from hybriko_jax.models import build

SHIPPED = Path(__file__).parent.parent / "checkpoints/neox-mini-koen"


def test_whole_numbers_are_multiplied_exactly():
    rng = np.random.default_rng(0)
    x_BLD = rng.integers(-127, 128, (2, 3, 512)).astype(np.float32)
    kernel_DF = rng.integers(-127, 128, (512, 40)).astype(np.float32)
    x_BLD[..., 0], kernel_DF[0] = 127, -127  # the scales are 1
    leaf = int8.quantize(kernel_DF)
    np.testing.assert_array_equal(int8.product(jnp.asarray(x_BLD), leaf), x_BLD @ kernel_DF)
    np.testing.assert_array_equal(leaf.codes_FD.T * leaf.scale_F, kernel_DF)


def test_errors_stay_within_half_a_unit_of_each_operand():
    rng = np.random.default_rng(1)
    x_BLD = rng.normal(size=(1, 7, 256)) * rng.lognormal(size=(1, 7, 1))
    kernel_DF = rng.normal(size=(256, 30)) * rng.lognormal(size=30)
    x_unit = np.abs(x_BLD).max(-1, keepdims=True) / 127 / 2
    kernel_unit = np.abs(kernel_DF).max(0) / 127 / 2
    bound = np.abs(x_BLD).sum(-1, keepdims=True) * kernel_unit
    bound += x_unit * np.abs(kernel_DF).sum(0) + 256 * x_unit * kernel_unit
    leaf = int8.quantize(kernel_DF.astype(np.float32))
    found = np.asarray(int8.product(jnp.asarray(x_BLD, jnp.float32), leaf))
    error = np.abs(found - x_BLD @ kernel_DF)
    assert (error <= 1.001 * bound).all()  # float32 rounds, too
    assert leaf.shape == (256, 30) and leaf.codes_FD.dtype == np.int8


def test_rows_do_not_depend_on_each_other():
    """One row alone takes another way through the compiler."""
    x_BLD = jax.random.normal(jax.random.key(0), (3, 5, 128))
    leaf = int8.quantize(np.random.default_rng(0).normal(size=(128, 64)))
    together = np.asarray(int8.product(x_BLD, leaf))
    for b, n in np.ndindex(3, 5):
        alone = np.asarray(int8.product(x_BLD[b : b + 1, n : n + 1], leaf))
        np.testing.assert_allclose(alone[0, 0], together[b, n], rtol=1e-6)


def test_zeros_are_zeros():
    leaf = int8.quantize(np.zeros((64, 8)))
    assert not np.asarray(int8.product(jnp.ones((1, 2, 64)), leaf)).any()
    assert not np.asarray(int8.product(jnp.zeros((1, 2, 64)), int8.quantize(np.eye(64)))).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_damaged_weights_are_refused(bad):
    kernel_DF = np.ones((64, 8))
    kernel_DF[3, 3] = bad
    with pytest.raises(UserError, match="NaN or infinite weights"):
        int8.quantize(kernel_DF)


def test_the_shipped_translator_is_much_the_same_in_a_quarter_of_the_memory():
    whole, small = load.checkpoint(SHIPPED), load.checkpoint(SHIPPED, kept="int8")
    ours = jax.tree.leaves(small.params, is_leaf=lambda leaf: isinstance(leaf, int8.Int8))
    kernels = [leaf for leaf in ours if isinstance(leaf, int8.Int8)]
    assert len(kernels) == 4 * whole.config.n_layers
    n_bytes = sum(a.nbytes for a in jax.tree.leaves(kernels))
    assert n_bytes < 0.26 * sum(4 * np.prod(leaf.shape) for leaf in kernels)
    text = "### 영어: This function returns the name of the file.</끝>\n### 한국어: 이 함수는 파일"
    tokens_BL = np.array([whole.tokenizer.encode(text)], np.int32)
    positions_BL = np.arange(tokens_BL.shape[1], dtype=np.int32)[None]
    logits = [
        np.asarray(build(m.config).apply({"params": m.params}, tokens_BL, positions_BL)[0])
        for m in (whole, small)
    ]
    p = [jax.nn.log_softmax(a, axis=-1) for a in logits]
    divergence = float((jnp.exp(p[0]) * (p[0] - p[1])).sum(-1).mean())
    assert divergence < 0.01  # nats a token
    translator = Translator(build(small.config), small.params, small.tokenizer)
    (found,) = translate(translator, ["This function returns the name of the file."], "en", "ko")
    assert "파일" in found.text

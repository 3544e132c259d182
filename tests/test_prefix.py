"""A shared prompt: run once for the batch, it gives the loss and gradients of one per sample."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybriko_jax.data.batch import Batch
from hybriko_jax.models import build
from hybriko_jax.training.step import loss_sums


@pytest.mark.parametrize("prompt", [1, 7, pytest.param(20, marks=pytest.mark.slow)])
def test_shared_prefix_is_the_prefix_in_every_row(small, prompt):
    model, rng = build(small), np.random.default_rng(0)
    tokens = jnp.zeros((1, 1), jnp.int32)
    params = nn.unbox(jax.jit(model.init)(jax.random.key(0), tokens, tokens))["params"]
    B, L = 3, 16
    prefix_P = rng.integers(1, 96, prompt)
    rows_BL = rng.integers(1, 96, (B, L))
    lengths = np.array([16, 9, 5])
    real_BL = np.arange(L) < lengths[:, None]
    mask_BL = real_BL & (np.arange(L) > 2)

    def shared(params):
        positions_BL = np.where(real_BL, np.arange(L), 0)
        batch = Batch(rows_BL, positions_BL, mask_BL)
        return loss_sums(model, params, batch, chunk=8, prefix_P=prefix_P)[0]

    def apart(params):
        tokens_BL = np.concatenate([np.tile(prefix_P, (B, 1)), rows_BL], axis=1)
        real = np.concatenate([np.ones((B, prompt), bool), real_BL], axis=1)
        positions_BL = np.where(real, np.arange(prompt + L), 0)
        mask = np.concatenate([np.zeros((B, prompt), bool), mask_BL], axis=1)
        return loss_sums(model, params, Batch(tokens_BL, positions_BL, mask), chunk=8)[0]

    (a, da), (b, db) = (jax.jit(jax.value_and_grad(f))(params) for f in (shared, apart))
    np.testing.assert_allclose(a, b, rtol=1e-6)
    for x, y in zip(jax.tree.leaves(da), jax.tree.leaves(db), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)

"""Cross entropy and its hand-made gradient against a loop and against autodiff."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybriko_jax.sharding import make_mesh
from hybriko_jax.training.loss import next_token_loss
from tests import reference


def inputs(batch=3, length=10, width=8, vocab=17):
    rng = np.random.default_rng(0)
    return (
        rng.normal(size=(batch, length, width)).astype(np.float32),
        rng.normal(size=(vocab, width)).astype(np.float32),
        rng.integers(0, vocab, (batch, length)),
        rng.random((batch, length)) < 0.7,
    )


@pytest.mark.parametrize("chunk", [3, 5, 512])
@pytest.mark.parametrize("soft_cap,z_loss", [(None, 0.0), (2.0, 0.0), (None, 0.1), (3.0, 0.1)])
def test_equals_a_loop(chunk, soft_cap, z_loss):
    x, kernel, tokens, weights = inputs()
    expected = reference.cross_entropy_loop(x @ kernel.T, tokens, weights, soft_cap, z_loss)
    actual = next_token_loss(
        x, kernel, tokens, weights, soft_cap=soft_cap, z_loss=z_loss, chunk=chunk
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.parametrize("chunk", [3, 512])
@pytest.mark.parametrize("soft_cap,z_loss", [(None, 0.0), (2.0, 0.1)])
def test_gradient_equals_autodiff(chunk, soft_cap, z_loss):
    x, kernel, tokens, weights = inputs()

    def plain(x, kernel):
        logits = x @ kernel.T
        if soft_cap:
            logits = soft_cap * jnp.tanh(logits / soft_cap)
        lse = jax.nn.logsumexp(logits[:, :-1], axis=-1)
        hit = jnp.take_along_axis(logits[:, :-1], tokens[:, 1:, None], -1)[..., 0]
        return 0.3 * jnp.sum(weights[:, 1:] * (lse - hit + z_loss * lse**2))

    def ours(x, kernel):
        how = {"soft_cap": soft_cap, "z_loss": z_loss, "chunk": chunk}
        return 0.3 * next_token_loss(x, kernel, tokens, weights, **how)[0]

    chex.assert_trees_all_close(
        jax.grad(ours, (0, 1))(x, kernel), jax.grad(plain, (0, 1))(x, kernel), rtol=1e-4, atol=1e-5
    )


def test_masked_targets_do_not_count():
    x, kernel, tokens, weights = inputs()
    before = next_token_loss(x, kernel, tokens, weights)
    tokens = np.where(weights, tokens, (tokens + 1) % len(kernel))
    tokens[:, 0] = 0  # a row's first token is no target whatever its weight
    chex.assert_trees_all_equal(next_token_loss(x, kernel, tokens, weights), before)


def test_shards_of_the_batch_add_up():
    x, kernel, tokens, weights = inputs(batch=8)
    loss = lambda x, k: next_token_loss(x, k, tokens, weights, chunk=4)[0]  # noqa: E731
    alone = jax.value_and_grad(loss, (0, 1))(x, kernel)
    with jax.set_mesh(make_mesh("data=2,fsdp=2,tensor=2")):
        chex.assert_trees_all_close(
            jax.jit(jax.value_and_grad(loss, (0, 1)))(x, kernel), alone, rtol=1e-5, atol=1e-5
        )

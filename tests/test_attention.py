"""Attention against a loop over queries and heads; RoPE against rotation pair by pair."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from hybriko_jax.errors import UserError
from hybriko_jax.layers import attention
from hybriko_jax.layers.attention import KVCache, attend, attend_causally, make_room
from hybriko_jax.layers.rope import rope_angles, rotate
from tests import reference


def packed_positions(length, starts):
    """Positions of a row whose documents begin at `starts` (the first begins the row)."""
    return np.concatenate(
        [np.arange(b - a) for a, b in zip(starts, [*starts[1:], length], strict=True)]
    ).astype(np.int32)


def inputs(length, seed=0):
    rng = np.random.default_rng(seed)
    q_BLHK = rng.normal(size=(2, length, 4, 6)).astype(np.float32)
    k_BLGK, v_BLGK = rng.normal(size=(2, 2, length, 2, 6)).astype(np.float32)
    rows = [packed_positions(length, [0]), packed_positions(length, [0, length // 3, length - 2])]
    return q_BLHK, k_BLGK, v_BLGK, np.stack(rows)


@pytest.mark.parametrize("window", [1, 5, 1000])
@pytest.mark.parametrize("length", [4, 33])
def test_equals_a_loop(length, window):
    q, k, v, positions = inputs(length)
    expected = reference.attention_loop(q, k, v, reference.documents_of(positions), window)
    y = attend(q, k, v, positions, 0, window, "float32")
    chex.assert_trees_all_close(np.asarray(y), expected.astype(np.float32), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("window", [3, 20, 1000])
@pytest.mark.parametrize("length", [7, 64, 100])
def test_blocks_equal_the_whole(monkeypatch, length, window):
    monkeypatch.setattr(attention, "MIN_BLOCK", 16)
    q, k, v, positions = inputs(length)
    chex.assert_trees_all_close(
        attend_causally(q, k, v, positions, window, "float32"),
        attend(q, k, v, positions, 0, window, "float32"),
        rtol=1e-5,
        atol=1e-6,
    )


def test_keys_beyond_the_queries_are_not_seen():
    q, k, v, positions = inputs(9)
    y = attend(q[:, 4:6], k, v, positions[:, 4:6], 4, 1000, "float32")
    k, v = k.copy(), v.copy()  # the call above may not have read them yet
    k[:, 6:], v[:, 6:] = 1e3, 1e6
    chex.assert_trees_all_equal(y, attend(q[:, 4:6], k, v, positions[:, 4:6], 4, 1000, "float32"))


def test_bfloat16_is_near():
    q, k, v, positions = inputs(33)
    exact = attend(q, k, v, positions, 0, 1000, "float32")
    y = attend(q, k, v, positions, 0, 1000, "bfloat16")
    assert y.dtype == jnp.float32
    chex.assert_trees_all_close(y, exact, atol=3e-2)


def test_room_is_made_by_forgetting_the_oldest():
    k_BMGK = jnp.arange(8.0)[None, :, None, None]
    cache = KVCache(k_BMGK, -k_BMGK, jnp.int32(7))
    roomy = make_room(cache, 4)
    assert roomy.length == 4
    np.testing.assert_array_equal(roomy.k_BMGK[0, :4, 0, 0], [3, 4, 5, 6])
    np.testing.assert_array_equal(roomy.v_BMGK[0, :4, 0, 0], [-3, -4, -5, -6])
    chex.assert_trees_all_equal(make_room(cache, 1), cache)


def test_rope_equals_its_definition():
    rng = np.random.default_rng(0)
    x_BLHK = rng.normal(size=(2, 5, 3, 8)).astype(np.float32)
    positions_BL = np.array([[0, 1, 2, 3, 4], [7, 0, 1, 1000, 2]])
    y_BLHK = rotate(jnp.asarray(x_BLHK), rope_angles(jnp.asarray(positions_BL), 8))
    for b, t, h in np.ndindex(2, 5, 3):
        expected = reference.rotate_pairs(x_BLHK[b, t, h], positions_BL[b, t])
        np.testing.assert_allclose(y_BLHK[b, t, h], expected, atol=1e-4)


def test_an_odd_head_is_refused():
    with pytest.raises(UserError, match="head_size=7 must be even"):
        rope_angles(jnp.zeros((1, 1)), 7)

"""Keys and values of hypotheses that share their beginnings."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from hybriko_jax.layers.attention import KVCache


@flax.struct.dataclass
class BeamCache:
    """Of each of B prompts, and of N beams behind it, with one more token a beam at each step.

    What beams have in common is kept once: the prompt, and the tokens of a hypothesis that several
    go on from. When beams change places, only `seen_BNM` does.
    """

    k_BGKM: jax.Array
    """Keys, rotated. The N tokens of a step stand side by side, behind the prompt."""
    v_BGMK: jax.Array
    seen_BNM: jax.Array
    """Which slots are a beam's own past."""
    prompt: jax.Array
    """Slots of the prompt, its padding included; int32 scalar."""
    length: jax.Array
    """Slots in use; int32 scalar."""

    def attend(
        self, q_XLHK: jax.Array, k_XLGK: jax.Array, v_XLGK: jax.Array, window: int
    ) -> tuple[jax.Array, BeamCache]:
        """Attention of the next token of every beam, L = 1, to its past and itself.

        Args:
          q_XLHK, k_XLGK, v_XLGK: rotated, in float32; X = B N rows, prompt by prompt.
          window: how many tokens a query sees, itself included.

        Returns:
          y_XLHK, and the cache with these tokens in it.
        """
        B, N, M = self.seen_BNM.shape
        X, _, H, K = q_XLHK.shape
        G = k_XLGK.shape[2]
        new_BNGK, new_v_BNGK = k_XLGK.reshape(B, N, G, K), v_XLGK.reshape(B, N, G, K)
        k_BGKM = _put(self.k_BGKM, new_BNGK.transpose(0, 2, 3, 1), self.length, axis=3)
        v_BGMK = _put(self.v_BGMK, new_v_BNGK.transpose(0, 2, 1, 3), self.length, axis=2)
        slot_M = jnp.arange(M)
        seen_BNM = self.seen_BNM | (slot_M == self.length + jnp.arange(N)[:, None])
        # In steps, of which a token of the prompt takes one, and N tokens of beams take one.
        step_M = jnp.where(slot_M < self.prompt, slot_M - self.prompt, (slot_M - self.prompt) // N)
        near_M = (self.length - self.prompt) // N - step_M < window

        q_BGNRK = q_XLHK.reshape(B, N, G, H // G, K).transpose(0, 2, 1, 3, 4) * K**-0.5
        logits_BGNRM = _product(q_BGNRK, k_BGKM)
        visible_BNM = seen_BNM & near_M
        logits_BGNRM = jnp.where(visible_BNM[:, None, :, None], logits_BGNRM, -1e30)
        p_BGNRM = jax.nn.softmax(logits_BGNRM, axis=-1)
        y_BGNRK = _product(p_BGNRM, v_BGMK)
        y_XLHK = y_BGNRK.transpose(0, 2, 1, 3, 4).reshape(X, 1, H, K)
        return y_XLHK, BeamCache(k_BGKM, v_BGMK, seen_BNM, self.prompt, self.length + N)

    def reordered(self, parent_BN: jax.Array) -> BeamCache:
        """Each beam with the past of the one it goes on from."""
        seen_BNM = jnp.take_along_axis(self.seen_BNM, parent_BN[..., None], axis=1)
        return dataclasses.replace(self, seen_BNM=seen_BNM)

    def widened(self, capacity: int) -> BeamCache:
        """With at least so many slots."""
        room = (0, max(capacity - self.seen_BNM.shape[2], 0))
        none = (0, 0)
        return dataclasses.replace(
            self,
            k_BGKM=jnp.pad(self.k_BGKM, (none, none, none, room)),
            v_BGMK=jnp.pad(self.v_BGMK, (none, none, room, none)),
            seen_BNM=jnp.pad(self.seen_BNM, (none, none, room)),
        )


def beam_cache(cache: KVCache, length_B: jax.Array, beams: int) -> BeamCache:
    """The cache of beams behind prompts that end in its last slot.

    Args:
      cache: full.
      length_B: tokens of each prompt, padding before them not counted.
    """
    B, M = cache.k_BMGK.shape[:2]
    seen_BM = jnp.arange(M) >= M - length_B[:, None]
    return BeamCache(
        cache.k_BMGK.transpose(0, 2, 3, 1),
        cache.v_BMGK.transpose(0, 2, 1, 3),
        jnp.broadcast_to(seen_BM[:, None], (B, beams, M)),
        cache.length,
        cache.length,
    )


def _product(a_BGNRX: jax.Array, b_BGXY: jax.Array) -> jax.Array:
    """c_BGNRY, the product of two matrices for each B and G."""
    # Written as sums of long vectors: B G small products of matrices cost more, since on a CPU the
    # time goes into starting each. One vector alone XLA would sum number by number, 30 times
    # slower, so it is given a twin.
    N = a_BGNRX.shape[2]
    if a_BGNRX.shape[2:4] == (1, 1):
        a_BGNRX = jnp.concatenate([a_BGNRX, a_BGNRX], axis=2)
    return (a_BGNRX[..., None] * b_BGXY[:, :, None, None]).sum(axis=4)[:, :, :N]


def _put(old: jax.Array, new: jax.Array, at: jax.Array, axis: int) -> Any:
    return jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), at, axis)

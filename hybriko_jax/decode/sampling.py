"""The next token from logits."""

import jax
import jax.numpy as jnp


def sample(
    key: jax.Array,
    logits_BV: jax.Array,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> jax.Array:
    """A token a row.

    Args:
      key: PRNG key; not used where temperature is 0.
      logits_BV: of the next token.
      temperature: 0 takes the likeliest token.
      top_k: draw among the k likeliest only; 0 is all.
      top_p: draw among the likeliest that together reach this probability; 1 is all.

    Returns:
      token_B, int32.

    Source: nucleus sampling, arXiv:1904.09751.
    """
    if temperature == 0:
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    logits_BV = logits_BV / temperature
    if top_k or top_p < 1:
        sorted_BV = -jnp.sort(-logits_BV, axis=-1)
        rank_V = jnp.arange(logits_BV.shape[-1])
        p_BV = jax.nn.softmax(sorted_BV, axis=-1)
        # The first token is always kept: nothing comes before it.
        kept_BV = jnp.cumsum(p_BV, axis=-1) - p_BV < top_p
        if top_k:
            kept_BV &= rank_V < top_k
        least_B1 = jnp.min(jnp.where(kept_BV, sorted_BV, jnp.inf), axis=-1, keepdims=True)
        logits_BV = jnp.where(logits_BV >= least_B1, logits_BV, -jnp.inf)
    return jax.random.categorical(key, logits_BV).astype(jnp.int32)

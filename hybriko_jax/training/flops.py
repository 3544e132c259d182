"""Arithmetic of a model, by hand: the measure that tokens a second are held against."""

from hybriko_jax.config import GPTNeoXConfig, ModelConfig


def matmul_flops_per_token(config: ModelConfig, seq_len: int) -> float:
    """Floating-point operations of the matrix products of one token in training.

    Forward and both backward products; attention counts the causal half of its L x L square.
    Recomputation by remat is not counted, so MFU falls with it.
    """
    d, f = config.d_model, config.d_ff
    context = sum(min(t + 1, config.window) for t in range(seq_len)) / seq_len
    if isinstance(config, GPTNeoXConfig):
        layer = 4 * d * d + 2 * d * f + 2 * d * context
        return 3 * 2 * (config.vocab_size * d + config.n_layers * layer)
    kv = config.n_kv_heads * config.head_size
    mlp = 3 * d * f
    griffin = 5 * d * d + mlp
    attention = 2 * d * d + 2 * d * kv + mlp
    products = config.vocab_size * d
    for kind in config.layer_types:
        products += griffin if kind == "griffin" else attention + 2 * d * context
    return 3 * 2 * products

"""Configuration of HybriKo in plain PyTorch."""

from dataclasses import dataclass


@dataclass
class HybriKoConfig:
    """Sizes of the model; the defaults are HybriKo-117M's."""

    d_model: int = 768
    n_layers: int = 12
    vocab_size: int = 32000
    n_heads: int = 12
    """Query heads."""
    n_kv_heads: int = 3
    """Key and value heads, each shared by n_heads / n_kv_heads query heads."""
    ff_mult: int = 3
    """Width of the gated MLP, over d_model."""
    max_seq_len: int = 6144
    """Most tokens that a query sees, itself included."""

"""Eight virtual CPU devices, set before JAX starts."""

import os
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUM_CPU_DEVICES"] = "8"

import jax
import pytest

from hybriko_jax.config import HybriKoConfig
from hybriko_jax.tokenizer import SentencePiece


@pytest.fixture
def small() -> HybriKoConfig:
    """Every kind of layer, and small; sizes divide over two devices an axis."""
    return HybriKoConfig(
        vocab_size=96, d_model=32, n_layers=3, n_heads=4, n_kv_heads=2, max_seq_len=64
    )


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)


@pytest.fixture(scope="session")
def mini_tokenizer() -> SentencePiece:
    """The tokenizer of the small model that ships."""
    return SentencePiece(Path(__file__).parent.parent / "checkpoints/hybriko-mini/tokenizer.model")

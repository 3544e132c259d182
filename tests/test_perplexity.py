"""Bits per byte against a token-by-token sum, for short and long documents."""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybriko_jax.data.sample import sample_documents
from hybriko_jax.errors import UserError
from hybriko_jax.evaluate.perplexity import perplexity
from hybriko_jax.models import build
from hybriko_jax.tokenizer import train_sentencepiece

TEXTS = list(sample_documents(40))


@pytest.fixture(scope="module")
def tokenizer():
    return train_sentencepiece(TEXTS, 1300)


def make(small, **changes):
    model = build(dataclasses.replace(small, vocab_size=1300, **changes))
    tokens = jnp.zeros((1, 1), jnp.int32)
    params = nn.unbox(jax.jit(model.init)(jax.random.key(0), tokens, tokens))["params"]
    params["embedding"] *= 20
    return model, params


def nats_apart(model, params, tokenizer, text):
    """One document by itself, in one call."""
    ids = np.array([tokenizer.bos_id, *tokenizer.encode(text)], np.int32)[None]
    out, _ = model.apply({"params": params}, ids[:, :-1], np.arange(ids.shape[1] - 1)[None])
    log_p = jax.nn.log_softmax(out)
    return -float(jnp.take_along_axis(log_p, ids[:, 1:, None], -1).sum())


def test_equals_a_sum_over_documents(small, tokenizer):
    model, params = make(small, max_seq_len=1024)
    result = perplexity(model, params, tokenizer, TEXTS[:8])
    expected = sum(nats_apart(model, params, tokenizer, t) for t in TEXTS[:8])
    assert result.nats == pytest.approx(expected, rel=1e-5)
    assert result.tokens == sum(len(tokenizer.encode(t)) for t in TEXTS[:8])
    assert result.bytes == sum(len(t.encode()) for t in TEXTS[:8])
    assert result.bits_per_byte == pytest.approx(expected / math.log(2) / result.bytes, rel=1e-5)


@pytest.mark.parametrize("conv_width", [0, 3])
def test_long_documents_carry_their_state_on(small, tokenizer, conv_width):
    """In pieces of 64 tokens or in one call, attention looks back 64 tokens."""
    text = "\n".join(TEXTS[:3])
    model, params = make(small, max_seq_len=64, conv_width=conv_width)
    assert len(tokenizer.encode(text)) > 300
    # The same window, but rows long enough for the whole.
    whole, _ = make(small, max_seq_len=4096, attention_window=64, conv_width=conv_width)
    result = perplexity(model, params, tokenizer, [text, TEXTS[5][:40]])
    expected = sum(nats_apart(whole, params, tokenizer, t) for t in (text, TEXTS[5][:40]))
    assert result.nats == pytest.approx(expected, rel=1e-5)


def test_no_text_is_refused(small, tokenizer):
    with pytest.raises(UserError, match="every document is empty"):
        perplexity(*make(small), tokenizer, ["", ""])

"""Beam search is transformers' beam search, and an exhaustive one where there are beams enough."""

import dataclasses
import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from hybriko_jax.config import GPTNeoXConfig
from hybriko_jax.convert.folder import load_folder
from hybriko_jax.decode.beam import beam_search
from hybriko_jax.decode.generate import continuations
from hybriko_jax.decode.texts import stop_table
from hybriko_jax.models import build

VOCAB, PAD = 400, 0
EOS = list(range(5, 30))
SIZES: dict[str, Any] = dict(
    vocab_size=VOCAB,
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=128,
    max_position_embeddings=256,
    rotary_pct=0.5,
    eos_token_id=EOS[0],
)


def byte_level():
    """Every byte, then pieces of two and three letters: a text has many spellings."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: i for i, letter in enumerate(letters)}
    joined = ["".join(p) for n in (2, 3) for p in itertools.product("abc<>/", repeat=n)]
    vocab |= {piece: len(vocab) + i for i, piece in enumerate(joined[: VOCAB - len(vocab)])}
    built = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    return built


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """One GPT-NeoX here and in transformers, with likely and unlikely tokens."""
    torch.manual_seed(0)
    peer = transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**SIZES)).eval()
    with torch.no_grad():
        peer.get_output_embeddings().weight.mul_(20)
    path = tmp_path_factory.mktemp("peer")
    peer.save_pretrained(path)
    byte_level().save(str(path / "tokenizer.json"))
    config, params, tokenizer = load_folder(path)
    return peer, build(config), params, tokenizer


def some_prompts(n, longest=20):
    rng = np.random.default_rng(0)
    return [rng.integers(30, VOCAB, rng.integers(1, longest)).tolist() for _ in range(n)]


def theirs(peer, prompts, beams, tokens, **how):
    """(tokens, score) of the best hypothesis of each row."""
    length = max(len(p) for p in prompts)
    ids = torch.tensor([[PAD] * (length - len(p)) + p for p in prompts])
    real = torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in prompts])
    # Threads cost more than such small products gain by them.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        out = peer.generate(
            ids,
            attention_mask=real,
            num_beams=beams,
            max_new_tokens=tokens,
            do_sample=False,
            pad_token_id=PAD,
            return_dict_in_generate=True,
            output_scores=True,
            **how,
        )
    torch.set_num_threads(threads)
    counts = (out.beam_indices >= 0).sum(dim=1).tolist()
    rows = out.sequences[:, length:].tolist()
    found = [tuple(row[:n]) for row, n in zip(rows, counts, strict=True)]
    return list(zip(found, out.sequences_scores.tolist(), strict=True))


def same_share(ours, expected):
    """How many outputs are equal; the scores of these are compared closely."""
    best = [(h[0].tokens, h[0].score) for h in ours]
    equal = [(a, b) for a, b in zip(best, expected, strict=True) if a[0] == b[0]]
    np.testing.assert_allclose([a[1] for a, _ in equal], [b[1] for _, b in equal], rtol=1e-5)
    return len(equal) / len(expected)


@pytest.mark.parametrize(
    "how",
    [
        {"early_stopping": False},
        {"early_stopping": True, "length_penalty": 0.0},
        {"early_stopping": "never", "length_penalty": 0.5},
    ],
)
def test_fifty_outputs_are_those_of_transformers(both, how):
    peer, model, params, _ = both
    prompts = some_prompts(50)
    expected = theirs(peer, prompts, 5, 15, eos_token_id=EOS, **how)
    ours = beam_search(model, params, prompts, 15, stops_SV=stop_table(VOCAB, EOS), **how)
    assert same_share(ours, expected) >= 0.98
    assert sum(h[0].stopped for h in ours) > 10


def test_outputs_that_end_in_a_text_are_those_of_transformers(both):
    peer, model, params, tokenizer = both
    # Transformers would also find a text that begins in the prompt.
    prompts = [[*p, 40] for p in some_prompts(20)]
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=byte_level())
    expected = theirs(
        peer, prompts, 4, 20, stop_strings=["b<"], tokenizer=wrapped, eos_token_id=None
    )
    stops_SV = stop_table(VOCAB, text="b<", pieces=tokenizer.pieces())
    ours = beam_search(model, params, prompts, 20, beams=4, stops_SV=stops_SV)
    assert same_share(ours, expected) >= 0.98
    for hypotheses in ours:
        for h in hypotheses:
            spelled = [tokenizer.decode(h.tokens[:n]) for n in range(len(h.tokens) + 1)]
            assert ["b<" in text for text in spelled] == [False] * (len(spelled) - 1) + [h.stopped]
    assert any(h.stopped for hypotheses in ours for h in hypotheses)


def tiny(kind, small, vocab_size):
    """A small model of a kind, with likely and unlikely tokens."""
    config = dataclasses.replace(small, vocab_size=vocab_size)
    if kind == "neox":
        config = GPTNeoXConfig(
            vocab_size=vocab_size, d_model=32, n_layers=2, n_heads=4, d_ff=64, max_seq_len=128
        )
    model = build(config)
    tokens = jnp.zeros((1, 1), jnp.int32)
    shapes = nn.unbox(jax.eval_shape(model.init, jax.random.key(0), tokens, tokens))["params"]
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda p: rng.normal(0, 0.3, p.shape).astype(np.float32), shapes)
    table = "head" if kind == "neox" else "embedding"
    return model, params | {table: 10 * params[table]}


def log_probabilities(model, params, prompt, rows):
    """Sums over the tokens of each row behind a prompt, by one call without a state."""
    length = max(len(row) for row in rows)
    ids = np.array([[*prompt, *row, *[0] * (length - len(row))] for row in rows], np.int32)
    positions = np.tile(np.arange(ids.shape[1], dtype=np.int32), (len(ids), 1))
    logits, _ = jax.jit(model.apply)({"params": params}, ids, positions)
    each = np.asarray(jax.nn.log_softmax(logits[:, len(prompt) - 1 : -1]), np.float64)
    return [sum(each[n, i, t] for i, t in enumerate(row)) for n, row in enumerate(rows)]


KINDS = pytest.mark.parametrize("kind", ["hybriko", "neox"])


@KINDS
def test_with_beams_enough_the_search_is_exhaustive(kind, small):
    model, params = tiny(kind, small, 5)
    prompt, stop, length = [1, 3, 2], 4, 3
    going_on = [t for n in range(length) for t in itertools.product(range(4), repeat=n)]
    every = [(*t, stop) for t in going_on] + list(itertools.product(range(4), repeat=length))
    total = log_probabilities(model, params, prompt, every)
    for penalty in (1.0, 0.0, -1.0):
        scored = {t: s / len(t) ** penalty for t, s in zip(every, total, strict=True)}
        _, found = beam_search(
            model,
            params,
            [[1], prompt],
            length,
            beams=len(every),
            stops_SV=stop_table(5, [stop]),
            length_penalty=penalty,
        )
        assert [h.tokens for h in found] == sorted(every, key=lambda t: -scored[t])
        np.testing.assert_allclose([h.score for h in found], sorted(scored.values())[::-1], 1e-4)
        assert all(h.stopped == (h.tokens[-1] == stop) for h in found)


@KINDS
def test_one_beam_is_greedy(kind, small):
    model, params = tiny(kind, small, 96)
    prompts = [[2, 17, 45, 8, 60], [2, 9], list(range(2, 60))]
    # More than there is room for at first; HybriKo's steps take long to compile.
    stop, tokens = 11, 70 if kind == "neox" else 20
    greedy = continuations(model, params, prompts, tokens, temperature=0, stop=(stop,))
    found = beam_search(model, params, prompts, tokens, beams=1, stops_SV=stop_table(96, [stop]))
    assert [len(hypotheses) for hypotheses in found] == [1, 1, 1]
    for (h,), row in zip(found, greedy, strict=True):
        assert list(h.tokens) == row + [stop] * h.stopped
        assert h.stopped == (len(row) < tokens)


def test_rows_of_a_batch_do_not_know_of_each_other(small):
    model, params = tiny("neox", small, 96)
    prompts, most = [[2, 17, 45, 8, 60], [2, 9], [2, 30, 31, 32]], [25, 7, 1]
    how = {"beams": 4, "stops_SV": stop_table(96, [11, 12])}
    together = beam_search(model, params, prompts, most, **how)
    for prompt, n, hypotheses in zip(prompts, most, together, strict=True):
        # As many rows as before, since each shape is compiled.
        apart, *_ = beam_search(model, params, [prompt] * 3, n, **how)
        assert [h.tokens for h in apart] == [h.tokens for h in hypotheses]
        assert max(len(h.tokens) for h in apart) <= n
        total = log_probabilities(model, params, prompt, [h.tokens for h in apart])
        mean = [s / len(h.tokens) for s, h in zip(total, apart, strict=True)]
        np.testing.assert_allclose([h.score for h in apart], mean, rtol=1e-4)


def test_drawn_tokens_follow_the_model(small):
    model, params = tiny("neox", small, 8)
    prompts = [[1, 3, 2]] * 500
    found = beam_search(model, params, prompts, 1, beams=1, temperature=0.5)
    again = beam_search(model, params, prompts, 1, beams=1, temperature=0.5)
    other = beam_search(model, params, prompts, 1, beams=1, temperature=0.5, seed=1)
    assert found == again != other
    total = np.array(log_probabilities(model, params, prompts[0], [[t] for t in range(8)]))
    drawn = np.bincount([h.tokens[0] for (h,) in found], minlength=8) / len(found)
    np.testing.assert_allclose(drawn, np.exp(2 * total) / np.exp(2 * total).sum(), atol=0.07)
    for (h,) in found[:20]:
        np.testing.assert_allclose(h.score, total[h.tokens[0]], rtol=1e-4)


def test_a_text_is_found_in_every_spelling():
    """Against looking for it in all that is written so far."""
    rng = np.random.default_rng(0)
    for wanted in ("aab", "</끝>", "aa", "ababac"):
        alphabet = [bytes([b]) for b in sorted(set(wanted.encode()) | {ord("x")})]
        pieces = [b"", *alphabet]
        pieces += [b"".join(rng.choice(alphabet, rng.integers(2, 9))) for _ in range(60)]
        table = stop_table(len(pieces) + 3, [3], wanted, pieces)
        for _ in range(300):
            state, written = 0, b""
            for v in rng.integers(0, len(pieces), 20):
                written += pieces[v]
                state = table[state, v]
                assert (state == len(table)) == (wanted.encode() in written or v == 3)
                if state == len(table):
                    break


def test_texts_that_must_occur_do_and_others_are_as_before(both):
    _, model, params, tokenizer = both
    prompts, pieces = some_prompts(6), tokenizer.pieces()
    terms = [["abc"], ["<b", "ca"], [], ["/>a"], ["\u00e9"], ["aaaa", "bb"]]
    stops_SV = stop_table(VOCAB, EOS)
    plain = beam_search(model, params, prompts, 40, stops_SV=stops_SV)
    found = beam_search(model, params, prompts, 40, stops_SV=stops_SV, terms=terms, pieces=pieces)
    for prompt, row, free, wanted in zip(prompts, found, plain, terms, strict=True):
        text = b"".join(pieces[t] for t in row[0].tokens)
        assert all(term.encode() in text for term in wanted)
        total = log_probabilities(model, params, prompt, [row[0].tokens])[0]
        np.testing.assert_allclose(row[0].score, total / len(row[0].tokens), rtol=1e-4)
        if not wanted:
            assert [h.tokens for h in row] == [h.tokens for h in free]


@pytest.mark.parametrize(
    "wrong", [{"beams": 0}, {"max_tokens": 0}, {"temperature": 1.0}, {"terms": [["a"]], "beams": 1}]
)
def test_a_search_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match="must be at least"):
        beam_search(nn.Module(), {}, [[1]], **{"max_tokens": 3, **wrong})

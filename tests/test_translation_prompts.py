"""Translations as prompts and tokens: exact, learned on the target alone, both ways in turn."""

import random
import unicodedata
from typing import Any

import numpy as np
import pytest
import tokenizers

from hybriko_jax.data import translation
from hybriko_jax.data.conversations import ConversationRows
from hybriko_jax.data.pairs import Pair
from hybriko_jax.data.translation import split_pairs, translations
from hybriko_jax.errors import UserError
from hybriko_jax.prompts import (
    END,
    parse_translation,
    translation_answer,
    translation_prompt,
    translation_tokens,
)

PAIRS = [
    Pair("안녕하세요?", "Hello?"),
    Pair("태그는 <b>굵게</b>.", "The tag is <b>bold</b>."),
    Pair("첫째 문단.\n\n둘째 문단 </", "First paragraph.\n\nSecond paragraph </"),
    Pair("표시는 </끝>이다", "The mark is </끝>"),
    Pair("▁밑줄 <|im_end|> </s>", "▁underscore <|im_end|> </s>"),
]


class ByteLevel:
    """A byte-level BPE as GPT-NeoX models have, in which no text begins with a token of its own."""

    def __init__(self, bos_id):
        self.bos_id, self.pad_id = bos_id, 0
        self.begin = [bos_id] if bos_id == 2 else []
        self._tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
        self._tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        self._tokenizer.decoder = tokenizers.decoders.ByteLevel()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=700,
            show_progress=False,
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        )
        text = [f"### 영어: {p.right}</끝>\n### 한국어: {p.left}</끝>" for p in PAIRS]
        self._tokenizer.train_from_iterator([*text, "끝났다.</끝>"] * 9, trainer)

    def encode(self, text):
        return self._tokenizer.encode(text).ids

    def encode_batch(self, texts):
        return [self.encode(t) for t in texts]

    def decode(self, ids):
        return self._tokenizer.decode([int(i) for i in ids])


@pytest.fixture(scope="module", params=["SentencePiece", "none", "negative"])
def tokenizer(request, mini_tokenizer):
    if request.param == "SentencePiece":
        return mini_tokenizer
    return ByteLevel({"none": None, "negative": -1}[request.param])


def published(texts, names=("한국어", "영어")):
    """The text of a pair as Gugugo was trained on it, for texts without its end mark."""
    return f"### {names[0]}: {texts[0]}</끝>\n### {names[1]}: {texts[1]}</끝>"


@pytest.mark.parametrize("pair", [p for p in PAIRS if END not in p.left])
def test_tokens_spell_the_published_text_exactly(tokenizer, pair):
    tokens, said = translation_tokens(tokenizer, pair.left, pair.right, "ko", "en")
    assert tokenizer.decode(tokens) == published(pair)
    assert tokenizer.decode(tokens[said]) == f" {pair.right}</끝>"
    assert tokens.dtype == np.int32 and said.dtype == bool
    tokens, _ = translation_tokens(tokenizer, pair.left, pair.right, "ja", "ko")
    assert tokenizer.decode(tokens) == published(pair, ("일본어", "한국어"))


@pytest.mark.parametrize("pair", PAIRS)
def test_training_sees_the_boundaries_that_decoding_makes(tokenizer, pair):
    tokens, said = translation_tokens(tokenizer, pair.right, pair.left, "en", "ko")
    begin = [tokenizer.bos_id] if tokenizer.bos_id == 2 else []
    prompt = begin + tokenizer.encode(translation_prompt(pair.right, "en", "ko"))
    assert tokens[~said].tolist() == prompt
    assert not said[: len(prompt)].any() and said[len(prompt) :].all()
    # Whatever stands before it, the end is the same tokens.
    end = tokenizer.encode(END)
    assert tokens[-len(end) :].tolist() == end
    assert tokenizer.decode(tokens[said]) == translation_answer(pair.left)


def test_an_end_in_one_piece_with_the_answer_would_not_be_the_same_tokens():
    """Why it is apart: the reason for the test above is a real one."""
    tokenizer = ByteLevel(None)
    whole, end = tokenizer.encode(" 끝났다.</끝>"), tokenizer.encode(END)
    assert whole[-len(end) :] != end


def test_a_typed_end_mark_ends_nothing_and_comes_back():
    prompt = translation_prompt("a </끝>\n### 한국어: b</끝>", "en", "ko")
    assert prompt == "### 영어: a <\\/끝>\n### 한국어: b<\\/끝></끝>\n### 한국어:"
    assert parse_translation(" 표시 <\\/끝>이다</끝>\n### 영어: more") == "표시 </끝>이다"
    assert parse_translation(" 잘린 답") == "잘린 답"


def test_any_text_comes_back_and_ends_once():
    rng = random.Random(0)
    # Jamo among them, of which NFC makes the syllable of the end mark.
    parts = ["<", "\\", "/", "끝", ">", "</끝>", "<\\/끝>", *unicodedata.normalize("NFD", "끝")]
    for _ in range(3000):
        text = "".join(rng.choices([*parts, "끄", " ", "\n"], k=rng.randrange(9)))
        answer = translation_answer(text)
        assert unicodedata.normalize("NFC", answer).count(END) == 1 and answer.endswith(END)
        assert parse_translation(answer) == unicodedata.normalize("NFC", text)
        prompt = translation_prompt(text, "en", "ko")
        assert prompt.count(END) == 1 and prompt.endswith("</끝>\n### 한국어:")


@pytest.mark.parametrize(
    "source,target,message",
    [("fr", "ko", "'fr' is not one of ko, en, ja"), ("ko", "ko", "both 'ko'")],
)
def test_languages_that_have_no_prompt(source, target, message):
    with pytest.raises(UserError, match=message):
        translation_prompt("a", source, target)


def test_directions_alternate(tokenizer, monkeypatch):
    monkeypatch.setattr(translation, "_BATCH", 2)  # does not show in the result
    found = translations(tokenizer, PAIRS)
    assert found.text is None and len(found.tokens) == len(PAIRS)
    for i, (pair, tokens, said) in enumerate(zip(PAIRS, found.tokens, found.said, strict=True)):
        left, right = pair
        one = (left, right, "ko", "en") if i % 2 == 0 else (right, left, "en", "ko")
        expected_tokens, expected_said = translation_tokens(tokenizer, *one)
        assert tokens.tolist() == expected_tokens.tolist()
        assert said.tolist() == expected_said.tolist()
    assert tokenizer.decode(found.tokens[0]) == published(PAIRS[0])
    assert tokenizer.decode(found.tokens[1]) == published(PAIRS[1][::-1], ("영어", "한국어"))


def test_pairs_longer_than_a_row_are_left_out(tokenizer):
    all_tokens = [t.tolist() for t in translations(tokenizer, PAIRS).tokens]
    longest = sorted(map(len, all_tokens))[2]
    found = translations(tokenizer, PAIRS, longest=longest)
    assert [t.tolist() for t in found.tokens] == [t for t in all_tokens if len(t) <= longest]
    assert 0 < len(found.tokens) < len(PAIRS)
    with pytest.raises(UserError, match="All 5 pairs are longer than train.seq_len=3"):
        translations(tokenizer, PAIRS, longest=3)
    with pytest.raises(UserError, match="no pair"):
        translations(tokenizer, [])


def test_rows_learn_targets_and_nothing_else(tokenizer):
    found: Any = translations(tokenizer, PAIRS)
    rows = ConversationRows(found, (1.0,), 256, 0, tokenizer.pad_id)
    batch = rows.batch(range(rows.plan(0).n_rows))
    learned = np.sort(batch.tokens_BL[batch.loss_mask_BL])
    said = np.sort(np.concatenate([t[s] for t, s in zip(found.tokens, found.said, strict=True)]))
    assert learned.tolist() == said.tolist()


MANY = [Pair(f"문장 {n % 900}", f"sentence {n % 900}") for n in range(1000)]


def test_a_pair_is_always_on_one_side():
    train, held_out = split_pairs(MANY, 0.1)
    assert sorted(train + held_out) == sorted(MANY)
    assert train and held_out and not set(train) & set(held_out)
    assert [p for p in MANY if p in set(held_out)] == held_out  # in order, copies too
    # 900 draws of probability 0.1: 90 with a standard deviation of 9.
    assert 54 < len(set(held_out)) < 126
    # Neither neighbours, nor the order of languages, nor the form of Unicode decides.
    assert split_pairs(MANY[::-7], 0.1)[1] == [p for p in MANY[::-7] if p in set(held_out)]
    turned = [Pair(unicodedata.normalize("NFD", p.right), p.left) for p in MANY]
    assert split_pairs(turned, 0.1)[1] == [p[::-1] for p in held_out]
    decomposed = [Pair(unicodedata.normalize("NFD", p.left), p.right) for p in MANY]
    assert len(split_pairs(decomposed, 0.1)[1]) == len(held_out)


def test_a_larger_share_only_adds():
    shares = [set(split_pairs(MANY, share)[1]) for share in (0, 0.05, 0.3, 0.9)]
    assert not shares[0]
    assert all(a < b for a, b in zip(shares, shares[1:], strict=False))


@pytest.mark.parametrize("share", [-0.1, 1, 1.5, float("nan")])
def test_a_share_that_is_none(share):
    with pytest.raises(UserError, match="not a share"):
        split_pairs(MANY, share)

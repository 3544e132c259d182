"""Translations end where the model ends them, in every spelling, and lose no character."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from hybriko_jax.config import GPTNeoXConfig
from hybriko_jax.decode.translate import Output, Translator, stream, translate
from hybriko_jax.errors import UserError
from hybriko_jax.models import build
from hybriko_jax.prompts import END, translation_answer, translation_prompt, translation_tokens
from hybriko_jax.tokenizer import TokenizerJson

PAIRS = [
    ("Hello.", "안녕하세요."),
    ("The Hub keeps models.", "허브는 모델을 보관합니다."),
    ("Thank you very much for the files", "파일 정말 고맙습니다"),
    ("Close the tag with </끝>, not <b>.", "태그는 <b>가 아니라 </끝>으로 닫습니다."),
    ("A smile: 😀!", "웃음: 😀!"),
]


@pytest.fixture(scope="module")
def tokenizer():
    """Byte-level, with pieces in which </끝> shares a token with its neighbours."""
    built = Tokenizer(models.BPE())
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    built.decoder = decoders.ByteLevel()
    texts = [translation_prompt(a, "en", "ko") + translation_answer(b) for a, b in PAIRS]
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    built.train_from_iterator([f"{t}\n" for t in texts] + [f"다.{END}\n\n"] * 9, trainer)
    return TokenizerJson(built.to_str().encode(), eos_id=0)


class Scripted(nn.Module):
    """Says what is written in its parameters, whatever it is asked."""

    config: GPTNeoXConfig

    def hidden(self, tokens_BL, positions_BL, state):
        return positions_BL[..., None].astype(jnp.float32), state

    def logits(self, x_BLD):
        script_N, begin = (
            self.get_variable("params", "script"),
            self.get_variable("params", "begin"),
        )
        token_BL = script_N[jnp.clip(x_BLD[..., 0].astype(int) - begin, 0, len(script_N) - 1)]
        return 30 * jax.nn.one_hot(token_BL, self.config.vocab_size)


def scripted(tokenizer, answer, max_seq_len=256):
    """A translator that says these tokens behind PAIRS[0], and its last one on and on."""
    config = GPTNeoXConfig(
        vocab_size=tokenizer.vocab_size,
        d_model=8,
        n_layers=1,
        n_heads=1,
        d_ff=8,
        max_seq_len=max_seq_len,
    )
    prompt = tokenizer.encode(translation_prompt(PAIRS[0][0], "en", "ko"))
    script = np.pad(np.array(answer, np.int32), (0, 128 - len(answer)), mode="edge")
    params = {"script": script, "begin": np.int32(len(prompt) - 1)}
    return Translator(Scripted(config), params, tokenizer)


def ask(translator, **how):
    """One translation, of all ways to get it without chance."""
    text = PAIRS[0][0]
    (greedy,) = translate(translator, [text], "en", "ko", beams=1, **how)
    (best,) = translate(translator, [text], "en", "ko", beams=2, **how)
    streamed = list(stream(translator, text, "en", "ko", **how))
    assert greedy.text == best.text == "".join(streamed)
    assert greedy.finished == best.finished
    return greedy, streamed


def spellings(tokenizer, text):
    """Token ids of a text in whole, in single bytes, and cut at every place."""
    one = {piece: i for i, piece in enumerate(tokenizer.pieces()) if len(piece) == 1}
    yield tokenizer.encode(text)
    yield [one[bytes([b])] for b in text.encode()]
    for i in range(1, len(text)):
        yield tokenizer.encode(text[:i]) + tokenizer.encode(text[i:])


def test_an_answer_ends_in_every_spelling_of_its_end(tokenizer):
    text = " 합니다.</끝>\n\n"
    wanted = list({tuple(s) for s in spellings(tokenizer, text)})
    assert any(".</" in tokenizer.decode([t]) for ids in wanted for t in ids)
    assert any(">\n" in tokenizer.decode([t]) for ids in wanted for t in ids)
    for ids in sorted(wanted)[::3]:
        ours, _ = ask(scripted(tokenizer, [*ids, *tokenizer.encode("그리고")]))
        assert (ours.text, ours.finished) == ("합니다.", True)


@pytest.mark.parametrize(
    "answer",
    [
        " 합니다",
        "두 줄\n둘",
        " a </b> <끝> </ 끝",
        " <\\/끝>은 <\\\\/끝>",
        "  앞 공백",
        "<",
        "</",
        "</끝",
    ],
)
def test_an_answer_that_the_model_ends_otherwise_loses_nothing(tokenizer, answer):
    shown = answer.removeprefix(" ").replace("<\\/끝>", "</끝>").replace("<\\\\/끝>", "<\\/끝>")
    ended, _ = ask(scripted(tokenizer, [*tokenizer.encode(answer), tokenizer.eos_id]))
    assert (ended.text, ended.finished) == (shown, True)
    ids = tokenizer.encode(answer)
    cut, _ = ask(scripted(tokenizer, ids), max_tokens=len(ids))
    assert (cut.text, cut.finished) == (shown, False)


def test_a_stream_shows_whole_characters_and_nothing_of_the_end(tokenizer):
    text = " 웃음 😀 <b> <\\/끝> 끝</끝>"
    for ids in list(spellings(tokenizer, text))[:2]:
        ours, streamed = ask(scripted(tokenizer, ids), max_tokens=80)
        assert ours.text == "웃음 😀 <b> </끝> 끝"
        assert len(streamed) > 5 and not any("\ufffd" in part for part in streamed)
        so_far = list(itertools.accumulate(streamed))
        assert all(ours.text.startswith(s) for s in so_far)


def test_an_answer_cut_off_inside_a_character_ends_before_it(tokenizer):
    ids = list(spellings(tokenizer, " 웃음 😀"))[1]
    cut, _ = ask(scripted(tokenizer, ids), max_tokens=len(ids) - 2)
    assert (cut.text, cut.finished) == ("웃음 ", False)


def test_the_room_of_the_model_is_kept_to(tokenizer):
    ids = tokenizer.encode(" 음")
    prompt = len(tokenizer.encode(translation_prompt(PAIRS[0][0], "en", "ko")))
    room = prompt // 2 + 3
    cut, _ = ask(scripted(tokenizer, ids, prompt + room), max_tokens=1000)
    assert not cut.finished
    assert len(tokenizer.encode(cut.text)) <= room < 1000
    with pytest.raises(UserError, match=f"{prompt}토큰이어서, 모델의 {prompt + 2}토큰 .* 2토큰만"):
        translate(scripted(tokenizer, ids, prompt + 2), [PAIRS[0][0]], "en", "ko")
    with pytest.raises(UserError, match="너무 깁니다"):
        list(stream(scripted(tokenizer, ids, prompt // 2), PAIRS[0][0], "en", "ko"))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"source": "fr"}, "language 'fr'"),
        ({"beams": 0}, "beams=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"beams": 1, "glossary": {"a": "가"}}, "용어집은 beams=2 이상"),
        ({"temperature": 1.0, "glossary": {"a": "가"}}, "temperature=1.0"),
        ({"glossary": {"a": " "}}, "용어집의 'a'"),
    ],
)
def test_settings_that_cannot_be_are_refused(tokenizer, how, message):
    asked = {"source": "en", "target": "ko", **how}
    with pytest.raises(UserError, match=message):
        translate(scripted(tokenizer, [1]), ["a"], **asked)


@pytest.fixture(scope="module")
def learned(tokenizer):
    """A GPT-NeoX that knows `PAIRS` by heart."""
    config = GPTNeoXConfig(
        vocab_size=tokenizer.vocab_size,
        d_model=64,
        n_layers=2,
        n_heads=2,
        d_ff=128,
        max_seq_len=256,
    )
    model = build(config)
    both = [translation_tokens(tokenizer, a, b, "en", "ko") for a, b in PAIRS]
    length = max(len(tokens) for tokens, _ in both)
    tokens_BL = np.stack([np.pad(tokens, (0, length - len(tokens))) for tokens, _ in both])
    said_BL = np.stack([np.pad(said, (0, length - len(said))) for _, said in both])
    place_BL = np.tile(np.arange(length, dtype=np.int32), (len(both), 1))
    shapes = nn.unbox(jax.eval_shape(model.init, jax.random.key(0), tokens_BL, place_BL))["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda p: rng.normal(0, 0.1, p.shape).astype(np.float32), shapes)
    tx = optax.adam(3e-3)

    def loss(params):
        logits_BLV, _ = model.apply({"params": params}, tokens_BL, place_BL)
        each_BL = optax.softmax_cross_entropy_with_integer_labels(
            logits_BLV[:, :-1], tokens_BL[:, 1:]
        )
        return (each_BL * said_BL[:, 1:]).sum() / said_BL.sum()

    @jax.jit
    def train(params):
        def step(_, carry):
            params, moments = carry
            updates, moments = tx.update(jax.grad(loss)(params), moments)
            return optax.apply_updates(params, updates), moments

        return jax.lax.fori_loop(0, 250, step, (params, tx.init(params)))[0]

    return Translator(model, jax.tree.map(np.asarray, train(params)), tokenizer)


def test_every_row_of_a_batch_ends_by_itself(learned):
    texts = [a for a, _ in PAIRS]
    for found in (
        translate(learned, texts, "en", "ko"),
        translate(learned, texts, "en", "ko", beams=1, batch_size=4),
        translate(learned, texts, "en", "ko", temperature=0.1),
    ):
        assert [o.text for o in found] == [b for _, b in PAIRS]
        assert all(o.finished and -0.1 < o.score < 0 for o in found)


def test_texts_come_back_in_order_and_empty_ones_as_they_are(learned):
    texts = ["", *(a for a, _ in reversed(PAIRS)), " \n"]
    found = translate(learned, texts, "en", "ko")
    assert [o.text for o in found] == ["", *(b for _, b in reversed(PAIRS)), " \n"]
    assert found[0] == Output("", True, 0.0)
    assert list(stream(learned, " \n", "en", "ko")) == [" \n"]
    assert translate(learned, [], "en", "ko") == []


def test_terms_of_a_glossary_occur_where_their_text_does(learned):
    texts = [a for a, _ in PAIRS]
    # Hub is a part of a longer term, and file a part of a word.
    glossary = {"Hub": "누리", "The Hub": "그 허브", "file": "문서", "😀": "🙂"}
    found = translate(learned, texts, "en", "ko", glossary=glossary)
    assert "그 허브" in found[1].text and "누리" not in found[1].text
    assert "🙂" in found[4].text
    for i in (0, 2, 3):
        assert found[i].text == PAIRS[i][1]

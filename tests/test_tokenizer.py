"""Text to ids and back, exactly; control symbols only where the program puts them."""

import glob
import unicodedata
from pathlib import Path

import pytest

from hybriko_jax.data.sample import sample_documents
from hybriko_jax.data.sources import BadLines, file_documents
from hybriko_jax.errors import UserError
from hybriko_jax.tokenizer import (
    BOS_ID,
    EOS_ID,
    IM_END,
    IM_START,
    PAD_ID,
    SentencePiece,
    train_sentencepiece,
)

SHARED = Path(__file__).parents[2] / "shared" / "data"

TEXTS = [
    "",
    " ",
    "  앞뒤 공백  ",
    "줄\n\n바꿈\n \t 탭\r\n",
    "ㅋㅋㅋ… 그래요?! ㅠㅠ",
    "가격은 1,234,567원 (3.14%)",
    "report_2024 (최종).tar.gz ~/문서/../a.txt",
    "밑줄\u2581과 \u2581\u2581 낱말표",
    "😀👩‍👩‍👧 漢字 ñ \u200b끝",
    "\x00\x01\x7f",
    "<s></s><unk><pad><0x41>" + IM_START + "user" + IM_END,
]


@pytest.fixture(scope="module")
def tokenizer() -> SentencePiece:
    return train_sentencepiece(sample_documents(300), 1500)


@pytest.mark.parametrize("text", TEXTS)
def test_round_trip_is_exact(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_decomposed_korean_is_composed(tokenizer):
    text = unicodedata.normalize("NFD", "한글 파일.txt")
    assert tokenizer.decode(tokenizer.encode(text)) == "한글 파일.txt"


def test_a_batch_equals_its_texts(tokenizer):
    assert tokenizer.encode_batch(TEXTS) == [tokenizer.encode(t) for t in TEXTS]


def test_typed_control_symbols_stay_text(tokenizer):
    controls = {tokenizer.control_id(s) for s in ("<s>", "</s>", "<pad>", IM_START, IM_END)}
    assert controls.isdisjoint(tokenizer.encode(TEXTS[-1]))
    assert len(controls) == 5


def test_special_ids(tokenizer):
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id) == (PAD_ID, BOS_ID, EOS_ID)
    with pytest.raises(UserError, match="no control symbol"):
        tokenizer.control_id("안녕")


def test_newline_is_one_piece_and_digits_stand_alone(tokenizer):
    assert len(tokenizer.encode("\n")) == 1
    assert len(tokenizer.encode("2024")) >= 4


def test_saved_and_read_again(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "t.model")
    again = SentencePiece(tmp_path / "t.model")
    assert again.digest() == tokenizer.digest()
    assert again.encode(TEXTS[4]) == tokenizer.encode(TEXTS[4])


def test_a_vocabulary_larger_than_the_text_is_refused():
    with pytest.raises(UserError, match=r"vocab_size=30000 is larger than the text supports"):
        train_sentencepiece(sample_documents(20), 30_000)


def test_a_vocabulary_smaller_than_the_bytes_is_refused():
    with pytest.raises(UserError, match=r"vocab_size=100 is smaller than"):
        train_sentencepiece(sample_documents(20), 100)


def test_no_text_is_refused():
    with pytest.raises(UserError, match="no text"):
        train_sentencepiece([""], 500)


def test_a_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "x.model").write_text("not a model")
    with pytest.raises(UserError, match="x.model: not a SentencePiece model"):
        SentencePiece(tmp_path / "x.model")
    with pytest.raises(UserError, match="none.model: not a SentencePiece model"):
        SentencePiece(tmp_path / "none.model")


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.exists(), reason="needs the real corpus beside the checkout")
def test_round_trip_of_the_real_corpus(tokenizer):
    for path in sorted(glob.glob(str(SHARED / "ko_text.*.jsonl.zst"))):
        texts = list(file_documents(Path(path), "text", BadLines("refuse")))
        for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
            assert tokenizer.decode(ids) == unicodedata.normalize("NFC", text)


def test_an_empty_file_is_no_tokenizer(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"")
    with pytest.raises(UserError, match="holds no piece"):
        SentencePiece(tmp_path / "tokenizer.model")

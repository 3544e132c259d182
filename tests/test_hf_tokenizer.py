"""The tokenizer as transformers reads it: the same ids, and the same text back."""

import glob
import itertools
import json
import math
import random
import unicodedata
from pathlib import Path
from typing import NamedTuple

import pytest

pytest.importorskip("transformers")

import sentencepiece as spm
from sentencepiece import sentencepiece_model_pb2 as spm_format
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from hybriko_jax.convert.tokenizer import tokenizer_files
from hybriko_jax.data.sample import sample_documents
from hybriko_jax.data.sources import BadLines, file_documents
from hybriko_jax.data.synthesize import synthesize
from hybriko_jax.errors import UserError
from hybriko_jax.linux.tools import TOOLS
from hybriko_jax.prompts import answer_header, chat_tokens, system_prompt
from hybriko_jax.tokenizer import IM_END, IM_START, SentencePiece, train_sentencepiece

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
MAX_LENGTH = 100_000

# Every pair of these is a text.
PARTS = [
    "",
    " ",
    "   ",
    "\n",
    "\t\r\n",
    "ㅋㅋㅋ ㅠㅠ…",
    "  안녕하세요",
    "파일을 지워 줘!!!",
    unicodedata.normalize("NFD", "각 한글.txt"),
    "\u1161\u0301",
    "cafe\u0301 ½ Ａ",
    "😀👩‍👩‍👧🇰🇷",
    "漢字 ไทย ქართული",
    "밑줄\u2581과 \u2581\u2581",
    "\u2585 \u2047 \ufffd \u200b\ufeff",
    "\x00\x7f\U0010ffff",
    "def f(x):\n    return x[1:] # 주석",
    "https://example.com/a?b=1&c=%20#d",
    "~/문서/report_2024 (최종).tar.gz",
    "1,234,567원 (3.14%)",
    "<0x41><0xEA>",
    '{"path": "a b.txt", "n": -1}',
]
CONTROLS = ["<s></s>", "<unk> <pad>", f"{IM_START}user\n안녕{IM_END}\n", "<|im_", "</s>" * 3]
HARD = [a + b for a, b in itertools.product(PARTS, PARTS)]
TYPED = [a + b for c in CONTROLS for part in PARTS for a, b in ((c, part), (part, c))]


class Pair(NamedTuple):
    ours: SentencePiece
    theirs: PreTrainedTokenizerFast
    folder: Path
    model: bytes


@pytest.fixture(scope="module", params=["mini", "small"])
def pair(request, tmp_path_factory) -> Pair:
    """The tokenizer that ships, and one so small that '<' is no piece of it."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "mini":
        ours = SentencePiece(ROOT / "checkpoints/hybriko-mini/tokenizer.model")
    else:
        ours = train_sentencepiece(sample_documents(60), 1500)
        assert not knows_angle_bracket(ours)
    ours.save(folder / "tokenizer.model")  # AutoTokenizer must not turn to it
    model = (folder / "tokenizer.model").read_bytes()
    for name, text in tokenizer_files(model, MAX_LENGTH).items():
        (folder / name).write_text(text, "utf-8")
    return Pair(ours, AutoTokenizer.from_pretrained(folder), folder, model)


def knows_angle_bracket(tokenizer):
    return tokenizer.pieces().count(b"<") == 2  # as a byte, and as a piece


def byte_ids(pair):
    proto = spm_format.ModelProto.FromString(pair.model)
    return {i for i, p in enumerate(proto.pieces) if p.type == proto.SentencePiece.BYTE}


def theirs_of(tokenizer, texts, **options):
    return tokenizer(texts, add_special_tokens=False, **options)["input_ids"]


def test_hard_texts_have_the_same_ids(pair):
    assert theirs_of(pair.theirs, HARD) == pair.ours.encode_batch(HARD)


def test_typed_controls_have_the_same_ids_where_they_are_split(pair):
    ids = theirs_of(pair.theirs, TYPED, split_special_tokens=True)
    assert ids == pair.ours.encode_batch(TYPED)
    assert theirs_of(pair.theirs, [IM_END]) == [[pair.ours.control_id(IM_END)]]


@pytest.mark.skipif(not SHARED.exists(), reason="needs the real corpus beside the checkout")
def test_real_lines_have_the_same_ids_but_for_ties(pair):
    lines = []
    for path in sorted(glob.glob(str(SHARED / "ko_text.*.jsonl.zst"))):
        documents = itertools.islice(file_documents(Path(path), "text", BadLines("refuse")), 1000)
        some = [line for text in documents for line in text.split("\n") if line]
        lines += random.Random(0).sample(some, min(2500, len(some)))
    for path in sorted(glob.glob(str(SHARED / "*.tsv"))):
        lines += [x for x in Path(path).read_text("utf-8").split("\n") if x][:1200]
    lines = lines[:20_000]
    assert len(lines) == 20_000
    scores = [p.score for p in spm_format.ModelProto.FromString(pair.model).pieces]
    spelling = byte_ids(pair)

    def bytes_and_score(ids):
        # Bytes have no score of their own, so both must have the same. fsum rounds once, at the
        # end: equal sums are an exact tie.
        return [i for i in ids if i in spelling], math.fsum(scores[i] for i in ids)

    theirs = theirs_of(pair.theirs, lines, split_special_tokens=True)
    ties = 0
    for line, a, b in zip(lines, pair.ours.encode_batch(lines), theirs, strict=True):
        text = unicodedata.normalize("NFC", line)
        assert pair.theirs.decode(b, skip_special_tokens=True) == text
        if a != b:
            assert bytes_and_score(a) == bytes_and_score(b), line
            ties += 1
    assert ties < 20


def test_text_begins_with_the_start_token_and_comes_back(pair):
    for text in [*PARTS, *HARD[::7]]:
        encoded = pair.theirs(text)
        assert encoded.keys() == {"input_ids", "attention_mask"}  # what generate takes
        ids = encoded["input_ids"]
        assert ids == [pair.ours.bos_id, *pair.ours.encode(text)]
        back = pair.theirs.decode(ids, skip_special_tokens=True)
        assert back == unicodedata.normalize("NFC", text)


def test_any_ids_are_decoded_alike(pair):
    rng = random.Random(0)
    # Without <unk>, which SentencePiece decodes as a question mark and never writes.
    pieces = sorted({*range(pair.ours.vocab_size)} - byte_ids(pair) - {1})
    for _ in range(100):
        ids = rng.choices(pieces, k=20) + pair.ours.encode("😀") + rng.choices(pieces, k=3)
        assert pair.theirs.decode(ids, skip_special_tokens=True) == pair.ours.decode(ids)


def conversations():
    full = system_prompt("full", [tool.schema for tool in TOOLS])
    for k, sample in enumerate(synthesize(300, 0)):
        system = full if k % 20 == 0 else system_prompt("compact", [])
        yield [{"role": "system", "content": system}, *sample["messages"]]
    for theirs, mine in itertools.product(PARTS, PARTS[::2]):
        roles = ("user", theirs), ("assistant", mine), ("tool", theirs), ("assistant", mine)
        yield [{"role": role, "content": content} for role, content in roles]


def test_chat_template_has_the_ids_of_chat_tokens(pair):
    header = answer_header(pair.ours)
    for messages in conversations():
        tokens_L, said_L = chat_tokens(pair.ours, messages)
        chat = pair.theirs.apply_chat_template(
            messages, return_dict=True, return_assistant_tokens_mask=True
        )
        assert chat["input_ids"] == tokens_L.tolist()
        assert chat["assistant_masks"] == said_L.astype(int).tolist()
        asked = pair.theirs.apply_chat_template(
            messages, tokenize=True, add_generation_prompt=True, return_dict=False
        )
        assert asked == [*tokens_L.tolist(), *header]


def test_a_message_of_parts_is_refused(pair):
    parts = [{"role": "user", "content": [{"type": "text", "text": "안녕"}]}]
    with pytest.raises(Exception, match="content of a message must be one string"):
        pair.theirs.apply_chat_template(parts)


def test_settings(pair):
    t, ours = pair.theirs, pair.ours
    assert isinstance(t, PreTrainedTokenizerFast) and len(t) == t.vocab_size == ours.vocab_size
    assert (t.pad_token_id, t.bos_token_id, t.eos_token_id) == (ours.pad_id, 2, 3)
    assert (t.unk_token, t.model_max_length) == ("<unk>", MAX_LENGTH)
    assert not t.clean_up_tokenization_spaces
    assert {IM_START, IM_END} <= {*t.all_special_tokens}


def test_saved_and_read_again(pair, tmp_path):
    pair.theirs.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    texts = [*PARTS, *CONTROLS]
    assert again(texts)["input_ids"] == pair.theirs(texts)["input_ids"]
    assert again("a", "b")["input_ids"] == pair.theirs("a", "b")["input_ids"]
    messages = [{"role": "user", "content": "가 나"}, {"role": "assistant", "content": "다 라"}]
    assert again.apply_chat_template(messages) == pair.theirs.apply_chat_template(messages)


def test_the_file_is_what_the_library_writes(pair):
    written = json.loads((pair.folder / "tokenizer.json").read_text("utf-8"))
    vocabulary = [(piece, score) for piece, score in written["model"]["vocab"]]
    built = Tokenizer(models.Unigram(vocabulary, unk_id=1, byte_fallback=True))
    built.normalizer = normalizers.NFC()
    built.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    built.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 2)]
    )
    controls = ["<pad>", "<unk>", "<s>", "</s>", IM_START, IM_END]
    built.add_special_tokens([AddedToken(c, normalized=False, special=True) for c in controls])
    if not knows_angle_bracket(pair.ours):
        unknown = Regex(written["pre_tokenizer"]["pattern"]["Regex"])
        built.pre_tokenizer = pre_tokenizers.Split(unknown, "isolated")
    assert json.loads(built.to_str()) == written


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_type": "bpe"}, "is not a unigram model"),
        ({"byte_fallback": False}, "has no bytes"),
        ({"add_dummy_prefix": True}, "puts a space before a text"),
        ({"remove_extra_whitespaces": True}, "drops spaces"),
        ({"normalization_rule_name": "nfkc"}, "rewrites characters"),
        ({"pad_id": -1}, "lacks one of <pad>"),
        ({"control_symbols": []}, r"lacks <\|im_start\|>"),
    ],
)
def test_a_model_that_cuts_otherwise_is_refused(tmp_path, options, message):
    spm.SentencePieceTrainer.Train(
        sentence_iterator=iter("\n".join(sample_documents(20)).split("\n")),
        model_prefix=str(tmp_path / "m"),
        **{
            "vocab_size": 900,
            "byte_fallback": True,
            "hard_vocab_limit": False,
            "add_dummy_prefix": False,
            "remove_extra_whitespaces": False,
            "normalization_rule_name": "identity",
            "pad_id": 3,
            "control_symbols": [IM_START, IM_END],
            "minloglevel": 2,
            **options,
        },
    )
    with pytest.raises(UserError, match=message):
        tokenizer_files((tmp_path / "m.model").read_bytes(), MAX_LENGTH)

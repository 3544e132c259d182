"""tokenizer.json: the ids of transformers, every text back, special tokens only where asked for."""

import json
import random
import unicodedata
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from hybriko_jax.convert.tokenizer import tokenizer_files
from hybriko_jax.data.sample import sample_documents
from hybriko_jax.errors import UserError
from hybriko_jax.tokenizer import IM_END, IM_START, SentencePiece, TokenizerJson, load_tokenizer

SHARED = Path(__file__).parents[2] / "shared" / "data"
SPECIAL = ["<|unused0|>", "<|unused1|>", "<|endoftext|>", "<|sep|>"]
ADDED = ["<|acc|>", "<|tel|>", "<|rrn|>"]
MORPHEME = "\u0cf1"  # Polyglot-ko's files drop it: it stood between morphemes in training

TEXTS = [
    "",
    " ",
    "  앞뒤 공백  ",
    "줄\n\n바꿈\n \t 탭\r\n",
    "ㅋㅋㅋ… 그래요?! ㅠㅠ",
    "You're 1,234,567원 (3.14%)",
    "밑줄\u2581과 Ġ와 Ċ",
    unicodedata.normalize("NFD", "한글 파일.txt"),
    "😀👩‍👩‍👧 漢字 ñ \u200b끝\ufffd",
    "\x00\x01\x7f\x85\xa0\xad\U0010ffff",
    "<s></s><0x41>" + "".join(SPECIAL + ADDED) + "<|endoftext",
    " <|endoftext|> <|sep|>\n<|acc|>",
]
# Where a file and a text decide otherwise than the law: the file drops this, and we do not.
DROPPED = [f"나{MORPHEME}는 {MORPHEME}{MORPHEME}", MORPHEME]


def random_texts(n: int, seed: int = 0) -> list[str]:
    """Characters of every plane and every length in UTF-8, in short runs of one kind."""
    rng = random.Random(seed)
    ranges = [(0, 0x7F), (0x80, 0x7FF), (0xAC00, 0xD7A3), (0x800, 0xD7FF), (0xE000, 0xFFFF)]
    ranges += [(0x1_0000, 0x10_FFFF), (0x20, 0x20), (0x1F300, 0x1FAFF), (0x1100, 0x11FF)]
    texts = []
    for _ in range(n):
        runs = ((rng.choice(ranges), rng.randint(1, 5)) for _ in range(rng.randint(0, 12)))
        texts.append("".join(chr(rng.randint(*of)) for of, k in runs for _ in range(k)))
    return texts


@pytest.fixture(scope="module")
def built() -> Tokenizer:
    """Byte-level BPE as Polyglot-ko's: four special tokens before the pieces, three behind."""
    built = Tokenizer(models.BPE())
    built.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(MORPHEME, "removed"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    built.post_processor = processors.ByteLevel(trim_offsets=False)
    built.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    english = ["You're reading the file <|sep|> and it's 2024, isn't it?\n\n"] * 20
    built.train_from_iterator([*sample_documents(60), *english], trainer)
    built.add_special_tokens(ADDED)
    return built


@pytest.fixture(scope="module")
def file(built) -> bytes:
    return built.to_str().encode()


@pytest.fixture(scope="module")
def ours(file) -> TokenizerJson:
    return TokenizerJson(file, eos_id=2)


@pytest.fixture(scope="module")
def theirs(file, tmp_path_factory) -> PreTrainedTokenizerFast:
    path = tmp_path_factory.mktemp("theirs") / "tokenizer.json"
    path.write_bytes(file)
    return PreTrainedTokenizerFast(tokenizer_file=str(path), eos_token="<|endoftext|>")


def changed(file: bytes, **parts) -> bytes:
    return json.dumps(json.loads(file) | parts).encode()


def theirs_of(theirs, texts):
    return theirs(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def assert_exact(tokenizer, texts):
    pieces = tokenizer.pieces()
    for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
        assert tokenizer.decode(ids) == text
        assert b"".join(pieces[i] for i in ids) == text.encode()


def test_ids_are_those_of_transformers(ours, theirs):
    texts = [*TEXTS, *sample_documents(20, seed=1), *random_texts(300)]
    texts = [t for t in texts if MORPHEME not in t]
    assert ours.encode_batch(texts) == theirs_of(theirs, texts)


@pytest.mark.skipif(not SHARED.exists(), reason="needs the real corpus beside the checkout")
def test_real_lines_have_the_ids_of_transformers_and_come_back(ours, theirs):
    lines = []
    for path in sorted(SHARED.glob("*.tsv")):
        lines += [x for x in path.read_text("utf-8").split("\n") if x][:500]
    assert len(lines) >= 1500
    assert ours.encode_batch(lines) == theirs_of(theirs, lines)
    assert_exact(ours, lines)


def test_every_text_comes_back(ours):
    assert_exact(ours, [*TEXTS, *DROPPED, *random_texts(1000)])


def test_a_batch_equals_its_texts(ours):
    assert ours.encode_batch(TEXTS) == [ours.encode(t) for t in TEXTS]
    assert ours.encode_batch([]) == []


def test_any_ids_are_decoded_as_the_library_does(ours, built):
    rng = random.Random(0)
    for _ in range(200):  # mostly no UTF-8
        ids = rng.choices(range(ours.vocab_size + 20), k=rng.randint(1, 12))
        assert ours.decode(ids) == built.decode(ids)
        assert ours.decode(np.array(ids)) == built.decode(ids)


def test_each_byte_is_a_piece(ours, built):
    pieces = ours.pieces()
    for byte, letter in bytes_to_unicode().items():
        assert pieces[built.token_to_id(letter)] == bytes([byte])
    assert ours.token_bytes().tolist() == [len(p) for p in pieces]
    assert ours.token_bytes().dtype == np.int32


def test_special_tokens_spell_nothing_and_count(ours, built):
    assert ours.vocab_size == len(ours.pieces()) == 1003 == built.get_vocab_size()
    controls = [ours.control_id(s) for s in [*SPECIAL, *ADDED]]
    assert controls == [0, 1, 2, 3, 1000, 1001, 1002]
    assert [i for i, piece in enumerate(ours.pieces()) if not piece] == controls
    assert ours.decode([*controls, *ours.encode("글"), 2]) == "글"
    for symbol in ("안녕", "글", IM_START):
        with pytest.raises(UserError, match="no control symbol"):
            ours.control_id(symbol)


def test_typed_special_tokens_stay_text(ours):
    controls = {ours.control_id(s) for s in [*SPECIAL, *ADDED]}
    for text in TEXTS:
        assert controls.isdisjoint(ours.encode(text))


def test_the_end_is_special_even_where_the_file_does_not_say_so(file):
    # As text it would end what a user types, and a grammar could write it out.
    described = json.loads(file)
    plain = [t | {"special": False} for t in described["added_tokens"]]
    for tokens in (plain, plain[4:]):
        tokenizer = TokenizerJson(changed(file, added_tokens=tokens), eos_id=2)
        assert tokenizer.pieces()[2] == b""
        assert tokenizer.control_id("<|endoftext|>") == 2
        assert 2 not in tokenizer.encode("a<|endoftext|>")
        assert tokenizer.decode([*tokenizer.encode("a<|endoftext|>"), 2]) == "a<|endoftext|>"
        # What is added and not special is text, and one piece.
        assert tokenizer.decode(tokenizer.encode("<|acc|>")) == "<|acc|>"
        assert tokenizer.pieces()[1000] == b"<|acc|>"
        assert tokenizer.encode("<|acc|>") == [1000]


def test_added_words_are_spelled_by_their_characters(built):
    # Every letter of naÖve is also that of a byte.
    built = Tokenizer.from_str(built.to_str())
    built.add_tokens(["naÖve", "    ", "한국어"])
    tokenizer = TokenizerJson(built.to_str().encode(), eos_id=2)
    assert tokenizer.encode("    ") == [1004]
    assert_exact(tokenizer, ["a naÖve é.", "Öve", "x    y", "한국어를", *TEXTS, *random_texts(100)])


def test_what_a_file_does_besides_cutting_is_switched_off(ours, built):
    other = Tokenizer.from_str(built.to_str())
    other.enable_truncation(3)
    other.enable_padding(length=50)
    other.model.dropout = 0.5
    other.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    other.post_processor = processors.TemplateProcessing("<|sep|> $A", None, [("<|sep|>", 3)])
    tokenizer = TokenizerJson(other.to_str().encode(), eos_id=2)
    assert (ours.begin, tokenizer.begin) == ([], [3])
    texts = [*TEXTS, *sample_documents(5)]
    assert tokenizer.encode_batch(texts) == ours.encode_batch(texts)


def test_a_text_begins_as_the_file_says_and_not_as_the_config_does(file):
    assert TokenizerJson(file, eos_id=2, bos_id=0).begin == []


def test_a_normalizer_is_kept(file):
    tokenizer = TokenizerJson(changed(file, normalizer={"type": "NFC"}), eos_id=2)
    text = unicodedata.normalize("NFD", "한글 파일.txt")
    assert tokenizer.decode(tokenizer.encode(text)) == "한글 파일.txt"


def test_special_ids(file):
    def ids(**given):
        tokenizer = TokenizerJson(file, **given)
        return tokenizer.eos_id, tokenizer.bos_id, tokenizer.pad_id

    assert ids(eos_id=2) == (2, -1, 2)
    assert ids(eos_id=2, bos_id=-1, pad_id=-1) == (2, -1, 2)
    assert ids(eos_id=1002, bos_id=0, pad_id=1) == (1002, 0, 1)
    with pytest.raises(UserError, match="eos_token_id of the model, .* is not known"):
        ids(eos_id=None)
    with pytest.raises(UserError, match="eos_token_id of the model, .* is not known"):
        ids(eos_id=-1, bos_id=0)
    with pytest.raises(UserError, match=r"eos_token_id=1003 is none of the 1003 ids"):
        ids(eos_id=1003)
    with pytest.raises(UserError, match=r"pad_token_id=-2 is none of"):
        ids(eos_id=2, pad_id=-2)
    with pytest.raises(UserError, match=r"eos_token_id=\[2, 3\] is none of"):
        ids(eos_id=[2, 3])
    with pytest.raises(UserError, match=r"bos_token_id=<s> is none of"):
        ids(eos_id=2, bos_id="<s>")


def test_saved_and_read_again(file, tmp_path):
    tokenizer = TokenizerJson(file, eos_id=2, bos_id=0)
    path = tmp_path / tokenizer.FILE
    tokenizer.save(path)
    assert path.name == "tokenizer.json" and path.read_bytes() == file
    again = TokenizerJson(path, eos_id=2, bos_id=0)
    assert again.digest() == tokenizer.digest() and len(again.digest()) == 16
    assert again.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)
    # Prepared documents hold these ids and are found by the digest.
    assert TokenizerJson(path, eos_id=3, bos_id=0).digest() != tokenizer.digest()
    assert TokenizerJson(path, eos_id=2).digest() != tokenizer.digest()
    assert TokenizerJson(file + b"\n", eos_id=2, bos_id=0).digest() != tokenizer.digest()


def test_ids_with_a_gap_stay_below_the_vocabulary(file):
    described = json.loads(file)
    last = max(described["model"]["vocab"], key=described["model"]["vocab"].get)
    described["model"]["vocab"][last] = 1500
    tokenizer = TokenizerJson(json.dumps(described).encode(), eos_id=2)
    assert tokenizer.vocab_size == len(tokenizer.pieces()) == 1501
    assert_exact(tokenizer, [*TEXTS, tokenizer.decode([1500])])


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[]", b"{}", b"null", b'{"model": {"type": "New"}}', "half", "model"],
)
def test_a_file_that_is_no_tokenizer_is_refused(file, content, tmp_path, mini_tokenizer):
    if content == "model":
        mini_tokenizer.save(tmp_path / "x.json")
    else:
        half = file[: len(file) // 2]
        (tmp_path / "x.json").write_bytes(half if content == "half" else content)
    with pytest.raises(UserError, match="x.json: not a tokenizer.json that can be read") as e:
        TokenizerJson(tmp_path / "x.json", eos_id=2)
    assert "\n" not in str(e.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="none.json: not a tokenizer.json that can be read"):
        TokenizerJson(tmp_path / "none.json", eos_id=2)


def export_of(tokenizer: SentencePiece, folder: Path) -> bytes:
    tokenizer.save(folder / "tokenizer.model")
    model = (folder / "tokenizer.model").read_bytes()
    return tokenizer_files(model, 1000)["tokenizer.json"].encode()


def test_a_tokenizer_that_cannot_spell_every_text_is_refused(file, mini_tokenizer, tmp_path):
    words = Tokenizer(models.WordLevel({"가": 0, "[UNK]": 1}, unk_token="[UNK]"))
    described = json.loads(file)
    for name in ("vocab", "merges"):  # of the byte E9: 鳥 would be lost
        old = described["model"][name]
        kept = [x for x in old if "é" not in "".join(x)]
        described["model"][name] = {x: old[x] for x in kept} if name == "vocab" else kept
    incomplete = json.dumps(described).encode()
    # Without a decoder nobody knows what <0xE9> or a mark for a space is.
    undecoded = changed(export_of(mini_tokenizer, tmp_path), decoder=None)
    for bad in (words.to_str().encode(), incomplete, changed(file, decoder=None), undecoded):
        with pytest.raises(UserError, match="not every text can be spelled"):
            TokenizerJson(bad, eos_id=0)


# --- Byte fallback -----------------------------------------------------------------------------


def test_our_own_export_has_the_ids_and_pieces_it_came_from(mini_tokenizer, tmp_path):
    tokenizer = TokenizerJson(export_of(mini_tokenizer, tmp_path), eos_id=3, bos_id=2, pad_id=0)
    assert tokenizer.vocab_size == mini_tokenizer.vocab_size
    assert (tokenizer.begin, tokenizer.ends) == (mini_tokenizer.begin, mini_tokenizer.ends)
    assert tokenizer.pieces() == mini_tokenizer.pieces()
    assert tokenizer.token_bytes().tolist() == mini_tokenizer.token_bytes().tolist()
    for symbol in ("<s>", "</s>", "<pad>", IM_START, IM_END):
        assert tokenizer.control_id(symbol) == mini_tokenizer.control_id(symbol)
    # No texts of random new combining marks: the library's NFC is older than Python's.
    texts = [*TEXTS, *DROPPED, *sample_documents(50), f"{IM_START}user\n글{IM_END}"]
    ids = mini_tokenizer.encode_batch(texts)
    assert tokenizer.encode_batch(texts) == ids
    assert [tokenizer.decode(i) for i in ids] == [mini_tokenizer.decode(i) for i in ids]
    assert tokenizer.decode([2, *ids[4], 3]) == TEXTS[4]


@pytest.mark.parametrize("way", ["normalizer", "pre_tokenizer"])
def test_byte_fallback_with_marks_for_spaces(way):
    """Both ways in which Llama's files were written; they put a space before a text."""
    words = ["▁나", "▁는", "는", "나", "▁", "a", "▁a"]
    vocabulary = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *words]
    built = Tokenizer(
        models.BPE(
            {piece: i for i, piece in enumerate(vocabulary)},
            [("▁", "나"), ("▁", "는"), ("▁", "a")],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    if way == "normalizer":
        built.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
        built.decoder = decoders.Sequence(
            [
                decoders.Replace("▁", " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                decoders.Strip(" ", 1, 0),
            ]
        )
    else:
        built.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        built.decoder = decoders.Sequence(
            [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first"), decoders.Fuse()]
        )
    built.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer = TokenizerJson(built.to_str().encode(), eos_id=2, bos_id=1)
    pieces = tokenizer.pieces()
    assert pieces[:3] == [b"", b"", b""]
    assert pieces[3:259] == [bytes([b]) for b in range(256)]
    assert pieces[259:] == [w.replace("▁", " ").encode() for w in words]
    assert tokenizer.encode("나는 나 a") == [
        vocabulary.index(p) for p in ("▁나", "는", "▁나", "▁a")
    ]
    for text in ("나는 나 a", "a", "a  나", "漢😀\n 는", "나</s>a"):
        ids = tokenizer.encode(text)
        assert not {0, 1, 2} & {*ids}
        assert tokenizer.decode([1, *ids, 2]) == text
        assert b"".join(pieces[i] for i in ids) == f" {text}".encode()


# --- Folders -----------------------------------------------------------------------------------


def write(folder: Path, file: bytes, config: dict | str | None) -> Path:
    (folder / "tokenizer.json").write_bytes(file)
    if config is not None:
        text = config if isinstance(config, str) else json.dumps(config)
        (folder / "config.json").write_text(text)
    return folder


def test_a_folder_tells_the_special_ids(file, tmp_path):
    write(tmp_path, file, {"eos_token_id": 3, "bos_token_id": 0, "pad_token_id": None})
    tokenizer = load_tokenizer(tmp_path)
    assert isinstance(tokenizer, TokenizerJson)
    assert (tokenizer.eos_id, tokenizer.bos_id, tokenizer.pad_id) == (3, 0, 3)
    tokenizer = load_tokenizer(tmp_path, bos_id=-1, pad_id=1)
    assert (tokenizer.eos_id, tokenizer.bos_id, tokenizer.pad_id) == (3, -1, 1)


def test_given_special_ids_need_no_config(file, tmp_path):
    write(tmp_path, file, None)
    assert load_tokenizer(tmp_path, eos_id=0).eos_id == 0
    with pytest.raises(UserError, match="eos_token_id"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    "config,message",
    [
        ({"bos_token_id": 0}, "tokenizer.json: the eos_token_id of the model"),
        ({"eos_token_id": 50256}, "eos_token_id=50256 is none of the 1003 ids of .*tokenizer.json"),
        ("{", "config.json cannot be read"),
        ("[]", "config.json is not the config of a model"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(file, tmp_path, config, message):
    with pytest.raises(UserError, match=message):
        load_tokenizer(write(tmp_path, file, config))


def test_tokenizer_model_comes_first(file, tmp_path, mini_tokenizer):
    write(tmp_path, file, {"eos_token_id": 2})
    mini_tokenizer.save(tmp_path / mini_tokenizer.FILE)
    assert mini_tokenizer.FILE == "tokenizer.model"
    tokenizer = load_tokenizer(tmp_path)
    assert isinstance(tokenizer, SentencePiece)
    assert tokenizer.digest() == mini_tokenizer.digest()


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds neither tokenizer.model nor tokenizer.json"):
        load_tokenizer(tmp_path)

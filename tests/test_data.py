"""From sources through the prepared dataset to batches, and on from any row."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest

from hybriko_jax.config import DataConfig, TokenizerConfig
from hybriko_jax.data import prepare as prepare_module
from hybriko_jax.data.loader import Rows, batches, fixed_batches
from hybriko_jax.data.prepare import prepare, train_tokenizer
from hybriko_jax.data.sample import sample_documents
from hybriko_jax.data.sources import BadLines
from hybriko_jax.errors import UserError
from hybriko_jax.sharding import make_mesh
from hybriko_jax.tokenizer import train_sentencepiece

SHARED = Path(__file__).parents[2] / "shared" / "data"
TEXTS = list(sample_documents(400))


@pytest.fixture(scope="module")
def tokenizer():
    return train_sentencepiece(TEXTS, 1200)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "a.jsonl"
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in TEXTS))
    return str(path)


@pytest.fixture(scope="module")
def prepared(tokenizer, source, tmp_path_factory):
    config = DataConfig(source=(source,), held_out=0.1)
    return prepare(config, tokenizer, tmp_path_factory.mktemp("cache"))


def rows(split, **kwargs):
    return Rows(split, **({"weights": (), "seq_len": 128, "seed": 0, "pad_id": 0} | kwargs))


def is_held_out(text):
    return prepare_module.is_held_out(prepare_module.text_hash(text), 0.1)


def texts_of(split, tokenizer):
    documents = split.read(list(range(len(split.length_N))))
    assert all(d[0] == tokenizer.bos_id and d[-1] == tokenizer.eos_id for d in documents)
    return [tokenizer.decode(d[1:-1].tolist()) for d in documents]


def test_every_document_is_in_one_split(prepared, tokenizer):
    train, held_out = (texts_of(s, tokenizer) for s in (prepared.train, prepared.held_out))
    assert sorted(train + held_out) == sorted(TEXTS)
    assert 0.05 < len(held_out) / len(TEXTS) < 0.15


def test_the_index_tells_lengths_and_bytes(prepared, tokenizer):
    split = prepared.train
    documents = split.read(list(range(len(split.length_N))))
    assert [len(d) for d in documents] == split.length_N.tolist()
    assert split.n_bytes == sum(len(t.encode()) for t in texts_of(split, tokenizer))
    spelled = tokenizer.token_bytes()
    assert split.n_bytes == sum(int(spelled[d].sum()) for d in documents)


def test_a_document_keeps_its_split_in_other_company(tokenizer, tmp_path, prepared):
    half = tmp_path / "half.jsonl"
    half.write_text("".join(json.dumps({"text": t}) + "\n" for t in reversed(TEXTS[::2])))
    other = prepare(DataConfig(source=(str(half),), held_out=0.1), tokenizer, tmp_path)
    whole = set(texts_of(prepared.held_out, tokenizer))
    assert set(texts_of(other.held_out, tokenizer)) == whole & set(TEXTS[::2])


def test_a_prepared_dataset_is_reused(tokenizer, source, tmp_path, monkeypatch):
    config = DataConfig(source=(source,), held_out=0.1)
    first = prepare(config, tokenizer, tmp_path)
    monkeypatch.setattr(prepare_module, "_write", lambda *a: pytest.fail("prepared again"))
    assert prepare(config, tokenizer, tmp_path).directory == first.directory


def test_the_digest_names_the_training_documents(prepared, tokenizer, tmp_path):
    def again(name, texts):
        path = tmp_path / name
        path.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
        return prepare(DataConfig(source=(str(path),), held_out=0.1), tokenizer, tmp_path)

    train, held_out = (texts_of(s, tokenizer) for s in (prepared.train, prepared.held_out))
    changes = ((t, t.replace("1", "2")) for t in train if "1" in t)  # a digit is a token
    old, new = next(c for c in changes if not is_held_out(c[1]))
    changed = again("a.jsonl", [new if t == old else t for t in TEXTS])
    np.testing.assert_array_equal(changed.train.length_N, prepared.train.length_N)
    assert changed.digest != prepared.digest
    assert again("b.jsonl", TEXTS).digest == prepared.digest
    assert again("c.jsonl", [t for t in TEXTS if t != held_out[0]]).digest == prepared.digest
    assert again("d.jsonl", reversed(TEXTS)).digest != prepared.digest


def test_a_stopped_preparation_leaves_nothing(tokenizer, source, tmp_path):
    def stop(what, n_documents, n_bytes):
        raise KeyboardInterrupt

    config = DataConfig(source=(source,), held_out=0.1)
    with pytest.raises(KeyboardInterrupt):
        prepare(config, tokenizer, tmp_path, stop)
    assert list(tmp_path.iterdir()) == []
    assert len(prepare(config, tokenizer, tmp_path).train.length_N) > 300


def test_of_two_preparations_at_once_the_first_stays(tokenizer, source, tmp_path, monkeypatch):
    write = prepare_module._write

    def beside_another(data, tokenizer, directory, progress):
        write(data, tokenizer, directory, progress)
        whole = tmp_path / directory.name.split(".")[0]
        shutil.copytree(directory, whole)
        (whole / "first").touch()

    monkeypatch.setattr(prepare_module, "_write", beside_another)
    found = prepare(DataConfig(source=(source,), held_out=0.1), tokenizer, tmp_path)
    assert list(tmp_path.iterdir()) == [found.directory]
    assert (found.directory / "first").exists()


def test_what_killed_preparations_left_is_swept(tokenizer, source, tmp_path):
    process = subprocess.Popen(["true"])
    process.wait()
    dead = tmp_path / f"key{prepare_module._TEMPORARY}{process.pid}"
    alive = tmp_path / f"key{prepare_module._TEMPORARY}{os.getppid()}"
    elsewhere = tmp_path / f"key.tmp-elsewhere-{process.pid}"
    for path in (dead, alive, elsewhere):
        path.mkdir()
    prepare(DataConfig(source=(source,), held_out=0.1), tokenizer, tmp_path)
    assert not dead.exists() and alive.exists() and elsewhere.exists()


def test_a_damaged_dataset_is_said(tokenizer, source, tmp_path):
    config = DataConfig(source=(source,), held_out=0.1)
    whole = prepare(config, tokenizer, tmp_path).directory
    (whole / "index.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match="is a damaged dataset .* Remove it"):
        prepare(config, tokenizer, tmp_path)


def test_bad_lines_are_told(tokenizer, tmp_path, capsys):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in TEXTS[:60]) + "{oops\n")
    result = prepare(DataConfig(source=(str(path),), held_out=0.2), tokenizer, tmp_path)
    assert json.loads((result.directory / "prepared.json").read_text())["bad_lines"] == 1
    assert "a.jsonl:61: not JSON" in capsys.readouterr().out
    bad = BadLines("skip")
    train_tokenizer(
        DataConfig(source=(str(path),)), TokenizerConfig(train_megabytes=0.1), 1000, bad=bad
    )
    assert "a.jsonl:61: not JSON" in bad.first[0]


def test_an_empty_split_is_refused(tokenizer, tmp_path):
    (tmp_path / "a.txt").write_text("하나뿐인 문서")
    with pytest.raises(UserError, match="held_out split is empty: 1 documents"):
        prepare(DataConfig(source=(str(tmp_path / "a.txt"),)), tokenizer, tmp_path)


def test_the_tokenizer_does_not_see_held_out_text(tmp_path):
    path = tmp_path / "a.txt"
    held = [t for t in TEXTS if is_held_out(t)]
    path.write_text("\n\n".join(TEXTS))
    seen = []
    config = DataConfig(source=(str(path),), held_out=0.1)

    def spy(texts, vocab_size, character_coverage):
        seen.extend(texts)

    original = prepare_module.train_sentencepiece
    prepare_module.train_sentencepiece = spy
    try:
        train_tokenizer(config, TokenizerConfig(train_megabytes=0.05), 500)
    finally:
        prepare_module.train_sentencepiece = original
    assert held and not set(held) & set(seen)
    assert 0.03e6 < sum(len(t.encode()) for t in seen) <= 0.05e6


def test_an_epoch_holds_every_document_once(prepared, tokenizer):
    all_rows = rows(prepared.train)
    found = []
    whole = all_rows.batch(range(all_rows.plan(0).n_rows))
    for tokens_L, positions_L in zip(whole.tokens_BL, whole.positions_BL, strict=True):
        starts = np.flatnonzero((positions_L == 0) & (tokens_L != tokenizer.pad_id))
        for a, b in zip(starts, [*starts[1:], 128], strict=True):
            piece = tokens_L[a:b]
            found.extend(piece[piece != tokenizer.pad_id].tolist())
    expected = np.concatenate(prepared.train.read(list(range(len(prepared.train.length_N)))))
    np.testing.assert_array_equal(np.sort(found), np.sort(expected))


def test_positions_and_mask_follow_the_documents(prepared):
    batch = rows(prepared.train).batch([0, 3])
    for b, r in enumerate((0, 3)):
        at = 0
        for document, begin, n in rows(prepared.train).plan(0).pieces(r):
            ids = prepared.train.read([document])[0][begin : begin + n]
            np.testing.assert_array_equal(batch.tokens_BL[b, at : at + n], ids)
            np.testing.assert_array_equal(batch.positions_BL[b, at : at + n], np.arange(n))
            at += n
        assert (batch.positions_BL[b, at:] == 0).all() and (batch.tokens_BL[b, at:] == 0).all()
    np.testing.assert_array_equal(batch.loss_mask_BL, batch.positions_BL > 0)


def collect(all_rows, batch_size, mesh, first_row, n):
    stream = batches(all_rows, batch_size, mesh, first_row)
    return np.concatenate([np.asarray(next(stream).tokens_BL) for _ in range(n)])


def test_a_stream_goes_on_from_any_row_on_any_mesh(prepared):
    all_rows = rows(prepared.train)
    whole = collect(all_rows, 8, make_mesh("1"), 0, 6)
    np.testing.assert_array_equal(whole[24:], collect(all_rows, 8, make_mesh("8"), 24, 3))
    np.testing.assert_array_equal(whole[8:40], collect(all_rows, 16, make_mesh("data=4"), 8, 2))


def test_epochs_follow_each_other(prepared):
    all_rows = rows(prepared.train)
    n = all_rows.plan(0).n_rows
    assert all_rows.locate(n - 1) == (0, n - 1) and all_rows.locate(n) == (1, 0)
    stream = collect(all_rows, 4, make_mesh("1"), n - 2, 1)
    first, again = all_rows.batch([0, n]).tokens_BL
    np.testing.assert_array_equal(stream[2], again)
    assert not np.array_equal(first, again)


def test_held_out_batches_are_filled_up_with_nothing(prepared):
    held_out = rows(prepared.held_out)
    n = held_out.plan(0).n_rows
    found = fixed_batches(held_out, 16, make_mesh("8"), 100)
    assert len(found) == -(-n // 16)
    mask = np.concatenate([np.asarray(b.loss_mask_BL) for b in found])
    assert mask[:n].any(axis=1).all() and not mask[n:].any()
    targets = sum(int(b.loss_mask_BL.sum()) for b in found)
    pieces = len(held_out.plan(0).length_P)
    assert targets == int(prepared.held_out.length_N.sum()) - pieces
    assert jax.tree.leaves(found)[0].sharding.mesh.size == 8


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.exists(), reason="needs the real corpus beside the checkout")
def test_the_real_corpus_packs_tightly(tmp_path):
    config = DataConfig(source=(str(SHARED / "ko_text.[ort]*.jsonl.zst"),))
    tokenizer = train_tokenizer(config, TokenizerConfig(train_megabytes=5), 8000)
    prepared = prepare(config, tokenizer, tmp_path)
    for seq_len in (512, 2048):
        assert rows(prepared.train, seq_len=seq_len).plan(0).fill(seq_len) >= 0.98

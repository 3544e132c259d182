"""Every kind of source gives the same documents; bad lines are named."""

import bz2
import gzip
import json
import lzma

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from hybriko_jax.data import sources
from hybriko_jax.data.sources import BadLines, documents, fingerprint, source_files
from hybriko_jax.errors import UserError

TEXTS = ["첫째 문서입니다.", "둘째 문서는\n두 줄입니다.", "셋째 😀"]


def read(source, field="text", policy="refuse", whole=False):
    return list(documents(str(source), field, BadLines(policy), whole))


def as_jsonl(texts=TEXTS, field="text"):
    return "".join(json.dumps({field: t, "id": 1}, ensure_ascii=False) + "\n" for t in texts)


COMPRESS = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard.compress,
}


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("kind", [".jsonl", ".txt"])
def test_text_and_jsonl_plain_and_compressed(tmp_path, kind, suffix):
    text = as_jsonl() if kind == ".jsonl" else "\n\n" + "\n \n\n".join(TEXTS) + "\n"
    (tmp_path / f"a{kind}{suffix}").write_bytes(COMPRESS[suffix](text.encode()))
    assert read(tmp_path / f"a{kind}{suffix}") == TEXTS


def test_parquet(tmp_path):
    pyarrow.parquet.write_table(
        pyarrow.table({"body": TEXTS, "n": [1, 2, 3]}), tmp_path / "a.parquet"
    )
    assert read(tmp_path / "a.parquet", "body") == TEXTS
    with pytest.raises(UserError, match="no column 'text'; it has body, n"):
        read(tmp_path / "a.parquet")


def test_damage_inside_a_parquet_file_names_the_file(tmp_path):
    texts = [f"문서 {i}" for i in range(5000)]
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path, use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[100:3000] = bytes(2900)
    path.write_bytes(content)
    with pytest.raises(UserError, match="a.parquet: not a Parquet file that can be read"):
        read(path)


def write_tfds(directory, features, examples):
    import tensorflow_datasets as tfds

    identity = tfds.core.dataset_info.DatasetIdentity(
        name="mine",
        version=tfds.core.Version("1.0.0"),
        data_dir=str(directory),
        module_name=__name__,
    )
    info = tfds.core.DatasetInfo(builder=identity, features=tfds.features.FeaturesDict(features))
    writer = tfds.core.SequentialWriter(info, 100, overwrite=True, file_format="array_record")
    writer.initialize_splits(["train"])
    writer.add_examples({"train": examples})
    writer.close_all()


def test_a_local_tfds_dataset(tmp_path):
    import tensorflow_datasets as tfds

    features = {"text": tfds.features.Text(), "n": tfds.features.Scalar(np.int64)}
    write_tfds(tmp_path, features, [{"text": t, "n": n} for n, t in enumerate(TEXTS)])
    assert read(f"tfds:{tmp_path}") == TEXTS
    with pytest.raises(UserError, match="no field 'body'; it has "):
        read(f"tfds:{tmp_path}", "body")
    with pytest.raises(UserError, match="field 'n' holds int, not text"):
        read(f"tfds:{tmp_path}", "n")


def test_a_tfds_name_that_cannot_be_built_names_the_way_out():
    with pytest.raises(UserError, match=r"tfds:no_such_set cannot be read here .*tfds build"):
        read("tfds:no_such_set")


def test_directories_and_globs_in_order(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b.txt").write_text("나")
    (tmp_path / "in" / "a.txt").write_text("가")
    (tmp_path / "in" / "notes.md").write_text("not a source")
    (tmp_path / "c.jsonl").write_text(as_jsonl(["다"]))
    assert read(tmp_path / "in") == ["가", "나"]
    assert read(tmp_path / "in" / "*.txt") == ["가", "나"]
    assert [p.name for p in source_files(str(tmp_path))] == ["c.jsonl", "a.txt", "b.txt"]


def test_bad_lines_are_counted_and_named(tmp_path):
    path = tmp_path / "a.jsonl"
    good = as_jsonl(["하나"]).encode()
    path.write_bytes(good + b"{broken\n" + b'{"other": 1}\n' + b'"\xff\xfe"\n' + good)
    bad = BadLines("skip")
    assert list(documents(str(path), "text", bad)) == ["하나", "하나"]
    assert bad.count == 3
    assert [line.split(":")[1] for line in bad.first] == ["2", "3", "4"]
    with pytest.raises(UserError, match=r"a.jsonl:2: not JSON .*--data.on-bad-line skip"):
        read(path)


@pytest.mark.parametrize(
    "name,content,message",
    [
        ("empty.txt", b"", "is empty"),
        ("a.csv", b"x", "unknown suffix"),
        ("a.jsonl.zst", b"not zstandard", "cannot be read"),
        ("a.txt.gz", gzip.compress("가나다".encode() * 99, mtime=0)[:-9], "cannot be read"),
        ("a.txt.xz", b"not xz", "cannot be read"),
        ("a.parquet", b"not parquet", "not a Parquet file"),
        ("missing", None, "no such file"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    for whole in (False, True):
        with pytest.raises(UserError, match=message) as e:
            read(tmp_path / name, whole=whole)
        assert "\n" not in str(e.value) and "--" not in str(e.value)


def test_an_unreachable_hub_names_the_ways_out(monkeypatch):
    import huggingface_hub

    def refuse(*args, **kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(UserError, match=r"files of your own .*--data.source sample"):
        read("hf:wikimedia/wikipedia:20231101.ko/*.parquet")


def test_files_of_the_hub_are_read(monkeypatch, tmp_path):
    import huggingface_hub

    (tmp_path / "20231101.ko").mkdir()
    table = pyarrow.table({"text": TEXTS})
    pyarrow.parquet.write_table(table, tmp_path / "20231101.ko" / "train-0.parquet")
    asked = []

    def download(repository, *, repo_type, revision, allow_patterns):
        asked.append((repository, repo_type, revision, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert read("hf:wikimedia/wikipedia:20231101.ko/*.parquet") == TEXTS
    assert read("hf:wikimedia/wikipedia@b04c:20231101.ko/*.parquet") == TEXTS
    for revision, call in zip((None, "b04c"), asked, strict=True):
        assert call == ("wikimedia/wikipedia", "dataset", revision, "20231101.ko/*.parquet")
    with pytest.raises(UserError, match="give hf:OWNER/NAME:GLOB"):
        read("hf:wikimedia/wikipedia")


def test_whole_documents_of_a_text_file_are_the_file(tmp_path):
    content = "\n\n하나\n둘\n\n\n셋\r\n \n넷 끝"
    (tmp_path / "a.txt").write_bytes(content.encode())
    found = read(tmp_path / "a.txt", policy="skip", whole=True)
    assert "".join(found) == content
    assert found == ["\n\n하나\n둘\n\n\n", "셋\r\n \n", "넷 끝"]


def test_a_whole_file_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes("가나다\n".encode() + "가".encode("cp949"))
    with pytest.raises(UserError, match="a.txt:2: not UTF-8"):
        read(tmp_path / "a.txt", policy="skip", whole=True)


@pytest.mark.parametrize("kind", [".jsonl", ".txt"])
def test_a_byte_order_mark_is_no_text(tmp_path, kind):
    content = as_jsonl(TEXTS[:2]) if kind == ".jsonl" else "\n\n".join(TEXTS[:2])
    (tmp_path / f"a{kind}").write_text("\ufeff" + content)
    assert read(tmp_path / f"a{kind}") == TEXTS[:2]
    if kind == ".txt":
        assert "".join(read(tmp_path / "a.txt", whole=True)) == "\ufeff" + content


def test_the_samples_fingerprint_changes_with_its_material(monkeypatch):
    before = fingerprint("sample")
    monkeypatch.setattr(sources, "_SAMPLE_MATERIAL", "another")
    assert fingerprint("sample") != before
    assert len(before[-1]) == 64


def test_a_fingerprint_changes_with_the_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("가")
    before = fingerprint(str(path))
    assert fingerprint(str(path)) == before
    path.write_text("가나")
    assert fingerprint(str(path)) != before

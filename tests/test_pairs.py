"""Every format gives the same pairs; what is wrong with a file is one line that names it."""

import bz2
import csv
import gzip
import io
import json
import lzma
import random
import re
import sys
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from hybriko_jax.data.pairs import Pair, read_pairs
from hybriko_jax.data.sources import BadLines
from hybriko_jax.errors import UserError

PAIRS = [
    Pair("안녕하세요?", "Hello?"),
    Pair('그는 "네, 알겠습니다"라고 했다.', '"Yes, sir," he said.'),
    Pair("첫째 문단.\n\n둘째\t문단, 끝.", "First paragraph.\n\nSecond\tparagraph, end."),
    Pair('"인용"', '"Quote"'),
    Pair("줄\u2028나눔", "line\u2028break"),
    Pair("12", "12"),
    Pair("C:\\끝 <b>굵게</b> 😀", "C:\\end <b>bold</b> 😀"),
]
SIMPLE = [p for p in PAIRS if "\t" not in p.left]
SHARED = Path(__file__).parents[2] / "shared" / "data"
COMPRESS = {
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard.compress,
}


def table(pairs, header=("ko", "en"), **options):
    text = io.StringIO(newline="")
    csv.writer(text, **options).writerows([header, *pairs] if header else pairs)
    return text.getvalue().encode()


def dump(value):
    return json.dumps(value, ensure_ascii=False).encode()


def records(pairs=PAIRS, ko="ko", en="en"):
    return [{"sn": str(n), ko: k, "mt": "machine", en: e} for n, (k, e) in enumerate(pairs)]


def lines(objects):
    return b"".join(dump(o) + b"\n" for o in objects)


def parquet(**columns):
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    return file.getvalue()


def workbook(*sheets):
    book = openpyxl.Workbook()
    for n, rows in enumerate(sheets):  # before the empty one that a new workbook has
        sheet = book.create_sheet(index=n)
        for row in rows:
            sheet.append(row)
    file = io.BytesIO()
    del book[book.sheetnames[-1]]
    book.save(file)
    return file.getvalue()


def columns(pairs=PAIRS):
    return {"ko": [p.left for p in pairs], "en": [p.right for p in pairs]}


# File name and content of the same pairs, as other programs write them.
FORMATS = {
    "csv": ("a.csv", table(PAIRS)),
    "csv, Unix line ends": ("a.csv", table(PAIRS, lineterminator="\n")),
    "csv with a mark, as Excel saves it": ("a.csv", b"\xef\xbb\xbf" + table(PAIRS)),
    "csv, every cell quoted": ("a.csv", table(PAIRS, quoting=csv.QUOTE_ALL)),
    "tsv, quoted where needed": ("a.tsv", table(PAIRS, delimiter="\t")),
    "tsv, every cell quoted": ("a.tsv", table(PAIRS, delimiter="\t", quoting=csv.QUOTE_ALL)),
    "tsv, texts quoted": (
        "a.tsv",
        table(
            [(*p, n) for n, p in enumerate(PAIRS)],
            ("ko", "en", "n"),
            delimiter="\t",
            quoting=csv.QUOTE_NONNUMERIC,
            lineterminator="\n",
        ),
    ),
    "tsv without a header": ("a.tsv", table(PAIRS, None, delimiter="\t")),
    "csv without a header": ("a.csv", table(PAIRS, None)),
    "jsonl": ("a.jsonl", lines(records())),
    "jsonl, translation": (
        "a.jsonl",
        lines({"id": "1", "translation": {"en": e, "ko": k}} for k, e in PAIRS),
    ),
    "json": ("a.json", dump(records())),
    "json of AI-Hub, colloquial": (
        "a.json",
        dump({"data": [{"ko_original": "예전", "tags": [{"n": 1}], **r} for r in records()]}),
    ),
    "json of AI-Hub, multilingual": ("a.json", dump(records(ko="원문", en="최종번역문"))),
    "json, in documents": (
        "a.json",
        dump({"meta": {"n": 2}, "docs": [{"s": records(PAIRS[:4])}, {"s": records(PAIRS[4:])}]}),
    ),
    "parquet": ("a.parquet", parquet(id=list(range(len(PAIRS))), **columns())),
    "parquet, large and categorical": (
        "a.parquet",
        parquet(
            ko=pyarrow.array(columns()["ko"], pyarrow.large_string()),
            en=pyarrow.array(columns()["en"]).dictionary_encode(),
        ),
    ),
    "parquet, translation": (
        "a.parquet",
        parquet(translation=[{"en": e, "ko": k} for k, e in PAIRS]),
    ),
    "xlsx": ("a.xlsx", workbook([("SID", "원문", "번역문"), *((1, *p) for p in PAIRS)])),
    "xlsx, two sheets and a note": (
        "a.xlsx",
        workbook(
            [("ko", "en"), *PAIRS[:3]], [("note",), ("안내",)], [("en", "ko")] + [
                (e, k) for k, e in PAIRS[3:]
            ],
        ),
    ),
}  # fmt: skip


def write(directory, name, content):
    (directory / name).write_bytes(content)
    return str(directory / name)


@pytest.mark.parametrize("name,content", FORMATS.values(), ids=FORMATS)
def test_a_pair_is_the_same_from_every_format(tmp_path, name, content):
    path = write(tmp_path, name, content)
    assert read_pairs(path) == PAIRS
    if content not in (FORMATS["tsv without a header"][1], FORMATS["csv without a header"][1]):
        assert read_pairs(path, ("en", "ko")) == [p[::-1] for p in PAIRS]


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("kind", ["csv", "tsv, quoted where needed", "jsonl", "json"])
def test_compressed_files_are_read(tmp_path, kind, suffix):
    name, content = FORMATS[kind]
    assert read_pairs(write(tmp_path, name + suffix, COMPRESS[suffix](content))) == PAIRS


def test_a_tfds_translation_set(tmp_path):
    import tensorflow_datasets as tfds

    core: Any = tfds.core
    identity = core.dataset_info.DatasetIdentity(
        name="mine",
        version=core.Version("1.0.0"),
        data_dir=str(tmp_path),
        module_name=__name__,
    )
    features = tfds.features.Translation(languages=("en", "ko"))
    info = core.DatasetInfo(builder=identity, features=features)
    writer = core.SequentialWriter(info, 100, overwrite=True, file_format="array_record")
    writer.initialize_splits(["train"])
    writer.add_examples({"train": [{"ko": k, "en": e} for k, e in PAIRS]})
    writer.close_all()
    assert read_pairs(f"tfds:{tmp_path}") == PAIRS
    assert read_pairs(f"tfds:{tmp_path}", ("en", "ko")) == [p[::-1] for p in PAIRS]
    with pytest.raises(UserError, match="no field '원문'; it has en, ko"):
        read_pairs(f"tfds:{tmp_path}", columns={"ko": "원문"})
    with pytest.raises(UserError, match="'en' .ko. holds .* Swap them .*: ko ko en en"):
        read_pairs(f"tfds:{tmp_path}", columns={"ko": "en", "en": "ko"})


def test_a_directory_a_glob_and_a_name_with_brackets(tmp_path):
    (tmp_path / "한[영]").mkdir()
    write(tmp_path / "한[영]", "b.csv", table(PAIRS[3:]))
    write(tmp_path / "한[영]", "a.jsonl.gz", gzip.compress(lines(records(PAIRS[:3]))))
    write(tmp_path / "한[영]", "~$b.xlsx", b"a lock of Excel")
    write(tmp_path / "한[영]", "read.me", b"no pairs")
    assert read_pairs(str(tmp_path)) == PAIRS
    assert read_pairs(str(tmp_path / "한[영]" / "b.csv")) == PAIRS[3:]
    assert read_pairs(str(tmp_path / "*" / "*.csv")) == PAIRS[3:]


def test_quotes_of_a_plain_table_are_kept(tmp_path):
    """What csv readers would take off or run on from."""
    pairs = [
        *SIMPLE,
        Pair('"시작만', '"begins only'),
        Pair('5" 화면', 'a 5" screen'),
        Pair('""', '""'),
    ]
    content = "".join(f"{k}\t{e}\t출처\n" for k, e in pairs).encode()
    assert read_pairs(write(tmp_path, "a.tsv", content)) == pairs
    # Nothing but whole quotes, around cells that need none.
    few = "".join(f"{k}\t{e}\n" for k, e in [SIMPLE[0], PAIRS[3]]).encode()
    assert read_pairs(write(tmp_path, "b.tsv", few)) == [SIMPLE[0], PAIRS[3]]


def test_any_pairs_come_back_from_every_table(tmp_path):
    rng = random.Random(3)
    alphabet = '""\t\n ,\'a가나\\1'
    texts = ["가" + "".join(rng.choices(alphabet, k=rng.randrange(9))) + "끝" for _ in range(300)]
    pairs = [Pair(t, re.sub("[가-힣]", "x", u)) for t, u in zip(texts, texts[::-1], strict=True)]
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC):
        for header in (("ko", "en"), None):
            for delimiter, suffix in ((",", "csv"), ("\t", "tsv")):
                content = table(pairs, header, delimiter=delimiter, quoting=quoting)
                assert read_pairs(write(tmp_path, f"a.{suffix}", content)) == pairs
    plain = [Pair(*(re.sub(r"[\t\n]", " ", t) for t in p)) for p in pairs]
    content = "".join(f"{k}\t{e}\n" for k, e in plain).encode()
    assert read_pairs(write(tmp_path, "a.tsv", content)) == plain


def test_line_ends_and_white_space_around_texts(tmp_path):
    pairs = [("  한 줄\r\n두 줄 ", "\none line\rtwo lines\t"), ("", " "), ("끝", "end")]
    expected = [Pair("한 줄\n두 줄", "one line\ntwo lines"), Pair("끝", "end")]
    for name, content in {
        "a.csv": table(pairs),
        "a.jsonl": lines(records(pairs)),
        "a.parquet": parquet(**columns([Pair(*p) for p in pairs])),
    }.items():
        assert read_pairs(write(tmp_path, name, content)) == expected


def test_columns_are_found_by_name_or_number(tmp_path):
    rows = [("번호", "본문", "역문", "영어"), *((str(n), *p, "x") for n, p in enumerate(SIMPLE))]
    for name, content in {
        "a.csv": table(rows[1:], rows[0]),
        "a.tsv": table(rows[1:], rows[0], delimiter="\t"),
        "a.xlsx": workbook(rows),
        "a.json": dump([dict(zip(rows[0], row, strict=True)) for row in rows[1:]]),
    }.items():
        path = write(tmp_path, name, content)
        assert read_pairs(path, columns={"ko": "본문", "en": "역문"}) == SIMPLE
        with pytest.raises(UserError, match="no column for '한글'; it has 번호, 본문, 역문, 영어"):
            read_pairs(path, columns={"ko": "한글", "en": "역문"})
        with pytest.raises(UserError, match="no column for ko; it has 번호, 본문, 역문, 영어"):
            read_pairs(path)
    for name, content in {"b.csv": table(rows[1:], None), "b.xlsx": workbook(rows[1:])}.items():
        path = write(tmp_path, name, content)
        assert read_pairs(path, columns={"ko": "2", "en": "3"}) == SIMPLE
        with pytest.raises(UserError, match="no column for '2' and '9'"):
            read_pairs(path, columns={"ko": "2", "en": "9"})
    # A first row that names the languages is no pair, also where columns are numbered.
    named = write(
        tmp_path, "c.tsv", table([(e, k) for k, e in SIMPLE], ("en", "KO"), delimiter="\t")
    )
    assert read_pairs(named) == read_pairs(named, columns={"ko": "2", "en": "1"}) == SIMPLE


def test_preferred_names_win_and_machine_translation_is_never_taken(tmp_path):
    objects = [{"ko_original": "예전 글", "mt": "machine", "ko": "새 글", "en": "text"}]
    assert read_pairs(write(tmp_path, "a.jsonl", lines(objects))) == [Pair("새 글", "text")]
    objects = [{"원문": "글", "1차번역": "draft", "최종번역문": "text", "번역문": "old"}]
    assert read_pairs(write(tmp_path, "b.jsonl", lines(objects))) == [Pair("글", "text")]
    with pytest.raises(UserError, match="no column for en and ja"):  # not both from one column
        read_pairs(str(tmp_path / "b.jsonl"), ("en", "ja"))


def test_other_languages(tmp_path):
    path = write(tmp_path, "a.csv", table([("안녕", "こんにちは")], ("한국어", "일본어")))
    assert read_pairs(path, ("ja", "ko")) == [Pair("こんにちは", "안녕")]
    path = write(tmp_path, "b.csv", table([("Hallo", "Hello")], ("de", "EN")))
    assert read_pairs(path, ("de", "en")) == [Pair("Hallo", "Hello")]


def test_cells_of_spreadsheets(tmp_path):
    rows = [("ko", "en"), ("두 줄_x000D_\n입니다", "two\nlines"), (None, None), (2024, 1.5)]
    path = write(tmp_path, "a.xlsx", workbook(rows))
    assert read_pairs(path) == [Pair("두 줄\n입니다", "two\nlines"), Pair("2024", "1.5")]
    # Some programs write that the sheet is one cell large.
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    sheet = next(name for name in parts if "sheet1" in name)
    assert b'ref="A1:B4"' in parts[sheet]
    parts[sheet] = parts[sheet].replace(b'ref="A1:B4"', b'ref="A1"')
    with zipfile.ZipFile(tmp_path / "b.xlsx", "w") as file:
        for name, part in parts.items():
            file.writestr(name, part)
    assert read_pairs(str(tmp_path / "b.xlsx")) == read_pairs(path)


def test_a_spreadsheet_without_openpyxl_names_the_extra(tmp_path, monkeypatch):
    path = write(tmp_path, *FORMATS["xlsx"])
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(UserError, match=r"hybriko-jax\[xlsx\].* or save the sheet as CSV"):
        read_pairs(path)


def test_a_long_document_is_one_pair(tmp_path):
    text = '긴 문단입니다. "따옴표"도 있습니다.\n\n' * 9000  # beyond the default limit of csv
    pair = Pair(text.strip(), text.strip().replace("긴", "Long").encode("ascii", "ignore").decode())
    assert read_pairs(write(tmp_path, "a.csv", table([pair]))) == [pair]
    assert read_pairs(write(tmp_path, "a.tsv", table([pair], delimiter="\t"))) == [pair]


BAD_ROWS = {
    "tsv": ("a.tsv", b"ko\ten\n\xea\xb0\x80\ta\n\xeb\x82\x98\t \n", ":3: the en side is empty"),
    "tsv, narrow": ("a.tsv", "가\ta\n나\n".encode(), ":2: 1 columns, the first row has 2"),
    "tsv, wide": ("a.tsv", "가\ta\n나\tb\tc\n".encode(), ":2: 3 columns, the first row has 2"),
    "tsv, plain quotes": (
        "a.tsv",
        '가\t5" a\n"나\n다"\n'.encode(),
        ":2: 1 columns, .* because of the one in line 1",
    ),
    "csv": ("a.csv", 'ko,en\n가,a\n"나\n나",\n'.encode(), ":3: the en side is empty"),
    "jsonl": ("a.jsonl", lines(records(PAIRS[:1])) + b"{\n", ":2: not JSON"),
    "jsonl, a list": ("a.jsonl", lines(records(PAIRS[:1])) + b"[]\n", ":2: not an object"),
    "jsonl, null": (
        "a.jsonl",
        lines(records([PAIRS[0], ("가", None)])),
        ":2: the en side is empty",
    ),
    "jsonl, number": (
        "a.jsonl",
        lines(records([PAIRS[0], ("가", 0)])),
        ":2: the en side is .* int",
    ),
    "jsonl, field": ("a.jsonl", lines([*records(PAIRS[:1]), {"ko": "가"}]), ":2: no field 'en'"),
    "jsonl, bytes": ("a.jsonl", lines(records(PAIRS[:1])) + b"\xff\n", ":2: not UTF-8"),
    "jsonl, surrogate": (
        "a.jsonl",
        lines(records(PAIRS[:1])) + b'{"ko": "\\ud800", "en": "a"}\n',
        ":2: half of a surrogate pair",
    ),
    "json": (
        "a.json",
        dump({"data": records([PAIRS[0], ("", "b")])}),
        r", object 2 of \$.data\[\]: the ko side is empty",
    ),
    "parquet": (
        "a.parquet",
        parquet(ko=["가", None], en=["a", "b"]),
        ", row 2: the ko side is empty",
    ),
    "xlsx": (
        "a.xlsx",
        workbook([("ko", "en"), ("가", "a"), (None, "b")]),
        ", sheet 'Sheet1', row 3: the ko side is empty",
    ),
    "xlsx, truth": (
        "a.xlsx",
        workbook([("ko", "en"), ("가", "a"), ("나", True)]),
        ", sheet 'Sheet1', row 3: the en side is of type bool",
    ),
}


@pytest.mark.parametrize("name,content,message", BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_row_is_refused_or_counted(tmp_path, name, content, message):
    path = write(tmp_path, name, content)
    with pytest.raises(UserError, match=re.escape(path) + message) as e:
        read_pairs(path)
    assert "\n" not in str(e.value)
    bad = BadLines("skip")
    assert len(read_pairs(path, bad=bad)) == 1
    assert bad.count >= 1 and re.search(message, bad.first[0])


SWAPPED = [p[::-1] for p in SIMPLE]
BAD_FILES = {
    "missing": ("b.tsv", None, "no such file"),
    "empty": ("a.tsv", b"", "is empty"),
    "empty, compressed": ("a.csv.gz", gzip.compress(b""), "no column for ko and en; it has none"),
    "blank": ("a.jsonl", b"\n \n", "holds no object"),
    "header only": ("a.csv", b"ko,en\n", "holds no pair of ko and en"),
    "suffix": ("a.txt", b"x", "unknown suffix"),
    "compressed sheet": ("a.xlsx.gz", b"x", "unknown suffix"),
    "not UTF-8": ("a.tsv", "가\ta\n".encode("cp949"), ":1: not UTF-8 .*Convert the file"),
    "UTF-16": ("a.csv", "ko,en\n가,a\n".encode("utf-16"), ":1: not UTF-8"),
    "json, not UTF-8": ("a.json", '[{"ko": "가"}]'.encode("cp949"), ":1: not UTF-8"),
    "one column": ("a.tsv", "가\n나\n".encode(), "no column for ko and en; it has 가"),
    "half a header": ("a.tsv", "ko\t역문\n가\ta\n".encode(), "no column for en; it has ko, 역문"),
    "two columns": ("a.csv", "ko,en,en\n가,a,b\n".encode(), "two columns 'en'"),
    "quotes": ("a.csv", 'ko,en\n가,a\n"나,b\n다,c\n'.encode(), ":3: the row .* is not CSV"),
    "json lines": ("a.json", lines(records()), "not JSON .* name it .jsonl"),
    "json of lists": ("a.json", dump({"a": records(), "b": records()}), r": \$.a\[\], \$.b\[\]"),
    "json without": ("a.json", dump({"data": [{"kor_text": "가"}]}), "it has kor_text"),
    "json of numbers": ("a.json", dump([1, 2]), "it has none"),
    "json of nothing": ("a.json", dump(3), "it has none"),
    "parquet numbers": ("a.parquet", parquet(ko=["가"], en=[1]), "'en' holds int64, not text"),
    "parquet without": ("a.parquet", parquet(text=["가"]), "no column for ko and en; it has text"),
    "not parquet": ("a.parquet", b"x", "not a Parquet file"),
    "not a workbook": ("a.xlsx", b"x", "not an XLSX file"),
    "empty sheet": ("a.xlsx", workbook([]), "it has none"),
    "sheet without header": ("a.xlsx", workbook(SIMPLE), "no column for ko and en; it has 안녕"),
    "swapped": (
        "a.csv",
        table(SWAPPED),
        r"column 'ko' \(ko\) holds 0% Hangul, column 'en' \(en\) \d\d%\. "
        "Swap them by --columns: ko en en ko",
    ),
    "swapped, no header": (
        "a.tsv",
        table(SWAPPED, None, delimiter="\t"),
        "column '1' .* Swap them by --columns: ko 2 en 1",
    ),
    "no Korean": ("a.csv", table([("a", "b")]), r"\(ko\) holds 0% Hangul.* Name the right"),
    "twice Korean": ("a.csv", table([("가", "나")]), r"\(en\) 100%\. Name the right"),
    "unknown header": ("a.tsv", "source\ttarget\n가\ta\n".encode(), "begins with 'source'"),
}  # fmt: skip


@pytest.mark.parametrize("name,content,message", BAD_FILES.values(), ids=BAD_FILES)
@pytest.mark.parametrize("policy", ["refuse", "skip"])
def test_a_bad_file_is_refused_in_one_line(tmp_path, name, content, message, policy):
    if content is not None:
        write(tmp_path, name, content)
    with pytest.raises(UserError, match=message) as e:
        read_pairs(str(tmp_path / name), bad=BadLines(policy))
    assert "\n" not in str(e.value) and str(tmp_path / name) in str(e.value)


@pytest.mark.parametrize(
    "languages,columns,message",
    [
        (("ko", "ko"), None, "two different"),
        (("ko", "en"), {"ja": "x"}, "one for ja"),
        (("ko", "en"), {"ko": "x", "en": "x"}, "'x' for both"),
    ],
)
def test_bad_options(languages, columns, message):
    with pytest.raises(UserError, match=message):
        read_pairs("a.tsv", languages, columns)


def test_the_way_out_of_swapped_columns_and_unknown_headers_works(tmp_path):
    swapped = write(tmp_path, "a.tsv", table(SWAPPED, None, delimiter="\t"))
    assert read_pairs(swapped, columns={"ko": "2", "en": "1"}) == SIMPLE
    header = write(tmp_path, "b.tsv", "API\tAPI\n가\ta\n".encode())
    numbered = read_pairs(header, columns={"ko": "1", "en": "2"})
    assert numbered == [Pair("API", "API"), Pair("가", "a")]


def test_hangul_is_known_decomposed(tmp_path):
    pairs = [Pair(unicodedata.normalize("NFD", p.left), p.right) for p in SIMPLE]
    assert read_pairs(write(tmp_path, "a.csv", table(pairs))) == pairs


REAL = ["dev", "test", "test_tech", "train.sharealike", "train.copyleft"]
LARGE = [pytest.param(n, marks=pytest.mark.slow) for n in ("train", "train.mt")]


@pytest.mark.parametrize("name", [*REAL, *LARGE])
def test_real_files_are_read_without_loss(name):
    path = next(iter(SHARED.glob(f"ko_en.{name}.tsv*")), None)
    if path is None:
        pytest.skip("no shared data")
    content = path.read_bytes()
    text = (lzma.decompress(content) if path.suffix == ".xz" else content).decode()
    rows = [line.split("\t") for line in text.removesuffix("\n").split("\n")]
    assert read_pairs(str(path), ("en", "ko")) == [(en, ko) for en, ko, _ in rows]
    with pytest.raises(UserError, match="Swap them by --columns: ko 2 en 1"):
        read_pairs(str(path))
    assert read_pairs(str(path), columns={"ko": "2", "en": "1"}) == [(ko, en) for en, ko, _ in rows]

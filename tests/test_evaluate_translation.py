"""Figures of a translator that is known, its page, and launch.evaluate translation."""

import csv
import io
import json
import os
import subprocess
import sys
import unicodedata
from collections import Counter
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import openpyxl
import pyarrow
import pyarrow.parquet
import pytest
import sacrebleu
from sacrebleu.tokenizers import tokenizer_ko_mecab

from hybriko_jax.data.pairs import Pair, read_labelled_pairs, read_pairs
from hybriko_jax.data.sources import BadLines
from hybriko_jax.errors import UserError
from hybriko_jax.evaluate import translation as t
from hybriko_jax.evaluate.translation_report import page
from launch import evaluate
from tests import tiny_neox

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"


@dataclass(frozen=True)
class Output:
    text: str
    finished: bool = True


LABELLED = [
    (
        Pair("저장소는 깃으로 버전을 관리합니다.", "Repositories are version controlled by git."),
        "a",
    ),
    (Pair("서버를 다시 시작하려면 이 명령을 쓰세요.", "Use this command to restart."), "a"),
    (Pair("그는 어제 서울에서 부산으로 갔다.", "He went from Seoul to Busan yesterday."), "b"),
    (Pair("파일 크기가 10 MB를 넘으면 안 됩니다.", "Files must not exceed 10 MB."), "b"),
    (Pair("설치가 끝나면 창을 닫아도 됩니다.", "You may close the window then."), "b"),
    (Pair("GitHub Actions", "GitHub Actions"), "a"),
]
PAIRS = [pair for pair, _ in LABELLED]
ITEMS = t.directed(LABELLED, ("ko", "en"), "en")


def spoiled(items):
    """Neither right nor hopeless, and not alike in both directions."""
    return [Output(item.reference[: 3 + 7 * i] + " 그리고 and") for i, item in enumerate(items)]


# Figures


def ngram_counts(hypotheses, references):
    """(sentence, n - 1, [equal, of the hypothesis, of the reference]) n-grams up to 6."""
    counts = np.zeros((len(references), 6, 3))
    for i, texts in enumerate(zip(hypotheses, references, strict=True)):
        for n in range(1, 7):
            a, b = (
                Counter(x[j : j + n] for j in range(len(x) - n + 1))
                for x in ("".join(text.split()) for text in texts)
            )
            counts[i, n - 1] = (a & b).total(), a.total(), b.total()
    return counts


def slow_chrf(counts):
    """chrF by its definition: recall counts twice.

    Source: Popović, chrF: character n-gram F-score for automatic MT evaluation (2015).
    """
    same, theirs, ours = counts.sum(0).T
    p, r = (same / theirs).mean(), (same / ours).mean()
    return 100 * 5 * p * r / (4 * p + r)


@pytest.mark.parametrize("source,target", [("en", "ko"), ("ko", "en")])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_figures_are_those_of_the_definition_and_of_sacrebleu(source, target, form):
    pairs = [
        (Pair(*(unicodedata.normalize(form, text) for text in pair)), label)
        for pair, label in LABELLED
    ]
    items = t.directed(pairs, ("ko", "en"), source)
    outputs = spoiled(t.directed(LABELLED, ("ko", "en"), source))
    figures = t.evaluate(items, {"model": outputs}, source, target).whole.figures["model"]
    texts, references = [o.text for o in outputs], [p[source == "ko"] for p in PAIRS]
    assert figures["chrF"].score == pytest.approx(slow_chrf(ngram_counts(texts, references)))
    turned = slow_chrf(ngram_counts(references, texts))
    assert figures["chrF"].score != pytest.approx(turned, abs=1)
    kind = "char" if target == "ko" else "13a"
    expected = sacrebleu.corpus_bleu(texts, [references], tokenize=kind).score
    assert 1 < expected < 99
    assert figures[f"BLEU {kind}"].score == pytest.approx(expected)


def test_signatures_name_metric_and_bootstrap():
    signatures = t.evaluate(ITEMS, {"model": spoiled(ITEMS)}, "en", "ko").whole.signatures
    assert "tok:char" in signatures["BLEU char"] and "nc:6|nw:0" in signatures["chrF"]
    assert all("bs:1000|seed:12345" in s and "version:" in s for s in signatures.values())


def test_an_interval_is_that_of_sentences_drawn_again():
    items, outputs = ITEMS * 5, spoiled(ITEMS) * 5
    figure = t.evaluate(items, {"model": outputs}, "en", "ko").whole.figures["model"]["chrF"]
    counts = ngram_counts([o.text for o in outputs], [item.reference for item in items])
    drawn = np.random.default_rng(0).integers(len(items), size=(2000, len(items)))
    low, high = np.percentile([slow_chrf(counts[rows]) for rows in drawn], [2.5, 97.5])
    # The ends of an interval from 1,000 samples are themselves known to some 5 %.
    assert figure.ci == pytest.approx((high - low) / 2, rel=0.15)


def test_a_perfect_translator_and_one_that_copies():
    right = [Output(item.reference) for item in ITEMS]
    copied = [Output(item.source) for item in ITEMS]
    found = t.evaluate(ITEMS, {"model": right, "base": copied}, "en", "ko")
    figures = found.whole.figures
    assert list(figures) == ["model", "base", t.COPIED, t.SHUFFLED]
    for figure in figures["model"].values():
        assert (figure.score, figure.ci, figure.p) == (pytest.approx(100), pytest.approx(0), None)
    assert figures["base"] == figures[t.COPIED]
    assert {figure.p for figure in figures["base"].values()} == {1 / (1 + t.RESAMPLES)}
    assert figures[t.COPIED]["chrF"].score < 50 and figures[t.SHUFFLED]["chrF"].score < 50
    none = {"not finished": 0, "empty": 0, "copied": 0}
    # The name that is the same in both languages is no fault.
    assert found.faults == {"model": none, "base": none | {"copied": len(ITEMS) - 1}}


def test_equal_outputs_do_not_differ():
    outputs = spoiled(ITEMS)
    figures = t.evaluate(ITEMS, {"model": outputs, "base": outputs}, "en", "ko").whole.figures
    assert all(figure.p == 1 for figure in figures["base"].values())


def test_faults_are_counted():
    item = t.Item("Close the  window.", "창을 닫으세요.", "")
    outputs = {
        "right": (Output("창을 닫으세요."), (0, 0, 0)),
        "cut off": (Output("창을", finished=False), (1, 0, 0)),
        "nothing": (Output(" \n", finished=False), (1, 1, 0)),
        "as it was": (Output("close the window."), (0, 0, 1)),
    }
    for output, expected in outputs.values():
        assert tuple(t.count_faults([item], [output]).values()) == expected


def test_a_labels_figures_are_those_of_its_items_alone():
    outputs = spoiled(ITEMS)
    found = t.evaluate(ITEMS, {"model": outputs}, "en", "ko")
    assert set(found.by_label) == {"a", "b"} and found.whole.sentences == len(ITEMS)
    for label, scores in found.by_label.items():
        at = [i for i, item in enumerate(ITEMS) if item.label == label]
        alone = t.evaluate([ITEMS[i] for i in at], {"model": [outputs[i] for i in at]}, "en", "ko")
        assert scores == alone.whole and not alone.by_label


def test_one_sentence_has_no_reference_of_another():
    figures = t.evaluate(ITEMS[:1], {"model": spoiled(ITEMS[:1])}, "en", "ko").whole.figures
    assert list(figures) == ["model", t.COPIED]


@pytest.mark.parametrize("n", [2, 3, 10, 101])
def test_a_derangement_moves_everything(n):
    order = t.derangement(n)
    assert sorted(order) == list(range(n)) and all(i != j for i, j in enumerate(order))
    assert order == t.derangement(n)
    if n > 3:
        assert order != t.derangement(n, seed=1)


def test_korean_words_are_counted_where_the_analyser_is(monkeypatch):
    monkeypatch.setattr(tokenizer_ko_mecab, "MeCab", None)
    assert t.missing_tokenizers("ko") == ["ko-mecab"] and not t.missing_tokenizers("en")
    assert list(t.metrics("ko")) == ["chrF", "BLEU char"]
    monkeypatch.undo()
    pytest.importorskip("mecab_ko")
    assert list(t.metrics("ko")) == ["chrF", "BLEU char", "BLEU ko-mecab"]


def test_without_sacrebleu_the_way_to_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics.bleu", None)
    with pytest.raises(UserError, match="pip install sacrebleu"):
        t.metrics("ko")


# Translating


@pytest.mark.parametrize("at_a_time", [1, 2, 6, 100])
def test_every_text_is_translated_once_and_keeps_its_place(at_a_time):
    texts = ["aaa", "b", "cc", "b", "dddd", ""]
    calls, done = [], []

    def translate(texts, source, target):
        calls.append(list(texts))
        return [Output(f"{source}{target}{text}") for text in texts]

    outputs = t.translate_all(translate, texts, "en", "ko", at_a_time, done.append)
    assert [o.text for o in outputs] == [f"enko{text}" for text in texts]
    assert [text for call in calls for text in call] == ["dddd", "aaa", "cc", "b", "b", ""]
    assert max(map(len, calls)) <= at_a_time and done[-1] == 6


def test_a_translator_that_loses_a_text_is_found_out():
    with pytest.raises(ValueError):
        t.translate_all(lambda texts, *_: [Output("x")], ["a", "b"], "en", "ko", 2)


def test_a_text_that_cannot_be_translated_is_named():
    def translate(texts, *_):
        raise UserError("Too long.")

    with pytest.raises(UserError, match=r"^Too long. \(.* begins 'A long one'\.\)$"):
        t.translate_all(translate, ["short", "A long one"], "en", "ko", 2)


@pytest.mark.parametrize("n,expected", [(1, [0]), (3, [0, 3, 6]), (10, list(range(10)))])
def test_a_limit_is_spread_over_all(n, expected):
    assert t.spread(range(10), n) == expected
    assert t.spread(range(10), 99) == list(range(10))


def test_directions():
    assert t.directions("both", ("ko", "en")) == [("ko", "en"), ("en", "ko")]
    assert t.directions("en-ko", ("ko", "en")) == [("en", "ko")]
    with pytest.raises(UserError, match="--directions en-ja is none of both, ko-en, en-ko"):
        t.directions("en-ja", ("ko", "en"))
    with pytest.raises(UserError, match="language 'fr' is not one of ko, en, ja"):
        t.directions("both", ("ko", "fr"))


# Labels of pairs


def rows_as_csv(rows, delimiter=","):
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerows(rows)
    return text.getvalue().encode()


def rows_as_parquet(rows):
    file = io.BytesIO()
    columns = zip(*rows[1:], strict=True)
    table = pyarrow.table(dict(zip(rows[0], map(list, columns), strict=True)))
    pyarrow.parquet.write_table(table, file)
    return file.getvalue()


def rows_as_xlsx(rows):
    book, file = openpyxl.Workbook(), io.BytesIO()
    assert book.active is not None
    for row in rows:
        book.active.append(row)
    book.save(file)
    return file.getvalue()


def rows_as_jsonl(rows):
    objects = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    return "\n".join(json.dumps(o, ensure_ascii=False) for o in objects).encode()


ROWS = [("en", "origin", "ko"), *((p.right, label, p.left) for p, label in LABELLED)]
# A file, the label's column, and those of the languages.
LABEL_FILES = {
    "csv": ("a.csv", rows_as_csv(ROWS), "origin", {}),
    "csv, by number": ("a.csv", rows_as_csv(ROWS), "2", {}),
    "tsv without a header": (
        "a.tsv",
        rows_as_csv(ROWS[1:], "\t"),
        "2",
        {"ko": "3", "en": "1"},
    ),
    "tsv, first two columns": (
        "a.tsv",
        rows_as_csv([(*pair, label) for pair, label in LABELLED], "\t"),
        "3",
        {},
    ),
    "jsonl": ("a.jsonl", rows_as_jsonl(ROWS), "origin", {}),
    "json": (
        "a.json",
        b"[" + rows_as_jsonl(ROWS).replace(b"\n", b",") + b"]",
        "origin",
        {},
    ),
    "parquet": ("a.parquet", rows_as_parquet(ROWS), "origin", {}),
    "xlsx": ("a.xlsx", rows_as_xlsx(ROWS), "origin", {}),
    "xlsx, by number": ("a.xlsx", rows_as_xlsx(ROWS[1:]), "2", {"ko": "3", "en": "1"}),
}


@pytest.mark.parametrize("name,content,label,columns", LABEL_FILES.values(), ids=LABEL_FILES)
def test_a_third_column_is_read_from_every_format(tmp_path, name, content, label, columns):
    path = tmp_path / name
    path.write_bytes(content)
    assert read_labelled_pairs(str(path), label, columns=columns) == LABELLED
    assert read_pairs(str(path), columns=columns) == PAIRS
    for absent in ("9", "domain"):
        with pytest.raises(UserError, match=f"has no column '{absent}'; it has .*[3o]") as e:
            read_labelled_pairs(str(path), absent, columns=columns)
        assert "\n" not in str(e.value) and str(path) in str(e.value)


def test_labels_of_any_kind(tmp_path):
    path = tmp_path / "a.jsonl"
    values = [1, None, " a\n", True, "", "\ud800"]
    objects = [{"ko": "가", "en": "a", "n": v} for v in values] + [{"ko": "가", "en": "a"}]
    path.write_text("\n".join(map(json.dumps, objects)))
    bad = BadLines("skip")
    labels = [label for _, label in read_labelled_pairs(str(path), "n", bad=bad)]
    assert labels == ["1", "", "a", "True", "", "?"]
    assert bad.first == [f"{path}:7: no field 'n'"]


# The page


class Cells(HTMLParser):
    """The tags of a page, and the texts of the cells of its tables, row by row."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.rows, self.open = Counter(), [], [], False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.links += [value for name, value in attrs if name in ("src", "href", "action")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.open = True

    def handle_endtag(self, tag):
        self.open = self.open and tag not in ("td", "th")

    def handle_data(self, data):
        if self.open:
            self.rows[-1][-1] += data


NASTY = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "&lt;b&gt; & &amp; 'x'",
    "</td></table></script><!--",
    "두 줄\n  입니다",
    "]]> ${x} \\u003c `x`",
]


def test_a_page_holds_every_text_as_it_is_and_the_worst_first():
    items = [t.Item(text, text[::-1], text[:9]) for text in NASTY]
    outputs = [Output(text[i:], finished=i != 2) for i, text in enumerate(NASTY)]
    other = [Output(item.reference) for item in items]
    found = t.evaluate(items, {"model": outputs, "base": other}, "en", "ko")
    cells = Cells(page(f"<b>{NASTY[0]}", [found]))
    assert not cells.links and cells.tags["script"] == cells.tags["style"] == 1
    assert (
        cells.tags.keys()
        <= Cells(page("x", [t.evaluate(ITEMS, {"m": spoiled(ITEMS)}, "en", "ko")])).tags.keys()
    )
    texts = [row for row in cells.rows if len(row) == 9][1:]
    scores = [float(row[1]) for row in texts]
    assert scores == sorted(scores) and {row[2] for row in texts} == {"100.0"}
    in_order = sorted(texts, key=lambda row: int(row[0]))
    assert [tuple(row[3:]) for row in in_order] == [
        (
            *(item.source, output.text, item.reference, item.reference, item.label),
            "model: not finished" if i == 2 else "model: copied" if i == 0 else "",
        )
        for i, (item, output) in enumerate(zip(items, outputs, strict=True))
    ]


# The command


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Runs the command in this process on a translator that knows the answers."""
    answers = {
        "right": lambda text: next(p[text == p[0]] for p in PAIRS if text in p),
        "copy": lambda text: text,
    }
    asked = []

    def translating(loaded, arguments):
        def translate(texts, source, target):
            asked.append((source, target, len(texts)))
            return [Output(answers[loaded](text)) for text in texts]

        return translate

    monkeypatch.setattr(evaluate, "_translate", translating)
    monkeypatch.setattr(
        evaluate,
        "load",
        SimpleNamespace(find=lambda path: path, checkpoint=lambda path, *_: path),
    )
    (tmp_path / "a.csv").write_bytes(rows_as_csv(ROWS))

    def run(*arguments):
        given = ("--checkpoint", "right", "--data", str(tmp_path / "a.csv"))
        words = [*given, *map(str, arguments)]
        evaluate.evaluate_translation(
            evaluate.common.parse(evaluate.Translation, command="x", arguments=words)
        )

    return SimpleNamespace(run=run, asked=asked)


def test_the_command_prints_and_writes_figures(command, tmp_path, capsys):
    files = tmp_path / "new" / "page.html", tmp_path / "new" / "figures.json"
    command.run("--base", "copy", "--by", "origin", "--html", files[0], "--json", files[1])
    said = capsys.readouterr()
    for expected in ("ko to en", "en to ko", t.COPIED, t.SHUFFLED, "100.00 ± 0.00", "tok:13a"):
        assert expected in said.out
    assert "base: 0 not finished, 0 empty, 5 copied, of 6 outputs" in said.out
    assert "model, ko to en: 6 of 6" in said.err
    there = "BLEU ko-mecab is left out: pip install 'sacrebleu[ko]'" in said.out
    assert there == bool(t.missing_tokenizers("ko"))
    report = json.loads(files[1].read_text())
    assert report["models"] == {"model": "right", "base": "copy"}
    for way in report["directions"]:
        assert set(way["by"]) == {"a", "b"} and way["faults"]["base"]["copied"] == 5
        figures = way["all"]["figures"]
        assert figures["model"]["chrF"]["score"] == pytest.approx(100)
        assert figures["base"] == figures[t.COPIED]
    assert "right on " in files[0].read_text()


def test_limit_directions_and_several_sources(command, tmp_path, capsys):
    (tmp_path / "b.csv").write_bytes(rows_as_csv(ROWS))
    paths = [str(tmp_path / name) for name in ("a.csv", "b.csv")]
    more = ("--directions", "en-ko", "--limit", 8, "--batch-size", 1)
    command.run("--data", *paths, *more, "--json", tmp_path / "f.json")
    assert command.asked == [("en", "ko", 8)]
    (way,) = json.loads((tmp_path / "f.json").read_text())["directions"]
    assert {label: x["sentences"] for label, x in way["by"].items()} == dict.fromkeys(paths, 4)


def test_one_sided_rows_are_left_out_and_said(command, tmp_path, capsys):
    path = tmp_path / "a.csv"
    path.write_bytes(rows_as_csv([*ROWS, ("a", "x", ""), ("", "x", "가")]))
    command.run("--directions", "ko-en")
    said = capsys.readouterr()
    assert f"2 rows are left out, as {path}:8: the ko side is empty\n" in said.err
    assert "of 6 outputs" in said.out


BAD = {
    "no data": (("--data",), None, "--data names nothing"),
    "no file": (("--data", "none.tsv"), None, "none.tsv: no such file"),
    "empty file": ((), b"", "a.csv is empty"),
    "columns": ((), b"x,y\n1,2\n", r"begins with 'x'|0% Hangul"),
    "half a header": ((), "ko,y\n가,a\n".encode(), "no column for en; it has ko, y"),
    "one side only": ((), "ko,en\n가,\n".encode(), "holds no pair of ko and en .1 bad rows"),
    "no such label": (("--by", "domain"), None, "no column 'domain'; it has en, origin, ko"),
    "limit": (("--limit", 0), None, "--limit 0: give at least 1"),
    "beams": (("--beams", 0), None, "--beams 0: give at least 1"),
    "batch": (("--batch-size", -1), None, "--batch-size -1: give at least 1"),
    "direction": (("--directions", "ja-ko"), None, "--directions ja-ko is none of both"),
    "language": (("--languages", "ko", "fr"), None, "language 'fr' is not one of ko, en, ja"),
    "same twice": (("--languages", "ko", "ko"), None, "both 'ko'"),
    "page is a folder": (("--html", "/"), None, "cannot be written|is a folder"),
    "labels": (
        ("--by", "n"),
        rows_as_csv([("ko", "en", "n"), *(("가나", "a", n) for n in range(31))]),
        "--by n: the column has 31 different values",
    ),
}


@pytest.mark.parametrize("words,content,message", BAD.values(), ids=BAD)
def test_bad_input_is_one_line_before_anything_is_translated(
    command, tmp_path, words, content, message
):
    if content is not None:
        (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(UserError, match=message) as e:
        command.run(*words)
    assert "\n" not in str(e.value) and not command.asked


@pytest.fixture(scope="module")
def neox(tmp_path_factory):
    """A random GPT-NeoX as the Hub has them."""
    return tiny_neox.save(
        tmp_path_factory.mktemp("neox"),
        tiny_neox.byte_level([text for pair in PAIRS for text in pair], 400),
        vocab_size=400,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
    )


@pytest.mark.slow
def test_a_model_is_evaluated_as_a_user_does_it(neox, tmp_path):
    data = tmp_path / "a.tsv"
    data.write_bytes(rows_as_csv(ROWS[1:], "\t"))
    words = ["--checkpoint", neox, "--base", neox, "--data", data, "--by", 2, "--beams", 2]
    words += ["--columns", "ko", 3, "en", 1, "--json", tmp_path / "f.json"]
    words += ["--html", tmp_path / "page.html"]
    done = subprocess.run(
        [sys.executable, "-m", "launch.evaluate", "translation", *map(str, words)],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "model, en to ko: 6 of 6" in done.stderr and "base: " in done.stdout
    for way in json.loads((tmp_path / "f.json").read_text())["directions"]:
        model, base = (way["all"]["figures"][name]["chrF"] for name in ("model", "base"))
        assert model["score"] == base["score"] and base["p"] == 1
    rows = [row for row in Cells((tmp_path / "page.html").read_text()).rows if len(row) == 9]
    assert len(rows) == 2 * (1 + len(PAIRS))


def test_the_shared_test_set_has_its_sources():
    path = SHARED / "ko_en.test.tsv"
    if not path.exists():
        pytest.skip("no shared data")
    found = read_labelled_pairs(str(path), "3", columns={"ko": "2", "en": "1"})
    assert Counter(label for _, label in found) == {"news": 744, "jhe": 719}

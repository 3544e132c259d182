"""launch.translate as a user runs it, with a translator that can be undone letter by letter."""

import collections
import dataclasses
import json
import random
import signal
import string
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from hybriko_jax.console import load
from hybriko_jax.errors import UserError
from hybriko_jax.translation import jobs
from hybriko_jax.translation.kept import KEPT, fragments
from launch import common
from launch.translate import SHIPPED, Arguments, Model, check_checkpoint, translate

ROOT = Path(__file__).parent.parent
LETTERS = string.ascii_letters
SYLLABLES = "".join(chr(0xAC00 + 28 * n) for n in range(len(LETTERS)))
HANGUL, BACK = str.maketrans(LETTERS, SYLLABLES), str.maketrans(SYLLABLES, LETTERS)


@dataclass
class Output:
    text: str
    finished: bool = True


def korean(text):
    """English in Hangul, letter by letter; what must be kept is kept."""
    parts = fragments(text, KEPT["md"])
    return "".join(part if i % 2 else part.translate(HANGUL) for i, part in enumerate(parts))


def english(text):
    return text.translate(BACK)


class Fake:
    """Translates, and remembers what it was asked; `spoil` may change what it says."""

    def __init__(self, spoil=lambda text, output, beams: output, stop_at=None):
        self.spoil, self.stop_at = spoil, stop_at
        self.asked = collections.Counter()

    def __call__(self, texts, /, *, beams, length_penalty):
        outputs = []
        for text in texts:
            if self.stop_at is not None and sum(self.asked.values()) + len(outputs) >= self.stop_at:
                raise KeyboardInterrupt
            said = self.spoil(text, korean(text), beams)
            outputs.append(said if isinstance(said, Output) else Output(said))
        self.asked.update((text, beams, length_penalty) for text in texts)
        return outputs


def opener(fake):
    return lambda arguments, glossary: Model(fake, lambda text: iter(korean(text)), lambda t: True)


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def arguments(checkpoint, **how):
    return Arguments(to="ko", checkpoint=checkpoint, batch_size=how.pop("batch_size", 8), **how)


WORDS = "the model reads every file and writes what it has learned into a new folder".split()


def document(n=1000, seed=0):
    """Paragraphs of n sentences, all different, with numbers and addresses."""
    rng = random.Random(seed)
    lines: list[str] = []
    sentence = 0
    while sentence < n:
        count = min(rng.randint(1, 5), n - sentence)
        line: list[str] = []
        for _ in range(count):
            words: list[str] = rng.choices(WORDS, k=rng.randint(4, 12))
            words.insert(2, str(sentence + 100))
            if sentence % 50 == 0:
                words.append(f"https://example.com/{sentence}")
            words.append("today")
            line.append(" ".join(words).capitalize() + rng.choice((".", "!", "?")))
            sentence += 1
        lines.append((" " * rng.randint(1, 2)).join(line))
        lines += [""] * rng.randint(0, 2)
    return "\n".join(lines) + "\n"


def test_a_thousand_sentences(tmp_path, checkpoint, capsys):
    source = document()
    (tmp_path / "a.txt").write_text(source)
    fake = Fake()
    translate(
        arguments(checkpoint, input=tmp_path / "a.txt", out=tmp_path / "a.ko.txt"), opener(fake)
    )
    said = (tmp_path / "a.ko.txt").read_text()
    assert english(said) == source and said != source
    assert len(fake.asked) == 1000 == sum(fake.asked.values())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.ko.txt", "a.txt", "model"]
    out, err = capsys.readouterr()
    assert out == "" and "문장 1,000개, 살펴볼 것 0개" in err


@pytest.mark.parametrize("seed", range(3))
def test_stopped_and_resumed_is_uninterrupted(tmp_path, checkpoint, seed, capsys):
    def spoil(text, output, beams):
        number = int(text.split()[2])
        if number % 17 == 0:  # always
            return output + " 아" * 9
        if number % 23 == 0 and beams == 5:  # at first
            return text
        return output.replace("https", "http") if number % 2 else output

    source = document(300, seed)
    (tmp_path / "a.md").write_text(source)
    given = {"input": tmp_path / "a.md"}
    whole = Fake(spoil)
    translate(arguments(checkpoint, out=tmp_path / "whole.md", **given), opener(whole))
    expected = (tmp_path / "whole.md").read_bytes()
    flags = (tmp_path / "whole.md.flags.jsonl").read_bytes()
    capsys.readouterr()

    rng, stops, asked = random.Random(seed), 0, collections.Counter()
    out = tmp_path / "parts.md"
    while not out.exists():
        fake = Fake(spoil, stop_at=rng.randint(1, 120))
        try:
            translate(arguments(checkpoint, out=out, **given), opener(fake))
        except KeyboardInterrupt:
            stops += 1
            assert "이어서" in capsys.readouterr().err or not asked
        asked += fake.asked
    assert stops >= 3
    assert out.read_bytes() == expected
    assert (tmp_path / "parts.md.flags.jsonl").read_bytes() == flags
    assert asked == whole.asked and max(asked.values()) == 1
    assert not list(tmp_path.glob("*.partial.jsonl"))


def test_flagged_sentences_are_tried_again_counted_and_named(tmp_path, checkpoint, capsys):
    lines = [f"This is line {n} of the whole file." for n in range(1, 11)]
    lines[3] = "Read https://a.com/x and then {name}, line 4 says."
    lines[4] = "Read https://a.com/y and then write, line 5 says."

    def spoil(text, output, beams):
        if " 2 " in text:
            return output.replace(" 2", "")  # a number, always
        if " 3 " in text and beams == 5:
            return text  # not translated, at first
        if "https://a.com/x" in text or "{0}" in text and "{1}" in text:
            return "".join(part for part in fragments(output, KEPT["txt"])[::2])
        if "https://a.com/y" in text:
            return output.replace("https://a.com/y", "")  # kept where it is {0}
        return Output(output, " 6 " not in text)

    (tmp_path / "a.txt").write_text("\n".join(lines))
    out = tmp_path / "b.txt"
    fake = Fake(spoil)
    translate(arguments(checkpoint, input=tmp_path / "a.txt", out=out), opener(fake))
    said = out.read_text().split("\n")
    for n, (line, translation) in enumerate(zip(lines, said, strict=True), 1):
        assert english(translation) == (line.replace(" 2", "") if n == 2 else line)
    flags = [json.loads(line) for line in Path(f"{out}.flags.jsonl").read_text().splitlines()]
    assert [(f["line"], f["reasons"]) for f in flags] == [
        (2, ["빠진 숫자: 2"]),
        (4, ["코드나 주소를 두고 나누어 번역함"]),
        (6, ["끝맺지 못함"]),
    ]
    assert flags[0]["source"] == lines[1] and flags[0]["output"] == said[1]
    tries = collections.Counter(text for text, *_ in fake.asked)
    assert tries[lines[1]] == tries[lines[5]] == 3 and tries[lines[2]] == 2
    assert tries[lines[0]] == 1
    err = capsys.readouterr().err
    assert "문장 10개, 살펴볼 것 3개" in err and "2번째 줄" in err


def test_what_needs_no_model_is_not_asked(tmp_path, checkpoint):
    source = (
        "Hello you.\n\n😀😀\n12, 34!\nhttps://a.com/b\n이미 한국어.\nПривет, мир.\nHello you.\n"
    )
    (tmp_path / "a.txt").write_text(source)
    fake = Fake()
    out = tmp_path / "b.txt"
    translate(arguments(checkpoint, input=tmp_path / "a.txt", out=out), opener(fake))
    assert [text for text, *_ in fake.asked] == ["Hello you."]
    assert out.read_text() == source.replace("Hello you", korean("Hello you"))
    (flag,) = (json.loads(line) for line in Path(f"{out}.flags.jsonl").read_text().splitlines())
    assert flag["line"] == 7 and "두 말이 아니어서" in flag["reasons"][0]


def test_another_text_model_or_setting_begins_anew(tmp_path, checkpoint):
    (tmp_path / "a.txt").write_text("\n".join(f"Line number {n} is here." for n in range(40)))
    given = {"input": tmp_path / "a.txt", "out": tmp_path / "b.txt"}

    def go(stop_at=None, **how):
        fake = Fake(stop_at=stop_at)
        try:
            translate(arguments(checkpoint, **given | how), opener(fake))
        except KeyboardInterrupt:
            pass
        return sum(fake.asked.values())

    assert go(stop_at=20) == 16
    assert go(stop_at=1, beams=3) == 0 and go(stop_at=1, temperature=0.5) == 0
    (tmp_path / "a.txt").write_text((tmp_path / "a.txt").read_text().replace("0", "000"))
    partial = tmp_path / "b.txt.partial.jsonl"
    kept = partial.read_bytes()
    partial.write_bytes(kept[:-5])  # as a crash may leave it: the batch is asked for again
    lost = len(json.loads(kept.splitlines()[-1]))
    changed = sum("000" in line for line in (tmp_path / "a.txt").read_text().split("\n"))
    # The short ones came first, so that some of the changed had been asked for.
    assert 40 - 16 + lost <= go() <= 40 - 16 + lost + changed
    assert english((tmp_path / "b.txt").read_text()) == (tmp_path / "a.txt").read_text()
    (checkpoint / "config.json").write_text('{"a": 1}')
    assert go(overwrite=True) == 40


def test_two_runs_do_not_share_a_file(tmp_path):
    first = jobs.Journal(tmp_path / "a.partial.jsonl")
    with pytest.raises(UserError, match="다른 번역이 쓰고"):
        jobs.Journal(tmp_path / "a.partial.jsonl")
    first.close()
    assert not list(tmp_path.iterdir())


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.test_launch_translate import Fake, arguments, opener
from launch.translate import translate
def slow(text, output, beams):
    time.sleep(0.002)
    return output
folder = Path({folder!r})
given = dict(input=folder / "a.txt", out=folder / "b.txt", overwrite=False)
print("ready", flush=True)
translate(arguments(folder / "model", **given), opener(Fake(slow)))
"""


@pytest.mark.slow
def test_killed_and_resumed_is_uninterrupted(tmp_path, checkpoint):
    source, rng, kills = document(200), random.Random(0), 0
    (tmp_path / "a.txt").write_text(source)
    code = KILLED.format(root=str(ROOT), folder=str(tmp_path))
    while not (tmp_path / "b.txt").exists():
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert process.stdout and process.stdout.readline()
        time.sleep(rng.uniform(0, 0.5))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate()
    assert kills >= 2
    assert english((tmp_path / "b.txt").read_text()) == source
    assert not list(tmp_path.glob("*.jsonl"))


def bad(name, content=None, message="", file="a.txt", **how):
    return pytest.param(content, message, file, how, id=name)


SRT = "1\n00:00:01,000 -> 00:00:02,000\nHello there\n"
BAD = [
    bad("nothing", None, "비어 있습니다", text=" "),
    bad("both", b"Hello there", "둘 다 있습니다", text="Hello"),
    bad("empty file", b"", "비어 있습니다"),
    bad("blank file", b"\xef\xbb\xbf \n\t\n", "비어 있습니다"),
    bad("emoji", None, "글자가 없어", text="😀🎉 123"),
    bad("emoji file", "😀\n🎉!\n".encode(), "글자가 없어"),
    bad("Korean already", None, "이미 한국어입니다.*--to en", text="안녕하세요."),
    bad("Korean file", "안녕하세요. GPU입니다.\n".encode(), "이미 한국어입니다"),
    bad("third language", None, "영어도 한국어도 아닙니다", text="Привет, мир"),
    bad("not UTF-8", "Hello\n한글\n".encode("cp949"), "2번째 줄이 UTF-8이 아닙니다.*CP949"),
    bad("UTF-16", "Hello".encode("utf-16"), "UTF-16"),
    bad("no encoding", b"Hello \xff\xff\n", "UTF-8이 아닙니다"),
    bad("binary", b"Hello\0there", "이진 파일"),
    bad("surrogates", None, "UTF-8이 아닙니다", text="Hello \udcff"),
    bad("timing", SRT.encode(), "a.srt: 2번째 줄", file="a.srt"),
    bad("suffix", b"Hello there", "--format", file="a.docx"),
    bad("missing", None, "읽을 수 없습니다", input=Path("none.txt")),
    bad("same languages", None, "둘 다 ko", text="Hello", source="ko"),
    bad("beams", None, "1 이상", text="Hello", beams=0),
    bad("temperature", None, "0 이상", text="Hello", temperature=-1.0),
    bad("out without in", None, "--in 파일과 함께", text="Hello", out=Path("b.txt")),
    bad("stream of a file", b"Hello there", "--stream", stream=True),
    bad("no folder", b"Hello there", "있는 폴더", out=Path("none/b.txt")),
    bad("in is out", b"Hello there", "같은 파일", out=Path("a.txt"), overwrite=True),
    bad("taken", b"Hello there", "이미 있습니다.*--overwrite", out=Path("taken.txt")),
    bad("glossary", None, "번역이 둘입니다.*1번째 줄 '허브', 3번째 줄 '중심'", text="Hello there",
        glossary=Path("two.tsv")),
    bad("glossary's form", None, "2번째 줄.*꼴이 아닙니다", text="Hello", glossary=Path("odd.tsv")),
    bad("no glossary", None, "읽을 수 없습니다", text="Hello", glossary=Path("none.tsv")),
    bad("no checkpoint", None, "번역 모델이 없습니다", text="Hello", checkpoint=Path("none")),
    bad("calls", None, "함수 호출을 배운", text="Hello", checkpoint=Path("calls")),
]  # fmt: skip


@pytest.mark.parametrize("content,message,file,how", BAD)
def test_bad_input_is_one_line(tmp_path, checkpoint, monkeypatch, content, message, file, how):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.txt").write_text("precious")
    (tmp_path / "two.tsv").write_text("Hub\t허브\ncat\t고양이\nHub\t중심\n")
    (tmp_path / "odd.tsv").write_text("Hub\t허브\ncat\n")
    (tmp_path / "calls").mkdir()
    (tmp_path / "calls" / load.SYSTEM_PROMPT).write_text("")
    if content is not None:
        (tmp_path / file).write_bytes(content)
        how = {"input": Path(file)} | how
    before = {p: p.is_file() and p.read_bytes() for p in tmp_path.rglob("*")}
    with pytest.raises(UserError, match=message) as e:
        translate(Arguments(**{"to": "ko", "checkpoint": checkpoint} | how), opener(Fake()))
    assert "\n" not in str(e.value)
    assert {p: p.is_file() and p.read_bytes() for p in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("n", [1, 40])
def test_a_model_that_ends_nothing_is_no_translator(tmp_path, checkpoint, n):
    (tmp_path / "a.txt").write_text("\n".join(f"Line number {i} is here." for i in range(n)))
    fake = Fake(lambda text, output, beams: Output("글 " * 20, finished=False))
    given = {"input": tmp_path / "a.txt", "out": tmp_path / "b.txt"}
    with pytest.raises(UserError, match="번역을 배운 모델이 아닌") as e:
        translate(arguments(checkpoint, **given), opener(fake))
    assert "\n" not in str(e.value) and sum(fake.asked.values()) <= 8
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "model"]


def test_a_text_goes_to_standard_output(checkpoint, capsys):
    translate(arguments(checkpoint, text="Hello there. I am 7."), opener(Fake()))
    out, err = capsys.readouterr()
    assert english(out) == "Hello there. I am 7.\n" and err == ""
    translate(arguments(checkpoint, text="Hello there. 😀 I am 7.", stream=True), opener(Fake()))
    assert english(capsys.readouterr().out) == "Hello there. 😀 I am 7.\n"


def test_a_file_without_out_goes_to_standard_output(tmp_path, checkpoint, capsys):
    source = "\ufeff# Title\n\nSome `code` here.\n"
    (tmp_path / "a.md").write_text(source)
    translate(arguments(checkpoint, input=tmp_path / "a.md"), opener(Fake()))
    assert english(capsys.readouterr().out) == source


def test_long_sentences_fit_the_model(tmp_path, checkpoint):
    line = "one word and another, " * 3000
    (tmp_path / "a.txt").write_text(line)
    fake = Fake()
    model = Model(fake, lambda text: iter(text), lambda text: len(text) <= 50)
    given = {"input": tmp_path / "a.txt", "out": tmp_path / "b.txt"}
    translate(arguments(checkpoint, **given), lambda *_: model)
    assert max(len(text) for text, *_ in fake.asked) <= 50
    assert english((tmp_path / "b.txt").read_text()) == line


def test_the_command_line():
    line = ["--to", "en", "--in", "a.md", "--out", "b.md", "--format", "txt", "--from", "ko"]
    parsed = common.parse(Arguments, arguments=line)
    assert parsed.input == Path("a.md") and parsed.source == "ko" and parsed.format == "txt"
    assert parsed.checkpoint == SHIPPED
    parsed = common.parse(Arguments, arguments=["--to", "ko", "Hello", "--length-penalty", "0.5"])
    assert parsed == dataclasses.replace(parsed, text="Hello", length_penalty=0.5, input=None)
    assert parsed.language == "en"


def run(*command, code):
    done = subprocess.run(
        [sys.executable, "-m", "launch.translate", *map(str, command)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""
    return done.stderr


def test_mistakes_end_the_command_with_one_line(tmp_path):
    err = run("--to", "ko", "--checkpoint", tmp_path / "none", "Hello there.", code=1)
    assert err.startswith("error: ") and len(err.splitlines()) == 1 and "번역 모델이" in err
    err = run("--to", "ko", "", code=1)
    assert len(err.splitlines()) == 1 and "비어 있습니다" in err


def test_the_models_that_call_functions_are_refused():
    with pytest.raises(UserError, match="함수 호출"):
        check_checkpoint(ROOT / "checkpoints" / "hybriko-mini-linuxfc")


@pytest.mark.slow
def test_a_model_of_text_is_refused():
    base = ROOT / "checkpoints" / "hybriko-mini"
    err = run("--to", "ko", "--checkpoint", base, "--max-tokens", 24, "Hello there.", code=1)
    assert "번역을 배운 모델이 아닌" in err and len(err.splitlines()) == 1

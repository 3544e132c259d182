"""The commands launch.ask and hybriko, with the shipped model where it must be."""

import contextlib
import errno
import os
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hybriko_jax.console import ask, load, main, model
from hybriko_jax.console.ask import MODEL
from hybriko_jax.errors import UserError

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "assistant.md"


def run(folder, *words, typed="", module="launch.ask"):
    """The exit status and both streams of a command without a terminal."""
    environment = {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, words)],
        cwd=folder,
        env=environment,
        input=typed,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def example():
    """The session in the document: the requests in it, and all its lines."""
    block = DOCUMENT.read_text().partition("## A session")[2].split("```")[1]
    lines = block.strip().splitlines()
    asked = [line.partition("실습")[2].partition("> ")[2] for line in lines if "> " in line]
    return asked, lines


@pytest.fixture
def folder(tmp_path):
    """The folder of the document's session."""
    here = tmp_path / "실습"
    here.mkdir()
    (here / "memo.txt").write_text("우유 사기\n은행 가기\n숙제 하기\n")
    (here / "보고서.md").write_text("# 보고서\n")
    return here


@pytest.mark.parametrize("file,title", [("README.md", "The assistant"), ("README.ko.md", "도우미")])
def test_the_readme_shows_a_part_of_that_session(file, title):
    _, lines = example()
    block = (ROOT / file).read_text().partition(f"## {title}")[2].split("```")[1]
    assert block.strip() in "\n".join(lines)


@pytest.mark.slow  # the model is loaded and compiled
def test_the_session_in_the_document(folder):
    asked, lines = example()
    assert len(asked) > 4
    code, out, err = run(folder, "--yes", typed="\n".join(asked))
    assert out.splitlines() == lines and not err and code == 0


@pytest.mark.slow
def test_one_request_is_run(folder):
    code, out, err = run(folder, "--query", "memo.txt 지워줘", "--execute")
    assert code == 1 and "--yes" in err and (folder / "memo.txt").exists()
    code, out, err = run(folder, "--query", "memo.txt 지워줘", "--execute", "--yes")
    assert code == 0 and "$ rm -- memo.txt" in out and not (folder / "memo.txt").exists()
    assert "Action: rm_command" in out and ".hybriko-trash" in out  # the way back


def test_a_request_that_cannot_be_answered_is_one_line(folder):
    for words in (("--query", " "), ("--query", "🙂", "--lang", "en"), ("--query", "가" * 1001)):
        code, out, err = run(folder, *words)
        assert code == 1 and not out and len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "words,message",
    [
        (("--root", "없는폴더"), "작업할 폴더가 없습니다"),
        (("--checkpoint", "없는모델"), "모델을 읽을 수 없습니다"),
    ],
)
def test_what_is_not_there_is_one_line(folder, monkeypatch, words, message):
    monkeypatch.chdir(folder)
    parsed = ask.process.parse(ask.Arguments, arguments=["--query", "안녕", *words])
    with pytest.raises(UserError, match=message):
        ask.ask(parsed)


@pytest.mark.parametrize(
    "raised,code,message",
    [
        (None, 7, ""),
        (UserError("이유"), 1, "오류: 이유"),
        (KeyboardInterrupt(), 130, "멈췄습니다"),
        (OSError(errno.ENOSPC, "", "a.txt"), 1, "a.txt: 디스크가 가득 찼습니다"),
    ],
)
def test_every_end_has_its_exit_status(monkeypatch, capsys, raised, code, message):
    def ends(parsed):
        if raised:
            raise raised
        return code

    def leave(code):
        raise SystemExit(code)

    monkeypatch.setattr(ask, "ask", ends)
    monkeypatch.setattr(ask.process, "accelerator", lambda: "gpu")
    monkeypatch.setattr(ask.process, "leave", leave)
    with pytest.raises(SystemExit) as end:
        ask.main([])
    assert end.value.code == code
    err = capsys.readouterr().err
    assert message in err and len(err.splitlines()) == bool(message)


def test_where_it_works(tmp_path, monkeypatch):
    inner = tmp_path / "inner"
    inner.mkdir()
    monkeypatch.chdir(tmp_path)
    where = ask.place(ask.Arguments())
    assert where.root == where.cwd == tmp_path and not where.jail
    where = ask.place(ask.Arguments(root=Path("inner"), jail=True))
    assert where.root == where.cwd == inner and where.jail
    monkeypatch.chdir(inner)
    where = ask.place(ask.Arguments(root=tmp_path))
    assert (where.root, where.cwd) == (tmp_path, inner)
    inner.rmdir()
    with pytest.raises(UserError, match="없어졌습니다"):
        ask.place(ask.Arguments())


@pytest.mark.parametrize(
    "words,message", [(["ast"], "Did you mean ask"), (["--help"], "ask"), ([], "ask")]
)
def test_hybriko_knows_its_commands(monkeypatch, capsys, words, message):
    monkeypatch.setattr(sys, "argv", ["hybriko", *words])
    with contextlib.suppress(SystemExit):
        main.main()
    assert message in "".join(capsys.readouterr())


def test_the_help_is_called_what_was_typed(folder):
    code, out, _ = run(folder, "--help")
    assert code == 0 and "python -m launch.ask" in out and "--execute" in out


def test_where_the_shipped_model_is(tmp_path, monkeypatch):
    assert load.shipped(MODEL) == ROOT / "checkpoints" / "hybriko-mini-linuxfc"
    installed = tmp_path / "share" / "hybriko_jax" / "checkpoints" / MODEL
    installed.mkdir(parents=True)
    (installed / "config.json").write_text("{}")
    monkeypatch.setattr(load, "__file__", str(tmp_path / "a" / "b" / "c.py"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert load.shipped(MODEL) == installed


@pytest.mark.parametrize("writable", [True, False])
def test_the_kept_state_goes_where_it_can_be_written(tmp_path, monkeypatch, writable):
    from hybriko_jax.decode import prefix

    kept = []
    monkeypatch.setattr(prefix, "load_prefix", lambda *a: kept.append(a[-1]))
    monkeypatch.setattr(model, "chat_tokens", lambda *a: (SimpleNamespace(tolist=list), None))
    monkeypatch.setattr(os, "access", lambda path, mode: writable)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "model"
    nothing: Any = SimpleNamespace(tokenizer=None, system="", params=None)
    model.kept_prefix(nothing, nothing, folder)
    (path,) = kept
    assert path.parent == (folder if writable else tmp_path / "cache" / "hybriko_jax")
    assert writable or path.parent.is_dir()


def test_the_history_is_the_users_own(tmp_path):
    from hybriko_jax.console.talk import _history

    path = tmp_path / "state" / "history"
    _history(path).append_string("memo.txt 지워줘")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(_history(path).load_history_strings()) == ["memo.txt 지워줘"]
    path.unlink()
    path.mkdir()  # cannot be written: kept for this session only
    _history(path).append_string("x")

"""The assistant without its model: what is asked, run, fed back, taken back and stopped."""

import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from hybriko_jax.console.request import check, command
from hybriko_jax.console.session import MOST_STEPS, NO_OUTPUT, Session, carry_out, fed, interact
from hybriko_jax.console.talk import Plain, clean
from hybriko_jax.errors import UserError
from hybriko_jax.linux import Where
from hybriko_jax.prompts import format_call

ROOT = Path(__file__).parent.parent
FINISH: Any = ("Finish", {"return_type": "give_answer", "final_answer": "다 했습니다."})


class Scripted:
    """Someone at a terminal: what they type in turn, an exception standing for a key."""

    def __init__(self, *typed: Any, can_ask=True):
        self.typed, self.can_ask = list(typed), can_ask
        self.said, self.questions = [], []

    def say(self, words, style=""):
        self.said.append(words)

    show = say

    def ask(self, question, default=""):
        self.questions.append((question, default))
        if not self.typed:
            raise EOFError
        typed = self.typed.pop(0)
        if typed is KeyboardInterrupt:
            raise typed
        return default if typed is None else typed

    def read(self, prompt, folder):
        return self.ask(prompt)

    def busy(self, words):
        return nullcontext()

    @property
    def text(self):
        return "\n".join(self.said)


class Model:
    """Says calls in turn, and keeps the conversations that it was given."""

    def __init__(self, *calls: Any):
        self.calls, self.given = list(calls), []

    def __call__(self, messages, names=()):
        self.given.append(([dict(m) for m in messages], list(names)))
        call = self.calls.pop(0) if self.calls else FINISH
        if call is KeyboardInterrupt:
            raise call
        return call if isinstance(call, str) else format_call("생각", *call)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "memo.txt").write_text("우유 사기\n은행 가기\n")
    (tmp_path / "old.txt").write_text("옛 글\n")
    (tmp_path / "사진").mkdir()
    (tmp_path / "사진" / "a.jpg").write_text("a")
    return tmp_path


def at(folder, model, talk, **options):
    where = Where(root=folder, cwd=folder, lang=options.pop("lang", "ko"))
    return Session(model, talk, where, **options)


def tree(folder):
    return {
        str(p.relative_to(folder)): p.read_text() if p.is_file() else None
        for p in folder.rglob("*")
        if ".hybriko-trash" not in p.parts
    }


RM = ("rm_command", {"path": "memo.txt"})
MV = ("mv_command", {"source": "memo.txt", "destination": "new.txt"})
MKDIR = ("mkdir_command", {"path": "drafts"})
RM_R = ("rm_command", {"path": "사진", "recursive": True})
CAT = ("cat_command", {"path": "memo.txt"})


# --- one request ---


def test_results_are_fed_back_in_the_form_of_the_samples(folder):
    into = ("mv_command", {"source": "memo.txt", "destination": "drafts"})
    model = Model(MKDIR, into, ("ls_command", {"path": "drafts"}))
    assert carry_out(at(folder, model, Scripted("실행", "y")), "부탁") == 0
    assert (folder / "drafts" / "memo.txt").exists()
    assert model.given[-1][0] == [
        {"role": "user", "content": "부탁"},
        {"role": "assistant", "content": format_call("생각", *MKDIR)},
        {"role": "tool", "content": "(출력 없음)"},
        {"role": "assistant", "content": format_call("생각", *into)},
        {"role": "tool", "content": "(출력 없음)"},
        {"role": "assistant", "content": format_call("생각", "ls_command", {"path": "drafts"})},
        {"role": "tool", "content": "memo.txt"},
    ]


def test_what_the_training_samples_say_of_no_output():
    from hybriko_jax.data.phrasings import load_bank

    results = {step.result for t in load_bank() for step in t.steps if step.result}
    assert NO_OUTPUT in results
    assert all(fed(r) == r for r in results)
    assert fed("") == fed("\n") == NO_OUTPUT


def test_a_long_output_is_fed_in_part():
    lines = [f"파일{i}.txt" for i in range(1000)]
    got = fed("\n".join(lines) + "\n").split("\n")
    assert got == lines[: len(got)] and 3 < len(got) < 20
    assert len(fed("x" * 10**6)) < 1000


def test_reading_is_not_asked_about_and_shows_its_output(folder):
    talk = Scripted()
    assert carry_out(at(folder, Model(CAT), talk), "보여줘") == 0
    assert "우유 사기\n은행 가기\n" in talk.said and not talk.questions


@pytest.mark.parametrize("no", ["취소", "n", "아니요", " N "])
def test_cancel_leaves_everything(folder, no):
    before, model = tree(folder), Model(RM)
    assert carry_out(at(folder, model, Scripted(no)), "지워줘") == 1
    assert tree(folder) == before and len(model.given) == 1


def test_what_is_no_answer_is_asked_again(folder):
    talk = Scripted("실헹", "", "실행")
    assert carry_out(at(folder, Model(RM), talk), "지워줘") == 0
    assert len(talk.questions) == 3 and not (folder / "memo.txt").exists()


def test_the_explanation_and_the_way_back_stand_before_the_question(folder):
    talk = Scripted(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        carry_out(at(folder, Model(RM), talk), "지워줘")
    assert "$ rm -- memo.txt" in talk.text
    assert "memo.txt 파일을 지웁니다" in talk.text and "휴지통에서 제자리로" in talk.text


def test_edited_arguments_are_run_and_fed_back(folder):
    talk = Scripted("수정", "", "old.txt", None, "실행")
    model = Model(RM)
    assert carry_out(at(folder, model, talk), "지워줘") == 0
    assert ("  경로: ", "memo.txt") in talk.questions
    assert not (folder / "old.txt").exists() and (folder / "memo.txt").exists()
    arguments = {"path": "old.txt", "recursive": False}
    assert model.given[-1][0][1]["content"] == format_call("생각", "rm_command", arguments)


def test_edited_arguments_are_checked(folder):
    outside = ("수정", "", "memo.txt", "../x.txt")  # then mended
    talk = Scripted(*outside, "memo.txt", "그.txt", "실행")
    assert carry_out(at(folder, Model(MV), talk), "옮겨줘") == 0
    assert (folder / "그.txt").exists() and not (folder.parent / "x.txt").exists()
    assert "밖입니다" in talk.text


def test_edited_numbers_and_answers_are_checked(folder):
    talk = Scripted("수정", "", "memo.txt", "아마", "memo.txt", "아니요", "실행")
    assert carry_out(at(folder, Model(RM), talk), "지워줘") == 0
    assert "예 또는 아니요" in talk.text


def test_said_again(folder):
    model = Model(RM, MKDIR)
    assert carry_out(at(folder, model, Scripted("수정", "폴더 만들어줘", "y")), "지워줘") == 0
    assert model.given[1][0] == [{"role": "user", "content": "폴더 만들어줘"}]
    assert (folder / "drafts").is_dir() and (folder / "memo.txt").exists()


@pytest.mark.parametrize("typed", ["사", "y", "실행", "예"])
def test_a_folder_goes_only_when_its_name_is_typed(folder, typed):
    with pytest.raises(UserError, match="사진"):
        carry_out(at(folder, Model(RM_R), Scripted(typed)), "지워줘")
    assert (folder / "사진" / "a.jpg").exists()
    assert carry_out(at(folder, Model(RM_R), Scripted("")), "지워줘") == 1
    assert carry_out(at(folder, Model(RM_R), Scripted("사진")), "지워줘") == 0
    assert not (folder / "사진").exists()


@pytest.mark.parametrize("yes", [False, True])
def test_without_a_terminal_a_writing_tool_needs_yes(folder, yes):
    session = at(folder, Model(RM), Scripted(can_ask=False), yes=yes)
    if yes:
        assert carry_out(session, "지워줘") == 0
    else:
        with pytest.raises(UserError, match=r"rm -- memo.txt.*--yes"):
            carry_out(session, "지워줘")
    assert (folder / "memo.txt").exists() != yes


@pytest.mark.parametrize("can_ask,typed", [(False, "사진"), (True, "틀린 이름")])
def test_yes_never_removes_a_folder(folder, can_ask, typed):
    talk = Scripted(typed, can_ask=can_ask)
    with pytest.raises(UserError):
        carry_out(at(folder, Model(RM_R), talk, yes=True), "지워줘")
    assert (folder / "사진" / "a.jpg").exists()


def test_a_model_that_does_not_finish_is_stopped(folder):
    calls = [("head_command", {"path": "memo.txt", "lines": n + 1}) for n in range(99)]
    model, talk = Model(*calls), Scripted()
    carry_out(at(folder, model, talk), "부탁")
    assert len(model.given) == MOST_STEPS and f"{MOST_STEPS}단계" in talk.text


def test_a_call_that_is_repeated_ends_the_request(folder):
    talk = Scripted("실행", "실행")
    assert carry_out(at(folder, Model(MKDIR, MKDIR), talk), "부탁") == 0
    assert len(talk.questions) == 1


def test_the_end_says_nothing_that_did_not_come_up(folder):
    def said(words, *calls):
        talk = Scripted("y", "y")
        finish = ("Finish", {"return_type": "give_answer", "final_answer": words})
        carry_out(at(folder, Model(*calls, finish), talk), "b.txt로 바꿔줘")
        return talk.said[-1]

    assert said("b.txt를 만들었습니다.", MKDIR) == "b.txt를 만들었습니다."
    (folder / "drafts").rmdir()
    assert said("y.txt를 만들었습니다.", MKDIR) == "끝났습니다."
    assert said("모두 7줄입니다.", CAT) == "우유 사기\n은행 가기\n"  # the output is the answer
    assert said("Git 이야기도 좋아합니다.") == "Git 이야기도 좋아합니다."


@pytest.mark.parametrize(
    "words", ["", "아무 말", "Thought: x\nAction: sudo_command\nAction Input: {}"]
)
def test_words_that_are_no_call_are_one_line(folder, words):
    with pytest.raises(UserError, match="명령으로 바꿀 수 없습니다"):
        carry_out(at(folder, Model(words), Scripted()), "부탁")


BAD = {
    "missing": (("cat_command", {"path": "없다.txt"}), "그런 파일이나 폴더가 없습니다"),
    "folder": (("cat_command", {"path": "사진"}), "폴더입니다"),
    "several": (("mv_command", {"source": "old.txt", "destination": "*.txt"}), "여러 개가"),
    "outside": (("cp_command", {"source": "old.txt", "destination": "../x"}), "밖입니다"),
    "option": (("ls_command", {"path": ".", "options": "-x; rm"}), "옵션"),
    "private": (("curl_command", {"url": "http://127.0.0.1:1/"}), "내부 네트워크"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_the_program_stays(folder, case):
    call, words = BAD[case]
    before, talk = tree(folder), Scripted("부탁", "끝")
    interact(at(folder, Model(call), talk))
    (line,) = [s for s in talk.said if words in s]
    assert line.startswith("오류: ") and "\n" not in line
    assert tree(folder) == before


def test_a_command_that_is_not_installed_is_one_line(folder, monkeypatch):
    monkeypatch.setattr("hybriko_jax.linux.process.PATH", str(folder))
    ping = ("ping_command", {"host": "example.com"})
    with pytest.raises(UserError, match="ping 명령이 설치되어 있지 않습니다.*apt install"):
        carry_out(at(folder, Model(ping), Scripted()), "확인해줘")


def test_the_exit_status_is_that_of_the_tool(folder):
    grep = ("grep_command", {"pattern": "없는말", "path": "memo.txt"})
    talk = Scripted()
    assert carry_out(at(folder, Model(grep), talk), "찾아줘") == 1
    assert "(종료 코드 1)" in talk.said


def test_english(folder):
    talk = Scripted("run")
    carry_out(at(folder, Model(RM), talk, lang="en"), "지워줘")
    assert "Removes the file memo.txt" in talk.text and talk.questions[0][0].startswith("run(y)")


# --- the session ---


def test_undo_takes_back_one_change_after_the_other(folder):
    before = tree(folder)
    talk = Scripted("옮겨", "y", "지워", "y", "되돌려", "undo", "되돌려줘.", "끝")
    session = at(folder, Model(MV, FINISH, ("rm_command", {"path": "new.txt"}), FINISH), talk)
    assert interact(session) == 0
    assert tree(folder) == before and "되돌릴 것이 없습니다." in talk.said
    undone = [s for s in talk.said if s.startswith("되돌렸습니다")]
    assert undone == ["되돌렸습니다: rm -- new.txt", "되돌렸습니다: mv -- memo.txt new.txt"]


def test_an_undo_that_cannot_be_does_not_block_those_before_it(folder):
    chmod = ("chmod_command", {"mode": "600", "path": "old.txt"})
    (folder / "old.txt").chmod(0o644)
    talk = Scripted("권한", "y", "만들어", "y")
    session = at(folder, Model(chmod, FINISH, MKDIR, FINISH), talk)
    interact(session)
    (folder / "drafts").rmdir()
    talk.typed = ["되돌려", "되돌려", "되돌려", "끝"]
    interact(session)
    assert (folder / "old.txt").stat().st_mode & 0o777 == 0o644 and not session.undos


def test_cd_is_remembered(folder):
    talk = Scripted("사진으로", "보여줘", "돌아가", "끝")
    cd, ls = ("cd_command", {"path": "사진"}), ("ls_command", {"path": "."})
    back = ("cd_command", {"path": "-"})
    interact(at(folder, Model(cd, FINISH, ls, FINISH, back, FINISH), talk))
    prompts = [q for q, _ in talk.questions]
    name = folder.name
    assert prompts == [f"{name}> ", f"{name}/사진> ", f"{name}/사진> ", f"{name}> "]
    assert "a.jpg\n" in talk.said


def test_a_folder_that_vanishes_is_left(folder):
    talk = Scripted("만들어", "y", "가자", "되돌려", "보여줘", "끝")
    cd, ls = ("cd_command", {"path": "drafts"}), ("ls_command", {"path": "."})
    interact(at(folder, Model(MKDIR, FINISH, cd, FINISH, ls), talk))
    assert any("없어져서" in s for s in talk.said) and "memo.txt\nold.txt\n사진\n" in talk.said


def test_the_trash_is_emptied_when_that_is_confirmed(folder):
    talk = Scripted("지워", "y", "휴지통 비우기", "n", "휴지통 비우기", "y", "되돌려", "끝")
    interact(at(folder, Model(RM), talk))
    assert not (folder / ".hybriko-trash").exists() and "되돌릴 것이 없습니다." in talk.said


def test_names_of_the_folder_on_demand(folder):
    for names in (False, True):
        model = Model()
        carry_out(at(folder, model, Scripted(), names=names), "안녕")
        assert model.given[0][1] == (["memo.txt", "old.txt", "사진"] if names else [])


# --- Ctrl-C and Ctrl-D ---


@pytest.mark.parametrize(
    "typed,calls",
    [
        ((KeyboardInterrupt,), ()),  # at the prompt
        (("부탁",), (KeyboardInterrupt,)),  # while the model thinks
        (("부탁", KeyboardInterrupt), (RM,)),  # at the question
        (("부탁", KeyboardInterrupt), (RM_R,)),  # where the name is typed
        (("부탁", "수정", KeyboardInterrupt), (RM,)),
        (("부탁", "수정", "", KeyboardInterrupt), (RM,)),
    ],
)
def test_ctrl_c_stops_what_is_under_way_and_the_program_stays(folder, typed, calls):
    before = tree(folder)
    talk = Scripted(*typed, "보여줘", "끝")
    assert interact(at(folder, Model(*calls, CAT), talk)) == 0
    assert tree(folder) == before
    assert "우유 사기\n은행 가기\n" in talk.said  # it went on


def test_ctrl_c_twice_leaves_and_one_now_and_then_does_not(folder):
    now_and_then = (KeyboardInterrupt, "도움말", KeyboardInterrupt, "도움말")
    talk = Scripted(*now_and_then, KeyboardInterrupt, KeyboardInterrupt, "도움말")
    assert interact(at(folder, Model(), talk)) == 130
    assert talk.typed == ["도움말"]


@pytest.mark.parametrize("typed", [(), ("부탁",), ("부탁", "수정"), ("부탁", "수정", "")])
def test_ctrl_d_leaves_and_nothing_is_done(folder, typed):
    before = tree(folder)
    assert interact(at(folder, Model(RM), Scripted(*typed))) == 0
    assert tree(folder) == before


def test_ctrl_c_in_the_middle_of_a_copy(folder):
    with (folder / "big.bin").open("wb") as file:
        file.truncate(1 << 34)
    before = {p.name for p in folder.iterdir()}

    def interrupt():
        while not any((folder / ".hybriko-trash").glob("*/*")):
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    talk = Scripted("복사", "y", "끝")
    cp = ("cp_command", {"source": "big.bin", "destination": "copy.bin"})
    thread.start()
    interact(at(folder, Model(cp), talk))
    thread.join()
    assert {p.name for p in folder.iterdir()} == before
    assert "되돌릴" not in talk.text and any("멈췄습니다" in s for s in talk.said)


# --- plain lines and terminals ---


def test_a_session_without_a_terminal(folder):
    out = io.StringIO()
    talk = Plain(io.StringIO("memo.txt 보여줘\n\nmemo.txt 지워줘\n"), out)
    assert interact(at(folder, Model(CAT, FINISH, RM), talk)) == 1
    lines = out.getvalue().splitlines()
    assert f"{folder.name}> memo.txt 보여줘" in lines and "우유 사기" in lines
    assert any(line.startswith("오류: 물어볼 터미널이 없어") for line in lines)
    assert (folder / "memo.txt").exists()


def test_what_steers_a_terminal_is_not_shown():
    assert "\x1b" not in clean("a\x1b[2Jb\x07\r") and clean("a\tb\r\nc\n") == "a       b\nc\n"
    out = io.StringIO()
    Plain(io.StringIO(), out).show("\x1b]0;x\x07[bold]글\n")
    assert out.getvalue() == "\ufffd]0;x\ufffd[bold]글\n"


@pytest.mark.parametrize("text", ["되돌려", " 되돌려 줘 ", "UNDO", "되돌리기!"])
def test_words_of_the_assistant_itself(text):
    assert command(text) == "undo"
    assert command(f"{text} memo.txt") is None


def test_requests_that_cannot_be_answered():
    for query in ("  ", "가" * 1001, "🙂🙂", "\udcff\udcfe지워"):
        with pytest.raises(UserError):
            check(query)
        with pytest.raises(UserError) as e:
            check(query, "en")
        assert str(e.value).split("현재")[0].isascii() or "🙂" in query


def test_a_fake_model_needs_no_jax():
    code = (
        "import sys, hybriko_jax.console.ask, hybriko_jax.console.main; print('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


PROGRAM = """
import sys
from pathlib import Path
from hybriko_jax.console.session import Session, interact
from hybriko_jax.console.talk import connect
from hybriko_jax.linux import Where
from hybriko_jax.prompts import format_call

def answer(messages, names):
    last = messages[-1]
    if last["role"] == "tool":
        end = {"return_type": "give_answer", "final_answer": "지웠습니다."}
        return format_call("", "Finish", end)
    name = last["content"].split()[0]
    return format_call("...", "rm_command", {"path": name})

here = Path.cwd()
sys.exit(interact(Session(answer, connect("ko"), Where(root=here, cwd=here))))
"""


def shown(raw):
    """What a terminal was sent, without what steers it."""
    return re.sub("\x1b\\[[0-9;?]*[A-Za-z]", "", raw.decode(errors="ignore"))


def test_in_a_terminal(folder, tmp_path_factory):
    """Completion, history, colours, the question, Ctrl-C and Ctrl-D, as a user meets them."""
    state = tmp_path_factory.mktemp("state")
    environment = {**os.environ, "XDG_STATE_HOME": str(state), "TERM": "xterm", "COLUMNS": "100"}
    environment.pop("NO_COLOR", None)
    mine, theirs = pty.openpty()
    program = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)],
        cwd=folder,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    raw, at = b"", 0

    def wait(words):
        """Reads on until the words were seen behind those of the last time."""
        nonlocal raw, at
        while (found := shown(raw).find(words, at)) < 0:
            assert select.select([mine], [], [], 30)[0], shown(raw)[at:]
            raw += os.read(mine, 65536)
            if b"\x1b[6n" in raw:  # where is the cursor?
                raw = raw.replace(b"\x1b[6n", b"")
                os.write(mine, b"\x1b[1;1R")
        at = found + len(words)

    def type_in(words):
        os.write(mine, words.encode())

    try:
        wait(f"{folder.name}>")
        type_in("mem\t")
        wait("o.txt")  # completed
        type_in(" rm\r")
        wait("rm -- memo.txt")
        wait("(n) >")
        type_in("\x03")
        wait("멈췄습니다")
        wait(f"{folder.name}>")
        type_in("\x1b[A")  # what was said before
        wait("memo.txt rm")
        type_in("\r")
        wait("(n) >")
        type_in("y\r")
        wait("지웠습니다.")
        wait(f"{folder.name}>")
        type_in("\x04")
        wait("안녕히")
        assert program.wait(30) == 0
    finally:
        program.kill()
        program.wait()
        os.close(mine)
    assert not (folder / "memo.txt").exists()
    kept = state / "hybriko_jax" / "history"
    assert "+memo.txt rm" in kept.read_text() and kept.stat().st_mode & 0o077 == 0

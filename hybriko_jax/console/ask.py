"""The command `ask`: a Korean request becomes a Linux command, which is shown or run."""

from __future__ import annotations

import io
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from hybriko_jax.console import load, process
from hybriko_jax.console.messages import fault, text
from hybriko_jax.console.model import load_model
from hybriko_jax.console.request import check
from hybriko_jax.console.session import Session, carry_out, interact, preview
from hybriko_jax.console.talk import connect
from hybriko_jax.errors import UserError
from hybriko_jax.linux import Where
from hybriko_jax.linux.messages import reason

MODEL = "hybriko-mini-linuxfc"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """한국어 부탁을 리눅스 명령으로 바꿉니다. --query가 없으면 대화를 시작합니다.

    종료 코드: 0 끝남, 1 오류나 거절이나 취소, 130 Ctrl-C, 그 밖에는 실행한 명령의 것.
    """

    query: str | None = None
    """부탁하는 말. 명령을 보여 주기만 합니다."""
    execute: bool = False
    """--query의 명령을 실행합니다. 파일을 바꾸는 명령은 먼저 묻습니다."""
    root: Path | None = None
    """이 폴더 안에서만 바꿉니다. 없으면 지금 폴더입니다."""
    jail: bool = False
    """읽는 것도 --root 안에서만 합니다."""
    allow_private: bool = False
    """curl이 이 컴퓨터와 내부 네트워크에 접속할 수 있습니다."""
    yes: bool = False
    """묻지 않고 바꿉니다. 폴더를 통째로 지우는 일은 빼고입니다."""
    lang: Literal["ko", "en"] = "ko"
    """설명과 오류의 말."""
    checkpoint: Path | None = None
    """모델 폴더나 학습 작업 폴더."""
    grounded: bool = True
    """부탁한 말에 있는 이름만 씁니다."""
    cwd_names: bool = False
    """지금 폴더에 있는 이름도 쓸 수 있습니다."""


def main(arguments: list[str] | None = None, prog: str = "python -m launch.ask") -> NoReturn:
    """Runs the command, and ends the process with its exit status.

    Args:
      arguments: the command line; None for that of the process.
      prog: what the command is called in its help.
    """
    # What is not in the terminal's encoding is still shown, and told from what is.
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "replace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)
    lang = "ko"
    try:
        if not process.accelerator():
            process.prepare_cpu(1)
        parsed = process.parse(Arguments, arguments=arguments, prog=prog)
        lang = parsed.lang
        code = ask(parsed)
    except UserError as e:
        code = _complain(lang, str(e))
    except BrokenPipeError:
        code = 141  # as a shell says of SIGPIPE: whoever read our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as e:
        name = f"{e.filename}: " if e.filename else ""
        code = _complain(lang, text(lang, "system", name=name, why=reason(e, lang)))
    except KeyboardInterrupt:
        print(text(lang, "stopped"), file=sys.stderr)
        code = 130
    process.leave(code)


def ask(arguments: Arguments) -> int:
    """Does what the arguments say; returns the exit status.

    Raises:
      UserError: the request cannot be answered, or its command not be run.
    """
    lang = arguments.lang
    query = None if arguments.query is None else check(arguments.query, lang)
    where = place(arguments)
    talk = connect(lang)
    with talk.busy(text(lang, "loading")):
        answer = load_model(arguments.checkpoint or load.shipped(MODEL), arguments.grounded, lang)
        if query is None:  # everything is compiled before the first request
            answer([{"role": "user", "content": "현재 폴더의 파일을 보여줘 " * 8}], ())
    session = Session(answer, talk, where, yes=arguments.yes, names=arguments.cwd_names)
    if query is None:
        return interact(session)
    if not arguments.execute:
        preview(session, query)
        return 0
    try:
        return carry_out(session, query)
    except EOFError:
        talk.say(text(lang, "cancelled"), "warning")
        return 1


def place(arguments: Arguments) -> Where:
    """Where to work: in the root, and in the current folder where the root holds it.

    Raises:
      UserError: one of them is not there.
    """
    try:
        cwd = Path.cwd().resolve()
    except FileNotFoundError:
        if arguments.root is None:
            raise fault(arguments.lang, "no_cwd") from None
        cwd = Path("/")
    root = Path(os.path.realpath(cwd if arguments.root is None else arguments.root.expanduser()))
    inside = root == cwd or root in cwd.parents
    return Where(
        root=root,
        cwd=cwd if inside else root,
        jail=arguments.jail,
        allow_private=arguments.allow_private,
        lang=arguments.lang,
    )


def _complain(lang: str, why: str) -> int:
    print(text(lang, "error", why=why), file=sys.stderr)
    return 1

"""Requests carried out: the model's calls planned, asked about, run, and taken back."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from hybriko_jax.console.messages import LABELS, fault, text
from hybriko_jax.console.model import Answer
from hybriko_jax.console.request import check, command
from hybriko_jax.console.talk import Talk
from hybriko_jax.errors import UserError
from hybriko_jax.linux import (
    FINISH,
    Plan,
    Result,
    Undo,
    Where,
    call_fault,
    command_line,
    empty_trash,
    make_plan,
    run,
)
from hybriko_jax.linux.argv import split_words
from hybriko_jax.linux.explain import explain
from hybriko_jax.linux.messages import LANGUAGES
from hybriko_jax.linux.tools import BY_NAME, DEFAULTS
from hybriko_jax.prompts import Message, format_call, parse_call

MOST_STEPS = 8  # calls of one request
NO_OUTPUT = "(출력 없음)"
"""What the model is told of a command that printed nothing, as in its samples."""
_FED_LINES, _FED_CHARACTERS = 10, 400  # of an output that the model reads
_WORD = r"[A-Za-z0-9]+"

_RUN = ("실행", "y", "yes", "예", "네", "run", "ㅛ")  # ㅛ is y on a Korean keyboard
_EDIT = ("수정", "e", "edit", "ㄷ")
_CANCEL = ("취소", "n", "no", "아니요", "아니오", "cancel", "ㅜ")
_TRUE = ("true", "y", "yes", "예", "네", "ㅛ")
_FALSE = ("false", "n", "no", "아니요", "아니오", "", "ㅜ")


class Call(NamedTuple):
    thought: str
    action: str
    arguments: Mapping[str, Any]


@dataclass
class Session:
    """An assistant at work.

    Attributes:
      answer: the model.
      where: the folders that it may reach; its cwd moves with cd.
      yes: write without asking.
      names: let the model use the names in the current folder.
      lasting: whether requests follow each other, so that cd and undo can be spoken of.
      undos: the changes made, the last one at the end, each with its command.
    """

    answer: Answer
    talk: Talk
    where: Where
    yes: bool = False
    names: bool = False
    lasting: bool = False
    undos: list[tuple[str, Undo]] = field(default_factory=list)
    failed: Undo | None = None
    """The undo that was tried last and failed."""

    def text(self, key: str, **values: Any) -> str:
        return text(self.where.lang, key, **values)


def read_call(words: str, lang: str) -> Call:
    """The call that the model's words stand for.

    Raises:
      UserError: they are none.
    """
    thought, action, arguments = parse_call(words)
    why = call_fault(action, arguments)
    if action is None or arguments is None or why:
        raise fault(lang, "no_call", why=why)
    return Call(thought, action, arguments)


def preview(session: Session, query: str) -> None:
    """Shows the first call of a request, and runs nothing."""
    talk, where = session.talk, session.where
    words = session.answer([_user(query)], _names(session))
    talk.say(words)
    call = read_call(words, where.lang)
    if call.action == FINISH:
        talk.say("\n" + (call.arguments.get("final_answer") or session.text("done")))
        return
    talk.say(f"\n$ {command_line(call.action, call.arguments)}", "command")
    try:
        plan = make_plan(call.action, call.arguments, where)
        talk.say(plan.explanation, "note")
        _say_undo(session, plan)
    except UserError as e:
        talk.say(_explanation(call, where.lang), "note")
        talk.say(session.text("cannot", why=e), "warning")


def carry_out(session: Session, query: str) -> int:
    """Runs what a request takes, call by call, until the model says Finish.

    Returns:
      0; the exit status of the last command that has another; 1 where the user cancelled.

    Raises:
      UserError: a command is refused or fails; those before it are done, and can be undone.
      KeyboardInterrupt: Ctrl-C; the command under way is not done.
    """
    messages: list[Message] = [_user(query)]
    code, last, answered = 0, None, False
    for _ in range(MOST_STEPS):
        with session.talk.busy(session.text("thinking")):
            words = session.answer(messages, _names(session))
        call = read_call(words, session.where.lang)
        if call.action == FINISH:
            if not answered:
                session.talk.say(final_answer(call, messages) or session.text("done"), "answer")
            return code
        if (call.action, call.arguments) == last:
            return code  # the model repeats itself
        if not session.lasting:
            session.talk.say(words)
        decided = _decide(session, call)
        if decided is None:
            session.talk.say(session.text("cancelled"), "warning")
            return 1
        if isinstance(decided, str):
            return carry_out(session, decided)
        call, plan, typed = decided
        result = _run(session, plan, typed)
        code, last = result.code or code, (call.action, call.arguments)
        # What a command printed is the answer. A small model's words on it may be wrong.
        answered = bool(result.output) and not result.code
        messages += [
            {"role": "assistant", "content": format_call(*call)},
            {"role": "tool", "content": fed(result.output)},
        ]
    session.talk.say(session.text("steps", n=MOST_STEPS), "warning")
    return code


def fed(output: str) -> str:
    """A command's output as the model reads it: whole lines from its beginning."""
    kept: list[str] = []
    for line in output.replace("\r\n", "\n").strip("\n").split("\n")[:_FED_LINES]:
        if kept and sum(map(len, kept)) + len(line) > _FED_CHARACTERS:
            break
        kept.append(line[:_FED_CHARACTERS])
    return "\n".join(kept) if output.strip() else NO_OUTPUT


def final_answer(call: Call, messages: Sequence[Message]) -> str:
    """What the model says at the end; "" where it speaks of names or numbers that never came up.

    Unlike arguments, this text is free, and a small model makes things up. Before any command it
    is the answer itself, and stays as it is.
    """
    said = call.arguments.get("final_answer", "")
    if len(messages) == 1:
        return said
    known = re.findall(_WORD, " ".join(m["content"] for m in messages))
    return said if set(re.findall(_WORD, said)) <= set(known) else ""


def interact(session: Session) -> int:
    """Takes requests until the user leaves.

    Returns:
      0; 130 after Ctrl-C twice; without a terminal 1 where a request failed.
    """
    talk, code, pressed = session.talk, 0, False
    session.lasting = True
    talk.say(session.text("hello"))
    while True:
        try:
            settle(session)
            line = talk.read(f"{_place(session.where)}> ", session.where.cwd)
            pressed = False
            if command(line) == "exit":
                break
            if line.strip():
                code = max(code, _respond(session, line))
        except UserError as e:
            talk.say(session.text("error", why=e), "error")
            code = 1
        except EOFError:
            break
        except KeyboardInterrupt:
            if pressed:
                return 130
            pressed = True
            talk.say(session.text("again_leaves"), "note")
    if session.where.trash.is_dir():
        talk.say(session.text("trash_kept", trash=session.where.trash), "note")
    talk.say(session.text("bye"))
    return 0 if talk.can_ask else min(code, 1)


def _respond(session: Session, line: str) -> int:
    """Does what one line asks for."""
    match command(line):
        case "undo":
            undo(session)
        case "trash":
            _empty_trash(session)
        case "help":
            session.talk.say(session.text("help", root=session.where.root))
        case _:
            try:
                return carry_out(session, check(line, session.where.lang))
            except KeyboardInterrupt:
                session.talk.say(session.text("stopped"), "warning")
                raise
    return 0


def undo(session: Session) -> None:
    """Takes back the last change that was not taken back yet.

    Raises:
      UserError: it cannot be taken back; after a second time it is left as it is.
    """
    if not session.undos:
        session.talk.say(session.text("nothing_to_undo"))
        return
    line, change = session.undos[-1]
    try:
        change.apply()
    except UserError as e:
        if session.failed is not change:
            session.failed = change
            raise
        session.undos.pop()
        raise UserError(f"{e} {session.text('dropped', line=line)}") from None
    session.undos.pop()
    session.talk.say(session.text("undone", line=line), "answer")


def settle(session: Session) -> None:
    """Moves to the nearest folder that exists, where the current one was removed."""
    old = session.where.cwd
    if not old.is_dir():
        new = next(p for p in old.parents if p.is_dir())
        session.where = dataclasses.replace(session.where, cwd=new, previous=None)
        session.talk.say(session.text("moved_out", old=old, new=new), "warning")


def _empty_trash(session: Session) -> None:
    if not session.where.trash.is_dir():
        session.talk.say(session.text("no_trash"))
        return
    if not session.talk.can_ask:
        raise fault(session.where.lang, "unasked", line="empty trash")
    if session.talk.ask(session.text("ask_trash")).strip().lower() in _TRUE:
        session.undos.clear()
        empty_trash(session.where)
        session.talk.say(session.text("trash_emptied"))


def _decide(session: Session, call: Call) -> tuple[Call, Plan, str] | str | None:
    """What the user makes of a call: it is run, said again in other words, or dropped.

    Returns:
      The call with its plan and the name that was typed; a new request; or None.
    """
    talk = session.talk
    while True:
        plan = make_plan(call.action, call.arguments, session.where)
        if session.lasting and call.thought:
            talk.say(call.thought, "note")
        talk.say(f"$ {plan.line}" if session.lasting else f"\n$ {plan.line}", "command")
        talk.say(plan.explanation, "note")
        if not plan.writes:
            return call, plan, ""
        _say_undo(session, plan)
        if plan.needs_typed_name is not None:
            if not talk.can_ask:
                raise fault(session.where.lang, "untyped", line=plan.line)
            name = plan.needs_typed_name
            typed = talk.ask(session.text("type_name", name=name)).strip()
            return (call, plan, typed) if typed else None
        if session.yes:
            return call, plan, ""
        if not talk.can_ask:
            raise fault(session.where.lang, "unasked", line=plan.line)
        choice = _choose(session)
        if choice != "edit":
            return (call, plan, "") if choice == "run" else None
        edited = _edit(session, call)
        if isinstance(edited, str):
            return edited
        call = edited


def _choose(session: Session) -> str:
    while True:
        said = session.talk.ask(session.text("choose")).strip().lower()
        for name, words in (("run", _RUN), ("edit", _EDIT), ("cancel", _CANCEL)):
            if said in words:
                return name
        session.talk.say(session.text("choose_again"), "warning")


def _edit(session: Session, call: Call) -> Call | str:
    """The call with the arguments that the user gives it, or a new request."""
    said = session.talk.ask(session.text("say_again"))
    if said.strip():
        return check(said, session.where.lang)
    while True:
        try:
            arguments = _ask_arguments(session, call)
            make_plan(call.action, arguments, session.where)
            return call._replace(arguments=arguments)
        except UserError as e:
            session.talk.say(session.text("error", why=e), "error")


def _ask_arguments(session: Session, call: Call) -> dict[str, Any]:
    i, lang, arguments = LANGUAGES.index(session.where.lang), session.where.lang, {}
    for name, schema in BY_NAME[call.action].parameters.items():
        old = call.arguments.get(name, DEFAULTS.get(name, ""))
        if isinstance(old, bool):
            old = ("예" if old else "아니요", "yes" if old else "no")[i]
        said = session.talk.ask(f"  {LABELS[name][i]}: ", str(old)).strip()
        value: Any = said
        if schema["type"] == "integer" and said:
            if not re.fullmatch(r"-?[0-9]{1,9}", said):
                raise fault(lang, "no_number", text=said)
            value = int(said)
        elif schema["type"] == "boolean":
            if said.lower() not in (*_TRUE, *_FALSE):
                raise fault(lang, "no_yes", text=said)
            value = said.lower() in _TRUE
        if value != "":
            arguments[name] = value
    return arguments


def _run(session: Session, plan: Plan, typed: str) -> Result:
    """Runs a plan, shows what came of it, and remembers the way back."""
    talk = session.talk
    with talk.busy(session.text("working")):
        result = run(plan, typed=typed, keep=lambda undo: session.undos.append((plan.line, undo)))
    talk.show(result.output)
    if result.truncated:
        talk.say(session.text("truncated"), "warning")
    if result.timed_out:
        talk.say(session.text("timed_out"), "warning")
    elif result.code:
        talk.say(session.text("code", code=result.code), "note")
    if result.cwd:
        old = session.where.cwd
        session.where = dataclasses.replace(session.where, cwd=result.cwd, previous=old)
        if not session.lasting:
            talk.say(session.text("cd_alone"), "note")
    if result.undo and session.lasting:
        if len(session.undos) == 1:  # said once, it is known
            talk.say(session.text("undo_word"), "note")
    elif result.undo:
        lines = result.undo.lines
        shown = "; ".join(lines[:3]) + ("; …" if len(lines) > 3 else "")
        talk.say(session.text("undo_lines", lines=shown), "note")
    return result


def _say_undo(session: Session, plan: Plan) -> None:
    if plan.undo:
        session.talk.say(session.text("undo_by", how=plan.undo), "note")
    elif plan.writes:
        session.talk.say(session.text("no_undo"), "warning")


def _explanation(call: Call, lang: str) -> str:
    """What a call does, where no plan can be made of it."""
    values = {"files": "", **DEFAULTS, **call.arguments}
    tool = call.action.removesuffix("_command")
    return explain(tool, values, split_words(values.get("options", "")), lang)


def _names(session: Session) -> list[str]:
    """The names in the current folder, where the model may use them."""
    if not session.names:
        return []
    with session.where.plainly():
        found = sorted(p.name for p in session.where.cwd.iterdir())
    return [name for name in found if name != session.where.trash.name]


def _place(where: Where) -> str:
    """The current folder, short: as seen from the root or from home."""
    if where.holds(where.cwd):
        return str(Path(where.root.name or "/", where.cwd.relative_to(where.root)))
    home = Path.home()
    if home == where.cwd or home in where.cwd.parents:
        return str(Path("~", where.cwd.relative_to(home)))
    return str(where.cwd)


def _user(query: str) -> Message:
    return {"role": "user", "content": query}

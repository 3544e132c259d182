"""Runs a plan: programs that read, and changes to files made here.

cp, mv, rm, mkdir and tar are not the programs of these names: a program that is stopped leaves half
a copy, follows links that appear meanwhile, and does not say what it replaced.
"""

from __future__ import annotations

import errno
import os
import stat
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hybriko_jax.linux import archives
from hybriko_jax.linux.paths import TRASH, Where
from hybriko_jax.linux.plan import Plan, make_plan
from hybriko_jax.linux.process import MOST, SECONDS, capture
from hybriko_jax.linux.undo import Journal, Undo, transaction, uninterrupted
from hybriko_jax.linux.web import fetch

_CHUNK = 1 << 20  # bytes of a file copied at once

# What keeps our trash out of what is shown.
_HIDE = {
    "ls": f"--ignore={TRASH}",
    "du": f"--exclude={TRASH}",
    "grep": f"--exclude-dir={TRASH}",
}


@dataclass(frozen=True)
class Result:
    """What came of a plan.

    Attributes:
      code: the program's exit status; 0 of what is done here, 124 of what ran out of time.
      output: what it printed, errors included; bytes that are no UTF-8 are replaced.
      truncated: whether there was more output than is kept.
      timed_out: whether it was stopped at the time limit.
      cwd: after cd, the folder to go on from.
      undo: how to take back what changed; None where nothing did.
    """

    code: int = 0
    output: str = ""
    truncated: bool = False
    timed_out: bool = False
    cwd: Path | None = None
    undo: Undo | None = None


def run(
    plan: Plan,
    *,
    typed: str = "",
    seconds: float = SECONDS,
    most: int = MOST,
    keep: Callable[[Undo], object] = lambda undo: None,
) -> Result:
    """Does what a plan says: all of it, or nothing where it changes files.

    Args:
      plan: from `make_plan`, which looks again: what was planned must still be so.
      typed: what the user typed, where the plan needs a name typed.
      seconds: after which it is stopped.
      most: bytes of output that are kept.
      keep: given the undo of a change as soon as the change is there, whatever comes after.

    Raises:
      UserError: the name is not the one, something changed since, or it failed; then nothing
        was changed.
      KeyboardInterrupt: Ctrl-C; then, too, nothing was changed, or `keep` has the undo.
    """
    where, deadline = plan.where, time.monotonic() + seconds
    name = plan.needs_typed_name
    if name is not None and _nfc(typed.strip()) != _nfc(name):
        raise where.fault("typed", name=name)
    if make_plan(plan.action, plan.arguments, where) != plan:
        raise where.fault("changed")

    def clock():
        if time.monotonic() > deadline:
            raise where.fault("time", seconds=f"{seconds:g}")

    operation = plan.arguments.get("operation", "")
    with where.plainly():
        if plan.tool == "cd":
            return Result(cwd=plan.reads[0])
        if plan.tool == "curl":
            return _shown(fetch(plan.argv[-1], plan.argv[1:-2], where, deadline, most))
        if operation == "list":
            return _listing(plan, clock, most)
        change = _CHANGES.get(f"{plan.tool} {operation}".strip())
        if change is None:
            return _shown(capture(_without_trash(plan), where, deadline, most))
        with transaction(where) as journal:
            change(plan, journal, clock)
            with uninterrupted():
                undo = journal.undo()
                if undo:
                    keep(undo)
                journal.kept = True
        return Result(undo=undo)


def _shown(got) -> Result:
    code = 124 if got.timed_out else got.code
    return Result(code, got.output.decode("utf-8", "replace"), got.truncated, got.timed_out)


def _listing(plan: Plan, clock: Callable[[], None], most: int) -> Result:
    names = "".join(f"{name}\n" for name in archives.names(plan, clock))
    kept = names.encode("utf-8", "replace")
    return Result(0, kept[:most].decode("utf-8", "ignore"), len(kept) > most)


def _without_trash(plan: Plan) -> list[str]:
    argv = list(plan.argv)
    if plan.where.trash.is_dir():
        if plan.tool == "find":
            argv[2:2] = ["-path", f"*/{TRASH}", "-prune", "-o"]
            argv.append("-print")
        elif plan.tool in _HIDE:
            argv.insert(1, _HIDE[plan.tool])
    return argv


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _mkdir(plan: Plan, journal: Journal, clock) -> None:
    (path,) = plan.changes
    made = journal.spare(path.name)
    made.mkdir()
    journal.place(made, path)


def _rm(plan: Plan, journal: Journal, clock) -> None:
    for path in plan.changes:
        journal.trash(path)


def _mv(plan: Plan, journal: Journal, clock) -> None:
    for source, target in plan.pairs:
        if os.path.lexists(target):
            journal.trash(target)
        journal.move(source, target)


def _cp(plan: Plan, journal: Journal, clock) -> None:
    for source, target in plan.pairs:
        made = journal.spare(target.name)
        mode = _copy(source, made, plan.where, clock)
        if target.exists():
            mode = stat.S_IMODE(target.stat().st_mode)
        journal.place(made, target)
        target.chmod(mode)


def _copy(source: Path, made: Path, where: Where, clock: Callable[[], None]) -> int:
    """Copies a tree without following its links; returns the mode that is left to set.

    A folder is moved and filled before it loses its own write permission.
    """
    clock()
    mode = source.lstat().st_mode
    if stat.S_ISLNK(mode):
        made.symlink_to(os.readlink(source))
        return 0
    if not stat.S_ISDIR(mode):
        return _copy_file(source, made, where, clock)
    made.mkdir(stat.S_IMODE(mode) & 0o777 | 0o700)
    for entry in sorted(source.iterdir()):
        inner = made / entry.name
        left = _copy(entry, inner, where, clock)
        if not inner.is_symlink():
            inner.chmod(left)
    return stat.S_IMODE(made.stat().st_mode) & mode


def _copy_file(source: Path, made: Path, where: Where, clock: Callable[[], None]) -> int:
    # Opened without waiting for the other end of a pipe, then looked at.
    reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(reading, "rb", buffering=0) as old:
        mode = os.fstat(reading).st_mode
        if not stat.S_ISREG(mode):
            raise where.fault("special", name=source)
        # Of the mode, what the umask leaves; a copy is never setuid.
        writing = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.S_IMODE(mode) & 0o777)
        with open(writing, "wb") as new:
            while chunk := old.read(_CHUNK):
                clock()
                new.write(chunk)
        return stat.S_IMODE(made.stat().st_mode)


def _chmod(plan: Plan, journal: Journal, clock) -> None:
    for path in plan.changes:
        if os.geteuid() not in (0, path.stat().st_uid):
            raise PermissionError(errno.EPERM, "", str(path))
        journal.chmod(path)
    mode, paths = plan.arguments["mode"], [str(path) for path in plan.changes]
    got = capture(["chmod", "--", mode, *paths], plan.where, time.monotonic() + SECONDS)
    if got.code:
        raise PermissionError(errno.EPERM, "", paths[0])


_CHANGES: dict[str, Callable[[Plan, Journal, Callable[[], None]], None]] = {
    "mkdir": _mkdir,
    "rm": _rm,
    "cp": _cp,
    "mv": _mv,
    "chmod": _chmod,
    "tar create": archives.pack,
    "tar extract": archives.unpack,
}

"""Changes that happen as a whole or not at all, and can be taken back.

Everything new is made in the trash folder of the root and moved to its place; what is in its way
is moved to the trash. So a change is a list of renames and modes, taken back in reverse order.
Not defended against: kill -9 or a power cut between two renames. Nothing is lost then, but what
was moved away must be brought back from the trash by hand.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import signal
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hybriko_jax.linux.argv import joined
from hybriko_jax.linux.messages import printable
from hybriko_jax.linux.paths import Where


@dataclass(frozen=True)
class Moved:
    before: Path
    after: Path
    mark: str = ""
    """Of something new: its fingerprint, by which a later change shows."""


@dataclass(frozen=True)
class Moded:
    path: Path
    mode: int
    """The one before."""


@dataclass(frozen=True)
class Undo:
    """How to take back what one call changed."""

    where: Where
    steps: tuple[Moved | Moded, ...]
    session: Path | None
    """The folder in the trash that holds what the call removed."""
    times: tuple[tuple[Path, int, int], ...]
    """Folders with their mtime before and after, in nanoseconds."""

    @property
    def lines(self) -> tuple[str, ...]:
        """The commands by which a person would do it."""
        return tuple(_line(step, self.where) for step in reversed(self.steps))

    def apply(self) -> None:
        """Brings back content, modes and times; all of it or nothing.

        Raises:
          UserError: something was changed, moved or put in the way since.
        """
        untouched = [(path, old) for path, old, new in self.times if _mtime(path) == new]
        with self.where.plainly(), transaction(self.where) as journal:
            for step in reversed(self.steps):
                self._take_back(step, journal)
        with uninterrupted():
            for session in (journal.session, self.session):
                if session is not None:
                    _discard(session)
            _remove_if_empty(self.where.trash)
            _set_times(untouched)

    def _take_back(self, step: Moved | Moded, journal: Journal) -> None:
        path = step.path if isinstance(step, Moded) else step.after
        if not os.path.lexists(path):
            raise self.where.fault("undo_gone", name=path)
        if isinstance(step, Moded):
            journal.chmod(path, step.mode)
        elif step.mark:
            if fingerprint(path) != step.mark:
                raise self.where.fault("undo_changed", name=path)
            if path.is_dir() and not path.is_symlink():  # to be moved, a folder must be writable
                journal.chmod(path, stat.S_IMODE(path.stat().st_mode) | 0o700)
            journal.trash(path)
        else:
            if os.path.lexists(step.before):
                raise self.where.fault("undo_taken", name=step.before)
            journal.move(path, step.before)


class Journal:
    """Changes files and writes down how to change them back."""

    def __init__(self, where: Where):
        self.kept = False  # whether somebody has the undo: then nothing is rolled back
        self.where = where
        self.steps: list[Moved | Moded] = []
        self.session: Path | None = None
        self._times: dict[Path, int] = {}
        self._spares = 0

    def spare(self, name: str) -> Path:
        """A free place in the trash for something of that name."""
        if self.session is None:
            self._note(self.where.trash)
            with contextlib.suppress(FileExistsError):
                self.where.trash.mkdir(0o700)
            if not stat.S_ISDIR(self.where.trash.lstat().st_mode):  # a link would lead elsewhere
                raise self.where.fault("exists", name=self.where.trash)
            self.session = self.where.trash / secrets.token_hex(4)
            self.session.mkdir(0o700)
        folder = self.session / str(self._spares)
        folder.mkdir()
        self._spares += 1
        return folder / name

    def move(self, before: Path, after: Path, mark: str = "") -> None:
        self._note(before)
        self._note(after)
        # Written down first: a signal between the two lines must not lose the step.
        self.steps.append(Moved(before, after, mark))
        before.rename(after)

    def trash(self, path: Path) -> None:
        self.move(path, self.spare(path.name))

    def place(self, made: Path, target: Path) -> None:
        """Moves something new to its place; what is there goes to the trash."""
        if os.path.lexists(target):
            self.trash(target)
        self.move(made, target, fingerprint(made))

    def chmod(self, path: Path, mode: int | None = None) -> None:
        """Sets a mode, or only writes down the one that is about to be replaced."""
        self.steps.append(Moded(path, stat.S_IMODE(path.stat().st_mode)))
        if mode is not None:
            path.chmod(mode)

    def roll_back(self) -> None:
        """Takes back what was done of the steps; what cannot go back stays in the trash."""
        stuck = False
        for step in reversed(self.steps):
            try:
                if isinstance(step, Moded):
                    step.path.chmod(step.mode)
                elif os.path.lexists(step.after):
                    if not os.path.lexists(step.before):
                        step.before.parent.mkdir(parents=True, exist_ok=True)
                        step.after.rename(step.before)
                    elif not step.mark:
                        stuck = True
            except OSError:
                stuck = True
        if self.session is not None and not stuck:
            _discard(self.session)
        _remove_if_empty(self.where.trash)
        _set_times(self._times.items())

    def undo(self) -> Undo | None:
        """How to take all of it back; of the session, only what was removed is kept."""
        if self.session is not None:
            moved = [s.after.parent for s in self.steps if isinstance(s, Moved) and not s.mark]
            for folder in self.session.iterdir():
                if folder not in moved:
                    _discard(folder)
            _remove_if_empty(self.session)
            _remove_if_empty(self.where.trash)
        if not self.steps:
            return None
        times = tuple((path, old, _mtime(path)) for path, old in self._times.items())
        return Undo(self.where, tuple(self.steps), self.session, times)

    def _note(self, path: Path) -> None:
        folder = path.parent
        if folder != self.where.trash and self.where.trash not in folder.parents:
            self._times.setdefault(folder, _mtime(folder))


@contextlib.contextmanager
def transaction(where: Where) -> Iterator[Journal]:
    """A journal whose changes are rolled back if anything fails, Ctrl-C included."""
    journal = Journal(where)
    try:
        yield journal
    except BaseException:
        if not journal.kept:
            with uninterrupted():
                journal.roll_back()
        raise


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Lets Ctrl-C wait until the end of the block."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is interrupted
        return
    pressed = []
    old = signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, old or signal.default_int_handler)
    if pressed:
        signal.raise_signal(signal.SIGINT)


def fingerprint(path: Path) -> str:
    """A hash that changes when a file in the tree is changed, added, removed or replaced."""
    digest = hashlib.blake2b(_looks(path, ""))
    if path.is_dir() and not path.is_symlink():
        for folder, folders, files in os.walk(path):
            folders.sort()
            for name in (*folders, *sorted(files)):
                entry = Path(folder, name)
                digest.update(_looks(entry, os.path.relpath(entry, path)))
    return digest.hexdigest()


def empty_trash(where: Where) -> None:
    """Removes for good what earlier calls removed or overwrote in this root."""
    with where.plainly():
        _discard(where.trash)


def _looks(path: Path, name: str) -> bytes:
    s = path.lstat()
    # A folder's own time changes with every name in it, and says nothing of the names.
    kept = () if stat.S_ISDIR(s.st_mode) else (s.st_size, s.st_mtime_ns)
    return repr((name, stat.S_IFMT(s.st_mode), s.st_ino, *kept)).encode()


def _line(step: Moved | Moded, where: Where) -> str:
    def short(path: Path) -> str:
        return str(path.relative_to(where.cwd) if where.cwd in path.parents else path)

    if isinstance(step, Moded):
        words = ["chmod", f"{step.mode:o}", short(step.path)]
    elif not step.mark:
        words = ["mv", short(step.after), short(step.before)]
    elif not step.after.is_dir() or step.after.is_symlink():
        words = ["rm", short(step.after)]
    else:
        words = [*(["rm", "-r"] if any(step.after.iterdir()) else ["rmdir"]), short(step.after)]
    return printable(joined(words))


def _mtime(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return -1


def _set_times(times) -> None:
    for path, mtime in times:
        with contextlib.suppress(OSError):
            os.utime(path, ns=(path.stat().st_atime_ns, mtime))


def _remove_if_empty(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.rmdir()


def _discard(path: Path) -> None:
    """Removes a tree of ours for good, folders without write permission included."""
    if path.is_symlink() or not path.is_dir():
        return
    for folder, names, _ in os.walk(path):
        for name in names:
            entry = Path(folder, name)
            if not entry.is_symlink():
                entry.chmod(0o700)
    shutil.rmtree(path, ignore_errors=True)

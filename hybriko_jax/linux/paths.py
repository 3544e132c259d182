"""What a path may name: resolved first, then compared with the root.

Not defended against: another program of the same user that swaps a folder for a link between the
check and the act, hard links and mounts inside the root that lead to data outside it, and names
that differ only to a file system that ignores case.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hybriko_jax.errors import UserError
from hybriko_jax.linux.messages import KOREAN, fault, reason

TRASH = ".hybriko-trash"
"""The folder in the root that keeps what was removed or overwritten.

It lies in the root, so that moving there is one rename on one file system (no space needed,
nothing half moved), and so that "writes only inside the root" has no exception.
"""

# What would break a line, steer a terminal, or make a name look like another.
_REFUSED = {"Cc", "Cs", "Zl", "Zp"}
_BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@dataclass(frozen=True)
class Where:
    """Where a call runs, and how far it may reach.

    Attributes:
      root: the only folder in which files may change; links in it are resolved at once.
      cwd: the folder that relative paths start from.
      jail: whether reading, too, is confined to the root.
      allow_private: whether curl may reach this machine and private networks.
      previous: the folder that `cd -` goes to.
      lang: of explanations and errors, "ko" or "en".

    Raises:
      UserError: root or cwd is no folder, or cwd is outside a jail.
    """

    root: Path
    cwd: Path
    jail: bool = False
    allow_private: bool = False
    previous: Path | None = None
    lang: str = KOREAN

    def __post_init__(self):
        for name in ("root", "cwd"):
            path = Path(os.path.realpath(getattr(self, name)))
            if not path.is_dir():
                raise self.fault("root_missing", name=getattr(self, name))
            object.__setattr__(self, name, path)
        if self.jail and not self.holds(self.cwd):
            raise self.fault("jail", name=self.cwd, root=self.root)

    def fault(self, key: str, **values: object) -> UserError:
        """The error of that key in messages.TEXTS."""
        return fault(self.lang, key, **values)

    def holds(self, path: Path) -> bool:
        """Whether a resolved path is the root or inside it."""
        return path == self.root or self.root in path.parents

    @contextlib.contextmanager
    def plainly(self) -> Iterator[None]:
        """Turns an error of the system into one line."""
        try:
            yield
        except RecursionError:
            raise self.fault("deep") from None
        except OSError as e:
            # Of two names of a rename, the one that the user knows.
            names = [n for n in (e.filename2, e.filename) if n and TRASH not in str(n)]
            name = f"{names[0]}: " if names else ""
            raise self.fault("failed", name=name, why=reason(e, self.lang)) from None

    @property
    def trash(self) -> Path:
        return self.root / TRASH


@dataclass(frozen=True)
class Named:
    """A path as it was named, and what it names."""

    shown: str
    """As a command would get it: ~ expanded, and never like an option."""
    entry: Path
    """The thing itself: its folder is resolved, but it may be a link."""
    real: Path
    """What is reached when every link is followed."""


def check_word(text: str, where: Where, dash: str = "dash_word") -> str:
    """The text, if it holds no control characters and does not look like an option."""
    for c in text:
        if unicodedata.category(c) in _REFUSED or unicodedata.bidirectional(c) in _BIDI:
            raise where.fault("control", name=text)
    if text.startswith("-"):
        raise where.fault(dash, name=text)
    return text


def is_glob(text: str) -> bool:
    return "*" in text or "?" in text


def named(text: str, where: Where) -> Named:
    """What a text names, which need not exist; * and ? are characters like others."""
    check_word(text, where, "dash")
    if text == "~" or text.startswith("~/"):
        text = str(Path.home()) + text[1:]
    # The same Hangul may be spelt in two ways: names from a Mac come taken apart.
    for form in ("NFC", "NFD"):
        other = unicodedata.normalize(form, text)
        if not os.path.lexists(where.cwd / text) and os.path.lexists(where.cwd / other):
            text = other
    return _named(text, where)


def _named(text: str, where: Where) -> Named:
    full = os.path.join(where.cwd, text)
    folder, name = os.path.split(full.rstrip("/"))
    real = Path(os.path.realpath(full))
    lasts = name not in ("", ".", "..")  # a name of its own, which a link may have
    entry = Path(os.path.realpath(folder), name) if lasts else real
    return Named(f"./{text}" if text.startswith("-") else text, entry, real)


def several(text: str, where: Where) -> list[Named]:
    """The things that a text names: those that its * and ? match, or one, which must exist."""
    found = _matches(text, where)
    if not found:
        raise where.fault("no_match", name=text) if is_glob(text) else _missing(text, where)
    return found


def one(text: str, where: Where) -> Named:
    """The one thing that a text names; it must exist.

    Raises:
      UserError: nothing or more than one thing matches.
    """
    return _single(several(text, where), text, where)


def new(text: str, where: Where) -> Named:
    """A place for something new, whose folder must exist, or one thing that is there already."""
    if is_glob(text):
        found = _matches(text, where)
        if not found:
            raise where.fault("new_glob", name=text)
        return _single(found, text, where)
    place = named(text, where)
    if not place.real.parent.is_dir():
        raise where.fault("no_parent", name=text)
    return place


def _matches(text: str, where: Where) -> list[Named]:
    """As in a shell, * matches no leading dot. [ is a character like others."""
    first = named(text, where)
    if not is_glob(text):
        return [first] if os.path.lexists(first.entry) else []
    pattern = first.shown.replace("[", "[[]")
    found = [_named(match, where) for match in sorted(glob.glob(pattern, root_dir=where.cwd))]
    return [n for n in found if n.entry != where.trash and where.trash not in n.entry.parents]


def _single(found: list[Named], text: str, where: Where) -> Named:
    if len(found) > 1:
        some = ", ".join(n.shown for n in found[:3]) + (", …" if len(found) > 3 else "")
        raise where.fault("many", name=text, some=some)
    return found[0]


def readable(n: Named, where: Where, content: bool = True) -> Named:
    """The same, if it is there and may be read; without content, a file need only be there."""
    if where.jail and not where.holds(n.real):
        raise where.fault("jail", name=n.shown, root=where.root)
    try:
        mode = (n.real if content or n.real.exists() else n.entry).lstat().st_mode
    except FileNotFoundError:
        raise _missing(n.shown, where) from None
    folder = stat.S_ISDIR(mode)
    need = os.R_OK * (content or folder) | os.X_OK * folder
    if need and not os.access(n.real, need, effective_ids=True):
        raise PermissionError(errno.EACCES, "", n.shown)
    return n


def check_change(path: Path, where: Where, shown: str) -> None:
    """Refuses a resolved path that may not change."""
    if not where.holds(path):
        raise where.fault("outside", name=shown, root=where.root)
    if path == where.trash or where.trash in path.parents:
        raise where.fault("trash", name=shown)


def check_removal(path: Path, where: Where, shown: str) -> None:
    """Refuses a resolved path that may not be removed or moved away."""
    if path == where.root or path in where.root.parents:
        raise where.fault("root", name=shown)
    if path == where.cwd or path in where.cwd.parents:
        raise where.fault("here", name=shown)
    check_change(path, where, shown)


def _missing(text: str, where: Where) -> UserError:
    # What is outside a jail is not even known to be missing.
    if where.jail and not where.holds(named(text, where).real):
        return where.fault("jail", name=text, root=where.root)
    return where.fault("missing", name=text)

"""tar files: packed without following links, unpacked only if every entry is checked.

The checks are on names alone, and files are never written through a link of the archive, so they
do not rest on how a path with links is resolved (as tarfile's own filter does; it is used too).
"""

from __future__ import annotations

import contextlib
import lzma
import os
import shutil
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from hybriko_jax.linux.argv import split_words
from hybriko_jax.linux.paths import check_change
from hybriko_jax.linux.plan import Plan, compression
from hybriko_jax.linux.undo import Journal

Clock = Callable[[], None]


class _Clocked:
    """A file that looks at the clock whenever it is used."""

    def __init__(self, file, clock: Clock):
        self._file, self._clock = file, clock

    def __getattr__(self, name):
        self._clock()
        return getattr(self._file, name)


def names(plan: Plan, clock: Clock) -> Iterator[str]:
    """The names in an archive, or those of them that the call asks for; folders end in /."""
    with _opened(plan, clock) as tar:
        for member in _chosen(plan, tar.getmembers()):
            yield member.name + "/" * member.isdir()


def pack(plan: Plan, journal: Journal, clock: Clock) -> None:
    """Makes an archive; links are stored as links, but for those that the call names."""
    (archive,) = plan.changes
    left_out = {
        os.path.normpath(name / path.relative_to(source))
        for source, name in plan.pairs
        for path in (archive, plan.where.trash)
        if source in path.parents
    }

    def keep(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if os.path.normpath(member.name) in left_out else member

    made = journal.spare(archive.name)
    with made.open("xb") as raw:
        kind = compression(archive) or ""
        options = {"compresslevel": 6} if kind == "gz" else {}  # as gzip has it
        with tarfile.open(fileobj=_Clocked(raw, clock), mode=f"w:{kind}", **options) as tar:  # pyright: ignore
            for source, name in plan.pairs:
                tar.add(source, name, filter=keep)
    journal.place(made, archive)


def unpack(plan: Plan, journal: Journal, clock: Clock) -> None:
    """Unpacks into the current folder, by way of the trash folder: all of it or nothing.

    Raises:
      UserError: an entry could write elsewhere, there is no room, or a name is taken by
        something of another kind.
    """
    where, archive = plan.where, plan.argv[2]
    staged = journal.spare(where.cwd.name)
    staged.mkdir()
    with _opened(plan, clock) as tar:
        members = tar.getmembers()
        _check(plan, members)
        members = _chosen(plan, members)
        size, free = sum(m.size for m in members if m.isreg()), shutil.disk_usage(staged).free
        if size > free:
            raise where.fault("too_big", name=archive, size=f"{size:,}", free=f"{free:,}")
        try:
            tar.extractall(staged, members)
        except tarfile.FilterError as e:
            raise where.fault("member", name=archive, member=e.tarinfo.name) from None
    for path in sorted(staged.iterdir()):
        _merge(path, where.cwd / path.name, plan, journal)


def _merge(staged: Path, target: Path, plan: Plan, journal: Journal) -> None:
    """Moves what was unpacked to its place; folders that are there take in what is new."""
    check_change(target, plan.where, str(target))
    folder = staged.is_dir() and not staged.is_symlink()
    if not os.path.lexists(target):
        journal.place(staged, target)
    elif folder != (target.is_dir() and not target.is_symlink()):
        raise plan.where.fault("exists", name=target)
    elif folder:
        for path in sorted(staged.iterdir()):
            _merge(path, target / path.name, plan, journal)
    else:
        journal.place(staged, target)


@contextlib.contextmanager
def _opened(plan: Plan, clock: Clock) -> Iterator[tarfile.TarFile]:
    broken = plan.where.fault("archive", name=plan.argv[2])
    try:
        with plan.reads[0].open("rb") as raw:
            with tarfile.open(fileobj=_Clocked(raw, clock), mode="r:*") as tar:  # pyright: ignore
                # Absent before Python 3.11.4; the checks here do not need it.
                tar.extraction_filter = getattr(tarfile, "data_filter", lambda m, path: m)
                yield tar
    except tarfile.FilterError:
        raise
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError):
        raise broken from None
    except OSError as e:
        # What gzip and bz2 raise about bytes has no number; the system's errors have one.
        raise (broken if e.errno is None else e) from None


def _check(plan: Plan, members: list[tarfile.TarInfo]) -> None:
    """Refuses an archive that could write outside the folder that it is unpacked in.

    Every name stays inside. No name leads through a link. A link's target climbs only at its
    start, and not out; so whatever links it goes on through, it stays inside.
    """
    paths = [PurePosixPath(os.path.normpath(m.name)) for m in members]
    count = Counter(paths)
    links = {path for path, m in zip(paths, members, strict=True) if m.issym()}
    files = {path for path, m in zip(paths, members, strict=True) if m.isreg()}
    for path, m in zip(paths, members, strict=True):
        target = PurePosixPath(m.linkname)
        climbs = [part == ".." for part in target.parts]
        bad = (
            m.name.startswith("/")
            or ".." in PurePosixPath(m.name).parts
            or not m.name.isprintable()
            or not (m.isreg() or m.isdir() or m.issym() or m.islnk())
            or not links.isdisjoint(path.parents)
            or (path in links and count[path] > 1)
            or (m.islnk() and PurePosixPath(os.path.normpath(m.linkname)) not in files)
            or (
                m.issym()
                and (
                    target.is_absolute()
                    or sum(climbs) > len(path.parts) - 1
                    or climbs != sorted(climbs, reverse=True)
                )
            )
        )
        if bad:
            raise plan.where.fault("member", name=plan.argv[2], member=m.name)


def _chosen(plan: Plan, members: list[tarfile.TarInfo]) -> list[tarfile.TarInfo]:
    """All, or those that the call names, with what is in them."""
    wanted = [PurePosixPath(os.path.normpath(w)) for w in _wanted(plan)]
    if not wanted:
        return members
    paths = [PurePosixPath(os.path.normpath(m.name)) for m in members]
    for w in wanted:
        if not any(w == path or w in path.parents for path in paths):
            raise plan.where.fault("no_member", name=plan.argv[2], member=w)
    return [
        m
        for m, path in zip(members, paths, strict=True)
        if any(w == path or w in path.parents for w in wanted)
    ]


def _wanted(plan: Plan) -> list[str]:
    return split_words(plan.arguments.get("files", ""))

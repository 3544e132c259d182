"""Files and folders that are whole or not there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from hybriko_jax.errors import UserError


def write_file(path: Path, content: str | bytes) -> None:
    """Writes a file beside its place and moves it there: a kill leaves the old one."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    temporary.replace(path)


def lock(file: int) -> bool:
    """Keeps an open file or folder for this process until it is closed or the process ends.

    Args:
      file: its descriptor.

    Returns:
      Whether it is ours; also where the file system has no locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # the file system has no locks
    return True


@contextlib.contextmanager
def new_folder(path: Path, overwrite: str = "") -> Iterator[Path]:
    """A folder to fill; it takes its place when all went well, and is gone otherwise.

    Until then it is in .NAME.unfinished beside its place. What a kill left there the next call
    clears up; the folder that was to be replaced comes back.

    Args:
      path: where it shall be; may exist if it is empty.
      overwrite: the name of a file; a folder that holds one like it is replaced.

    Raises:
      UserError: the place is taken, cannot be written, or is being written by another process.
    """
    place = path.resolve()  # a link stays: what it leads to is replaced
    aside = place.with_name(f".{place.name}.unfinished")
    new, old = aside / "new", aside / "old"
    made = [p for p in place.parents if not p.exists()]
    try:
        with _locked(aside, path):
            if old.exists() and not _taken(place):
                old.rename(place)
            for left in (new, old):
                shutil.rmtree(left, ignore_errors=True)
            _check_free(path, overwrite)
            new.mkdir(parents=True)
            try:
                yield new
                _replace(place, new, old)
            finally:
                shutil.rmtree(new, ignore_errors=True)
    finally:
        for folder in (aside, *made):
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()


@contextlib.contextmanager
def _locked(folder: Path, path: Path) -> Iterator[None]:
    """Keeps a folder, made if need be, for this process until it ends, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        opened = os.open(folder, os.O_RDONLY)
    except OSError as e:
        raise UserError(f"{path} cannot be written ({e.strerror}). Give another place.") from None
    try:
        if not lock(opened):
            raise UserError(
                f"Another process is writing {path}. Wait for it, or give another folder."
            )
        yield
    finally:
        os.close(opened)


def _taken(path: Path) -> bool:
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


def _check_free(path: Path, overwrite: str) -> None:
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file. Give a new folder.")
    if _taken(path) and not overwrite:
        raise UserError(f"{path} is not empty. Give a new folder, or --overwrite.")
    if _taken(path) and not (path / overwrite).exists():
        raise UserError(
            f"{path} holds no {overwrite}, so it is no earlier export, and is not overwritten. "
            "Give a new folder."
        )


def _replace(place: Path, new: Path, old: Path) -> None:
    try:
        if place.exists():
            place.rename(old)
        new.rename(place)
    except BaseException as e:
        if old.exists() and not place.exists():
            old.rename(place)
        if isinstance(e, OSError):
            raise UserError(
                f"{place} cannot be replaced ({e.strerror}). Give a folder in it, or another place."
            ) from None
        raise
    shutil.rmtree(old, ignore_errors=True)

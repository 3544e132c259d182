"""Files and folders that are whole or not there."""

from __future__ import annotations

import contextlib
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


@contextlib.contextmanager
def new_folder(path: Path, overwrite: str = "") -> Iterator[Path]:
    """A folder to fill; it takes its place when all went well, and is gone otherwise.

    Args:
      path: where it shall be; may exist if it is empty.
      overwrite: the name of a file; a folder that holds one like it is replaced.

    Raises:
      UserError: the place is taken.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file. Give a new folder.")
    taken = path.exists() and any(path.iterdir())
    if taken and not overwrite:
        raise UserError(f"{path} is not empty. Give a new folder, or --overwrite.")
    if taken and not (path / overwrite).exists():
        raise UserError(
            f"{path} holds no {overwrite}, so it is no earlier export, and is not overwritten. "
            "Give a new folder."
        )
    path = path.absolute()
    made = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    old = path.with_name(f"{path.name}.{os.getpid()}.old")
    try:
        made.mkdir(parents=True)
    except OSError as e:
        raise UserError(f"{path} cannot be written ({e.strerror}). Give another place.") from None
    try:
        yield made
        if path.exists():
            path.rename(old)
        made.rename(path)
    finally:
        shutil.rmtree(made, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)

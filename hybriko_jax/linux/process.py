"""A program run without a shell, with an end to its time and to its output."""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

from hybriko_jax.linux.paths import Where

SECONDS = 30.0
MOST = 1_000_000
"""Bytes of output that are kept."""

# Fixed, so that a program planted in a folder of the user's PATH is not run.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/current-system/sw/bin"
_PACKAGES = {
    "ping": "iputils-ping",
    "ps": "procps",
    "top": "procps",
    "find": "findutils",
    **dict.fromkeys(("ls", "cat", "head", "tail", "wc", "df", "du", "chmod"), "coreutils"),
}


@dataclass(frozen=True)
class Captured:
    code: int
    """The exit status; -9 of what was killed."""
    output: bytes
    """Standard output and errors, in the order in which they came."""
    truncated: bool
    timed_out: bool


def capture(argv: Sequence[str], where: Where, deadline: float, most: int = MOST) -> Captured:
    """Runs a program in where.cwd, its input closed.

    It is the head of a process group, which is killed at the deadline, when there is too much
    output, and on Ctrl-C.

    Args:
      argv: the name of the program, and its arguments.
      deadline: on the clock of time.monotonic(), in seconds.
      most: bytes of output.

    Raises:
      UserError: the program is not installed.
      OSError: it cannot be started, as when there are too many arguments.
    """
    program = shutil.which(argv[0], path=PATH)
    if program is None:
        package = _PACKAGES.get(argv[0], argv[0])
        raise where.fault("not_installed", program=argv[0], package=package)
    process = subprocess.Popen(
        [program, *argv[1:]],
        cwd=where.cwd,
        env={"PATH": PATH, "LC_ALL": "C.UTF-8", "TERM": "dumb"}
        | {k: os.environ[k] for k in ("TZ",) if k in os.environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, ended = _read(process, deadline, most)
        if ended:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        timed_out = process.poll() is None and len(output) <= most
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        assert process.stdout is not None
        process.stdout.close()
    return Captured(code, bytes(output[:most]), len(output) > most, timed_out)


def _read(process: subprocess.Popen, deadline: float, most: int) -> tuple[bytearray, bool]:
    """The output, at most a chunk more than allowed, and whether that was all of it."""
    assert process.stdout is not None
    output = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while len(output) <= most and (left := deadline - time.monotonic()) > 0:
            if selector.select(left):
                chunk = os.read(process.stdout.fileno(), 65536)
                if not chunk:
                    return output, True
                output += chunk
    return output, False

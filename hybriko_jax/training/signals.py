"""Stopping on request: a signal becomes an exception, but only where nothing can be lost."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

import jax

from hybriko_jax.training.processes import highest


class Stopped(BaseException):
    """Asked to stop by a signal; the state that training had last is whole."""

    def __init__(self, signum: int):
        super().__init__(signum)
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """128 + signal, as a shell reports it: 143 for SIGTERM, 130 for Ctrl-C."""
        return 128 + self.signum


class StopSignals:
    """Turns SIGTERM and SIGINT into `Stopped`.

    It is raised at once inside `interruptible`, and elsewhere by the next `check`: in the middle
    of a step the old state is already given away and the new one not yet at hand. Several
    processes stop together, at a `check`, whichever of them got the signal.
    """

    def __init__(self):
        self._signum = 0
        self._depth = 0

    def __enter__(self) -> StopSignals:
        self._previous = {}
        if threading.current_thread() is threading.main_thread():
            for s in (signal.SIGTERM, signal.SIGINT):
                self._previous[s] = signal.signal(s, self._handle)
        return self

    def __exit__(self, *_) -> None:
        for s, handler in self._previous.items():
            signal.signal(s, handler)

    def _handle(self, signum, frame) -> None:
        if self._signum and signum == signal.SIGINT:
            raise KeyboardInterrupt  # asked twice: stop without saving
        first, self._signum = not self._signum, signum
        if first and self._depth:
            raise Stopped(signum)

    def check(self) -> None:
        """Stops if any process was asked to; each calls it at the same point."""
        if signum := highest(self._signum):
            raise Stopped(signum)

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """A section that may be left at any point, where there is one process."""
        if jax.process_count() > 1:
            yield
            return
        self._depth += 1
        try:
            self.check()
            yield
        finally:
            self._depth -= 1

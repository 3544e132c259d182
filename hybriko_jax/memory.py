"""Memory of the process."""

import contextlib
import ctypes


def give_back() -> None:
    """Returns memory that was freed to the system, which glibc would keep for later."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)

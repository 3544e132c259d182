"""Several processes as one: what process 0 does for all, and what all agree on."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from hybriko_jax.errors import UserError

T = TypeVar("T")

_LONGEST_WAIT = 24 * 60 * 60 * 1000  # milliseconds: process 0 may prepare a large corpus
_calls = itertools.count()


def is_main() -> bool:
    return jax.process_index() == 0


def on_main_process(action: Callable[[], T]) -> T:
    """What an action returns on process 0, in all processes; they wait for it.

    Args:
      action: returns JSON data.

    Raises:
      UserError: the action failed on process 0, which raises what the action raised.
    """
    if jax.process_count() == 1:
        return action()
    result: dict[str, Any] = {}
    failure = None
    if is_main():
        try:
            result["value"] = action()
        except Exception as e:
            failure = e
            result["error"] = str(e) if isinstance(e, UserError) else f"Process 0 failed: {e!r}"
    # A collective alone would give up on processes that come late.
    barrier = ocp.multihost.get_barrier_sync_fn()
    barrier(key=f"hybriko_jax.{next(_calls)}", timeout_ms=_LONGEST_WAIT)
    result = json.loads(_broadcast(json.dumps(result).encode()))
    if failure:
        raise failure
    if "error" in result:
        raise UserError(result["error"])
    return result["value"]


def highest(value: int) -> int:
    """The highest value of all processes; each calls it at the same point."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.process_allgather(np.int32(value)).max())


def _broadcast(content: bytes) -> bytes:
    """The content of process 0."""
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(content))))
    padded = np.zeros(size, np.uint8)
    if is_main():
        padded[:] = np.frombuffer(content, np.uint8)
    return multihost_utils.broadcast_one_to_all(padded).tobytes()

"""What every command shares: choosing devices before JAX starts, options, one-line errors."""

from __future__ import annotations

import errno
import importlib.util
import inspect
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from hybriko_jax.errors import UserError

T = TypeVar("T")

_PREPARED = "HYBRIKO_JAX_PREPARED"
# Without huge pages the matrix products of a CPU spend half their time in page faults.
_GLIBC = "glibc.malloc.hugetlb=1"
# Eight busy virtual devices on two cores meet late; by default XLA aborts the process then.
_XLA_CPU = (
    "--xla_cpu_collective_call_terminate_timeout_seconds=3600",
    "--xla_cpu_collective_call_warn_stuck_timeout_seconds=600",
)


def accelerator(dev: Path = Path("/dev")) -> str | None:
    """'gpu' or 'tpu' if JAX will find one, None for a CPU; JAX is not imported.

    Raises:
      UserError: there is an NVIDIA GPU, but no JAX plugin for it.
    """
    wanted = os.environ.get("JAX_PLATFORMS", "")
    if wanted.split(",")[0] == "cpu":
        return None
    if any(dev.glob("nvidia[0-9]*")):
        if not any(importlib.util.find_spec(f"jax_cuda{v}_plugin") for v in (12, 13)):
            raise UserError(
                "There is an NVIDIA GPU, but JAX has no CUDA plugin and would train on the CPU. "
                'Run pip install -e ".[cuda]", or set JAX_PLATFORMS=cpu to mean the CPU.'
            )
        return "gpu"
    has_tpu = any(dev.glob("accel[0-9]*")) or any(dev.glob("vfio/[0-9]*"))
    return "tpu" if has_tpu and importlib.util.find_spec("libtpu") else None


def prepare_cpu(devices: int) -> None:
    """Makes this process one with so many virtual CPU devices and fast memory.

    JAX_NUM_CPU_DEVICES, where it is set, goes before `devices`. The C library reads its settings
    at the start only, so the process runs itself once more.
    """
    environment = dict(os.environ)
    environment["JAX_PLATFORMS"] = "cpu"
    environment.setdefault("JAX_NUM_CPU_DEVICES", str(devices))
    tunables = environment.get("GLIBC_TUNABLES", "")
    if "hugetlb" not in tunables:
        environment["GLIBC_TUNABLES"] = f"{tunables}:{_GLIBC}".lstrip(":")
    flags = environment.get("XLA_FLAGS", "")
    for flag in _XLA_CPU:
        if flag.split("=")[0] not in flags:
            flags = f"{flags} {flag}".strip()
    environment["XLA_FLAGS"] = flags
    # Once only, whatever a wrapper resets: the process keeps its number.
    if environment != dict(os.environ) and environment.get(_PREPARED) != str(os.getpid()):
        environment[_PREPARED] = str(os.getpid())
        sys.stdout.flush()
        os.execve(sys.executable, sys.orig_argv, environment)


def parse(
    cls: type[T],
    default: Any = None,
    command: str = "",
    arguments: list[str] | None = None,
    prog: str = "",
) -> T:
    """The command line over a default; --help and mistakes end the program."""
    import tyro

    return tyro.cli(
        cls,
        default=default,
        args=arguments,
        description=inspect.cleandoc(cls.__doc__ or ""),
        prog=prog or (f"python -m {command}" if command else None),
        # Which model it is, and whether it is adapted, the config says.
        config=(tyro.conf.AvoidSubcommands,),
    )


def end_in_order() -> None:
    """Makes SIGTERM end the program as an error does: what is half-written is then cleared up."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def leave(code: int) -> NoReturn:
    """Ends the process at once, all being saved.

    XLA compiles in threads of its own, and an orderly end now and then crashes (status 139): the
    interpreter takes their client away under them. Several processes leave together.
    """
    if jax := sys.modules.get("jax"):
        jax.distributed.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def fail(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(1)


def run(main: Callable[[], None]) -> None:
    """Runs a command; a user's mistake ends it with one line and exit status 1."""
    try:
        main()
    except UserError as e:
        fail(str(e))
    except PermissionError as e:
        fail(f"{e.filename}: no permission. Give another path, or ask for the right to use it.")
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        fail(f"{e.filename or 'a file'}: {e.strerror}. Make room, and run the same command again.")
    except KeyboardInterrupt:
        raise SystemExit(130) from None

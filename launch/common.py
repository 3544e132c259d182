"""What the commands share: choosing devices before JAX starts, configs by name, one-line errors."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import importlib
import importlib.util
import os
import pkgutil
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import configs
from hybriko_jax.config import HybriKoConfig, RunConfig, from_json, nearest
from hybriko_jax.errors import UserError

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from hybriko_jax.data.prepare import Prepared, Progress
    from hybriko_jax.tokenizer import Tokenizer

T = TypeVar("T")

# Dense peak of one card in TFLOP/s, by its data sheet; float32 products run as TF32.
_PEAK_TFLOPS = {
    "A100": {"bfloat16": 312.0, "float32": 156.0},
    "H100": {"bfloat16": 989.0, "float32": 494.0},
    "H200": {"bfloat16": 989.0, "float32": 494.0},
}

_PREPARED = "HYBRIKO_JAX_PREPARED"
# Without huge pages the matrix products of a CPU spend half their time in page faults.
_GLIBC = "glibc.malloc.hugetlb=1"
# Eight busy virtual devices on two cores meet late; by default XLA aborts the process then.
_XLA_CPU = (
    "--xla_cpu_collective_call_terminate_timeout_seconds=3600",
    "--xla_cpu_collective_call_warn_stuck_timeout_seconds=600",
)


def accelerator() -> str | None:
    """'gpu' or 'tpu' if JAX will find one, None for a CPU; JAX is not imported.

    Raises:
      UserError: there is an NVIDIA GPU, but no JAX plugin for it.
    """
    wanted = os.environ.get("JAX_PLATFORMS", "")
    if wanted.split(",")[0] == "cpu":
        return None
    if Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi"):
        if not any(importlib.util.find_spec(f"jax_cuda{v}_plugin") for v in (12, 13)):
            raise UserError(
                "There is an NVIDIA GPU, but JAX has no CUDA plugin and would train on the CPU. "
                'Run pip install -e ".[cuda]", or set JAX_PLATFORMS=cpu to mean the CPU.'
            )
        return "gpu"
    if any(Path("/dev").glob("accel*")) and importlib.util.find_spec("libtpu"):
        return "tpu"
    return None


def prepare_cpu(devices: int) -> None:
    """Makes this process one with so many virtual CPU devices and fast memory.

    The C library reads its settings at the start only, so the process runs itself once more.
    """
    environment = dict(os.environ)
    environment["JAX_PLATFORMS"] = "cpu"
    environment["JAX_NUM_CPU_DEVICES"] = str(devices)
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


def load_config(name: str) -> RunConfig:
    """The run that configs/NAME.py describes.

    Raises:
      UserError: there is none; the nearest name is given.
    """
    known = [m.name for m in pkgutil.iter_modules(configs.__path__)]
    if name not in known:
        raise UserError(f"--config {name}: there is no configs/{name}.py.{nearest(name, known)}")
    return importlib.import_module(f"configs.{name}").config()


def option(name: str) -> str | None:
    """The value of one command-line option, read before all others are known."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(f"--{name}")
    return getattr(parser.parse_known_args()[0], name)


def parse(
    cls: type[T], default: Any = None, command: str = "", arguments: list[str] | None = None
) -> T:
    """The command line over a default; --help and mistakes end the program."""
    import tyro

    return tyro.cli(
        cls,
        default=default,
        args=arguments,
        description=cls.__doc__,
        prog=f"python -m {command}" if command else None,
    )


def start_processes() -> None:
    """Joins the processes of a cluster, where the environment describes one."""
    import jax

    if os.environ.get("JAX_COORDINATOR_ADDRESS") or "SLURM_JOB_ID" in os.environ:
        jax.distributed.initialize()


def on_main_process(action: Callable[[], object]) -> None:
    """Runs an action on process 0; the others wait for it."""
    import jax
    from jax.experimental import multihost_utils

    if jax.process_index() == 0:
        action()
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("on_main_process")


def make_directory(path: Path) -> None:
    """Makes a directory that can be written.

    Raises:
      UserError: it cannot be made or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as e:
        raise UserError(
            f"{path} cannot be written ({e.strerror}). Give another --workdir."
        ) from None


def new_tokenizer(config: RunConfig) -> Tokenizer:
    """A tokenizer trained on the data of a run."""
    from hybriko_jax.data.prepare import train_tokenizer

    with progress_line() as progress:
        return train_tokenizer(config.data, config.tokenizer, config.model.vocab_size, progress)


def prepared_data(config: RunConfig, tokenizer: Tokenizer, workdir: Path) -> Prepared:
    """The prepared dataset of a run, made by process 0 where it is not there."""
    from hybriko_jax.data.prepare import prepare

    cache = Path(config.data.cache or workdir / "data")
    with progress_line() as progress:
        on_main_process(lambda: prepare(config.data, tokenizer, cache, progress))
        return prepare(config.data, tokenizer, cache)


@dataclass(frozen=True)
class Loaded:
    """A model to use: `config` and `params` make it, `tokenizer` speaks to it."""

    config: HybriKoConfig
    params: Any
    tokenizer: Tokenizer


def load_checkpoint(path: Path, dtype: str = "float32") -> Loaded:
    """The newest weights of a run's workdir, or a model's folder; NumPy arrays.

    Args:
      path: the workdir or folder.
      dtype: of the operands of matrix products; float32 is the faster on a CPU at one row.

    Raises:
      UserError: the path holds no model.
    """
    from hybriko_jax.convert.folder import WEIGHTS, load_folder
    from hybriko_jax.tokenizer import SentencePiece
    from hybriko_jax.training.checkpoint import latest_step, restore_params

    if (path / WEIGHTS).exists():
        config, params, tokenizer = load_folder(path)
    elif step := latest_step(path / "checkpoints"):
        config = from_json(RunConfig, (path / "config.json").read_text()).model
        params, tokenizer = restore_params(step), SentencePiece(path / "tokenizer.model")
    else:
        raise UserError(
            f"{path} holds no model. Give the workdir of a run (with checkpoints/) or a model's "
            f"folder (with {WEIGHTS})."
        )
    return Loaded(dataclasses.replace(config, dtype=dtype, remat=False), params, tokenizer)


def peak_flops(tflops: float | None, mesh: Mesh, dtype: str) -> float | None:
    """Peak of a mesh in FLOP/s: as stated by the user, or by the card's data sheet."""
    if tflops is None:
        kind = mesh.devices.flat[0].device_kind
        tflops = next((t[dtype] for name, t in _PEAK_TFLOPS.items() if name in kind), None)
    return tflops and tflops * 1e12 * mesh.size


@contextlib.contextmanager
def progress_line() -> Iterator[Progress]:
    """A line on the terminal that counts documents and bytes; a line a stage elsewhere."""
    from rich.console import Console

    console, stages = Console(stderr=True), set()
    with console.status("") as status:

        def progress(what: str, n_documents: int, n_bytes: int) -> None:
            line = f"{what}: {n_documents:,} documents, {n_bytes / 1e6:,.1f} MB"
            if console.is_terminal:
                status.update(line)
            elif what not in stages:
                stages.add(what)
                print(f"{what} ...", flush=True)

        yield progress


def leave(code: int) -> NoReturn:
    """Ends the process at once, all being saved.

    XLA compiles in threads of its own, and an orderly end now and then crashes (status 139): the
    interpreter takes their client away under them.
    """
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

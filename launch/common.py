"""What the commands share: choosing devices before JAX starts, configs by name, one-line errors."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import pkgutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import configs
from hybriko_jax import files
from hybriko_jax.config import RunConfig, nearest
from hybriko_jax.console.process import accelerator as accelerator
from hybriko_jax.console.process import end_in_order as end_in_order
from hybriko_jax.console.process import fail as fail
from hybriko_jax.console.process import leave as leave
from hybriko_jax.console.process import parse as parse
from hybriko_jax.console.process import prepare_cpu as prepare_cpu
from hybriko_jax.console.process import run as run
from hybriko_jax.errors import UserError

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from hybriko_jax.data.prepare import Prepared, Progress
    from hybriko_jax.tokenizer import Tokenizer

# Dense peak of one card in TFLOP/s, by its data sheet; float32 products run as TF32.
_PEAK_TFLOPS = {
    "A100": {"bfloat16": 312.0, "float32": 156.0},
    "H100": {"bfloat16": 989.0, "float32": 494.0},
    "H200": {"bfloat16": 989.0, "float32": 494.0},
}


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


def cluster() -> dict[str, Any]:
    """Arguments of jax.distributed.initialize, by what a launcher says in the environment.

    Raises:
      UserError: it says only a part.
    """
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    address, count, index = (os.environ.get(n, "") for n in names)
    if address or count or index:
        numbers = count.isdigit() and index.isdigit() and int(index) < int(count)
        if not (":" in address and numbers):
            given = " ".join(f"{n}={os.environ.get(n, '')}" for n in names)
            raise UserError(
                f"{given}: several processes need all three: HOST:PORT of process 0, how many they"
                " are, and the index of this one from 0. Set all of them, or none."
            )
        return {
            "coordinator_address": address,
            "num_processes": int(count),
            "process_id": int(index),
        }
    # An allocation of SLURM is not yet a step of several tasks.
    if "SLURM_STEP_NODELIST" in os.environ:
        return {"num_processes": int(os.environ.get("SLURM_NTASKS", 1))}
    if "OMPI_MCA_orte_hnp_uri" in os.environ:
        return {"num_processes": int(os.environ.get("OMPI_COMM_WORLD_SIZE", 1))}
    return {"num_processes": 1}


def start_jax(expected: str | None) -> None:
    """Joins the processes of a cluster, where there is one, and starts JAX.

    Args:
      expected: what `accelerator` found.

    Raises:
      UserError: JAX cannot start it.
    """
    import jax

    arguments = cluster()
    if arguments["num_processes"] > 1:
        # It would catch SIGTERM, and keep it to itself.
        jax.config.update("jax_enable_preemption_service", False)
        jax.distributed.initialize(**arguments)
    if not expected:
        return
    try:
        if jax.default_backend() != "cpu":
            return
        reason = f"JAX_PLATFORMS={'cuda' if expected == 'gpu' else expected} tells why"
    except RuntimeError as e:
        reason = str(e).splitlines()[0]
    raise UserError(
        f"There is a {expected.upper()}, but JAX cannot start it ({reason}). Often it is the "
        "driver: mend it, or set JAX_PLATFORMS=cpu to mean the CPU."
    )


def say(text: str) -> None:
    """Prints a line, on process 0 only."""
    from hybriko_jax.training.processes import is_main

    if is_main():
        print(text, flush=True)


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
        raise UserError(f"{path} cannot be written ({e.strerror}). Give another place.") from None


def lock(workdir: Path) -> None:
    """Keeps a workdir for this process until it ends, however it ends.

    Raises:
      UserError: another process has it.
    """
    if not files.lock(os.open(workdir / ".lock", os.O_CREAT | os.O_RDWR, 0o666)):
        raise UserError(
            f"Another run is under way in {workdir}. Wait for it or stop it, or give another "
            "--workdir."
        )


def new_tokenizer(config: RunConfig) -> Tokenizer:
    """A tokenizer trained on the data of a run."""
    from hybriko_jax.data.prepare import train_tokenizer

    with progress_line() as progress:
        return train_tokenizer(config.data, config.tokenizer, config.model.vocab_size, progress)


def prepared_data(config: RunConfig, tokenizer: Tokenizer, workdir: Path) -> Prepared:
    """The prepared dataset of a run, made by process 0 where it is not there."""
    from hybriko_jax.data.prepare import load_prepared, prepare
    from hybriko_jax.training.processes import on_main_process

    cache = Path(config.data.cache or workdir / "data")

    def make() -> str:
        with progress_line() as progress:
            return str(prepare(config.data, tokenizer, cache, progress).directory)

    return load_prepared(Path(on_main_process(make)))


def peak_flops(tflops: float | None, mesh: Mesh, dtype: str) -> float | None:
    """Peak of a mesh in FLOP/s: as stated by the user, or by the card's data sheet."""
    if tflops is None:
        kind = mesh.devices.flat[0].device_kind
        tflops = next((t[dtype] for name, t in _PEAK_TFLOPS.items() if name in kind), None)
    return tflops and tflops * 1e12 * mesh.size


@contextlib.contextmanager
def progress_line() -> Iterator[Progress]:
    """A bar on the terminal that counts documents and bytes; a line a stage elsewhere.

    How much is still to come is not known before it is read: the bar moves, and does not fill.
    """
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    stages: set[str] = set()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("", total=None)

        def progress(what: str, n_documents: int, n_bytes: int) -> None:
            line = f"{what}: {n_documents:,} documents, {n_bytes / 1e6:,.1f} MB"
            bar.update(task, description=line)
            if bar.disable and what not in stages:
                stages.add(what)
                print(f"{what} ...", flush=True)

        yield progress

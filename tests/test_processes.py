"""How a run starts: which devices it finds, and several processes that are one run."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from hybriko_jax.errors import UserError
from hybriko_jax.training.checkpoint import damage, latest_step
from hybriko_jax.training.metrics import read_metrics
from launch import common
from launch.start import enough_memory

ROOT = Path(__file__).resolve().parents[1]
STEPS = 6
OPTIONS = """
    --config tiny --mesh 8 --data.held-out 0.1 --optimizer.schedule constant
    --model.vocab-size 300 --model.d-model 16 --model.n-heads 2 --model.n-layers 2
    --model.pattern griffin attention --optimizer.warmup-steps 2
    --train.seq-len 32 --train.batch-size 8 --train.log-every 1
    --train.save-every 3 --train.eval-every 4 --train.eval-batches 1
""".split()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    directory = tmp_path_factory.mktemp("processes")
    rng = np.random.default_rng(0)
    words = [
        "".join(rng.choice(list("가나다라마바사아자차고노도로모보소오조초"), 2)) for _ in range(60)
    ]
    documents = [" ".join(rng.choice(words, 12)) for _ in range(200)]
    (directory / "text.txt").write_text("\n\n".join(documents))
    (directory / "without").mkdir()
    (directory / "without" / "torch.py").write_text("raise ImportError")
    return directory


@pytest.fixture
def start(shared):
    """Starts processes of a run; those that a failed test leaves behind are killed."""
    processes = []

    def start(workdir, *overrides, env=None) -> subprocess.Popen:
        environment = {
            **os.environ,
            "PYTHONPATH": str(shared / "without"),
            "XLA_FLAGS": "--xla_backend_optimization_level=0",
            "JAX_COMPILATION_CACHE_DIR": str(shared / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "none",
            **(env or {}),
        }
        if "JAX_NUM_CPU_DEVICES" not in (env or {}):
            del environment["JAX_NUM_CPU_DEVICES"]
        data = ["--data.source", shared / "text.txt", "--workdir", workdir]
        command = [sys.executable, "-m", "launch.pretrain", *OPTIONS, *data, *overrides]
        processes.append(
            subprocess.Popen(
                [*map(str, command)],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def start_two(start, *arguments):
    with socket.socket() as s:
        s.bind(("localhost", 0))
        address = f"localhost:{s.getsockname()[1]}"
    names = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    return [start(*arguments, env={**names, "JAX_PROCESS_ID": str(i)}) for i in range(2)]


def end(process):
    out, err = process.communicate(timeout=120)
    ours = [line for line in out.splitlines() if not line.startswith("[Gloo]")]
    return process.returncode, "\n".join(ours), err


def losses(workdir):
    return [r["nats"] for r in read_metrics(workdir / "metrics.jsonl") if "nats" in r]


def test_two_processes_equal_one_and_stop_together(start, tmp_path):
    alone, both = tmp_path / "alone", tmp_path / "both"
    code, _, err = end(start(alone, "--train.steps", STEPS))
    assert code == 0, err

    first, second = start_two(start, both, "--train.steps", 100_000)
    while len(losses(both)) < STEPS:
        assert first.poll() is None and second.poll() is None, (end(first), end(second))
        time.sleep(0.05)
    second.send_signal(signal.SIGTERM)
    (code, out, err), (other_code, other_out, other_err) = end(first), end(second)
    assert (code, other_code) == (143, 143), (err, other_err)
    assert "saving step" in out and not other_out
    assert "Traceback" not in err + other_err
    np.testing.assert_allclose(losses(both)[:STEPS], losses(alone), rtol=1e-5)

    newest = latest_step(both / "checkpoints")
    assert int(newest.name) == len(losses(both))
    assert damage(newest) is None
    more = len(losses(both)) + 2
    code, out, err = end(start(both, "--train.steps", more))
    assert code == 0, err
    assert f"continuing from checkpoint {newest.name}" in out
    assert len(losses(both)) == more


def test_an_error_of_process_0_ends_all(start, tmp_path):
    for process in start_two(start, tmp_path / "new", "--data.held-out", "1e-9"):
        code, _, err = end(process)
        assert code == 1, err
        assert "Traceback" not in err
        assert (
            len([line for line in err.splitlines() if line.startswith("error: The held_out")]) == 1
        )


def test_a_mesh_of_some_devices_over_which_no_batch_divides(start, tmp_path):
    options = ("--mesh", 3, "--describe")
    code, out, err = end(start(tmp_path, *options, env={"JAX_NUM_CPU_DEVICES": "4"}))
    assert code == 1
    assert "--mesh 3 uses 3 of 4 devices" in out
    assert "leaves 8 rows, which do not divide over the 3 devices" in err


VARIABLES = (
    *("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"),
    *("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS"),
    *("OMPI_MCA_orte_hnp_uri", "OMPI_COMM_WORLD_SIZE"),
)


@pytest.fixture
def environment(monkeypatch):
    def set_all(**values):
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_all


@pytest.mark.parametrize(
    "values,expected",
    [
        ({}, 1),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8"}, 1),
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "a[1-2]", "SLURM_NTASKS": "8"}, 8),
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "a1"}, 1),
        ({"OMPI_MCA_orte_hnp_uri": "1.0;tcp://a:1", "OMPI_COMM_WORLD_SIZE": "4"}, 4),
    ],
)
def test_launchers(environment, values, expected):
    environment(**values)
    assert common.cluster() == {"num_processes": expected}


@pytest.mark.parametrize(
    "values",
    [("a:1", "", ""), ("a:1", "2", ""), ("a:1", "2", "2"), ("a", "2", "0"), ("", "2", "0")],
)
def test_processes_described_in_part_are_refused(environment, values):
    environment(**dict(zip(VARIABLES, values, strict=False)))
    with pytest.raises(UserError, match=r"JAX_PROCESS_ID.*all three"):
        common.cluster()


def test_processes_by_the_environment(environment):
    environment(**dict(zip(VARIABLES, ("a:1", "4", "3"), strict=False)))
    assert common.cluster() == {
        "coordinator_address": "a:1",
        "num_processes": 4,
        "process_id": 3,
    }


@pytest.mark.parametrize(
    "device,package,expected",
    [
        (None, "jax_cuda12_plugin", None),
        ("nvidia3", "jax_cuda12_plugin", "gpu"),
        ("nvidiactl", "jax_cuda12_plugin", None),
        ("accel0", "libtpu", "tpu"),
        ("vfio/0", "libtpu", "tpu"),
        ("vfio/vfio", "libtpu", None),
        ("vfio/0", None, None),
    ],
)
def test_accelerators(monkeypatch, tmp_path, device, package, expected):
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == package or None)
    # A driver's tools on the PATH are not a device.
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "nvidia-smi").touch(mode=0o755)
    if device:
        (tmp_path / device).parent.mkdir(exist_ok=True)
        (tmp_path / device).touch()
    assert common.accelerator(tmp_path) == expected


def test_a_gpu_without_a_plugin_is_refused(monkeypatch, tmp_path):
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (tmp_path / "nvidia0").touch()
    with pytest.raises(UserError, match="no CUDA plugin"):
        common.accelerator(tmp_path)


def test_an_accelerator_that_does_not_start_is_refused(environment):
    environment()
    common.start_jax(None)
    with pytest.raises(UserError, match="There is a GPU, but JAX cannot start it.*driver"):
        common.start_jax("gpu")


def test_a_workdir_has_one_run_at_a_time(tmp_path):
    common.lock(tmp_path)
    with pytest.raises(UserError, match="Another run is under way"):
        common.lock(tmp_path)


def test_too_little_memory_is_one_line():
    with pytest.raises(UserError, match="--train.batch-size.*--train.accumulation") as error:
        with enough_memory():
            jnp.zeros(1 << 50, jnp.int8).block_until_ready()
    assert "\n" not in str(error.value)


def test_metrics_are_strict_json(tmp_path):
    from hybriko_jax.training.metrics import Metrics

    metrics = Metrics(tmp_path, steps=2, first_step=0)
    metrics.write(1, nats=float("nan"), grad_norm=float("inf"), skipped=1)
    metrics.close()
    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line, parse_constant=pytest.fail) == {"step": 1, "skipped": 1}

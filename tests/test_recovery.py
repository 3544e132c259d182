"""What a run survives: kills, stop signals, damaged checkpoints, full disks, other meshes.

Every run here is a process of its own, started as a user starts it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest

from hybriko_jax.training.checkpoint import MANIFEST, damage, latest_step, restore_params
from hybriko_jax.training.metrics import read_metrics

ROOT = Path(__file__).resolve().parents[1]
STEPS, SAVE_EVERY = 40, 5
ROWS, LENGTH = 8, 32
SECONDS_TO_STOP = 15
QUICK_COMPILE = "--xla_backend_optimization_level=0"

OPTIONS = f"""
    --config tiny --mesh 1 --data.held-out 0.1
    --model.vocab-size 400 --model.d-model 16 --model.n-heads 2 --model.n-kv-heads 1
    --model.n-layers 2 --model.pattern griffin attention --optimizer.warmup-steps 5
    --train.seq-len {LENGTH} --train.batch-size {ROWS} --train.steps {STEPS}
    --train.save-every {SAVE_EVERY} --train.eval-every 20 --train.eval-batches 1 --train.log-every 1
""".split()


class Ended(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("error:")]


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A directory with the text, its prepared form and the compiled steps of all runs."""
    directory = tmp_path_factory.mktemp("recovery")
    rng = random.Random(0)
    syllables = "가나다라마바사아자차고노도로모보소오조초기니디리미비시이지치을를은는에서"
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 3))) for _ in range(120)]
    documents = [" ".join(rng.choices(words, k=rng.randint(3, 20))) for _ in range(600)]
    (directory / "text.txt").write_text("\n\n".join(documents))
    # tensorboardX imports PyTorch where it is installed, which is half the time of a start.
    (directory / "without").mkdir()
    (directory / "without" / "torch.py").write_text("raise ImportError")
    return directory


@pytest.fixture(scope="session")
def pretrain(shared):
    """Starts runs; those that a failed test leaves behind are killed."""
    environment = {
        **{k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"},
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": str(shared / "without"),
        "JAX_PLATFORMS": "cpu",
        # Most of a start is compiling: do it quickly, and once for equal programs.
        "XLA_FLAGS": QUICK_COMPILE,
        "JAX_COMPILATION_CACHE_DIR": str(shared / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "none",
    }

    with contextlib.ExitStack() as stack:

        def start(workdir, *overrides, env=None, prefix=()) -> subprocess.Popen:
            data = ["--data.source", shared / "text.txt", "--data.cache", shared / "data"]
            command = [*prefix, sys.executable, "-m", "launch.pretrain", *OPTIONS, *data]
            process = subprocess.Popen(
                [*map(str, command), "--workdir", str(workdir), *map(str, overrides)],
                cwd=ROOT,
                env=environment | (env or {}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


@pytest.fixture(scope="session")
def reference(pretrain, shared):
    """The workdir of a run that nothing interrupted, with all its checkpoints."""
    workdir = shared / "reference"
    ended = end(pretrain(workdir, "--train.keep-last", 100))
    assert ended.code == 0, ended.err
    return workdir


@pytest.fixture
def unfinished(reference, tmp_path):
    """Makes a workdir with the reference as it was after some step."""

    def at(step: int) -> Path:
        workdir = tmp_path / f"at-{step}"
        shutil.copytree(reference, workdir)
        for checkpoint in (workdir / "checkpoints").iterdir():
            if int(checkpoint.name) > step:
                shutil.rmtree(checkpoint)
        records = [r for r in read_metrics(workdir / "metrics.jsonl") if r["step"] <= step]
        write_metrics(workdir, records)
        return workdir

    return at


def end(process, timeout=300) -> Ended:
    out, err = process.communicate(timeout=timeout)
    return Ended(process.returncode, out, err)


def write_metrics(workdir, records):
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))


def freeze(process, moment: Callable[[], bool]) -> None:
    """Holds a process in a moment: what was true when it was seen is true when this returns."""
    while True:
        if process.poll() is not None:
            pytest.fail(f"it ended before the moment came: {end(process)}")
        if moment():
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            if process.poll() is None and moment():
                return
            process.send_signal(signal.SIGCONT)
        time.sleep(0.001)


def stop(process, signum=signal.SIGTERM) -> tuple[Ended, float]:
    """Asks a frozen process to stop; how it ended, and the seconds that it took."""
    process.send_signal(signum)
    process.send_signal(signal.SIGCONT)
    begin = time.monotonic()
    ended = end(process)
    return ended, time.monotonic() - begin


def trained(workdir) -> int:
    """The last step whose loss is recorded."""
    return max((r["step"] for r in read_metrics(workdir / "metrics.jsonl")), default=0)


def saving(workdir) -> bool:
    return any((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"))


def evaluating(workdir) -> bool:
    """Whether the last record is a loss after which an evaluation is due."""
    records = read_metrics(workdir / "metrics.jsonl")
    return bool(records) and records[-1]["step"] % 20 == 0 and "nats" in records[-1]


def inode(path) -> int | None:
    return path.stat().st_ino if path.exists() else None


def losses(workdir) -> list[tuple]:
    """(step, training loss, held-out loss) of every record, in the order they were written."""
    records = read_metrics(workdir / "metrics.jsonl")
    return [(r["step"], r.get("nats"), r.get("held_out_nats")) for r in records]


def final(workdir):
    """Step, next row of the data, and parameters of the newest checkpoint."""
    newest = latest_step(workdir / "checkpoints")
    assert damage(newest) is None
    progress = json.loads((newest / "progress" / "metadata").read_text())
    return int(newest.name), progress["row"], restore_params(newest)


def assert_same_run(workdir, reference):
    """Every record once and bit-equal; the same rows read; the same parameters."""
    assert losses(workdir) == losses(reference)
    (step, row, params), (step_ref, row_ref, params_ref) = final(workdir), final(reference)
    assert (step, row) == (step_ref, row_ref)
    assert row == step * ROWS
    jax.tree.map(np.testing.assert_array_equal, params, params_ref)


def assert_one_error(ended: Ended, *words):
    assert ended.code == 1, ended
    assert len(ended.errors) == 1, ended.err
    assert "Traceback" not in ended.err
    for word in words:
        assert str(word) in ended.errors[0]


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_at_any_moment(kills, pretrain, reference, tmp_path):
    rng, workdir, options = random.Random(kills), tmp_path / "killed", ()
    if kills > 2:  # enough steps that it cannot end first, however far it gets between kills
        options = ("--train.steps", 3 * kills * SAVE_EVERY)
        reference = tmp_path / "reference"
        assert end(pretrain(reference, *options)).code == 0
    for n in range(kills):
        before = inode(workdir / "metrics.jsonl")
        process = pretrain(workdir, *options)
        if n % 5 == 4:  # while it starts or goes on to the next save: by the clock
            moment = time.monotonic() + rng.uniform(0, 4)
            freeze(process, lambda moment=moment: time.monotonic() > moment)
        else:
            # A new metrics.jsonl tells that training is under way: what the run before left
            # unfinished is gone.
            freeze(process, lambda before=before: inode(workdir / "metrics.jsonl") != before)
            process.send_signal(signal.SIGCONT)
            if n % 2 == 0:
                freeze(process, lambda: saving(workdir))
            else:
                step = trained(workdir) + rng.randint(1, 2 * SAVE_EVERY)
                freeze(process, lambda step=step: trained(workdir) >= step)
        process.kill()
        assert end(process).code == -signal.SIGKILL
        assert n % 5 == 4 or n % 2 or saving(workdir)
    assert end(pretrain(workdir, *options)).code == 0
    assert not saving(workdir)
    assert_same_run(workdir, reference)


def test_sigterm_in_every_phase(pretrain, reference, tmp_path):
    # One run that is stopped five times. XLA dumps a program when it begins to compile it, which
    # takes it a second or more without the cache.
    workdir, dump = tmp_path / "stopped", tmp_path / "dump"
    uncached = {
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "XLA_FLAGS": f"{QUICK_COMPILE} --xla_dump_to={dump}",
    }
    phases = {
        "start": lambda: (workdir / "metrics.jsonl").exists(),
        "compile": lambda: any(dump.glob("*train_step*")),
        "step": lambda: trained(workdir) >= 3,
        "save": lambda: trained(workdir) > 3 and saving(workdir),
        "evaluation": lambda: evaluating(workdir) and any(dump.glob("*eval_step*")),
    }
    for phase, moment in phases.items():
        process = pretrain(workdir, env=uncached if phase in ("compile", "evaluation") else None)
        freeze(process, moment)
        frozen_at = trained(workdir)
        ended, seconds = stop(process)
        print(f"SIGTERM during {phase}, step {frozen_at}: {seconds:.1f} s")
        assert ended.code == 128 + signal.SIGTERM, ended
        assert seconds < SECONDS_TO_STOP
        assert "Traceback" not in ended.err
        newest = latest_step(workdir / "checkpoints")
        assert damage(newest) is None
        assert int(newest.name) == trained(workdir)
        assert f"saving step {newest.name}\n" in ended.out
        if phase in ("start", "compile", "evaluation"):  # left at once
            assert trained(workdir) == frozen_at
    assert evaluating(workdir)  # that measurement is still owed
    assert end(pretrain(workdir)).code == 0
    assert_same_run(workdir, reference)


def test_sigint(pretrain, unfinished):
    # A save that falls between two records.
    workdir, options = unfinished(20), ("--train.log-every", 7)
    process = pretrain(workdir, *options)
    freeze(process, lambda: saving(workdir))
    ended, seconds = stop(process, signal.SIGINT)
    assert ended.code == 128 + signal.SIGINT, ended
    assert seconds < SECONDS_TO_STOP
    assert "Traceback" not in ended.err
    assert damage(latest_step(workdir / "checkpoints")) is None
    assert end(pretrain(workdir, *options)).code == 0
    assert final(workdir)[:2] == (STEPS, STEPS * ROWS)
    tokens = {
        r["step"]: r["tokens"] for r in read_metrics(workdir / "metrics.jsonl") if "tokens" in r
    }
    assert {21, 28, 35, 40} <= tokens.keys()
    assert all(n == step * ROWS * LENGTH for step, n in tokens.items())


def test_damaged_checkpoints_are_refused(pretrain, reference, unfinished):
    workdir = unfinished(20)
    checkpoints = workdir / "checkpoints"
    flipped, truncated, unsigned, whole = (checkpoints / s for s in ("20", "15", "10", "5"))
    flipped_file = largest_file(flipped / "params")
    content = bytearray(flipped_file.read_bytes())
    content[len(content) // 2] ^= 1
    flipped_file.write_bytes(content)
    truncated_file = largest_file(truncated / "optimizer")
    os.truncate(truncated_file, truncated_file.stat().st_size - 1)
    (unsigned / MANIFEST).unlink()

    ended = end(pretrain(workdir, "--train.keep-last", 100))
    assert ended.code == 0, ended
    refusals = [line for line in ended.err.splitlines() if "is refused" in line]
    assert len(refusals) == 3
    for line, step, name in zip(
        refusals,
        (20, 15, 10),
        (flipped_file.relative_to(flipped), truncated_file.relative_to(truncated), MANIFEST),
        strict=True,
    ):
        assert f"checkpoint {step} is refused" in line and str(name) in line
    assert f"continuing from checkpoint {whole.name}" in ended.out
    assert_same_run(workdir, reference)


def test_only_damaged_checkpoints(pretrain, unfinished):
    workdir = unfinished(5)
    (workdir / "checkpoints" / "5" / MANIFEST).unlink()
    before = losses(workdir)
    for _ in range(2):  # the second time it is already set aside
        ended = end(pretrain(workdir))
        assert_one_error(ended, "Every checkpoint", workdir / "checkpoints", "refused-*")
        assert losses(workdir) == before


def test_files_that_changed(pretrain, shared, unfinished, tmp_path):
    workdir, text = unfinished(5), tmp_path / "text.txt"
    config = json.loads((workdir / "config.json").read_text())
    config["data"]["source"] = [str(text)]
    (workdir / "config.json").write_text(json.dumps(config))
    documents = (shared / "text.txt").read_text().split("\n\n")
    text.write_text("\n\n".join(documents[1:] + documents[:1]))
    ended = end(pretrain(workdir, "--data.source", text))
    assert_one_error(ended, "The data has changed since checkpoint 5", "another --workdir")
    assert trained(workdir) == 5


def test_two_runs_in_one_workdir(pretrain, tmp_path):
    workdir = tmp_path / "both"
    first = pretrain(workdir)
    freeze(first, lambda: (workdir / "config.json").exists())
    assert_one_error(end(pretrain(workdir)), f"Another run is under way in {workdir}")


def test_profile_and_best_of_a_continued_run_that_is_stopped(pretrain, unfinished):
    workdir = unfinished(20)
    options = ("--train.eval-every", 4, "--train.save-every", 100, "--train.keep-last", 100)
    process = pretrain(workdir, "--profile", *options)
    freeze(process, lambda: trained(workdir) >= 32)
    ended, _ = stop(process)
    assert ended.code == 128 + signal.SIGTERM, ended
    assert any((workdir / "profile").rglob("*.xplane.pb"))
    # What an evaluation finds the best so far is saved at once.
    best = math.inf
    for step, _, held_out in losses(workdir):
        if held_out and held_out < best:
            best = held_out
            progress = workdir / "checkpoints" / str(step) / "progress" / "metadata"
            assert json.loads(progress.read_text())["held_out_nats"] == held_out
    assert best < math.inf


def largest_file(directory) -> Path:
    return max((p for p in directory.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def test_file_that_cannot_be_written(pretrain, reference, unfinished):
    # Like a full disk, in any container: no file may grow as large as a checkpoint's largest.
    workdir = unfinished(20)
    limit = 1 << 14
    assert largest_file(workdir / "checkpoints" / "20").stat().st_size > limit
    process = pretrain(workdir)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    ended = end(process)
    assert_one_error(ended, workdir / "checkpoints", "File too large", "Checkpoint 20 is intact")
    assert latest_step(workdir / "checkpoints").name == "20"
    assert damage(workdir / "checkpoints" / "20") is None
    assert end(pretrain(workdir)).code == 0
    assert_same_run(workdir, reference)


@pytest.mark.slow
def test_full_disk(pretrain, reference, unfinished):
    workdir = unfinished(20)
    disk = workdir / "checkpoints"
    size = sum(p.stat().st_size for p in (disk / "20").rglob("*"))
    # The namespace, and the disk with it, ends with the shell in it: it keeps a copy of what is
    # there.
    script = f"""
        cp -r {disk} {disk}.kept && mount -t tmpfs -o size={2 * size} tmpfs {disk} &&
        cp -r {disk}.kept/20 {disk} && rm -r {disk}.kept && "$@"
        code=$?; cp -r {disk} {disk}.kept; exit $code
    """
    namespace = ("unshare", "--user", "--map-root-user", "--mount")
    if not shutil.which("unshare") or subprocess.run([*namespace, "true"]).returncode:
        pytest.skip("a disk can be mounted only by root or in a user namespace")
    ended = end(pretrain(workdir, prefix=(*namespace, "sh", "-c", script, "sh")))
    shutil.rmtree(disk)
    disk.with_name("checkpoints.kept").rename(disk)
    assert_one_error(ended, disk, "Checkpoint 20 is intact")
    assert damage(disk / "20") is None
    assert end(pretrain(workdir)).code == 0
    assert_same_run(workdir, reference)


def test_other_mesh(pretrain, reference, unfinished, tmp_path):
    workdir = unfinished(10)
    ended = end(pretrain(workdir, "--mesh", 8))
    assert ended.code == 0, ended
    assert "continuing from checkpoint 10" in ended.out
    ours, theirs = (
        [(step, nats) for step, nats, _ in losses(w) if nats and 10 < step <= 20]
        for w in (workdir, reference)
    )
    assert len(ours) == 10
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)

    # And its weights are read where there are fewer devices than it was saved on.
    new = tmp_path / "new"
    ended = end(pretrain(new, "--init", workdir))
    assert ended.code == 0, ended
    assert losses(new)[0][1] < losses(reference)[19][1]

    # Once the run is under way, they are not read again.
    shutil.rmtree(workdir / "checkpoints")
    ended = end(pretrain(new, "--init", workdir))
    assert ended.code == 0, ended


def test_no_resume_over_a_run(pretrain, unfinished):
    workdir = unfinished(5)
    ended = end(pretrain(workdir, "--no-resume"))
    assert_one_error(ended, f"{workdir} holds a run")


def test_resume_with_another_width(pretrain, unfinished):
    ended = end(pretrain(unfinished(5), "--model.d-model", 32))
    assert_one_error(ended, "model.d_model: 16 -> 32")


def test_workdir_that_cannot_be_made(pretrain, tmp_path):
    file = tmp_path / "file"
    file.touch()  # root may write anywhere but below a file
    assert_one_error(end(pretrain(file / "workdir")), f"{file / 'workdir'} cannot be written")


def test_checkpoint_of_another_model(pretrain, unfinished):
    workdir = unfinished(5)
    config = json.loads((workdir / "config.json").read_text())
    config["model"]["d_model"] = 32
    (workdir / "config.json").write_text(json.dumps(config))
    ended = end(pretrain(workdir, "--model.d-model", 32))
    assert_one_error(ended, workdir, "Checkpoint 5", "embedding: (400, 16) -> (400, 32)")
    assert damage(workdir / "checkpoints" / "5") is None


def test_initial_weights_of_another_model(pretrain, reference, tmp_path):
    workdir = tmp_path / "new"
    ended = end(pretrain(workdir, "--init", reference, "--model.d-model", 32))
    assert_one_error(ended, reference, "model.d_model: 16 -> 32")
    assert not workdir.exists()


def test_diverging_run(pretrain, reference, unfinished):
    workdir = unfinished(20)
    ended = end(pretrain(workdir, "--optimizer.learning-rate", 1e30, "--train.max-bad-steps", 7))
    assert_one_error(ended, "not finite for 7 steps in a row", "learning-rate")
    for line in (workdir / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)
    skipped = [r["skipped"] for r in read_metrics(workdir / "metrics.jsonl") if "skipped" in r]
    assert skipped == [1, 2, 3, 4, 5, 6]  # the seventh is the error
    # Step 25 was due to be saved among the skipped ones, over what is still good.
    assert latest_step(workdir / "checkpoints").name == "20"
    assert damage(workdir / "checkpoints" / "20") is None
    assert end(pretrain(workdir)).code == 0
    assert_same_run(workdir, reference)


def test_divergence_while_saving(pretrain, unfinished):
    # Step 21 blows the weights up and is being saved when step 22 finds out.
    workdir = unfinished(20)
    options = ("--train.max-bad-steps", 1, "--train.save-every", 1)
    ended = end(pretrain(workdir, "--optimizer.learning-rate", 1e30, *options))
    assert_one_error(ended, "not finite for 1 steps in a row, up to step 22")
    assert not saving(workdir)
    assert latest_step(workdir / "checkpoints").name == "21"
    assert damage(workdir / "checkpoints" / "21") is None

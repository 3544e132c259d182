"""Checkpoints of a run: saved in the background, proved by digests, never half there.

A run's workdir holds config.json, tokenizer.model and checkpoints/STEP/. A checkpoint is one Orbax
step with the items `params`, `optimizer` and `progress` (JSON: the next row of the data, and what
was measured), and manifest.json: the SHA-256 of every file. Orbax gives a step its final name only
when all of it is written, the manifest included.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from hybriko_jax.errors import UserError
from hybriko_jax.training.processes import is_main, on_main_process
from hybriko_jax.training.state import TrainState

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
# Orbax writes the time of the commit into these after the manifest is written.
_UNSIGNED = ("_CHECKPOINT_METADATA", "commit_success.txt")


class Checkpoints:
    """The checkpoints of one run.

    Args:
      directory: made if it is not there.
      keep_last: how many of the newest to keep, besides the best one by held-out loss.
    """

    def __init__(self, directory: Path, keep_last: int = 2):
        self.directory = Path(directory).absolute()
        _silence_repeated_errors()
        policies = checkpoint_managers
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                cleanup_tmp_directories=True,
                preservation_policy=policies.AnyPreservationPolicy(
                    [
                        policies.LatestN(keep_last),
                        policies.BestN(
                            get_metric_fn=lambda m: -m["held_out_nats"],
                            n=1,
                            keep_checkpoints_without_metrics=False,
                        ),
                    ]
                ),
                async_options=ocp.AsyncOptions(post_finalization_callback=self._sign),
            ),
        )

    def save(self, state: TrainState, progress: dict[str, Any]) -> None:
        """Starts to save a state; returns when the arrays are copied, before they are written.

        Args:
          progress: JSON data; `held_out_nats` in it, if there, decides which checkpoint is best.

        Raises:
          UserError: this or the save before it cannot be written.
        """
        step = int(state.step)
        self.wait()
        if step in self._manager.all_steps():
            return
        on_main_process(lambda: self._need_space(state))
        metrics = {k: v for k, v in progress.items() if k == "held_out_nats"} or None
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    params=ocp.args.StandardSave(state.params),
                    optimizer=ocp.args.StandardSave(_rest(state)),
                    progress=ocp.args.JsonSave(progress),
                ),
                metrics=metrics,
            )
        except Exception as e:
            raise self._not_saved(e) from e

    def wait(self) -> None:
        """Returns when the last save is whole.

        Raises:
          UserError: it could not be written.
        """
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except Exception as e:
            raise self._not_saved(e) from e

    def close(self) -> None:
        self.wait()
        self._manager.close()

    def restore(self, abstract: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """The newest checkpoint that is whole, or None where there is none.

        One that its manifest does not vouch for is moved aside as refused-STEP, and the one
        before it is taken.

        Args:
          abstract: shapes and shardings to restore to; the mesh may differ from the saved one.

        Raises:
          UserError: none of the checkpoints is whole, or the one taken is of another model.
        """
        step = on_main_process(self._newest_whole)
        self._manager.reload()
        if step is None:
            return None
        self._need_same_model(step, abstract)
        items = self._manager.restore(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardRestore(abstract.params),
                optimizer=ocp.args.StandardRestore(_rest(abstract)),
                progress=ocp.args.JsonRestore(),
            ),
        )
        return TrainState(params=items["params"], **items["optimizer"]), items["progress"]

    def _newest_whole(self) -> int | None:
        while newest := latest_step(self.directory):
            if not (fault := damage(newest)):
                return int(newest.name)
            log.warning("checkpoint %s is refused: %s", newest.name, fault)
            aside = newest.with_name(f"refused-{newest.name}")
            shutil.rmtree(aside, ignore_errors=True)
            newest.rename(aside)
        if any(self.directory.glob("refused-*")):
            raise UserError(
                f"Every checkpoint in {self.directory} is damaged: they are the folders refused-*."
                " Put a good copy of one back as a folder named by its step, give another "
                "--workdir, or remove the folders to begin at step 0."
            )
        return None

    def _need_same_model(self, step: int, abstract: TrainState) -> None:
        directory: Any = self.directory / str(step) / "params"
        saved = ocp.StandardCheckpointHandler().metadata(directory)
        if fault := shape_difference(saved, abstract.params):
            raise UserError(
                f"Checkpoint {step} in {self.directory} is of another model: {fault}. Give the "
                "model's own config, or another --workdir."
            )

    def _sign(self) -> None:
        # Orbax calls this when all is written and before the directory gets its final name.
        if is_main():
            for directory in self.directory.glob("*.orbax-checkpoint-tmp*"):
                (directory / MANIFEST).write_text(json.dumps(_digests(directory), indent=1))

    def _need_space(self, state: TrainState) -> None:
        leaves = jax.tree.leaves(state)
        need = sum(a.nbytes for a in leaves if isinstance(a, jax.Array))
        free = shutil.disk_usage(self.directory).free
        if free < need * 1.05:
            raise UserError(
                f"A checkpoint needs {need / 1e9:.3g} GB, but {self.directory} has "
                f"{free / 1e9:.3g} GB free. Make room and run the same command again: it goes on "
                "from the last checkpoint."
            )

    def _not_saved(self, error: Exception) -> UserError:
        # The cause comes last: TensorStore puts the path of every layer of its own before it.
        reason = ": ".join((str(error).strip() or repr(error)).splitlines()[0].split(": ")[-2:])
        newest = latest_step(self.directory)
        last = f"Checkpoint {newest.name} is intact" if newest else "There is no checkpoint yet"
        return UserError(
            f"A checkpoint could not be written to {self.directory}: {reason}. {last}; run the "
            "same command again when the cause (often a full disk) is mended."
        )


def damage(directory: Path) -> str | None:
    """What is wrong with a checkpoint, or None if every file is as it was saved."""
    try:
        expected = json.loads((directory / MANIFEST).read_text())
    except (OSError, ValueError):
        return f"it has no readable {MANIFEST}"
    actual = _digests(directory)
    for name in sorted(expected.keys() | actual.keys()):
        if expected.get(name) != actual.get(name):
            fault = "is missing" if name not in actual else "is not what was saved"
            return f"{name} {fault}"
    return None


def restore_params(directory: Path) -> Any:
    """Only the parameters of a checkpoint, as NumPy arrays.

    Args:
      directory: checkpoints/STEP of a run.

    Raises:
      UserError: the checkpoint is damaged.
    """
    if fault := damage(directory):
        raise UserError(f"{directory} is refused: {fault}. Give another checkpoint.")
    path: Any = (directory / "params").absolute()
    # Without a target, Orbax wants the devices that the checkpoint was saved on.
    saved = ocp.StandardCheckpointHandler().metadata(path)
    target = jax.tree.map(lambda a: np.empty(a.shape, a.dtype), saved)
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(path, target)


def shape_difference(old: Any, new: Any) -> str | None:
    """'layer.kernel: (8, 8) -> (8, 16)' for the first array that differs, or None."""
    old_shapes, new_shapes = _shapes(old), _shapes(new)
    for name in sorted(old_shapes.keys() | new_shapes.keys()):
        a, b = old_shapes.get(name, "absent"), new_shapes.get(name, "absent")
        if a != b:
            return f"{name}: {a} -> {b}"
    return None


def latest_step(directory: Path) -> Path | None:
    """checkpoints/STEP with the highest step, or None."""
    steps = [p for p in Path(directory).glob("*") if p.name.isdigit()]
    return max(steps, key=lambda p: int(p.name), default=None)


def _rest(state: TrainState) -> dict[str, Any]:
    return {name: getattr(state, name) for name in state.__dataclass_fields__ if name != "params"}


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): tuple(a.shape) for path, a in leaves
    }


@functools.cache
def _silence_repeated_errors() -> None:
    # What Orbax cannot write it raises, and that error is shown. It also prints a traceback in
    # every thread that the error passes, and one for every array that was under way.
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_without_traceback)
    sys.unraisablehook = functools.partial(_unraisable, sys.unraisablehook)


def _without_traceback(record: logging.LogRecord) -> bool:
    return not record.exc_info


def _unraisable(otherwise: Callable[[Any], Any], unraisable: Any) -> None:
    if str(unraisable.exc_value) != "Event loop is closed":
        otherwise(unraisable)


def _digests(directory: Path) -> dict[str, str]:
    return {
        str(p.relative_to(directory)): _sha256(p)
        for p in sorted(directory.rglob("*"))
        if p.is_file() and p.name != MANIFEST and p.name not in _UNSIGNED
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()

"""What a run measures, for the eye and for the record.

A workdir gets metrics.jsonl (one JSON object a line), tensorboard/ and loss.png.
"""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hybriko_jax.files import write_file
from hybriko_jax.training.processes import is_main, on_main_process


class Metrics:
    """Writes records, and shows progress: a bar on a terminal, plain lines elsewhere.

    Only process 0 does so; the others have its records.

    Args:
      workdir: where the files go.
      steps: of the whole run.
      first_step: records of this step and later ones, left by a run that was killed after its
        last checkpoint, are dropped: the run will measure them again.
    """

    def __init__(self, workdir: Path, steps: int, first_step: int):
        path = workdir / "metrics.jsonl"
        self._plot_path = workdir / "loss.png"
        self.records: list[dict[str, Any]] = on_main_process(
            lambda: [r for r in read_metrics(path) if r["step"] <= first_step]
        )
        self._enabled = is_main()
        self._steps = steps
        self._started, self._first_step = time.monotonic(), first_step
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not (self._enabled and sys.stderr.isatty()),
        )
        self._task = self._bar.add_task("step", total=steps, completed=first_step)
        if not self._enabled:
            return
        write_file(path, "".join(json.dumps(r) + "\n" for r in self.records))
        self._file = path.open("a")
        self._board = _summary_writer()(str(workdir / "tensorboard"), purge_step=first_step + 1)
        self._bar.start()

    def write(self, step: int, **values: float) -> None:
        """One record: values measured after so many steps.

        Those that are not finite are left out: JSON has no word for them.
        """
        values = {name: value for name, value in values.items() if math.isfinite(value)}
        record: dict[str, Any] = {"step": step, **values}
        self.records.append(record)
        if not self._enabled:
            return
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        line = "  ".join(f"{k} {_short(v)}" for k, v in record.items())
        if self._bar.disable:
            print(f"{line}  left {self._time_left(step)}", flush=True)
        else:
            self._bar.console.print(line, highlight=False)
        self._bar.update(self._task, completed=step)

    def say(self, text: str) -> None:
        """A line for the eye only."""
        if not self._enabled:
            return
        if self._bar.disable:
            print(text, flush=True)
        else:
            self._bar.console.print(text, highlight=False)

    def plot(self) -> None:
        """Draws loss.png anew."""
        if self._enabled:
            plot_losses(self.records, self._plot_path)

    def close(self) -> None:
        if not self._enabled:
            return
        self._bar.stop()
        self._file.close()
        self._board.close()

    def _time_left(self, step: int) -> str:
        done = step - self._first_step
        seconds = (time.monotonic() - self._started) / max(done, 1) * (self._steps - step)
        return f"{int(seconds // 3600)}:{int(seconds % 3600 // 60):02}:{int(seconds % 60):02}"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl; a last line that was cut off is left out."""
    records = []
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return records


def plot_losses(records: list[dict[str, Any]], path: Path) -> None:
    """Training and held-out loss (nats per token) and learning rate over steps, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    rate_axes = axes.twinx()
    style: dict[str, Any]
    for name, label, style in (
        ("nats", "training", {"color": "tab:blue", "alpha": 0.7}),
        ("held_out_nats", "held out", {"color": "tab:orange", "marker": "."}),
    ):
        points = [(r["step"], r[name]) for r in records if name in r]
        axes.plot(*(zip(*points, strict=True) if points else ((), ())), label=label, **style)
    rates = [(r["step"], r["learning_rate"]) for r in records if "learning_rate" in r]
    rate_axes.plot(
        *(zip(*rates, strict=True) if rates else ((), ())),
        color="tab:gray",
        linestyle=":",
        label="learning rate",
    )
    axes.set(xlabel="step", ylabel="nats per token")
    rate_axes.set(ylabel="learning rate", ylim=(0, None))
    handles = axes.get_legend_handles_labels(), rate_axes.get_legend_handles_labels()
    axes.legend(handles[0][0] + handles[1][0], handles[0][1] + handles[1][1], loc="upper right")
    axes.grid(alpha=0.3)
    FigureCanvasAgg(figure).print_png(str(path))


def _summary_writer() -> Any:
    """tensorboardX's SummaryWriter, without PyTorch.

    tensorboardX imports it where it is installed: a second and 180 MB, for nothing.
    """
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        from tensorboardX import SummaryWriter
    finally:
        if hidden:
            del sys.modules["torch"]
    return SummaryWriter


def _short(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3e}" if value and abs(value) < 1e-2 else f"{value:.4g}"

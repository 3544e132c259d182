"""How many samples does function calling need? python -m launch.experiment.

The published models got 4 % of the actions right after 250 samples, and 100 % after 5,000. This
tunes one base on samples of several numbers, each for the same number of optimizer steps and with
several seeds, and evaluates all of them on the same held-out requests. The same command goes on
where it was stopped.
"""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hybriko_jax.errors import UserError
from hybriko_jax.files import write_file
from launch import common

BEGIN, END = "<!-- experiment -->", "<!-- end of experiment -->"
WAYS = ("grounded", "not grounded")
HELD_OUT_SEED = 1


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Tune on few and on many samples, and draw what that gives."""

    workdir: Path = Path("runs/experiment")
    """Where samples, runs, experiment.json, experiment.md and experiment.svg go."""
    base: Path = Path("checkpoints/hybriko-mini")
    """The model that all are tuned from."""
    config: str = "hybriko_sft"
    """How they are tuned: a name in configs/."""
    sizes: tuple[int, ...] = (250, 1000, 5000, 20000)
    """Samples to tune on; of one seed, the smaller sets are parts of the larger ones."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the samples and of their order, one run each."""
    steps: int = 250
    """Optimizer steps of every run."""
    held_out: int = 300
    """Requests to evaluate on, of phrasings and values that no sample uses."""
    page: Path | None = None
    """Also put the table and the plot into this Markdown file, between its two marks."""

    def __post_init__(self):
        for name in ("sizes", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values) or min(values) < 0:
                raise UserError(
                    f"--{name} {' '.join(map(str, values))}: give different numbers, 0 or more."
                )
        for name, value in (("sizes", min(self.sizes)), ("steps", self.steps)):
            if value < 2:
                raise UserError(f"--{name} {value} must be 2 or more.")
        if self.held_out < 1:
            raise UserError(f"--held-out {self.held_out} must be 1 or more.")
        if self.page and not (self.page.is_file() and has_marks(self.page.read_text())):
            raise UserError(
                f"--page {self.page} must be a Markdown file with one line {BEGIN} and, after it, "
                f"one {END}. Add them, or leave it out."
            )


def has_marks(text: str) -> bool:
    """Whether a page has one beginning and, after it, one end."""
    once = text.count(BEGIN) == text.count(END) == 1
    return once and text.index(BEGIN) < text.index(END)


@dataclass(frozen=True)
class Result:
    """What one run reached on the held-out requests."""

    samples: int
    seed: int
    loss: float
    """Nats per token of the right answers."""
    action: dict[str, float]
    """Share of right actions, by way of decoding."""
    call: dict[str, float]
    """Share of right actions with right arguments."""


def main() -> None:
    common.end_in_order()
    arguments = common.parse(Arguments, command="launch.experiment")
    common.load_config(arguments.config)
    common.make_directory(arguments.workdir)
    common.lock(arguments.workdir)
    keep_settings(arguments)
    results = [
        result_of(arguments, samples, seed)
        for seed, samples in itertools.product(arguments.seeds, arguments.sizes)
    ]
    rows = [asdict(r) for r in results]
    table = table_of(results)
    write_file(arguments.workdir / "experiment.json", json.dumps(rows, indent=2) + "\n")
    write_file(arguments.workdir / "experiment.md", table)
    drawn = arguments.workdir / "experiment.svg"
    draw(results, drawn)
    if arguments.page:
        plot = arguments.page.with_name(drawn.name)
        write_file(plot, drawn.read_bytes())
        image = f"\n![Accuracy and evaluation loss over the number of samples]({plot.name})\n"
        text = arguments.page.read_text()
        before, after = text.partition(BEGIN)[0], text.partition(END)[2]
        write_file(arguments.page, f"{before}{BEGIN}\n{table}{image}{END}{after}")
    print(table)


def keep_settings(arguments: Arguments) -> None:
    """Writes down what all runs of a workdir share.

    Raises:
      UserError: the workdir holds runs of other settings.
    """
    path = arguments.workdir / "settings.json"
    shared = {
        "base": str(arguments.base.resolve()),
        "config": arguments.config,
        "steps": arguments.steps,
        "held_out": arguments.held_out,
    }
    if not path.exists():
        write_file(path, json.dumps(shared, indent=2) + "\n")
    for name, value in json.loads(path.read_text()).items():
        if value != shared[name]:
            raise UserError(
                f"--{name.replace('_', '-')} {shared[name]}: the runs in {arguments.workdir} have "
                f"{value}, and would not compare. Give that, or another --workdir."
            )


def result_of(arguments: Arguments, samples: int, seed: int) -> Result:
    """Tunes and evaluates one model, where that was not done before."""
    workdir = arguments.workdir
    run, report = workdir / f"{samples}-{seed}", workdir / f"{samples}-{seed}.json"
    tuned_on, held_out = workdir / f"{samples}-{seed}.jsonl", workdir / "held_out.jsonl"
    make_samples(held_out, arguments.held_out, HELD_OUT_SEED, "--held-out")
    make_samples(tuned_on, samples, seed)
    if not report.exists():
        common.say(f"{samples:,} samples, seed {seed}")
        # fmt: off
        call("launch.sft", "--config", arguments.config, "--base", arguments.base,
             "--samples", tuned_on, "--held-out", held_out, "--text-share", 0,
             "--train.steps", arguments.steps, "--train.eval-every", arguments.steps,
             "--train.save-every", arguments.steps, "--train.seed", seed, "--workdir", run)
        call("launch.evaluate", "function-calling", "--checkpoint", run,
             "--data", held_out, "--json", report)
        # fmt: on
    figures = json.loads(report.read_text())
    scores = figures["scores"]["all"]

    def rates(name: str) -> dict[str, float]:
        return {way: scores[way][name][0] for way in WAYS}

    return Result(
        samples, seed, figures["loss"], rates("action accuracy"), rates("full-call accuracy")
    )


def make_samples(path: Path, n: int, seed: int, *options: str) -> None:
    """Synthesizes samples into a file that is not there."""
    if not path.exists():
        call("launch.synthesize", "--n", n, "--seed", seed, "--out", path, *options)


def call(command: str, *options: object) -> None:
    """Runs a command of launch/, and ends where it fails or is stopped.

    Raises:
      UserError: it failed; it has said why.
    """
    line = [sys.executable, "-m", command, *map(str, options)]
    with subprocess.Popen(line) as process:
        try:
            status = process.wait()
        except BaseException:
            process.terminate()  # a training saves what it has
            process.wait()
            raise
    if status:
        raise UserError(
            f"{command} ended with status {status}, see above. Mend it, and run the same command "
            "again: it goes on from there."
        )


def table_of(results: Sequence[Result]) -> str:
    """A Markdown table: a row a number of samples, each figure as mean (lowest to highest)."""
    head = ["samples", "runs"]
    head += [f"right {what}, {way}" for what in ("action", "call") for way in WAYS]
    head += ["evaluation loss"]
    lines = [head, ["---:"] * len(head)]
    for samples, group in grouped(results):
        cells = [f"{samples:,}", str(len(group))]
        for name in ("action", "call"):
            for way in WAYS:
                cells.append(spread([100 * getattr(r, name)[way] for r in group], "{:.1f}", " %"))
        cells.append(spread([r.loss for r in group], "{:.3f}"))
        lines.append(cells)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def grouped(results: Sequence[Result]) -> list[tuple[int, list[Result]]]:
    """Results by number of samples, in order."""
    ordered = sorted(results, key=lambda r: r.samples)
    return [(n, list(group)) for n, group in itertools.groupby(ordered, lambda r: r.samples)]


def spread(values: Sequence[float], form: str, unit: str = "") -> str:
    """The mean, and where there are several, the lowest and the highest."""
    text = form.format(statistics.fmean(values)) + unit
    if len(values) == 1:
        return text
    return f"{text} ({form.format(min(values))} to {form.format(max(values))})"


def draw(results: Sequence[Result], path: Path) -> None:
    """Accuracy and loss over the number of samples, a point a run, as an SVG."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    groups = grouped(results)
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    accuracy, loss = figure.subplots(1, 2, width_ratios=(2, 1))

    def line(axes, label, values, **style):
        means = [statistics.fmean(values(r) for r in group) for _, group in groups]
        (drawn,) = axes.plot([n for n, _ in groups], means, label=label, **style)
        points = [(r.samples, values(r)) for r in results]
        axes.plot(*zip(*points, strict=True), ".", color=drawn.get_color(), alpha=0.6)

    for what, color in (("action", "tab:blue"), ("call", "tab:orange")):
        for way, style in zip(WAYS, ("-", "--"), strict=True):
            line(
                accuracy,
                f"right {what}, {way}",
                lambda r, what=what, way=way: 100 * getattr(r, what)[way],
                color=color,
                linestyle=style,
            )
    line(loss, "evaluation loss", lambda r: r.loss, color="tab:gray")
    accuracy.set(ylabel="% of held-out requests", ylim=(0, 100))
    accuracy.legend(loc="upper left", fontsize="small")
    loss.set(ylabel="evaluation loss, nats per token", ylim=(0, None))
    sizes = [n for n, _ in groups]
    for axes in (accuracy, loss):
        axes.set(xlabel="samples", xscale="log")
        axes.set_xticks(sizes, [f"{n:,}" for n in sizes])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    # Without a date and random names the same results are the same file.
    with matplotlib.rc_context({"svg.hashsalt": "experiment"}):
        FigureCanvasSVG(figure).print_svg(str(path), metadata={"Date": None})


if __name__ == "__main__":
    common.run(main)

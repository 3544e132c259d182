"""Make function-calling samples: python -m launch.synthesize --n 5000 --out fc.jsonl."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from hybriko_jax.errors import UserError
from hybriko_jax.files import write_file
from launch import common


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Make Korean requests with the calls that answer them, for tuning or evaluation."""

    out: Path
    """The JSONL file that is written."""
    n: int = 5000
    """How many samples."""
    seed: int = 0
    held_out: bool = False
    """Use the phrasings and the pools of values that training samples never use."""
    report: Path | None = None
    """Also write the report to this JSON file."""

    def __post_init__(self):
        if self.n < 1:
            raise UserError(f"--n {self.n} must be 1 or more.")


def main() -> None:
    arguments = common.parse(Arguments, command="launch.synthesize")

    from hybriko_jax.data.synthesize import report, synthesize

    common.make_directory(arguments.out.absolute().parent)
    samples = list(synthesize(arguments.n, arguments.seed, arguments.held_out))
    lines = "".join(json.dumps(s, ensure_ascii=False) + "\n" for s in samples)
    write_file(arguments.out, lines)
    facts = report(samples)
    for name, value in facts.items():
        if isinstance(value, dict):
            print(f"{name}:")
            for key, count in value.items():
                print(f"  {key:<20}{count:>8,}")
        else:
            print(f"{name:<22}{value:>8,}")
    print(f"written to {arguments.out}")
    if arguments.report:
        write_file(arguments.report, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    common.run(main)

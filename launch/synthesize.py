"""Make function-calling samples: python -m launch.synthesize --n 5000 --out fc.jsonl.

By default they are made of the phrasings that ship. With --provider a language model writes them:

    OPENAI_API_KEY=... python -m launch.synthesize --provider openai --model NAME --n 500 \\
        --out fc.jsonl [--base-url http://localhost:8000/v1]

The same command goes on where it was stopped.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hybriko_jax.errors import UserError
from hybriko_jax.files import write_file
from launch import common

if TYPE_CHECKING:
    from hybriko_jax.data.provider import Tally
    from hybriko_jax.data.provider_samples import Grounding

_KEY = "OPENAI_API_KEY"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Make Korean requests with the calls that answer them, for tuning or evaluation."""

    out: Path
    """The JSONL file that is written. With --provider, lines are added to it."""
    n: int = 5000
    """How many samples. With --provider, how many of a language model the file shall hold."""
    seed: int = 0
    held_out: bool = False
    """Use the phrasings and the pools of values that training samples never use."""
    report: Path | None = None
    """Also write the report to this JSON file."""
    provider: Literal["openai"] | None = None
    """Let a language model write them, behind an endpoint that speaks OpenAI's chat completions.
    The key is read from the environment variable OPENAI_API_KEY; a local server may need none."""
    base_url: str | None = None
    """The endpoint, as http://localhost:8000/v1. None is that of the environment variable
    OPENAI_BASE_URL, or else OpenAI's own."""
    model: str | None = None
    """The language model, as the endpoint calls it."""
    temperature: float | None = None
    """Of the language model. None is the endpoint's choice."""
    provider_parallel: int = 2
    """Requests at a time."""
    max_requests: int | None = None
    """Stop after so many requests, those that fail among them."""
    provider_tries: int = 6
    """Tries of one request, before the run gives up."""
    provider_backoff: float = 1.0
    """Seconds before the second try, doubled for each further one."""

    def __post_init__(self):
        for name in ("n", "provider_parallel", "max_requests", "provider_tries"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} {value} must be 1 or more.")
        if not self.provider_backoff >= 0:
            raise UserError(f"--provider-backoff {self.provider_backoff} must be 0 or more.")
        if not self.provider:
            for name in ("base_url", "model", "temperature", "max_requests"):
                if getattr(self, name) is not None:
                    raise UserError(
                        f"--{name.replace('_', '-')} is for a language model. Add --provider "
                        "openai, or leave it out."
                    )
            return
        if not self.model:
            raise UserError("--model is missing. Give the name of a model of the provider.")
        if self.held_out:
            raise UserError(
                "--held-out chooses phrasings that ship, which --provider does not use. Leave one "
                "of them out."
            )
        if self.base_url and not self.base_url.startswith(("http://", "https://")):
            raise UserError(
                f"--base-url {self.base_url} must begin with http:// or https://, as "
                "http://localhost:8000/v1."
            )


def main() -> None:
    arguments = common.parse(Arguments, command="launch.synthesize")
    common.make_directory(arguments.out.absolute().parent)
    facts = (from_provider if arguments.provider else from_phrasings)(arguments)
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


def from_phrasings(arguments: Arguments) -> dict[str, Any]:
    """Writes samples of the phrasings that ship."""
    from hybriko_jax.data.synthesize import report, synthesize

    check_no_provider(arguments.out)
    samples = list(synthesize(arguments.n, arguments.seed, arguments.held_out))
    lines = "".join(json.dumps(s, ensure_ascii=False) + "\n" for s in samples)
    write_file(arguments.out, lines)
    return report(samples)


def check_no_provider(out: Path) -> None:
    """Raises UserError where writing a file anew would lose a language model's work."""
    from hybriko_jax.data.provider_samples import SOURCE

    if out.is_file() and f'"source": "{SOURCE}"'.encode() in out.read_bytes():
        raise UserError(
            f"{out} holds samples of a language model, which would be lost. Give another --out."
        )


def from_provider(arguments: Arguments) -> dict[str, Any]:
    """Lets a language model write samples, and adds them to the file."""
    from hybriko_jax.data.conversations import read_samples
    from hybriko_jax.data.provider import Provider, collect, rejected_path
    from hybriko_jax.data.synthesize import report

    out, n = arguments.out, arguments.n
    assert arguments.model
    base_url = arguments.base_url or os.environ.get("OPENAI_BASE_URL")
    provider = Provider(
        model=arguments.model,
        base_url=base_url,
        key=key(base_url),
        temperature=arguments.temperature,
        parallel=arguments.provider_parallel,
        max_requests=arguments.max_requests,
        tries=arguments.provider_tries,
        backoff=arguments.provider_backoff,
    )
    try:
        with progress_line(n) as tell:
            tally = collect(provider, n, out, grounding(), tell, arguments.seed)
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on with what {out} holds", file=sys.stderr)
        raise
    # Lines of other hands may be among them.
    samples = [s for s in read_samples(out) if "phrasing" in s] if out.exists() else []
    if tally.kept < n:
        print(f"stopped after {tally.requests:,} requests (--max-requests); run it again to go on")
    if tally.rejected:
        print(f"rejected samples and answers: {rejected_path(out)}")
    return report(samples) | {
        "of language models": tally.kept,
        "new": tally.new,
        "rejected": dict(tally.rejected.most_common()),
        "requests": tally.requests,
        "prompt tokens": tally.prompt_tokens,
        "completion tokens": tally.completion_tokens,
    }


def key(base_url: str | None) -> str:
    """The key in the environment; "" where there is none and an endpoint may need none."""
    found = os.environ.get(_KEY, "").strip()
    if not found and not base_url:
        raise UserError(
            f"환경 변수 {_KEY}가 없습니다. OpenAI의 키를 넣거나, --base-url로 다른 서버를 "
            "알려 주세요."
        )
    if not (found.isascii() and found.isprintable()):
        raise UserError(f"환경 변수 {_KEY}에 키가 아닌 글자가 있습니다. 키를 다시 넣어 주세요.")
    return found


def grounding() -> Grounding:
    """What tells whether grounded decoding could write an answer."""
    import llguidance

    from hybriko_jax.decode.constrain import call_grammar
    from hybriko_jax.decode.spans import candidates
    from hybriko_jax.linux.tools import BY_NAME, FINISH
    from hybriko_jax.prompts import format_call

    tokenizer = llguidance.LLTokenizer("byte")  # what a grammar lets through, no tokenizer changes

    def fault(request: str, thought: str, action: str, arguments: Mapping[str, Any]) -> str | None:
        lark = call_grammar([BY_NAME[action], BY_NAME[FINISH]], candidates([request]))
        matcher = llguidance.LLMatcher(
            tokenizer, llguidance.LLMatcher.grammar_from_lark(lark), log_level=0
        )
        answer = format_call(thought, action, arguments).encode()
        tokens = [*tokenizer.tokenize_bytes(answer), tokenizer.eos_token]
        good = matcher.validate_tokens(tokens)
        if good == len(tokens):
            return None
        rest = answer[good:].decode(errors="ignore")
        return f"the request does not support the answer from {rest[:60]!r} on"

    return fault


@contextlib.contextmanager
def progress_line(n: int) -> Iterator[Callable[[Tally], None]]:
    """A bar on the terminal; elsewhere a line every tenth of the way, and one every wait."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("kept"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[t]}"),
    )
    # Not markup: what servers say may hold brackets.
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("", total=n, t="")
        tenth = -1

        def tell(tally: Tally) -> None:
            nonlocal tenth
            text = (
                f"rejected {tally.rejected.total():,}, requests {tally.requests:,}, tokens "
                f"{tally.prompt_tokens + tally.completion_tokens:,}"
            )
            text += f"; {tally.note}" if tally.note else ""
            bar.update(task, completed=tally.kept, t=text)
            if bar.disable and (tally.note or tally.kept * 10 // n > tenth):
                tenth = tally.kept * 10 // n
                print(f"kept {tally.kept:,} of {n:,}, {text}", flush=True)

        yield tell


if __name__ == "__main__":
    common.run(main)

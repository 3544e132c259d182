"""Look at what a model writes: python -m launch.generate --checkpoint C --prompt TEXT."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hybriko_jax.console import load
from hybriko_jax.errors import UserError
from hybriko_jax.tokenizer import Tokenizer
from launch import common


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Continue a text."""

    checkpoint: Path
    """A run's workdir, or a model's folder."""
    prompt: str = ""
    tokens: int = 100
    """How many to write at most."""
    temperature: float = 0.8
    """0 takes the likeliest token each time."""
    top_k: int = 0
    top_p: float = 0.95
    seed: int = 0

    def __post_init__(self):
        if self.tokens < 1 or self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise UserError(
                f"--tokens {self.tokens} must be positive, --temperature {self.temperature} and "
                f"--top-k {self.top_k} not negative, and --top-p {self.top_p} in (0, 1]."
            )


def main() -> None:
    if not common.accelerator():
        common.prepare_cpu(1)
    arguments = common.parse(Arguments, command="launch.generate")

    from hybriko_jax.decode.generate import generate
    from hybriko_jax.models import build

    loaded = load.checkpoint(arguments.checkpoint)
    tokenizer = loaded.tokenizer
    prompt = [*tokenizer.begin, *tokenizer.encode(arguments.prompt)] or [tokenizer.eos_id]
    tokens = generate(
        build(loaded.config),
        loaded.params,
        [prompt],
        arguments.tokens,
        stop=tokenizer.ends,
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        seed=arguments.seed,
    )
    for text in spelled(tokenizer, prompt, (int(token_B[0]) for token_B in tokens)):
        print(text, end="", flush=True)
    print()


def spelled(tokenizer: Tokenizer, prompt: list[int], tokens: Iterable[int]) -> Iterator[str]:
    """The text of a prompt, and then what each token adds to it, in whole characters."""
    ids, shown = list(prompt), tokenizer.decode(prompt)
    yield shown
    for token in tokens:
        ids.append(token)
        text = tokenizer.decode(ids)
        if not text.endswith("\ufffd"):  # a character whose bytes are not all there yet
            yield text[len(shown) :]
            shown = text


if __name__ == "__main__":
    common.run(main)

"""Tune a model on conversations: python -m launch.sft --base MODEL --samples FILE.jsonl."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from hybriko_jax.config import RunConfig
from hybriko_jax.console import load
from hybriko_jax.errors import UserError
from launch import common, start

if TYPE_CHECKING:
    from jax.sharding import Mesh

SETTINGS = "sft.json"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is learned, besides how."""

    samples: str
    """A JSONL file of samples, as launch.synthesize writes it."""
    held_out: str | None = None
    """Samples to evaluate on. None keeps every hundredth of --samples for it."""
    prompt: Literal["compact", "full"] = "compact"
    """The system prompt: one line, or the JSON schema of every tool."""
    text_share: float = 0.2
    """Share of ordinary text, from data.source, among all tokens: the model stays a language
    model."""

    def __post_init__(self):
        if not 0 <= self.text_share < 1:
            raise UserError(f"--text-share {self.text_share} must be 0 or more, and less than 1.")
        if self.prompt == "full" and self.text_share:
            raise UserError(
                "--prompt full is run once for all rows, so no text can be among them. Pass "
                "--text-share 0."
            )


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Tune a model on conversations; only the assistant's words and the text are learned."""

    base: Path
    """A run's workdir, or a model's folder, to start from."""
    config: str = "hybriko_sft"
    """A name in configs/."""
    mesh: str = "1"
    """Devices, as in launch.pretrain."""
    workdir: Path = Path("runs/sft")
    """Where everything is written. A run that it holds is continued."""
    settings: Annotated[Settings, tyro.conf.arg(name="")]
    run: Annotated[RunConfig, tyro.conf.arg(name="")] = field(default_factory=RunConfig)


def main() -> None:
    accelerator = start.devices()
    name = common.option("config") or "hybriko_sft"
    settings = Settings(samples=common.option("samples") or tyro.MISSING)
    base = Path(common.option("base") or ".")
    default = Arguments(base=base, config=name, settings=settings, run=common.load_config(name))
    arguments = common.parse(Arguments, default, "launch.sft")
    if not common.option("base"):
        raise UserError("--base is missing. Give a run's workdir or a model's folder.")
    common.start_jax(accelerator)
    with start.enough_memory():
        sft(arguments, start.mesh(arguments.mesh, arguments.run.train))


def sft(arguments: Arguments, mesh: Mesh) -> None:
    """Tokenizes the samples, trains, and reports."""
    from hybriko_jax.data.conversations import (
        ConversationRows,
        conversations,
        read_samples,
        text_weight,
    )
    from hybriko_jax.linux.tools import TOOLS
    from hybriko_jax.prompts import chat_tokens, system_prompt

    settings, workdir = arguments.settings, arguments.workdir
    lora = arguments.run.lora
    if lora:
        lora = dataclasses.replace(lora, base=str(arguments.base.resolve()))
    base = load.checkpoint(arguments.base, kept=lora.precision if lora else "float32")
    if not lora:
        start.refuse_quantized(base.params, arguments.base)
    tokenizer = base.tokenizer
    model = dataclasses.replace(base.config, dtype=arguments.run.model.dtype)
    config = dataclasses.replace(arguments.run, model=model, lora=lora)
    c = config.train
    samples = read_samples(Path(settings.samples))
    if settings.held_out:
        held_out = read_samples(Path(settings.held_out))
    elif len(samples) > 1:
        held_out, samples = samples[::100], [s for i, s in enumerate(samples) if i % 100]
    else:
        raise UserError(f"{settings.samples} holds one sample. Give more, or --held-out FILE.")
    system = system_prompt(settings.prompt, [tool.schema for tool in TOOLS])

    start.open_workdir(workdir, SETTINGS, settings, tokenizer, config, system)
    text = None
    if settings.text_share:
        text = common.prepared_data(config, tokenizer, workdir).train
    # The long prompt is run once a step, the short one stands before every sample.
    full = settings.prompt == "full"
    prefix_P = None
    if full:
        prefix_P = chat_tokens(tokenizer, [{"role": "system", "content": system}])[0]

    def rows_of(mixture, weights):
        return ConversationRows(
            mixture, weights, c.seq_len, c.seed, tokenizer.pad_id, packed=not full
        )

    prompt = None if full else system
    mixture = conversations(tokenizer, samples, prompt, text, c.seq_len)
    chat, weights = sum(len(t) for t in mixture.tokens), (1.0,)
    if text is not None:
        weights = (1.0, text_weight(chat, int(text.length_N.sum()), settings.text_share))
    rows = rows_of(mixture, weights)
    unseen_rows = rows_of(conversations(tokenizer, held_out, prompt, None, c.seq_len), (1.0,))
    said, plan = sum(int(m.sum()) for m in mixture.said), rows.plan(0)
    if left_out := len(samples) - len(mixture.tokens):
        common.say(f"{left_out:,} samples are longer than a row of {c.seq_len} and left out")
    common.say(
        f"{len(mixture.tokens):,} samples, {chat:,} tokens, {said:,} of them the assistant's; an "
        f"epoch is {plan.n_rows:,} rows, {plan.fill(c.seq_len):.2%} full"
    )
    start.run(
        config,
        mesh,
        workdir,
        tokenizer,
        rows,
        unseen_rows,
        prefix_P=prefix_P,
        data_digest=mixture.digest(),
        init_params=None if lora else base.params,
        frozen=[base.params] if lora else None,
    )


if __name__ == "__main__":
    common.run(main)

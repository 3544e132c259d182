"""Function calling as an adapter: the tuning of hybriko_sft, of 1.6M numbers and not of all.

    python -m launch.sft --config hybriko_sft_lora --base MODEL --samples fc.jsonl

The base stays as it is; launch.export --format peft writes the adapter alone.
"""

import dataclasses

from configs import hybriko_sft
from hybriko_jax.config import LoRAConfig, OptimizerConfig, RunConfig


def config() -> RunConfig:
    return dataclasses.replace(
        hybriko_sft.config(),
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=20, weight_decay=0.0),
        lora=LoRAConfig(rank=32, alpha=32, targets="kernel"),
    )

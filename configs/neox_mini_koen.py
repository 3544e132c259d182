"""A small translator: neox_mini tuned on pairs by LoRA of rank 128 on every kernel.

    python -m launch.lora --config neox_mini_koen --base BASE --data pairs.tsv

The base has never seen a translation, and rank 8 on query_key_value, which a large bilingual base
needs, could not teach it to.
"""

from hybriko_jax.config import LoRAConfig, OptimizerConfig, RunConfig, TrainConfig


def config() -> RunConfig:
    return RunConfig(
        optimizer=OptimizerConfig(
            learning_rate=2e-3,
            schedule="wsd",
            warmup_steps=50,
            decay_fraction=0.3,
            weight_decay=0.0,
        ),
        train=TrainConfig(
            steps=4000,
            batch_size=8,
            seq_len=512,
            eval_every=250,
            eval_batches=16,
            save_every=250,
            keep_last=1,
        ),
        lora=LoRAConfig(rank=128, alpha=128, targets="kernel", precision="bfloat16"),
    )

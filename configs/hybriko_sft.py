"""Function calling: a small model tuned on requests and the calls that answer them.

    python -m launch.synthesize --n 60000 --out fc.jsonl --held-out fc.held_out.jsonl
    python -m launch.sft --base checkpoints/hybriko-mini --samples fc.jsonl

The model is that of --base; only how it is computed is taken from here.
"""

from hybriko_jax.config import (
    DataConfig,
    HybriKoConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
)


def config() -> RunConfig:
    return RunConfig(
        model=HybriKoConfig(dtype="bfloat16"),
        data=DataConfig(source=("sample",), held_out=0.01),
        # Muon learned the held-out phrasings several times as fast as AdamW.
        optimizer=OptimizerConfig(
            name="muon",
            learning_rate=1.7e-3,
            warmup_steps=20,
            schedule="wsd",
            decay_fraction=1.0,
            final_fraction=0.01,
        ),
        train=TrainConfig(
            steps=2000,
            batch_size=8,
            seq_len=512,
            eval_every=250,
            eval_batches=16,
            save_every=250,
            keep_last=1,
        ),
    )

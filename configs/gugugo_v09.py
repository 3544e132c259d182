"""Gugugo 0.9: Polyglot-ko-1.3B tuned to translate between Korean and English, by QLoRA.

    python -m launch.lora --config gugugo_v09 --data pairs.tsv

One pass over the pairs. A batch is 16 rows of 512 tokens into which pairs are packed, where the
original had 16 pairs. gugugo_v095 goes on from here.

Source: Gugugo, github.com/jwj7140/Gugugo.
"""

from hybriko_jax.config import (
    GPTNeoXConfig,
    LoRAConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
)


def config() -> RunConfig:
    return RunConfig(
        model=GPTNeoXConfig(dtype="bfloat16", remat=True),
        optimizer=OptimizerConfig(
            learning_rate=3e-4,
            schedule="cosine",
            warmup_steps=100,
            final_fraction=0.0,
            b2=0.999,
            weight_decay=0.0,
        ),
        train=TrainConfig(epochs=1, batch_size=16, seq_len=512, accumulation=4),
        lora=LoRAConfig(
            rank=8,
            alpha=32,
            dropout=0.05,
            targets="query_key_value",
            base="EleutherAI/polyglot-ko-1.3b",
            precision="nf4",
        ),
    )

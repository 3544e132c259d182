"""A small GPT-NeoX: 10.6M parameters, for a translator that a laptop can train.

    python -m launch.pretrain --config neox_mini --data.source KOREAN ENGLISH ...

1,500 steps of 8 x 512 tokens. configs/neox_mini_koen.py tunes it to translate.
"""

from hybriko_jax.config import (
    DataConfig,
    GPTNeoXConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
)


def config() -> RunConfig:
    return RunConfig(
        model=GPTNeoXConfig(
            vocab_size=10_000,
            d_model=320,
            n_layers=6,
            n_heads=5,
            d_ff=1280,
            max_seq_len=1024,
            tie_embeddings=True,
            dtype="bfloat16",
        ),
        data=DataConfig(source=("sample",), held_out=0.01),
        optimizer=OptimizerConfig(
            name="muon", learning_rate=2e-3, warmup_steps=50, schedule="wsd", decay_fraction=0.3
        ),
        train=TrainConfig(
            steps=1500,
            batch_size=8,
            seq_len=512,
            eval_every=250,
            eval_batches=16,
            save_every=250,
            keep_last=1,
        ),
    )

"""The small model that ships: 14.7M parameters, for a laptop.

python -m launch.pretrain --config hybriko_mini --mesh 1 --data.source FILES ...

3,000 steps of 8 x 512 tokens, 12.3M in all. checkpoints/hybriko-mini is this on documentation,
film reviews and command pages: about 100 minutes on 2 CPU cores beside other work, held out 3.67
nats per token. Its card names the data.
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
        model=HybriKoConfig(
            vocab_size=8000,
            d_model=320,
            n_layers=9,
            n_heads=10,
            n_kv_heads=2,
            max_seq_len=2048,
            dtype="bfloat16",
        ),
        data=DataConfig(source=("sample",), held_out=0.01),
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=150, schedule="wsd"),
        train=TrainConfig(
            steps=3000,
            batch_size=8,
            seq_len=512,
            eval_every=250,
            eval_batches=16,
            save_every=250,
            keep_last=2,
        ),
    )

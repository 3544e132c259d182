"""A HybriKo of toy size on the built-in sample: tests, and the first command on a laptop.

    python -m launch.pretrain --mesh 8

One to two minutes on 2 CPU cores as 8 virtual devices.
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
            vocab_size=2000, d_model=64, n_layers=3, n_heads=4, n_kv_heads=1, max_seq_len=512
        ),
        data=DataConfig(source=("sample",), held_out=0.03),
        optimizer=OptimizerConfig(learning_rate=4e-3, warmup_steps=20),
        train=TrainConfig(
            steps=200, batch_size=32, seq_len=128, eval_every=50, eval_batches=4, save_every=50
        ),
    )

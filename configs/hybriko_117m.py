"""HybriKo-117M on Korean Wikipedia.

python -m launch.pretrain --config hybriko_117m --mesh 8
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
        data=DataConfig(source=("hf:wikimedia/wikipedia:20231101.ko/*.parquet",), held_out=0.002),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=200, schedule="cosine"),
        train=TrainConfig(
            steps=3815,  # 2.0 B tokens
            batch_size=256,
            seq_len=2048,
            accumulation=2,
            eval_every=250,
            save_every=250,
        ),
    )

"""HybriKo-117M on Korean Wikipedia.

python -m launch.pretrain --config hybriko_117m --mesh 8

The dataset is pinned to a commit; the download itself was never tried.

3,815 steps of 256 x 2,048 tokens: 524,288 a step, 2.0 B in all. AdamW with a peak of 1e-3, 200
steps of warm-up, then cosine to a tenth.

Modelled, not measured: the 1.5e18 FLOPs of matrix products that --describe counts take 1.7 hours
on 8 A100s at 10 % of their bfloat16 peak, half of that at 20 %.

The published proof of concept, 1,000 steps on 30,000 articles of Korean Wikipedia, went from a
loss of 10.5 to 3.7. Its shape: --train.steps 1000 --train.batch-size 16 --train.seq-len 512
--train.accumulation 1
"""

from hybriko_jax.config import (
    DataConfig,
    HybriKoConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
)

WIKIPEDIA = "b04c8d1ceb2f5cd4588862100d08de323dccfbaa"  # commit of the dataset


def config() -> RunConfig:
    return RunConfig(
        model=HybriKoConfig(dtype="bfloat16"),
        data=DataConfig(
            source=(f"hf:wikimedia/wikipedia@{WIKIPEDIA}:20231101.ko/*.parquet",), held_out=0.002
        ),
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

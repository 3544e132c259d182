"""Gugugo 1.0: documents, from the adapter of gugugo_v095; then the adapter is merged.

    python -m launch.lora --config gugugo_v10 --init-adapter runs/gugugo_v095 --data documents.jsonl
    python -m launch.export --checkpoint runs/gugugo_v10 --merge --out gugugo-koen-1.3b

One pass over long pairs, a row of 2,048 tokens at a time.
"""

import dataclasses

from configs import gugugo_v09
from hybriko_jax.config import RunConfig


def config() -> RunConfig:
    before = gugugo_v09.config()
    train = dataclasses.replace(before.train, batch_size=1, accumulation=1, seq_len=2048)
    return dataclasses.replace(before, train=train)

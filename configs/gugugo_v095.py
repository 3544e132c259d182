"""Gugugo 0.95: one more pass, from the adapter of gugugo_v09.

python -m launch.lora --config gugugo_v095 --init-adapter runs/gugugo_v09 --data pairs.tsv
"""

from configs import gugugo_v09
from hybriko_jax.config import RunConfig


def config() -> RunConfig:
    return gugugo_v09.config()

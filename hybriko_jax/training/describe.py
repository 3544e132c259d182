"""What a run would take: parameters, tokens, FLOPs and memory, before anything is run."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh

from hybriko_jax.config import RunConfig
from hybriko_jax.training.flops import matmul_flops_per_token
from hybriko_jax.training.optimizer import make_optimizer
from hybriko_jax.training.state import TrainState, abstract_state, param_count
from hybriko_jax.training.train import compile_step


def description(config: RunConfig, model: nn.Module, mesh: Mesh) -> str:
    """A report; the train step is compiled for the mesh, but not run."""
    tx = make_optimizer(config.optimizer, config.train.steps)
    with jax.set_mesh(mesh):
        abstract, _ = abstract_state(model, tx, config.train.seed, mesh)
        memory: Any = compile_step(model, tx, config, abstract, mesh).memory_analysis()
    flops = matmul_flops_per_token(config.model, config.train.seq_len)
    peak = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )
    state = _bytes_per_device(abstract)
    platform = mesh.devices.flat[0].platform
    return "\n".join(
        [
            *_modules(abstract),
            f"{'parameters':<28}{param_count(abstract.params):>16,}",
            f"{'tokens per step':<28}{config.tokens_per_step:>16,}",
            f"{'tokens in all':<28}{config.tokens_per_step * config.train.steps:>16,}",
            f"{'FLOPs per token':<28}{flops:>16.4g}   matrix products, forward and backward",
            f"{'FLOPs in all':<28}{flops * config.tokens_per_step * config.train.steps:>16.4g}",
            f"{'state per device':<28}{state / 2**30:>12.3f} GiB   parameters and moments",
            f"{'peak per device':<28}{peak / 2**30:>12.3f} GiB   as compiled for {platform}",
        ]
    )


def _modules(abstract: TrainState) -> list[str]:
    kinds: dict[str, tuple[int, int]] = {}
    for name, subtree in abstract.params.items():
        label = name
        if name.startswith("layers_"):
            label = "griffin layer" if "griffin" in subtree else "attention layer"
        n, _ = kinds.get(label, (0, 0))
        kinds[label] = (n + 1, param_count(subtree))
    return [
        f"{label + (f' x {n}' if n > 1 else ''):<28}{size:>16,}"
        for label, (n, size) in kinds.items()
    ]


def _bytes_per_device(abstract: TrainState) -> int:
    return sum(
        math.prod(a.sharding.shard_shape(a.shape)) * a.dtype.itemsize
        for a in jax.tree.leaves(abstract)
    )

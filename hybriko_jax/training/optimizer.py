"""AdamW and Muon, and their learning-rate schedules."""

from __future__ import annotations

from typing import Any

import jax
import optax

from hybriko_jax.config import OptimizerConfig


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Learning rate of every optimizer step, from 0 to steps - 1."""
    peak, final = config.learning_rate, config.learning_rate * config.final_fraction
    rest = max(steps - config.warmup_steps, 1)
    decay = max(round(rest * config.decay_fraction), 1)
    after = {
        "cosine": lambda: optax.cosine_decay_schedule(peak, rest, config.final_fraction),
        "constant": lambda: optax.constant_schedule(peak),
        "wsd": lambda: optax.linear_schedule(peak, final, decay, rest - decay),
    }[config.schedule]()
    warmup = optax.linear_schedule(
        peak / max(config.warmup_steps, 1), peak, max(config.warmup_steps - 1, 1)
    )
    return optax.join_schedules([warmup, after], [config.warmup_steps])


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """AdamW or Muon after clipping by the global norm; only matrices decay.

    Sources: Decoupled weight decay, arXiv:1711.05101; Muon is scalable, arXiv:2502.16982 (updates
    scaled to a root mean square of 0.2, so that AdamW's learning rates and decay serve both).
    """
    clip = optax.clip_by_global_norm(config.clip_norm)
    rate = learning_rate(config, steps)
    if config.name == "muon":
        muon = optax.contrib.muon(
            rate,
            weight_decay=config.weight_decay,
            weight_decay_mask=_is_matrix,
            adam_b1=config.b1,
            adam_b2=config.b2,
            adam_weight_decay=0.0,  # it has no mask: norms and decays would shrink
            consistent_rms=0.2,
            muon_weight_dimension_numbers=_kernels,
        )
        return optax.chain(clip, muon)
    return optax.chain(
        clip,
        optax.scale_by_adam(config.b1, config.b2, config.eps),
        optax.add_decayed_weights(config.weight_decay, mask=_is_matrix),
        optax.scale_by_learning_rate(rate),
    )


def _is_matrix(params: Any) -> Any:
    return jax.tree.map(lambda p: p.ndim > 1, params)


def _kernels(params: Any) -> Any:
    """The axes of kernels; None for the rest: an embedding is a table of vectors, not a map."""
    axes = optax.contrib.MuonDimensionNumbers(reduction_axis=0, output_axis=1)

    def one(path, p):
        return axes if p.ndim == 2 and "kernel" in jax.tree_util.keystr(path) else None

    return jax.tree_util.tree_map_with_path(one, params)

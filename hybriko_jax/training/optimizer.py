"""AdamW and its learning-rate schedules."""

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
    """AdamW after clipping by the global norm; only matrices decay.

    Source: Decoupled weight decay, arXiv:1711.05101.
    """
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.scale_by_adam(config.b1, config.b2, config.eps),
        optax.add_decayed_weights(config.weight_decay, mask=_is_matrix),
        optax.scale_by_learning_rate(learning_rate(config, steps)),
    )


def _is_matrix(params: Any) -> Any:
    return jax.tree.map(lambda p: p.ndim > 1, params)

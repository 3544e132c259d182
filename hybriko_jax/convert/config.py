"""HybriKo's config under the names of a transformers config.json.

One table, read both ways.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybriko_jax.config import HybriKoConfig
from hybriko_jax.errors import UserError

MODEL_TYPE = "hybriko"

# Ours -> theirs, where the value is the same.
_NAMES = {
    "vocab_size": "vocab_size",
    "d_model": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "max_seq_len": "max_position_embeddings",
    "attention_window": "sliding_window",
    "conv_width": "conv_width",
    "logits_soft_cap": "logits_soft_cap",
    "tie_embeddings": "tie_word_embeddings",
    "norm_eps": "rms_norm_eps",
}
_KINDS = {"griffin": "linear_attention", "attention": "full_attention"}
_ACTIVATIONS = {"gelu": "gelu_pytorch_tanh", "silu": "silu", "relu": "relu"}


def to_transformers(config: HybriKoConfig) -> dict[str, Any]:
    """The fields of config.json that say which model it is."""
    return {
        "model_type": MODEL_TYPE,
        **{theirs: getattr(config, ours) for ours, theirs in _NAMES.items()},
        "intermediate_size": config.d_ff,
        "hidden_act": _ACTIVATIONS[config.activation],
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "layer_types": [_KINDS[kind] for kind in config.layer_types],
    }


def from_transformers(described: Mapping[str, Any]) -> HybriKoConfig:
    """The config of a config.json; fields that are no part of the model are left aside.

    Raises:
      UserError: it is of another model, lacks a field, or holds a value that is no HybriKo's.
    """
    if (kind := described.get("model_type")) != MODEL_TYPE:
        raise UserError(f"model_type is {kind!r}, not {MODEL_TYPE!r}: it is another model.")
    try:
        values = {ours: described[theirs] for ours, theirs in _NAMES.items()}
        rope = described["rope_parameters"]["rope_theta"]
        activation = _back(_ACTIVATIONS, described["hidden_act"], "hidden_act")
        kinds = tuple(_back(_KINDS, k, "layer_types") for k in described["layer_types"])
        width, rest = divmod(described["intermediate_size"], values["d_model"])
    except KeyError as e:
        raise UserError(f"{e} is missing.") from None
    except (TypeError, AttributeError) as e:
        raise UserError(f"a value is of the wrong kind ({e}).") from None
    if rest:
        raise UserError(
            f"intermediate_size={described['intermediate_size']} is not a multiple of "
            f"hidden_size={values['d_model']}."
        )
    return HybriKoConfig(
        **values, rope_theta=rope, activation=activation, ff_mult=width, pattern=_shortest(kinds)
    )


def _back(table: Mapping[str, str], value: Any, name: str) -> Any:
    for ours, theirs in table.items():
        if theirs == value:
            return ours
    raise UserError(f"{name}: {value!r} is none of {', '.join(table.values())}.")


def _shortest(kinds: tuple[Any, ...]) -> tuple[Any, ...]:
    """The shortest pattern that gives these layers when it is repeated."""
    for n in range(1, len(kinds)):
        if all(kind == kinds[i % n] for i, kind in enumerate(kinds)):
            return kinds[:n]
    return kinds

"""A model's config under the names of a transformers config.json: one table a model, both ways."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from types import NoneType
from typing import Any

from hybriko_jax.config import GPTNeoXConfig, HybriKoConfig, ModelConfig
from hybriko_jax.errors import UserError

MODEL_TYPE, GPT_NEOX = "hybriko", "gpt_neox"

# Ours -> theirs, where the value is the same.
_HYBRIKO = {
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

_GPT_NEOX = {
    "vocab_size": "vocab_size",
    "d_model": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "d_ff": "intermediate_size",
    "max_seq_len": "max_position_embeddings",
    "parallel_residual": "use_parallel_residual",
    "attention_bias": "attention_bias",
    "tie_embeddings": "tie_word_embeddings",
    "norm_eps": "layer_norm_eps",
}
# The published layout's, which has no model_type; everything else is as in HybriKo-117M.
PUBLISHED = ("d_model", "n_layers", "vocab_size", "n_heads", "n_kv_heads", "ff_mult", "max_seq_len")
# What config.json leaves out is as transformers has it.
_GPT_NEOX_DEFAULTS = {
    "max_position_embeddings": 2048,
    "use_parallel_residual": True,
    "attention_bias": True,
    "tie_word_embeddings": False,
    "layer_norm_eps": 1e-5,
    "hidden_act": "gelu",
}
_GPT_NEOX_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
    "relu": "relu",
    "silu": "silu",
}
# All of them the approximation by tanh.
_TANH = ("gelu_new", "gelu_fast")


def to_transformers(config: ModelConfig) -> dict[str, Any]:
    """The fields of config.json that say which model it is."""
    if isinstance(config, GPTNeoXConfig):
        return _gpt_neox_to_transformers(config)
    return {
        "model_type": MODEL_TYPE,
        **{theirs: getattr(config, ours) for ours, theirs in _HYBRIKO.items()},
        "intermediate_size": config.d_ff,
        "hidden_act": _ACTIVATIONS[config.activation],
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "layer_types": [_KINDS[kind] for kind in config.layer_types],
    }


def from_transformers(described: Mapping[str, Any]) -> ModelConfig:
    """The config of a config.json; fields that are no part of the model are left aside.

    Raises:
      UserError: it is of another model, lacks a field, or holds a value that the model cannot have.
    """
    kinds = {MODEL_TYPE: _hybriko, GPT_NEOX: _gpt_neox}
    kind = described.get("model_type")
    read = next((f for name, f in kinds.items() if name == kind), None)
    if read is None and "ff_mult" in described:
        read = _published
    if read is None:
        raise UserError(f"model_type is {kind!r}, none of {', '.join(kinds)}: it is another model.")
    try:
        return read(described)
    except KeyError as e:
        raise UserError(f"{e} is missing.") from None


def _value(described: Mapping[str, Any], name: str, *kinds: type) -> Any:
    """A field, whose type JSON does not promise."""
    value = described[name]
    if type(value) not in kinds and not (type(value) is int and float in kinds):
        wanted = " or ".join("null" if k is NoneType else k.__name__ for k in kinds)
        raise UserError(f"{name}={value!r} is of the wrong kind: {wanted} is wanted.")
    if type(value) is int and value >= 2**31:
        raise UserError(f"{name}={value} is more than any model has.")
    return value


def _values(described: Mapping[str, Any], names: Mapping[str, str], config: type) -> dict[str, Any]:
    hints = typing.get_type_hints(config)
    return {
        ours: _value(described, theirs, *(typing.get_args(hints[ours]) or (hints[ours],)))
        for ours, theirs in names.items()
    }


def _need_plain_rope(rope: Mapping[str, Any]) -> None:
    if (kind := rope.get("rope_type", rope.get("type", "default"))) != "default":
        raise UserError(f"rope_type is {kind!r}; only 'default' is known here.")


def _hybriko(described):
    values = _values(described, _HYBRIKO, HybriKoConfig)
    rope = _value(described, "rope_parameters", dict)
    _need_plain_rope(rope)
    layers = _value(described, "layer_types", list)
    kinds = tuple(_back(_KINDS, k, "layer_types") for k in layers)
    if len(kinds) != values["n_layers"]:
        raise UserError(
            f"num_hidden_layers={values['n_layers']}, but layer_types names {len(kinds)}."
        )
    d_ff = _value(described, "intermediate_size", int)
    width, rest = divmod(d_ff, max(values["d_model"], 1))
    if rest:
        raise UserError(
            f"intermediate_size={d_ff} is not a multiple of hidden_size={values['d_model']}."
        )
    return HybriKoConfig(
        **values,
        rope_theta=_value(rope, "rope_theta", float),
        activation=_back(_ACTIVATIONS, described["hidden_act"], "hidden_act"),
        ff_mult=width,
        pattern=_shortest(kinds),
    )


def _published(described):
    described = {"tie_word_embeddings": True, **described}
    names = {name: name for name in PUBLISHED} | {"tie_embeddings": "tie_word_embeddings"}
    return HybriKoConfig(**_values(described, names, HybriKoConfig))


def _gpt_neox_to_transformers(config):
    rope = {
        "rope_type": "default",
        "rope_theta": config.rope_theta,
        "partial_rotary_factor": config.rotary_fraction,
    }
    return {
        "model_type": GPT_NEOX,
        "architectures": ["GPTNeoXForCausalLM"],
        **{theirs: getattr(config, ours) for ours, theirs in _GPT_NEOX.items()},
        "hidden_act": _GPT_NEOX_ACTIVATIONS[config.activation],
        "rope_parameters": rope,
        # The same for versions of transformers before 5.
        "rotary_pct": config.rotary_fraction,
        "rotary_emb_base": config.rope_theta,
    }


def _gpt_neox(described):
    described = {**_GPT_NEOX_DEFAULTS, **described}
    rope = {
        "partial_rotary_factor": described.get("rotary_pct", 0.25),
        "rope_theta": described.get("rotary_emb_base", 10_000.0),
    }
    for name in ("rope_scaling", "rope_parameters"):
        rope |= _value(described, name, dict) if described.get(name) else {}
    _need_plain_rope(rope)
    act = described["hidden_act"]
    return GPTNeoXConfig(
        **_values(described, _GPT_NEOX, GPTNeoXConfig),
        activation=_back(
            _GPT_NEOX_ACTIVATIONS, "gelu_pytorch_tanh" if act in _TANH else act, "hidden_act"
        ),
        rotary_fraction=_value(rope, "partial_rotary_factor", float),
        rope_theta=_value(rope, "rope_theta", float),
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

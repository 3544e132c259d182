"""Names of parameters in PyTorch: one table a model, read both ways."""

from __future__ import annotations

import re
from collections.abc import Mapping

from hybriko_jax.config import GPTNeoXConfig, HybriKoConfig, ModelConfig

# Our path -> their name; N is the layer.
HYBRIKO = {
    "embedding": "model.embed_tokens.weight",
    "head": "lm_head.weight",
    "norm/scale": "model.norm.weight",
    "layers_N/mixing_norm/scale": "model.layers.N.mixing_norm.weight",
    "layers_N/mlp_norm/scale": "model.layers.N.mlp_norm.weight",
    "layers_N/griffin/x/kernel": "model.layers.N.griffin.x_proj.weight",
    "layers_N/griffin/gate/kernel": "model.layers.N.griffin.gate_proj.weight",
    "layers_N/griffin/out/kernel": "model.layers.N.griffin.out_proj.weight",
    "layers_N/griffin/conv/kernel": "model.layers.N.griffin.conv.weight",
    "layers_N/griffin/rg_lru/recurrence_gate/kernel": (
        "model.layers.N.griffin.rg_lru.recurrence_gate.weight"
    ),
    "layers_N/griffin/rg_lru/input_gate/kernel": "model.layers.N.griffin.rg_lru.input_gate.weight",
    "layers_N/griffin/rg_lru/lambda": "model.layers.N.griffin.rg_lru.lam",
    "layers_N/attention/q/kernel": "model.layers.N.attention.q_proj.weight",
    "layers_N/attention/k/kernel": "model.layers.N.attention.k_proj.weight",
    "layers_N/attention/v/kernel": "model.layers.N.attention.v_proj.weight",
    "layers_N/attention/o/kernel": "model.layers.N.attention.o_proj.weight",
    "layers_N/mlp/gate/kernel": "model.layers.N.mlp.gate_proj.weight",
    "layers_N/mlp/up/kernel": "model.layers.N.mlp.up_proj.weight",
    "layers_N/mlp/down/kernel": "model.layers.N.mlp.down_proj.weight",
}

GPT_NEOX = {
    "embedding": "gpt_neox.embed_in.weight",
    "head": "embed_out.weight",
    "norm/scale": "gpt_neox.final_layer_norm.weight",
    "norm/bias": "gpt_neox.final_layer_norm.bias",
    "layers_N/input_layernorm/scale": "gpt_neox.layers.N.input_layernorm.weight",
    "layers_N/input_layernorm/bias": "gpt_neox.layers.N.input_layernorm.bias",
    "layers_N/post_attention_layernorm/scale": (
        "gpt_neox.layers.N.post_attention_layernorm.weight"
    ),
    "layers_N/post_attention_layernorm/bias": "gpt_neox.layers.N.post_attention_layernorm.bias",
    "layers_N/attention/query_key_value/kernel": (
        "gpt_neox.layers.N.attention.query_key_value.weight"
    ),
    "layers_N/attention/query_key_value/bias": "gpt_neox.layers.N.attention.query_key_value.bias",
    "layers_N/attention/dense/kernel": "gpt_neox.layers.N.attention.dense.weight",
    "layers_N/attention/dense/bias": "gpt_neox.layers.N.attention.dense.bias",
    "layers_N/mlp/dense_h_to_4h/kernel": "gpt_neox.layers.N.mlp.dense_h_to_4h.weight",
    "layers_N/mlp/dense_h_to_4h/bias": "gpt_neox.layers.N.mlp.dense_h_to_4h.bias",
    "layers_N/mlp/dense_4h_to_h/kernel": "gpt_neox.layers.N.mlp.dense_4h_to_h.weight",
    "layers_N/mlp/dense_4h_to_h/bias": "gpt_neox.layers.N.mlp.dense_4h_to_h.bias",
}

_TABLES: Mapping[type, Mapping[str, str]] = {HybriKoConfig: HYBRIKO, GPTNeoXConfig: GPT_NEOX}

# Other spellings of GPT-NeoX's names: transformers calls the head so, and files of the model
# without its head lack the prefix.
_ALIASES = ((r"^lm_head\.", "embed_out."), (r"^(?!gpt_neox\.|embed_out\.)", "gpt_neox."))
# Tables that older versions of transformers kept as if they were weights.
_BUFFERS = r"\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)"


def torch_name(config: ModelConfig, path: str) -> str:
    """The name of a parameter: of "layers_0/mlp/up/kernel", model.layers.0.mlp.up_proj.weight."""
    layer = re.search(r"layers_(\d+)", path)
    name = _TABLES[type(config)][re.sub(r"layers_\d+", "layers_N", path)]
    return name.replace(".N.", f".{layer[1]}.") if layer else name


def usual_name(config: ModelConfig, name: str) -> str | None:
    """The name in the table of a tensor that a file may call otherwise; None if it is no weight."""
    if not isinstance(config, GPTNeoXConfig):
        return name
    if re.search(_BUFFERS + "$", name):
        return None
    for pattern, prefix in _ALIASES:
        name = re.sub(pattern, prefix, name)
    return None if config.tie_embeddings and name == GPT_NEOX["head"] else name


def transposed(path: str) -> bool:
    """Whether PyTorch, which keeps a kernel as (out, in), has the parameter the other way round."""
    return path.endswith("/kernel")

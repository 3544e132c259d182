"""A folder that transformers loads: weights, tokenizer, card, and for HybriKo PyTorch code."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hybriko_jax.config import HybriKoConfig, ModelConfig
from hybriko_jax.convert.folder import CONFIG, SHARD_BYTES, save_folder, special_ids
from hybriko_jax.convert.parameters import our_shapes
from hybriko_jax.convert.tokenizer import tokenizer_config, tokenizer_files
from hybriko_jax.convert.weights import Tensor
from hybriko_jax.tokenizer import SentencePiece, Tokenizer, TokenizerJson

CODE = ("configuration_hybriko.py", "modeling_hybriko.py")
_CLASSES = {
    "architectures": ["HybriKoForCausalLM"],
    # What transformers computes in, whatever the file holds: then its tokens are ours.
    "dtype": "float32",
    "auto_map": {
        "AutoConfig": "configuration_hybriko.HybriKoConfig",
        "AutoModel": "modeling_hybriko.HybriKoModel",
        "AutoModelForCausalLM": "modeling_hybriko.HybriKoForCausalLM",
    },
}


def save_transformers(
    folder: Path,
    config: ModelConfig,
    params: Any,
    tokenizer: Tokenizer,
    dtype: str,
    shard_bytes: int = SHARD_BYTES,
    card: str = "",
    packed: bool = False,
) -> dict[str, Tensor]:
    """Writes a model into a folder that is there; see `folder.save_folder`.

    Args:
      card: the model's own card; how to use the folder is added to it.
      packed: see `parameters.to_torch`.
    """
    tensors = save_folder(folder, config, params, tokenizer, dtype, shard_bytes, packed)
    if isinstance(config, HybriKoConfig):
        write_code(folder, json.loads((folder / CONFIG).read_text()))
    files = {}
    if isinstance(tokenizer, SentencePiece):
        model = (folder / tokenizer.FILE).read_bytes()
        files = tokenizer_files(model, config.max_seq_len)
    elif isinstance(tokenizer, TokenizerJson):
        files = {"tokenizer_config.json": tokenizer_config(tokenizer, config.max_seq_len)}
    generation = special_ids(tokenizer) | {"eos_token_id": tokenizer.ends, "do_sample": False}
    files["generation_config.json"] = json.dumps(generation, indent=2) + "\n"
    files["README.md"] = _card(card, config, dtype, packed)
    for name, content in files.items():
        (folder / name).write_text(content, "utf-8")
    return tensors


def write_code(folder: Path, described: Mapping[str, Any]) -> None:
    """Writes the PyTorch code, and a config.json that names its classes.

    Args:
      described: the other fields of config.json; see `config.to_transformers`.
    """
    (folder / CONFIG).write_text(json.dumps({**described, **_CLASSES}, indent=2) + "\n")
    for name in CODE:
        shutil.copyfile(Path(__file__).parent / "pytorch" / name, folder / name)


_HEAD = """---
language: ko
tags: [{kind}, jax]
---
# {name}
"""
_USE = """
## Use with transformers

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # this folder, or its name on the Hub
tokenizer = AutoTokenizer.from_pretrained(folder{trust})
model = AutoModelForCausalLM.from_pretrained(folder{trust})
inputs = tokenizer("안녕하세요", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=20)[0]))
```

{parameters:,} parameters in {dtype}{note}. `manifest.json` holds the SHA-256 of every file.
"""
_NOTE = """, the decay of the RG-LRU (`lam`) in float32. transformers
computes in float32 unless `from_pretrained` is told otherwise (`dtype="bfloat16"`). The code in
`modeling_hybriko.py` needs PyTorch and transformers only, 5.23 or newer"""
_NF4 = """, the matrices of the layers in 4 bits (NF4): reading them needs
`pip install bitsandbytes accelerate`"""


def _card(card, config, dtype, packed):
    ours = isinstance(config, HybriKoConfig)
    kind, name = ("hybriko, griffin", "HybriKo") if ours else ("gpt_neox", "GPT-NeoX")
    use = _USE.format(
        trust=", trust_remote_code=True" if ours else "",
        parameters=sum(map(math.prod, our_shapes(config).values())),
        dtype=dtype,
        note=(_NF4 if packed else "") + (_NOTE if ours else ""),
    )
    card = card.partition("\n## Use with transformers\n")[0]  # of an export that is exported
    return (card or _HEAD.format(kind=kind, name=name)).rstrip() + "\n" + use

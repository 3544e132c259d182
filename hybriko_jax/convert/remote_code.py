"""A folder that transformers loads with trust_remote_code: weights, code, tokenizer and card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hybriko_jax.config import HybriKoConfig
from hybriko_jax.convert.folder import CONFIG, SHARD_BYTES, TOKENIZER, save_folder
from hybriko_jax.convert.tokenizer import tokenizer_files
from hybriko_jax.convert.weights import Tensor
from hybriko_jax.tokenizer import IM_END, Tokenizer

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


def save_remote_code(
    folder: Path,
    config: HybriKoConfig,
    params: Any,
    tokenizer: Tokenizer,
    dtype: str,
    shard_bytes: int = SHARD_BYTES,
    card: str = "",
) -> dict[str, Tensor]:
    """Writes a model into a folder that is there; see `folder.save_folder`.

    Args:
      card: the model's own card; how to use the folder is added to it.
    """
    tensors = save_folder(folder, config, params, tokenizer, dtype, shard_bytes)
    write_code(folder, json.loads((folder / CONFIG).read_text()))
    model = (folder / TOKENIZER).read_bytes()
    for name, content in tokenizer_files(model, config.max_seq_len).items():
        (folder / name).write_text(content, "utf-8")
    ends = [tokenizer.eos_id, tokenizer.control_id(IM_END)]
    generation = {"bos_token_id": tokenizer.bos_id, "pad_token_id": tokenizer.pad_id}
    generation |= {"eos_token_id": ends, "do_sample": False}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    (folder / "README.md").write_text(_card(card, folder, tensors, dtype), "utf-8")
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
tags: [hybriko, griffin, jax]
---
# HybriKo
"""
_USE = """
## Use with transformers

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # this folder, or its name on the Hub
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
inputs = tokenizer("안녕하세요", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=20)[0]))
```

{parameters:,} parameters in {dtype}, the decay of the RG-LRU (`lam`) in float32. transformers
computes in float32 unless `from_pretrained` is told otherwise (`dtype="bfloat16"`). The code in
`modeling_hybriko.py` needs PyTorch and transformers only. `manifest.json` holds the SHA-256 of
every file.
"""


def _card(card, folder, tensors, dtype):
    parameters = sum(t.size for t in tensors.values())
    return (card or _HEAD).rstrip() + "\n" + _USE.format(parameters=parameters, dtype=dtype)

"""Adapters as PEFT keeps them: adapter_config.json and adapter_model.safetensors."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.traverse_util
import numpy as np

from hybriko_jax.config import LoRAConfig, ModelConfig
from hybriko_jax.convert.parameters import our_shapes
from hybriko_jax.convert.tables import torch_name
from hybriko_jax.convert.weights import Tensor, read_weights, some, write_safetensors
from hybriko_jax.errors import UserError
from hybriko_jax.lora import LoRA, is_matrix

CONFIG, WEIGHTS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
_PREFIX = "base_model.model."
# What changes the sum of an adapter and is not built here; each must be off.
_UNKNOWN = (
    *("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "lora_bias"),
    "target_parameters",
)
_BASE_CHANGES = ("pissa", "olora", "corda", "loftq")  # ways to begin that change the base, too


def save_adapter(
    folder: Path, model: ModelConfig, adapter: Any, config: LoRAConfig
) -> dict[str, Tensor]:
    """Writes an adapter into a folder that is there.

    Returns:
      What was written into adapter_model.safetensors.
    """
    leaves: Any = flax.traverse_util.flatten_dict(adapter, sep="/")
    tensors = {}
    for path, leaf in leaves.items():
        name = _PREFIX + _module(model, path)
        tensors[f"{name}.lora_A.weight"] = _tensor(leaf.a_DR)
        tensors[f"{name}.lora_B.weight"] = _tensor(leaf.b_RF)
    write_safetensors(folder / WEIGHTS, tensors)
    described = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": config.base,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "use_rslora": config.rslora,
        "target_modules": _targets(model, list(leaves)),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    (folder / CONFIG).write_text(json.dumps(described, indent=2, ensure_ascii=False) + "\n")
    return tensors


def load_adapter(folder: Path, model: ModelConfig) -> tuple[Any, LoRAConfig]:
    """An adapter (NumPy, float32) and its settings.

    Where PEFT warns and goes on without the adapter, this raises.

    Args:
      model: what it is to be an adapter of.

    Raises:
      UserError: a file is missing or damaged; the adapter is of another base, lacks a layer, or
        is more than LoRA.
    """
    described = _described(folder / CONFIG)
    weights = folder / (WEIGHTS if (folder / WEIGHTS).exists() else PICKLED)
    factors = _factors(read_weights(weights), weights)
    shapes = {p: s for p, s in our_shapes(model).items() if is_matrix(p)}
    paths = {_module(model, path): path for path in shapes}
    if strangers := sorted(set(factors) - set(paths)):
        raise UserError(
            f"{weights} adapts {some(strangers)}, which the base has not: it is of another model."
        )
    wanted = {m for m in paths if _matches(m, described["target_modules"], described)}
    missing = [
        f"{m}.lora_{f}"
        for m in sorted(wanted | set(factors))
        for f in "AB"
        if f not in factors.get(m, {})
    ]
    if missing:
        raise UserError(f"{weights} lacks {some(missing)}. Copy the adapter anew.")
    config = LoRAConfig(
        rank=described["r"],
        alpha=described["lora_alpha"],
        dropout=described["lora_dropout"],
        rslora=bool(described.get("use_rslora")),
        targets="|".join(sorted({re.escape(paths[m]) for m in factors})),
        base=described.get("base_model_name_or_path") or "",
    )
    leaves = {}
    for module, both in factors.items():
        (D, F), path = shapes[paths[module]], paths[module]
        a_DR, b_RF = (both[f].make().astype(np.float32).T for f in "AB")
        if (a_DR.shape, b_RF.shape) != ((D, config.rank), (config.rank, F)):
            raise UserError(
                f"{weights}: {module} has factors {a_DR.T.shape} and {b_RF.T.shape}, but the base "
                f"is {(F, D)} and the rank {config.rank}: it is of another base or rank."
            )
        leaves[path] = LoRA(
            np.ascontiguousarray(a_DR), np.ascontiguousarray(b_RF), config.scale, config.dropout
        )
    return flax.traverse_util.unflatten_dict(leaves, sep="/"), config


def _module(model, path):
    return torch_name(model, path).removesuffix(".weight")


def _tensor(factor):
    return Tensor(factor.shape[::-1], "float32", lambda: np.asarray(factor, np.float32).T)


def _targets(model: ModelConfig, paths: list[str]) -> list[str]:
    """The shortest names that mean these modules and no others."""
    modules = {_module(model, path) for path in paths}
    everything = {_module(model, path) for path in our_shapes(model)}
    last = sorted({m.rpartition(".")[2] for m in modules})
    meant = {m for m in everything if m.rpartition(".")[2] in last}
    return last if meant == modules else sorted(modules)


def _matches(module: str, targets: Any, described: Mapping[str, Any]) -> bool:
    """Whether PEFT would adapt a module by adapter_config.json."""
    exceptions = described.get("layers_to_transform"), described.get("exclude_modules")
    if targets == "all-linear" or any(e is not None for e in exceptions):
        return False  # the weights themselves say which
    if isinstance(targets, str):
        return bool(re.fullmatch(targets, module))
    return any(module == target or module.endswith(f".{target}") for target in targets)


def _described(path: Path) -> dict[str, Any]:
    try:
        described = json.loads(path.read_text("utf-8"))
        kind = described.get("peft_type")
        for name in ("r", "lora_alpha", "lora_dropout"):
            value = described.setdefault(name, 0.0) if name == "lora_dropout" else described[name]
            if not isinstance(value, int if name == "r" else int | float):
                raise ValueError(f"{name} is {value!r}")
        described["target_modules"] = described.get("target_modules") or "all-linear"
    except (OSError, ValueError, KeyError, AttributeError) as e:
        raise UserError(f"{path} cannot be read ({e!r}). Give the folder of an adapter.") from None
    if kind != "LORA":
        raise UserError(f"{path}: peft_type is {kind}; only LORA is known here.")
    on = [name for name in _UNKNOWN if described.get(name)]
    if on or described.get("bias", "none") != "none":
        raise UserError(f"{path}: {', '.join(on) or 'bias'} is used, which is not known here.")
    if str(begun := described.get("init_lora_weights")).startswith(_BASE_CHANGES):
        raise UserError(
            f"{path}: init_lora_weights is {begun!r}, which changes the base, too. Convert the "
            "adapter to plain LoRA with PEFT."
        )
    return described


def _factors(tensors: Mapping[str, Tensor], path: Path) -> dict[str, dict[str, Tensor]]:
    """The factors A and B by module."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        # The name of an adapter (default) stands in files that were saved by torch.save.
        match = re.fullmatch(re.escape(_PREFIX) + r"(.+)\.lora_([AB])(?:\.[^.]+)?\.weight", name)
        if not match:
            raise UserError(f"{path}: {name} is no factor of a LoRA adapter of a causal model.")
        found.setdefault(match[1], {})[match[2]] = tensor
    return found

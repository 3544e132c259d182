"""Tensors in files: .safetensors, whole or in shards with an index, and .pt."""

from __future__ import annotations

import functools
import json
import pickle
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from hybriko_jax.errors import UserError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_FILES = (
    WEIGHTS,
    INDEX,
    *("pytorch_model.pt", "pytorch_model.bin", "pytorch_model.bin.index.json"),
)
DTYPES: dict[str, Any] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
STORED = DTYPES | {"uint8": np.dtype(np.uint8)}
"""The same, and what packed weights are kept in."""
_CODES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "uint8": "U8"}


@dataclass(frozen=True)
class Tensor:
    """A tensor that is made when it is wanted."""

    shape: tuple[int, ...]
    dtype: str
    """A key of STORED; anything else cannot be read."""
    make: Callable[[], np.ndarray]

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        return self.size * STORED[self.dtype].itemsize


def write_weights(folder: Path, tensors: Mapping[str, Tensor], shard_bytes: int) -> None:
    """Writes model.safetensors, or shards and their index; one tensor at a time is in memory.

    Args:
      shard_bytes: a file holds no more, but for a tensor that is larger by itself.
    """
    shards: list[dict[str, Tensor]] = [{}]
    for name, tensor in tensors.items():
        if shards[-1] and sum(t.nbytes for t in shards[-1].values()) + tensor.nbytes > shard_bytes:
            shards.append({})
        shards[-1][name] = tensor
    if len(shards) == 1:
        write_safetensors(folder / WEIGHTS, shards[0])
        return
    index: dict[str, Any] = {"metadata": {}, "weight_map": {}}
    index["metadata"]["total_size"] = sum(t.nbytes for t in tensors.values())
    for n, shard in enumerate(shards, 1):
        name = f"model-{n:05}-of-{len(shards):05}.safetensors"
        write_safetensors(folder / name, shard)
        index["weight_map"] |= dict.fromkeys(shard, name)
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def write_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes one file; one tensor at a time is in memory."""
    # safetensors.numpy.save_file would hold a second copy of all tensors. The format: the length
    # of a JSON header as 8 bytes, the header, and the tensors; read back by the library.
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": _CODES[tensor.dtype], "shape": list(tensor.shape)}
        header[name]["data_offsets"] = [begin, end]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            # A transposed view would be written as it lies in memory: it must be contiguous.
            file.write(np.ascontiguousarray(tensor.make(), STORED[tensor.dtype]).tobytes())


def read_weights(source: Path) -> dict[str, Tensor]:
    """The tensors of a folder, a .safetensors file or a .pt file; read when they are wanted.

    A .pt file holds {name: tensor}, or that under "model_state_dict", "state_dict" or "model".
    It is read without running code that it may hold.

    Raises:
      UserError: there are none, a file is damaged, or a .pt file holds more than tensors.
    """
    if source.is_dir():
        source = _weights_of(source)
    if source.name.endswith(".index.json"):
        names = _index(source)
        found: dict[str, Tensor] = {}
        for name in dict.fromkeys(names.values()):
            found |= read_weights(source.with_name(name))
        if lost := sorted(set(names) - set(found)):
            raise UserError(f"{source} names tensors that are in no shard: {some(lost)}.")
        return found
    if source.suffix == ".safetensors":
        return _read_safetensors(source)
    if source.suffix in (".pt", ".pth", ".bin"):
        return _read_pt(source)
    raise UserError(f"{source}: give a folder, a .safetensors file or a .pt file.")


def has_weights(folder: Path) -> bool:
    """Whether `read_weights` finds something to read in a folder."""
    return any((folder / name).exists() for name in _FILES)


def _weights_of(folder):
    for name in _FILES:
        if (folder / name).exists():
            return folder / name
    raise UserError(f"{folder} holds no weights: none of {', '.join(_FILES)}.")


def _index(path):
    try:
        names = json.loads(path.read_text())["weight_map"]
        for name in names.values():
            if "/" in name or not name.endswith((".safetensors", ".bin", ".pt")):
                raise ValueError(f"{name} is no shard")
        return names
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise UserError(f"{path} is not an index of shards ({e}). Copy the folder anew.") from None


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    codes = {code: dtype for dtype, code in _CODES.items()}
    try:
        file: Any = safe_open(path, "np")
        described = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as e:
        raise UserError(f"{path} is damaged or missing ({e}). Copy it anew.") from None
    found = {}
    for name, part in described.items():
        code = str(part.get_dtype())
        make = functools.partial(_read_tensor, path, name)
        if code not in codes:
            make = functools.partial(_refuse, f"{path}: {name} is {code}")
        found[name] = Tensor(tuple(part.get_shape()), codes.get(code, code), make)
    return found


def _read_tensor(path, name):
    # Opened anew: of a file that stays open, every page that was read stays in memory.
    with safe_open(path, "np") as file:
        return file.get_tensor(name)


def _refuse(what):
    # Only when it is wanted: old files hold masks beside the weights.
    raise UserError(f"{what}; {', '.join(STORED)} can be read.")


def _read_pt(path: Path) -> dict[str, Tensor]:
    torch = _torch()
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"PK"  # older files are not, and cannot be mapped
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle's protocol, before it is refused
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except (OSError, RuntimeError, EOFError, ValueError) as e:
        raise UserError(f"{path} is damaged or missing ({_first_line(e)}). Copy it anew.") from None
    except pickle.UnpicklingError as e:
        raise UserError(
            f"{path} holds more than tensors, and loading it could run code ({_first_line(e)}). "
            "Ask for a .safetensors file, or save its state_dict alone."
        ) from None
    for key in ("model_state_dict", "state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path} holds no state_dict.")
    if other := [
        str(k)
        for k, v in content.items()
        if not (isinstance(k, str) and isinstance(v, torch.Tensor) and v.layout == torch.strided)
        or v.device.type == "meta"
    ]:
        raise UserError(f"{path} holds what is no tensor: {some(other)}.")
    return {name: _from_torch(path, name, t, torch) for name, t in content.items()}


def _from_torch(path, name, tensor, torch):
    dtype = str(tensor.dtype).removeprefix("torch.")

    def make():
        if dtype not in STORED:
            _refuse(f"{path}: {name} is {dtype}")
        t = tensor.detach().contiguous()
        # NumPy knows no bfloat16 of its own: the bits go over as integers.
        bits = t.view(torch.int16).numpy() if dtype == "bfloat16" else t.numpy()
        return bits.view(STORED[dtype])

    return Tensor(tuple(tensor.shape), dtype, make)


def write_pt(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes {"model_state_dict": {name: tensor}} as torch.save does."""
    torch = _torch()

    def convert(t):
        a = np.ascontiguousarray(t.make(), STORED[t.dtype])
        if t.dtype == "bfloat16":
            return torch.from_numpy(a.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(a)

    torch.save({"model_state_dict": {n: convert(t) for n, t in tensors.items()}}, path)


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise UserError(".pt files need PyTorch: pip install torch.") from None
    # Earlier versions can run code even with weights_only (CVE-2025-32434).
    if tuple(int(n) for n in torch.__version__.split("+")[0].split(".")[:2]) < (2, 6):
        raise UserError(
            f"torch {torch.__version__} reads .pt files unsafely. Install 2.6 or newer."
        )
    return torch


def _first_line(e: Exception) -> str:
    return str(e).strip().split("\n")[0][:200]


def some(names: Iterable[str], n: int = 5) -> str:
    """The first few names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - n} more" if len(names) > n else ""
    return ", ".join(names[:n]) + more

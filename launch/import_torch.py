"""Bring a PyTorch model in: python -m launch.import_torch --from FOLDER --out FOLDER."""

from __future__ import annotations

import collections
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from hybriko_jax.config import ModelConfig
from hybriko_jax.console import load
from hybriko_jax.errors import UserError
from hybriko_jax.files import new_folder
from launch import common

if TYPE_CHECKING:
    from hybriko_jax.convert.renaming import Matches
    from hybriko_jax.convert.weights import Tensor
    from hybriko_jax.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Read HybriKo or GPT-NeoX from a transformers folder, or a file of weights of any names."""

    source: Annotated[Path, tyro.conf.arg(name="from")]
    """A folder, or a .safetensors or .pt file."""
    out: Path
    """A new folder."""
    config: str | None = None
    """A name in configs/, where no config.json lies beside the weights: the model's sizes."""
    tokenizer: Path | None = None
    """A SentencePiece model, a tokenizer.json, or a folder that holds one, where none lies beside
    the weights."""
    names: Path | None = None
    """A table of names to read before ours, hybriko_jax/convert/names.json."""
    dtype: str | None = None
    """float32, bfloat16 or float16; by default as in the source."""
    overwrite: bool = False
    """Replace an earlier export."""


def main() -> None:
    common.prepare_cpu(1)
    arguments = common.parse(Arguments, command="launch.import_torch")
    common.end_in_order()

    from hybriko_jax.convert.proof import MANIFEST
    from hybriko_jax.convert.weights import DTYPES

    if arguments.dtype not in (None, *DTYPES):
        raise UserError(f"--dtype {arguments.dtype!r} is none of {', '.join(DTYPES)}.")
    if not arguments.source.exists():
        raise UserError(f"{arguments.source} is not there. Give a folder or a file of weights.")
    with new_folder(arguments.out, MANIFEST if arguments.overwrite else "") as folder:
        bring_in(arguments, folder)


def bring_in(arguments: Arguments, folder: Path) -> None:
    """Writes the model into a folder that is there."""
    from hybriko_jax.convert import proof
    from hybriko_jax.convert.folder import CONFIG, save_folder
    from hybriko_jax.convert.parameters import not_finite, our_shapes, parameters
    from hybriko_jax.convert.renaming import match, read_rules
    from hybriko_jax.convert.weights import DTYPES, read_weights, some
    from hybriko_jax.training.state import param_count

    beside = arguments.source if arguments.source.is_dir() else arguments.source.parent
    tensors = read_weights(arguments.source)
    if any(".quant_state." in name for name in tensors):
        raise UserError(
            f"{arguments.source} is in 4 bits: use it as it is, --checkpoint, or import the "
            "original weights."
        )
    config = _config(arguments, beside)
    rules = read_rules(arguments.names) if arguments.names else []
    ours = our_shapes(config)
    found = match({name: t.shape for name, t in tensors.items()}, ours, rules + read_rules())
    _print(found, ours)
    if config.tie_embeddings:
        _leave_out_copies(arguments, found, tensors)
    if wrong := [
        *found.misshapen.values(),
        *(f"nothing found for {path}" for path in found.missing),
        *(
            f"{name} is {path}, which this model has not" if path else f"{name} is not known"
            for name, path in found.left.items()
        ),
    ]:
        raise UserError(
            f"{arguments.source} does not fit {arguments.config or CONFIG}: {some(wrong, 8)}. "
            "Name the tensors in a table (--names TABLE.json), or give the right --config."
        )
    kinds = [tensors[name].dtype for p, (name, _) in found.tensors.items() if "lambda" not in p]
    known = collections.Counter(kind for kind in kinds if kind in DTYPES)
    dtype = arguments.dtype or max(known, key=known.__getitem__, default="float32")
    tokenizer = _tokenizer(arguments, beside)
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"The tokenizer has {tokenizer.vocab_size:,} pieces, the model {config.vocab_size:,}. "
            "Give the model's own --tokenizer."
        )
    params = parameters(tensors, found.tensors)
    if broken := [found.tensors[path][0] for path in not_finite(params)]:
        print(f"warning: {some(broken)} of {arguments.source} hold NaN or infinite numbers")
    written = save_folder(folder, config, params, tokenizer, dtype)
    if (prompt := beside / load.SYSTEM_PROMPT).exists():
        (folder / load.SYSTEM_PROMPT).write_bytes(prompt.read_bytes())
    proof.prove_written(folder, written)
    proof.write_manifest(folder, param_count(params), {"dtype": dtype})
    print(f"{len(written)} tensors in {dtype}: {arguments.out}")


def _config(arguments: Arguments, beside: Path) -> ModelConfig:
    from hybriko_jax.convert.folder import CONFIG, read_config

    if arguments.config:
        return common.load_config(arguments.config).model
    if not (beside / CONFIG).exists():
        raise UserError(
            f"{beside} holds no {CONFIG}: name the model's sizes, --config hybriko_117m."
        )
    return read_config(beside / CONFIG)


def _print(found: Matches, ours: Any) -> None:
    if found.skipped:
        print(f"names are read without {', '.join(sorted(found.skipped))}")
    for path in ours:
        if path in found.tensors:
            name, turned = found.tensors[path]
            how = " (by its shape)" if path in found.by_shape else ""
            print(f"{name} -> {path}{', transposed' if turned else ''}{how}")
    for name in found.dropped:
        print(f"{name} is left out: it is no parameter")


def _leave_out_copies(arguments: Arguments, found: Matches, tensors: dict[str, Tensor]) -> None:
    """Takes tensors that are the embedding once more off those that have no place."""
    embedding, _ = found.tensors.get("embedding", ("", False))
    for name, path in list(found.left.items()):
        if not embedding or tensors[name].shape != tensors[embedding].shape:
            continue
        if _equal(tensors[name].make(), tensors[embedding].make()):
            print(f"{name} is the embedding, and left out")
            del found.left[name]
        elif path == "head":
            field, file = '"tie_word_embeddings": false', "config.json"
            if arguments.config:
                field, file = "tie_embeddings=False", f"configs/{arguments.config}.py"
            rule = json.dumps([{"pattern": re.escape(name), "to": None}])
            raise UserError(
                f"{name} differs from {embedding}, to which the config ties it. To keep it, put "
                f"{field} into {file}; to leave it out, give --names a table with {rule}."
            )


def _equal(a: Any, b: Any) -> bool:
    """Whether two arrays are the same once the finer is in the type of the coarser."""
    import numpy as np

    with np.errstate(over="ignore"):
        return any(x.astype(y.dtype).tobytes() == y.tobytes() for x, y in ((a, b), (b, a)))


def _tokenizer(arguments: Arguments, beside: Path) -> Tokenizer:
    from hybriko_jax.convert.folder import CONFIG, read_fields
    from hybriko_jax.convert.published import TOKENIZER
    from hybriko_jax.tokenizer import SentencePiece, TokenizerJson, load_tokenizer

    given = arguments.tokenizer or beside
    if given.suffix == ".json":
        fields = read_fields(beside / CONFIG)
        ids = {f"{kind}_id": fields.get(f"{kind}_token_id") for kind in ("eos", "bos", "pad")}
        return TokenizerJson(given, **ids)
    if not given.is_dir():
        return SentencePiece(given)
    if any((given / name).exists() for name in (SentencePiece.FILE, TokenizerJson.FILE)):
        return load_tokenizer(given)
    if (given / TOKENIZER).exists():
        return SentencePiece(given / TOKENIZER)
    raise UserError(
        f"{given} holds neither {SentencePiece.FILE} nor {TokenizerJson.FILE}. Give one: "
        "--tokenizer FILE."
    )


if __name__ == "__main__":
    common.run(main)

"""Bring a PyTorch model in: python -m launch.import_torch --from FOLDER --out FOLDER."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from hybriko_jax.config import HybriKoConfig
from hybriko_jax.errors import UserError
from hybriko_jax.files import new_folder
from launch import common, load


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Read HybriKo from a transformers folder, or a .safetensors or .pt file of any names."""

    source: Annotated[Path, tyro.conf.arg(name="from")]
    """A folder, or a file of weights."""
    out: Path
    """A new folder."""
    config: str | None = None
    """A name in configs/, where no config.json lies beside the weights: the model's sizes."""
    tokenizer: Path | None = None
    """A SentencePiece model, where none lies beside the weights."""
    names: Path | None = None
    """A table of names to read before ours, hybriko_jax/convert/names.json."""
    dtype: str | None = None
    """float32, bfloat16 or float16; by default as in the source."""
    overwrite: bool = False
    """Replace an earlier export."""


def main() -> None:
    common.prepare_cpu(1)
    arguments = common.parse(Arguments, command="launch.import_torch")

    from hybriko_jax.convert.config import MODEL_TYPE
    from hybriko_jax.convert.folder import CONFIG, read_config, read_fields, save_folder
    from hybriko_jax.convert.parameters import our_shapes, parameters
    from hybriko_jax.convert.proof import MANIFEST, prove_written, write_manifest
    from hybriko_jax.convert.published import FIELDS
    from hybriko_jax.convert.renaming import match, read_rules
    from hybriko_jax.convert.weights import DTYPES, read_weights, some
    from hybriko_jax.tokenizer import SentencePiece

    beside = arguments.source if arguments.source.is_dir() else arguments.source.parent
    tensors = read_weights(arguments.source)
    config = None
    if arguments.config:
        config = common.load_config(arguments.config).model
    elif (path := beside / CONFIG).exists():
        described = read_fields(path)
        if described.get("model_type") == MODEL_TYPE or not set(FIELDS) <= set(described):
            config = read_config(path)
        else:
            config = HybriKoConfig(**{name: described[name] for name in FIELDS})
    if config is None:
        raise UserError(
            f"{beside} holds no {CONFIG}: name the model's sizes, --config hybriko_117m."
        )
    rules = read_rules()
    if arguments.names:
        rules = read_rules(arguments.names) + rules
    ours = our_shapes(config)
    found = match({name: t.shape for name, t in tensors.items()}, ours, rules)
    for path in ours:
        if path in found.tensors:
            name, turned = found.tensors[path]
            how = " (by its shape)" if path in found.by_shape else ""
            print(f"{name} -> {path}{', transposed' if turned else ''}{how}")
    for name in found.dropped:
        print(f"{name} is left out: it is no parameter")
    if config.tie_embeddings and _is_copy(found, tensors):
        print("the head is the embedding, and left out")
    if wrong := [
        *found.misshapen,
        *(f"nothing found for {path}" for path in found.missing),
        *(f"{name} is not known" for name in found.left),
    ]:
        raise UserError(
            f"{arguments.source} does not fit {arguments.config or CONFIG}: {some(wrong, 8)}. "
            "Name the tensors in a table (--names TABLE.json), or give the right --config."
        )
    kinds = [t.dtype for name, t in tensors.items() if not name.endswith("lam")]
    dtype = arguments.dtype or max(set(kinds), key=kinds.count)
    if dtype not in DTYPES:
        raise UserError(f"--dtype {dtype} is none of {', '.join(DTYPES)}.")
    tokenizer = SentencePiece(arguments.tokenizer or _tokenizer_in(beside))
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"The tokenizer has {tokenizer.vocab_size:,} pieces, the model {config.vocab_size:,}. "
            "Give the model's own --tokenizer."
        )
    params = parameters(tensors, found.tensors)
    with new_folder(arguments.out, MANIFEST if arguments.overwrite else "") as folder:
        written = save_folder(folder, config, params, tokenizer, dtype)
        if (prompt := beside / load.SYSTEM_PROMPT).exists():
            (folder / load.SYSTEM_PROMPT).write_bytes(prompt.read_bytes())
        prove_written(folder, written)
        write_manifest(folder, written, {"dtype": dtype})
    print(f"{len(written)} tensors in {dtype}: {arguments.out}")


def _is_copy(found, tensors):
    """Whether the one tensor that has no place is the embedding once more; then it is dropped."""
    heads = [n for n in found.left if "head" in n or "output" in n]
    if len(heads) != 1 or "embedding" not in found.tensors:
        return False
    head, embedding = (tensors[n].make() for n in (heads[0], found.tensors["embedding"][0]))
    if head.tobytes() != embedding.tobytes():
        return False
    found.left.remove(heads[0])
    return True


def _tokenizer_in(folder):
    for name in ("tokenizer.model", "HybriKo_tok.model"):
        if (folder / name).exists():
            return folder / name
    raise UserError(f"{folder} holds no tokenizer.model. Give one: --tokenizer FILE.")


if __name__ == "__main__":
    common.run(main)

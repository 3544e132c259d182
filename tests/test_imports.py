"""Imports go down only: the table of docs/architecture.md, checked on the syntax tree."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What a part of hybriko_jax may import of hybriko_jax, besides itself, `errors` and `files`.
ALLOWED = {
    "errors": (),
    "files": (),
    "config": (),
    "tokenizer": (),
    "sharding": ("config",),
    "barrier": (),
    "memory": (),
    "quant": ("sharding", "barrier"),
    "lora": ("quant", "config"),
    "int8": (),
    "layers": ("lora", "quant", "int8", "sharding", "barrier"),
    "models": ("layers", "sharding", "config"),
    "korean": (),
    "linux": (),
    "prompts": ("tokenizer",),
    "data": ("prompts", "linux", "korean", "tokenizer", "sharding", "config"),
    "decode": ("models", "layers", "prompts", "korean", "tokenizer"),
    "translation": ("data", "prompts", "korean"),
    "convert": ("models", "lora", "quant", "int8", "tokenizer", "config"),
    "training": (*("models", "data", "layers", "lora", "quant", "sharding", "memory", "config"),),
    "evaluate": (
        *("training", "decode", "models", "data", "linux", "prompts", "tokenizer", "config"),
    ),
    "console": (
        *("evaluate", "translation", "decode", "convert", "training", "models", "data", "linux"),
        *("lora", "prompts", "tokenizer", "korean", "config"),
    ),
}
# Heavy dependencies and the one part that may name them.
HOMES = {
    "tensorflow_datasets": "data",
    "grain": "data",
    "openpyxl": "data",
    "openai": "data",
    "sacrebleu": "evaluate",
    "sentencex": "translation",
    "markdown_it": "translation",
    "prompt_toolkit": "console",
    "torch": "convert",
    "transformers": "convert",
}

FILES = sorted((ROOT / "hybriko_jax").rglob("*.py"))


def part_of(path):
    return path.relative_to(ROOT / "hybriko_jax").parts[0].removesuffix(".py")


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path):
    part = part_of(path)
    for name in imported(path):
        top, *rest = name.split(".")
        assert top not in ("launch", "configs", "tests")
        if top == "hybriko_jax" and rest:
            assert rest[0] in (*ALLOWED[part], part, "errors", "files"), f"{path} imports {name}"
        if top in HOMES:
            assert HOMES[top] == part, f"{path} imports {name}"


def test_a_config_is_read_without_jax():
    """The launcher decides on devices before JAX starts."""
    code = "import sys, configs.tiny, launch.common, launch.pretrain; print('jax' in sys.modules)"
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "False"

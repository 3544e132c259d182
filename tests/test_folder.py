"""A model as a folder: out and back is identical, and what is wrong is said."""

import dataclasses
import functools
import json
import subprocess
import sys
from pathlib import Path

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from hybriko_jax.convert.config import from_transformers, to_transformers
from hybriko_jax.convert.folder import load_folder, save_folder
from hybriko_jax.data.sample import sample_documents
from hybriko_jax.errors import UserError
from hybriko_jax.files import new_folder
from hybriko_jax.models import build
from hybriko_jax.tokenizer import train_sentencepiece

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tokenizer():
    return train_sentencepiece(sample_documents(60), 1500)


@functools.cache
def initial(config):
    tokens = jnp.zeros((1, 1), jnp.int32)
    return nn.unbox(jax.jit(build(config).init)(jax.random.key(0), tokens, tokens))["params"]


def make(config):
    return jax.tree.map(np.asarray, initial(config))


@pytest.mark.parametrize("changes", [{}, {"tie_embeddings": False, "conv_width": 4}])
def test_out_and_back_is_identical(small, tokenizer, tmp_path, changes):
    config = dataclasses.replace(small, **changes)
    params = make(config)
    save_folder(tmp_path, config, params, tokenizer, "float32")
    loaded, back, again = load_folder(tmp_path)
    assert loaded == config and again.digest() == tokenizer.digest()
    chex.assert_trees_all_equal(back, params)


def test_bfloat16_keeps_the_decay_exact(small, tokenizer, tmp_path):
    params = make(small)
    save_folder(tmp_path, small, params, tokenizer, "bfloat16")
    _, back, _ = load_folder(tmp_path)
    rounded = jax.tree_util.tree_map_with_path(
        lambda path, p: (
            p if "lambda" in str(path) else np.asarray(jnp.asarray(p, jnp.bfloat16), np.float32)
        ),
        params,
    )
    chex.assert_trees_all_equal(back, rounded)


def test_kernels_lie_as_pytorch_has_them(small, tokenizer, tmp_path):
    params = make(small)
    save_folder(tmp_path, small, params, tokenizer, "float32")
    tensors = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    up = tensors["model.layers.1.mlp.up_proj.weight"]
    np.testing.assert_array_equal(up, params["layers_1"]["mlp"]["up"]["kernel"].T)
    assert "lm_head.weight" not in tensors
    described = json.loads((tmp_path / "config.json").read_text())
    assert described["hidden_size"] == small.d_model
    assert described["layer_types"].count("full_attention") == 1


def test_a_file_is_split_at_the_size_asked_for(small, tokenizer, tmp_path):
    params = make(small)
    save_folder(tmp_path, small, params, tokenizer, "float32", shard_bytes=20_000)
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 2 and not (tmp_path / "model.safetensors").exists()
    assert all(
        p.stat().st_size < 30_000 or len(safetensors.numpy.load_file(p)) == 1 for p in shards
    )
    chex.assert_trees_all_equal(load_folder(tmp_path)[1], params)
    shards[1].unlink()
    with pytest.raises(UserError, match="damaged or missing"):
        load_folder(tmp_path)


def test_float16_that_would_overflow_is_refused(small, tokenizer, tmp_path):
    params = make(small)
    params["layers_1"]["mlp"]["up"]["kernel"] = params["layers_1"]["mlp"]["up"]["kernel"] * 1e6
    with pytest.raises(
        UserError, match=r"layers\.1\.mlp\.up_proj\.weight holds .* beyond the 65504"
    ):
        save_folder(tmp_path, small, params, tokenizer, "float16")


def test_a_new_folder_is_whole_or_not_there(tmp_path):
    place = tmp_path / "deep" / "m"
    with pytest.raises(ZeroDivisionError), new_folder(place) as folder:
        (folder / "x").write_text("half")
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    place.mkdir(parents=True)
    with new_folder(place) as folder:
        (folder / "x").write_text("whole")
    assert [p.name for p in place.parent.rglob("*")] == ["m", "x"]
    with pytest.raises(UserError, match="is not empty"), new_folder(place):
        pass
    with pytest.raises(UserError, match="is no earlier export"), new_folder(place, "manifest.json"):
        pass
    with new_folder(place, "x") as folder:
        (folder / "y").write_text("new")
    assert [p.name for p in place.iterdir()] == ["y"]
    with pytest.raises(UserError, match="is a file"), new_folder(place / "y"):
        pass
    with pytest.raises(UserError, match="cannot be written"), new_folder(place / "y" / "z"):
        pass
    with (
        new_folder(tmp_path / "m"),
        pytest.raises(UserError, match="Another process is writing"),
        new_folder(tmp_path / "m"),
    ):
        pass


def files(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_the_old_folder_survives_what_fails_at_the_end(tmp_path):
    place = tmp_path / "m"
    with new_folder(place) as folder:
        (folder / "x").write_text("old")
    with pytest.raises(UserError, match="cannot be replaced"), new_folder(place, "x") as folder:
        folder.rmdir()  # so that it cannot be moved
    assert files(tmp_path) == {"m/x"}
    (tmp_path / "link").symlink_to(place)
    with new_folder(tmp_path / "link", "x") as folder:
        (folder / "y").write_text("new")
    assert (tmp_path / "link").is_symlink() and files(place) == {"y"}


KILLED = """
import os, pathlib, sys
from hybriko_jax.files import new_folder
rename, moves = pathlib.Path.rename, int(sys.argv[2])
def counted(path, target):
    global moves
    rename(path, target)
    moves -= 1
    if not moves:
        os.kill(os.getpid(), 9)
pathlib.Path.rename = counted
with new_folder(pathlib.Path(sys.argv[1]), "x") as folder:
    (folder / "x").write_text("new")
    if not moves:
        os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("moves,holds", [(0, "old"), (1, "old"), (2, "new")])
def test_after_a_kill_the_next_call_clears_up(tmp_path, moves, holds):
    place = tmp_path / "m"
    with new_folder(place) as folder:
        (folder / "x").write_text("old")
    ran = subprocess.run([sys.executable, "-c", KILLED, place, str(moves)], cwd=ROOT)
    assert ran.returncode == -9 and len(files(tmp_path)) == 2
    with pytest.raises(UserError, match="is not empty"), new_folder(place):
        pass
    assert files(tmp_path) == {"m/x"} and (place / "x").read_text() == holds


@pytest.mark.parametrize(
    "field,value,message",
    [
        ("model_type", "llama", "model_type is 'llama', none of hybriko, gpt_neox"),
        ("hidden_act", "swish7", "hidden_act: 'swish7' is none of"),
        ("layer_types", ["mamba"], "layer_types: 'mamba' is none of"),
        ("rope_parameters", None, "wrong kind"),
        ("intermediate_size", 100, "not a multiple"),
        ("rope_parameters", {"rope_type": "yarn", "rope_theta": 1e4}, "rope_type is 'yarn'"),
        ("num_hidden_layers", 9, "num_hidden_layers=9, but layer_types names 3"),
        ("num_hidden_layers", 3.0, "num_hidden_layers=3.0 is of the wrong kind: int is wanted"),
        ("tie_word_embeddings", "yes", "tie_word_embeddings='yes' is of the wrong kind"),
        ("intermediate_size", "96", "intermediate_size='96' is of the wrong kind"),
        ("layer_types", None, "layer_types=None is of the wrong kind: list is wanted"),
        ("rope_parameters", {"rope_theta": "1e4"}, "rope_theta='1e4' is of the wrong kind"),
        ("sliding_window", [], "sliding_window=.. is of the wrong kind: int or null is wanted"),
        ("model_type", [], "model_type is .., none of"),
        ("vocab_size", 10**14, "vocab_size=100000000000000 is more than any model has"),
        ("hidden_size", 0, "d_model=0 must be positive"),
    ],
)
def test_the_config_of_another_model_is_refused(small, field, value, message):
    described = to_transformers(small)
    assert from_transformers(described) == small
    with pytest.raises(UserError, match=message):
        from_transformers(described | {field: value})
    del described[field]
    with pytest.raises(UserError, match=f"{field}' is missing|model_type is None"):
        from_transformers(described)


def test_what_cannot_be_read_is_said(small, tokenizer, tmp_path):
    with pytest.raises(UserError, match="config.json cannot be read"):
        load_folder(tmp_path)
    save_folder(tmp_path, small, make(small), tokenizer, "float32")
    (tmp_path / "tokenizer.model").rename(tmp_path / "aside")
    with pytest.raises(UserError, match="holds neither tokenizer.model nor tokenizer.json"):
        load_folder(tmp_path)
    (tmp_path / "aside").rename(tmp_path / "tokenizer.model")
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[:-100])
    with pytest.raises(UserError, match="model.safetensors is damaged"):
        load_folder(tmp_path)


def test_tensors_that_do_not_fit_are_named(small, tokenizer, tmp_path):
    save_folder(tmp_path, small, make(small), tokenizer, "float32")
    weights = tmp_path / "model.safetensors"
    tensors = safetensors.numpy.load_file(weights)
    up = tensors.pop("model.layers.1.mlp.up_proj.weight")
    tensors["model.layers.7.mlp.up_proj.weight"] = up
    tensors["model.norm.weight"] = np.zeros(8, np.float32)
    safetensors.numpy.save_file(tensors, weights)
    with pytest.raises(UserError) as e:
        load_folder(tmp_path)
    assert "model.layers.1.mlp.up_proj.weight is missing" in str(e.value)
    assert "model.layers.7.mlp.up_proj.weight is not of this model" in str(e.value)
    assert "model.norm.weight has shape (8,), not (32,)" in str(e.value)

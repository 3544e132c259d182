"""A model as a folder: out and back is identical, and what is wrong is said."""

import dataclasses
import json

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from hybriko_jax.convert.folder import load_folder, save_folder
from hybriko_jax.data.sample import sample_documents
from hybriko_jax.errors import UserError
from hybriko_jax.models import build
from hybriko_jax.tokenizer import train_sentencepiece


@pytest.fixture(scope="module")
def tokenizer():
    return train_sentencepiece(sample_documents(60), 1500)


def make(config):
    tokens = jnp.zeros((1, 1), jnp.int32)
    params = nn.unbox(jax.jit(build(config).init)(jax.random.key(0), tokens, tokens))["params"]
    return jax.tree.map(np.asarray, params)


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
    assert json.loads((tmp_path / "config.json").read_text())["d_model"] == small.d_model


def test_a_folder_in_use_is_refused(small, tokenizer, tmp_path):
    (tmp_path / "x").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        save_folder(tmp_path, small, make(small), tokenizer, "float32")


def test_what_cannot_be_read_is_said(small, tokenizer, tmp_path):
    with pytest.raises(UserError, match="not a model that can be read"):
        load_folder(tmp_path)
    save_folder(tmp_path / "m", small, make(small), tokenizer, "float32")
    described = (tmp_path / "m" / "config.json").read_text()
    (tmp_path / "m" / "config.json").write_text(described.replace('"hybriko"', '"llama"'))
    with pytest.raises(UserError, match="model_type is not 'hybriko'"):
        load_folder(tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text(described)
    tokenizer_file = tmp_path / "m" / "tokenizer.model"
    tokenizer_file.rename(tmp_path / "aside")
    with pytest.raises(UserError, match="not a model that can be read .*tokenizer.model"):
        load_folder(tmp_path / "m")
    (tmp_path / "aside").rename(tokenizer_file)
    weights = (tmp_path / "m" / "model.safetensors").read_bytes()
    (tmp_path / "m" / "model.safetensors").write_bytes(weights[:-100])
    with pytest.raises(UserError, match="not a model that can be read"):
        load_folder(tmp_path / "m")


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

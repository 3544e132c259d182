"""4-bit folders of transformers: read bit for bit, and written so that transformers reads them."""

import copy
import dataclasses
import json
from typing import Any

import bitsandbytes.functional as peer
import numpy as np
import pytest
import torch
import transformers

from hybriko_jax.convert.bitsandbytes import quantization_config, read_nf4, write_nf4
from hybriko_jax.convert.weights import Tensor, read_weights, write_pt, write_weights
from hybriko_jax.errors import UserError
from hybriko_jax.quant import dequantize, quantize

STATE = ".quant_state.bitsandbytes__nf4"
MATRICES = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The folder of a small GPT-NeoX in bfloat16."""
    config = transformers.GPTNeoXConfig(
        vocab_size=96,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=32,
        dtype="bfloat16",
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("plain")
    transformers.GPTNeoXForCausalLM(config).bfloat16().save_pretrained(folder)
    return folder


def load(folder, **options):
    return transformers.GPTNeoXForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, device_map="cpu", **options
    )


def quantized(folder, storage="uint8"):
    """The model, quantised by bitsandbytes as it is loaded."""
    config = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_quant_storage=storage,
    )
    return load(folder, quantization_config=config)


def four_bit(model) -> dict[str, Any]:
    """Quantised weights of a model of transformers by name."""
    return {n: p for n, p in model.named_parameters() if hasattr(p, "quant_state")}


def dequantized(weight, dtype):
    state = copy.copy(weight.quant_state)
    state.dtype = dtype
    return peer.dequantize_4bit(weight.data, state).float().numpy()


@pytest.fixture(scope="module", params=["uint8", "bfloat16"])
def theirs(request, plain, tmp_path_factory):
    """A model quantised by bitsandbytes, its codes stored in one of two types, and its folder."""
    model = quantized(plain, request.param)
    folder = tmp_path_factory.mktemp("theirs")
    model.save_pretrained(folder)
    return model, folder


def test_their_folder_is_read_bit_for_bit(theirs):
    model, folder = theirs
    leaves, rest = read_nf4(read_weights(folder))
    expected = four_bit(model)
    assert sorted(leaves) == sorted(expected) and len(leaves) == 2 * len(MATRICES)
    for name, leaf in leaves.items():
        for dtype in (torch.float32, torch.bfloat16):
            kernel_FD = dequantize(leaf, str(dtype).removeprefix("torch."))
            np.testing.assert_array_equal(
                np.asarray(kernel_FD).astype(np.float32), dequantized(expected[name], dtype)
            )
    assert not any("quant" in name or "absmax" in name for name in rest)
    # transformers calls the head so in memory, and otherwise in files.
    plain = {n.replace("lm_head.", "embed_out.") for n, _ in model.named_parameters()}
    assert set(rest) | set(leaves) == plain


def test_out_and_back_is_identical(plain, tmp_path):
    quantized(plain).save_pretrained(tmp_path)
    tensors = read_weights(tmp_path)
    leaves, rest = read_nf4(tensors)
    written: dict[str, Tensor] = {}
    for name, leaf in leaves.items():
        written |= write_nf4(name, leaf, "bfloat16")
    assert set(written) | set(rest) == set(tensors)
    for name, tensor in written.items():
        assert (tensor.shape, tensor.dtype) == (tensors[name].shape, tensors[name].dtype), name
        assert tensor.make().tobytes() == tensors[name].make().tobytes(), name


@pytest.mark.parametrize("shard_bytes", [10**9, 40_000], ids=["whole", "shards"])
def test_transformers_loads_what_we_write(plain, tmp_path, shard_bytes):
    tensors: dict[str, Tensor] = {}
    leaves = {}
    for name, tensor in read_weights(plain).items():
        if name.split(".")[-2] in MATRICES and name.endswith(".weight"):
            leaves[name] = quantize(tensor.make().T)
            tensors |= write_nf4(name, leaves[name], "bfloat16")
        else:
            tensors[name] = tensor
    write_weights(tmp_path, tensors, shard_bytes)
    described = json.loads((plain / "config.json").read_text())
    described["quantization_config"] = quantization_config("float32")
    (tmp_path / "config.json").write_text(json.dumps(described))
    model = load(tmp_path)
    loaded = four_bit(model)
    assert sorted(loaded) == sorted(leaves)
    for name, weight in loaded.items():
        kernel_FD = np.asarray(dequantize(leaves[name]))
        np.testing.assert_array_equal(dequantized(weight, torch.float32), kernel_FD)
        assert weight.quant_state.dtype == torch.bfloat16
    # Quantised by bitsandbytes itself, the model is the same but for a few scales.
    tokens = torch.arange(24).reshape(1, -1)
    logits, expected = model(tokens).logits, quantized(plain)(tokens).logits
    assert (logits - expected).abs().max() < 0.02 * expected.abs().max()


def test_our_leaf_is_read_from_a_pt_file(tmp_path):
    leaf = quantize(random_kernel())
    write_pt(tmp_path / "w.pt", write_nf4("w", leaf, "float32"))
    leaves, rest = read_nf4(read_weights(tmp_path / "w.pt"))
    assert not rest
    np.testing.assert_array_equal(dequantize(leaves["w"]), dequantize(leaf))


def random_kernel(D=128):
    return np.random.default_rng(0).standard_normal((D, 64)).astype(np.float32)


def saved(kernel_DF, **options):
    """The tensors of one weight "w", quantised by bitsandbytes."""
    weight = torch.from_numpy(np.ascontiguousarray(kernel_DF.T))
    codes, state = peer.quantize_4bit(weight, **options)
    described = {"w": codes} | {f"w.{k}": v for k, v in state.as_dict(packed=True).items()}
    return {name: tensor(t.numpy()) for name, t in described.items()}


def tensor(a):
    return Tensor(a.shape, a.dtype.name, lambda: a)


@pytest.mark.parametrize(
    "options,said",
    [
        ({"quant_type": "fp4"}, "w is fp4"),
        ({"blocksize": 128}, "blocks of 128 weights"),
        ({"compress_statistics": False}, "None scales"),
    ],
    ids=["fp4", "large blocks", "quantised once"],
)
def test_other_formats_are_refused(options, said):
    options = {"quant_type": "nf4", "compress_statistics": True} | options
    with pytest.raises(UserError, match=f"{said}.*bnb_4bit_quant_type='nf4'"):
        read_nf4(saved(random_kernel(), **options))


def test_blocks_that_span_rows_are_refused():
    tensors = saved(random_kernel(96), quant_type="nf4", compress_statistics=True)
    with pytest.raises(UserError, match="w has 96 inputs.*blocks of 64"):
        read_nf4(tensors)


@pytest.mark.parametrize("part", ["", ".absmax", ".nested_absmax", ".nested_quant_map"])
def test_damaged_parts_are_named(part):
    tensors = write_nf4("w", quantize(random_kernel()), "float32")
    found = tensors.pop(f"w{part}")
    with pytest.raises(UserError, match=f"w{part} should be .* long, but is missing"):
        read_nf4(tensors)
    tensors[f"w{part}"] = dataclasses.replace(found, make=lambda: found.make().reshape(-1)[:-1])
    with pytest.raises(UserError, match=rf"w{part} should be (\d+) long, but is \d+ long"):
        read_nf4(tensors)


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", '{"blocksize": 64, "shape": [8]}', "\xff"])
def test_a_damaged_state_is_named(text):
    tensors = write_nf4("w", quantize(random_kernel()), "float32")
    tensors[f"w{STATE}"] = tensor(np.frombuffer(text.encode("latin-1"), np.uint8))
    with pytest.raises(UserError, match="w: bad quant_state"):
        read_nf4(tensors)


def test_a_folder_without_4_bit_weights_is_all_rest():
    tensors = {"w": tensor(random_kernel())}
    assert read_nf4(tensors) == ({}, tensors)

"""Models of PyTorch come in under any names, and what does not fit is said."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import chex
import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from hybriko_jax.config import HybriKoConfig
from hybriko_jax.convert.folder import load_folder, save_folder
from hybriko_jax.convert.parameters import our_shapes
from hybriko_jax.convert.renaming import Rule, match, read_rules
from hybriko_jax.convert.tables import HYBRIKO, torch_name, transposed
from hybriko_jax.convert.weights import read_weights
from hybriko_jax.data.sample import sample_documents
from hybriko_jax.errors import UserError
from hybriko_jax.models import build
from hybriko_jax.tokenizer import train_sentencepiece

ROOT = Path(__file__).parents[1]
# Sizes that no two kinds of tensors share where the names would not tell them apart.
CONFIG = HybriKoConfig(
    vocab_size=1500, d_model=24, n_layers=3, n_heads=4, n_kv_heads=1, max_seq_len=64
)


@pytest.fixture(scope="module")
def tokenizer():
    return train_sentencepiece(sample_documents(60), 1500)


@pytest.fixture(scope="module")
def params():
    tokens = jnp.zeros((1, 1), jnp.int32)
    made = nn.unbox(jax.jit(build(CONFIG).init)(jax.random.key(0), tokens, tokens))["params"]
    return jax.tree.map(np.asarray, made)


def foreign(params, rename):
    """Tensors under somebody else's names, as PyTorch has them."""
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    return {
        rename(torch_name(CONFIG, path)): np.ascontiguousarray(p.T)
        if transposed(path)
        else np.asarray(p)
        for path, p in flat.items()
    }


def shapes(tensors):
    return {name: t.shape for name, t in tensors.items()}


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "launch.import_torch", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )


def test_the_shipped_table_knows_our_own_names_with_and_without_prefix():
    ours = our_shapes(CONFIG)
    for prefix in ("model.", ""):
        theirs = {
            torch_name(CONFIG, p).replace("model.", prefix, 1): s[::-1] if transposed(p) else s
            for p, s in ours.items()
        }
        found = match(theirs, ours, read_rules())
        assert len(found.tensors) == len(ours) and not found.by_shape
        for path, (name, turned) in found.tensors.items():
            assert name == torch_name(CONFIG, path).replace("model.", prefix, 1)
            assert turned == transposed(path)
    assert len(set(HYBRIKO.values())) == len(HYBRIKO)


def test_shapes_decide_only_where_they_are_alone(params):
    strange = {"q_proj": "query_thing", "embed_tokens": "words", "up_proj": "wide_a"}
    strange |= {"gate_proj": "wide_b"}

    def rename(name):
        for a, b in strange.items():
            name = name.replace(a, b)
        return name

    found = match(shapes(foreign(params, rename)), our_shapes(CONFIG), read_rules())
    # The query kernel is the only square one left in its layer; gate and up have one shape.
    assert found.tensors["embedding"] == ("model.words.weight", False)
    assert "layers_2/attention/q/kernel" in found.by_shape
    assert "layers_0/mlp/gate/kernel" in found.missing
    assert "model.layers.0.mlp.wide_a.weight" in found.left


def test_a_rule_of_the_user_goes_first_and_two_tensors_for_one_place_are_refused(params):
    theirs = shapes(foreign(params, lambda n: n.replace("up_proj", "wide")))
    rule = Rule(r"model\.layers\.(\d+)\.mlp\.wide\.weight", r"layers_\1/mlp/up/kernel", True)
    found = match(theirs, our_shapes(CONFIG), [rule, *read_rules()])
    assert not found.missing and not found.left and not found.by_shape
    again = Rule(r"model\.layers\.(\d+)\.mlp\.gate_proj\.weight", rule.to, True)
    with pytest.raises(UserError, match="would both be layers_0/mlp/up/kernel"):
        match(theirs, our_shapes(CONFIG), [rule, again, *read_rules()])
    drop = Rule(r"model\.norm\.weight", None, False)
    assert match(theirs, our_shapes(CONFIG), [drop, rule]).dropped == ["model.norm.weight"]


def test_a_tensor_of_another_shape_is_named(params):
    theirs = shapes(foreign(params, str)) | {"model.norm.weight": (7,)}
    found = match(theirs, our_shapes(CONFIG), read_rules())
    assert found.misshapen == ["model.norm.weight is (7,), norm/scale is (24,)"]


@pytest.mark.parametrize("text", ["[", "{}", '[{"pattern": "("}]', '[{"pattern": "(", "to": "x"}]'])
def test_a_broken_table_is_refused(tmp_path, text):
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(UserError, match="not a table of names"):
        read_rules(tmp_path / "t.json")


def test_a_file_of_foreign_names_comes_in_through_the_command(params, tokenizer, tmp_path):
    def rename(name):
        name = name.replace("griffin.x_proj", "griffin.foo").replace("griffin.out_proj", "bar")
        return name.replace("model.", "backbone.")

    source = tmp_path / "theirs"
    source.mkdir()
    tensors = foreign(params, rename) | {"lm_head.weight": np.asarray(params["embedding"])}
    tensors["backbone.layers.2.attention.inv_freq"] = np.zeros(3, np.float32)
    safetensors.numpy.save_file(tensors, source / "model.safetensors")
    fields = ("d_model", "n_layers", "vocab_size", "n_heads", "n_kv_heads", "ff_mult")
    described = {f: getattr(CONFIG, f) for f in (*fields, "max_seq_len")}
    (source / "config.json").write_text(json.dumps(described))
    tokenizer.save(source / "HybriKo_tok.model")

    out = run("--from", source, "--out", tmp_path / "no")
    assert out.returncode == 1 and "backbone.layers.0.griffin.foo.weight is not known" in out.stderr
    assert len(out.stderr.strip().splitlines()) == 1 and not (tmp_path / "no").exists()

    # With the one named, the other is the only one of its shape.
    rule = {"pattern": r"backbone\.layers\.(\d+)\.griffin\.foo\.weight", "transpose": True}
    (tmp_path / "names.json").write_text(json.dumps([rule | {"to": r"layers_\1/griffin/x/kernel"}]))
    table = ("--names", tmp_path / "names.json")
    out = run("--from", source, "--out", tmp_path / "ours", *table)
    assert out.returncode == 0, out.stderr
    assert "bar.weight -> layers_1/griffin/out/kernel, transposed (by its shape)" in out.stdout
    assert "inv_freq is left out: it is no parameter" in out.stdout
    assert "the head is the embedding" in out.stdout
    config, back, _ = load_folder(tmp_path / "ours")
    assert config == CONFIG
    chex.assert_trees_all_equal(back, params)
    assert json.loads((tmp_path / "ours" / "manifest.json").read_text())["parameters"] == sum(
        p.size for p in jax.tree.leaves(params)
    )
    again = run("--from", source, "--out", tmp_path / "ours", *table)
    assert again.returncode == 1 and "is not empty" in again.stderr


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_pickle_that_would_run_code_has_no_effect(params, tmp_path):
    torch = pytest.importorskip("torch")
    bomb = Bomb(tmp_path / "ran")
    torch.save({"model_state_dict": {"a": torch.zeros(2)}, "x": bomb}, tmp_path / "bad.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(bomb))
    for name in ("bad.pt", "plain.pt"):
        with pytest.raises(UserError, match=r"could run code|is damaged"):
            read_weights(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("key", ["model_state_dict", "state_dict", None])
def test_a_pt_file_gives_the_same_bits(params, tmp_path, dtype, key):
    torch = pytest.importorskip("torch")
    made = torch.randn(3, 5).to(getattr(torch, dtype))
    state = {"a": made, "b": made.T}
    torch.save({key: state} if key else state, tmp_path / "m.pt")
    found = read_weights(tmp_path / "m.pt")
    assert found["a"].dtype == dtype and found["b"].shape == (5, 3)
    np.testing.assert_array_equal(found["b"].make().astype(np.float32), made.T.float().numpy())


def test_a_pt_file_of_before_is_read(tmp_path):
    torch = pytest.importorskip("torch")
    made = {"a": torch.randn(3, 5)}
    torch.save(made, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    np.testing.assert_array_equal(read_weights(tmp_path / "old.pt")["a"].make(), made["a"].numpy())


def test_weights_in_bytes_are_refused(params, tokenizer, tmp_path):
    """uint8 is how packed weights are kept, and is no weight by itself."""
    save_folder(tmp_path, CONFIG, params, tokenizer, "float32")
    tensors = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"].astype(np.uint8)
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="model.norm.weight is uint8"):
        load_folder(tmp_path)


@pytest.mark.parametrize(
    "table,message",
    [
        ([{"pattern": "a", "to": r"\1/x"}], "invalid group reference"),
        ([{"pattern": "a", "to": 3}], "not a table of names"),
        ([{"pattern": "a", "to": "b", "transpose": "no"}], "transpose is 'no'"),
    ],
)
def test_a_table_of_names_that_cannot_work_is_refused(tmp_path, table, message):
    (tmp_path / "t.json").write_text(json.dumps(table))
    with pytest.raises(UserError, match=message):
        read_rules(tmp_path / "t.json")
    with pytest.raises(UserError, match="not a table of names"):
        read_rules(tmp_path / "none.json")


@pytest.mark.parametrize(
    "content,message",
    [
        ([1, 2], "holds no state_dict"),
        ({"a": 1}, "what is no tensor: a"),
        ({7: "int"}, "what is no tensor: 7"),
        ({"a": "int"}, "what is no tensor|can be read"),
    ],
)
def test_a_pt_file_without_tensors_is_refused(tmp_path, content, message):
    torch = pytest.importorskip("torch")
    torch.save(content, tmp_path / "m.pt")
    with pytest.raises(UserError, match=message):
        read_weights(tmp_path / "m.pt")
    torch.save({"a": torch.zeros(2, dtype=torch.int64)}, tmp_path / "i.pt")
    with pytest.raises(UserError, match="a is int64; float32"):
        read_weights(tmp_path / "i.pt")["a"].make()


def test_a_config_that_is_no_json_is_one_line(tmp_path, params, tokenizer):
    save_folder(tmp_path, CONFIG, params, tokenizer, "float32")
    (tmp_path / "config.json").write_text("{")
    out = run("--from", tmp_path, "--out", tmp_path / "out")
    assert out.returncode == 1 and "config.json cannot be read" in out.stderr
    assert len(out.stderr.strip().splitlines()) == 1


def test_files_that_cannot_be_read_are_named(small, tokenizer, params, tmp_path):
    save_folder(tmp_path, CONFIG, params, tokenizer, "float32")
    for name, change, message in (
        ("model.safetensors", lambda b: b[:-9], "is damaged"),
        ("model.safetensors", lambda b: b"\xff" * 40, "is damaged"),
    ):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(change(whole))
        with pytest.raises(UserError, match=message):
            read_weights(tmp_path)
        (tmp_path / name).write_bytes(whole)
    with pytest.raises(UserError, match="give a folder"):
        read_weights(tmp_path / "config.json")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match="holds no weights"):
        read_weights(tmp_path)

"""Models of PyTorch come in under any names, and what does not fit is said."""

import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import chex
import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import tokenizers
import tokenizers.decoders
import tokenizers.models
import tokenizers.pre_tokenizers
import tokenizers.trainers

from hybriko_jax.config import GPTNeoXConfig, HybriKoConfig
from hybriko_jax.convert.config import PUBLISHED
from hybriko_jax.convert.folder import load_folder, save_folder
from hybriko_jax.convert.parameters import our_shapes
from hybriko_jax.convert.renaming import Rule, match, read_rules
from hybriko_jax.convert.tables import HYBRIKO, torch_name, transposed
from hybriko_jax.convert.weights import read_weights
from hybriko_jax.data.sample import sample_documents
from hybriko_jax.errors import UserError
from hybriko_jax.files import new_folder
from hybriko_jax.models import build
from hybriko_jax.tokenizer import TokenizerJson, train_sentencepiece
from launch.import_torch import Arguments, bring_in

ROOT = Path(__file__).parents[1]
# Sizes that no two kinds of tensors share where the names would not tell them apart.
CONFIG = HybriKoConfig(
    vocab_size=1500, d_model=24, n_layers=3, n_heads=4, n_kv_heads=1, max_seq_len=64
)
NEOX = GPTNeoXConfig(vocab_size=300, d_model=16, n_layers=2, n_heads=2, d_ff=40, max_seq_len=32)


@pytest.fixture(scope="module")
def tokenizer():
    return train_sentencepiece(sample_documents(60), 1500)


def make(config):
    tokens = jnp.zeros((1, 1), jnp.int32)
    made = nn.unbox(jax.jit(build(config).init)(jax.random.key(0), tokens, tokens))["params"]
    return jax.tree.map(np.asarray, made)


@pytest.fixture(scope="module")
def params():
    return make(CONFIG)


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


@pytest.mark.parametrize("config", [CONFIG, NEOX], ids=["hybriko", "gpt_neox"])
@pytest.mark.parametrize(
    "before,after",
    [
        ("", ""),
        ("(?:model|gpt_neox).", ""),
        ("^", "module."),
        ("^", "_orig_mod.module."),
        (r"\.(\d+)\.", r".\1._orig_mod."),
        ("embed_out", "lm_head"),
    ],
)
def test_the_shipped_table_knows_our_own_names_whatever_stands_before_them(config, before, after):
    ours = our_shapes(config)
    renamed = {path: re.sub(before, after, torch_name(config, path)) for path in ours}
    theirs = {n: ours[p][::-1] if transposed(p) else ours[p] for p, n in renamed.items()}
    # Tables of old versions, and a counter of averaged models.
    theirs |= {"module.layers.0.attention.bias": (1, 1), "n_averaged": ()}
    found = match(theirs, ours, read_rules())
    assert len(found.tensors) == len(ours) and not found.by_shape and not found.left
    for path, (name, turned) in found.tensors.items():
        assert name == renamed[path] and turned == transposed(path)
    assert found.dropped == ["module.layers.0.attention.bias", "n_averaged"]
    wrapped = "_orig_mod" in after
    assert ("_orig_mod." in found.skipped) == wrapped
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
    up = "model.layers.1.mlp.up_proj.weight"
    theirs = shapes(foreign(params, str)) | {"model.norm.weight": (7,), up: (72, 7)}
    found = match(theirs, our_shapes(CONFIG), read_rules())
    assert found.misshapen == {
        "norm/scale": "model.norm.weight is (7,), and should be (24,)",
        "layers_1/mlp/up/kernel": f"{up} is (72, 7), and should be (72, 24)",
    }
    assert not found.missing and not found.left


def bring(source, out, **options):
    """What `launch.import_torch` does, in this process."""
    with new_folder(out) as folder:
        bring_in(Arguments(source=source, out=out, **options), folder)


@pytest.fixture
def source(params, tokenizer, tmp_path):
    """A folder of ours, and a function that changes its tensors."""
    folder = tmp_path / "source"
    folder.mkdir()
    save_folder(folder, CONFIG, params, tokenizer, "bfloat16")
    weights = folder / "model.safetensors"
    tensors = safetensors.numpy.load_file(weights)
    return folder, lambda changes: safetensors.numpy.save_file(tensors | changes, weights)


def test_a_head_that_is_the_embedding_in_another_type_is_left_out(source, params, tmp_path, capsys):
    folder, change = source
    wide, narrow = params["embedding"], params["embedding"].astype(ml_dtypes.bfloat16)
    for i, (embedding, head) in enumerate(((narrow, wide), (wide, narrow))):
        change({"model.embed_tokens.weight": embedding, "lm_head.weight": head})
        bring(folder, tmp_path / f"{i}")
        assert "lm_head.weight is the embedding, and left out" in capsys.readouterr().out
    change({"lm_head.weight": params["embedding"].astype(np.float16)})
    with pytest.raises(UserError, match=r"lm_head.weight differs from model.embed_tokens.weight"):
        bring(folder, tmp_path / "no")


def test_a_head_of_its_own_is_refused_kept_or_left_out(source, params, tmp_path):
    folder, change = source
    change({"lm_head.weight": params["embedding"][::-1].copy()})
    with pytest.raises(UserError) as e:
        bring(folder, tmp_path / "no")
    (tmp_path / "drop.json").write_text(re.search(r"\[\{.*\}\]", str(e.value))[0])
    bring(folder, tmp_path / "dropped", names=tmp_path / "drop.json")
    assert load_folder(tmp_path / "dropped")[0] == CONFIG
    described = json.loads((folder / "config.json").read_text())
    assert '"tie_word_embeddings": false' in str(e.value)
    (folder / "config.json").write_text(json.dumps(described | {"tie_word_embeddings": False}))
    bring(folder, tmp_path / "kept", dtype="float32")
    head = load_folder(tmp_path / "kept")[1]["head"]
    np.testing.assert_array_equal(head, params["embedding"][::-1])


def test_weights_that_are_not_finite_come_in_with_a_warning(source, tmp_path, capsys):
    folder, change = source
    change({"model.norm.weight": np.full(24, np.nan, np.float32)})
    bring(folder, tmp_path / "out")
    (warning,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("warning")]
    assert "model.norm.weight of" in warning and "NaN" in warning


@pytest.mark.parametrize("value,said", [("24", "'24'"), (None, "None"), (24.0, "24.0")])
def test_a_published_config_of_wrong_types_is_one_line(source, tmp_path, value, said):
    folder, _ = source
    fields = {name: getattr(CONFIG, name) for name in PUBLISHED}
    (folder / "config.json").write_text(json.dumps(fields | {"d_model": value}))
    with pytest.raises(UserError, match=rf"config.json: d_model={said} is of the wrong kind: int"):
        bring(folder, tmp_path / "out")
    del fields["n_heads"]
    (folder / "config.json").write_text(json.dumps(fields))
    with pytest.raises(UserError, match="config.json: 'n_heads' is missing"):
        bring(folder, tmp_path / "out")


def test_the_type_is_that_of_the_source_or_one_that_there_is(source, tmp_path):
    folder, _ = source
    bring(folder, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["dtype"] == "bfloat16"
    for dtype in ("", "float64"):
        out = run("--from", folder, "--out", tmp_path / "no", "--dtype", dtype)
        assert out.returncode == 1 and len(out.stderr.strip().splitlines()) == 1
        assert f"--dtype {dtype!r} is none of float32, float16, bfloat16" in out.stderr


def test_gpt_neox_with_a_tokenizer_json_comes_in(tmp_path):
    bytes_only = tokenizers.Tokenizer(tokenizers.models.BPE())
    bytes_only.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = tokenizers.decoders.ByteLevel()
    bytes_only.train_from_iterator(
        [],
        tokenizers.trainers.BpeTrainer(
            special_tokens=["<|endoftext|>"],
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = TokenizerJson(bytes_only.to_str().encode(), eos_id=0)
    params = make(NEOX)
    folder = tmp_path / "source"
    folder.mkdir()
    save_folder(folder, NEOX, params, tokenizer, "float32")
    bring(folder, tmp_path / "out")
    config, back, again = load_folder(tmp_path / "out")
    assert config == NEOX and again.digest() == tokenizer.digest()
    chex.assert_trees_all_equal(back, params)
    (folder / "tokenizer.json").rename(tmp_path / "aside.json")
    with pytest.raises(UserError, match="holds neither tokenizer.model nor tokenizer.json"):
        bring(folder, tmp_path / "no")
    bring(folder, tmp_path / "given", tokenizer=tmp_path / "aside.json")
    assert load_folder(tmp_path / "given")[2].digest() == tokenizer.digest()


@pytest.mark.parametrize(
    "text", ["[", "{}", '[{"pattern": "("}]', '[{"pattern": "(", "to": "x"}]', '[{"skip": "("}]']
)
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
    assert "lm_head.weight is the embedding" in out.stdout
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

"""GPT-NeoX is transformers' GPT-NeoX, in and out; and keeps the laws of every model here."""

import dataclasses
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from hybriko_jax.config import GPTNeoXConfig, RunConfig, from_json, to_json
from hybriko_jax.convert.config import from_transformers, to_transformers
from hybriko_jax.convert.folder import load_folder, load_weights
from hybriko_jax.convert.transformers_folder import save_transformers
from hybriko_jax.data.sample import sample_documents
from hybriko_jax.errors import UserError
from hybriko_jax.models import build, init_state
from hybriko_jax.tokenizer import train_sentencepiece

SIZES = dict(
    vocab_size=1500,
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=128,
    max_position_embeddings=64,
)
# What tells one GPT-NeoX from another; the first is Polyglot-ko's.
VARIANTS = {
    "polyglot": {"rotary_pct": 0.5},
    "quarter": {},
    "sequential": {"rotary_pct": 1.0, "use_parallel_residual": False},
    "plain": {"attention_bias": False, "hidden_act": "gelu_new", "rotary_emb_base": 500.0},
    "tied": {"tie_word_embeddings": True, "layer_norm_eps": 1e-3},
}


def peer(**settings):
    """A model of transformers in which no norm, bias or rotation is plain."""
    torch.manual_seed(0)
    config = transformers.GPTNeoXConfig(**SIZES | {"eos_token_id": 3} | settings)
    model = transformers.GPTNeoXForCausalLM(config).eval()
    for p in model.parameters():
        if p.ndim == 1:
            torch.nn.init.normal_(p, float(p.detach().mean()), 0.1)
    return model


def logits_of(model, tokens_BL):
    with torch.inference_mode():
        return model(torch.from_numpy(tokens_BL)).logits.numpy()


@pytest.fixture(scope="module")
def tokenizer():
    return train_sentencepiece(sample_documents(60), 1500)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer):
    """Folders of transformers, each with a tokenizer of ours."""
    made = {}

    def make(variant, **how):
        if (variant, *how) not in made:
            path = tmp_path_factory.mktemp(variant)
            peer(**VARIANTS[variant]).save_pretrained(path, **how)
            tokenizer.save(path / tokenizer.FILE)
            made[variant, *how] = path
        return made[variant, *how]

    return make


def tokens(batch=2, length=40, seed=0):
    return np.random.default_rng(seed).integers(4, SIZES["vocab_size"], (batch, length))


def positions(tokens_BL):
    return np.tile(np.arange(tokens_BL.shape[1], dtype=np.int32), (len(tokens_BL), 1))


def ours_on(config, params, tokens_BL):
    model = build(config)
    tokens_BL = tokens_BL.astype(np.int32)
    return jax.jit(model.apply)({"params": params}, tokens_BL, positions(tokens_BL))[0]


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_are_those_of_transformers(folder, variant):
    config, params, _ = load_folder(folder(variant))
    expected = logits_of(peer(**VARIANTS[variant]), tokens())
    chex.assert_trees_all_close(ours_on(config, params, tokens()), expected, rtol=0, atol=2e-6)


@pytest.mark.slow
def test_logits_at_the_size_of_polyglot(tmp_path):
    sizes = GPTNeoXConfig()
    settings = to_transformers(sizes) | {"eos_token_id": 2}
    torch.manual_seed(0)
    model = transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**settings)).eval()
    model.save_pretrained(tmp_path)
    asked = np.random.default_rng(0).integers(4, sizes.vocab_size, (1, 64))
    expected = logits_of(model, asked)
    del model
    config, params = load_weights(tmp_path)
    assert config == sizes and sum(p.size for p in jax.tree.leaves(params)) == 1_331_810_304
    difference = np.abs(np.asarray(ours_on(config, params, asked)) - expected).max()
    print(f"largest difference {difference:.2e} of logits up to {np.abs(expected).max():.2f}")
    assert difference <= 2e-5


@pytest.mark.parametrize("variant", ["polyglot", "tied"])
def test_out_to_transformers_and_back_is_identical(folder, tokenizer, variant, tmp_path):
    config, params, _ = load_folder(folder(variant))
    save_transformers(tmp_path, config, params, tokenizer, "float32")
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    np.testing.assert_array_equal(
        logits_of(model, tokens()), logits_of(peer(**VARIANTS[variant]), tokens())
    )
    again, back, _ = load_folder(tmp_path)
    assert again == config
    chex.assert_trees_all_equal(back, params)
    text = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert text("안녕하세요")["input_ids"][1:] == tokenizer.encode("안녕하세요")


def test_files_of_every_age_are_read(folder, tokenizer, tmp_path):
    """Shards, .bin, the head as lm_head, no prefix, old buffers, config fields of before."""
    config, params, _ = load_folder(folder("polyglot"))
    _, sharded, _ = load_folder(folder("polyglot", max_shard_size="200KB"))
    chex.assert_trees_all_equal(sharded, params)
    state = dict(peer(**VARIANTS["polyglot"]).state_dict())
    old = {
        name.removeprefix("gpt_neox.").replace("lm_head.", "embed_out."): t
        for name, t in state.items()
    }
    old["layers.0.attention.bias"] = torch.ones(1, 1, 64, 64, dtype=torch.bool)
    old["layers.0.attention.masked_bias"] = torch.tensor(-1e9)
    old["layers.0.attention.rotary_emb.inv_freq"] = torch.ones(4)
    torch.save(old, tmp_path / "pytorch_model.bin")
    tokenizer.save(tmp_path / tokenizer.FILE)
    described = json.loads((folder("polyglot") / "config.json").read_text())
    del described["rope_parameters"]
    described |= {"rotary_pct": 0.5, "rotary_emb_base": 10000}
    (tmp_path / "config.json").write_text(json.dumps(described))
    loaded, back, _ = load_folder(tmp_path)
    assert loaded == config
    chex.assert_trees_all_equal(back, params)


def test_a_config_comes_back_and_the_default_is_polyglot():
    for settings in VARIANTS.values():
        config = from_transformers(transformers.GPTNeoXConfig(**SIZES | settings).to_dict())
        assert from_transformers(to_transformers(config)) == config
        again = transformers.GPTNeoXConfig(**to_transformers(config))
        assert from_transformers(again.to_dict()) == config
    run = RunConfig(model=GPTNeoXConfig())
    assert from_json(RunConfig, to_json(run)) == run
    shapes = jax.eval_shape(
        build(run.model).init, jax.random.key(0), *[jnp.zeros((1, 1), jnp.int32)] * 2
    )
    assert sum(p.size for p in jax.tree.leaves(shapes)) == 1_331_810_304


def test_cached_is_whole_and_packed_is_apart(folder):
    config, params, _ = load_folder(folder("polyglot"))
    model, variables = build(config), {"params": params}
    tokens_BL = tokens(1, 24).astype(np.int32)
    whole = ours_on(config, params, tokens_BL)
    state, parts = init_state(config, 1, 32), []
    for begin, end in ((0, 9), (9, 10), (10, 24)):
        place = np.arange(begin, end, dtype=np.int32)[None]
        part, state = model.apply(variables, tokens_BL[:, begin:end], place, state)
        parts.append(part)
    chex.assert_trees_all_close(jnp.concatenate(parts, 1), whole, atol=2e-6)
    packed_BL = np.concatenate([tokens_BL[:, :10], tokens_BL[:, :14]], axis=1)
    place = np.concatenate([np.arange(10), np.arange(14)])[None].astype(np.int32)
    packed, _ = model.apply(variables, packed_BL, place)
    chex.assert_trees_all_close(packed[:, 10:], whole[:, :14], atol=2e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_remat_changes_nothing(folder, dtype):
    config, params, _ = load_folder(folder("polyglot"))

    def gradients(remat):
        model = build(dataclasses.replace(config, remat=remat, dtype=dtype))
        tokens_BL = tokens(1, 16).astype(np.int32)

        def loss(params):
            return jnp.sum(model.apply({"params": params}, tokens_BL, positions(tokens_BL))[0] ** 2)

        return jax.jit(jax.grad(loss))(params)

    chex.assert_trees_all_close(gradients(True), gradients(False), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, "model_type is 'llama'"),
        ({"hidden_act": "mish"}, "hidden_act: 'mish'"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope_type is 'yarn'"),
        ({"num_attention_heads": 7}, "must be a multiple of n_heads=7"),
        ({"rotary_pct": 0.03, "rope_parameters": None}, "must be even"),
        ({"hidden_size": None}, "wrong kind"),
    ],
)
def test_a_config_that_cannot_be_is_refused(changes, message):
    described = transformers.GPTNeoXConfig(**SIZES).to_dict() | changes
    with pytest.raises(UserError, match=message):
        from_transformers(described)

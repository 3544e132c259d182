"""LoRA is PEFT's LoRA, on both models: the same logits, training, merge, and files."""

import dataclasses
import functools
import json

import chex
import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
import peft
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

from hybriko_jax import lora
from hybriko_jax.config import LoRAConfig, OptimizerConfig, RunConfig, TrainConfig
from hybriko_jax.convert.folder import load_folder, load_weights
from hybriko_jax.convert.parameters import to_torch
from hybriko_jax.convert.peft import load_adapter, save_adapter
from hybriko_jax.data.batch import Batch
from hybriko_jax.data.loader import put
from hybriko_jax.data.sample import sample_documents
from hybriko_jax.errors import UserError
from hybriko_jax.models import build
from hybriko_jax.sharding import make_mesh
from hybriko_jax.tokenizer import train_sentencepiece
from hybriko_jax.training.optimizer import make_optimizer
from hybriko_jax.training.state import abstract_state, param_count, place_frozen
from hybriko_jax.training.step import loss_sums, train_step
from hybriko_jax.training.train import compile_step

# PEFT asks transformers by a name of before.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")

LORA = LoRAConfig(rank=4, alpha=8, targets="query_key_value")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A GPT-NeoX of transformers: its folder, and it as ours."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    config = transformers.GPTNeoXConfig(
        vocab_size=1500,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=64,
        rotary_pct=0.5,
        eos_token_id=3,
    )
    transformers.GPTNeoXForCausalLM(config).save_pretrained(folder)
    train_sentencepiece(sample_documents(60), 1500).save(folder / "tokenizer.model")
    return folder, *load_folder(folder)[:2]


@functools.cache
def boxed(config):
    tokens_BL = jnp.zeros((1, 1), jnp.int32)
    return jax.eval_shape(lambda: build(config).init(jax.random.key(0), tokens_BL, tokens_BL))


def drawn(config, settings, seed=0):
    """An adapter that does something: neither of its factors is 0."""
    adapter = lora.init(jax.random.key(seed), boxed(config)["params"], settings)
    rng = np.random.default_rng(seed)
    leaves, tree = jax.tree.flatten(jax.tree.map(np.asarray, nn.unbox(adapter)))
    return tree.unflatten([rng.normal(0, 0.1, a.shape).astype(np.float32) for a in leaves])


def tokens(batch=2, length=40, seed=0):
    return np.random.default_rng(seed).integers(4, 1500, (batch, length)).astype(np.int32)


def logits(config, tokens_BL, **variables):
    positions_BL = np.tile(np.arange(tokens_BL.shape[1], dtype=np.int32), (len(tokens_BL), 1))
    return np.asarray(jax.jit(build(config).apply)(variables, tokens_BL, positions_BL)[0])


def theirs(folder, adapter_folder=None):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if adapter_folder:
        model = peft.PeftModel.from_pretrained(model, adapter_folder).eval()
    return model


def their_logits(model, tokens_BL):
    with torch.inference_mode():
        return model(torch.from_numpy(tokens_BL).long()).logits.numpy()


@pytest.mark.parametrize(
    "settings",
    [
        LORA,
        dataclasses.replace(LORA, rslora=True),
        dataclasses.replace(LORA, targets="dense|mlp", dropout=0.5),
        dataclasses.replace(LORA, targets=r"layers_1/attention/query_key_value"),
    ],
    ids=["published", "rslora", "other matrices", "one layer"],
)
def test_an_adapter_goes_to_peft_and_comes_back(base, tmp_path, settings):
    folder, config, params = base
    adapter = drawn(config, settings)
    save_adapter(tmp_path, config, adapter, settings)
    ours = logits(config, tokens(), params=params, lora=adapter)
    expected = their_logits(theirs(folder, tmp_path), tokens())
    plain = logits(config, tokens(), params=params)
    assert np.abs(expected - plain).max() > 0.01  # an adapter that is not loaded only warns
    chex.assert_trees_all_close(ours, expected, rtol=0, atol=2e-6)
    back, read = load_adapter(tmp_path, config)
    chex.assert_trees_all_equal(back, adapter)
    assert (read.rank, read.scale, read.dropout) == (4, settings.scale, settings.dropout)


def test_an_adapter_of_peft_is_read(base, tmp_path):
    """One that was never ours, with settings of PEFT's own, and one saved by torch.save."""
    folder, config, params = base
    made = peft.get_peft_model(
        theirs(folder),
        peft.LoraConfig(r=3, lora_alpha=7, target_modules="all-linear", init_lora_weights=False),
    ).eval()
    made.save_pretrained(tmp_path)
    adapter, settings = load_adapter(tmp_path, config)
    assert settings.rank == 3 and settings.scale == 7 / 3
    ours = logits(config, tokens(), params=params, lora=adapter)
    chex.assert_trees_all_close(ours, their_logits(made, tokens()), rtol=0, atol=2e-6)
    weights = tmp_path / "adapter_model.safetensors"
    state = {
        name.replace(".weight", ".default.weight"): torch.from_numpy(t)
        for name, t in load_file(weights).items()
    }
    weights.unlink()
    torch.save(state, tmp_path / "adapter_model.bin")
    chex.assert_trees_all_equal(load_adapter(tmp_path, config)[0], adapter)


def test_merged_weights_are_pefts_bit_for_bit(base, tmp_path):
    folder, config, params = base
    adapter = drawn(config, LORA)
    save_adapter(tmp_path, config, adapter, LORA)
    merged = lora.merge(params, adapter)
    expected = theirs(folder, tmp_path).merge_and_unload().state_dict()
    for name, tensor in to_torch(config, merged, "float32").items():
        name = name.replace("embed_out", "lm_head")
        np.testing.assert_array_equal(tensor.make(), expected[name].numpy(), err_msg=name)


@pytest.mark.parametrize("kind", ["gpt_neox", "hybriko"])
def test_merged_is_adapted_and_unmerged_is_the_base(base, small, kind):
    if kind == "gpt_neox":
        config, params, settings = base[1], base[2], LORA
    else:
        config, settings = small, dataclasses.replace(LORA, targets="gate|attention|mlp")
        both = [jnp.zeros((1, 1), jnp.int32)] * 2
        made = jax.jit(build(config).init)(jax.random.key(0), *both)["params"]
        params = jax.tree.map(np.asarray, nn.unbox(made))
    adapter = drawn(config, settings)
    tokens_BL = tokens() % config.vocab_size
    adapted = logits(config, tokens_BL, params=params, lora=adapter)
    merged = lora.merge(params, adapter)
    assert np.abs(adapted - logits(config, tokens_BL, params=params)).max() > 0.01
    chex.assert_trees_all_close(logits(config, tokens_BL, params=merged), adapted, atol=2e-5)
    chex.assert_trees_all_close(lora.unmerge(merged, adapter), params, atol=1e-6)
    twice = lora.merge(params, lora.scale(adapter, 2.0))
    chex.assert_trees_all_close(twice, lora.merge(merged, adapter), atol=1e-6)
    fresh = nn.unbox(lora.init(jax.random.key(0), boxed(config)["params"], settings))
    np.testing.assert_array_equal(
        logits(config, tokens_BL, params=params, lora=fresh),
        logits(config, tokens_BL, params=params),
    )


def test_fifty_steps_are_those_of_peft(base, tmp_path):
    """From one adapter, on the same batches, by the same AdamW, without dropout."""
    folder, config, params = base
    start = drawn(config, LORA)
    save_adapter(tmp_path, config, start, LORA)
    model = peft.PeftModel.from_pretrained(theirs(folder), tmp_path, is_trainable=True)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.0, eps=1e-8)
    tx = optax.adamw(1e-3, weight_decay=0.0, eps=1e-8)
    mesh = make_mesh("1")
    frozen = place_frozen(build(config), [params], mesh)
    run = RunConfig(model=config, train=TrainConfig(seq_len=32), lora=LORA)
    with jax.set_mesh(mesh):
        _, init = abstract_state(build(config), tx, 0, mesh, LORA)
        state = dataclasses.replace(init(), params=jax.tree.map(jnp.asarray, start))
        assert all(a.dtype == jnp.float32 for a in jax.tree.leaves(state.params))
        step = jax.jit(functools.partial(train_step, model=build(config), tx=tx, config=run.train))
        for n in range(50):
            tokens_BL = tokens(4, 32, seed=n)
            positions_BL = np.tile(np.arange(32, dtype=np.int32), (4, 1))
            mask_BL = positions_BL >= 10
            state, measured = step(state, Batch(tokens_BL, positions_BL, mask_BL), frozen)
            labels = torch.from_numpy(np.where(mask_BL, tokens_BL, -100)).long()
            out = model(torch.from_numpy(tokens_BL).long(), labels=labels)
            out.loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            np.testing.assert_allclose(float(measured["nats"]), out.loss.item(), atol=1e-4)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), state.params, start)
    assert min(jax.tree.leaves(moved)) > 1e-3
    kept = flax.traverse_util.flatten_dict(frozen, sep="/")
    for path, before in flax.traverse_util.flatten_dict(params, sep="/").items():
        np.testing.assert_array_equal(kept[path], before)


def loss_of(config, frozen, mask_from=10):
    """Of an adapter, on one batch."""
    tokens_BL = tokens(4, 32)
    positions_BL = np.tile(np.arange(32, dtype=np.int32), (4, 1))
    batch = Batch(tokens_BL, positions_BL, positions_BL >= mask_from)
    model = build(config)
    return lambda adapter: loss_sums(model, adapter, batch, chunk=512, frozen=frozen)[0]


def test_stacked_layers_are_the_layers_compiled_once(base):
    config, params = load_weights(base[0], "nf4")
    config, mesh = dataclasses.replace(config, remat=True), make_mesh("1")
    apart = place_frozen(build(config), [dict(params)], mesh)
    stacked = place_frozen(build(config), [dict(params)], mesh, LORA)
    assert set(stacked) == {"embedding", "head", "norm", "layers"}
    assert param_count(stacked) == param_count(apart)
    adapter = drawn(config, LORA)
    losses = [loss_of(config, frozen) for frozen in (apart, stacked)]
    expected, found = [jax.value_and_grad(loss)(adapter) for loss in losses]
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    chex.assert_trees_all_close(found[1], expected[1], rtol=1e-4, atol=1e-4)
    products = [str(jax.make_jaxpr(jax.grad(f))(adapter)).count("dot_general") for f in losses]
    ends = 2 * 2  # products of the output
    assert 2 * (products[1] - ends) <= products[0]


@pytest.mark.parametrize(
    "targets,remat", [("layers_0/.*query_key_value", True), ("query_key_value", False)]
)
def test_layers_that_differ_or_are_not_recomputed_stay_apart(base, targets, remat):
    config, params = load_weights(base[0], "nf4")
    model = build(dataclasses.replace(config, remat=remat))
    settings = dataclasses.replace(LORA, targets=targets)
    assert "layers_1" in place_frozen(model, [dict(params)], make_mesh("1"), settings)


@pytest.mark.parametrize(
    "mesh_text,stacked", [("fsdp=8", False), ("fsdp=8", True), ("data=2,fsdp=2,tensor=2", True)]
)
def test_eight_devices_do_what_one_does(base, mesh_text, stacked):
    """Three steps of an adapter of a base in four bits, dropout included."""
    config, params = load_weights(base[0], "nf4")
    config = dataclasses.replace(config, remat=stacked)
    settings = dataclasses.replace(LORA, precision="nf4", dropout=0.1)
    run = RunConfig(
        model=config,
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=1),
        train=TrainConfig(steps=3, batch_size=8, seq_len=32),
        lora=settings,
    )
    model, tx = build(config), make_optimizer(run.optimizer, 3)

    def losses(text):
        mesh, found = make_mesh(text), []
        with jax.set_mesh(mesh):
            abstract, init = abstract_state(model, tx, 0, mesh, settings)
            frozen = place_frozen(model, [dict(params)], mesh, settings)
            assert ("layers" in frozen) == stacked
            step, state = compile_step(model, tx, run, abstract, mesh, frozen=frozen), init()
            for n in range(3):
                tokens_BL = tokens(8, 32, seed=n)
                positions_BL = np.tile(np.arange(32, dtype=np.int32), (8, 1))
                batch = put(Batch(tokens_BL, positions_BL, positions_BL > 9), mesh, 8)
                state, measured = step(state, batch, frozen)
                found.append(float(measured["loss"]))
        return found, jax.tree.map(np.asarray, state.params)

    alone, together = losses("1"), losses(mesh_text)
    np.testing.assert_allclose(together[0], alone[0], rtol=1e-5)
    chex.assert_trees_all_close(together[1], alone[1], rtol=1e-3, atol=1e-5)


def test_dropout_is_of_the_adapters_input_and_of_training(base):
    _, config, params = base
    adapter = drawn(config, dataclasses.replace(LORA, dropout=0.5))
    plain = drawn(config, LORA)
    positions_BL = np.arange(40, dtype=np.int32)[None]
    variables = {"params": params, "lora": adapter}

    def run(key, variables=variables):
        rngs = None if key is None else {"dropout": jax.random.key(key)}
        return np.asarray(build(config).apply(variables, tokens(1), positions_BL, rngs=rngs)[0])

    np.testing.assert_array_equal(run(None), run(None, {"params": params, "lora": plain}))
    np.testing.assert_array_equal(run(1), run(1))
    assert np.abs(run(1) - run(2)).max() > 1e-3
    nothing = jax.tree.map(np.zeros_like, adapter)
    without = {"params": params, "lora": nothing}
    np.testing.assert_array_equal(run(1, without), run(None, {"params": params}))


def break_config(**changes):
    def change(folder):
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def break_weights(edit):
    def change(folder):
        path = folder / "adapter_model.safetensors"
        tensors = load_file(path)
        edit(tensors)
        save_file(tensors, path)

    return change


KEY = "base_model.model.gpt_neox.layers.{}.attention.query_key_value.lora_{}.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (break_weights(lambda t: t.pop(KEY.format(1, "B"))), "lacks .*layers.1.*lora_B"),
        (
            break_weights(lambda t: [t.pop(KEY.format(1, f)) for f in "AB"]),
            "lacks .*layers.1.*lora_A",
        ),
        (
            break_weights(lambda t: t.update({KEY.format(7, "A"): t.pop(KEY.format(1, "A"))})),
            "layers.7.* which the base has not",
        ),
        (
            break_weights(lambda t: t.update({KEY.format(1, "A"): np.zeros((4, 32), np.float32)})),
            "of another base or rank",
        ),
        (break_weights(lambda t: t.update(x=np.zeros(2, np.float32))), "x is no factor of a LoRA"),
        (break_config(r=8), "of another base or rank"),
        (break_config(use_dora=True), "use_dora is used"),
        (break_config(bias="all"), "bias is used"),
        (break_config(peft_type="IA3"), "peft_type is IA3"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "missing"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(base, tmp_path, change, message):
    _, config, _ = base
    save_adapter(tmp_path, config, drawn(config, LORA), LORA)
    change(tmp_path)
    with pytest.raises(UserError, match=message):
        load_adapter(tmp_path, config)


def test_targets_that_are_nowhere_are_refused(base, small):
    with pytest.raises(UserError, match="is found in no matrix.*layers_N/attention/query_key"):
        lora.init(jax.random.key(0), boxed(base[1])["params"], LoRAConfig(targets="q_proj"))
    conv = dataclasses.replace(small, conv_width=4)
    with pytest.raises(UserError, match="is found in no matrix"):
        lora.init(jax.random.key(0), boxed(conv)["params"], LoRAConfig(targets="conv"))
    with pytest.raises(UserError, match="no regular expression"):
        LoRAConfig(targets="(")
    adapter = drawn(base[1], LORA)
    with pytest.raises(UserError, match="of another base"):
        lora.merge({"embedding": np.zeros((2, 2))}, adapter)

"""The PyTorch models that an export carries: the same function as ours, and at home over there."""

import copy
import dataclasses
import functools
import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybriko_jax.config import HybriKoConfig
from hybriko_jax.convert.config import to_transformers
from hybriko_jax.convert.parameters import our_shapes, to_torch
from hybriko_jax.data.batch import Batch
from hybriko_jax.decode.generate import continuations
from hybriko_jax.models import build
from hybriko_jax.training.step import loss_sums, target_count

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CODE = Path(__file__).parents[1] / "hybriko_jax/convert/pytorch"
CACHES = transformers.cache_utils
configuration = importlib.import_module("hybriko_jax.convert.pytorch.configuration_hybriko")
modeling = importlib.import_module("hybriko_jax.convert.pytorch.modeling_hybriko")

SMALL = HybriKoConfig(
    vocab_size=96, d_model=32, n_layers=3, n_heads=4, n_kv_heads=2, max_seq_len=4096
)
VARIANTS = {
    "plain": {},
    "conv": {"conv_width": 4},
    "one tap": {"conv_width": 1},
    "soft cap": {"logits_soft_cap": 2.0},
    "untied": {"tie_embeddings": False},
    "window": {"attention_window": 5},
    "short": {"max_seq_len": 6},
    "silu": {"activation": "silu"},
    "relu": {"activation": "relu"},
    "no attention": {"pattern": ("griffin",)},
    "attention first": {"pattern": ("attention", "griffin"), "rope_theta": 500.0},
}
# What the cache and the masks depend on.
SHAPES = {
    "plain": {},
    "conv": {"conv_width": 4},
    "window": {"attention_window": 5},
    "both": {"conv_width": 3, "attention_window": 4, "pattern": ("attention", "griffin")},
}
shapes = pytest.mark.parametrize("name", SHAPES)


def some_slow(names, quick):
    """All names, those that are not in `quick` marked slow."""
    return [n if n in quick else pytest.param(n, marks=pytest.mark.slow) for n in names]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """The models are so small that threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@functools.cache
def ours(config):
    """A model, and parameters that no mistake hides behind: no norm, decay or pad row is plain."""
    rng = np.random.default_rng(0)

    def draw(path, shape):
        a = rng.standard_normal(shape, np.float32)
        if path in ("embedding", "head"):
            return 0.4 * a  # logits of order 10
        if path.endswith("/kernel"):
            return a * shape[0] ** -0.5
        return (5 if path.endswith("/lambda") else 1) + 0.3 * a

    params = {path: draw(path, shape) for path, shape in our_shapes(config).items()}
    return build(config), flax.traverse_util.unflatten_dict(params, sep="/")


def torch_layout(params):
    tensors = to_torch(HybriKoConfig(), params, "float32")
    return {name: torch.from_numpy(np.array(t.make(), order="C")) for name, t in tensors.items()}


def theirs(config, **settings):
    """The PyTorch model with the parameters of `ours`."""
    described = to_transformers(config) | {"eos_token_id": None} | settings
    model = modeling.HybriKoForCausalLM(configuration.HybriKoConfig(**described))
    tensors = torch_layout(ours(config)[1])
    if config.tie_embeddings:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    model.load_state_dict(tensors)
    return model.eval()


def variant(table, name):
    return dataclasses.replace(SMALL, **table[name])


def tokens_of(batch, length, seed=0):
    return np.random.default_rng(seed).integers(0, SMALL.vocab_size, (batch, length), np.int32)


def positions_of(*lengths):
    return np.concatenate([np.arange(n, dtype=np.int32) for n in lengths])[None]


def our_logits(config, tokens, positions):
    model, params = ours(config)
    positions = np.broadcast_to(positions, tokens.shape)
    return np.asarray(jax.jit(model.apply)({"params": params}, tokens, positions)[0])


@torch.no_grad()
def run(model, tokens, **kwargs):
    kwargs = {k: torch.as_tensor(v) if isinstance(v, np.ndarray) else v for k, v in kwargs.items()}
    return model(torch.as_tensor(tokens).long(), **kwargs)


def check(found, expected, atol=1e-4):
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=0, atol=atol)


# The same function.


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_equal_ours(name):
    config = variant(VARIANTS, name)
    tokens = tokens_of(2, 300)
    expected = our_logits(config, tokens, positions_of(300))
    for attention in ("sdpa", "eager"):
        model = theirs(config, attn_implementation=attention)
        for length in (1, 2, 7, 64, 300):
            check(run(model, tokens[:, :length]).logits, expected[:, :length])


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_long_logits_equal_ours(name):
    config = variant(VARIANTS, name)
    tokens = tokens_of(2, 2048)
    found, expected = (
        run(theirs(config), tokens).logits.numpy(),
        our_logits(config, tokens, positions_of(2048)),
    )
    check(found, expected)
    best_two = np.sort(expected, axis=-1)[..., -2:]
    clear = best_two[..., 1] - best_two[..., 0] > 2e-4
    assert (found.argmax(-1) == expected.argmax(-1))[clear].all()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@shapes
def test_packed_documents_equal_ours(name, attention):
    config = variant(SHAPES, name)
    tokens = tokens_of(2, 24)
    positions = np.concatenate([positions_of(9, 1, 2, 12), positions_of(24)])
    model = theirs(config, attn_implementation=attention)
    found = run(model, tokens, position_ids=positions.astype(np.int64)).logits
    check(found, our_logits(config, tokens, positions))
    alone = run(model, tokens[:1, 12:]).logits
    check(found[:1, 12:], alone)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@shapes
def test_padding_changes_nothing(name, attention):
    """On the left, on the right, on both sides, and in the middle."""
    config = variant(SHAPES, name)
    model = theirs(config, attn_implementation=attention)
    tokens = tokens_of(4, 12)
    mask = np.ones((4, 12), np.int64)
    mask[0, :5] = mask[1, 8:] = mask[2, :2] = mask[2, 9:] = mask[3, 3:6] = 0
    tokens[mask == 0] = 0  # the pad token, whose row is as large as any
    found = run(model, tokens, attention_mask=mask).logits
    assert torch.isfinite(found).all()
    for row in range(4):
        real = mask[row] == 1
        check(found[row, real], run(model, tokens[row : row + 1, real]).logits[0])


@shapes
def test_padded_packed_rows_equal_ours(name):
    config = variant(SHAPES, name)
    tokens, positions = tokens_of(1, 15), positions_of(4, 3, 8)
    padded = np.concatenate([np.zeros((1, 3), np.int32), tokens, np.zeros((1, 2), np.int32)], 1)
    mask = np.array([[0] * 3 + [1] * 15 + [0] * 2])
    padded_positions = np.pad(positions, ((0, 0), (3, 2))).astype(np.int64)
    found = run(theirs(config), padded, attention_mask=mask, position_ids=padded_positions).logits
    check(found[:, 3:-2], our_logits(config, tokens, positions))


@pytest.mark.parametrize("name", some_slow(VARIANTS, ("plain", "conv", "window")))
def test_gradients_equal_ours(name):
    config = variant(VARIANTS, name)
    model, params = ours(config)
    tokens = tokens_of(2, 40)
    positions = np.concatenate([positions_of(17, 1, 22), positions_of(40)])
    batch = Batch(tokens, positions, positions > 0)
    loss, gradients = jax.jit(
        jax.value_and_grad(lambda p: loss_sums(model, p, batch, chunk=64)[0] / target_count(batch))
    )(params)

    found = theirs(config).train()
    labels = torch.where(torch.as_tensor(positions) > 0, torch.as_tensor(tokens), -100).long()
    ids, position_ids = torch.as_tensor(tokens).long(), torch.as_tensor(positions).long()
    their_loss = found(ids, position_ids=position_ids, labels=labels).loss
    their_loss.backward()
    assert their_loss.item() == pytest.approx(float(loss), rel=1e-5)
    parameters = dict(found.named_parameters())
    for path, expected in torch_layout(gradients).items():
        error = (parameters[path].grad - expected).norm() / expected.norm()
        assert error <= 1e-3, f"{path}: {error}"


@pytest.mark.parametrize("length", [1, 2, 3, 5, 8, 13])
@pytest.mark.parametrize("with_state", [False, True])
def test_the_scan_equals_a_loop(length, with_state):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.rand(*shape, dtype=torch.float64, generator=generator).requires_grad_()

    a, b, h = draw(2, length, 3), draw(2, length, 3), draw(2, 3)
    inputs = (a, b, h if with_state else None)
    expected, state = [], h if with_state else torch.zeros_like(h)
    for t in range(length):
        state = a[:, t] * state + b[:, t]
        expected.append(state)
    found = modeling.linear_recurrence(*inputs)
    torch.testing.assert_close(found, torch.stack(expected, 1))
    assert torch.autograd.gradcheck(modeling.linear_recurrence, inputs)


def test_shut_gates_and_padding_have_finite_gradients():
    model = theirs(variant(SHAPES, "conv")).train()
    with torch.no_grad():
        for layer in model.model.layers[:2]:
            layer.griffin.rg_lru.recurrence_gate.weight.mul_(1e4)
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[0, :4] = mask[1, 6:] = 0
    model(torch.as_tensor(tokens_of(2, 9)).long(), attention_mask=mask).logits.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


# The cache.


@pytest.mark.parametrize("pieces", [(1,) * 14, (5, 1, 1, 4, 3), (13, 1)], ids=str)
@pytest.mark.parametrize("padded", [False, True])
@shapes
def test_cached_equals_uncached(name, padded, pieces):
    model, tokens = theirs(variant(SHAPES, name)), tokens_of(2, 14)
    mask = np.ones((2, 14), np.int64)
    if padded:
        mask[0, :6] = 0
    expected = run(model, tokens, attention_mask=mask).logits
    cache = CACHES.DynamicCache(config=model.config)
    end, found = 0, []
    for length in pieces:
        begin, end = end, end + length
        masks = {"attention_mask": mask[:, :end]} if padded else {}
        found.append(run(model, tokens[:, begin:end], past_key_values=cache, **masks).logits)
    real = mask == 1
    check(torch.cat(found, 1)[real], expected[real])
    state = cache.get_recurrent_state(model.config.layer_types.index("linear_attention"))
    assert state.dtype == torch.float32


@shapes
def test_a_prompt_padded_on_the_right_goes_on(name):
    model, tokens = theirs(variant(SHAPES, name)), tokens_of(2, 12)
    mask = np.ones((2, 12), np.int64)
    mask[0, 3:8] = mask[1, 7:8] = 0
    first = run(model, tokens[:, :8], attention_mask=mask[:, :8], use_cache=True)
    found = run(
        model, tokens[:, 8:], attention_mask=mask, past_key_values=first.past_key_values
    ).logits
    for row in range(2):
        alone = tokens[row : row + 1, mask[row] == 1]
        check(found[row], run(model, alone).logits[0, -4:])


@shapes
def test_a_packed_prompt_goes_on(name):
    model, tokens = theirs(variant(SHAPES, name)), tokens_of(1, 14)
    positions = positions_of(6, 8).astype(np.int64)
    first = run(model, tokens[:, :9], position_ids=positions[:, :9], use_cache=True)
    found = run(
        model,
        tokens[:, 9:],
        position_ids=positions[:, 9:],
        past_key_values=first.past_key_values,
    )
    check(found.logits, run(model, tokens[:, 6:]).logits[:, 3:])


def generate(model, tokens, n=12, **kwargs):
    ids = torch.as_tensor(tokens).long()
    kwargs = {"max_new_tokens": n, "min_new_tokens": n, "do_sample": False, **kwargs}
    kwargs.setdefault("attention_mask", torch.ones_like(ids))
    return model.generate(ids, pad_token_id=0, **kwargs)[:, ids.shape[1] :].numpy()


def left_padded(prompts):
    width = max(map(len, prompts))
    rows = np.array([[0] * (width - len(p)) + list(p) for p in prompts])
    mask = torch.as_tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    return rows, mask


@pytest.mark.parametrize("name", some_slow(SHAPES, ("plain", "both")))
def test_greedy_generation_equals_ours(name):
    config = variant(SHAPES, name)
    prompts = [tokens_of(1, n, seed=n)[0].tolist() for n in (1, 4, 9)]
    model, params = ours(config)
    expected = continuations(model, params, prompts, 12, temperature=0.0)
    torch_model = theirs(config)
    rows, mask = left_padded(prompts)
    together = generate(torch_model, rows, attention_mask=mask)
    for row, prompt in enumerate(prompts):
        assert generate(torch_model, [prompt]).tolist() == [expected[row]]
        assert together[row].tolist() == expected[row]


HOW = {
    "uncached": {"use_cache": False},
    "pieces of 3": {"prefill_chunk_size": 3},
    "pieces of 1": {"prefill_chunk_size": 1},
    "static cache": {"cache_implementation": "static", "disable_compile": True},
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("beams", [1, 3])
@shapes
def test_every_way_to_generate_agrees(name, beams, how):
    model = theirs(variant(SHAPES, name))
    rows, mask = left_padded([tokens_of(1, n, seed=n)[0] for n in (2, 5, 9)])
    expected = generate(model, rows, attention_mask=mask, num_beams=beams)
    found = generate(model, rows, attention_mask=mask, num_beams=beams, **HOW[how])
    assert found.tolist() == expected.tolist()


def test_beams_of_a_batch_equal_those_of_its_rows():
    model = theirs(variant(SHAPES, "conv"))
    prompts = [tokens_of(1, n, seed=n)[0].tolist() for n in (2, 5, 9)]
    rows, mask = left_padded(prompts)
    together = generate(model, rows, attention_mask=mask, num_beams=3)
    for row, prompt in enumerate(prompts):
        assert generate(model, [prompt], num_beams=3)[0].tolist() == together[row].tolist()


def test_a_copied_cache_is_a_reusable_prompt():
    model, tokens = theirs(SMALL), tokens_of(1, 10)
    cache = run(model, tokens[:, :6], use_cache=True).past_key_values
    expected = run(model, tokens).logits[:, 6:]
    for _ in range(2):
        found = run(model, tokens[:, 6:], past_key_values=copy.deepcopy(cache))
        check(found.logits, expected)


def test_generation_goes_on_from_a_cache():
    model, tokens = theirs(SMALL), tokens_of(1, 10)
    cache = run(model, tokens[:, :6], use_cache=True).past_key_values
    assert (generate(model, tokens, past_key_values=cache) == generate(model, tokens)).all()


def test_a_model_without_attention_generates_without_a_cache():
    config = variant(VARIANTS, "no attention")
    model, params = ours(config)
    expected = continuations(model, params, [[5, 6, 7]], 12, temperature=0.0)
    torch_model = theirs(config)
    assert generate(torch_model, [[5, 6, 7]]).tolist() == expected
    with pytest.raises(ValueError, match="needs an attention layer"):
        run(torch_model, [[5, 6, 7]], use_cache=True)


# At home in transformers.


def test_parameters_have_the_names_of_the_table():
    for name in VARIANTS:
        config = variant(VARIANTS, name)
        model = theirs(config)
        names = {n for n, _ in model.named_parameters()}
        assert names == set(torch_layout(ours(config)[1]))
        tied = model.lm_head.weight is model.model.embed_tokens.weight
        assert tied == config.tie_embeddings


def test_a_new_model_starts_as_ours_does():
    config = HybriKoConfig(vocab_size=500, d_model=192, n_layers=3, n_heads=4, n_kv_heads=2)
    config = dataclasses.replace(config, conv_width=4)
    torch.manual_seed(0)
    model = modeling.HybriKoForCausalLM(configuration.HybriKoConfig(**to_transformers(config)))
    tokens = jnp.zeros((1, 1), jnp.int32)
    params = nn.unbox(jax.jit(build(config).init)(jax.random.key(0), tokens, tokens))["params"]
    found = dict(model.named_parameters())
    for name, expected in torch_layout(params).items():
        assert found[name].std().item() == pytest.approx(expected.std().item(), rel=0.25, abs=1e-9)
        assert found[name].mean().item() == pytest.approx(
            expected.mean().item(), abs=0.2 * expected.std().item() + 1e-6
        )


def test_loss_is_divided_as_the_trainer_asks():
    model, ids = theirs(SMALL), torch.as_tensor(tokens_of(2, 9)).long()
    mean = model(ids, labels=ids).loss
    assert model(ids, labels=ids, num_items_in_batch=64).loss.item() == pytest.approx(
        mean.item() * 16 / 64, rel=1e-5
    )


def test_logits_of_chosen_tokens():
    model, tokens = theirs(SMALL), tokens_of(2, 9)
    everything = run(model, tokens).logits
    check(run(model, tokens, logits_to_keep=1).logits, everything[:, -1:], 1e-5)
    check(run(model, tokens, logits_to_keep=np.array([2, 5])).logits, everything[:, [2, 5]], 1e-5)


def test_hidden_states_and_attentions_are_given():
    model, tokens = theirs(SMALL, attn_implementation="eager"), tokens_of(2, 9)
    out = run(model, tokens, output_hidden_states=True, output_attentions=True)
    assert len(out.hidden_states) == 4 and out.hidden_states[-1].shape == (2, 9, 32)
    assert [a.shape for a in out.attentions] == [(2, 4, 9, 9)]
    check(out.attentions[0].sum(-1), np.ones((2, 4, 9)), 1e-5)


def test_embeddings_may_be_given_instead_of_tokens():
    model, tokens = theirs(SMALL), tokens_of(2, 9)
    embeds = model.get_input_embeddings()(torch.as_tensor(tokens).long())
    with torch.inference_mode():
        check(model(inputs_embeds=embeds).logits, run(model, tokens).logits)


def gradients_of(model, ids, **kwargs):
    model.zero_grad()
    model.train()(ids, labels=ids, **kwargs).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_changes_nothing(reentrant):
    model, ids = theirs(variant(SHAPES, "conv")), torch.as_tensor(tokens_of(2, 20)).long()
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    expected = gradients_of(model, ids, attention_mask=mask)
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    if reentrant:
        model.enable_input_require_grads()
    found = gradients_of(model, ids, attention_mask=mask)
    for name, gradient in expected.items():
        assert torch.equal(found[name], gradient), name


def test_autocast_keeps_the_recurrence_in_float32(monkeypatch):
    model, tokens = theirs(variant(SHAPES, "conv")), tokens_of(2, 20)
    seen = []
    recurrence = modeling.linear_recurrence
    monkeypatch.setattr(
        modeling, "linear_recurrence", lambda *a: seen.append(a[0].dtype) or recurrence(*a)
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = run(model, tokens).logits.float()
    assert set(seen) == {torch.float32}
    check(found, run(model, tokens).logits, 0.5)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"attention_mask": torch.ones(1, 1, 5, 5)}, "(batch, tokens) is supported"),
        ({"attention_mask": torch.ones(1, 4)}, "4 tokens; it must be of the 0 in the cache and"),
        ({"past_key_values": CACHES.DynamicCache()}, "with DynamicCache(config=model.config)"),
        ({"inputs_embeds": torch.ones(1, 5, 32)}, "either input_ids or inputs_embeds"),
    ],
)
def test_misuse_is_refused(kwargs, message):
    with pytest.raises(ValueError) as e:
        run(theirs(SMALL), tokens_of(1, 5), **kwargs)
    assert message in str(e.value)


@pytest.mark.parametrize(
    "change",
    [
        {"num_attention_heads": 5},
        {"num_key_value_heads": 3},
        {"layer_types": ["full_attention"]},
        {"layer_types": ["recurrent"] * 3},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
    ],
)
def test_impossible_configs_are_refused(change):
    with pytest.raises(ValueError, match="must|not supported"):
        configuration.HybriKoConfig(**to_transformers(SMALL) | change)


@pytest.fixture
def exported(tmp_path, monkeypatch):
    """A folder as an export writes it; code that is loaded from there is not kept."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(sys, "path", sys.path.copy())
    before = set(sys.modules)

    def export(config, dtype="float32"):
        folder = tmp_path / "exported"
        folder.mkdir()
        described = to_transformers(config) | {
            "architectures": ["HybriKoForCausalLM"],
            "auto_map": {
                "AutoConfig": "configuration_hybriko.HybriKoConfig",
                "AutoModel": "modeling_hybriko.HybriKoModel",
                "AutoModelForCausalLM": "modeling_hybriko.HybriKoForCausalLM",
            },
            "dtype": dtype,
            "eos_token_id": 3,
        }
        (folder / "config.json").write_text(json.dumps(described))
        kind = getattr(torch, dtype)
        tensors = {
            name: t if name.endswith(".lam") else t.to(kind)
            for name, t in torch_layout(ours(config)[1]).items()
        }
        from safetensors.torch import save_file

        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        for name in ("configuration_hybriko.py", "modeling_hybriko.py"):
            shutil.copy(CODE / name, folder)
        return folder, tensors

    yield export
    for name in set(sys.modules) - before:
        if name.startswith("transformers_modules"):
            del sys.modules[name]


def load(folder, kind="AutoModelForCausalLM", **kwargs):
    auto = getattr(transformers, kind)
    return auto.from_pretrained(folder, trust_remote_code=True, local_files_only=True, **kwargs)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["conv", "untied"])
def test_saved_and_loaded_is_bit_equal(name, dtype, exported, tmp_path):
    config = variant(VARIANTS, name)
    folder, tensors = exported(config, dtype)
    model = load(folder)
    for n, p in model.named_parameters():
        assert p.dtype == tensors[n].dtype and torch.equal(p, tensors[n]), n
    model.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "modeling_hybriko.py").exists()
    again = load(tmp_path / "again")
    assert to_transformers(config).items() <= again.config.to_dict().items()
    for n, p in again.named_parameters():
        assert p.dtype == tensors[n].dtype and torch.equal(p, tensors[n]), n
    if dtype == "float32":
        tokens = tokens_of(2, 9)
        check(run(again, tokens).logits, our_logits(config, tokens, positions_of(9)))
        hidden = run(load(folder, "AutoModel"), tokens).last_hidden_state
        check(hidden, run(model.model, tokens).last_hidden_state, 1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_loading_in_half_precision_keeps_the_decay(dtype, exported):
    config = variant(SHAPES, "conv")
    folder, _ = exported(config)
    model = load(folder, dtype=dtype)
    kinds = {n: p.dtype for n, p in model.named_parameters()}
    assert {k for n, k in kinds.items() if n.endswith(".lam")} == {torch.float32}
    assert {k for n, k in kinds.items() if not n.endswith(".lam")} == {dtype}
    tokens = tokens_of(2, 20)
    found = run(model, tokens).logits
    assert found.dtype == dtype
    check(found.float(), our_logits(config, tokens, positions_of(20)), 0.6)
    assert generate(model, tokens, num_beams=2).shape == (2, 12)


def test_a_pipeline_generates(exported):
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(96)}, unk_token="w1"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="w0", eos_token="w3", padding_side="left"
    )
    model = load(exported(SMALL)[0])
    pipe = transformers.pipeline("text-generation", model=model, tokenizer=tokenizer, device="cpu")
    prompts = ["w5 w6 w7 w8", "w9"]
    how = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "return_full_text": False}
    together = pipe(prompts, batch_size=2, **how)
    for prompt, [answer] in zip(prompts, together, strict=True):
        assert pipe(prompt, **how) == [answer]
        ids = [[int(w[1:]) for w in prompt.split()]]
        expected = [f"w{i}" for i in generate(model, ids, 8, eos_token_id=3)[0]]
        assert answer["generated_text"].split() == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "conv"])
@pytest.mark.filterwarnings("ignore")  # of the compiler
def test_a_compiled_model_is_the_same(name):
    model = theirs(variant(SHAPES, name))
    ids = torch.as_tensor(tokens_of(2, 21)).long()
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    compiled = torch.compile(model, fullgraph=True)
    for kwargs in ({}, {"attention_mask": mask}):
        expected = gradients_of(model, ids, **kwargs)
        found = gradients_of(compiled, ids, **kwargs)
        for n, gradient in expected.items():
            error = (found[f"_orig_mod.{n}"] - gradient).norm() / gradient.norm()
            assert error < 1e-4, n

    # A static cache: one graph decodes every token.
    expected = run(model.eval(), ids).logits
    cache = CACHES.StaticCache(config=model.config, max_cache_len=32)
    with torch.no_grad():
        for t in range(4):
            positions = torch.full((2, 1), t)
            masks = modeling.create_masks(model.config, ids[:, t : t + 1], None, cache, positions)
            step = {"attention_mask": masks, "position_ids": positions, "past_key_values": cache}
            forward = compiled if t else model
            check(forward(ids[:, t : t + 1], **step).logits, expected[:, t : t + 1])


class Rows(torch.utils.data.Dataset):
    """A batch to learn by heart."""

    def __len__(self):
        return 12

    def __getitem__(self, i):
        row = torch.as_tensor(tokens_of(1, 16, seed=i % 2)[0]).long()
        return {"input_ids": row, "labels": row}


def train(model, folder, **settings):
    """What a Trainer logs in three steps."""
    pytest.importorskip("accelerate")
    settings = {"gradient_accumulation_steps": 2, "learning_rate": 1e-2} | settings
    args = transformers.TrainingArguments(
        folder,
        max_steps=3,
        per_device_train_batch_size=2,
        use_cpu=True,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        **settings,
    )
    trainer = transformers.Trainer(model, args, train_dataset=Rows())
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "settings", [{}, {"gradient_checkpointing": True}, {"bf16": True}], ids=str
)
def test_the_trainer_trains(settings, tmp_path):
    model = theirs(SMALL)
    ids = torch.stack([Rows()[i]["input_ids"] for i in (0, 1)])
    before = model(ids, labels=ids).loss.item()
    losses = train(model, tmp_path, **settings)
    assert len(losses) == 3 and losses[-1] < losses[0]
    # Not multiplied by the number of accumulated parts.
    assert losses[0] == pytest.approx(before, rel=0.02)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "x_proj"]], ids=str)
def test_lora_trains_and_merges(targets, tmp_path):
    peft = pytest.importorskip("peft")
    model, tokens = theirs(SMALL), tokens_of(2, 9)
    before = run(model, tokens).logits
    adapted = peft.get_peft_model(
        model, peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=targets)
    )
    check(run(adapted, tokens).logits, before, 1e-6)
    losses = train(adapted, tmp_path)
    assert len(losses) == 3 and losses[-1] < losses[0]
    after = run(adapted.eval(), tokens).logits
    assert (after - before).abs().max() > 1e-3
    adapted.save_pretrained(tmp_path / "adapter")
    again = peft.PeftModel.from_pretrained(theirs(SMALL), tmp_path / "adapter")
    check(run(again.eval(), tokens).logits, after, 1e-6)
    check(run(again.merge_and_unload(), tokens).logits, after)


# The published layout.


@pytest.fixture
def published(tmp_path, monkeypatch):
    """modeling_hybridko as a script beside it would import it."""
    for name in ("configuration_hybridko.py", "modeling_hybridko.py"):
        shutil.copy(CODE / name, tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    names = ("configuration_hybridko", "modeling_hybridko")
    yield tuple(importlib.import_module(name) for name in names)
    for name in names:
        del sys.modules[name]


def published_tensors(config):
    return {n.removeprefix("model."): t for n, t in torch_layout(ours(config)[1]).items()}


def published_fields(config):
    names = ("d_model", "n_layers", "vocab_size", "n_heads", "n_kv_heads", "ff_mult", "max_seq_len")
    return {name: getattr(config, name) for name in names}


@pytest.mark.parametrize(
    "changes", [{}, {"max_seq_len": 6}, {"n_layers": 5, "ff_mult": 2}], ids=str
)
def test_the_published_layout_equals_ours(changes, published):
    config = dataclasses.replace(SMALL, **changes)
    setting, code = published
    model = code.HybriKoModel(setting.HybriKoConfig(**published_fields(config))).eval()
    model.load_state_dict(published_tensors(config))
    tokens = tokens_of(2, 300)
    expected = our_logits(config, tokens, positions_of(300))
    for length in (1, 2, 7, 64, 300):
        check(run(model, tokens[:, :length])["logits"], expected[:, :length])


@pytest.mark.slow
def test_the_published_layout_equals_ours_at_length(published):
    setting, code = published
    model = code.HybriKoModel(setting.HybriKoConfig(**published_fields(SMALL))).eval()
    model.load_state_dict(published_tensors(SMALL))
    tokens = tokens_of(2, 2048)
    check(run(model, tokens)["logits"], our_logits(SMALL, tokens, positions_of(2048)))


def test_the_published_defaults_and_training(published):
    setting, code = published
    assert published_fields(HybriKoConfig()) == dataclasses.asdict(setting.HybriKoConfig())
    torch.manual_seed(0)
    model = code.HybriKoModel(setting.HybriKoConfig(32, 3, 96, 4, 2, 3, 64))
    ids = torch.as_tensor(tokens_of(2, 16)).long()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for _ in range(20):
        logits = model(ids)["logits"][:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


SCRIPT = """
import sys
import torch
from configuration_hybridko import HybriKoConfig
from modeling_hybridko import HybriKoModel

config = HybriKoConfig(d_model=32, n_layers=3, vocab_size=96, n_heads=4, n_kv_heads=2, ff_mult=3,
                       max_seq_len=4096)
model = HybriKoModel(config)
checkpoint = torch.load("pytorch_model.pt", map_location="cpu", weights_only=True)
model.load_state_dict(checkpoint["model_state_dict"])
model.eval()
ids = torch.tensor([[5, 6, 7]])
with torch.no_grad():
    for _ in range(12):
        next_id = model(ids)["logits"][:, -1].argmax(-1, keepdim=True)
        ids = torch.cat([ids, next_id], dim=1)
assert "transformers" not in sys.modules and "jax" not in sys.modules
print(ids[0, 3:].tolist())
"""


def test_a_script_for_the_published_layout_runs(tmp_path):
    for name in ("configuration_hybridko.py", "modeling_hybridko.py"):
        shutil.copy(CODE / name, tmp_path)
    torch.save({"model_state_dict": published_tensors(SMALL)}, tmp_path / "pytorch_model.pt")
    (tmp_path / "generate.py").write_text(SCRIPT)
    out = subprocess.run(
        [sys.executable, "generate.py"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    model, params = ours(SMALL)
    assert (
        json.loads(out.stdout) == continuations(model, params, [[5, 6, 7]], 12, temperature=0.0)[0]
    )

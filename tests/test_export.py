"""Exports: read by code that is not ours, and back without a changed bit."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest
import safetensors.numpy

from hybriko_jax.config import GPTNeoXConfig
from hybriko_jax.console import load
from hybriko_jax.convert import proof
from hybriko_jax.convert.bitsandbytes import read_nf4
from hybriko_jax.convert.folder import load_folder, save_folder
from hybriko_jax.convert.weights import read_weights
from hybriko_jax.errors import UserError
from hybriko_jax.files import new_folder
from hybriko_jax.models import build
from hybriko_jax.quant import dequantize
from hybriko_jax.tokenizer import load_tokenizer
from launch.export import Arguments, export, parse_size

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")
transformers = pytest.importorskip("transformers")

ROOT = Path(__file__).parents[1]
MINI = ROOT / "checkpoints" / "hybriko-mini"


def command(name, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", f"launch.{name}", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"} | environment,
    )


def write_model(folder, config, **leaves):
    """A folder with a model of random weights, but for some."""
    tokens = np.zeros((1, 1), np.int32)
    params = nn.unbox(jax.jit(build(config).init)(jax.random.key(0), tokens, tokens))["params"]
    folder.mkdir()
    save_folder(folder, config, params | leaves, load_tokenizer(MINI), "float32")
    return folder


def bring_out(checkpoint, out, shard_bytes=10**9, **options):
    """What `launch.export` does, in this process."""
    with new_folder(out) as folder:
        export(Arguments(checkpoint=checkpoint, out=out, **options), folder, shard_bytes)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The base model that ships, for transformers."""
    folder = tmp_path_factory.mktemp("export") / "exported"
    home = folder.with_name("home")
    out = command(
        *("export", "--checkpoint", MINI, "--format", "transformers", "--out", folder),
        **{"HOME": str(home), "HF_HOME": str(home / "huggingface")},
    )
    assert out.returncode == 0, out.stderr
    # transformers would keep a copy of the exported code there.
    assert not home.exists() and [p.name for p in folder.parent.iterdir()] == ["exported"]
    worst = re.search(r"largest difference of a logit from ours: (\S+)", out.stdout)
    assert float(worst[1]) < 1e-4
    return folder


def test_the_folder_says_what_is_in_it(exported):
    manifest = json.loads((exported / "manifest.json").read_text())
    assert manifest["parameters"] == 14_671_680
    assert float(manifest["largest_logit_difference"]) < 1e-4
    names = {p.name for p in exported.iterdir()} - {"manifest.json"}
    assert names == set(manifest["sha256"])
    assert {"modeling_hybriko.py", "tokenizer.json", "generation_config.json"} <= names
    tensors = safetensors.numpy.load_file(exported / "model.safetensors")
    assert "lm_head.weight" not in tensors
    assert sum(t.size for t in tensors.values()) == manifest["parameters"]


def test_the_snippet_of_the_card_runs_and_greedy_tokens_are_ours(exported):
    card = (exported / "README.md").read_text()
    snippet = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    ran = subprocess.run(
        [sys.executable, "-c", snippet], cwd=exported, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    ours = command(
        *("generate", "--checkpoint", MINI, "--prompt", "안녕하세요"),
        *("--tokens", 20, "--temperature", 0),
    )
    assert ours.returncode == 0, ours.stderr
    assert "안녕하세요" in ran.stdout and ran.stdout.strip().removeprefix("<s>") in ours.stdout


@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.slow), "bfloat16"])
def test_out_and_back_changes_no_bit(exported, tmp_path, dtype):
    folder, back = tmp_path / "out", tmp_path / "back"
    options = {"format": "transformers", "dtype": dtype, "verify": False}
    bring_out(MINI, folder, shard_bytes=8_000_000, **options)
    assert (folder / "model.safetensors.index.json").exists()
    out = command("import_torch", "--from", folder, "--out", back)
    assert out.returncode == 0, out.stderr
    one = safetensors.numpy.load_file(back / "model.safetensors")
    for name, tensor in safetensors.numpy.load_file(MINI / "model.safetensors").items():
        assert one[name].dtype == (np.float32 if name.endswith("lam") else one[name].dtype)
        np.testing.assert_array_equal(one[name].astype(np.float32), tensor.astype(np.float32))
    config, params, tokenizer = load_folder(back)
    first, first_params, first_tokenizer = load_folder(MINI)
    assert config == first and tokenizer.digest() == first_tokenizer.digest()


@pytest.mark.slow
def test_the_published_layout_runs_in_a_script_of_its_own(tmp_path):
    folder = tmp_path / "published"
    out = command("export", "--checkpoint", MINI, "--format", "hybridko", "--out", folder)
    assert out.returncode == 0, out.stderr
    assert "largest difference" in out.stdout
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {p.name for p in folder.iterdir()} == {*manifest["sha256"], "manifest.json"}
    script = """
import json, torch, sentencepiece
from configuration_hybridko import HybriKoConfig
from modeling_hybridko import HybriKoModel
tokenizer = sentencepiece.SentencePieceProcessor(model_file="HybriKo_tok.model")
model = HybriKoModel(HybriKoConfig(**json.load(open("config.json"))))
checkpoint = torch.load("pytorch_model.pt", map_location="cpu", weights_only=True)
model.load_state_dict({n: t.float() for n, t in checkpoint["model_state_dict"].items()})
model.eval()
ids = [tokenizer.bos_id(), *tokenizer.encode("안녕하세요")]
for _ in range(12):
    with torch.no_grad():
        ids.append(int(model(torch.tensor([ids]))["logits"][0, -1].argmax()))
print(tokenizer.decode(ids))
"""
    ran = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    ours = command(
        *("generate", "--checkpoint", MINI, "--prompt", "안녕하세요"),
        *("--tokens", 12, "--temperature", 0),
    )
    assert ran.stdout.strip() in ours.stdout
    back = command(
        *("import_torch", "--from", folder / "pytorch_model.pt", "--out", tmp_path / "back")
    )
    assert back.returncode == 0, back.stderr
    again, first = (load_folder(f)[1] for f in (tmp_path / "back", MINI))
    np.testing.assert_array_equal(
        again["layers_2"]["attention"]["q"]["kernel"], first["layers_2"]["attention"]["q"]["kernel"]
    )


def test_what_the_published_config_cannot_say_is_refused(tmp_path):
    config, params, tokenizer = load_folder(MINI)
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    capped = dataclasses.replace(config, logits_soft_cap=30.0)
    save_folder(source, capped, params, tokenizer, "bfloat16")
    with pytest.raises(UserError, match=r"has no logits_soft_cap=30.0"):
        bring_out(source, out, format="hybridko", verify=False)
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_an_export_whose_code_computes_something_else_leaves_nothing(tmp_path, monkeypatch):
    config, params, tokenizer = load_folder(MINI)

    def wrong(folder, tokens_BL):
        return np.zeros((*tokens_BL.shape, config.vocab_size), np.float32)

    monkeypatch.setattr(proof, "logits_of_export", wrong)
    with pytest.raises(UserError, match="computes other logits"):
        proof.largest_difference(build(config), params, tmp_path)


@pytest.mark.parametrize(
    "code,said",
    [
        ("raise ImportError('no torch 9 here')", "ImportError: no torch 9 here"),
        ("import os\nos.abort()", "status -6"),
    ],
)
def test_a_pytorch_that_does_not_work_is_one_line(tmp_path, monkeypatch, code, said):
    (tmp_path / "torch.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(UserError) as e:
        proof.logits_of_export(tmp_path, np.zeros((1, 2), np.int64))
    assert said in str(e.value) and "--no-verify" in str(e.value)
    assert len(str(e.value).splitlines()) == 1


def test_weights_that_are_not_finite_leave_only_unverified(small, tmp_path, capsys):
    config = dataclasses.replace(small, vocab_size=8000)
    broken = {"scale": np.full(config.d_model, np.inf, np.float32)}
    checkpoint = write_model(tmp_path / "m", config, norm=broken)
    with pytest.raises(UserError, match="NaN or infinite weights, in norm/scale.*--no-verify"):
        bring_out(checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    bring_out(checkpoint, tmp_path / "out", verify=False)
    (warning,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("warning")]
    assert "norm/scale" in warning and (tmp_path / "out" / "model.safetensors").exists()


def test_a_stopped_export_leaves_nothing(tmp_path):
    stopped = subprocess.Popen(
        [sys.executable, "-m", "launch.export", "--checkpoint", MINI, "--out", tmp_path / "out"],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    while not list(tmp_path.iterdir()):
        assert stopped.poll() is None
        time.sleep(0.01)
    stopped.terminate()
    assert stopped.wait() == 143
    assert not list(tmp_path.iterdir())


NEOX = GPTNeoXConfig(vocab_size=8000, d_model=128, n_layers=2, n_heads=4, d_ff=256, max_seq_len=32)


@pytest.fixture(scope="module")
def neox(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("neox") / "m", NEOX)


@pytest.mark.parametrize(
    "dtype",
    ["bfloat16", *(pytest.param(d, marks=pytest.mark.slow) for d in ("float32", "float16"))],
)
def test_an_export_in_4_bits_holds_what_bitsandbytes_makes(neox, tmp_path, dtype):
    peer = pytest.importorskip("bitsandbytes.functional")
    options = {"format": "transformers", "quantize": "nf4", "dtype": dtype}
    bring_out(neox, tmp_path / "out", verify=False, **options)
    described = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert described["bnb_4bit_compute_dtype"] == dtype and described["load_in_4bit"]
    leaves, rest = read_nf4(read_weights(tmp_path / "out"))
    tensors = safetensors_torch.load_file(neox / "model.safetensors")
    assert set(leaves) | set(rest) == set(tensors) and len(leaves) == 4 * NEOX.n_layers
    for name, leaf in leaves.items():
        weight = tensors[name].to(getattr(torch, dtype))
        codes, state = peer.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
        np.testing.assert_array_equal(np.asarray(leaf.codes_FC).reshape(-1, 1), codes.numpy())
        state.dtype = torch.float32
        # bitsandbytes' kernel for CPUs takes the second nearest scale at times.
        np.testing.assert_allclose(
            dequantize(leaf), peer.dequantize_4bit(codes, state).numpy(), rtol=0.02
        )
    for name, tensor in rest.items():
        expected = tensors[name].to(getattr(torch, dtype)).float().numpy()
        np.testing.assert_array_equal(tensor.make().astype(np.float32), expected)
    # Once more, it is the same.
    bring_out(tmp_path / "out", tmp_path / "again", verify=False, **options)
    one, other = ((tmp_path / n / "model.safetensors").read_bytes() for n in ("out", "again"))
    assert one == other
    manifest = json.loads((tmp_path / "again" / "manifest.json").read_text())
    assert manifest["parameters"] == sum(t.numel() for t in tensors.values())


@pytest.mark.slow
def test_an_export_in_4_bits_computes_our_logits_in_transformers(neox, tmp_path):
    out = command("export", "--checkpoint", neox, "--quantize", "nf4", "--out", tmp_path / "out")
    assert out.returncode == 0, out.stderr
    worst = re.search(r"largest difference of a logit from ours: (\S+)", out.stdout)
    assert float(worst[1]) < 1e-5
    tokens = np.random.default_rng(0).integers(4, 8000, (2, 30))
    loaded = load.checkpoint(tmp_path / "out")
    positions = np.tile(np.arange(30, dtype=np.int32), (2, 1))
    ours = build(loaded.config).apply(
        {"params": loaded.params}, tokens.astype(np.int32), positions
    )[0]
    # As its users load it: in the folder's type, bfloat16.
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.is_loaded_in_4bit and model.dtype == torch.bfloat16
    with torch.inference_mode():
        theirs = model(torch.from_numpy(tokens)).logits.float().numpy()
    assert np.abs(theirs - ours).max() < 0.02 * np.abs(theirs).max()


def test_4_bits_are_refused_where_there_is_no_code_for_them(tmp_path):
    with pytest.raises(UserError, match="--quantize is for GPT-NeoX"):
        bring_out(MINI, tmp_path / "out", quantize="nf4", verify=False)
    ran = command(
        *("export", "--checkpoint", MINI, "--quantize", "nf4", "--format", "hybridko"),
        *("--out", tmp_path / "out"),
    )
    assert ran.returncode == 1 and "--quantize writes the format transformers" in ran.stderr
    assert not list(tmp_path.iterdir())


def test_a_bit_that_is_lost_on_the_way_is_noticed(tmp_path):
    config, params, tokenizer = load_folder(MINI)
    tensors = save_folder(tmp_path, config, params, tokenizer, "bfloat16")
    proof.prove_written(tmp_path, tensors)
    path = tmp_path / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="is not what was meant: model"):
        proof.prove_written(tmp_path, tensors)


def test_places_and_sizes_that_cannot_be_are_refused(tmp_path):
    (tmp_path / "mine").write_text("x")
    for extra, message in (
        (("--out", tmp_path), "is not empty"),
        (("--out", tmp_path / "new", "--max-shard-size", "5 apples"), "give a size such as 5GB"),
    ):
        # The place is looked at first: whether there is a model takes longer to tell.
        ran = command("export", "--checkpoint", "nowhere", *extra)
        assert ran.returncode == 1 and message in ran.stderr
        assert len(ran.stderr.strip().splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]
    with pytest.raises(UserError, match="give a size"):
        parse_size("9" * 400 + "GB")
    assert parse_size("1.5GB") == 1_500_000_000 and parse_size("200 mb") == 200_000_000

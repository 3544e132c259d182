"""Exports: read by code that is not ours, and back without a changed bit."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from hybriko_jax.convert import proof
from hybriko_jax.convert.folder import load_folder, save_folder
from hybriko_jax.errors import UserError
from launch.export import parse_size

torch = pytest.importorskip("torch")
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


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The base model that ships, for transformers."""
    folder = tmp_path_factory.mktemp("export") / "exported"
    out = command("export", "--checkpoint", MINI, "--format", "transformers", "--out", folder)
    assert out.returncode == 0, out.stderr
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
    arguments = ("--dtype", dtype, "--max-shard-size", "8MB", "--no-verify")
    out = command(
        *("export", "--checkpoint", MINI, "--format", "transformers", "--out", folder), *arguments
    )
    assert out.returncode == 0, out.stderr
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
    ran = command("export", "--checkpoint", source, "--format", "hybridko", "--out", out)
    assert ran.returncode == 1 and "has no logits_soft_cap=30.0" in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1 and not list(tmp_path.glob("out*"))


def test_an_export_whose_code_computes_something_else_leaves_nothing(tmp_path, monkeypatch):
    config, params, tokenizer = load_folder(MINI)
    from hybriko_jax.models import build

    def wrong(folder, tokens_BL):
        return np.zeros((*tokens_BL.shape, config.vocab_size), np.float32)

    with pytest.raises(UserError, match="computes other logits"):
        proof.largest_difference(build(config), params, wrong, tmp_path)


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
        (("--out", tmp_path, "--overwrite"), "is no earlier export"),
        (("--out", tmp_path / "new", "--max-shard-size", "5 apples"), "give a size such as 5GB"),
    ):
        ran = command("export", "--checkpoint", MINI, *extra)
        assert ran.returncode == 1 and message in ran.stderr
        assert len(ran.stderr.strip().splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]
    assert parse_size("1.5GB") == 1_500_000_000 and parse_size("200 mb") == 200_000_000

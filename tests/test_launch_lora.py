"""launch.lora and the ways out of it, as a user runs them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
import transformers

from hybriko_jax.console import load
from hybriko_jax.data.sample import sample_documents
from hybriko_jax.models import build
from tests import tiny_neox

ROOT = Path(__file__).parent.parent
# PEFT asks transformers by a name of before.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A GPT-NeoX as the Hub has them: tokenizer.json, and weights in shards."""
    return tiny_neox.save(
        tmp_path_factory.mktemp("base"),
        tiny_neox.byte_level(sample_documents(50), 600),
        shards="200KB",
        vocab_size=608,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        rotary_pct=0.5,
        initializer_range=0.05,
    )


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "pairs.tsv"
    lines = [f"사과 {n}개를 샀다.\tI bought {n} apples." for n in range(60)]
    path.write_text("ko\ten\n" + "\n".join(lines) + "\n", "utf-8")
    return path


def run(*command, code=0, **environment):
    environment = {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"} | environment
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def lora(base, pairs, workdir, *more, **how):
    shape = ("--train.batch-size", 2, "--train.seq-len", 128, "--train.accumulation", 1)
    often = ("--train.log-every", 1, "--train.eval-batches", 1, "--data.held-out", 0.2)
    given = ("--base", base, "--data", pairs, "--workdir", workdir)
    return run("launch.lora", "--config", "gugugo_v09", *given, *shape, *often, *more, **how)


def ours(loaded, tokens_BL):
    positions_BL = np.tile(np.arange(tokens_BL.shape[1], dtype=np.int32), (len(tokens_BL), 1))
    variables = {"params": loaded.params}
    return np.asarray(build(loaded.config).apply(variables, tokens_BL, positions_BL)[0])


def theirs(model, tokens_BL):
    with torch.inference_mode():
        return model.eval()(torch.from_numpy(tokens_BL).long()).logits.numpy()


@pytest.mark.slow
def test_from_pairs_to_an_adapter_and_a_merged_model(base, pairs, tmp_path):
    more = ("--lora.precision", "float32", "--optimizer.learning-rate", 0.05)
    more += ("--optimizer.warmup-steps", 1)
    first = lora(base, pairs, tmp_path / "run", *more, "--train.epochs", 0.5)
    assert "held out" in first and "0.5 epochs are" in first
    again = lora(base, pairs, tmp_path / "run", *more, "--train.epochs", 1)
    assert "continuing from checkpoint" in again
    assert sum(f.stat().st_size for f in (tmp_path / "run").rglob("*") if f.is_file()) < 2e6

    saved = (tmp_path / "run" / "config.json").read_bytes()
    stranger = lora(base, pairs, tmp_path / "run", *more, "--lora.alpha", 64, code=1)
    assert "cannot go on with lora.alpha: 32 -> 64.0" in stranger
    assert (tmp_path / "run" / "config.json").read_bytes() == saved

    tokens_BL = np.random.default_rng(0).integers(1, 600, (2, 30)).astype(np.int32)
    expected = ours(load.checkpoint(tmp_path / "run"), tokens_BL)
    plain = transformers.AutoModelForCausalLM.from_pretrained(base)
    assert np.abs(theirs(plain, tokens_BL) - expected).max() > 0.01

    run(
        "launch.export",
        "--checkpoint",
        tmp_path / "run",
        "--format",
        "peft",
        "--out",
        tmp_path / "adapter",
    )
    adapted = peft.PeftModel.from_pretrained(plain, tmp_path / "adapter")
    np.testing.assert_allclose(theirs(adapted, tokens_BL), expected, atol=2e-5)

    said = run(
        "launch.export",
        "--checkpoint",
        tmp_path / "run",
        "--merge",
        "--out",
        tmp_path / "merged",
        "--dtype",
        "float32",
    )
    assert "largest difference of a logit" in said
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    np.testing.assert_allclose(theirs(merged, tokens_BL), expected, atol=2e-5)
    text = transformers.AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert text.decode(text("사과를 샀다.")["input_ids"]) == "사과를 샀다."
    assert text.eos_token == "<|endoftext|>"

    goes_on = ("--init-adapter", tmp_path / "adapter", "--train.epochs", 0.5)
    assert "held out" in lora(base, pairs, tmp_path / "next", *more, *goes_on)
    wrong = lora(base, pairs, tmp_path / "no", *more, *goes_on, "--lora.rank", 4, code=1)
    assert "rank: 8 -> 4" in wrong and not (tmp_path / "no").exists()
    wider = ("--lora.targets", "query_key_value|attention/dense")
    wrong = lora(base, pairs, tmp_path / "no", *more, *goes_on, *wider, code=1)
    assert "layers_0/attention/dense/kernel is in one of the two only" in wrong


def test_what_cannot_be_tuned_is_one_line(base, pairs, tmp_path):
    out = lora("owner/name", pairs, tmp_path / "a", code=1, HF_ENDPOINT="http://127.0.0.1:9")
    assert "owner/name is no local folder" in out and "--base FOLDER" in out
    assert len(out.strip().splitlines()) == 1
    out = lora(tmp_path / "none", pairs, tmp_path / "a", code=1)
    assert "is not there" in out
    other = tmp_path / "llama"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (other / "model.safetensors").write_bytes(b"")
    assert "model_type is 'llama'" in lora(other, pairs, tmp_path / "a", code=1)
    swapped = tmp_path / "swapped.csv"
    swapped.write_text("en,ko\n안녕하세요,Hello\n", "utf-8")
    assert "Swap them" in lora(base, swapped, tmp_path / "a", code=1)
    all_weights = run("launch.lora", "--config", "tiny", "--data", pairs, code=1)
    assert "trains all weights" in all_weights
    assert not (tmp_path / "a").exists()
    full = ("launch.export", "--checkpoint", "checkpoints/hybriko-mini", "--out", tmp_path / "e")
    assert "is no run's workdir" in run(*full, "--format", "peft", code=1)

"""The commands from samples to a tuned model, as a user runs them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BASE = "checkpoints/hybriko-mini"


def run(*command, code=0):
    environment = {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"}
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


def sft(samples, workdir, *more, **how):
    shape = ("--train.batch-size", 2, "--train.eval-batches", 1, "--train.log-every", 1)
    where = ("--base", BASE, "--samples", samples, "--workdir", workdir)
    return run("launch.sft", *where, *shape, "--optimizer.warmup-steps", 1, *more, **how)


@pytest.mark.slow
@pytest.mark.parametrize("prompt", ["compact", "full"])
def test_from_samples_to_a_model_that_answers(tmp_path, prompt):
    samples = tmp_path / "fc.jsonl"
    run("launch.synthesize", "--n", 120, "--out", samples)
    assert len(samples.read_text().splitlines()) == 120
    share = ("--text-share", 0.2 if prompt == "compact" else 0, "--prompt", prompt)
    first = sft(samples, tmp_path / "run", *share, "--train.steps", 3)
    assert "held out" in first
    again = sft(samples, tmp_path / "run", *share, "--train.steps", 4)
    assert "continuing from checkpoint 3" in again
    run("launch.export", "--checkpoint", tmp_path / "run", "--out", tmp_path / "model")
    out = run("launch.ask", "--checkpoint", tmp_path / "model", "--query", "a.txt 지워줘")
    assert "Action: " in out
    few = tmp_path / "few.jsonl"
    few.write_text("\n".join(samples.read_text().splitlines()[:4]))
    predictions = tmp_path / "p.jsonl"
    data = ("--data", few, "--out", predictions)
    run("launch.evaluate", "function-calling", "--checkpoint", tmp_path / "model", *data)
    assert set(json.loads(predictions.read_text().splitlines()[0])) == {"id", "action", "arguments"}


@pytest.mark.parametrize(
    "query,message",
    [
        ("  ", "비어 있습니다"),
        ("가" * 10_000, "10,000자로 너무 깁니다"),
        ("🙂🙂🙂", "글자가 없어"),
    ],
)
def test_a_request_that_cannot_be_answered_is_one_korean_line(query, message):
    out = run("launch.ask", "--query", query, code=1)
    assert message in out and len(out.strip().splitlines()) == 1


def test_the_shipped_model_answers_with_a_command_line():
    out = run("launch.ask", "--query", "test.txt 삭제해줘")
    assert 'Action Input: {"path": "test.txt"}' in out and "$ rm test.txt" in out


def test_full_prompt_and_text_do_not_go_together(tmp_path):
    out = sft(tmp_path / "none.jsonl", tmp_path / "run", "--prompt", "full", code=1)
    assert "--text-share 0" in out


def test_missing_samples_are_one_line(tmp_path):
    out = sft(tmp_path / "none.jsonl", tmp_path / "run", code=1)
    assert "none.jsonl" in out and not (tmp_path / "run").exists()

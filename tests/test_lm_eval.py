"""The exported folder under lm-evaluation-harness, on a small task in a local file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("lm_eval")
ROOT = Path(__file__).parents[1]

TASK = """
task: korean_files
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list: [{{metric: acc}}]
"""


def test_the_harness_runs_an_export(tmp_path):
    folder = tmp_path / "exported"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"}

    def run(*command):
        out = subprocess.run(
            [sys.executable, "-m", *map(str, command)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env=environment,
        )
        assert out.returncode == 0, out.stderr

    mini = ROOT / "checkpoints" / "hybriko-mini"
    run("launch.export", "--checkpoint", mini, "--format", "transformers", "--out", folder)
    rows = [
        {"question": "파일을", "choices": [" 삭제합니다.", " 먹습니다."], "answer": 0},
        {"question": "이 함수는", "choices": [" 바나나입니다.", " 값을 반환합니다."], "answer": 1},
    ]
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    (tmp_path / "korean_files.yaml").write_text(TASK.format(data=data))
    run(
        *("lm_eval", "--model", "hf", "--tasks", "korean_files", "--include_path", tmp_path),
        *("--model_args", f"pretrained={folder},trust_remote_code=True,add_bos_token=True"),
        *("--output_path", tmp_path / "out", "--device", "cpu"),
    )
    (found,) = (tmp_path / "out").rglob("results*.json")
    assert json.loads(found.read_text())["results"]["korean_files"]["acc,none"] == 1.0

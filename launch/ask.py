"""Ask for a Linux command in Korean: python -m launch.ask --query "디스크 사용량을 확인해줘"."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hybriko_jax.errors import UserError
from launch import common, load

if TYPE_CHECKING:
    import flax.linen as nn

    from hybriko_jax.decode.prefix import Prefix

SHIPPED = Path(__file__).parent.parent / "checkpoints" / "hybriko-mini-linuxfc"
LONGEST = 1000  # characters of a request


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """한국어 부탁을 리눅스 명령으로 바꿉니다. 명령을 실행하지는 않습니다."""

    query: str
    """부탁하는 말."""
    checkpoint: Path = SHIPPED
    """모델 폴더나 학습 작업 폴더."""
    grounded: bool = True
    """부탁한 말에 있는 이름만 씁니다."""
    cwd_names: bool = False
    """지금 폴더에 있는 이름도 쓸 수 있습니다."""


def main() -> None:
    if not common.accelerator():
        common.prepare_cpu(1)
    arguments = common.parse(Arguments, command="launch.ask")
    query = check(arguments.query)
    names = sorted(p.name for p in Path.cwd().iterdir()) if arguments.cwd_names else []

    from hybriko_jax.evaluate.function_calling import Question, predict
    from hybriko_jax.linux.argv import command_line
    from hybriko_jax.linux.tools import FINISH, call_fault
    from hybriko_jax.models import build

    try:
        loaded = load.checkpoint(arguments.checkpoint)
    except UserError as e:
        raise UserError(f"모델을 읽을 수 없습니다. {e}") from None
    model = build(loaded.config)
    question = Question("", ({"role": "user", "content": query},), "", ())
    (answer,) = predict(
        model,
        loaded.params,
        loaded.tokenizer,
        [question],
        system="",
        grounded=arguments.grounded,
        names=names,
        batch_size=1,
        prefix=kept_prefix(loaded, model, arguments.checkpoint),
    )
    print(answer.text)
    action, values = answer.action, answer.arguments
    fault = call_fault(action, values)
    if action is None or values is None or fault:
        hint = "말을 바꿔 보세요." if arguments.grounded else "--grounded로 다시 해 보세요."
        raise UserError(f"모델의 답을 명령으로 바꿀 수 없습니다 ({fault}). {hint}")
    shown = values.get("final_answer", "") if action == FINISH else command_line(action, values)
    print(f"\n{shown}" if action == FINISH else f"\n$ {shown}")


def kept_prefix(loaded: load.Loaded, model: nn.Module, checkpoint: Path) -> Prefix:
    """The state after the system prompt, kept beside the model once it has been run."""
    from hybriko_jax.decode.prefix import load_prefix
    from hybriko_jax.prompts import chat_tokens

    before, _ = chat_tokens(loaded.tokenizer, [{"role": "system", "content": loaded.system}])
    return load_prefix(model, loaded.params, before.tolist(), checkpoint / "prefix.npz")


def check(query: str) -> str:
    """The request, if it can be answered.

    Raises:
      UserError: it is empty, too long, or has no letters.
    """
    query = unicodedata.normalize("NFC", query.strip())
    if not query.isascii() and any("\ud800" <= c <= "\udfff" for c in query):
        raise UserError(
            "부탁하는 말이 UTF-8이 아닙니다. 터미널의 문자 인코딩을 UTF-8로 바꿔 주세요."
        )
    if not query:
        raise UserError('부탁하는 말이 비어 있습니다. 예: --query "현재 폴더의 파일을 보여줘"')
    if len(query) > LONGEST:
        raise UserError(
            f"부탁하는 말이 {len(query):,}자로 너무 깁니다. {LONGEST:,}자 안으로 줄여 주세요."
        )
    if not re.search(r"\w", query):
        raise UserError(f"{query[:20]!r}: 글자가 없어 알아들을 수 없습니다. 말로 부탁해 주세요.")
    return query


if __name__ == "__main__":
    common.run(main)

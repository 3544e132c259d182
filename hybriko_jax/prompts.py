"""Conversations as text and tokens: ChatML, and the Thought / Action / Action Input of a call."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from hybriko_jax.tokenizer import IM_END, IM_START, Tokenizer

Message = Mapping[str, str]
"""{"role": "system" | "user" | "assistant" | "tool", "content": ...}"""

COMPACT = "요청을 리눅스 도구 호출로 바꾼다."
FULL = "다음 도구를 쓸 수 있다. Thought, Action, Action Input 순서로 답한다.\n"


def system_prompt(kind: Literal["full", "compact"], schemas: Sequence[Mapping[str, Any]]) -> str:
    """What stands before every request: one line, or the JSON schema of every tool."""
    if kind == "compact":
        return COMPACT
    return FULL + "\n".join(json.dumps(s, ensure_ascii=False) for s in schemas)


def format_call(thought: str, action: str, arguments: Mapping[str, Any]) -> str:
    """The text of an answer."""
    return (
        f"Thought: {thought}\nAction: {action}\n"
        f"Action Input: {json.dumps(arguments, ensure_ascii=False)}"
    )


def parse_call(text: str) -> tuple[str, str | None, dict[str, Any] | None]:
    """(thought, action, arguments) of an answer; None for what cannot be read."""
    head, _, call = text.partition("\nAction:")
    action, _, arguments = call.partition("\nAction Input:")
    thought = head.removeprefix("Thought:").strip()
    try:
        values = json.loads(arguments)
    except ValueError:
        values = None
    return thought, action.strip() or None, values if isinstance(values, dict) else None


def chat_tokens(
    tokenizer: Tokenizer, messages: Sequence[Message], begin: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of a conversation in ChatML, and which of them the assistant says.

    Every message is tokenized by itself, so that its tokens do not depend on its neighbours, and
    control symbols that a user types in stay ordinary text. What the assistant copies from, it
    reads one word a line: a piece that begins a word would otherwise hold the space before it,
    and a name would be other tokens in the request than between the quotes of the answer.

    Args:
      begin: whether a start token comes first.

    Returns:
      tokens_L, int32, and said_L, bool: contents of assistant messages and the <|im_end|> that
      ends them.
    """
    start, end = tokenizer.control_id(IM_START), tokenizer.control_id(IM_END)
    newline = tokenizer.encode("\n")
    tokens, said = ([tokenizer.bos_id], [False]) if begin else ([], [])
    for message in messages:
        header = [start, *tokenizer.encode(message["role"] + "\n")]
        mine = message["role"] == "assistant"
        text = message["content"] if mine else message["content"].replace(" ", "\n")
        content = [*tokenizer.encode(text), end]
        tokens += [*header, *content, *newline]
        said += [False] * len(header) + [mine] * len(content) + [False] * len(newline)
    return np.array(tokens, np.int32), np.array(said, bool)


def answer_header(tokenizer: Tokenizer) -> list[int]:
    """The tokens after which the assistant speaks."""
    return [tokenizer.control_id(IM_START), *tokenizer.encode("assistant\n")]

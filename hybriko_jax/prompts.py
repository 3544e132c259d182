"""Prompts as text and tokens: ChatML, Thought / Action / Action Input of a call, translation."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from hybriko_jax.errors import UserError
from hybriko_jax.tokenizer import IM_END, IM_START, Tokenizer

Message = Mapping[str, str]
"""{"role": "system" | "user" | "assistant" | "tool", "content": ...}"""

COMPACT = "요청을 리눅스 도구 호출로 바꾼다."
FULL = "다음 도구를 쓸 수 있다. Thought, Action, Action Input 순서로 답한다.\n"

LANGUAGES = {"ko": "한국어", "en": "영어", "ja": "일본어"}
"""What a translation prompt calls the languages."""
END = "</끝>"
"""Ends both texts of a translation."""


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
      begin: whether a start token comes first, where the tokenizer has one.

    Returns:
      tokens_L, int32, and said_L, bool: contents of assistant messages and the <|im_end|> that
      ends them.
    """
    start, end = tokenizer.control_id(IM_START), tokenizer.control_id(IM_END)
    newline = tokenizer.encode("\n")
    tokens = list(tokenizer.begin) if begin else []
    said = [False] * len(tokens)
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


class Translation(NamedTuple):
    """A text, its translation, and the languages of the two: keys of `LANGUAGES`."""

    source_text: str
    target_text: str
    source: str
    target: str


def translation_prompt(text: str, source: str, target: str) -> str:
    """What stands before a translation: "### 영어: TEXT</끝>\\n### 한국어:".

    The text is put in NFC. A </끝> typed in it would end it early, so it is written <\\/끝>, as
    JSON writes </script> inside HTML: visible, and undone by `parse_translation` where the model
    copies it. A <\\/끝> gets one more backslash, so that both come back as they were.

    Raises:
      UserError: a language that has no name in `LANGUAGES`, or twice the same.

    Source: Gugugo, github.com/jwj7140/Gugugo, GugugoTrain.ipynb.
    """
    for language in (source, target):
        if language not in LANGUAGES:
            raise UserError(
                f"language {language!r} is not one of {', '.join(LANGUAGES)}, which the "
                "translation prompts name."
            )
    if source == target:
        raise UserError(f"source and target are both {source!r}. Give two languages.")
    return f"### {LANGUAGES[source]}: {_escaped(text)}{END}\n### {LANGUAGES[target]}:"


def translation_answer(text: str) -> str:
    """What the model says behind a prompt: " TEXT</끝>", the text as in `translation_prompt`."""
    return f" {_escaped(text)}{END}"


def parse_translation(answer: str) -> str:
    """The text of an answer; all there is where it was cut off before its </끝>."""
    return re.sub(r"<\\(\\*)/끝>", r"<\1/끝>", answer.partition(END)[0].removeprefix(" "))


def _escaped(text: str) -> str:
    # NFC first: a decomposed 끝 would become one only in the tokenizer.
    return re.sub(r"<(\\*)/끝>", r"<\\\1/끝>", unicodedata.normalize("NFC", text))


def translation_tokens(
    tokenizer: Tokenizer, source_text: str, target_text: str, source: str, target: str
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of a prompt and its answer, and which of them the model says.

    Prompt, answer and the </끝> that ends the answer are tokenized each by itself: the first
    boundary is the one that decoding makes, and the end is always the same tokens. In one piece
    with the answer it could share a token with its last character (".</"): Gugugo, trained so,
    stops on several spellings.

    A start token comes first where the tokenizer has one.

    Returns:
      tokens_L, int32, and said_L, bool: the answer with its </끝>.

    Raises:
      UserError: as `translation_prompt`.
    """
    translation = Translation(source_text, target_text, source, target)
    return translation_tokens_batch(tokenizer, [translation])[0]


def translation_tokens_batch(
    tokenizer: Tokenizer, translations: Sequence[Translation]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """`translation_tokens` of each; many at a time are faster."""
    prompts = [translation_prompt(t.source_text, t.source, t.target) for t in translations]
    answers = [translation_answer(t.target_text).removesuffix(END) for t in translations]
    begin, end = tokenizer.begin, tokenizer.encode(END)
    return [
        (
            np.array([*begin, *prompt, *answer, *end], np.int32),
            np.repeat([False, True], [len(begin) + len(prompt), len(answer) + len(end)]),
        )
        for prompt, answer in zip(
            tokenizer.encode_batch(prompts), tokenizer.encode_batch(answers), strict=True
        )
    ]

"""Function calling, measured: right actions, right arguments, and what was made up."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from hybriko_jax.data.batch import Batch
from hybriko_jax.data.conversations import sample_lines
from hybriko_jax.decode.constrain import Grammars, Tool, call_grammar
from hybriko_jax.decode.generate import continuations
from hybriko_jax.decode.prefix import Prefix
from hybriko_jax.decode.spans import candidates
from hybriko_jax.errors import UserError
from hybriko_jax.linux.tools import DEFAULTS, FINISH, TOOLS, call_fault
from hybriko_jax.prompts import Message, answer_header, chat_tokens, format_call, parse_call
from hybriko_jax.tokenizer import IM_END, Tokenizer
from hybriko_jax.training.step import eval_step

MAX_TOKENS = 400  # of an answer
_ROWS = 16  # questions whose loss is measured at a time
COPIED = ("path", "source", "destination", "archive", "files", "name", "pattern", "host", "url")


@dataclass(frozen=True)
class Question:
    """A conversation up to where the assistant shall answer, and the right calls."""

    id: str
    messages: tuple[Message, ...]
    action: str
    answers: tuple[Mapping[str, Any], ...]
    """Arguments that are right; the first is the one in mind."""


@dataclass(frozen=True)
class Prediction:
    id: str
    action: str | None
    arguments: Mapping[str, Any] | None
    text: str


def questions(samples: Iterable[Mapping[str, Any]]) -> Iterator[Question]:
    """Every call of samples or dialogues, those before it given.

    Takes the lines of launch.synthesize, {"id", "query", "action", "arguments", "acceptable"},
    and dialogues with "messages" and "steps". Call k of dialogue X has the id X/k.
    """
    for sample in samples:
        messages = sample.get("messages") or [{"role": "user", "content": sample["query"]}]
        at = [i for i, m in enumerate(messages) if m["role"] == "assistant"] or [len(messages)]
        steps = sample.get("steps")
        for k, end in enumerate(at, 1):
            if steps:
                right = steps[k - 1]
            elif end < len(messages):
                _, action, arguments = parse_call(messages[end]["content"])
                right = {"action": action, "arguments": arguments}
            else:
                right = sample
            yield Question(
                id=f"{sample['id']}/{k}" if steps or len(at) > 1 else str(sample["id"]),
                messages=tuple(messages[:end]),
                action=right["action"],
                answers=(right["arguments"], *(right.get("acceptable") or ())),
            )


def read_questions(path: Path) -> list[Question]:
    """The questions of a JSONL file; see `questions`.

    Raises:
      UserError: a line is none: its number, and what is wrong with it.
    """
    found: list[Question] = []
    ids = set()
    for where, line in sample_lines(path):
        try:
            asked = list(questions([json.loads(line)]))
        except KeyError as e:
            raise UserError(f"{where}: no field {e}. Mend or remove the line.") from None
        except (ValueError, TypeError, AttributeError, IndexError) as e:
            raise UserError(f"{where}: not a sample ({e}). Mend or remove the line.") from None
        for question in asked:
            if fault := call_fault(question.action, question.answers[0]):
                raise UserError(f"{where}: {fault}. Mend or remove the line.")
            if question.id in ids:
                raise UserError(f"{where}: the id {question.id!r} is there twice. Rename one.")
            ids.add(question.id)
        found += asked
    return found


def _prompt(
    tokenizer: Tokenizer, system: str, messages: Sequence[Message], begin: bool = True
) -> list[int]:
    """The tokens after which a question is answered."""
    before: list[Message] = [{"role": "system", "content": system}] if system else []
    tokens, _ = chat_tokens(tokenizer, [*before, *messages], begin)
    return [*tokens.tolist(), *answer_header(tokenizer)]


def evaluation_loss(
    model: nn.Module, params: Any, tokenizer: Tokenizer, asked: Sequence[Question], system: str
) -> float:
    """Nats per token of the right action and arguments, written after an empty thought."""
    end, rows = tokenizer.control_id(IM_END), []
    for q in asked:
        call = format_call("", q.action, q.answers[0])
        prompt = _prompt(tokenizer, system, q.messages)
        rows.append((prompt, [*tokenizer.encode(call), end]))
    nats, tokens = 0.0, 0
    step = jax.jit(functools.partial(eval_step, model=model))
    rows.sort(key=lambda row: len(row[0]) + len(row[1]))
    for first in range(0, len(rows), _ROWS):
        part = rows[first : first + _ROWS]
        length = -(-max(len(p) + len(a) for p, a in part) // 128) * 128
        batch = Batch(*(np.zeros((_ROWS, length), kind) for kind in (np.int32, np.int32, bool)))
        for b, (prompt, answer) in enumerate(part):
            n = len(prompt) + len(answer)
            batch.tokens_BL[b, :n] = prompt + answer
            batch.positions_BL[b, :n] = np.arange(n)
            batch.loss_mask_BL[b, len(prompt) : n] = True
        part_nats, part_tokens = step(params, batch)
        nats, tokens = nats + float(part_nats), tokens + int(part_tokens)
    return nats / tokens


def predict(
    model: nn.Module,
    params: Any,
    tokenizer: Tokenizer,
    asked: Sequence[Question],
    *,
    system: str,
    grounded: bool,
    tools: Sequence[Tool] = TOOLS,
    names: Sequence[str] = (),
    batch_size: int = 32,
    prefix: Prefix | None = None,
) -> Iterator[Prediction]:
    """Greedy answers, question by question, in order of length.

    Args:
      system: the system prompt that the model was tuned with.
      grounded: let only calls through that the conversation supports.
      names: names in the current folder, which grounded answers may use too.
      prefix: the system prompt, already run; `system` must then be "", and batch_size 1.
    """
    prompts = {q.id: _prompt(tokenizer, system, q.messages, not prefix) for q in asked}
    ordered = sorted(asked, key=lambda q: len(prompts[q.id]))
    grammars = Grammars(tokenizer) if grounded else None
    for first in range(0, len(ordered), batch_size):
        batch = ordered[first : first + batch_size]
        mask = None
        if grammars:
            larks = [call_grammar(tools, candidates(*sources(q.messages), names)) for q in batch]
            mask = grammars.masks([*larks, *larks[:1] * (batch_size - len(batch))])
        rows = [prompts[q.id] for q in batch]
        rows += rows[:1] * (batch_size - len(batch))  # one shape for all batches
        answers = continuations(
            model,
            params,
            rows,
            MAX_TOKENS,
            stop=tokenizer.ends,
            temperature=0,
            mask=mask,
            prefix=prefix,
        )
        for question, answer in zip(batch, answers, strict=False):
            text = tokenizer.decode(answer)
            _, action, arguments = parse_call(text)
            yield Prediction(question.id, action, arguments, text)


def sources(messages: Sequence[Message]) -> tuple[list[str], list[str]]:
    """What the user said; what tools printed, and the values of the calls before."""
    said = [m["content"] for m in messages if m["role"] == "user"]
    known = [m["content"] for m in messages if m["role"] == "tool"]
    for message in messages:
        if message["role"] == "assistant":
            values = (parse_call(message["content"])[2] or {}).values()
            known += [v for v in values if isinstance(v, str)]
    return said, known


def same_call(question: Question, prediction: Prediction) -> bool:
    """Whether the arguments are right, an absent one standing for its default."""
    if prediction.action != question.action or prediction.arguments is None:
        return False
    if question.action == FINISH:
        return bool(prediction.arguments)
    given = _plain(prediction.arguments)
    return any(given == _plain(answer) for answer in question.answers)


def _plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    plain = {}
    for name, value in arguments.items():
        if isinstance(value, str) and name in COPIED and len(value) > 1:
            value = value.removeprefix("./").rstrip("/") or "/"
        if value not in (None, "") and DEFAULTS.get(name, ...) != value:
            plain[name] = value
    return plain


def made_up(question: Question, prediction: Prediction) -> list[str]:
    """Copied arguments with a part that neither the conversation nor a right answer holds."""
    if prediction.action == FINISH or not prediction.arguments:
        return []
    said = "".join("".join(m["content"].split()) for m in question.messages)
    right = {str(v) for answer in question.answers for v in answer.values()}
    found = []
    for name, value in prediction.arguments.items():
        if name not in COPIED or not isinstance(value, str) or value in right:
            continue
        parts = [p for piece in value.split("/") for p in piece.replace("*", " ").split()]
        if any(p not in (".", "..", "~", "-") and p.lstrip(".") not in said for p in parts):
            found.append(value)
    return found


@dataclass(frozen=True)
class Score:
    """Counts over questions."""

    asked: int
    actions: int
    calls: int
    """With the right action and the right arguments."""
    hallucinated: int
    """With an argument that was made up."""

    def rates(self) -> dict[str, tuple[float, float, float]]:
        """Rates, each with its 95 % Wilson interval."""
        return {
            "action accuracy": wilson(self.actions, self.asked),
            "argument exact match": wilson(self.calls, self.actions),
            "full-call accuracy": wilson(self.calls, self.asked),
            "hallucination rate": wilson(self.hallucinated, self.asked),
        }


def score(asked: Sequence[Question], predictions: Iterable[Prediction]) -> dict[str, Score]:
    """Scores over all ("all"), per tool, and of whole dialogues ("dialogues")."""
    by_id = {p.id: p for p in predictions}
    rows = []
    for q in asked:
        p = by_id[q.id]
        rows.append((q, p.action == q.action, same_call(q, p), bool(made_up(q, p))))

    def total(chosen):
        chosen = list(chosen)
        return Score(len(chosen), *(sum(r[i] for r in chosen) for i in (1, 2, 3)))

    scores = {"all": total(rows)}
    for tool in sorted({q.action for q in asked}):
        scores[tool] = total(r for r in rows if r[0].action == tool)
    whole: dict[str, list] = {}
    for row in rows:
        if "/" in row[0].id:
            whole.setdefault(row[0].id.rpartition("/")[0], []).append(row)
    if whole:
        done = [
            (None, *(f(r[i] for r in d) for i, f in ((1, all), (2, all), (3, any))))
            for d in whole.values()
        ]
        scores["dialogues"] = total(done)
    return scores


def wilson(k: int, n: int) -> tuple[float, float, float]:
    """k / n and its 95 % interval.

    Source: Wilson, Probable inference, the law of succession, and statistical inference (1927).
    """
    if not n:
        return math.nan, 0.0, 1.0
    z, p = 1.96, k / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return p, max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)

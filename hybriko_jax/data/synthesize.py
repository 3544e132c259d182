"""Seeded samples of function calling: Korean requests and the calls that answer them."""

from __future__ import annotations

import collections
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hybriko_jax.data.colloquial import add_fillers, close_up, slip, vary_ending
from hybriko_jax.data.phrasings import SLOT, Step, Template, load_bank, skeleton
from hybriko_jax.data.values import Values
from hybriko_jax.errors import UserError
from hybriko_jax.korean import native_number, particle, sino_number
from hybriko_jax.linux.tools import BY_NAME, FINISH, TOOLS, call_fault
from hybriko_jax.prompts import format_call

# Shares of the samples; the rest is dealt out evenly over the other tools.
SHARES = {FINISH: 0.14, "dialogues": 0.12}
_SINO_COUNTERS = ("초", "회", "행", "바이트", "분")
_TRIES = 200  # draws for a request that is not yet there


def synthesize(n: int, seed: int, held_out: bool = False) -> Iterator[dict[str, Any]]:
    """Samples, no two requests alike.

    Args:
      n: how many.
      held_out: from the phrasings and pools of values that no training sample uses.

    Yields:
      {"id", "query", "messages", "tools", "action", "arguments", "spans"}, ready for JSON: the
      action and arguments of the first call; `messages` holds all. spans[slot] is where the
      request names a value, in characters.

    Raises:
      UserError: the bank cannot make so many different requests.
    """
    rng = random.Random(f"{seed} {held_out}")
    values = Values.of(rng, held_out)
    groups: dict[str, dict[int, list[Template]]] = collections.defaultdict(dict)
    for template in load_bank():
        if template.held_out == held_out:
            groups[template.name].setdefault(template.group, []).append(template)
    names = sorted(groups)
    rest = (1 - sum(SHARES.values())) / (len(names) - len(SHARES))
    weights = [SHARES.get(name, rest) for name in names]
    seen: set[str] = set()
    for i in range(n):
        name = rng.choices(names, weights)[0]
        by_group = list(groups[name].values())
        every = sum(by_group, [])
        for _ in range(_TRIES):
            # A third by group: rare kinds of calls are not drowned.
            pool = rng.choice(by_group) if rng.random() < 0.33 else every
            sample = fill(rng.choice(pool), values, rng)
            if sample["query"] not in seen:
                break
        else:
            raise UserError(
                f"--n {n}: there are not so many different requests for {name}. Give a smaller --n."
            )
        seen.add(sample["query"])
        yield {"id": f"{'h' if held_out else 't'}{seed}-{i:06}", **sample}


def fill(template: Template, values: Values, rng: random.Random) -> dict[str, Any]:
    """A sample of one template."""
    chosen = _draw_all(template, values, rng)
    query, spans, changes = _say(template.say, chosen, rng)
    messages = [{"role": "user", "content": query}]
    calls = []
    for step in template.steps:
        arguments = _arguments(step, chosen)
        calls.append((step.action, arguments))
        content = format_call(_fill(step.thought, chosen), step.action, arguments)
        messages.append({"role": "assistant", "content": content})
        if step.result is not None:
            messages.append({"role": "tool", "content": _fill(step.result, chosen)})
    return {
        "query": query,
        "messages": messages,
        "tools": [tool.name for tool in TOOLS],
        "action": calls[0][0],
        "arguments": calls[0][1],
        "spans": spans,
        "phrasing": {
            "name": template.name,
            "group": template.group,
            "say": template.say,
            "changes": changes,
        },
    }


def report(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts of a set of samples: per tool, per phenomenon, skeletons, duplicates."""
    tools = collections.Counter(s["phrasing"]["name"] for s in samples)
    skeletons = collections.defaultdict(set)
    for s in samples:
        skeletons[s["phrasing"]["name"]].add(skeleton(s["phrasing"]["say"]))
    phenomena = collections.Counter(p for s in samples for p in _phenomena(s))
    queries = {s["query"] for s in samples}
    return {
        "samples": len(samples),
        "duplicates": len(samples) - len(queries),
        "faults": sum(call_fault(s["action"], s["arguments"]) is not None for s in samples),
        "tools": dict(sorted(tools.items())),
        "skeletons": {name: len(found) for name, found in sorted(skeletons.items())},
        "phenomena": dict(phenomena.most_common()),
    }


_PHENOMENA = {
    "Korean name": r"[가-힣]",
    "space in a name": r" ",
    "parentheses": r"[()]",
    "several dots": r"[^./]+\.[^./]+\.[^./]+",
    "absolute path": r"^/",
    "home path": r"^~/",
    "relative path": r"^\.\.?/|^[^/~][^:]*/",
    "URL with a query": r"\?",
    "date": r"(?:19|20)\d\d-?\d\d-?\d\d",
}
_SLOTS = {
    "decoy": "distractor",
    "decoydir": "distractor",
    "kind": "glob",
    "n": "number",
    "mode": "permission digits",
    "host": "host",
    "url": "URL",
    "url_file": "URL",
}


def _phenomena(sample):
    found = {*sample["phrasing"]["changes"]}
    for begin, end in sample["spans"].values():
        value = sample["query"][begin:end]
        found |= {name for name, rule in _PHENOMENA.items() if re.search(rule, value)}
    slots = {m[1] for m in SLOT.finditer(sample["phrasing"]["say"])}
    found |= {_SLOTS[slot] for slot in slots & _SLOTS.keys()}
    if sample["action"] == "chmod_command" and "mode" not in slots:
        found.add("permission words")
    if {"source", "destination"} <= sample["arguments"].keys():
        places = [sample["query"].find(sample["arguments"][k]) for k in ("source", "destination")]
        if 0 <= places[1] < places[0]:
            found.add("flipped order")
    if len(sample["messages"]) > 2:
        found.add("dialogue")
    return found


def _draw_all(template: Template, values: Values, rng: random.Random) -> dict[str, Any]:
    """A value for every slot of a template, no two alike."""
    texts = [template.say]
    for step in template.steps:
        texts += [step.thought, step.result or "", *map(str, step.arguments.values())]
    slots = dict.fromkeys((m[1], m[1] + m[2]) for text in texts for m in SLOT.finditer(text))
    chosen: dict[str, Any] = {}
    folders = _folder_names(template)
    for kind, slot in sorted(slots, key=lambda s: s[0].startswith("decoy")):
        for _ in range(_TRIES):
            if kind.startswith("decoy"):
                value = values.decoy_of(_decoyed(kind, chosen))
            elif kind == "name":
                value = values.name_dir() if slot in folders else values.name_file()
            else:
                value = values.draw(kind)
            if value not in chosen.values():
                break
        chosen[slot] = value
    return chosen


def _folder_names(template: Template) -> set[str]:
    """Slots {name} that name a folder."""
    if template.name in ("cd_command", "mkdir_command"):
        return {"name", "name2"}
    found = {
        m[1] for m in re.finditer(r"\{(name\d?)[^}]*\} ?(?:폴더|디렉토리|디렉터리)", template.say)
    }
    for step in template.steps:
        if step.action == "mkdir_command" or {"{dir}", "{name}"} == {
            step.arguments.get("source"),
            step.arguments.get("destination"),
        }:
            found |= {m[1] + m[2] for m in SLOT.finditer(str(step.arguments)) if m[1] == "name"}
    return found


def _decoyed(kind, chosen):
    folders = ("dir", "name_dir", "name")
    wanted = folders if kind == "decoydir" else ("file", "name_file", "name", "archive", *folders)
    named = (chosen[slot] for kind in wanted for slot in chosen if slot.rstrip("23") == kind)
    return next(named, "notes.txt")


def _arguments(step: Step, chosen: Mapping[str, Any]) -> dict[str, Any]:
    arguments = {}
    for name, value in step.arguments.items():
        if isinstance(value, str):
            value = _fill(value, chosen)
        if BY_NAME[step.action].parameters[name]["type"] == "integer":
            value = int(value)
        arguments[name] = value
    return arguments


def _fill(text: str, chosen: Mapping[str, Any]) -> str:
    """A template's text with bare values."""

    def value(m):
        value = chosen[m[1] + m[2]]
        if m[1] == "kind":
            return f"*.{value[1]}" if m[3] else value[0]
        return f"{value}{particle(str(value), m[4]) if m[4] else ''}"

    return SLOT.sub(value, text)


def _say(
    say: str, chosen: Mapping[str, Any], rng: random.Random
) -> tuple[str, dict[str, list[int]], list[str]]:
    """The request as somebody would type it, where it names the values, and what was done to it."""
    changes = []
    literals, slots, end = [], [], 0
    for m in SLOT.finditer(say):
        literals.append(say[end : m.start()])
        slots.append(m)
        end = m.end()
    literals.append(say[end:])
    literals[-1] = vary_ending(literals[-1], rng)
    before, after = add_fillers(literals[-1], rng)
    literals[0], literals[-1] = before + literals[0], literals[-1] + after
    if rng.random() < 0.12:
        share = rng.choice((0.3, 0.3, 1.0))
        literals = [close_up(text, rng, share) for text in literals]
        changes.append("spacing error")
    if rng.random() < 0.07:
        at = rng.randrange(len(literals))
        literals[at] = slip(literals[at], rng)
        changes.append("typing error")
    text, spans = literals[0], {}
    for m, literal in zip(slots, literals[1:], strict=True):
        value = chosen[m[1] + m[2]]
        if m[1] == "n":
            value, literal = _number(value, literal, rng)
            if not value.isdigit():
                changes.append("Hangul numeral")
        elif m[1] == "kind":
            value = value[0]
        quote = _quote(value, m[1], rng)
        begin = len(text) + len(quote[0])
        text += quote[0] + value + quote[1]
        spans[m[1] + m[2]] = [begin, begin + len(value)]
        if m[4]:
            right = particle(value, m[4])
            wrong = rng.random() < 0.06  # people do not always look back at the name
            text += m[4] if wrong else right
            if wrong and m[4] != right:
                changes.append("wrong particle")
        elif literal.startswith((" 폴더", " 파일")) and rng.random() < 0.08:
            literal = literal[1:]
        text += literal
    return text, spans, changes


def _quote(value: str, kind: str, rng: random.Random) -> tuple[str, str]:
    if kind in ("n", "kind", "url", "url_file", "host", "pid", "mode", "user", "process"):
        return "", ""
    chance = 0.3 if kind == "pattern" else 0.06
    if (" " in value and not (kind == "pattern" and rng.random() < 0.3)) or rng.random() < chance:
        return rng.choice((("'", "'"), ('"', '"'), ("'", "'"), ('"', '"'), ("‘", "’"), ("“", "”")))
    return "", ""


def _number(n: int, literal: str, rng: random.Random) -> tuple[str, str]:
    """A number before its counter, in digits or in words."""
    kind = rng.random()
    if kind < 0.6 or n > 99:
        gap = " " if rng.random() < 0.1 else ""
        return (
            sino_number(n) if kind > 0.95 and n < 1000 and n % 10 == 0 else str(n)
        ), gap + literal
    sino = literal.lstrip().startswith(_SINO_COUNTERS) or kind > 0.9
    word = sino_number(n) if sino else native_number(n)
    if 10 < n < 100 and not sino and n % 10 and rng.random() < 0.15:
        word = native_number(n // 10 * 10).replace("스무", "스물") + " " + native_number(n % 10)
    return word, (" " if rng.random() < 0.6 else "") + literal

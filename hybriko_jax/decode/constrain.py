"""Grounded decoding: a grammar per request, in which only calls that the request supports exist.

Every answer that the grammar lets through parses, names a real tool, has its schema's arguments,
and takes every copied argument from `spans`. Finish is always among them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import llguidance
import llguidance.numpy
import numpy as np

from hybriko_jax.decode.spans import Candidates
from hybriko_jax.tokenizer import IM_END, Tokenizer

MAX_THOUGHT = 80  # characters
MAX_ANSWER = 200


class Tool(Protocol):
    """What the grammar asks of a tool; see `linux.tools`."""

    @property
    def name(self) -> str: ...
    @property
    def parameters(self) -> Mapping[str, Mapping[str, Any]]: ...
    @property
    def required(self) -> Sequence[str]: ...


def call_grammar(tools: Sequence[Tool], found: Candidates) -> str:
    """A Lark grammar of the answers to one request.

    Args:
      tools: their parameters are JSON schemas; `format` and `choices` say where strings come from.
      found: the candidates of the request.
    """
    folders = (*found.folders, *(p for p in found.places if p in (".", "..", "~")))
    rules = {
        "name": _any(_quotable(n) for n in found.names),
        "folder": _any(_quotable(n) for n in folders),
        "place": _any(p for p in found.places if p != "-"),
        "extension": _any(found.extensions),
        "word": _any(found.words),
        "digits": _any(str(n) for n in found.numbers),
        "pattern": _any(_quotable(p) for p in found.patterns),
        "uri": _any(_quotable(u) for u in found.uris),
        "host": _any(_quotable(h) for h in found.hosts),
        "mode": _any(_quotable(m) for m in found.modes),
        "flag": _any(found.flags),
    }
    root = '"/"? ' if "/" in found.places else ""
    rules["inside"] = f'{root}(folder "/")~0..2'
    # No folder of a path is named like its end: the rule of each name leaves that one out.
    names = [_literal(_quotable(n)) for n in found.names]
    for i, name in enumerate(names):
        others = _any(_quotable(f) for f in folders if f != found.names[i])
        rules[f"folder_{i}"] = others
        rules[f"file_{i}"] = f'{root}(folder_{i} "/")~0..2 {name}' if others else name
    files = [f"file_{i}" for i in range(len(names))]
    rules["file"] = _or(*files)
    parent = 'inside ".."' if ".." in found.places else ""
    rules["path"] = _or("place", parent, "file" if files else "")
    rules["cd"] = _or("path", '"-"' if "-" in found.places else "")
    rules["glob"] = _or(
        "name" if rules["name"] else "",
        '"*." extension' if rules["extension"] else "",
        '"*" pattern "*" | pattern "*" | "*" pattern' if rules["pattern"] else "",
        '("*" pattern | pattern) "*." extension' if rules["pattern"] and rules["extension"] else "",
    )
    rules["globs"] = _or(
        'inside "*." extension' if rules["extension"] else "",
        'inside word "*"' if rules["word"] and found.everything else "",
        'inside "*"' if found.everything else "",
    )
    globs = "globs" if rules["globs"] else ""
    rules["paths"] = _or("file" if files else "", globs)
    rules["files"] = _or('paths (" " paths)~0..3' if rules["paths"] else "", '"."')
    for i in range(len(names)):
        others = _or(*(f for f in files if f != f"file_{i}"))
        rules[f"path_not_{i}"] = _or("place", parent, others)
        rules[f"paths_not_{i}"] = _or(others, globs)
        more = f'paths_not_{i} (" " paths_not_{i})~0..3' if rules[f"paths_not_{i}"] else ""
        rules[f"files_not_{i}"] = _or(more, '"."')
    calls = []
    for tool in tools:
        if (members := _members(tool, rules, len(names))) is not None:
            head = _literal(f"{tool.name}\nAction Input: {{")
            calls.append(f'{head} {members} "}}"'.replace("  ", " "))
    lines = [
        '%llguidance {"no_forcing": true}',
        'start: "Thought: " THOUGHT "\\nAction: " call',
        f"THOUGHT: /[^\\n]{{1,{MAX_THOUGHT}}}/",
        f'FREE: /[^"\\\\\\x00-\\x1f]{{1,{MAX_ANSWER}}}/',
        "call: " + "\n  | ".join(calls),
        *(f"{rule}: {body}" for rule, body in rules.items() if body),
    ]
    return "\n".join(lines) + "\n"


def _members(tool: Tool, rules: Mapping[str, str], n_names: int) -> str | None:
    """The inside of a call's JSON object; None where the request has no value that it needs."""
    written = {name: _value(schema, rules) for name, schema in tool.parameters.items()}
    if any(written[name] is None for name in tool.required):
        return None
    second = next((n for n, schema in tool.parameters.items() if "differs" in schema), None)
    if second is None:
        return _object(tool, written)
    # Two names that differ: one alternative for each that the first can be.
    schema = tool.parameters[second]
    first, kind = schema["differs"], schema["format"]
    ways = [
        written | {first: _string(f"file_{i}"), second: _string(f"{kind}_not_{i}")}
        for i in range(n_names)
    ]
    if rules["globs"] and tool.parameters[first]["format"] == "paths":
        ways.append(written | {first: _string("globs")})
    return "(" + " | ".join(_object(tool, way) for way in ways) + ")"


def _object(tool: Tool, written: Mapping[str, str | None]) -> str:
    keys = {n: f"{_literal(json.dumps(n) + ': ')} {body}" for n, body in written.items() if body}
    required = [keys[n] for n in tool.required]
    optional = [keys[n] for n in keys if n not in tool.required]
    if required:
        return ' ", " '.join(required) + "".join(f' (", " {o})?' for o in optional)
    return f"({' | '.join(optional)})?" if optional else ""


def _string(body: str) -> str:
    return f'"\\"" {body} "\\""'


def _value(schema: Mapping[str, Any], rules: Mapping[str, str]) -> str | None:
    kind = schema["type"]
    if kind == "boolean":
        return '("true" | "false")'
    if kind == "integer":
        return "digits"
    if enum := schema.get("enum"):
        return f"({_any(json.dumps(v) for v in enum)})"
    source = schema.get("format")
    if source is None:
        return _string("FREE")
    if source == "options":
        choices = [c for c in (_choice(c, rules) for c in schema["choices"]) if c]
        choices += ['flag (" " flag)~0..3'] if rules["flag"] else []
        return _string(f"({' | '.join(choices)})")
    return _string(source) if rules[source] else None


_HOLES = {"user": "word", "process": "word", "pid": "digits", "n": "digits", "name": "name"}


def _choice(choice: str, rules: Mapping[str, str]) -> str | None:
    """One value of options: text, and holes that words of the request fill."""
    parts = re.split(r"\{(\w+)\}", choice)
    out = []
    for i, part in enumerate(parts):
        if i % 2:
            if not rules[_HOLES[part]]:
                return None
            out.append(_HOLES[part])
        elif part:
            out.append(_literal(part))
    return " ".join(out)


def _or(*bodies: str) -> str:
    return " | ".join(b for b in bodies if b)


def _any(values) -> str:
    return " | ".join(dict.fromkeys(_literal(v) for v in values if v))


def _quotable(value: str) -> str:
    """The value as it stands between the quotes of a JSON string."""
    return json.dumps(value, ensure_ascii=False)[1:-1]


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


class Grammars:
    """Compiles grammars for one tokenizer."""

    def __init__(self, tokenizer: Tokenizer):
        self.vocab_size = tokenizer.vocab_size
        self.end = tokenizer.control_id(IM_END)
        self._tokenizer = llguidance.LLTokenizer(
            llguidance.TokenizerWrapper(_Pieces(tokenizer, self.end))
        )

    def matcher(self, lark: str) -> llguidance.LLMatcher:
        """A matcher at the start of the grammar.

        Raises:
          ValueError: the grammar is wrong, or beyond the limits of llguidance.
        """
        matcher = llguidance.LLMatcher(
            self._tokenizer, llguidance.LLMatcher.grammar_from_lark(lark), log_level=0
        )
        if matcher.is_error():  # it does not raise
            raise ValueError(matcher.get_error())
        return matcher

    def masks(self, larks: Sequence[str]) -> Masks:
        """Masks for a batch of requests."""
        return Masks(self, [self.matcher(lark) for lark in larks])


class Masks:
    """Which tokens may come next, row by row, as bits."""

    def __init__(self, grammars: Grammars, matchers: Sequence[llguidance.LLMatcher]):
        self._grammars = grammars
        self._matchers = list(matchers)
        self._shape = llguidance.numpy.get_bitmask_shape(len(matchers), grammars.vocab_size)

    def __call__(self, last_B: np.ndarray | None) -> np.ndarray:
        """Bits of the tokens that may follow.

        Args:
          last_B: the token chosen last in each row; None at the start. Rows that have ended are
            left alone.

        Returns:
          bits_BN, int32: bit i % 32 of word i // 32 is token i.
        """
        live = [b for b, m in enumerate(self._matchers) if not m.is_stopped()]
        if last_B is not None:
            for b in live:
                if not self._matchers[b].consume_token(int(last_B[b])):
                    raise ValueError(f"row {b}: {self._matchers[b].get_error()}")
            live = [b for b in live if not self._matchers[b].is_stopped()]
        bits_BN = np.zeros(self._shape, np.int32)
        bits_BN[:, self._grammars.end // 32] = np.uint32(1 << self._grammars.end % 32).astype(
            np.int32
        )
        for b in live:
            llguidance.numpy.fill_next_token_bitmask(self._matchers[b], bits_BN, b)
        return bits_BN


class _Pieces:
    """A tokenizer as llguidance reads it."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, end: int):
        self._tokenizer = tokenizer
        self.eos_token_id = end
        self.tokens = tokenizer.pieces()
        self.special_token_ids = [i for i, piece in enumerate(self.tokens) if not piece]
        for i in self.special_token_ids:
            self.tokens[i] = f"<control {i}>".encode()

    def __call__(self, text: str) -> list[int]:
        return self._tokenizer.encode(text)

"""Which tensor of somebody else's file is which parameter of ours.

Names decide, by a table of patterns that users may edit or replace; where no name is known, a
shape does, if one parameter and one tensor of every layer have it and no others.
"""

from __future__ import annotations

import collections
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from hybriko_jax.convert.tables import transposed
from hybriko_jax.errors import UserError

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Rule:
    """Tensors of one kind of name."""

    pattern: str
    """A regular expression of the whole name; \\1 in `to` is its first group, mostly the layer."""
    to: str | None = None
    """Our path; None drops the tensor."""
    transpose: bool = False
    """Whether the tensor lies the other way round than ours."""
    skip: bool = False
    """The pattern is of parts that the rules after it do not see, wherever they stand."""


@dataclass
class Matches:
    tensors: dict[str, tuple[str, bool]] = field(default_factory=dict)
    """Our path -> the tensor, and whether it is transposed."""
    by_shape: list[str] = field(default_factory=list)
    """Our paths that shapes alone decided."""
    dropped: list[str] = field(default_factory=list)
    skipped: set[str] = field(default_factory=set)
    """Parts of names."""
    missing: list[str] = field(default_factory=list)
    """Our paths without a tensor."""
    left: dict[str, str | None] = field(default_factory=dict)
    """Tensors without a path -> that which a rule gives them, and the model has not."""
    misshapen: dict[str, str] = field(default_factory=dict)
    """Our path -> what is wrong, in the layout of the tensor."""


def read_rules(path: Path | None = None) -> list[Rule]:
    """The rules of a JSON file, by default those we ship.

    It is a list of {"pattern", "to", "transpose"} and {"skip"}; see `Rule`.

    Raises:
      UserError: the file is none of that kind.
    """
    shipped = files("hybriko_jax.convert") / "names.json"
    try:
        table = json.loads((path or shipped).read_text("utf-8"))
        if not isinstance(table, list):
            raise TypeError("not a list")
        rules = [
            Rule(r["skip"], skip=True)
            if "skip" in r
            else Rule(r["pattern"], r["to"], r.get("transpose", False))
            for r in table
        ]
        for rule in rules:
            anything = re.fullmatch(f"(?:{rule.pattern})|", "")
            if anything and rule.to is not None:
                anything.expand(rule.to)  # raises for groups that the pattern lacks
            if not isinstance(rule.transpose, bool):
                raise TypeError(f"transpose is {rule.transpose!r}")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, re.error) as e:
        raise UserError(
            f'{path}: not a table of names ({e}). It is a list of {{"pattern": ..., "to": ..., '
            '"transpose": true or false} and {"skip": ...}.'
        ) from None
    return rules


def match(theirs: Shapes, ours: Shapes, rules: Sequence[Rule]) -> Matches:
    """Pairs tensors with parameters.

    Args:
      theirs: shapes by tensor name.
      ours: shapes by path.
      rules: the first that fits a name and gives it a path that is there decides.
    """
    found = Matches()
    open_names = []
    for name, shape in theirs.items():
        rule, path = _decide(name, ours, rules, found.skipped)
        if rule is None:
            open_names.append(name)
        elif path is None:
            found.dropped.append(name)
        elif path not in ours:
            found.left[name] = path
        elif path in found.tensors:
            first = found.tensors[path][0]
            raise UserError(f"{first} and {name} would both be {path}: mend the table of names.")
        elif shape != (wanted := ours[path][::-1] if rule.transpose else ours[path]):
            found.misshapen[path] = f"{name} is {shape}, and should be {wanted}"
        else:
            found.tensors[path] = (name, rule.transpose)
    _by_shape(found, {n: theirs[n] for n in open_names}, ours)
    taken = {name for name, _ in found.tensors.values()}
    found.left |= dict.fromkeys(n for n in open_names if n not in taken)
    found.missing = [path for path in ours if path not in found.tensors | found.misshapen]
    return found


def _decide(name, ours, rules, skipped):
    """The rule of a name, and our path by it; (None, None) of a name that no rule knows."""
    known = None, None
    for rule in rules:
        if rule.skip:
            skipped.update(part[0] for part in re.finditer(rule.pattern, name))
            name = re.sub(rule.pattern, "", name)
        elif fits := re.fullmatch(rule.pattern, name):
            path = None if rule.to is None else fits.expand(rule.to)
            if path is None or path in ours:
                return rule, path
            if known == (None, None):
                known = rule, path
    return known


def _by_shape(found: Matches, theirs: Shapes, ours: Shapes) -> None:
    decided = found.tensors | found.misshapen
    open_paths = {path: shape for path, shape in ours.items() if path not in decided}
    kinds, slots = _by_layer(theirs), _by_layer(open_paths)

    def signature(members, shapes, turn):
        return tuple(
            sorted(
                (layer, shapes[m][::-1] if turn(m) else shapes[m]) for layer, m in members.items()
            )
        )

    # A kernel of PyTorch lies the other way round; all else lies as ours does.
    wanted = collections.defaultdict(list)
    for slot, members in slots.items():
        wanted[signature(members, ours, transposed)].append(slot)
    given = collections.defaultdict(list)
    for kind, members in kinds.items():
        given[signature(members, theirs, lambda _: False)].append(kind)
    for key, slot in wanted.items():
        if len(slot) == 1 and len(given.get(key, ())) == 1:
            by_layer = kinds[given[key][0]]
            for layer, path in slots[slot[0]].items():
                found.tensors[path] = (by_layer[layer], transposed(path))
                found.by_shape.append(path)


def _by_layer(shapes: Shapes) -> dict[str, dict[int, str]]:
    """Names of one kind, by their layer: {"layers_N/mlp/up/kernel": {0: "layers_0/...", ...}}."""
    kinds: dict[str, dict[int, str]] = collections.defaultdict(dict)
    for name in shapes:
        layer = re.search(r"\d+", name)
        kind = name[: layer.start()] + "N" + name[layer.end() :] if layer else name
        kinds[kind][int(layer[0]) if layer else -1] = name
    return kinds

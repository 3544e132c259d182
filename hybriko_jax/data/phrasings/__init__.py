"""The phrasing bank: how people ask for a call, one YAML file a tool, and for dialogues.

A file is a list of groups. A group has `say`, ways to ask; and `call` with `thought`, or `steps`
of a dialogue. In `say`, {file} is a value that the user names, drawn by `data.values`; a digit
tells two of them apart ({file2}), and {file|을} takes the particle that fits its last sound.
{decoy} and {decoydir} are names that are not meant; {kind} is a kind of file as it is spoken, and
{kind.glob} the glob that it means.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import yaml

SLOT = re.compile(r"\{([a-z_]+?)(\d?)(\.glob)?(?:\|([가-힣]+))?\}")
HELD_OUT_SHARE = 0.12
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, ten times faster

_PARTICLE = re.compile(
    r">(?:으로|로|에서|에게|에다가|에다|에|을|를|이랑|랑|이|가|은|는|과|와|의|도|만|부터|까지)(?=[\s<,])"
)
_FILLER = re.compile(r"(?:^|\s)(?:좀|제발|혹시|저기|야|그냥|바로|빨리|얼른|지금)(?=\s)")
_ENDING = re.compile(
    r"(?:여|어|아)?\s*(?:줄래요|줄래|주세요|주실래요|주시겠어요|주시겠습니까|주십시오|줘요|줘봐|줘|주라|"
    r"다오|달라|줄 수 있어|줄 수 있니|주실 수 있나요|부탁해요|부탁해|부탁드립니다|부탁합니다|"
    r"하세요|해라|하자|해요|합니다|할래|볼래|봐요|봐|요|니|냐|나|지|까|어|아|야|임|함)$"
)


@dataclass(frozen=True)
class Step:
    """One call of a template, its slots not yet filled."""

    action: str
    arguments: Mapping[str, Any]
    thought: str
    result: str | None = None
    """What the tool printed; None after the last call."""


@dataclass(frozen=True)
class Template:
    name: str
    """The tool, or "dialogues"."""
    group: int
    say: str
    steps: tuple[Step, ...]

    @property
    def held_out(self) -> bool:
        """Whether it belongs to the held-out split; all of one skeleton do, or none."""
        digest = hashlib.blake2b(f"{self.name} {skeleton(self.say)}".encode(), digest_size=4)
        return int.from_bytes(digest.digest(), "big") < HELD_OUT_SHARE * 2**32


@functools.cache
def load_bank() -> tuple[Template, ...]:
    """Every phrasing of every file."""
    templates = []
    for path in sorted(files(__name__).iterdir(), key=lambda p: p.name):
        if not path.name.endswith(".yaml"):
            continue
        name = path.name.removesuffix(".yaml")
        for i, group in enumerate(yaml.load(path.read_text("utf-8"), _LOADER)):
            raw = group.get("steps") or [
                {"action": name, "arguments": group["call"], "thought": group["thought"]}
            ]
            steps = tuple(Step(**s) for s in raw)
            templates += [Template(name, i, say, steps) for say in group["say"]]
    return tuple(templates)


def skeleton(say: str) -> str:
    """What is left of a phrasing without values, particles, fillers, spaces and its ending.

    Two phrasings of one skeleton differ in politeness only.
    """
    text = SLOT.sub(lambda m: f"<{m[1]}>", say)
    text = _PARTICLE.sub("> ", text)
    text = re.sub(r"(?:을|를|이|가|은|는|도|만|좀)(?=\s)", "", text)
    text = re.sub(r"[?!.~,'\"]", "", _FILLER.sub(" ", text)).strip()
    for _ in range(2):
        text = _ENDING.sub("", text).strip()
    return re.sub(r"\s", "", text)

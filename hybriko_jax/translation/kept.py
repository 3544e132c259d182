"""Code, addresses and placeholders: what a translation must hold as the source has it."""

from __future__ import annotations

import re
from typing import Literal

Format = Literal["txt", "md", "srt", "tsv", "jsonl"]

# In an address Hangul comes behind a slash or the like only: elsewhere it is a particle.
_ANYWHERE = r"""
    <!--.*?--> | </?[A-Za-z][^<>]{0,500}>
  | (?<![A-Za-z0-9])(?:(?:https?|ftp)://|www\.) (?:[^\s<>"`()\[\]가-힣]|(?<=[/=_-])[가-힣]+)*
    (?:[^\s<>"`()\[\]가-힣.,;:!?'…*_] | (?<=[/=_-])[가-힣]+)
  | (?<![A-Za-z0-9.+_-])[A-Za-z0-9.+_-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+
  | \$?\{\{?[^\s{}]{1,60}\}\}? | %(?:\(\w{1,40}\))?[-+0\#]*\d*(?:\.\d+)?[sdifgxr](?![A-Za-z])
"""
_MARKDOWN = r"""
    (?<!`)(?P<ticks>`+)(?!`) .{0,2000}? (?<!`)(?P=ticks)(?!`)
  | !\[[^\[\]]*\](?:\([^()\n]*\)|\[[^\[\]]*\])
  | \[(?=[^\[\]]*\][(\[]) | \](?:\((?:[^()\\]|\\.|\([^()]*\))*\)|\[[^\[\]]*\])
  | \[\^[^\[\]\s]+\] | &\#?\w+;
"""
_PATTERNS: dict[Format, str] = {
    "txt": _ANYWHERE,
    "tsv": _ANYWHERE,
    "jsonl": _ANYWHERE,
    "md": f"{_MARKDOWN} | {_ANYWHERE}",
    "srt": rf"\{{\\[^{{}}]*\}} | {_ANYWHERE}",
}
KEPT = {form: re.compile(p, re.VERBOSE | re.DOTALL) for form, p in _PATTERNS.items()}
"""By the format of the text around it."""


def fragments(text: str, kept: re.Pattern[str]) -> list[str]:
    """A text cut around what must be kept, and inside the white space around that.

    Every second one is text to translate, the first one too; together they are the text.
    """
    found: list[str] = []
    at = 0
    for m in re.finditer(rf"\s*(?:{kept.pattern})\s*", text, kept.flags):
        found += [text[at : m.start()], m.group()]
        at = m.end()
    return [*found, text[at:]]

"""A call as the command line that a person would type."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from hybriko_jax.linux.tools import DEFAULTS, FINISH

_TAR = {"extract": "-xf", "list": "-tf"}
_PLAIN = re.compile(r"[\w@%+=:,./-]+")  # nothing in it that a shell would take apart


def command_line(action: str, arguments: Mapping[str, Any]) -> str:
    """The line for a shell; "" for Finish.

    Paths are quoted, but for a leading ~ and for globs, which the shell shall expand; what a
    command itself matches (a name for find, a pattern for grep) is quoted whole.
    """
    if action == FINISH:
        return ""
    a = {**DEFAULTS, **arguments}
    name, options = action.removesuffix("_command"), split_words(a.get("options", ""))
    quoted: list[str] = []
    paths: list[str] = []
    match name:
        case "rm":
            options, paths = ["-r"] if a["recursive"] else [], [a["path"]]
        case "cp":
            options, paths = _recursive(a["source"]), [a["source"], a["destination"]]
        case "mv":
            paths = [a["source"], a["destination"]]
        case "head" | "tail":
            options, paths = ["-n", str(a["lines"])], [a["path"]]
        case "grep":
            options, quoted, paths = ["-n", *_recursive(a["path"])], [a["pattern"]], [a["path"]]
            options += ["-e"] if a["pattern"].startswith("-") else []
        case "find":
            return f"find {_path(a['path'])} -name {_quote(a['name'])}"
        case "ping":
            options, quoted = ["-c", str(a["count"])], [a["host"]]
        case "curl":
            quoted = [a["url"]]
        case "chmod":
            # A mode such as -x is no option.
            quoted, paths = [*(["--"] if a["mode"].startswith("-") else []), a["mode"]], [a["path"]]
        case "tar":
            if a["operation"] == "create":
                flags = "-czf" if a["archive"].endswith(("gz", "tgz")) else "-caf"
            else:
                flags = _TAR[a["operation"]]
            options, paths = [flags], [a["archive"], *split_words(a.get("files", ""))]
        case _:
            paths = [a["path"]] if "path" in a else []
    # A lone - is what cd knows as the folder before.
    guard = ["--"] if any(p.startswith("-") and p != "-" for p in paths) else []
    words = [name, *map(_quote, options), *map(_quote, quoted), *guard, *map(_path, paths)]
    return " ".join(words)


def _recursive(path: str) -> list[str]:
    """-r for what looks like a folder."""
    return [] if "." in path.strip("./").rpartition("/")[2] else ["-r"]


def split_words(text: str) -> list[str]:
    """Words as a shell splits them, without its expansions."""
    try:
        return shlex.split(text)
    except ValueError:  # a quote without its partner is part of a name
        return text.split()


def joined(words: Iterable[str]) -> str:
    """Words as one line for a shell; as shlex.join, but Korean letters need no quotes."""
    return " ".join(map(_quote, words))


def _quote(word: str) -> str:
    return word if _PLAIN.fullmatch(word) else shlex.quote(word)


def _path(path: str) -> str:
    home, rest = ("~/", path[2:]) if path.startswith("~/") else ("", path)
    if path == "~":
        return path
    return home + "".join(
        piece if piece in ("*", "?") else _quote(piece) if piece else ""
        for piece in re.split(r"([*?])", rest)
    )

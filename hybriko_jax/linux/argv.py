"""A call as the command line that a person would type."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from hybriko_jax.linux.tools import DEFAULTS, FINISH

_TAR = {"create": "-czf", "extract": "-xf", "list": "-tf"}
_PLAIN = re.compile(r"[\w@%+=:,./~*?-]+")  # nothing in it that a shell would take apart


def command_words(action: str, arguments: Mapping[str, Any]) -> list[str]:
    """The words of a command; [] for Finish.

    Globs and ~ stand as they are. Options come first, and `--` where a name could be one.
    """
    a = {**DEFAULTS, **arguments}
    if action == FINISH:
        return []
    options = shlex.split(a.get("options", ""))
    name = action.removesuffix("_command")
    match name:
        case "rm":
            options = ["-r"] if a["recursive"] else []
            names = [a["path"]]
        case "cp" | "mv":
            names = [a["source"], a["destination"]]
        case "head" | "tail":
            options, names = ["-n", str(a["lines"])], [a["path"]]
        case "grep":
            options = ["-n"] + (["-e"] if a["pattern"].startswith("-") else [])
            return [name, *options, a["pattern"], *_guarded([a["path"]])]
        case "find":
            return [name, a["path"], "-name", a["name"]]
        case "ping":
            return [name, "-c", str(a["count"]), a["host"]]
        case "curl":
            return [name, *options, a["url"]]
        case "chmod":
            return [name, *_guarded([a["mode"], a["path"]])]
        case "tar":
            flags = _TAR[a["operation"]]
            if a["operation"] == "create" and not a["archive"].endswith(("gz", "tgz")):
                flags = "-caf"  # by the archive's suffix
            files = shlex.split(a["files"]) if "files" in a else []
            return [name, flags, a["archive"], *_guarded(files)]
        case _:
            names = [a["path"]] if "path" in a else []
    return [name, *options, *_guarded(names)]


def command_line(action: str, arguments: Mapping[str, Any]) -> str:
    """The words as one line; "" for Finish."""
    return " ".join(
        w if _PLAIN.fullmatch(w) else shlex.quote(w) for w in command_words(action, arguments)
    )


def _guarded(names: Sequence[str]) -> list[str]:
    # A lone - is what cd knows as the folder before.
    return ["--", *names] if any(n.startswith("-") and n != "-" for n in names) else list(names)

"""The command that pip installs: hybriko NAME ..."""

from __future__ import annotations

import importlib
import sys

from hybriko_jax.config import nearest
from hybriko_jax.console.process import fail

# Name -> the module whose main(arguments, prog) runs it, and what it does.
COMMANDS = {
    "ask": ("hybriko_jax.console.ask", "한국어 부탁을 리눅스 명령으로 (Linux commands in Korean)"),
}


def main() -> None:
    """Runs the command that the first word names; --help lists them."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print("usage: hybriko NAME ...\n")
        for known, (_, does) in COMMANDS.items():
            print(f"  {known:10} {does}")
        print("\nhybriko NAME --help")
    elif name in COMMANDS:
        importlib.import_module(COMMANDS[name][0]).main(rest, prog=f"hybriko {name}")
    else:
        fail(f"hybriko {name}: there is no such command.{nearest(name, COMMANDS)}")

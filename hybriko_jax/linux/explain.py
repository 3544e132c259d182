"""What a call does, said to someone who is learning the commands."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hybriko_jax.linux.messages import LANGUAGES, printable

# By tool, and where a tool does several things, by which of them. Names stand where no particle
# that depends on their last sound follows.
_SENTENCES: dict[str, tuple[str, str]] = {
    "ls": ("{path} 안에 있는 것을 보여 줍니다", "Lists what is in {path}"),
    "cd": ("{path} 폴더로 이동합니다", "Goes to the folder {path}"),
    "mkdir": ("{path} 폴더를 새로 만듭니다", "Makes the folder {path}"),
    "rm": ("{path} 파일을 지웁니다", "Removes the file {path}"),
    "rm -r": (
        "{path} 폴더를 안에 든 것까지 모두 지웁니다",
        "Removes the folder {path} and all that is in it",
    ),
    "cp": ("복사합니다: {source} → {destination}", "Copies {source} → {destination}"),
    "mv": (
        "옮기거나 이름을 바꿉니다: {source} → {destination}",
        "Moves or renames {source} → {destination}",
    ),
    "find": (
        "{path} 아래에서 이름이 {name}인 것을 찾습니다",
        "Looks below {path} for what is named {name}",
    ),
    "cat": ("{path} 내용을 모두 보여 줍니다", "Shows all of {path}"),
    "grep": (
        "{path} 안에서 '{pattern}'에 맞는 줄을 줄 번호와 함께 보여 줍니다",
        "Shows the lines of {path} that match '{pattern}', with their numbers",
    ),
    "head": ("{path} 앞 {lines}줄을 보여 줍니다", "Shows the first {lines} lines of {path}"),
    "tail": ("{path} 끝 {lines}줄을 보여 줍니다", "Shows the last {lines} lines of {path}"),
    "wc": (
        "{path} 안의 줄, 단어, 바이트를 셉니다",
        "Counts the lines, words and bytes of {path}",
    ),
    "wc -": ("{path} 내용을 셉니다", "Counts in {path}"),
    "ps": ("지금 돌고 있는 프로세스를 보여 줍니다", "Lists processes"),
    "df": ("디스크마다 남은 공간을 보여 줍니다", "Shows the free space of every disk"),
    "du": ("{path} 크기를 보여 줍니다", "Shows how much space {path} takes"),
    "top": ("시스템 상태를 한 번 보여 줍니다", "Shows the state of the system once"),
    "ping": (
        "{host}에 신호를 {count}번 보내 응답하는지 봅니다",
        "Asks {host} for a sign of life {count} times",
    ),
    "curl": ("{url} 주소의 내용을 받아서 보여 줍니다", "Fetches {url} and shows it"),
    "chmod": ("{path} 권한을 바꿉니다 ({meaning})", "Changes the mode of {path} ({meaning})"),
    "tar create": ("{archive} 파일에 묶습니다: {files}", "Packs into {archive}: {files}"),
    "tar extract": ("{archive} 파일을 지금 폴더에 풉니다", "Unpacks {archive} here"),
    "tar list": ("{archive} 파일에 든 것의 이름을 보여 줍니다", "Lists what {archive} holds"),
}

_OPTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "ls": {
        "-a": ("숨은 것도", "hidden ones too"),
        "-A": ("숨은 것도", "hidden ones too"),
        "-l": ("자세히", "in detail"),
        "-h": ("읽기 쉬운 크기로", "readable sizes"),
        "-t": ("새것부터", "newest first"),
        "-S": ("큰 것부터", "largest first"),
        "-R": ("안쪽 폴더까지", "folders inside too"),
        "-r": ("거꾸로", "in reverse"),
        "-1": ("한 줄에 하나씩", "one a line"),
        "-F": ("종류를 표시해서", "marked by kind"),
        "-d": ("폴더 자체만", "the folder itself"),
    },
    "wc": {
        "-l": ("줄 수", "lines"),
        "-w": ("단어 수", "words"),
        "-m": ("글자 수", "characters"),
        "-c": ("바이트 수", "bytes"),
        "-L": ("가장 긴 줄의 길이", "length of the longest line"),
    },
    "ps": {
        "aux": ("모든 사용자의 것을 자세히", "of all users, in detail"),
        "-ef": ("모든 것을 자세히", "all, in detail"),
        "-u": ("이 사용자의 것만", "of this user"),
        "-p": ("이 번호의 것만", "with this number"),
        "-C": ("이 이름의 것만", "with this name"),
        "--sort": ("차례대로", "in this order"),
    },
    "df": {
        "-h": ("읽기 쉬운 크기로", "readable sizes"),
        "-T": ("파일 시스템의 종류도", "kind of file system too"),
        "-i": ("파일 수로", "in number of files"),
        "-a": ("모두", "all"),
        "-m": ("MB로", "in MB"),
        "-k": ("KB로", "in KB"),
    },
    "du": {
        "-s": ("합계만", "only the sum"),
        "-h": ("읽기 쉬운 크기로", "readable sizes"),
        "-a": ("파일도 하나씩", "every file too"),
        "-c": ("합계도", "with the sum"),
        "--max-depth": ("이 깊이까지만", "down to this depth"),
        "-d": ("이 깊이까지만", "down to this depth"),
    },
    "top": {
        "-u": ("이 사용자의 것만", "of this user"),
        "-o": ("이 차례로", "in this order"),
        "-p": ("이 번호의 것만", "with this number"),
    },
    "curl": {
        "-I": ("머리글만", "headers only"),
        "-i": ("머리글도", "headers too"),
        "-L": ("넘겨 주는 주소를 따라서", "following redirects"),
        "-s": ("진행 표시 없이", "silently"),
        "-v": ("주고받는 과정도", "with the exchange"),
        "-k": ("인증서를 확인하지 않고", "without checking the certificate"),
        "-X": ("서버를 바꿀 수 있는 요청", "a request that may change the server"),
    },
}

_WHO = {"u": ("주인", "owner"), "g": ("그룹", "group"), "o": ("다른 사람", "others")}
_ALL = ("모두", "all")
_MAY = {
    "r": ("읽기", "read"),
    "w": ("쓰기", "write"),
    "x": ("실행", "run"),
    "X": ("폴더 들어가기", "enter folders"),
}
_NOTHING = ("없음", "nothing")
_HOW = {"+": ("더하기", "add"), "-": ("빼기", "take away"), "=": ("이것만", "exactly")}


def explain(tool: str, arguments: Mapping[str, Any], options: Sequence[str], lang: str) -> str:
    """One sentence on a call, and in brackets what its options mean.

    Args:
      tool: its name without _command.
      arguments: of the call, with those that were left out.
      options: words that the tool allows.
      lang: "ko" or "en".
    """
    i = LANGUAGES.index(lang)
    key = tool
    if tool == "rm" and arguments["recursive"]:
        key = "rm -r"
    elif tool == "wc" and options:
        key = "wc -"
    elif tool == "tar":
        key = f"tar {arguments['operation']}"
    values = {k: printable(v) for k, v in arguments.items()}
    if tool == "chmod":
        values["meaning"] = _mode(arguments["mode"], i)
    notes = ", ".join(f"{o}: {_OPTIONS[tool][k][i]}" for o, k in _known(tool, options))
    return _SENTENCES[key][i].format(**values) + (f" ({notes})." if notes else ".")


def _known(tool: str, options: Sequence[str]):
    """(option with its value, its key in _OPTIONS) of those that have an explanation."""
    table = _OPTIONS.get(tool, {})
    for word, following in itertools.zip_longest(options, options[1:], fillvalue=""):
        if word in table or word.startswith("--"):
            keys = [word.partition("=")[0]]
        else:
            keys = [f"-{letter}" for letter in word[1:]] if word.startswith("-") else []
        for key in keys:
            if key in table:
                valued = key == keys[-1] and following and not following.startswith("-")
                shown = word if word.startswith("--") else key
                yield (f"{shown} {following}" if valued else shown), key


def _mode(mode: str, i: int) -> str:
    if mode.isdigit():
        digits = zip(_WHO.values(), mode[-3:], strict=True)
        return ", ".join(f"{who[i]} {_rights(int(d), i)}" for who, d in digits)
    clauses = re.findall(r"([ugoa]*)([-+=])([rwxX]*)", mode)
    return ", ".join(
        "·".join(_WHO[c][i] for c in who if c in _WHO) * ("a" not in who)
        + _ALL[i] * (not who or "a" in who)
        + f": {'·'.join(_MAY[c][i] for c in may) or _NOTHING[i]} {_HOW[how][i]}"
        for who, how, may in clauses
    )


def _rights(digit: int, i: int) -> str:
    held = [_MAY[c][i] for bit, c in ((4, "r"), (2, "w"), (1, "x")) if digit & bit]
    return "·".join(held) or _NOTHING[i]

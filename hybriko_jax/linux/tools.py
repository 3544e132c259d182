"""The 21 tools: what a model is told of them, what it may pass, and which of them write.

A tool's parameters are a JSON schema. Two keys say more than JSON schema does, for grounded
decoding: `format` is where a string comes from (path, file, paths, glob, pattern, host, uri, ...),
and `choices` are values of options, in which {user}, {process}, {pid}, {n} and {name} stand for
words of the request. `differs` names the parameter whose value this one never has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Tool:
    name: str
    description: str
    parameters: Mapping[str, Mapping[str, Any]]
    """JSON schemas of the parameters, in the order in which a call names them."""
    required: tuple[str, ...]
    writes: bool = False
    """Whether it changes files."""

    @property
    def schema(self) -> dict[str, Any]:
        """The tool as a JSON schema that others read: {"name", "description", "parameters"}."""
        return {
            "name": self.name,
            "description": self.description,
            "parameters": {
                "type": "object",
                "properties": {k: {"type": p["type"]} for k, p in self.parameters.items()},
                "required": list(self.required),
            },
        }


FINISH = "Finish"
DEFAULTS = {"lines": 10, "count": 4, "recursive": False}
"""Values that an absent parameter stands for."""

_PATH = {"type": "string", "format": "path"}
_PATHS = {"type": "string", "format": "paths"}
_FILE = {"type": "string", "format": "file"}
_INTEGER = {"type": "integer"}


def _options(*choices: str) -> dict[str, Any]:
    return {"type": "string", "format": "options", "choices": choices}


def _tool(name, description, required, /, *, writes=False, **parameters):
    return Tool(name, description, parameters, tuple(required.split()), writes)


TOOLS = (
    _tool(
        "ls_command",
        "폴더에 든 것을 나열한다.",
        "path",
        path=_PATH,
        options=_options(
            *("-a", "-l", "-la", "-lh", "-lah", "-t", "-lt", "-S", "-lS", "-R", "-r", "-tr"),
            *("-1", "-F", "-A", "-lA", "-ltr", "-lhS", "-lR", "-lat", "-al"),
        ),
    ),
    _tool("cd_command", "다른 폴더로 이동한다.", "path", path={"type": "string", "format": "cd"}),
    _tool("mkdir_command", "폴더를 만든다.", "path", writes=True, path=_PATH),
    _tool(
        "rm_command",
        "파일을 지운다. recursive는 폴더를 통째로 지운다.",
        "path",
        writes=True,
        path=_PATHS,
        recursive={"type": "boolean"},
    ),
    _tool(
        "cp_command",
        "파일을 복사한다.",
        "source destination",
        writes=True,
        source=_PATHS,
        destination=_PATH | {"differs": "source"},
    ),
    _tool(
        "mv_command",
        "파일이나 폴더를 옮기거나 이름을 바꾼다.",
        "source destination",
        writes=True,
        source=_PATHS,
        destination=_PATH | {"differs": "source"},
    ),
    _tool(
        "find_command",
        "폴더 아래에서 이름으로 파일을 찾는다.",
        "path name",
        path=_PATH,
        name={"type": "string", "format": "glob"},
    ),
    _tool("cat_command", "파일의 내용을 보여 준다.", "path", path=_FILE),
    _tool(
        "grep_command",
        "파일에서 글자가 나오는 줄을 찾는다.",
        "pattern path",
        pattern={"type": "string", "format": "pattern"},
        path=_PATHS,
    ),
    _tool("head_command", "파일의 앞부분을 보여 준다.", "path", path=_FILE, lines=_INTEGER),
    _tool("tail_command", "파일의 끝부분을 보여 준다.", "path", path=_FILE, lines=_INTEGER),
    _tool(
        "wc_command",
        "파일의 줄(-l), 단어(-w), 글자(-m), 바이트(-c)를 센다.",
        "path",
        path=_PATHS,
        options=_options("-l", "-w", "-m", "-c", "-L"),
    ),
    _tool(
        "ps_command",
        "프로세스 목록을 한 번 보여 준다.",
        "",
        options=_options(
            *("aux", "-ef", "aux --sort=-%mem", "aux --sort=-%cpu"),
            *("-u {user}", "-p {pid}", "-C {process}"),
        ),
    ),
    _tool(
        "df_command",
        "디스크의 남은 공간을 보여 준다.",
        "",
        options=_options("-h", "-hT", "-i", "-a", "-m", "-k", "-T"),
    ),
    _tool(
        "du_command",
        "폴더나 파일이 차지하는 용량을 보여 준다.",
        "path",
        path=_PATH,
        options=_options("-sh", "-s", "-h", "-ah", "-h --max-depth={n}"),
    ),
    _tool(
        "top_command",
        "시스템 상태를 실시간으로 보여 준다.",
        "",
        options=_options(
            "-u {user}", "-o %MEM", "-o %CPU", "-b -n 1", "-n {n}", "-p {pid}", "-d {n}"
        ),
    ),
    _tool(
        "ping_command",
        "호스트가 응답하는지 확인한다.",
        "host",
        host={"type": "string", "format": "host"},
        count=_INTEGER,
    ),
    _tool(
        "curl_command",
        "주소의 내용을 받아 온다.",
        "url",
        url={"type": "string", "format": "uri"},
        options=_options(
            *("-I", "-O", "-o {name}", "-L", "-s", "-i", "-v", "-k", "-X POST", "-X DELETE"),
            *("-LO", "-sO", "-sL", "-X PUT", "-X PATCH"),
        ),
    ),
    _tool(
        "chmod_command",
        "파일의 권한을 바꾼다.",
        "mode path",
        writes=True,
        mode={"type": "string", "format": "mode"},
        path=_PATHS,
    ),
    _tool(
        "tar_command",
        "파일을 묶거나(create) 풀거나(extract) 목록을 본다(list).",
        "operation archive",
        writes=True,
        operation={"type": "string", "enum": ("create", "extract", "list")},
        archive=_FILE,
        files={"type": "string", "format": "files", "differs": "archive"},
    ),
    _tool(
        FINISH,
        "도구를 더 쓰지 않고 답한다. 인사, 할 수 없는 일, 빠진 것이 있는 부탁에도 쓴다.",
        "return_type",
        return_type={"type": "string", "enum": ("give_answer",)},
        final_answer={"type": "string"},
    ),
)

BY_NAME = {tool.name: tool for tool in TOOLS}

_TYPES = {"string": str, "integer": int, "boolean": bool}


def call_fault(action: Any, arguments: Any) -> str | None:
    """What is wrong with a call by the schema of its tool, or None."""
    tool = BY_NAME.get(action) if isinstance(action, str) else None
    if tool is None:
        return f"action {action!r} is not a tool"
    if not isinstance(arguments, dict):
        return f"arguments of {action} are not an object"
    for name in tool.required:
        if arguments.get(name) in (None, ""):
            return f"arguments of {action} lack {name!r}"
    for name, value in arguments.items():
        if name not in tool.parameters:
            return f"arguments of {action} hold {name!r}, which it does not take"
        kind = tool.parameters[name]["type"]
        if not isinstance(value, _TYPES[kind]) or (kind == "integer" and isinstance(value, bool)):
            return f"argument {name!r} of {action} is not of type {kind}"
        allowed = tool.parameters[name].get("enum")
        if allowed and value not in allowed:
            return f"argument {name!r} of {action} is {value!r}, not one of {', '.join(allowed)}"
    return None

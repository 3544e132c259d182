"""Samples that a language model writes: what it is asked for, and which of them can be used."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from hybriko_jax.linux.tools import BY_NAME, FINISH, TOOLS, Tool, call_fault
from hybriko_jax.prompts import Message, format_call

SOURCE = "provider"
"""What the field "source" of such a sample says."""
PER_ANSWER = 10  # samples that one answer is asked for
LONGEST = 1000  # characters of a request
_AVOIDED = 12  # requests that an answer shall not repeat

Grounding = Callable[[str, str, str, Mapping[str, Any]], str | None]
"""(request, thought, action, arguments) -> why grounded decoding would not let them through."""

STYLES = (
    "친구에게 말하듯 짧은 반말",
    "공손한 존댓말(~해 주세요, ~해 주시겠어요?)",
    "리눅스를 처음 쓰는 사람의 서툰 설명",
    "이유나 상황을 먼저 말하고 부탁하는 두 마디 문장",
    "단어만 늘어놓은 검색어 같은 말",
    "어떻게 하는지 묻는 질문(~하려면 어떻게 해?)",
    "급하게 쳐서 띄어쓰기가 틀린 말",
    "다른 이름을 들고 그것 말고 이것이라고 하는 말",
    "동사를 앞에 두거나 순서를 바꾼 말",
    "회사에서 동료에게 쓰는 메신저 말투",
    "영어 낱말을 섞은 개발자 말투",
    "목적을 에둘러 말하는 혼잣말 같은 부탁",
)
TOPICS = (
    "학교 과제와 수업 자료",
    "회사 보고서와 회의록",
    "사진과 동영상",
    "서버 로그와 설정 파일",
    "파이썬이나 자바스크립트 프로젝트",
    "가계부와 영수증",
    "음악과 자막",
    "데이터 분석과 CSV",
    "백업과 압축 파일",
    "공백이나 괄호가 있는 한글 이름",
    "번역 원고와 논문",
    "게임과 취미",
    "여행 계획",
)
# What the strings of a schema are, by `format`; see linux.tools.
_FORMATS = {
    "path": '요청에 나온 파일이나 폴더. 지금 폴더는 ".", 상위 폴더는 "..", 홈은 "~", 루트는 "/"',
    "cd": '요청에 나온 폴더. 상위 폴더는 "..", 홈은 "~", 루트는 "/", 직전 폴더는 "-"',
    "paths": "요청에 나온 파일이나 폴더, 또는 그 종류를 모두 뜻하는 *.확장자",
    "file": "요청에 나온 파일",
    "files": "요청에 나온 파일이나 폴더. 여럿이면 빈칸으로 나눈다",
    "glob": "요청에 나온 이름, 또는 *.확장자, *글자*",
    "pattern": "찾을 글자. 요청에 나온 그대로",
    "host": "요청에 나온 호스트",
    "uri": "요청에 나온 주소 그대로",
    "mode": "요청에 나온 권한(755, u+x), 또는 말이 뜻하는 권한(+x, 600)",
}


_BRACKET = re.compile(r"[\[{]")


class Rejection(NamedTuple):
    reason: str
    """One word, to count by."""
    detail: str


def messages(
    tool: Tool,
    style: str,
    topic: str,
    examples: Sequence[Mapping[str, Any]],
    avoided: Sequence[str],
) -> list[Message]:
    """What a language model is told, so that it writes PER_ANSWER samples of one tool.

    Args:
      examples: samples that show the form.
      avoided: requests that are there; the last ones are shown.
    """
    shown = [
        _json({"request": e["query"], "thought": _thought(e), **_call(e["action"], e["arguments"])})
        for e in examples
    ]
    form = {"request": "...", "thought": "...", "action": tool.name, "arguments": {}}
    lines = [
        f"도구 {tool.name}: {tool.description}",
        "인자:",
        *(_parameter(tool, name) for name in tool.parameters),
        "",
        f"이 도구로 답할 서로 다른 부탁 {PER_ANSWER}개를 쓴다.",
        f"말투: {style}",
        f"소재: {topic}",
        "",
        "규칙:",
        "- request는 사람이 터미널 도우미에게 칠 만한 한국어 한 줄이다.",
        "- 이름, 경로, 주소, 숫자, 찾을 글자는 request에 나온 그대로 arguments에 옮긴다. request에 "
        "없는 것을 지어내지 않는다.",
        "- 부탁하지 않은 선택 인자는 뺀다.",
        "- 이름과 값은 부탁마다 다르게 짓는다.",
        "- thought는 무엇을 하는지 말하는 80자 이내의 존댓말 한 문장이다.",
        *(
            ["- final_answer는 200자 이내의 존댓말이고, 큰따옴표와 줄바꿈을 쓰지 않는다."]
            if tool.name == FINISH
            else []
        ),
        "",
        "보기(꼴만 따르고 말은 따라 하지 않는다):",
        *shown,
    ]
    if avoided:
        lines += ["", "이미 있으니 다시 쓰지 않을 부탁:", *(f"- {q}" for q in avoided[-_AVOIDED:])]
    lines += ["", f"이 꼴의 JSON 하나로만 답한다: {_json({'samples': [form]})}"]
    return [
        {
            "role": "system",
            "content": "너는 한국어 부탁과 그에 맞는 리눅스 도구 호출을 짝지어 쓴다. JSON으로만 "
            "답한다.",
        },
        {"role": "user", "content": "\n".join(lines)},
    ]


def read_answer(text: str) -> tuple[list[Any], Rejection | None]:
    """The samples of an answer, not yet judged, and what is wrong with the rest.

    The form asked for, a bare list and single samples are read, in whatever stands around them;
    so the whole samples of an answer that was cut off are not lost.
    """
    text = text.rpartition("</think>")[2]
    found: list[Any] = []
    broken, at = "", 0
    while begin := _BRACKET.search(text, at):
        try:
            value, at = json.JSONDecoder().raw_decode(text, begin.start())
        except RecursionError:
            broken = "JSON nested too deep"
            break
        except ValueError as e:
            at = begin.end()
            if begin[0] == "{":
                broken = broken or f"not JSON ({e})"
        else:
            found += _samples(value)
    if "{" not in text:
        return [], Rejection("refused", "the answer holds no JSON")
    if broken or not found:
        return found, Rejection("malformed", broken or "no list 'samples'")
    return found, None


def _samples(value: Any) -> list[Any]:
    if isinstance(value, dict):
        value = [value] if "request" in value else value.get("samples")
    is_list = isinstance(value, list) and any(isinstance(v, dict) for v in value)
    return value if is_list else []


def judge(raw: Any, grounding: Grounding) -> dict[str, Any] | Rejection:
    """A sample as launch.synthesize writes it, or why there is none.

    Args:
      raw: {"request", "thought", "action", "arguments"} of an answer, or anything.
    """
    if not isinstance(raw, dict):
        return Rejection("malformed", "not an object")
    query, thought = (one_line(raw.get(k)) for k in ("request", "thought"))
    for name, text in (("request", query), ("thought", thought)):
        if not text:
            return Rejection("malformed", f"no text {name!r}")
        if not text.isprintable():
            return Rejection("malformed", f"{name!r} holds a character that cannot be printed")
    if len(query) > LONGEST:
        return Rejection("request", f"longer than {LONGEST} characters")
    if not re.search("[가-힣]", query):
        return Rejection("request", "not Korean")
    action: Any = raw.get("action")
    arguments = _clean(raw.get("arguments"))
    if fault := _call_fault(action, arguments):
        return Rejection("schema", fault)
    arguments = _ordered(BY_NAME[action], arguments)
    if fault := grounding(query, thought, action, arguments):
        return Rejection("grounding", fault)
    spans = _spans(query, BY_NAME[action], arguments)
    return {
        "id": "p" + hashlib.blake2b(query.encode(), digest_size=8).hexdigest(),
        "query": query,
        "messages": [
            {"role": "user", "content": query},
            {"role": "assistant", "content": format_call(thought, action, arguments)},
        ],
        "tools": [tool.name for tool in TOOLS],
        **_call(action, arguments),
        "spans": spans,
        "phrasing": {"name": action, "group": 0, "say": _say(query, spans), "changes": []},
        "source": SOURCE,
    }


def _call(action: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {"action": action, "arguments": arguments}


def _thought(sample: Mapping[str, Any]) -> str:
    first = sample["messages"][1]["content"]
    return first.partition("\n")[0].removeprefix("Thought: ")


def _parameter(tool: Tool, name: str) -> str:
    schema = tool.parameters[name]
    needed = "꼭 있어야 함" if name in tool.required else "없어도 됨"
    what = _FORMATS.get(schema.get("format", ""), "")
    if values := schema.get("choices") or schema.get("enum"):
        what = "다음 가운데 하나: " + ", ".join(values)
        if "{" in what:
            what += ". {} 자리에는 요청에 나온 말을 넣는다"
    if "differs" in schema:
        what += f". {schema['differs']}와 달라야 한다"
    return f"- {name} ({schema['type']}, {needed}){': ' if what else ''}{what}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def one_line(text: Any) -> str:
    """Text in NFC, white space as single spaces; "" for what is no text."""
    return " ".join(unicodedata.normalize("NFC", text).split()) if isinstance(text, str) else ""


def _clean(arguments: Any) -> Any:
    """Arguments in NFC, without those that are null or empty: models fill in what is absent."""
    if not isinstance(arguments, dict):
        return arguments
    return {
        name: unicodedata.normalize("NFC", value) if isinstance(value, str) else value
        for name, value in arguments.items()
        if value not in (None, "")
    }


def _call_fault(action: Any, arguments: Any) -> str | None:
    if fault := call_fault(action, arguments):
        return fault
    if action == FINISH and "final_answer" not in arguments:
        return f"arguments of {FINISH} lack 'final_answer'"
    for name, value in arguments.items():
        if isinstance(value, str) and not value.isprintable():
            return f"argument {name!r} holds a character that cannot be printed"
    return None


def _ordered(tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments in the order of the grammar: the required ones first."""
    return {n: arguments[n] for n in (*tool.required, *tool.parameters) if n in arguments}


def _spans(query: str, tool: Tool, arguments: Mapping[str, Any]) -> dict[str, list[int]]:
    """Where the request names the values of arguments, none inside another."""
    spans: dict[str, list[int]] = {}
    for name, value in sorted(arguments.items(), key=lambda item: -len(str(item[1]))):
        if tool.parameters[name].get("format", "options") == "options" or not re.search(
            r"\w", value
        ):
            continue
        begin = query.find(value)
        if begin >= 0:
            spans[name] = [begin, begin + len(value)]
            query = query[:begin] + "\0" * len(value) + query[begin + len(value) :]
    return spans


def _say(query: str, spans: Mapping[str, Sequence[int]]) -> str:
    """The request as a phrasing: {name} for every span."""
    for name, (begin, end) in sorted(spans.items(), key=lambda item: -item[1][0]):
        query = f"{query[:begin]}{{{name}}}{query[end:]}"
    return query

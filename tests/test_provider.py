"""A language model writes samples: what is valid is kept, once, whatever the endpoint does."""

import contextlib
import errno
import fcntl
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hybriko_jax.data.conversations import read_samples
from hybriko_jax.data.provider import Provider, collect, rejected_path
from hybriko_jax.data.provider_samples import Rejection, judge, read_answer
from hybriko_jax.data.synthesize import report, synthesize
from hybriko_jax.errors import UserError
from hybriko_jax.evaluate.function_calling import read_questions
from hybriko_jax.linux.tools import TOOLS
from hybriko_jax.prompts import parse_call
from launch import common
from launch import synthesize as launcher

ROOT = Path(__file__).parents[1]
KEY = "sk-test-0123456789"


@pytest.fixture(autouse=True)
def no_settings_of_the_machine(monkeypatch):
    for name in list(os.environ):
        if name.startswith("OPENAI_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def grounding():
    return launcher.grounding()


def offer(i):
    """Sample i of what the model has to say, in the form it is asked for."""
    request, action, arguments = [
        (f"report{i}.txt를 지워줘", "rm_command", {"path": f"report{i}.txt"}),
        (
            f"app{i}.log 마지막 {i + 2}줄만 보여주세요",
            "tail_command",
            {"path": f"app{i}.log", "lines": i + 2},
        ),
        (f"과제{i} 폴더 좀 만들어 줄래?", "mkdir_command", {"path": f"과제{i}"}),
        (
            f"a{i}.csv를 b{i}.csv로 복사해줘",
            "cp_command",
            # Not in the order of the grammar, and with what models fill in for nothing.
            {"destination": f"b{i}.csv", "source": f"a{i}.csv"},
        ),
        (
            f"run{i}.sh 권한을 755로 바꿔줘",
            "chmod_command",
            {"mode": "755", "path": f"run{i}.sh"},
        ),
        (f"kim{i}이 띄운 프로세스만 보여줘", "ps_command", {"options": f"-u kim{i}"}),
        (f"고마워, {i}번이나 도와줬네", "Finish", {"return_type": "give_answer"}),
    ][i % 7]
    if action == "Finish":
        arguments = {**arguments, "final_answer": "천만에요. 또 불러 주세요."}
    return {
        "request": request,
        "thought": "부탁을 들어 드립니다.",
        "action": action,
        "arguments": arguments,
    }


def calls(samples):
    """What was asked and answered, in an order of its own."""
    return sorted(
        (s.get("request") or s["query"], s["action"], sorted(s["arguments"].items()))
        for s in samples
    )


def body(text, **message):
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, **message},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150},
    }


def says(samples):
    return 200, {}, body(json.dumps({"samples": samples}, ensure_ascii=False))


def fails(status, message="no", code=None, **headers):
    fields = {"error": {"message": message, "type": "t", "code": code}}
    return status, {k.replace("_", "-"): v for k, v in headers.items()}, fields


class Endpoint(ThreadingHTTPServer):
    """A server of chat completions that answers request k by `script(k, request, headers)`.

    A script gives (status, headers, body), or None to cut the connection.
    """

    daemon_threads = True

    def __init__(self, script):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = script
        self.counter = itertools.count()
        self.guard = threading.Lock()
        self.requests, self.times = [], []
        self.hanging, self.closed = threading.Event(), threading.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        s: Any = self.server
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with s.guard:
            s.requests.append(request)
            s.times.append(time.monotonic())
            answer = s.script(next(s.counter), request, self.headers)
        if answer == "hang":
            s.hanging.set()
            s.closed.wait(120)
            return
        if answer is None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"id": "x", "choi')
            self.close_connection = True
            return
        status, headers, content = answer
        raw = json.dumps(content).encode() if isinstance(content, dict) else content
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(raw)


@contextlib.contextmanager
def serving(script):
    with Endpoint(script) as endpoint:
        thread = threading.Thread(target=endpoint.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield endpoint
        finally:
            endpoint.closed.set()
            endpoint.shutdown()
            thread.join()


def pool(n, per_answer=10):
    """Answers that offer n samples one after the other, and then from the start again."""
    at = itertools.count(step=per_answer)

    def answer(*_):
        first = next(at)
        return says([offer((first + k) % n) for k in range(per_answer)])

    return answer


def provider(url, **settings):
    return Provider(**{"model": "m", "base_url": url, "key": KEY, "backoff": 0.0, **settings})


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


BROKEN = (
    '{"samples": [{"request": "잘린 답',
    "{'samples': [{'request': '파이썬처럼 쓴 답'}]}",
    '{"samples": "목록이 아님"}',
)
WRONG = (
    ("schema", {**offer(0), "request": "없는 도구", "action": "format_command"}),
    ("grounding", {**offer(0), "request": "그 파일을 지워줘"}),
)


def troubled(n):
    """A model with n valid samples: a tenth of its answers is broken, a tenth refuses, every
    answer of the rest holds one wrong sample; there are rate limits and three cut connections."""
    good = pool(n)
    given = Counter()

    def script(k, request, headers):
        assert headers["Authorization"] == f"Bearer {KEY}"
        if k in (4, 17, 31):
            given["cut"] += 1
            return None
        if k % 20 == 9:
            return fails(429, "slow down", Retry_After="0.01")
        if k % 10 == 2:
            given["malformed"] += 1
            return 200, {}, body(BROKEN[k // 10 % 3])
        if k % 20 == 6:
            given["refused"] += 1
            return 200, {}, body("죄송하지만 도와드릴 수 없습니다.")
        if k % 20 == 16:
            given["refused"] += 1
            return 200, {}, body(None, refusal="I cannot help with that.")
        status, head, content = good()
        message = content["choices"][0]["message"]
        samples = json.loads(message["content"])["samples"]
        reason, wrong = WRONG[k % 2]
        given[reason] += 1
        message["content"] = json.dumps({"samples": [*samples[:5], wrong, *samples[5:]]})
        return status, head, content

    return script, given


@pytest.mark.parametrize("parallel", [1, 4])
def test_five_hundred_samples_through_every_trouble(tmp_path, grounding, parallel):
    out = tmp_path / "fc.jsonl"
    script, given = troubled(500)
    seen = []
    with serving(script) as endpoint:
        p = provider(endpoint.url, parallel=parallel)
        tally = collect(p, 500, out, grounding, lambda t: seen.append(t.kept))
    samples = read_samples(out)
    assert calls(samples) == calls(offer(i) for i in range(500))  # all, and none twice
    assert tally.kept == tally.new == 500 and given["cut"] == 3
    assert seen == sorted(seen) and seen[0] == 0 and seen[-1] == 500
    assert tally.requests == len(endpoint.requests)
    rejected = Counter(r["reason"] for r in lines(rejected_path(out)))
    assert rejected == tally.rejected
    if parallel == 1:  # with more, what is under way at the end is not waited for
        assert {r: rejected[r] for r in given if r != "cut"} == {
            r: given[r] for r in given if r != "cut"
        }
        answers = len(endpoint.requests) - 3 - sum(k % 20 == 9 for k in range(tally.requests))
        assert tally.prompt_tokens == 100 * answers and tally.completion_tokens == 50 * answers


def test_samples_are_as_synthesize_writes_them(tmp_path, grounding):
    out = tmp_path / "fc.jsonl"
    with serving(pool(40)) as endpoint:
        collect(provider(endpoint.url, parallel=1), 35, out, grounding)
    samples = read_samples(out)
    ours, theirs = samples[0], next(synthesize(1, seed=0))
    assert theirs.keys() | {"source", "model"} == ours.keys()
    assert {k: type(v) for k, v in theirs.items()} == {k: type(ours[k]) for k in theirs}
    assert theirs["phrasing"].keys() == ours["phrasing"].keys()
    assert {s["source"] for s in samples} == {"provider"}
    facts = report([*samples, theirs])
    assert facts["samples"] == 36 and facts["duplicates"] == facts["faults"] == 0
    assert len(read_questions(out)) == 35  # not the five too many; ids differ
    for sample in samples:
        _, action, arguments = parse_call(sample["messages"][1]["content"])
        assert (action, arguments) == (sample["action"], sample["arguments"])
        for name, (begin, end) in sample["spans"].items():
            assert sample["query"][begin:end] == sample["arguments"][name]
    by_query = {s["query"]: s for s in samples}
    assert by_query["a3.csv를 b3.csv로 복사해줘"]["phrasing"]["say"] == (
        "{source}를 {destination}로 복사해줘"
    )


def test_every_prompt_names_one_tool_and_all_come_in_turn(tmp_path, grounding):
    # What comes is told apart by the number in it, not by the tool that was asked for.
    with serving(pool(300)) as endpoint:
        collect(provider(endpoint.url, parallel=1), 300, tmp_path / "o.jsonl", grounding)
    prompts = [r["messages"][-1]["content"] for r in endpoint.requests]
    named = Counter(p.split(":")[0].removeprefix("도구 ") for p in prompts)
    assert set(named) == {t.name for t in TOOLS}
    finish = named.pop("Finish")
    assert max(named.values()) - min(named.values()) <= 1 < max(named.values()) < finish
    styles = Counter(line for p in prompts for line in p.splitlines() if line.startswith("말투"))
    assert len(styles) == 12 and len(set(prompts)) == len(prompts)
    assert "- report0.txt를 지워줘" in next(
        p for p in prompts[1:] if p.startswith("도구 rm_command")
    )


def test_samples_that_are_there_are_not_written_again(tmp_path, grounding):
    out = tmp_path / "fc.jsonl"
    seeded = list(synthesize(3, seed=0))
    twice = {**offer(0), "request": f"  {seeded[0]['query'].replace(' ', '  ')}\n"}
    twice |= {k: seeded[0][k] for k in ("action", "arguments")}
    out.write_text("".join(json.dumps(s, ensure_ascii=False) + "\n" for s in seeded))
    with serving(lambda k, *_: says([twice, offer(1), offer(1), offer(2)])) as endpoint:
        tally = collect(provider(endpoint.url, parallel=1), 2, out, grounding)
    assert lines(out)[:3] == seeded and len(lines(out)) == 5
    assert tally.rejected == {"duplicate": 2}


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_stopped_goes_on(tmp_path, grounding, stop):
    out = tmp_path / "fc.jsonl"
    good = pool(100)
    script: dict[str, Any] = {"now": lambda k, *_: "hang" if k == 4 else good()}
    with serving(lambda *a: script["now"](*a)) as endpoint:
        command = ["--provider", "openai", "--base-url", endpoint.url, "--model", "m", "--n", "100"]
        process = subprocess.Popen(
            [sys.executable, "-m", "launch.synthesize", *command, "--out", out],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"OPENAI_API_KEY": KEY},
            text=True,
        )
        assert endpoint.hanging.wait(60)
        while (
            len(endpoint.requests) < 6 and process.poll() is None
        ):  # the other request in flight goes on
            time.sleep(0.01)
        process.send_signal(stop)
        _, said = process.communicate(timeout=60)
        if stop == signal.SIGINT:
            assert process.returncode == 130 and len(said.splitlines()) == 1, said
        before = out.read_bytes()
        assert before.endswith(b"\n") and 20 <= len(lines(out)) < 100
        # As if the kill had come in the middle of a line, and of a character.
        torn = before.splitlines(keepends=True)[0]
        out.write_bytes(before + torn[: next(i for i, b in enumerate(torn) if b > 127) + 1])
        script["now"] = good
        tally = collect(provider(endpoint.url), 100, out, grounding)
    assert out.read_bytes().startswith(before)
    assert calls(read_samples(out)) == calls(offer(i) for i in range(100))
    assert tally.kept == 100 and tally.new == 100 - before.count(b"\n")


def test_a_whole_last_line_without_its_end_is_kept(tmp_path, grounding):
    out = tmp_path / "fc.jsonl"
    out.write_text(json.dumps(next(synthesize(1, seed=0)), ensure_ascii=False))
    with serving(pool(10)) as endpoint:
        collect(provider(endpoint.url), 10, out, grounding)
    assert len(read_samples(out)) == 11


def test_a_file_of_something_else_is_left_alone(tmp_path, grounding):
    out = tmp_path / "notes.md"
    out.write_text("# 메모\n\n끝")
    with pytest.raises(UserError, match=r"notes\.md:1: not JSON"):
        collect(provider("http://127.0.0.1:9/v1"), 10, out, grounding)
    assert out.read_text() == "# 메모\n\n끝"


def test_a_full_disk_leaves_whole_lines(tmp_path, grounding, monkeypatch):
    out = tmp_path / "fc.jsonl"
    write, count = os.write, itertools.count()

    def full(file, data):
        if next(count) < 4:
            return write(file, data[:1000])  # a part at a time is allowed to a system
        write(file, data[:50])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("hybriko_jax.data.provider.os.write", full)
    with serving(pool(30)) as endpoint, pytest.raises(OSError) as raised:
        collect(provider(endpoint.url), 30, out, grounding)
    assert raised.value.errno == errno.ENOSPC and raised.value.filename == str(out)
    assert not out.exists()  # nothing was written whole
    monkeypatch.undo()
    with serving(pool(30)) as endpoint:
        collect(provider(endpoint.url), 30, out, grounding)
    assert calls(read_samples(out)) == calls(offer(i) for i in range(30))


def test_two_runs_do_not_write_one_file(tmp_path, grounding):
    out = tmp_path / "fc.jsonl"
    with out.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="Another run writes"):
            collect(provider("http://127.0.0.1:9/v1"), 10, out, grounding)


def test_an_endpoint_that_refuses_json_mode_is_asked_without(tmp_path, grounding):
    good = pool(60)

    def script(k, request, headers):
        return fails(400, "response_format?") if "response_format" in request else good()

    with serving(script) as endpoint:
        tally = collect(provider(endpoint.url, parallel=3), 60, tmp_path / "o.jsonl", grounding)
    first = [r.get("response_format") for r in endpoint.requests]
    assert first[0] == {"type": "json_object"} and first.count(first[0]) <= 3
    assert tally.kept == 60 and "temperature" not in endpoint.requests[0]


@pytest.mark.parametrize("value", ["0", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_the_time_that_the_server_names_goes_first(tmp_path, grounding, value):
    good = pool(10)

    def script(k, *_):
        return good() if k == 2 else fails((429, 503)[k], Retry_After=value)

    with serving(script) as endpoint:
        collect(provider(endpoint.url, backoff=1e3), 10, tmp_path / "o.jsonl", grounding)
    assert len(endpoint.requests) == 3


def test_waits_are_as_named_and_double_otherwise(tmp_path, grounding):
    good = pool(10)
    answers = [fails(429, Retry_After="0.3"), fails(500), fails(502), good()]
    notes = []
    with serving(lambda k, *_: answers[k]) as endpoint:
        p = provider(endpoint.url, backoff=0.1)
        collect(p, 10, tmp_path / "o.jsonl", grounding, lambda t: notes.append(t.note))
    first, second, third = (b - a for a, b in itertools.pairwise(endpoint.times))
    assert first >= 0.3 and second >= 0.1 and third >= 0.2
    assert notes[1] == "429: no; waiting 0.3 s" and notes[-1] == ""


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@pytest.mark.parametrize(
    "answer,requests,message",
    [
        (fails(401, f"Incorrect API key provided: {KEY}"), 1, "키를 받아 주지 않습니다.*401"),
        (fails(404, "model m does not exist"), 1, "404: .*model m does not exist.*--model m"),
        (fails(429, "quota", "insufficient_quota"), 1, "양이 다 되었습니다"),
        (fails(429, "tomorrow", Retry_After="7200"), 1, "7,200초"),
        (fails(429, "two\nlines"), 3, "two lines.*3번 해 보고"),
        (fails(500), 3, "500.*3번 해 보고"),
        (fails(400, f"no such option {KEY}"), 2, r"400.*\*\*\*"),
        (None, 3, "연결이 안 됩니다.*3번 해 보고"),
        ((200, {"Content-Type": "text/html"}, b"<html>"), 1, "chat completions가 아닙니다"),
        ((200, {}, b'{"id": '), 3, "읽을 수 없습니다.*3번 해 보고"),
        ((200, {}, {"error": {"message": "overloaded"}}), 3, "overloaded.*3번 해 보고"),
        ((200, {}, {"choices": []}), 3, "no choices.*3번 해 보고"),
        ((200, {}, b"[]"), 3, "no choices.*3번 해 보고"),
    ],
)
def test_what_no_try_mends_ends_the_run_with_one_line(
    tmp_path, grounding, answer, requests, message
):
    out = tmp_path / "fc.jsonl"
    good = pool(100)
    with serving(lambda k, *_: good() if k < 2 else answer) as endpoint:
        p = provider(endpoint.url, tries=3, parallel=1)
        with pytest.raises(UserError, match=message) as raised:
            collect(p, 100, out, grounding)
    said = str(raised.value)
    assert len(endpoint.requests) == 2 + requests
    assert "\n" not in said and KEY not in said
    assert endpoint.url in said and f"{out}에 100개 가운데 20개가 있습니다." in said
    assert len(read_samples(out)) == 20


def test_a_port_that_nobody_listens_on(tmp_path, grounding):
    url = f"http://127.0.0.1:{closed_port()}/v1"
    with pytest.raises(UserError, match=f"{url}: 연결이 안 됩니다.*4번 해 보고") as raised:
        collect(provider(url, tries=4), 10, tmp_path / "o.jsonl", grounding)
    assert "0개가 있습니다" in str(raised.value) and not list(tmp_path.iterdir())


def test_a_model_that_repeats_itself_is_not_asked_for_ever(tmp_path, grounding):
    out = tmp_path / "fc.jsonl"
    with serving(lambda *_: says([offer(i) for i in range(10)])) as endpoint:
        p = provider(endpoint.url, patience=7, parallel=1)
        with pytest.raises(UserError, match="답 7개에 새 표본이 하나도.*duplicate 70.*temperature"):
            collect(p, 100, out, grounding)
    assert len(endpoint.requests) == 8 and len(read_samples(out)) == 10


def test_a_limit_of_requests_counts_the_failed_ones(tmp_path, grounding):
    out = tmp_path / "fc.jsonl"
    good = pool(100)
    with serving(lambda k, *_: fails(503) if k % 2 else good()) as endpoint:
        p = provider(endpoint.url, max_requests=5)
        tally = collect(p, 100, out, grounding)
        assert tally.requests == len(endpoint.requests) == 5 and tally.kept == 30
        assert collect(p, 100, out, grounding).kept > 30


@pytest.mark.parametrize(
    "text,n,reason",
    [
        ('```json\n{"samples": [{"request": "a"}]}\n```', 1, None),
        ('<think>{"samples": [</think>[{"request": "a"}, {"request": "b"}]', 2, None),
        ('{"request": "a"}', 1, None),
        ('네 [알겠습니다]. {"samples": [{"request": "a"}]}', 1, None),
        ('{"samples": [{"request": "a", "arguments": {}}, {"request": "b', 1, "malformed"),
        ('{"samples": [{"request": "a"}, 3]}', 2, None),
        ('{"samples": []}', 0, "malformed"),
        ("[" * 100_000, 0, "refused"),
        ('{"a":' * 20_000, 0, "malformed"),
        ("싫습니다.", 0, "refused"),
    ],
)
def test_answers_are_read_in_what_stands_around_them(text, n, reason):
    found, fault = read_answer(text)
    assert len(found) == n and (fault and fault.reason) == reason


@pytest.mark.parametrize(
    "change,reason",
    [
        ({}, None),
        ({"arguments": {"path": "report0.txt", "recursive": None}}, None),
        ({"request": "report0.txt를\n 지워줘"}, None),
        ({"request": None}, "malformed"),
        ({"request": "report0.txt를 \ud800 지워줘"}, "malformed"),
        ({"thought": ""}, "malformed"),
        ({"request": "rm report0.txt"}, "request"),
        ({"request": "report0.txt를 지워줘" + " 제발" * 500}, "request"),
        ({"action": ["rm_command"]}, "schema"),
        ({"arguments": "report0.txt"}, "schema"),
        ({"arguments": {"path": ""}}, "schema"),
        ({"arguments": {"path": "report0.txt", "force": True}}, "schema"),
        ({"arguments": {"path": "report0.txt\u2028"}}, "schema"),
        ({"arguments": {"path": "report1.txt"}}, "grounding"),
        ({"arguments": {"path": "/"}}, "grounding"),
        ({"action": "tail_command", "arguments": {"path": "report0.txt", "lines": 5}}, "grounding"),
        ({"action": "Finish", "arguments": {"return_type": "give_answer"}}, "schema"),
        ({"thought": "길" * 81}, "grounding"),
    ],
)
def test_samples_are_judged(grounding, change, reason):
    found = judge({**offer(0), **change}, grounding)
    assert (found.reason if isinstance(found, Rejection) else None) == reason
    if not isinstance(found, Rejection):
        assert (found["query"], found["arguments"]) == (
            "report0.txt를 지워줘",
            {"path": "report0.txt"},
        )


def test_what_is_rejected_can_be_read_whatever_it_is(tmp_path, grounding):
    out = tmp_path / "fc.jsonl"
    odd = {**offer(0), "request": "반쪽 \ud800 \u2028"}
    with serving(lambda *_: says([odd, "x", *(offer(i) for i in range(5))])) as endpoint:
        collect(provider(endpoint.url), 5, out, grounding)
    first, second, *_ = rejected_path(out).read_bytes().split(b"\n")
    assert json.loads(first)["sample"] == odd and json.loads(second)["sample"] == "x"


# --- the command ---


def command(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["launch.synthesize", *map(str, arguments)])
    try:
        common.run(launcher.main)
        code = 0
    except SystemExit as e:
        code = e.code
    return code, *capsys.readouterr()


def test_the_command_makes_a_file_and_a_report(tmp_path, monkeypatch, capsys):
    out = tmp_path / "new" / "fc.jsonl"
    script, _ = troubled(30)
    with serving(script) as endpoint:
        monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
        flags = ("--provider", "openai", "--base-url", endpoint.url, "--model", "m", "--out", out)
        flags = (*flags, "--provider-backoff", 0, "--provider-parallel", 1)
        facts = tmp_path / "report.json"
        code, said, _ = command(
            monkeypatch, capsys, *flags, "--n", 30, "--max-requests", 2, "--report", facts
        )
        assert code == 0 and "stopped after 2 requests (--max-requests)" in said
        assert "kept 20 of 30" in said
        code, said, complaint = command(
            monkeypatch, capsys, *flags, "--n", 30, "--temperature", 0.7, "--report", facts
        )
    assert code == 0 and not complaint and endpoint.requests[-1]["temperature"] == 0.7
    found = json.loads(facts.read_text())
    assert found["samples"] == found["of language models"] == 30 and found["new"] == 10
    assert calls(read_samples(out)) == calls(offer(i) for i in range(30))
    code, _, complaint = command(monkeypatch, capsys, "--n", 5, "--out", out)
    assert code == 1 and "which would be lost" in complaint


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"model": "m"}, "--model is for a language model"),
        ({"temperature": 0.0}, "--temperature is for"),
        ({"provider": "openai"}, "--model is missing"),
        ({"provider": "openai", "model": "m", "base_url": "localhost"}, "http://"),
        ({"provider": "openai", "model": "m", "held_out": True}, "--held-out"),
        ({"provider": "openai", "model": "m", "max_requests": 0}, "--max-requests 0 must be 1"),
        ({"provider": "openai", "model": "m", "provider_backoff": float("nan")}, "0 or more"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        launcher.Arguments(out=Path("fc.jsonl"), **settings)


@pytest.mark.parametrize("key,message", [("", "가 없습니다"), ("열쇠", "키가 아닌 글자")])
def test_a_key_that_is_none_is_one_line(tmp_path, monkeypatch, capsys, key, message):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    out = tmp_path / "fc.jsonl"
    flags = ("--provider", "openai", "--model", "m", "--out", out)
    code, _, said = command(monkeypatch, capsys, *flags)
    assert code == 1 and message in said and len(said.splitlines()) == 1
    assert not out.exists()


def test_without_a_key_a_local_server_is_asked_and_a_refusal_says_so(tmp_path, monkeypatch, capsys):
    flags = ("--provider", "openai", "--model", "m", "--n", 10, "--out", tmp_path / "fc.jsonl")
    with serving(pool(10)) as endpoint:
        assert command(monkeypatch, capsys, *flags, "--base-url", endpoint.url)[0] == 0
    (tmp_path / "fc.jsonl").unlink()
    with serving(lambda *_: fails(401)) as endpoint:
        code, _, said = command(monkeypatch, capsys, *flags, "--base-url", endpoint.url)
    assert code == 1 and "키 없는 요청을 받아 주지 않습니다" in said and len(said.splitlines()) == 1


def test_the_client_is_asked_for_only_where_it_is_used(tmp_path, grounding, monkeypatch):
    code = (
        "import sys, hybriko_jax.data.provider, launch.synthesize; print('openai' in sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "False"
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(UserError, match=r"pip install 'hybriko-jax\[provider\]'"):
        collect(provider("http://127.0.0.1:9/v1"), 10, tmp_path / "fc.jsonl", grounding)
    assert not list(tmp_path.iterdir())

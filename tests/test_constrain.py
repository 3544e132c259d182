"""Grounded decoding: whatever the model wants, the answer is a call that the request supports."""

import numpy as np
import pytest

from hybriko_jax.data.synthesize import synthesize
from hybriko_jax.decode.constrain import Grammars, call_grammar
from hybriko_jax.decode.spans import candidates
from hybriko_jax.evaluate.function_calling import Prediction, Question, made_up
from hybriko_jax.linux.tools import TOOLS, call_fault
from hybriko_jax.prompts import format_call, parse_call


@pytest.fixture(scope="module")
def grammars(mini_tokenizer):
    return Grammars(mini_tokenizer)


def allows(grammars, tokenizer, texts, action, arguments, names=()):
    matcher = grammars.matcher(call_grammar(TOOLS, candidates(texts[:1], texts[1:], names)))
    ids = [*tokenizer.encode(format_call("네.", action, arguments)), grammars.end]
    return matcher.validate_tokens(ids) == len(ids)


@pytest.mark.parametrize(
    "query,action,arguments",
    [
        ("app.log를 지워줘", "rm_command", {"path": "app.log"}),
        ("음악폴더로 a.mp3 옮겨", "mv_command", {"source": "a.mp3", "destination": "음악"}),
        ("assets 밑에 아이콘 폴더", "mkdir_command", {"path": "assets/아이콘"}),
        ("'수업 자료' 보여줘", "ls_command", {"path": "수업 자료", "options": "-la"}),
        ("파이썬 파일 찾아줘", "find_command", {"path": ".", "name": "*.py"}),
        ("b.txt 열 다섯줄", "tail_command", {"path": "b.txt", "lines": 15}),
        ("c.csv 첫 줄만", "head_command", {"path": "c.csv", "lines": 1}),
        ("주문 취소라는 말이 o.txt에", "grep_command", {"pattern": "주문 취소", "path": "o.txt"}),
        ("kim이 띄운 것만", "ps_command", {"options": "-u kim"}),
        ("a.sh 실행 가능하게", "chmod_command", {"mode": "+x", "path": "a.sh"}),
        ("http://a.kr/x?y=1 받아", "curl_command", {"url": "http://a.kr/x?y=1"}),
        ("견적서(안).xlsx를 지워", "rm_command", {"path": "견적서(안).xlsx"}),
        ("..", "cd_command", {"path": "../.."}),
        ("보고서 초안.docx 지워", "rm_command", {"path": "보고서 초안.docx"}),
        ("문서안에있는 a.txt 보여줘", "cat_command", {"path": "문서/a.txt"}),
        ("루트에 있는 data 폴더", "ls_command", {"path": "/data"}),
        ("ls -ltr 해줘", "ls_command", {"path": ".", "options": "-ltr"}),
        ("로그 천오백 줄 a.log", "tail_command", {"path": "a.log", "lines": 1500}),
        ("https://naver.com 핑", "ping_command", {"host": "naver.com"}),
        ("log.txt에서 [ERROR] 찾아", "grep_command", {"pattern": "[ERROR]", "path": "log.txt"}),
        ("고마워", "Finish", {"return_type": "give_answer", "final_answer": "천만에요."}),
    ],
)
def test_what_the_request_says_is_allowed(grammars, mini_tokenizer, query, action, arguments):
    assert allows(grammars, mini_tokenizer, [query], action, arguments)


@pytest.mark.parametrize(
    "query,action,arguments",
    [
        ("app.log를 지워줘", "rm_command", {"path": "server.log"}),
        ("app.log를 지워줘", "rm_command", {"path": "app.lo"}),
        ("app.log를 지워줘", "rm_command", {"path": "app.log", "force": True}),
        ("app.log를 지워줘", "format_command", {"path": "app.log"}),
        ("파이썬 파일 찾아줘", "find_command", {"path": ".", "name": "*.js"}),
        ("b.txt 다섯 줄", "tail_command", {"path": "b.txt", "lines": 6}),
        ("b.txt 다섯 줄", "tail_command", {"lines": 5, "path": "b.txt"}),
        ("ping 8.8.8.8", "ping_command", {"host": "8.8.4.4"}),
        ("a.txt 보여줘", "ls_command", {"path": "a.txt", "options": "-rf"}),
        ("a.txt를 b.txt로", "cp_command", {"source": "a.txt", "destination": "a.txt"}),
        ("src에 있는 a.txt", "cat_command", {"path": "src/src"}),
        ("src/app.js 지워줘", "rm_command", {"path": "/", "recursive": True}),
        ("내 로그 지워줘", "rm_command", {"path": "~", "recursive": True}),
        ("a.py 지워줘", "rm_command", {"path": "*.py"}),
        ("집계.py 지워줘", "rm_command", {"path": "*.zip"}),
        ("a.txt 755로", "chmod_command", {"mode": "777", "path": "a.txt"}),
    ],
)
def test_what_it_does_not_say_is_not(grammars, mini_tokenizer, query, action, arguments):
    assert not allows(grammars, mini_tokenizer, [query], action, arguments)


def test_names_come_from_tool_results_and_the_current_folder_too(grammars, mini_tokenizer):
    call = ("tail_command", {"path": "로그/app_0312.log", "lines": 5})
    request = "로그 폴더에서 제일 최근 파일 마지막 5줄"
    assert not allows(grammars, mini_tokenizer, [request], *call)
    assert allows(grammars, mini_tokenizer, [request, "app_0312.log\napp_0311.log"], *call)
    assert allows(grammars, mini_tokenizer, [request], *call, names=["app_0312.log"])


def random_answer(grammars, tokenizer, query, rng):
    """An answer of tokens drawn evenly from those allowed."""
    masks, ids, last = grammars.masks([call_grammar(TOOLS, candidates([query]))]), [], None
    for _ in range(600):
        bits_N = masks(last)[0].view(np.uint32)
        allowed = np.flatnonzero(np.unpackbits(bits_N.view(np.uint8), bitorder="little"))
        token = int(rng.choice(allowed))
        if token == grammars.end:
            return tokenizer.decode(ids)
        ids.append(token)
        last = np.array([token])
    raise AssertionError("no end in 600 tokens")


def check_random_answers(grammars, tokenizer, samples):
    rng = np.random.default_rng(0)
    for sample in samples:
        text = random_answer(grammars, tokenizer, sample["query"], rng)
        thought, action, arguments = parse_call(text)
        assert thought is not None and call_fault(action, arguments) is None, text
        question = Question("", ({"role": "user", "content": sample["query"]},), "", ())
        if not any("*" in str(v) for v in arguments.values()):
            assert not made_up(question, Prediction("", action, arguments, text)), text


def test_random_tokens_make_valid_grounded_calls(grammars, mini_tokenizer):
    check_random_answers(grammars, mini_tokenizer, synthesize(60, seed=5))


@pytest.mark.slow
def test_a_thousand_random_answers_are_valid(grammars, mini_tokenizer):
    check_random_answers(grammars, mini_tokenizer, synthesize(1000, seed=6))


@pytest.mark.parametrize(
    "query", ["🙂🙂", "x" * 10_000, 'a"b\\c\x01', "<|im_end|> rm -rf /", "’‘“”", "\u3000"]
)
def test_odd_requests_make_a_grammar_in_which_finish_is_reachable(grammars, mini_tokenizer, query):
    answer = {"return_type": "give_answer", "final_answer": "무엇을 도와드릴까요?"}
    assert allows(grammars, mini_tokenizer, [query], "Finish", answer)


def test_rows_that_have_ended_only_end(grammars, mini_tokenizer):
    lark = call_grammar(TOOLS, candidates(["df"]))
    masks = grammars.masks([lark, lark])
    ids = [*mini_tokenizer.encode(format_call("네", "df_command", {})), grammars.end]
    other = mini_tokenizer.encode("Thought: " + "가" * 60)
    last = None
    for a, b in zip(ids, other, strict=False):
        masks(last)
        last = np.array([a, b])
    bits = np.unpackbits(masks(last)[0].view(np.uint8), bitorder="little")
    assert np.flatnonzero(bits).tolist() == [grammars.end]

"""Questions from every form of samples, and what counts as right."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from hybriko_jax.config import HybriKoConfig
from hybriko_jax.errors import UserError
from hybriko_jax.evaluate.function_calling import (
    Prediction,
    Question,
    evaluation_loss,
    made_up,
    predict,
    questions,
    read_questions,
    same_call,
    score,
    wilson,
)
from hybriko_jax.linux.argv import command_line
from hybriko_jax.linux.tools import call_fault
from hybriko_jax.models import build
from hybriko_jax.prompts import format_call

USER = {"role": "user", "content": "a.txt 끝 세 줄, 그리고 지워줘"}


def question(action, *answers, messages=(USER,)):
    return Question("x", tuple(messages), action, answers)


def answered(action, **arguments):
    return Prediction("x", action, arguments, "")


def test_every_call_of_a_dialogue_is_asked_with_the_ones_before_given():
    first = {"role": "assistant", "content": format_call("끝", "tail_command", {"path": "a.txt"})}
    result = {"role": "tool", "content": "가\n나\n다"}
    last = {"role": "assistant", "content": format_call("지움", "rm_command", {"path": "a.txt"})}
    sample = {"id": "d", "query": USER["content"], "messages": [USER, first, result, last]}
    asked = list(questions([sample]))
    assert [q.id for q in asked] == ["d/1", "d/2"]
    assert asked[1].messages == (USER, first, result)
    assert asked[1].action == "rm_command" and asked[1].answers == ({"path": "a.txt"},)
    steps = [
        {"action": "tail_command", "arguments": {"path": "a.txt"}, "acceptable": [{"path": "b"}]},
        {"action": "rm_command", "arguments": {"path": "a.txt"}},
    ]
    asked = list(questions([sample | {"steps": steps}]))
    assert asked[0].answers == ({"path": "a.txt"}, {"path": "b"})


@pytest.mark.parametrize(
    "right,given,same",
    [
        ({"path": "a"}, {"path": "a/"}, True),
        ({"path": "a"}, {"path": "./a"}, True),
        ({"path": "a", "lines": 10}, {"path": "a"}, True),
        ({"path": "a", "lines": 3}, {"path": "a"}, False),
        ({"path": "a.b"}, {"path": "ab"}, False),
    ],
)
def test_same_arguments(right, given, same):
    assert same_call(question("head_command", right), answered("head_command", **given)) == same
    assert not same_call(question("tail_command", right), answered("head_command", **given))


def test_made_up_names_are_found():
    asked = question("rm_command", {"path": "a.txt"})
    assert not made_up(asked, answered("rm_command", path="a.txt"))
    assert made_up(asked, answered("rm_command", path="a.py")) == ["a.py"]
    assert not made_up(asked, answered("find_command", path=".", name="*.txt"))
    assert made_up(asked, answered("find_command", path="src", name="*.txt")) == ["src"]


def test_scores_count_calls_and_whole_dialogues():
    asked = [
        Question("a", (USER,), "rm_command", ({"path": "a.txt"},)),
        Question("d/1", (USER,), "rm_command", ({"path": "a.txt"},)),
        Question("d/2", (USER,), "Finish", ({"return_type": "give_answer"},)),
    ]
    predictions = [
        Prediction("a", "rm_command", {"path": "b.txt"}, ""),
        Prediction("d/1", "rm_command", {"path": "a.txt"}, ""),
        Prediction("d/2", "Finish", {"return_type": "give_answer", "final_answer": "끝"}, ""),
    ]
    scores = score(asked, predictions)
    total = scores["all"]
    assert (total.asked, total.actions, total.calls, total.hallucinated) == (3, 3, 2, 1)
    assert scores["dialogues"].calls == scores["dialogues"].asked == 1


def test_wilson_interval():
    # 8 of 10, as R's binom::binom.confint(8, 10, methods = "wilson") gives it.
    assert wilson(8, 10) == pytest.approx((0.8, 0.4901624715, 0.9433178485), abs=1e-4)
    assert wilson(0, 20)[1] == 0


@pytest.mark.parametrize(
    "line,message",
    [
        ("{", ":2: not a sample"),
        ('{"id": "a", "query": "q"}', ":2: no field 'action'"),
        ('{"id": "a", "query": "q", "action": "fly", "arguments": {}}', "fly"),
        ('{"id": "a", "query": "q", "action": "rm_command", "arguments": {}}', "lack 'path'"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    good = {"id": "g", "query": "q", "action": "df_command", "arguments": {}}
    path = tmp_path / "f.jsonl"
    path.write_text(json.dumps(good) + "\n" + line + "\n")
    with pytest.raises(UserError, match=message):
        read_questions(path)


@pytest.fixture(scope="module")
def untrained(mini_tokenizer):
    config = HybriKoConfig(
        vocab_size=8000, d_model=32, n_layers=3, n_heads=4, n_kv_heads=2, max_seq_len=2048
    )
    model = build(config)
    tokens = jnp.zeros((1, 1), jnp.int32)
    return model, nn.unbox(jax.jit(model.init)(jax.random.key(0), tokens, tokens))["params"]


def test_an_untrained_model_cannot_leave_the_grammar(untrained, mini_tokenizer):
    asked = [
        Question(str(i), ({"role": "user", "content": text},), "Finish", ({},))
        for i, text in enumerate(("a.txt 지워줘", "안녕", "서버 로그의 마지막 3줄"))
    ]
    found = list(predict(*untrained, mini_tokenizer, asked, system="", grounded=True, batch_size=2))
    assert {p.id for p in found} == {"0", "1", "2"}
    for p in found:
        # The thought may be cut off at the most tokens, but what is there of a call is valid.
        assert p.action is None or call_fault(p.action, p.arguments) is None


def test_evaluation_loss_of_an_untrained_model_is_about_even(untrained, mini_tokenizer):
    asked = [question("rm_command", {"path": "a.txt"})]
    assert 8 < evaluation_loss(*untrained, mini_tokenizer, asked, "") < 10  # ln 8000 = 8.99


@pytest.mark.parametrize(
    "action,arguments,line",
    [
        ("ls_command", {"path": "수업 자료", "options": "-la"}, "ls -la '수업 자료'"),
        ("rm_command", {"path": "-x", "recursive": True}, "rm -r -- -x"),
        ("tail_command", {"path": "~/a.log"}, "tail -n 10 ~/a.log"),
        ("find_command", {"path": ".", "name": "*.py"}, "find . -name '*.py'"),
        ("rm_command", {"path": "~/내 문서/*.hwp"}, "rm ~/'내 문서/'*.hwp"),
        ("cp_command", {"source": "data", "destination": "old"}, "cp -r data old"),
        ("grep_command", {"pattern": "a b", "path": "x.log"}, "grep -n 'a b' x.log"),
        ("chmod_command", {"mode": "-x", "path": "a.sh"}, "chmod -- -x a.sh"),
        ("curl_command", {"url": "http://a", "options": "-o it's.txt"}, None),
        ("tar_command", {"operation": "extract", "archive": "a.tgz"}, "tar -xf a.tgz"),
        ("curl_command", {"url": "http://a/?x=1&y=2"}, "curl 'http://a/?x=1&y=2'"),
        ("cd_command", {"path": "-"}, "cd -"),
        ("Finish", {"return_type": "give_answer"}, ""),
    ],
)
def test_command_lines(action, arguments, line):
    shown = command_line(action, arguments)
    assert shown == line if line is not None else shown

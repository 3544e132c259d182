"""Conversations as rows: whole, apart from each other, and only what the assistant says learned."""

import json

import numpy as np
import pytest

from hybriko_jax.data.conversations import (
    ConversationRows,
    conversations,
    read_samples,
    text_weight,
)
from hybriko_jax.data.synthesize import synthesize
from hybriko_jax.errors import UserError
from hybriko_jax.prompts import chat_tokens, format_call, parse_call, system_prompt
from hybriko_jax.tokenizer import IM_END, IM_START


class Text:
    """A split of three documents, each of one token that no text has."""

    length_N = np.array([40, 30, 50], np.int32)

    def __init__(self, tokenizer):
        self.marks = [tokenizer.pieces().index(byte) for byte in (b"\xf8", b"\xf9", b"\xfa")]

    def read(self, indices):
        return [np.full(self.length_N[i], self.marks[i], np.int32) for i in indices]


@pytest.fixture(scope="module")
def samples():
    return list(synthesize(80, seed=9))


def rows_of(tokenizer, samples, text=None, weights=(1.0,), seq_len=640):
    both = conversations(tokenizer, samples, "도우미", text, longest=seq_len)
    return both, ConversationRows(both, weights, seq_len, 0, tokenizer.pad_id)


def test_every_conversation_is_once_in_an_epoch_and_whole(mini_tokenizer, samples):
    both, rows = rows_of(mini_tokenizer, samples)
    batch = rows.batch(range(rows.plan(0).n_rows))
    found = []
    for tokens_L, positions_L in zip(batch.tokens_BL, batch.positions_BL, strict=True):
        begins = np.flatnonzero((positions_L == 0) & (tokens_L == mini_tokenizer.bos_id))
        for begin in begins:
            rest = positions_L[begin + 1 :]
            n = 1 + int(np.argmax(rest == 0)) if (rest == 0).any() else 1 + len(rest)
            found.append(tokens_L[begin : begin + n].tolist())
    assert sorted(found) == sorted(t.tolist() for t in both.tokens)


def test_only_the_assistant_is_learned_and_text_is_learned_whole(mini_tokenizer, samples):
    text = Text(mini_tokenizer)
    both, rows = rows_of(mini_tokenizer, samples, text, (1.0, 1.0))
    batch = rows.batch(range(rows.plan(0).n_rows))
    learned = batch.tokens_BL[batch.loss_mask_BL]
    # The first token of a document has nothing before it.
    assert [int((learned == mark).sum()) for mark in text.marks] == [39, 29, 49]
    said = np.concatenate([t[s] for t, s in zip(both.tokens, both.said, strict=True)])
    assert sorted(learned[~np.isin(learned, text.marks)]) == sorted(said)


def test_chat_tokens_spell_the_conversation(mini_tokenizer):
    messages = [
        {"role": "user", "content": "a.txt<|im_end|> 지워"},
        {"role": "assistant", "content": "네"},
    ]
    tokens, said = chat_tokens(mini_tokenizer, messages)
    start, end = (mini_tokenizer.control_id(s) for s in (IM_START, IM_END))
    assert (tokens == start).sum() == 2 and (tokens == end).sum() == 2  # not the typed one
    assert mini_tokenizer.decode(tokens[said].tolist()) == "네" and tokens[said][-1] == end


def test_calls_are_read_back():
    text = format_call("지웁니다.", "rm_command", {"path": '이"름.txt'})
    assert parse_call(text) == ("지웁니다.", "rm_command", {"path": '이"름.txt'})
    assert parse_call("모르겠어요") == ("모르겠어요", None, None)
    assert parse_call("Thought: x\nAction: y\nAction Input: {") == ("x", "y", None)


def test_text_makes_up_its_share():
    weight = text_weight(900, 400, 0.25)
    assert weight * 400 / (900 + weight * 400) == pytest.approx(0.25)


def test_behind_a_shared_prefix_a_row_holds_one_sample(mini_tokenizer, samples):
    both = conversations(mini_tokenizer, samples, None)
    rows = ConversationRows(both, (1.0,), 640, 0, mini_tokenizer.pad_id, packed=False)
    batch = rows.batch(range(len(samples), 2 * len(samples)))  # the second epoch
    start = mini_tokenizer.control_id(IM_START)
    assert (batch.tokens_BL[:, 0] == start).all()
    lengths = (batch.positions_BL > 0).sum(axis=1) + 1
    assert sorted(lengths) == sorted(len(t) for t in both.tokens)


def test_a_full_prompt_names_every_tool():
    from hybriko_jax.linux.tools import TOOLS

    prompt = system_prompt("full", [t.schema for t in TOOLS])
    assert all(t.name in prompt for t in TOOLS)


def test_samples_longer_than_a_row_are_left_out(mini_tokenizer, samples):
    lengths = [len(t) for t in conversations(mini_tokenizer, samples, "도우미").tokens]
    longest = sorted(lengths)[len(lengths) // 2]
    both, _ = rows_of(mini_tokenizer, samples, seq_len=longest)
    assert [len(t) for t in both.tokens] == [n for n in lengths if n <= longest]
    with pytest.raises(UserError, match="longer than train.seq_len=8"):
        rows_of(mini_tokenizer, samples, seq_len=8)


@pytest.mark.parametrize(
    "sample,message",
    [
        ("{", ":1: not JSON"),
        ({}, ":1: no list 'messages'"),
        ({"messages": [{"role": "robot", "content": ""}]}, "role is not one of"),
        ({"messages": [{"role": "user", "content": 3}]}, "content of a user message"),
        ({"messages": [{"role": "user", "content": "a"}]}, "not the assistant's"),
        (("rm_command", {"file": "a"}), "lack 'path'"),
        (("head_command", {"path": "a", "lines": "3"}), "'lines' of head_command"),
        (("head_command", {"path": "a", "n": 3}), "'n', which it does not take"),
        (("fly_command", {}), "'fly_command' is not a tool"),
        (("tar_command", {"operation": "zip", "archive": "a"}), "'zip', not one of create"),
    ],
)
def test_a_bad_sample_is_named_by_line_and_field(tmp_path, sample, message):
    if isinstance(sample, tuple):
        call = {"role": "assistant", "content": format_call("음", *sample)}
        sample = {"messages": [{"role": "user", "content": "a"}, call]}
    path = tmp_path / "s.jsonl"
    path.write_text(sample if isinstance(sample, str) else json.dumps(sample))
    with pytest.raises(UserError, match=message):
        read_samples(path)

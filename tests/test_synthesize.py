"""Samples: valid, distinct, seeded, and split by phrasing and by value."""

import json
import unicodedata

import pytest

from hybriko_jax.data.phrasings import SLOT, load_bank, skeleton
from hybriko_jax.data.synthesize import report, synthesize
from hybriko_jax.data.values import ENGLISH, KOREAN, in_held_out
from hybriko_jax.decode.constrain import Grammars, call_grammar
from hybriko_jax.decode.spans import candidates
from hybriko_jax.errors import UserError
from hybriko_jax.linux.tools import BY_NAME, FINISH, TOOLS, call_fault
from hybriko_jax.prompts import format_call, parse_call


@pytest.fixture(scope="module")
def train():
    return list(synthesize(2000, seed=3))


@pytest.fixture(scope="module")
def held_out():
    return list(synthesize(600, seed=3, held_out=True))


def test_the_bank_has_eighty_phrasings_a_tool():
    skeletons = {}
    for template in load_bank():
        skeletons.setdefault(template.name, set()).add(skeleton(template.say))
    assert set(skeletons) == {*BY_NAME, "dialogues"}
    assert min(len(s) for s in skeletons.values()) >= 80


def test_politeness_and_particles_do_not_make_a_skeleton():
    said = ("{file|을} 지워줘", "{file} 좀 지워주세요", "혹시 {file|을} 지워줄래?")
    assert len({skeleton(s) for s in said}) == 1
    assert skeleton("{file|을} 삭제해줘") != skeleton(said[0])


def test_every_call_of_every_phrasing_keeps_the_schema(train, held_out):
    for sample in (*train, *held_out):
        for message in sample["messages"]:
            if message["role"] == "assistant":
                _, action, arguments = parse_call(message["content"])
                assert call_fault(action, arguments) is None, sample


def test_no_two_requests_are_alike_and_a_seed_repeats_itself(train):
    assert len({s["query"] for s in train}) == len(train)
    assert report(train)["duplicates"] == 0
    again = list(synthesize(50, seed=3))
    assert json.dumps(again) == json.dumps(train[:50])
    assert again != list(synthesize(50, seed=4))


def test_the_splits_share_no_phrasing_and_no_word(train, held_out):
    def skeletons(samples):
        return {(s["phrasing"]["name"], skeleton(s["phrasing"]["say"])) for s in samples}

    assert not skeletons(train) & skeletons(held_out)
    pools = {w: in_held_out(w) for w in (*ENGLISH, *KOREAN)}
    assert 0.1 < sum(pools.values()) / len(pools) < 0.3
    names = [s["query"][a:b] for s in train for a, b in s["spans"].values()]
    unseen = [w for w in ENGLISH if pools[w] and len(w) > 7]
    assert not [n for n in names for w in unseen if w in n.lower().split("_")]


def test_spans_are_where_the_values_stand(train):
    for sample in train:
        for slot, (begin, end) in sample["spans"].items():
            value = sample["query"][begin:end]
            assert value and value == value.strip()
            if slot in ("file", "archive", "url") and "{decoy" not in sample["phrasing"]["say"]:
                arguments = json.dumps(sample["messages"][1:], ensure_ascii=False)
                # An error may end a dialogue before it comes to all that was named.
                if sample["action"] != FINISH and len(sample["messages"]) == 2:
                    assert (
                        json.dumps(value, ensure_ascii=False)[1:-1]
                        in arguments.replace('\\\\"', '"')
                        or value in arguments
                    )


def test_requests_are_in_nfc_and_name_no_slot(train):
    for sample in train:
        assert unicodedata.is_normalized("NFC", sample["query"])
        assert not SLOT.search(sample["query"])


def test_more_requests_than_the_bank_can_make_are_refused(monkeypatch):
    monkeypatch.setattr("hybriko_jax.data.synthesize._TRIES", 1)
    with pytest.raises(UserError, match="smaller --n"):
        list(synthesize(5000, seed=0, held_out=True))


def test_grounding_covers_the_right_calls(train, mini_tokenizer):
    """What the grammar cannot say, no model can answer: at most one call in a hundred."""
    grammars, refused = Grammars(mini_tokenizer), 0
    for sample in train[:400]:
        texts = [sample["query"]]
        matcher = grammars.matcher(call_grammar(TOOLS, candidates(texts)))
        _, action, arguments = parse_call(sample["messages"][1]["content"])
        ids = [*mini_tokenizer.encode(format_call("네.", action, arguments)), grammars.end]
        refused += matcher.validate_tokens(ids) < len(ids)
    assert refused <= 4

"""The shipped model, exported for transformers, writes the tokens that it writes here."""

import sys
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import pytest

from hybriko_jax.console import load
from hybriko_jax.convert.transformers_folder import save_transformers
from hybriko_jax.data.sample import sample_documents
from hybriko_jax.data.synthesize import synthesize
from hybriko_jax.decode.generate import continuations
from hybriko_jax.models import build
from hybriko_jax.prompts import answer_header, chat_tokens
from hybriko_jax.tokenizer import IM_END

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CHECKPOINT = Path(__file__).parents[1] / "checkpoints" / "hybriko-mini-linuxfc"
PROMPTS, TOKENS = 50, 64
# Two logits nearer than this may change places: each side rounds by some 1e-5, and they are two.
NEAR = 2e-4


@dataclass(frozen=True)
class NearTie:
    prompt: int
    step: int
    ours: int
    other: int
    """The token of transformers; where it chose ours too, our second."""
    gap: float
    """Our logit of `ours` less that of `other`."""


def near_ties(prompt, ours, theirs, logits_NV):
    """The near-ties of a row, up to the first where the two models part.

    Args:
      prompt: number of the row.
      ours, theirs: tokens, with the one that ended the row, if one did.
      logits_NV: our logits before each of `ours`.

    Raises:
      AssertionError: the models part, and it was no near-tie.
    """
    found = []
    for step, (token, logits_V) in enumerate(zip(ours, logits_NV, strict=True)):
        assert step < len(theirs), f"prompt {prompt}: transformers stopped after {step} tokens"
        parted = theirs[step] != token
        second = [int(t) for t in np.argsort(logits_V)[-2:] if t != token][-1]
        other = theirs[step] if parted else second
        gap = float(logits_V[token] - logits_V[other])
        assert gap > -NEAR, f"prompt {prompt}, step {step}: {token} is not the likeliest of ours"
        if gap < NEAR:
            found.append(NearTie(prompt, step, token, other, gap))
            if parted:
                return found
        assert not parted, (
            f"prompt {prompt}, step {step}: {token} here, {other} in transformers, and the logits "
            f"are {gap:.3g} apart"
        )
    assert len(theirs) == len(ours), f"prompt {prompt}: transformers went on after {ours[-1]}"
    return found


def prompts_of(loaded):
    """Texts of 0 to 48 words to go on with, and requests never trained on, in turn."""
    system = {"role": "system", "content": loaded.system}
    half = PROMPTS // 2
    found = []
    for i, (text, asked) in enumerate(
        zip(sample_documents(half, seed=64), synthesize(half, seed=64, held_out=True), strict=True)
    ):
        words = " ".join(text.split()[: 2 * i])
        found.append([loaded.tokenizer.bos_id, *loaded.tokenizer.encode(words)])
        said, _ = chat_tokens(loaded.tokenizer, [system, asked["messages"][0]])
        found.append([*said.tolist(), *answer_header(loaded.tokenizer)])
    return found


def our_rows(model, params, prompts, ends):
    """Greedy tokens, with the one that ended the row, and the logits before each."""
    rows = continuations(model, params, prompts, TOKENS, temperature=0, stop=ends)
    # One pass over prompts and answers: another program than the one that chose the tokens. What
    # stands before a prompt is documents of one token each, and forgotten.
    length = max(map(len, prompts))
    tokens_BL = np.zeros((len(prompts), length + TOKENS), np.int32)
    positions_BL = np.zeros_like(tokens_BL)
    for b, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
        begin = length - len(prompt)
        tokens_BL[b, begin : length + len(row)] = [*prompt, *row]
        positions_BL[b, begin:] = np.arange(len(prompt) + TOKENS)

    @jax.jit
    def logits(params, tokens_BL, positions_BL):
        x_BLD, _ = model.apply({"params": params}, tokens_BL, positions_BL, method="hidden")
        return model.apply({"params": params}, x_BLD[:, length - 1 : -1], method="logits")

    logits_BNV = np.asarray(logits(params, tokens_BL, positions_BL))
    for row, logits_NV in zip(rows, logits_BNV, strict=True):
        if len(row) < TOKENS:  # `continuations` does not give the token that ends a row
            row.append(ends[int(logits_NV[len(row), ends].argmax())])
    return [(row, logits_BNV[b, : len(row)]) for b, row in enumerate(rows)]


def their_rows(model, prompts, ends, pad):
    """Greedy tokens of `generate`, of one batch padded on the left."""
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    out = model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=TOKENS)
    rows = out[:, width:].tolist()
    for row in rows:
        end = next((n for n, token in enumerate(row) if token in ends), len(row))
        assert set(row[end + 1 :]) <= {pad}
        del row[end + 1 :]
    return rows


@pytest.fixture
def exported(tmp_path, monkeypatch):
    """Our model, and that of transformers as it loads an export."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(sys, "path", sys.path.copy())
    before = set(sys.modules)
    loaded, folder = load.checkpoint(CHECKPOINT), tmp_path / "exported"
    folder.mkdir()
    save_transformers(folder, loaded.config, loaded.params, loaded.tokenizer, "bfloat16")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, trust_remote_code=True, local_files_only=True
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # at one token a step, threads would only wait for each other
    yield loaded, model.eval()
    torch.set_num_threads(threads)
    for name in set(sys.modules) - before:
        if name.startswith("transformers_modules"):
            del sys.modules[name]


@pytest.mark.slow
def test_greedy_tokens_are_those_of_transformers(exported):
    """Identical but for near-ties, which are listed: pytest -m slow -rP shows them."""
    loaded, torch_model = exported
    tokenizer = loaded.tokenizer
    ends = [tokenizer.eos_id, tokenizer.control_id(IM_END)]
    assert torch_model.generation_config.eos_token_id == ends
    prompts = prompts_of(loaded)
    assert len({tuple(p) for p in prompts}) == PROMPTS and len({*map(len, prompts)}) > 20
    ours = our_rows(build(loaded.config), loaded.params, prompts, ends)
    ended = [row[-1] in ends for row, _ in ours]
    assert 5 < sum(ended) < PROMPTS - 5  # both ways to stop are tried

    theirs = []
    for size in (16, 8, 8, 4, 2, *[1] * 12):
        batch = prompts[len(theirs) : len(theirs) + size]
        theirs += their_rows(torch_model, batch, ends, tokenizer.pad_id)
    assert len(theirs) == PROMPTS
    ties = []
    for i, (row, logits_NV) in enumerate(ours):
        ties += near_ties(i, row, theirs[i], logits_NV)
    compared = sum(len(row) for row, _ in ours)
    print(f"\n{compared} tokens, {sum(ended)} rows that ended, {len(ties)} near-ties:", *ties)


def test_only_a_near_tie_excuses_another_token():
    logits_NV = np.array([[3, 1, 0], [2, 1.9999, 0], [0, 1, 3], [0, 5, 0]], np.float32)
    ours = [0, 0, 2, 1]
    [tie] = near_ties(7, ours, ours, logits_NV)
    assert (tie.prompt, tie.step, tie.ours, tie.other) == (7, 1, 0, 1)
    assert near_ties(7, ours, [0, 1, 0, 0], logits_NV) == [tie]
    for theirs in ([1, 0, 2, 1], [0, 2, 2, 1], [0, 0, 2, 0], [0, 0, 2], [0, 0, 2, 1, 1]):
        with pytest.raises(AssertionError, match="apart|stopped|went on"):
            near_ties(7, ours, theirs, logits_NV)
    with pytest.raises(AssertionError, match="not the likeliest"):
        near_ties(7, [1, 0, 2, 1], [1, 0, 2, 1], logits_NV)

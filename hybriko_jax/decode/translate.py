"""Texts translated by a model that was tuned on translation prompts, many at a time."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from hybriko_jax.decode.beam import Hypothesis, beam_search
from hybriko_jax.decode.generate import generate
from hybriko_jax.decode.texts import stop_table
from hybriko_jax.errors import UserError
from hybriko_jax.prompts import END, parse_translation, translation_prompt
from hybriko_jax.tokenizer import Tokenizer

_ANSWER = 3  # tokens of a translation at most, for each of its prompt
# What may become </끝>, or the <\/끝> that stands for one in a text.
_BEGUN = re.compile(r"<\\*(?:/끝?)?$")


@dataclass(frozen=True)
class Translator:
    """A model to translate with; any that reads `prompts.translation_prompt`."""

    model: nn.Module
    params: Any
    tokenizer: Tokenizer


@dataclass(frozen=True)
class Output:
    """A translation."""

    text: str
    finished: bool
    """Whether the model ended it, and it was not cut off at the most tokens."""
    score: float
    """Sum of the log-probabilities of its tokens / their number ** length_penalty."""


def translate(
    translator: Translator,
    texts: Sequence[str],
    source: str,
    target: str,
    *,
    beams: int = 5,
    length_penalty: float = 1.0,
    temperature: float = 0.0,
    max_tokens: int | None = None,
    batch_size: int = 16,
    glossary: Mapping[str, str] | None = None,
) -> list[Output]:
    """The translation of each text.

    A text of spaces alone is its own translation.

    Args:
      texts: of any lengths; those of like length are translated together.
      source, target: keys of `prompts.LANGUAGES`.
      beams: hypotheses kept; 1 takes the likeliest token each time.
      length_penalty: see `beam_search`.
      temperature: above 0, tokens are drawn instead; then `beams` does not count.
      max_tokens: of a translation at most; None is a multiple of its prompt. Never more than the
        model has room for.
      glossary: what terms of the source must become in the translation; for several beams. Where
        a term is missing all the same, the translation is not finished.

    Raises:
      UserError: a language without a name, a text too long for the model, or a setting that
        cannot be.
    """
    if (
        beams < 1
        or batch_size < 1
        or temperature < 0
        or (max_tokens is not None and max_tokens < 1)
    ):
        raise UserError(
            f"beams={beams}, batch_size={batch_size}, max_tokens={max_tokens}은(는) 1 이상, "
            f"temperature={temperature}은(는) 0 이상이어야 합니다."
        )
    if glossary and (beams == 1 or temperature):
        raise UserError(
            f"용어집은 beams=2 이상, temperature=0일 때만 씁니다(지금 beams={beams}, "
            f"temperature={temperature})."
        )
    terms = [_terms(text, glossary or {}) for text in texts]
    translator = replace(translator, params=jax.device_put(translator.params))
    prompts = _prompts(translator.tokenizer, texts, source, target)
    limits = [_limit(translator, prompt, max_tokens) for prompt in prompts]
    pieces = translator.tokenizer.pieces() if glossary else ()
    outputs = [Output(text, True, 0.0) for text in texts]
    # The longest first: what does not fit into memory fails at once.
    asked = [i for i, text in enumerate(texts) if text.strip()]
    asked.sort(key=lambda i: len(prompts[i]), reverse=True)
    for first in range(0, len(asked), batch_size):
        batch = asked[first : first + batch_size]
        # The last batch is filled up to a power of two: few shapes are compiled.
        rows = batch + batch[-1:] * (_power_of_two(len(batch), batch_size) - len(batch))
        found = beam_search(
            translator.model,
            translator.params,
            [prompts[i] for i in rows],
            [limits[i] for i in rows],
            beams=1 if temperature else beams,
            stops_SV=_stops(translator.tokenizer, translator.model.config.vocab_size),
            length_penalty=length_penalty,
            temperature=temperature,
            seed=first,
            terms=[terms[i] for i in rows],
            pieces=pieces,
        )
        for i, hypotheses in zip(batch, found, strict=False):
            outputs[i] = _output(translator.tokenizer, hypotheses[0])
    return outputs


def stream(
    translator: Translator,
    text: str,
    source: str,
    target: str,
    *,
    temperature: float = 0.0,
    max_tokens: int | None = None,
    seed: int = 0,
) -> Iterator[str]:
    """The translation of a text, in whole characters, as they come.

    Together they are the text that `translate` gives for one beam.

    Args and raises: as `translate`.
    """
    if not text.strip():
        yield text
        return
    tokenizer = translator.tokenizer
    (prompt,) = _prompts(tokenizer, [text], source, target)
    tokens: list[int] = []
    shown = answer = ""
    for (token,) in generate(
        translator.model,
        jax.device_put(translator.params),
        [prompt],
        _limit(translator, prompt, max_tokens),
        stop=(tokenizer.eos_id,),
        temperature=temperature,
        seed=seed,
    ):
        tokens.append(int(token))
        answer = tokenizer.decode(tokens)
        if END in answer:
            break
        # A character whose bytes are not all there yet, and what may become more than it is.
        known = parse_translation(_BEGUN.sub("", answer.rstrip("\ufffd")))
        yield known[len(shown) :]
        shown = known
    yield _text(answer)[len(shown) :]


def _prompts(tokenizer, texts, source, target):
    prompts = [translation_prompt(text, source, target) for text in texts]
    return [[*tokenizer.begin, *tokens] for tokens in tokenizer.encode_batch(prompts)]


def _terms(text: str, glossary: Mapping[str, str]) -> list[str]:
    """What must occur in the translation of a text; of terms inside each other, the longest."""
    known = {_nfc(term): _nfc(meaning) for term, meaning in glossary.items()}
    for term, meaning in known.items():
        if not term.strip() or not meaning.strip():
            raise UserError(f"용어집의 {term!r}: {meaning!r}에는 용어나 번역어가 없습니다.")
    # Not inside another word of Latin letters; behind Korean words there are particles.
    words = (
        ("(?<![A-Za-z0-9])" if re.match("[A-Za-z0-9]", term) else "")
        + re.escape(term)
        + ("(?![A-Za-z0-9])" if re.search("[A-Za-z0-9]$", term) else "")
        for term in sorted(known, key=len, reverse=True)
    )
    return sorted({known[term] for term in re.findall("|".join(words), _nfc(text)) if term})


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _limit(translator, prompt, max_tokens):
    """How many tokens the translation behind a prompt may have."""
    most = translator.model.config.max_seq_len
    room = most - len(prompt)
    if room < len(prompt) // 2:
        raise UserError(
            f"글이 너무 깁니다: 번역 지시와 함께 {len(prompt)}토큰이어서, 모델의 {most}토큰 가운데 "
            f"번역에는 {max(room, 0)}토큰만 남습니다. 글을 문장으로 나누어 주십시오."
        )
    return min(_ANSWER * len(prompt) if max_tokens is None else max_tokens, room)


def _output(tokenizer: Tokenizer, found: Hypothesis) -> Output:
    return Output(_text(tokenizer.decode(found.tokens)), found.stopped, found.score)


def _text(answer: str) -> str:
    # Cut off at the most tokens, it may end inside a character.
    return parse_translation(answer if END in answer else answer.rstrip("\ufffd"))


@functools.lru_cache(maxsize=4)
def _stops(tokenizer: Tokenizer, vocab_size: int) -> np.ndarray:
    return stop_table(vocab_size, [tokenizer.eos_id], END, tokenizer.pieces())


def _power_of_two(n, most):
    return min(1 << (n - 1).bit_length(), most)

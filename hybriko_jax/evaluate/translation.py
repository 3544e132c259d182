"""Translation, measured: BLEU and chrF, beside what copying and chance reach."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from hybriko_jax.data.pairs import Pair
from hybriko_jax.errors import UserError
from hybriko_jax.prompts import translation_prompt

COPIED, SHUFFLED = "source copied", "references shuffled"
RESAMPLES = 1000  # of the bootstrap
# What BLEU counts: characters where words are not what spaces part, else words as of mteval-v13a.
# The second one is used where its analyser is installed.
_TOKENIZERS = {"ko": ("char", "ko-mecab"), "ja": ("char", "ja-mecab"), "en": ("13a",)}


class Output(Protocol):
    """What a translator gives for a text; `decode.translate.Output` is one."""

    @property
    def text(self) -> str: ...
    @property
    def finished(self) -> bool:
        """Whether it ended by itself."""
        ...


Translate = Callable[[Sequence[str], str, str], Sequence[Output]]
"""(texts, source language, target language) -> one output a text."""


class Item(NamedTuple):
    """What is asked in one direction."""

    source: str
    reference: str
    label: str
    """Where it comes from."""


class Figure(NamedTuple):
    score: float
    """From 0 to 100."""
    ci: float
    """Half the width of the 95 % interval."""
    p: float | None
    """How likely chance makes so large a difference from the first system; None for itself."""


@dataclass(frozen=True)
class Scores:
    """Of several systems on the same sentences."""

    sentences: int
    signatures: Mapping[str, str]
    """By metric: what makes a score comparable with others."""
    figures: Mapping[str, Mapping[str, Figure]]
    """By system and metric."""


@dataclass(frozen=True)
class Evaluation:
    """One direction."""

    source: str
    target: str
    items: Sequence[Item]
    outputs: Mapping[str, Sequence[Output]]
    """By model."""
    faults: Mapping[str, Mapping[str, int]]
    """By model and kind."""
    whole: Scores
    by_label: Mapping[str, Scores]
    """Nothing where all items have one label."""


def directions(which: str, languages: tuple[str, str]) -> list[tuple[str, str]]:
    """(source, target) of "both", or of one as "ko-en".

    Raises:
      UserError: it is no direction of these languages, or the prompts do not name one of them.
    """
    left, right = languages
    translation_prompt("", left, right)
    known = {f"{a}-{b}": (a, b) for a, b in ((left, right), (right, left))}
    if which == "both":
        return list(known.values())
    if which not in known:
        raise UserError(f"--directions {which} is none of both, {', '.join(known)}.")
    return [known[which]]


def directed(
    pairs: Sequence[tuple[Pair, str]], languages: tuple[str, str], source: str
) -> list[Item]:
    """Labelled pairs as they are asked from one of their languages, in NFC.

    Metrics compare code points: between NFC and NFD, no syllable would be equal.
    """
    at = languages.index(source)
    return [Item(_nfc(pair[at]), _nfc(pair[1 - at]), label) for pair, label in pairs]


def spread(items: Sequence[Any], n: int) -> list[Any]:
    """At most n of them, evenly over all, in order."""
    n = min(n, len(items))
    return [items[i * len(items) // n] for i in range(n)]


def translate_all(
    translate: Translate,
    texts: Sequence[str],
    source: str,
    target: str,
    at_a_time: int,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Output]:
    """The outputs, in order; the longest texts are translated first.

    Then those of one batch are of like length, and what does not fit into memory fails at once.

    Args:
      at_a_time: texts that `translate` is given.
      progress: told how many are done.

    Raises:
      UserError: `translate` did; the longest text of its call is named.
    """
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    found: dict[int, Output] = {}
    for first in range(0, len(order), at_a_time):
        part = order[first : first + at_a_time]
        try:
            outputs = translate([texts[i] for i in part], source, target)
        except UserError as e:
            longest = texts[part[0]]
            raise UserError(f"{e} (The longest of these texts begins {longest[:40]!r}.)") from None
        found.update(zip(part, outputs, strict=True))
        progress(len(found))
    return [found[i] for i in range(len(texts))]


def evaluate(
    items: Sequence[Item],
    outputs: Mapping[str, Sequence[Output]],
    source: str,
    target: str,
) -> Evaluation:
    """Scores of the outputs of each model, and of two baselines, over all items and by label.

    Args:
      outputs: by model; the others are compared with the first one.
    """

    def scores(chosen: Sequence[int]) -> Scores:
        part = [items[i] for i in chosen]
        texts = {name: [_nfc(of[i].text) for i in chosen] for name, of in outputs.items()}
        return compare({**texts, **baselines(part)}, [item.reference for item in part], target)

    by_label: dict[str, list[int]] = {}
    for i, item in enumerate(items):
        by_label.setdefault(item.label, []).append(i)
    return Evaluation(
        source,
        target,
        items,
        outputs,
        {name: count_faults(items, of) for name, of in outputs.items()},
        scores(range(len(items))),
        {label: scores(part) for label, part in by_label.items()} if len(by_label) > 1 else {},
    )


def baselines(items: Sequence[Item]) -> dict[str, list[str]]:
    """What a translator must beat: the sources as they are, and each item's reference for another.

    A single item has no other: then there is only the first baseline.
    """
    found = {COPIED: [item.source for item in items]}
    if len(items) > 1:
        references = [item.reference for item in items]
        found[SHUFFLED] = [references[i] for i in derangement(len(items))]
    return found


def derangement(n: int, seed: int = 0) -> list[int]:
    """A permutation of 0 to n - 1, n > 1, in which nothing keeps its place."""
    order = list(range(n))
    random.Random(seed).shuffle(order)
    after = dict(zip(order, order[1:] + order[:1], strict=True))
    return [after[i] for i in range(n)]


def compare(systems: Mapping[str, Sequence[str]], references: Sequence[str], target: str) -> Scores:
    """Scores of the texts of each system, by the metrics of a language.

    Intervals and p are of the paired bootstrap of sacrebleu, always with the same seed.

    Source: Koehn, Statistical significance tests for machine translation evaluation (2004).
    """
    from sacrebleu.significance import PairedTest

    signatures: dict[str, str] = {}
    figures: dict[str, dict[str, Figure]] = {name: {} for name in systems}
    for name, metric in metrics(target).items():
        # One metric at a time: the library tells two kinds of BLEU not apart.
        test = PairedTest(
            list(systems.items()), {name: metric}, [references], "bs", n_samples=RESAMPLES
        )
        signed, found = test()
        (key,) = signed
        signatures[name] = str(signed[key])
        results: list[Any] = found[key]
        for system, result in zip(systems, results, strict=True):
            # The library takes two equal scores for a sure difference.
            p = 1.0 if result.score == results[0].score else result.p_value
            p = None if result is results[0] else p
            figures[system][name] = Figure(float(result.score), float(result.ci), p)
    return Scores(len(references), signatures, figures)


def metrics(target: str) -> dict[str, Any]:
    """sacrebleu's metrics of texts in a language, by name.

    Raises:
      UserError: sacrebleu is not installed.
    """
    try:
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF
    except ImportError:
        raise UserError(
            "BLEU and chrF are sacrebleu's, which is not installed. Install the extra evaluate: "
            "pip install 'hybriko-jax[evaluate]', or pip install sacrebleu."
        ) from None
    found: dict[str, Any] = {"chrF": CHRF()}
    for tokenizer in _TOKENIZERS[target]:
        if tokenizer not in missing_tokenizers(target):
            # force: it would warn of references that end in " .", which are not ours to change.
            found[f"BLEU {tokenizer}"] = BLEU(tokenize=tokenizer, force=True)
    return found


def missing_tokenizers(target: str) -> list[str]:
    """Those of a language that sacrebleu could use if more were installed."""
    from sacrebleu.metrics.bleu import BLEU

    def works(tokenizer):
        try:
            BLEU(tokenize=tokenizer)
        except (RuntimeError, ImportError):
            return False
        return True

    return [tokenizer for tokenizer in _TOKENIZERS[target] if not works(tokenizer)]


def sentence_scores(items: Sequence[Item], outputs: Sequence[Output]) -> list[float]:
    """chrF of each output by itself."""
    from sacrebleu.metrics.chrf import CHRF

    chrf = CHRF()
    return [
        chrf.sentence_score(_nfc(output.text), [item.reference]).score
        for item, output in zip(items, outputs, strict=True)
    ]


FAULTS: dict[str, Callable[[Item, Output], bool]] = {
    "not finished": lambda item, output: not output.finished,
    "empty": lambda item, output: not output.text.strip(),
    # A name or a number is right as it is.
    "copied": lambda item, output: (
        _plain(output.text) == _plain(item.source) != _plain(item.reference)
    ),
}
"""What may be wrong with an output, whatever it scores."""


def count_faults(items: Sequence[Item], outputs: Sequence[Output]) -> dict[str, int]:
    """How many outputs have each of `FAULTS`."""
    both = list(zip(items, outputs, strict=True))
    return {name: sum(fault(*pair) for pair in both) for name, fault in FAULTS.items()}


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """The figures, without texts."""

    def plain(scores: Scores) -> dict[str, Any]:
        return {
            "sentences": scores.sentences,
            "signatures": dict(scores.signatures),
            "figures": {
                system: {metric: figure._asdict() for metric, figure in by_metric.items()}
                for system, by_metric in scores.figures.items()
            },
        }

    return {
        "source": evaluation.source,
        "target": evaluation.target,
        "faults": {name: dict(counts) for name, counts in evaluation.faults.items()},
        "all": plain(evaluation.whole),
        "by": {label: plain(scores) for label, scores in evaluation.by_label.items()},
    }


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _plain(text: str) -> str:
    return " ".join(_nfc(text).casefold().split())

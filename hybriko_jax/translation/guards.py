"""What is wrong with a translation, as far as it can be told without knowing what it means."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hybriko_jax.korean import LETTER, native_number
from hybriko_jax.translation.languages import share

# What a fault is called, and how bad it is: a lost address breaks a document, a lost number may
# have been written in words.
KINDS = {
    "empty": ("답이 비었음", 100),
    "lost": ("빠진 코드나 주소", 50),
    "added": ("없던 코드나 주소", 50),
    "loop": ("되풀이", 20),
    "untranslated": ("번역되지 않은 말", 20),
    "unfinished": ("끝맺지 못함", 10),
    "short": ("너무 짧음", 8),
    "long": ("너무 긺", 8),
    "numbers": ("빠진 숫자", 5),
    "terms": ("빠진 용어", 5),
    "fragments": ("코드나 주소를 두고 나누어 번역함", 1),
    "language": ("두 말이 아니어서 그대로 둠", 1),
}
_MANY = 5  # words in a row that only a copy has
_SENTENCE = 40  # characters from which lengths can be compared
# Characters of a translation for one of the source, at least and at most. Of 3,182 pairs that
# people translated (news, documentation) half lie between 0.46 and 0.61, or 1.6 and 2.2.
_RATIOS = {("en", "ko"): (0.15, 1.5), ("ko", "en"): (0.6, 6.0)}


class Fault(NamedTuple):
    kind: str
    """A key of `KINDS`."""
    what: str = ""

    def __str__(self) -> str:
        name = KINDS[self.kind][0]
        return f"{name}: {self.what}" if self.what else name


@dataclass(frozen=True)
class Guard:
    """Finds the faults of translations between two languages."""

    source: str
    target: str
    kept: re.Pattern[str]
    """What a translation must hold as the source has it."""
    glossary: Mapping[str, str] = field(default_factory=dict)

    def faults(self, text: str, output: str, finished: bool = True) -> list[Fault]:
        """What is wrong with a translation, the worst first.

        Args:
          text: in the source language.
          finished: whether the model ended the translation by itself.
        """
        if not output.strip():
            return [Fault("empty")]
        kept = [Counter(m.group() for m in self.kept.finditer(t)) for t in (text, output)]
        lost, added = kept[0] - kept[1], kept[1] - kept[0]
        words, said = (self.kept.sub(" ", t) for t in (text, output))
        found = [
            *_listed("lost", lost.elements()),
            *_listed("added", added.elements()),
            *_listed("loop", repeated(said, words)),
            *_listed("untranslated", self._untranslated(words, said)),
            *([] if finished else [Fault("unfinished")]),
            *self._lengths(words, said),
            *_listed("numbers", lost_numbers(words, said)),
            *_listed("terms", lost_terms(words, said, self.glossary)),
        ]
        return sorted(found, key=lambda f: -KINDS[f.kind][1])

    def _untranslated(self, words: str, said: str) -> list[str]:
        if self.target == "en":
            return [said[:30]] if share(said, self.source) > 0.2 else []
        if copied := copied_words(words, said):
            return [copied]
        # Names stay as they are; a sentence has small words besides.
        small = [w for w in re.findall(r"[^\W\d_]+", words) if w.islower()]
        return [said[:30]] if len(small) > 2 and share(said, self.target) < 0.1 else []

    def _lengths(self, words: str, said: str) -> list[Fault]:
        least, most = _RATIOS.get((self.source, self.target), (0.1, 10.0))
        ratio = len(said) / max(len(words), 1)
        if len(words) >= _SENTENCE and ratio < least:
            return [Fault("short")]
        return [Fault("long")] if len(said) > most * len(words) + _SENTENCE else []


def badness(faults: Sequence[Fault]) -> int:
    """The sum over faults; the attempt with the least is the best."""
    return sum(KINDS[f.kind][1] for f in faults)


def _listed(kind, what) -> list[Fault]:
    shown = ", ".join(dict.fromkeys(str(w)[:40] for w in what))
    return [Fault(kind, shown)] if shown else []


def repeated(text: str, source: str = "") -> list[str]:
    """What a text says again and again without a break, unless the source does so too.

    A word four times, two or more words three times, or letters inside a word five times.
    """
    words, before = text.split(), source.split()
    for period in range(1, len(words) // 3 + 1):
        phrase = _again(words, period)
        if phrase and LETTER.search(phrase) and not _again(before, period):
            return [phrase]
    found = _STUTTER.search(text)
    return [found[1]] if found and not _STUTTER.search(source) else []


_STUTTER = re.compile(r"([^\W\d_]\S{0,11}?|\S{1,11}?[^\W\d_])\1{4,}")


def _again(words: Sequence[str], period: int) -> str:
    """So many words that come back at once, often enough; else nothing."""
    run, needed = 0, period * (3 if period == 1 else 2)
    for i in range(period, len(words)):
        run = run + 1 if words[i] == words[i - period] else 0
        if run >= needed:
            return " ".join(words[i - period + 1 : i + 1])
    return ""


def copied_words(source: str, output: str) -> str:
    """Words of the source that stand in a row in the output, five or more; else ""."""
    words, said = source.split(), output.split()
    there = {tuple(words[i : i + _MANY]) for i in range(len(words) - _MANY + 1)}
    for i in range(len(said) - _MANY + 1):
        run = said[i : i + _MANY]
        # Names may stay: most must be small words.
        if tuple(run) in there and sum(w.islower() and w.isalpha() for w in run) > _MANY // 2:
            return " ".join(run)
    return ""


_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
# Numbers of such units change with the language: 3 million is 300만.
_SCALE = re.compile(
    r"\s?(?:hundred|thousand|million|billion|trillion|[백천만억조]|[kKMB]\b)", re.IGNORECASE
)
_TEN_THOUSANDS = re.compile(r"(?<![\d.,])(\d[\d,]{0,8})\s?만\s?(\d[\d,]{0,4})(?![\d.,천백])")
_COUNTER = "(?:개|번|명|가지|시|달|곳|대|살|마리|줄|배|사람|쪽|단계)"
_ENGLISH = (
    "zero no none|one a an first once single january jan|two second twice both pair february feb|"
    "three third thrice march mar|four fourth april apr|five fifth may|six sixth june jun|"
    "seven seventh july jul|eight eighth august aug|nine ninth september sep|"
    "ten tenth october oct|eleven eleventh november nov|twelve twelfth dozen december dec"
).split("|")


def lost_numbers(source: str, output: str) -> list[str]:
    """Numbers in digits that a translation has neither in digits nor, up to twelve, in words.

    1,000 is 1000, and 05 is 5. Numbers with a unit as million or 만 are left out.
    """
    source, output = (_TEN_THOUSANDS.sub(_in_digits, text) for text in (source, output))
    there = {n for m in _NUMBER.finditer(output) for n in _plain(m.group())}
    return [
        m.group()
        for m in _NUMBER.finditer(source)
        if not _SCALE.match(source, m.end())
        and not there.issuperset(_plain(m.group()))
        and not _spelled(m.group(), output.lower())
    ]


def _in_digits(m: re.Match[str]) -> str:
    """1만8500 is 18500."""
    return str(int(m[1].replace(",", "")) * 10_000 + int(m[2].replace(",", "")))


def _plain(number: str) -> list[str]:
    number = re.sub(r",(?=\d{3}(?!\d))", "", number)
    return [part.lstrip("0") or "0" for part in re.split("[,:]", number)]


def _spelled(number: str, output: str) -> bool:
    """Whether a number up to twelve is there in words: English ones, months, Korean ones."""
    if not number.isdecimal() or int(number) >= len(_ENGLISH):
        return False
    english = set(_ENGLISH[int(number)].split())
    korean = native_number(int(number)) if int(number) else "영"
    return not english.isdisjoint(re.findall("[a-z]+", output)) or bool(
        re.search(f"(?<![가-힣]){korean}[ ]?{_COUNTER}", output)
        or (number == "1" and "첫" in output)
    )


def lost_terms(source: str, output: str, glossary: Mapping[str, str]) -> list[str]:
    """Terms of a glossary that the source has and whose translations the output lacks."""
    text, said = source.casefold(), output.casefold()
    return [
        target
        for term, target in glossary.items()
        if re.search(rf"(?<![A-Za-z0-9]){re.escape(term.casefold())}(?![A-Za-z0-9])", text)
        and target.casefold() not in said
    ]

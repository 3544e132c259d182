"""What the arguments of a call may be, read from the words of a request.

Every value is a span of the text, or is derived from one by a rule stated here. Nothing is
guessed: choosing among the candidates is the model's part.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hybriko_jax.korean import EXTENSIONS, SPOKEN_KINDS, numbers_in, split_particles

PLACES = (".", "..", "~", "/", "-")
"""Folders that are named by a word (여기, 상위, 홈, 루트) and not by their name."""

MODES = (
    *("+x", "-x", "u+x", "a+x", "g+x", "+r", "-r", "a+r", "o+r", "o-r", "go-r", "+w", "-w", "u+w"),
    *("g+w", "a+w", "o+w", "a-w", "g-w", "o-w", "go-w", "go-rwx", "o-rwx", "400", "444", "600"),
    *("640", "644", "700", "755", "775", "777"),
)
"""Modes that permission words mean (실행 권한, 읽기 전용, 나만)."""

_QUOTED = re.compile(
    r"'([^'\n]+)'|\"([^\"\n]+)\"|‘([^’\n]+)’|“([^”\n]+)”|`([^`\n]+)`|「([^」\n]+)」"
)
_OPENING, _CLOSING = "([{<‘“'\"`「", ")]}>’”'\"`」.,!?~;:…"
_MAX_WORDS = 5  # of an unquoted pattern
_MAX_LENGTH = 4096  # characters that are read


@dataclass(frozen=True)
class Candidates:
    """Values that arguments may take, by what they are."""

    names: tuple[str, ...]
    """Files and folders, as they are or as parts of folder/name."""
    extensions: tuple[str, ...]
    """Of the globs *.ext."""
    words: tuple[str, ...]
    """Of the globs *word* and word*, of users and programs."""
    patterns: tuple[str, ...]
    """Texts to search for: up to five words in a row."""
    uris: tuple[str, ...]
    hosts: tuple[str, ...]
    numbers: tuple[int, ...]
    modes: tuple[str, ...]


def candidates(texts: Sequence[str], names: Iterable[str] = ()) -> Candidates:
    """Candidates of a conversation.

    Args:
      texts: the request, then what tools have printed and what was said before.
      names: more names that are known, such as those in the current folder.
    """
    found: list[str] = []
    patterns: list[str] = []
    uris: list[str] = []
    for i, text in enumerate(texts):
        text = text[:_MAX_LENGTH]
        quoted = [next(g for g in m.groups() if g) for m in _QUOTED.finditer(text)]
        if i:  # what tools print has a name a line
            quoted += [line.strip() for line in text.splitlines()]
        found += quoted
        patterns += quoted
        words = _QUOTED.sub(" ", text).split()
        for word in words:
            for part in (word, *re.split(r"[,;]|->|→|=>", word)):
                found += _forms(part)
        patterns += _runs_of_words(text.split())
        for run in (*re.findall(r"[!-~]+", text), *re.findall(r"https?://\S+", text)):
            uris += _forms(run)
    # What is downloaded is named by the end of its address.
    found += [u.rpartition("/")[2] for u in uris if "://" in u and "?" not in u]
    names = _unique(f.rstrip("/") or f for f in (*found, *names))
    words = _unique(w for n in names for w in (n, n.lstrip("*.")) if not re.search(r"[/*]", w))
    joined = " ".join(texts)
    kinds = [SPOKEN_KINDS[k] for k in SPOKEN_KINDS if k in joined]
    tails = [w.rpartition(".")[2].lower() for w in words]
    digits = re.findall(r"(?<!\d)[0-7]{3,4}(?!\d)", joined)
    return Candidates(
        names=names,
        extensions=_unique((*kinds, *(t for t in tails if t in EXTENSIONS))),
        words=words,
        patterns=_unique((*patterns, *words)),
        uris=_unique(u for u in uris if re.search(r"://|\.|localhost", u)),
        hosts=_unique(u for u in uris if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.:_-]*", u)),
        # 첫 줄, 한 번: one needs no numeral.
        numbers=tuple(dict.fromkeys([*(n for t in texts for n in numbers_in(t)), 1])),
        modes=_unique((*digits, *MODES)),
    )


def _forms(word: str) -> list[str]:
    """A word as it stands, without punctuation around it, and without particles."""
    trimmed = _trim(word)
    forms = [trimmed]
    # Where letters or digits end and Korean begins, a particle does: orders.txt에서부터.
    if glued := re.match(r"(.*[!-~])[가-힣]+$", trimmed):
        forms += [glued[1], _trim(glued[1])]
    forms += split_particles(trimmed)
    return [f for f in forms if f]


def _trim(word: str) -> str:
    word = word.lstrip(_OPENING)
    while word and word[-1] in _CLOSING and not re.search(r"\([^()]*\)$|(^|/)\.\.?$", word):
        word = word[:-1]
    return word


def _runs_of_words(words: Sequence[str]) -> list[str]:
    runs = []
    for begin in range(len(words)):
        for end in range(begin + 1, min(begin + _MAX_WORDS, len(words)) + 1):
            head = " ".join([words[begin].lstrip(_OPENING), *words[begin + 1 : end - 1]])
            for last in _forms(words[end - 1]):
                runs.append(f"{head} {last}" if end - begin > 1 else last)
    return runs


def _unique(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(v for v in values if v and "\x00" not in v))

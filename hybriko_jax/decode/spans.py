"""What the arguments of a call may be, read from the words of a request.

Every value is a span of the text, or is derived from one by a rule stated here. Nothing is
guessed: choosing among the candidates is the model's part.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hybriko_jax.korean import EXTENSIONS, SPOKEN_KINDS, numbers_in, split_particles

PLACES = {
    "..": r"상위|상단|윗|위로|위에|위쪽|위 |부모|바깥|밖|옆|나란히|형제|나가|빠져|담고|할아버지|"
    r"한 단계|레벨|뒤로|이전|parent|\.\.|[cC][dD]",
    "~": r"홈|집|home|HOME|내 |개인|~",
    "/": r"루트|최상위|맨 위|꼭대기|시스템|전체|통틀|디스크|컴퓨터|서버|모든|다 |/|root",
    "-": r"이전|아까|방금|직전|전에|조금 전|원래|있던|되돌|돌아|복귀|back|prev|cd -",
}
"""Folders besides `.` that words stand for, and the words."""

MODES = (
    *("+x", "-x", "u+x", "a+x", "g+x", "+r", "-r", "a+r", "o+r", "o-r", "go-r", "+w", "-w", "u+w"),
    *("g+w", "a+w", "o+w", "a-w", "g-w", "o-w", "go-w", "go-rwx", "o-rwx", "400", "444", "600"),
    *("640", "644", "700", "755", "775", "777"),
)
"""Modes that permission words mean (실행 권한, 읽기 전용, 나만)."""

# Words of a request that are no names, where no quotes stand around them.
_NOT_NAMES = re.compile(
    r".*(?:줘|줘요|주세요|줄래|줄래요|주라|줘봐|주삼|주십시오|하자|해라|할래|싶어|싶은데|보여|알려|어떻게|있는|있어|있나)"
    r"|(?:이|그|저|이거|그거|저거|여기|거기|저기|좀|지금|현재|그냥|아예|전부|모두|싹|다|몽땅|빨리|얼른|혹시|이제|"
    r"그리고|말고|대신|안|밑|아래|속|옆|위|맨|제일|가장|줄|번|개|행|수|것|거|게|걸|해|하고|하나|한|몇|뭐|왜)"
)
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
    """Files and folders."""
    folders: tuple[str, ...]
    """Those that can be the folder of folder/name: without a known extension."""
    places: tuple[str, ...]
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
    sure: list[str] = []
    patterns: list[str] = []
    uris: list[str] = []
    for i, text in enumerate(texts):
        text = text[:_MAX_LENGTH]
        quoted = [next(g for g in m.groups() if g) for m in _QUOTED.finditer(text)]
        if i:  # what tools print has a name a line
            quoted += [line.strip() for line in text.splitlines()]
        sure += quoted
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
    found = [f for f in found if not _NOT_NAMES.fullmatch(f)]
    names = _unique(f.rstrip("/") or f for f in (*sure, *found, *names))
    words = _unique(w for n in names for w in (n, n.lstrip("*.")) if not re.search(r"[/*]", w))
    joined = " ".join(texts)
    kinds = [SPOKEN_KINDS[k] for k in SPOKEN_KINDS if k in joined]
    tails = [w.rpartition(".")[2].lower() for w in words]
    digits = re.findall(r"(?<!\d)[0-7]{3,4}(?!\d)", joined)
    is_file = re.compile(rf".*\.(?:{'|'.join(EXTENSIONS)})", re.IGNORECASE)
    return Candidates(
        names=names,
        folders=tuple(n for n in names if not is_file.fullmatch(n)),
        places=(".", *(place for place, words in PLACES.items() if re.search(words, joined))),
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
    word = re.sub(r"[ㄱ-ㅎㅏ-ㅣ]+$", "", word.lstrip(_OPENING))  # ㅋㅋ, ㅠㅠ
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

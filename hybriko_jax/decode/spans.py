"""What the arguments of a call may be, read from the words of a request.

Every value is a span of the text, or is derived from one by a rule stated here. Nothing is
guessed: choosing among the candidates is the model's part.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hybriko_jax.korean import EXTENSIONS, SPOKEN_KINDS, numbers_in, split_particles

PLACES = {
    "..": r"상위|상단|윗|위로|위에|위쪽|위 (?:폴더|디렉|경로|단계)|부모|바깥|밖|옆|나란히|형제|"
    r"나가|빠져|담고|할아버지|단계|레벨|뒤로|이전|parent|\.\.",
    "~": r"홈|(?<![가-힣])집(?![가-힣])|(?i:home)|내 (?:폴더|디렉|계정|경로|험)|내 ?$|개인|"
    r"(?<!\S)~(?!\w)",
    "/": r"루트|최상위|맨 위|꼭대기|시스템|전체|통틀|컴퓨터|서버|root|(?<!\S)/(?!\S)",
    "-": r"이전|아까|방금|직전|조금 전|전에|원래|있던|되돌|돌아|복귀|(?i:back|prev)|(?<!\S)-(?!\S)",
}
"""Folders besides `.` that words of the user stand for, and the words."""

MODES = (
    *("+x", "-x", "u+x", "a+x", "g+x", "+r", "-r", "a+r", "o+r", "o-r", "go-r", "+w", "-w", "u+w"),
    *("g+w", "a+w", "o+w", "a-w", "g-w", "o-w", "go-w", "go-rwx", "o-rwx", "400", "444", "600"),
    *("640", "644", "660", "664", "666", "700", "750", "755", "770", "775", "777"),
)
"""Modes that permission words mean (실행 권한, 읽기 전용, 나만), where no mode is written out."""

_EVERYTHING = r"전부|모두|모든|싹|몽땅|다 |\*|안에 ?(?:있는|든) ?(?:거|것|파일)"
# Words of a request that are no names, where neither quotes nor 폴더 say that they are.
_NOT_NAMES = re.compile(
    r".*(?:줘|줘요|주세요|줄래|줄래요|주라|줘봐|주삼|주십시오|하자|해라|할래|싶어|싶은데|보여|알려|어떻게|"
    r"있는|있어|있나)|(?:이|그|저|이거|그거|저거|여기|거기|저기|좀|지금|현재|그냥|아예|전부|모두|싹|다|몽땅|"
    r"빨리|얼른|혹시|이제|그리고|말고|대신|안|밑|아래|속|옆|위|맨|제일|가장|줄|번|개|행|수|것|거|게|걸|해|하고|"
    r"하나|한|몇|뭐|왜|폴더|파일|디렉토리|디렉터리)"
)
_NAMED = re.compile(r"(?:폴더|디렉[토터]리|파일|이?라는|이?라고|이름)")  # the word before is a name
_QUOTED = re.compile(
    r"'([^'\n]+)'|\"([^\"\n]+)\"|‘([^’\n]+)’|“([^”\n]+)”|`([^`\n]+)`|「([^」\n]+)」|『([^』\n]+)』"
)
# 보고서폴더에있는, 문서안의: where spaces were left out.
_INSIDE = re.compile(
    r"(?:폴더|디렉[토터]리|파일|경로)?(?:에|안에|안의|밑에|밑의|속에|내에|내의|의)(?:있는|있던|든|저장|서|$)|"
    r"(?:폴더|디렉[토터]리)(?:를|을|로|의|에|안|밑|째|명|내|$)"
)
_EXTENSION = re.compile(
    r"(?:확장자[가는]?\s?\.?|\*\.|(?<![\w가-힣).\]])\.)([A-Za-z0-9]{1,10}(?:\.gz)?)"
    r"|(?<![\w./~-])([A-Za-z0-9]{1,8}(?:\.gz)?)(?=\s?(?:파일|확장자|형식|문서|이미지|스크립트|들))"
    rf"|(?<![\w./~-])({'|'.join(EXTENSIONS)})(?![A-Za-z0-9_./-])",
    re.IGNORECASE,
)
_KIND = re.compile(
    rf"(?<![가-힣])({'|'.join(sorted(map(re.escape, SPOKEN_KINDS), key=len, reverse=True))})"
    r"(?=\s?(?:파일|화일|확장자|문서|스크립트|형식|자료|들|전부|만|로|만든|코드|"
    r"소스|사진|노래|음악|영상|이?라는|인 ))"
)
_MODE = re.compile(
    r"(?<![\w./-])[0-7]{3,4}(?=$|[\s,.)'\"]|으로|로|을|를|인|권한|퍼미션)"
    r"|(?<!\S)[ugoa]*[+=-][rwxXst]+(?:,[ugoa]*[+=-][rwx]+)*"
)
_FLAG = re.compile(r"(?<!\S)--?[A-Za-z][A-Za-z0-9=%-]*")
_IS_FILE = re.compile(rf".*\.(?:{'|'.join(EXTENSIONS)})", re.IGNORECASE)
_OPENING, _CLOSING = "([{<‘“'\"`「『《", ")]}>’”'\"`」』》.,!?~;:…"
_MAX_WORDS = 5  # of an unquoted pattern
_MAX_LENGTH = 4096  # characters that are read of a text


@dataclass(frozen=True)
class Candidates:
    """Values that arguments may take, by what they are."""

    names: tuple[str, ...]
    """Files and folders."""
    folders: tuple[str, ...]
    """Those that can be the folder of folder/name."""
    places: tuple[str, ...]
    """. and those of PLACES."""
    everything: bool
    """Whether * may be meant."""
    extensions: tuple[str, ...]
    """Of the globs *.ext."""
    patterns: tuple[str, ...]
    """Texts to search for: up to five words in a row."""
    uris: tuple[str, ...]
    hosts: tuple[str, ...]
    words: tuple[str, ...]
    """Users and programs."""
    numbers: tuple[int, ...]
    modes: tuple[str, ...]
    flags: tuple[str, ...]
    """Options that are written out."""


def candidates(
    said: Sequence[str], known: Sequence[str] = (), names: Iterable[str] = ()
) -> Candidates:
    """Candidates of a conversation.

    Args:
      said: what the user said.
      known: what tools printed, and the values of earlier calls.
      names: more names that are known, such as those in the current folder.
    """
    said = [unicodedata.normalize("NFC", t)[:_MAX_LENGTH] for t in said]
    known = [unicodedata.normalize("NFC", t)[:_MAX_LENGTH] for t in known]
    found: list[str] = []
    folders: list[str] = []
    patterns: list[str] = []
    uris: list[str] = []
    for text in said:
        quoted = [next(g for g in m.groups() if g) for m in _QUOTED.finditer(text)]
        found += quoted
        patterns += quoted
        words = _QUOTED.sub(" ", text).split()
        for i, word in enumerate(words):
            next_is = bool(_NAMED.match(words[i + 1])) if i + 1 < len(words) else False
            forms = [f for f in _forms_of(word) if next_is or not _NOT_NAMES.fullmatch(f)]
            found += forms
            if next_is or _INSIDE.search(word) or word.endswith(("에", "에서")):
                folders += forms
            # 보고서 초안.docx, Program Files 폴더
            for n in (1, 2):
                before = words[max(i - n, 0) : i]
                if len(before) == n and not any(_is_no_part(w) for w in before):
                    head = " ".join([before[0].lstrip(_OPENING), *before[1:]])
                    whole = [f for f in forms if next_is or _IS_FILE.fullmatch(f)]
                    found += [f"{head} {f}" for f in whole]
        patterns += _runs_of_words(text.split())
        for run in (*re.findall(r"[!-~]+", text), *re.findall(r"https?://\S+", text)):
            uris += _forms_of(run)
    for text in known:
        if text != "(출력 없음)":
            found += [line.strip() for line in text.splitlines()]
            found += [_trim(word) for word in text.split()]
            found += [word.partition(":")[0] for word in text.split()]  # grep: file:line
    # What is downloaded is named by the end of its address.
    found += [u.rpartition("/")[2] for u in uris if "://" in u and "?" not in u]
    names = _unique(f.rstrip("/") or f for f in (*found, *names))
    folders += [n.rpartition("/")[0] for n in names if "/" in n and "://" not in n]
    joined = "\n".join(said)
    written = _unique(_MODE.findall(joined))
    hosts = [re.sub(r"^https?://|[:/].*$", "", u) if "://" in u else u for u in uris]
    hosts += [h.rpartition(":")[0] for h in hosts if re.search(r":\d+$", h)]
    hosts += ["localhost"] * ("로컬호스트" in joined)
    return Candidates(
        names=names,
        folders=_unique((*folders, *(n for n in names if not _IS_FILE.fullmatch(n)))),
        places=(".", *(place for place, words in PLACES.items() if re.search(words, joined))),
        everything=bool(re.search(_EVERYTHING, joined)),
        extensions=_unique(
            (
                *(SPOKEN_KINDS[m[1]] for m in _KIND.finditer(joined)),
                *((m[1] or m[2] or m[3]).lower() for m in _EXTENSION.finditer(joined)),
            )
        ),
        patterns=_unique((*patterns, *(n for n in names if "/" not in n))),
        uris=_unique(u for u in uris if re.search(r"://|\.|localhost|:\d", u)),
        hosts=_unique(h for h in hosts if re.fullmatch(r"[A-Za-z0-9:][A-Za-z0-9.:_-]*", h)),
        words=_unique(n for n in names if re.fullmatch(r"[A-Za-z0-9_.-]+", n)),
        # 첫 줄, 한 번: one needs no numeral.
        numbers=tuple(dict.fromkeys([*(n for t in (*said, *known) for n in numbers_in(t)), 1])),
        modes=written or MODES,
        flags=_unique(_FLAG.findall(joined)),
    )


def _forms_of(word: str) -> list[str]:
    """What a word without spaces may hold as a name."""
    found = []
    for part in dict.fromkeys((word, *re.split(r"[,;:=&|+>]+|->|→|=>", word))):
        found += _forms(part)
        # a.txt를b.txt로
        if two := re.match(r"(\S*?\.[A-Za-z0-9]{1,8})[가-힣]{1,3}(?=[A-Za-z0-9_./~])(.+)$", part):
            found += [*_forms(two[1]), *_forms(two[2])]
    return _unique_list(found)


def _forms(word: str) -> list[str]:
    """A word as it stands, without punctuation around it, and without particles."""
    trimmed = _trim(word)
    forms = [word, trimmed]
    # Where letters or digits end and Korean begins, a particle does: orders.txt에서부터.
    if glued := re.match(r"(.*[A-Za-z0-9)\]*~/])[가-힣]+$", trimmed):
        if _IS_FILE.fullmatch(glued[1]):
            return [glued[1]]  # nothing follows an extension
        forms += [glued[1], _trim(glued[1])]
    if (inside := _INSIDE.search(trimmed)) and inside.start():
        forms.append(trimmed[: inside.start()])
    forms += split_particles(trimmed)
    return [f for f in forms if f]


def _trim(word: str) -> str:
    word = re.sub(r"[ㄱ-ㅎㅏ-ㅣ]+$", "", word.lstrip(_OPENING))  # ㅋㅋ, ㅠㅠ
    while word and word[-1] in _CLOSING and not re.search(r"\([^()]*\)$|(^|/)\.\.?$", word):
        word = word[:-1]
    return word


def _is_no_part(word: str) -> bool:
    """Whether a word cannot be an inner part of a name: a particle or punctuation ends it."""
    ends = r".*(?:을|를|은|는|에|에서|으로|의|와|과|랑|하고|면|줘|[,.!?:;)])"
    return bool(_NOT_NAMES.fullmatch(word) or re.fullmatch(ends, word))


def _runs_of_words(words: Sequence[str]) -> list[str]:
    runs = []
    for begin in range(len(words)):
        for end in range(begin + 1, min(begin + _MAX_WORDS, len(words)) + 1):
            head = " ".join([words[begin].lstrip(_OPENING), *words[begin + 1 : end - 1]])
            for last in _forms(words[end - 1]):
                runs.append(f"{head} {last}" if end - begin > 1 else last)
    return runs


def _unique(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(_unique_list(values))


def _unique_list(values: Iterable[str]) -> list[str]:
    """Values without repetition, and without those that no name can be."""
    return [v for v in dict.fromkeys(values) if v and v.isprintable()]

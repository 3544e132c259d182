"""Documents translated in batches that are kept as they come, so that a stop loses nothing."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from hybriko_jax.errors import UserError
from hybriko_jax.files import lock, write_file
from hybriko_jax.korean import LETTER
from hybriko_jax.translation.documents import Layout, Piece, pieces, put_back
from hybriko_jax.translation.guards import Fault, Guard, badness
from hybriko_jax.translation.kept import KEPT, fragments
from hybriko_jax.translation.languages import check as check_language
from hybriko_jax.translation.languages import kind

_MANY = 8  # answers of which a translator ends one at least

Progress = Callable[[str, int, int], None]
"""Told what is being done, how many characters of it are done, and how many there are."""


class Output(Protocol):
    """What a translating function gives for a text."""

    @property
    def text(self) -> str: ...
    @property
    def finished(self) -> bool: ...


class Translate(Protocol):
    """A model, its languages and its other settings, as a function of texts."""

    def __call__(
        self, texts: Sequence[str], /, *, beams: int, length_penalty: float
    ) -> Sequence[Output]: ...


class Answer(NamedTuple):
    text: str
    finished: bool


@dataclass(frozen=True)
class Settings:
    """How to search; `retries` are those for what a guard has flagged."""

    beams: int = 5
    length_penalty: float = 1.0

    def retries(self) -> tuple[Settings, Settings]:
        return (
            Settings(self.beams + 3, self.length_penalty),
            Settings(self.beams + 1, self.length_penalty + 0.5),
        )


class Flag(NamedTuple):
    """A piece that a person should look at."""

    line: int
    source: str
    output: str
    faults: Sequence[Fault]


class Translated(NamedTuple):
    """What became of the pieces of a document."""

    texts: dict[str, str]
    """Translations by source."""
    flags: list[Flag]
    asked: int
    """How many different texts went to the model."""


class Journal:
    """Answers of a model, kept in a file from batch to batch.

    A line holds the answers of one batch: one that a kill has cut off is left out whole. Keys hold
    all that an answer depends on, so another text, model or setting finds nothing.

    Args:
      path: the file; it is gone on with where it is there. None keeps nothing.
      identity: of the model and the settings that are the same for all texts.

    Raises:
      UserError: another process has it, or it cannot be written.
    """

    def __init__(self, path: Path | None = None, identity: Any = None):
        self.path, self._identity = path, identity
        self._answers: dict[str, Answer] = {}
        self._file = None
        if path is None:
            return
        try:
            self._file = path.open("a+b")
        except OSError as e:
            raise UserError(f"{path}: 쓸 수 없습니다({e.strerror}). 다른 --out을 주세요.") from None
        if not lock(self._file.fileno()):
            self._file.close()
            raise UserError(
                f"{path}: 다른 번역이 쓰고 있습니다. 끝나기를 기다리거나 다른 --out을 주세요."
            )
        self._file.seek(0)
        whole = 0
        for line in self._file:
            try:
                batch = json.loads(line) if line.endswith(b"\n") else {}
                if not batch:
                    break
                self._answers |= {key: Answer(str(t), bool(f)) for key, (t, f) in batch.items()}
            except (ValueError, TypeError, AttributeError):
                break  # cut off; what came after it would be too
            whole += len(line)
        self._file.truncate(whole)

    def __len__(self) -> int:
        return len(self._answers)

    @property
    def has_ended(self) -> bool:
        """Whether the model has ended an answer by itself."""
        return any(answer.finished for answer in self._answers.values())

    def find(self, text: str, settings: Settings) -> Answer | None:
        return self._answers.get(self._key(text, settings))

    def keep(self, answers: Mapping[str, Answer], settings: Settings) -> None:
        """Adds the answers of a batch, all or none."""
        batch = {self._key(text, settings): answer for text, answer in answers.items()}
        if self._file:
            self._file.write(json.dumps(batch, ensure_ascii=False).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        self._answers |= batch

    def close(self) -> None:
        """Gives the file back; one that holds nothing is not left behind."""
        if self._file and not self._answers:
            self.remove()
        elif self._file:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """Takes the file away."""
        if self.path:
            self.path.unlink(missing_ok=True)
        if self._file:
            self._file.close()
            self._file = None

    def _key(self, text: str, settings: Settings) -> str:
        what = [self._identity, settings.beams, settings.length_penalty, text]
        return hashlib.blake2b(json.dumps(what).encode(), digest_size=16).hexdigest()


@dataclass
class Asker:
    """Asks a model for texts it has not been asked for, in batches of like length."""

    translate: Translate
    journal: Journal
    batch_size: int = 16
    progress: Progress = lambda what, done, total: None

    def __call__(self, what: str, texts: Iterable[str], settings: Settings) -> dict[str, Answer]:
        """The answers to texts.

        The short ones come first: what a model is no good for shows at once. Batches hang on the
        texts alone, so they are the same after a stop.

        Raises:
          NoTranslator: the model ends none of many answers.
        """
        ordered = sorted(dict.fromkeys(texts), key=lambda t: (len(t), t))
        total, done = sum(map(len, ordered)), 0
        found: dict[str, Answer] = {}
        for i in range(0, len(ordered), self.batch_size):
            batch = ordered[i : i + self.batch_size]
            self.progress(what, done, total)
            known = {t: a for t in batch if (a := self.journal.find(t, settings))}
            if missing := [t for t in batch if t not in known]:
                answers = self._ask(missing, settings)
                self.journal.keep(answers, settings)
                known |= answers
                if len(self.journal) >= _MANY and not self.journal.has_ended:
                    raise NoTranslator
            found |= known
            done += sum(map(len, batch))
        self.progress(what, done, total)
        return found

    def _ask(self, texts: list[str], settings: Settings) -> dict[str, Answer]:
        outputs = self.translate(
            texts, beams=settings.beams, length_penalty=settings.length_penalty
        )
        return {
            t: Answer(" ".join(o.text.split()), o.finished)
            for t, o in zip(texts, outputs, strict=True)
        }


class NoTranslator(UserError):
    """The model ends no translation."""

    def __init__(self):
        super().__init__(
            "모델이 어느 문장도 </끝>으로 맺지 못했습니다: 번역을 배운 모델이 아닌 것 같습니다. "
            "번역 모델의 폴더를 --checkpoint로 주세요."
        )


def translate_document(
    file: str,
    layout: Layout,
    target: str,
    ask: Asker,
    settings: Settings,
    glossary: Mapping[str, str] | None = None,
) -> tuple[str, Translated]:
    """A file in another language, and what became of its pieces.

    Args:
      file: all of it.
      layout: its format and language.
      target: the language wanted, a key of `prompts.LANGUAGES`.
      glossary: terms that must appear, by those of the source.

    Raises:
      UserError: the file cannot be read as its format, or the model is no translator.
    """
    found = pieces(file, layout)
    guard = Guard(layout.language, target, KEPT[layout.format], glossary or {})
    done = translate_pieces(found, ask, guard, settings)
    return put_back(found, done.texts), done


def check_document(file: str, layout: Layout, target: str) -> None:
    """Refuses a file of which nothing could be translated; no model is needed to know.

    Raises:
      UserError: the file cannot be read as its format, or holds nothing to translate.
    """
    kept = KEPT[layout.format]
    texts = [kept.sub("", p.text) for p in pieces(file, layout) if p.text]
    if not any(kind(t, layout.language, target) == "source" for t in texts):
        check_language(" ".join(texts) or kept.sub("", file), layout.language, target)


Attempt = tuple[str, list[Fault]]


def translate_pieces(
    pieces: Sequence[Piece], ask: Asker, guard: Guard, settings: Settings
) -> Translated:
    """Translates the pieces of a document; what the guard flags is tried again, in two other ways.

    Where code or an address is lost, the second try has placeholders in its place, and the third
    is put together from what stands between. The best is kept, and flagged if it has faults.
    Texts that are in the target language already stay as they are, and so do those in a third
    one, which are flagged.

    Raises:
      NoTranslator: no answer has come to its end.
    """
    texts = list(dict.fromkeys(p.text for p in pieces if p.text))
    kinds = {t: kind(guard.kept.sub("", t), guard.source, guard.target) for t in texts}
    texts = [t for t in texts if kinds[t] == "source"]
    best = _plain("번역", texts, ask, guard, settings)
    for what, again, other in zip(
        ("다시 번역", "한 번 더 번역"), settings.retries(), (_masked, _parted), strict=True
    ):
        flagged = [t for t in texts if best[t][1]]
        broken = [t for t in flagged if {"lost", "added"} & {f.kind for f in best[t][1]}]
        whole = [t for t in flagged if t not in set(broken)]
        tried = _plain(what, whole, ask, guard, again) | other(what, broken, ask, guard, again)
        best |= {t: a for t, a in tried.items() if badness(a[1]) < badness(best[t][1])}
    if texts and not ask.journal.has_ended:
        raise NoTranslator
    flags = [
        Flag(p.line, p.text, *(best.get(p.text) or (p.text, [Fault("language")])))
        for p in pieces
        if p.text and (kinds[p.text] == "other" or p.text in best and best[p.text][1])
    ]
    return Translated({t: output for t, (output, _) in best.items()}, flags, len(texts))


def _plain(what, texts, ask: Asker, guard: Guard, settings: Settings) -> dict[str, Attempt]:
    answers = ask(what, texts, settings)
    return {t: (answers[t].text, guard.faults(t, *answers[t])) for t in texts}


def _masked(what, texts, ask: Asker, guard: Guard, settings: Settings) -> dict[str, Attempt]:
    """With placeholders for what must be kept."""
    kept = {t: [m.group() for m in guard.kept.finditer(t)] for t in texts}
    masked = {}
    for t in texts:
        numbers = itertools.count()
        masked[t] = guard.kept.sub(lambda m, n=numbers: f"{{{next(n)}}}", t)
    answers = ask(what, masked.values(), settings)
    found = {}
    for t in texts:
        spans, answer = kept[t], answers[masked[t]]
        output = re.sub(
            r"\{(\d{1,3})\}",
            lambda m, s=spans: s[int(m[1])] if int(m[1]) < len(s) else m[0],
            answer.text,
        )
        found[t] = output, guard.faults(t, output, answer.finished)
    return found


def _parted(what, texts, ask: Asker, guard: Guard, settings: Settings) -> dict[str, Attempt]:
    """What stands between, each for itself: nothing that must be kept can be lost."""
    parts = {t: fragments(t, guard.kept) for t in texts}
    wanted = [p for t in texts for p in parts[t][::2] if LETTER.search(p)]
    answers = ask(what, wanted, settings)
    found = {}
    for t in texts:
        said = [answers.get(p) if i % 2 == 0 else None for i, p in enumerate(parts[t])]
        output = "".join(
            (a and guard.kept.sub("", a.text).strip()) or part
            for a, part in zip(said, parts[t], strict=True)
        )
        finished = all(a.finished for a in said if a)
        found[t] = output, [*guard.faults(t, output, finished), Fault("fragments")]
    return found


def save(out: Path, text: str, flags: Sequence[Flag]) -> None:
    """Writes a translated file, and OUT.flags.jsonl if there are flags."""
    path = out.with_name(f"{out.name}.flags.jsonl")
    if flags:
        write_file(
            path, "".join(json.dumps(as_record(f), ensure_ascii=False) + "\n" for f in flags)
        )
    else:
        path.unlink(missing_ok=True)
    write_file(out, text)


def as_record(flag: Flag) -> dict[str, Any]:
    return {
        "line": flag.line,
        "source": flag.source,
        "output": flag.output,
        "reasons": [str(fault) for fault in flag.faults],
    }

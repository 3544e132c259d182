"""Translate: python -m launch.translate --to ko "Repositories are git version controlled."."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from tyro.conf import Positional, arg

from hybriko_jax.console import load
from hybriko_jax.errors import UserError
from hybriko_jax.translation.documents import SUFFIXES, Layout, pieces
from hybriko_jax.translation.jobs import (
    Asker,
    Flag,
    Journal,
    NoTranslator,
    Progress,
    Settings,
    Translate,
    check_document,
    save,
    translate_document,
)
from hybriko_jax.translation.kept import KEPT, Format
from hybriko_jax.translation.languages import kind
from hybriko_jax.translation.reading import read_glossary, read_text
from launch import common

SHIPPED = load.shipped("neox-mini-koen")
_VERSION = 1  # of how texts are cut; raise it where answers of before must not be found
_SHOWN = 5  # flags on the terminal


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """한국어를 영어로, 영어를 한국어로 옮깁니다. 문장이나 문서 하나를 받습니다."""

    text: Positional[str] = ""
    """옮길 글. 파일은 --in으로 줍니다."""
    to: Literal["ko", "en"]
    """옮길 말: ko 한국어, en 영어."""
    source: Annotated[Literal["ko", "en", "ja"] | None, arg(name="from")] = None
    """원래 말. 주지 않으면 한국어와 영어 가운데 다른 쪽입니다."""
    checkpoint: Path = SHIPPED
    """번역 모델의 폴더나 학습 작업 폴더."""
    input: Annotated[Path | None, arg(name="in")] = None
    """옮길 파일: .txt, .md, .srt, .tsv, .jsonl."""
    out: Path | None = None
    """옮긴 글을 쓸 파일. 멈추면 OUT.partial.jsonl에서 이어 하고, 살펴볼 문장은
    OUT.flags.jsonl에 적습니다."""
    overwrite: bool = False
    """이미 있는 --out을 새로 씁니다."""
    format: Format | None = None
    """파일의 형식. 주지 않으면 이름의 끝으로 압니다."""
    column: str = ""
    """TSV에서 옮길 열의 이름이나 번호(1부터). 이름이면 첫 줄은 그대로 둡니다."""
    field: str = ""
    """JSONL에서 옮길 이름."""
    glossary: Path | None = None
    """용어집: 한 줄에 '용어<탭>번역'."""
    beams: int = 5
    """빔 탐색에서 함께 살피는 문장. 1이면 탐색하지 않습니다."""
    length_penalty: float = 1.0
    """클수록 긴 문장을 고릅니다."""
    temperature: float = 0.0
    """0보다 크면 빔 탐색 대신 뽑습니다."""
    max_tokens: int | None = None
    """한 문장의 답이 가질 토큰."""
    batch_size: int = 16
    """한 번에 옮길 문장."""
    precision: Literal["float32", "int8"] = "float32"
    """가중치의 정밀도. 큰 모델은 int8이 CPU에서 더 빠르고 메모리를 4분의 1만 씁니다."""
    stream: bool = False
    """쓰는 대로 보여 줍니다. 빔 탐색과 검사는 하지 않습니다."""

    @property
    def language(self) -> str:
        return self.source or ("en" if self.to == "ko" else "ko")


class Model(NamedTuple):
    """A translator as functions of texts."""

    translate: Translate
    stream: Callable[[str], Iterator[str]]
    fits: Callable[[str], bool]


def main() -> None:
    if not common.accelerator():
        common.prepare_cpu(1)
    common.end_in_order()
    translate(common.parse(Arguments, command="launch.translate"), open_model)


def translate(
    arguments: Arguments, open_model: Callable[[Arguments, dict[str, str]], Model]
) -> None:
    """Does what the arguments say; the model is opened when nothing else can be wrong.

    Raises:
      UserError: as `common.run` shows it.
    """
    check_arguments(arguments)
    file = read_text(arguments.input) if arguments.input else checked(arguments.text)
    layout = Layout(format_of(arguments), arguments.language, arguments.column, arguments.field)
    with named(arguments.input):
        check_document(file, layout, arguments.to)
    glossary = read_glossary(arguments.glossary) if arguments.glossary else {}
    check_out(arguments)
    check_checkpoint(arguments.checkpoint)
    journal = Journal(partial_file(arguments.out), identity(arguments, glossary))
    try:
        if len(journal):
            say(f"{arguments.out}: 하던 번역을 이어서 합니다.")
        model = open_model(arguments, glossary)
        layout = dataclasses.replace(layout, fits=model.fits)
        if arguments.stream:
            stream(file, layout, arguments.to, model.stream)
            return
        with progress_bar(bool(arguments.out)) as progress:
            ask = Asker(model.translate, journal, arguments.batch_size, progress)
            settings = Settings(arguments.beams, arguments.length_penalty)
            text, done = translate_document(file, layout, arguments.to, ask, settings, glossary)
        if arguments.out:
            save(arguments.out, text, done.flags)
            journal.remove()
    except NoTranslator:
        journal.remove()
        raise
    except (KeyboardInterrupt, SystemExit):
        if arguments.out and len(journal):
            say(f"멈췄습니다. 같은 명령을 다시 실행하면 이어서 합니다({journal.path}).")
        raise
    finally:
        journal.close()
    if arguments.out:
        say(f"{arguments.out}에 썼습니다: 문장 {done.asked:,}개, 살펴볼 것 {len(done.flags):,}개.")
    else:
        print(text, end="" if text.endswith("\n") else "\n", flush=True)
    report(done.flags, arguments.out)


def check_arguments(arguments: Arguments) -> None:
    """Refuses arguments that do not go together.

    Raises:
      UserError: so they are.
    """
    if arguments.beams < 1 or arguments.batch_size < 1 or (arguments.max_tokens or 1) < 1:
        raise UserError(
            f"--beams {arguments.beams}, --batch-size {arguments.batch_size}, --max-tokens "
            f"{arguments.max_tokens}: 모두 1 이상이어야 합니다."
        )
    if arguments.temperature < 0:
        raise UserError(f"--temperature {arguments.temperature}: 0 이상이어야 합니다.")
    if arguments.source == arguments.to:
        raise UserError(f"--from과 --to가 둘 다 {arguments.to}입니다. 서로 다른 말을 주세요.")
    if bool(arguments.text.strip()) == bool(arguments.input):
        what = "둘 다 있습니다" if arguments.input else "비어 있습니다"
        raise UserError(f"옮길 글이 {what}. 글이나 --in 파일 하나를 주세요.")
    if arguments.out and not arguments.input:
        raise UserError(f"--out {arguments.out}: --in 파일과 함께만 씁니다.")
    if arguments.stream and arguments.input:
        raise UserError("--stream은 --in과 함께 쓸 수 없습니다. 글을 바로 주세요.")


def checked(text: str) -> str:
    """A text of the command line.

    Raises:
      UserError: it is not UTF-8.
    """
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise UserError("글이 UTF-8이 아닙니다. 터미널의 문자 인코딩을 UTF-8로 바꿔 주세요.")
    return text


def format_of(arguments: Arguments) -> Format:
    """What --format or the name of --in says.

    Raises:
      UserError: neither tells.
    """
    if arguments.format or not arguments.input:
        return arguments.format or "txt"
    suffix = arguments.input.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(
            f"{arguments.input}: 이름의 끝으로 형식을 알 수 없습니다. --format으로 txt, md, srt, "
            "tsv, jsonl 가운데 하나를 주세요."
        )
    return SUFFIXES[suffix]


@contextlib.contextmanager
def named(path: Path | None) -> Iterator[None]:
    """Puts the name of a file before what is wrong with it."""
    try:
        yield
    except UserError as e:
        raise UserError(f"{path}: {e}" if path else str(e)) from None


def check_out(arguments: Arguments) -> None:
    """Refuses a place that cannot or must not be written.

    Raises:
      UserError: the file is there already, is what is read, or its folder is not there.
    """
    out = arguments.out
    if not out:
        return
    if arguments.input and out.resolve() == arguments.input.resolve():
        raise UserError(f"--out {out}: --in과 같은 파일입니다. 다른 이름을 주세요.")
    if out.is_dir() or not out.parent.is_dir():
        raise UserError(f"--out {out}: 폴더가 아닌 파일의 이름을, 있는 폴더 안에서 주세요.")
    if out.exists() and not arguments.overwrite:
        raise UserError(f"--out {out}: 이미 있습니다. 다른 이름이나 --overwrite를 주세요.")


def check_checkpoint(path: Path) -> None:
    """Refuses a folder that is not there, or holds a model for something else.

    Raises:
      UserError: so it is.
    """
    if not path.exists():
        raise UserError(f"{path}: 번역 모델이 없습니다. 그 폴더를 --checkpoint로 주세요.")
    if (path / load.SYSTEM_PROMPT).exists():
        raise UserError(
            f"{path}: 번역이 아니라 함수 호출을 배운 모델입니다({load.SYSTEM_PROMPT}이 있습니다). "
            "번역 모델의 폴더를 --checkpoint로 주세요."
        )


def identity(arguments: Arguments, glossary: dict[str, str]) -> list[Any]:
    """All that answers depend on, but for the text and how it is searched."""
    return [
        _VERSION,
        fingerprint(arguments.checkpoint),
        arguments.language,
        arguments.to,
        arguments.temperature,
        arguments.max_tokens,
        arguments.precision,
        sorted(glossary.items()),
    ]


def fingerprint(path: Path) -> list[Any]:
    """Changes when a model may have changed: names, sizes and times of its files."""
    wanted = (p for p in path.rglob("*") if p.suffix in (".json", ".safetensors", ".bin", ".model"))
    return sorted(
        [str(p.relative_to(path)), p.stat().st_size, p.stat().st_mtime_ns] for p in wanted
    )


def partial_file(out: Path | None) -> Path | None:
    """Where what is translated waits for the rest."""
    return out and out.with_name(f"{out.name}.partial.jsonl")


def open_model(arguments: Arguments, glossary: dict[str, str]) -> Model:
    """The model of --checkpoint.

    Raises:
      UserError: there is none.
    """
    import jax

    from hybriko_jax.decode import translate as decode
    from hybriko_jax.models import build

    try:
        loaded = load.checkpoint(arguments.checkpoint, kept=arguments.precision)
    except UserError as e:
        raise UserError(f"모델을 읽을 수 없습니다. {e}") from None
    params = jax.device_put(loaded.params)  # once, not for every batch
    translator = decode.Translator(build(loaded.config), params, loaded.tokenizer)
    # The prompt, the text and its translation share the context.
    room = max(16, loaded.config.max_seq_len // 3 - 16)
    common_settings = {"temperature": arguments.temperature, "max_tokens": arguments.max_tokens}

    def translate(texts: Sequence[str], /, *, beams: int, length_penalty: float):
        return decode.translate(
            translator,
            texts,
            arguments.language,
            arguments.to,
            beams=beams,
            length_penalty=length_penalty,
            batch_size=arguments.batch_size,
            glossary=glossary or None,
            **common_settings,
        )

    def stream(text: str) -> Iterator[str]:
        return decode.stream(translator, text, arguments.language, arguments.to, **common_settings)

    return Model(translate, stream, lambda text: len(loaded.tokenizer.encode(text)) <= room)


def stream(file: str, layout: Layout, target: str, write: Callable[[str], Iterator[str]]) -> None:
    """Prints a text sentence by sentence, as it is written."""
    kept = KEPT[layout.format]
    for piece in pieces(file, layout):
        is_source = kind(kept.sub("", piece.text), layout.language, target) == "source"
        for part in write(piece.text) if is_source else [piece.raw]:
            print(part, end="", flush=True)
    print()


@contextlib.contextmanager
def progress_bar(lines: bool) -> Iterator[Progress]:
    """A bar on the terminal, by characters; elsewhere, if wanted, a line a stage."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    stages: set[str] = set()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("")

        def progress(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)
            if lines and bar.disable and total and what not in stages:
                stages.add(what)
                say(f"{what}: {total:,}자 ...")

        yield progress


def report(flags: Sequence[Flag], out: Path | None) -> None:
    """Says which sentences a person should look at."""
    for flag in flags[:_SHOWN]:
        reasons = "; ".join(map(str, flag.faults))
        say(f"살펴보세요, {flag.line}번째 줄: {flag.source[:40]!r}: {reasons}")
    if len(flags) > _SHOWN:
        where = f": {out}.flags.jsonl" if out else ""
        say(f"그 밖에 {len(flags) - _SHOWN:,}개{where}")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    common.run(main)

"""Files that a user gives: texts and glossaries."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from hybriko_jax.errors import UserError


def read_text(path: Path) -> str:
    """What a file holds, byte for byte: with its line ends, and with its byte order mark.

    Raises:
      UserError: it cannot be read, holds no text, or is not UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as e:
        raise UserError(
            f"{path}: 읽을 수 없습니다({e.strerror}). 파일 이름을 확인해 주세요."
        ) from None
    if not content.strip() or not content.removeprefix(b"\xef\xbb\xbf").strip():
        raise UserError(f"{path}: 비어 있습니다. 글이 든 파일을 주세요.")
    try:
        text = content.decode()
    except UnicodeDecodeError as e:
        line = content.count(b"\n", 0, e.start) + 1
        guess = _guess(content)
        raise UserError(
            f"{path}: {line}번째 줄이 UTF-8이 아닙니다({guess or '알 수 없는 인코딩'}). "
            f"iconv -f {guess or '인코딩'} -t UTF-8로 바꿔 주세요."
        ) from None
    if "\0" in text:
        raise UserError(f"{path}: 글이 아니라 이진 파일입니다. 글 파일을 주세요.")
    return text


def _guess(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    try:
        return "CP949" if content.decode("cp949") else ""
    except UnicodeDecodeError:
        return ""


def read_glossary(path: Path) -> dict[str, str]:
    """Terms of a TSV: that of the source, a tab, that of the target; a line each.

    Raises:
      UserError: a line is of another form, or two lines have one term and two translations.
    """
    found: dict[str, tuple[str, int]] = {}
    for number, line in enumerate(read_text(path).removeprefix("\ufeff").splitlines(), 1):
        if not line.strip():
            continue
        cells = [unicodedata.normalize("NFC", cell.strip()) for cell in line.split("\t")]
        if len(cells) != 2 or not all(cells):
            raise UserError(
                f"{path}: {number}번째 줄: '용어<탭>번역' 꼴이 아닙니다. 한 줄에 하나씩 "
                "적어 주세요."
            )
        term, translation = cells
        before, at = found.setdefault(term, (translation, number))
        if before != translation:
            raise UserError(
                f"{path}: 용어 {term!r}의 번역이 둘입니다: {at}번째 줄 {before!r}, {number}번째 줄 "
                f"{translation!r}. 하나만 남겨 주세요."
            )
    return {term: translation for term, (translation, _) in found.items()}

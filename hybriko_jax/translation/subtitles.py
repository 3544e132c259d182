"""The texts of the cues of an SRT file."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hybriko_jax.errors import UserError
from hybriko_jax.translation.sentences import Span
from hybriko_jax.translation.stretches import LINE, Stretch, lines

_TIME = r"(\d{1,3}):([0-5]\d):([0-5]\d)[,.](\d{1,3})"
_TIMING = re.compile(rf"\s*{_TIME}[ \t]*-->[ \t]*{_TIME}(?:[ \t].*)?")


_SPEAKER = re.compile(r"\s*[-–—♪]+\s*")


def subtitles(file: str, body: int) -> Iterator[Stretch]:
    """The text of every cue, one for each speaker; number and timing are only checked.

    Raises:
      UserError: a line is not the number or the timing that must stand there.
    """
    expected, number = "number", 0
    text: Span | None = None
    for number, (begin, end) in enumerate(lines(file, body), 1):
        line = file[begin:end].strip()
        if expected == "timing":
            _check_timing(line, number)
            expected = "text"
        elif expected == "number" and line:
            if not line.isdecimal():
                raise UserError(
                    f"{number}번째 줄: 자막 번호가 와야 하는데 {line[:30]!r}입니다. 번호, 시간, "
                    "글, 빈 줄 순서로 고쳐 주세요."
                )
            expected = "timing"
        elif line:
            speaker = _SPEAKER.match(file, begin, end)
            if text and speaker:
                yield _spoken(file, text)
            text = (text[0] if text and not speaker else speaker.end() if speaker else begin), end
        else:
            if text:
                yield _spoken(file, text)
            expected, text = "number", None
    if expected == "timing":
        _check_timing("", number)
    if text:
        yield _spoken(file, text)


def _check_timing(line: str, number: int) -> None:
    m = _TIMING.fullmatch(line)
    times = m and [int(t) for t in m.groups()]
    if not times or times[:4] > times[4:]:
        why = "끝이 시작보다 빠릅니다" if times else "시간 줄이 아닙니다"
        raise UserError(
            f"{number}번째 줄: {line.strip()[:40]!r}: {why}. '00:00:01,000 --> 00:00:02,500'처럼 "
            "고쳐 주세요."
        )


def relined(raw: str, text: str) -> str:
    """A translation in as many lines as what it stands for, of about the same length."""
    ends = LINE.findall(raw)
    spaces = [m.start() for m in re.finditer(" ", text)]
    goals = [len(text) * k // (len(ends) + 1) for k in range(1, len(ends) + 1)]
    cuts = {min(spaces, key=lambda s: abs(s - goal)) for goal in goals} if spaces else set()
    return "".join(ends[0] if i in cuts else c for i, c in enumerate(text))


def _spoken(file: str, text: Span) -> Stretch:
    begin, end = text
    return Stretch(file[begin:end], range(begin, end + 1))

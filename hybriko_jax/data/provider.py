"""Samples from a language model behind any endpoint that speaks OpenAI's chat completions.

Lines are appended as they come and are never rewritten, so a run can be stopped at any point and
goes on from its own file.
"""

from __future__ import annotations

import asyncio
import collections
import functools
import json
import math
import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybriko_jax.data.conversations import read_samples
from hybriko_jax.data.phrasings import load_bank
from hybriko_jax.data.provider_samples import (
    PER_ANSWER,
    SOURCE,
    STYLES,
    TOPICS,
    Grounding,
    Rejection,
    judge,
    messages,
    one_line,
    read_answer,
)
from hybriko_jax.data.synthesize import SHARES, fill
from hybriko_jax.data.values import Values
from hybriko_jax.errors import UserError
from hybriko_jax.files import lock
from hybriko_jax.linux.tools import TOOLS
from hybriko_jax.prompts import Message

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_EXAMPLES = 2  # samples that a prompt shows
_LONGEST_WAIT = 600.0  # seconds that a server may make us wait
_AGAIN = (408, 409, 425, 429)  # besides 5xx: the same request may go well later


@dataclass(frozen=True, kw_only=True)
class Provider:
    """An endpoint, and how it is asked."""

    model: str
    base_url: str | None = None
    """None is OpenAI's own."""
    key: str = ""
    """Empty where the server needs none."""
    temperature: float | None = None
    """None is the server's choice."""
    parallel: int = 2
    """Requests at a time."""
    max_requests: int | None = None
    """Requests of this run, those that fail among them."""
    tries: int = 6
    """Of one request, before the run gives up."""
    backoff: float = 1.0
    """Seconds before the second try; doubled for each further one, unless the server names the
    time (Retry-After)."""
    patience: int = 20
    """Answers in a row without a new sample, before the run gives up."""


@dataclass
class Tally:
    """What a run has come to."""

    kept: int = 0
    """Samples of a provider in the file, those of earlier runs among them."""
    new: int = 0
    """Those of this run."""
    rejected: collections.Counter[str] = field(default_factory=collections.Counter)
    """By reason."""
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    note: str = ""
    """What the run waits for."""


def collect(
    provider: Provider,
    n: int,
    out: Path,
    grounding: Grounding,
    tell: Callable[[Tally], None] = lambda tally: None,
    seed: int = 0,
) -> Tally:
    """Asks until a file holds so many samples of a provider.

    Samples are checked against the schema of their tool, grounding, and requests that are in the
    file. Those that fail are written to `rejected_path(out)`, with the reason.

    Args:
      n: samples with "source": "provider" that `out` shall hold; others in it are kept.
      out: a JSONL file as of launch.synthesize, or none yet. A last line that a kill has cut off
        is dropped.
      grounding: see `provider_samples.Grounding`.
      tell: called after every answer and before every wait.
      seed: of the examples that prompts show.

    Returns:
      The tally; `kept` is less than n where max_requests ended the run.

    Raises:
      UserError: openai is not installed, the endpoint cannot be reached or refuses, or the model
        only repeats itself. What has been kept stays.
    """
    try:
        import openai  # noqa: F401  (asked for here, so that nothing is opened without it)
    except ImportError:
        raise UserError(
            "--provider needs the openai client, which is not installed. Install the extra "
            "provider: pip install 'hybriko-jax[provider]'."
        ) from None
    with _Lines(out) as kept, _Lines(rejected_path(out)) as rejected:
        there = read_samples(out) if out.stat().st_size else []
        session = _Session(provider, n, kept, rejected, grounding, tell, seed, there)
        asyncio.run(session.run())
    return session.tally


def rejected_path(out: Path) -> Path:
    """Where samples that are not kept go: fc.rejected.jsonl beside fc.jsonl."""
    return out.with_name(f"{out.name.removesuffix('.jsonl')}.rejected.jsonl")


class _Lines:
    """A JSONL file that only grows, by whole lines."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as e:
            raise UserError(
                f"{path} cannot be written ({e.strerror}). Give another --out."
            ) from None
        if not lock(self._file):
            os.close(self._file)
            raise UserError(
                f"Another run writes {path}. Wait for it or stop it, or give another --out."
            )
        self._mend()

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        if not os.fstat(self._file).st_size:
            self.path.unlink(missing_ok=True)
        os.close(self._file)

    def append(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Writes a line a record, and waits until they are on the disk."""
        lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records)
        # A lone surrogate, which UTF-8 cannot hold, becomes its JSON escape.
        data = lines.encode("utf-8", "backslashreplace")
        end = os.fstat(self._file).st_size
        try:
            while data:
                data = data[os.write(self._file, data) :]
            os.fsync(self._file)
        except OSError as e:
            os.ftruncate(self._file, end)
            raise OSError(e.errno, e.strerror, str(self.path)) from None

    def _mend(self) -> None:
        """Ends the last line, or drops it where a kill has cut it off."""
        data = self.path.read_bytes()
        tail = data[data.rfind(b"\n") + 1 :]
        try:
            json.loads(tail)
            os.write(self._file, b"\n")
        except ValueError:
            if tail.startswith(b'{"'):  # anything else is not ours to drop
                os.ftruncate(self._file, len(data) - len(tail))


class _Session:
    """One run of `collect`."""

    def __init__(
        self,
        provider: Provider,
        n: int,
        kept: _Lines,
        rejected: _Lines,
        grounding: Grounding,
        tell: Callable[[Tally], None],
        seed: int,
        there: Sequence[Mapping[str, Any]],
    ):
        self._provider, self._n, self._grounding, self._tell = provider, n, grounding, tell
        self._kept, self._rejected = kept, rejected
        self._known = {one_line(_request(s)) for s in there}
        ours = [s for s in there if s.get("source") == SOURCE]
        self._requests: dict[str, list[str]] = collections.defaultdict(list)  # by tool
        for sample in ours:
            self._requests[sample.get("action", "")].append(_request(sample))
        self._asked = {t.name: len(self._requests[t.name]) / PER_ANSWER for t in TOOLS}
        self._random = random.Random(f"{seed} {len(ours)}")
        self._json_mode = True
        self._fruitless = 0  # answers without a new sample, in a row
        self.tally = Tally(kept=len(ours))

    async def run(self) -> None:
        from openai import AsyncOpenAI

        p, tally = self._provider, self.tally
        running: set[asyncio.Task[tuple[str, str] | None]] = set()
        self._tell(tally)
        # The client's own tries are off: they would wait in silence. A server without keys reads
        # none, but the client wants one.
        async with AsyncOpenAI(base_url=p.base_url, api_key=p.key or "-", max_retries=0) as client:
            try:
                while tally.kept < self._n:
                    wanted = math.ceil((self._n - tally.kept) / PER_ANSWER)
                    for _ in range(min(p.parallel, wanted) - len(running)):
                        if not self._spent():
                            running.add(asyncio.create_task(self._ask(client)))
                    if not running:
                        return  # max_requests
                    done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    # What came is kept before what failed ends the run.
                    failed = [e for e in (task.exception() for task in done) if e]
                    for task in done:
                        if not task.exception() and (answer := task.result()):
                            self._take(*answer)
                    if failed:
                        raise failed[0]
                    if self._fruitless >= p.patience and tally.kept < self._n:
                        raise UserError(self._repeats())
            finally:
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)

    def _spent(self) -> bool:
        return self.tally.requests >= (self._provider.max_requests or math.inf)

    def _next_prompt(self) -> list[Message]:
        """Asks for the tool that lags behind its share, in another style each time."""
        tool = min(TOOLS, key=lambda t: self._asked[t.name] / SHARES.get(t.name, _REST))
        turn = int(self._asked[tool.name])
        self._asked[tool.name] += 1
        values = Values.of(self._random, held_out=False)
        templates = _templates(tool.name)
        examples = [
            fill(self._random.choice(templates), values, self._random) for _ in range(_EXAMPLES)
        ]
        # The tools start at different places, and the two lists differ in length: every pair comes.
        first = TOOLS.index(tool)
        style, topic = (x[(first + turn) % len(x)] for x in (STYLES, TOPICS))
        return messages(tool, style, topic, examples, self._requests[tool.name])

    async def _ask(self, client: AsyncOpenAI) -> tuple[str, str] | None:
        """The text of an answer, and why it ended; None where max_requests comes first."""
        import openai

        said: Any = self._next_prompt()
        extra: dict[str, Any] = {}
        if self._provider.temperature is not None:
            extra["temperature"] = self._provider.temperature
        attempt = 0
        while not self._spent():
            attempt += 1
            self.tally.requests += 1
            json_mode = self._json_mode
            try:
                if json_mode:
                    extra["response_format"] = {"type": "json_object"}
                else:
                    extra.pop("response_format", None)
                answer = await client.chat.completions.create(
                    model=self._provider.model, messages=said, **extra
                )
                return self._read(answer)
            except openai.APIStatusError as e:
                if json_mode and e.status_code in (400, 422):
                    self._json_mode = False  # whatever it is, it is worth a try without
                    attempt -= 1
                    continue
                wait = self._wait_after(e, attempt)
            except openai.APIConnectionError as e:
                reason = str(e.__cause__ or e) or type(e.__cause__).__name__
                wait = self._wait(attempt, None, f"연결이 안 됩니다: {_short(reason)}")
            except UserError:
                raise
            except ValueError as e:
                wait = self._wait(attempt, None, f"답을 읽을 수 없습니다: {_short(str(e))}")
            self._tell(self.tally)
            await asyncio.sleep(wait)
        return None

    def _read(self, answer: Any) -> tuple[str, str]:
        """The text of a completion, and why it ended; ("", why) of a refusal."""
        if isinstance(answer, str):  # no JSON at all: a web page
            raise UserError(
                f"{self._url()}의 답이 chat completions가 아닙니다. --base-url이 맞는지(대개 /v1로 "
                f"끝납니다) 확인하세요. {self._so_far()}"
            )
        try:
            if usage := answer.usage:
                self.tally.prompt_tokens += usage.prompt_tokens or 0
                self.tally.completion_tokens += usage.completion_tokens or 0
            choice = answer.choices[0]
            text, refusal = choice.message.content, getattr(choice.message, "refusal", None)
        except (AttributeError, IndexError, TypeError):
            what = getattr(answer, "error", None) or answer  # some send errors with status 200
            raise ValueError(f"no choices in {what!r}") from None
        ended = choice.finish_reason or ""
        if refusal or ended == "content_filter" or not isinstance(text, str) or not text.strip():
            return "", _short(refusal or f"an empty answer, finish_reason {ended!r}")
        return text, ended

    def _take(self, text: str, ended: str) -> None:
        """Keeps and rejects the samples of an answer."""
        kept: list[dict[str, Any]] = []
        rejected: list[dict[str, Any]] = []
        if text:
            samples, fault = read_answer(text)
        else:
            samples, fault = [], Rejection("refused", ended)
        if fault:
            if ended == "length":
                fault = Rejection(fault.reason, "cut off at the longest answer of the model")
            rejected.append({**fault._asdict(), "answer": text})
        for raw in samples:
            found = judge(raw, self._grounding)
            if not isinstance(found, Rejection) and found["query"] in self._known:
                found = Rejection("duplicate", "the request is there")
            if isinstance(found, Rejection):
                rejected.append({**found._asdict(), "sample": raw})
            elif self.tally.kept + len(kept) < self._n:
                self._known.add(found["query"])
                kept.append({**found, "model": self._provider.model})
        self._kept.append(kept)
        for sample in kept:
            self._requests[sample["action"]].append(sample["query"])
        self.tally.kept += len(kept)
        self.tally.new += len(kept)
        self._fruitless = 0 if kept else self._fruitless + 1
        self.tally.note = ""
        self.tally.rejected.update(r["reason"] for r in rejected)
        self._rejected.append(rejected)
        self._tell(self.tally)

    def _wait_after(self, error: Any, attempt: int) -> float:
        """Seconds to wait after a status that is an error, if another try can help."""
        status, fields = error.status_code, error.body if isinstance(error.body, dict) else {}
        said = _short(str(fields.get("message") or error.message))
        said = said.replace(self._provider.key, "***") if self._provider.key else said
        if status in (401, 403):
            what = "OPENAI_API_KEY의 키를" if self._provider.key else "키 없는 요청을"
            raise UserError(
                f"{self._url()}: {what} 받아 주지 않습니다({status}). 환경 변수 OPENAI_API_KEY에 "
                f"맞는 키를 넣고 다시 실행하세요. {self._so_far()}"
            )
        if status == 402 or error.code == "insufficient_quota":
            raise UserError(
                f"{self._url()}: 쓸 수 있는 양이 다 되었습니다({status}: {said}). 요금제를 "
                f"확인하고 다시 실행하세요. {self._so_far()}"
            )
        if status not in _AGAIN and status < 500:
            raise UserError(
                f"{self._url()}: 요청을 거절했습니다({status}: {said}). --base-url(대개 /v1로 "
                f"끝납니다)과 --model {self._provider.model}을 확인하세요. {self._so_far()}"
            )
        named = _retry_after(error.response.headers)
        return self._wait(attempt, named, f"{status}: {said}")

    def _wait(self, attempt: int, named: float | None, what: str) -> float:
        """Seconds before the next try: as the server says, or twice as many as before.

        Raises:
          UserError: that was the last try, or the server wants too long a pause.
        """
        if attempt >= self._provider.tries:
            raise UserError(
                f"{self._url()}: {what}. {attempt}번 해 보고 그만둡니다. 서버와 --base-url을 "
                f"확인하고 같은 명령을 다시 실행하세요. {self._so_far()}"
            )
        if named is not None and named > _LONGEST_WAIT:
            raise UserError(
                f"{self._url()}: 서버가 {named:,.0f}초를 기다리라고 합니다({what}). 그 뒤에 같은 "
                f"명령을 다시 실행하세요. {self._so_far()}"
            )
        # Not all together: what failed at once would come back at once.
        spread = 0.5 + random.random() / 2
        wait = self._provider.backoff * 2 ** (attempt - 1) * spread if named is None else named
        self.tally.note = f"{what}; waiting {wait:,.1f} s"
        return min(wait, _LONGEST_WAIT)

    def _repeats(self) -> str:
        reasons = ", ".join(f"{r} {k:,}" for r, k in self.tally.rejected.most_common())
        return (
            f"{self._provider.model}의 답 {self._fruitless}개에 새 표본이 하나도 없어 그만둡니다"
            f"(지금까지 버린 것: {reasons or '없음'}). --temperature를 올리거나 다른 --model을 "
            f"쓰거나 --n을 줄이세요. {self._so_far()}"
        )

    def _so_far(self) -> str:
        return f"{self._kept.path}에 {self._n:,}개 가운데 {self.tally.kept:,}개가 있습니다."

    def _url(self) -> str:
        return self._provider.base_url or "OpenAI"


_REST = (1 - sum(SHARES.values())) / (len(TOOLS) - 1)  # the share of a tool besides Finish


@functools.cache
def _templates(name: str) -> list[Any]:
    """The phrasings of a tool that no held-out sample uses."""
    return [t for t in load_bank() if t.name == name and not t.held_out]


def _request(sample: Mapping[str, Any]) -> str:
    return next((m["content"] for m in sample["messages"] if m["role"] == "user"), "")


def _short(text: str) -> str:
    text = one_line(text)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait: a number, or the time to wait for.

    Source: RFC 9110, section 10.2.3.
    """
    text = headers.get("retry-after", "")
    try:
        seconds = float(text)
    except ValueError:
        try:
            then = parsedate_to_datetime(text)
        except ValueError:
            return None
        # An HTTP date is always in GMT, even where the zone is left out.
        seconds = (then.replace(tzinfo=then.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return max(seconds, 0.0) if math.isfinite(seconds) else None

"""How the assistant speaks: in a terminal, or in plain lines where there is none."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from hybriko_jax.console.messages import text
from hybriko_jax.linux.messages import printable

if TYPE_CHECKING:
    from prompt_toolkit.completion import Completer
    from prompt_toolkit.history import History

MOST_LINES = 200  # of one command's output in a terminal

# What a line is, and how it looks in a terminal.
STYLES = {
    "": "",
    "command": "bold cyan",
    "note": "dim",
    "answer": "green",
    "warning": "yellow",
    "error": "red",
}


class Talk(Protocol):
    """What the assistant asks of whoever it speaks to."""

    @property
    def can_ask(self) -> bool:
        """Whether questions get answers."""
        ...

    def say(self, words: str, style: str = "") -> None:
        """Shows lines; `style` is a key of STYLES."""
        ...

    def show(self, output: str) -> None:
        """Shows what a command printed."""
        ...

    def ask(self, question: str, default: str = "") -> str:
        """An answer of one line. EOFError: Ctrl-D. KeyboardInterrupt: Ctrl-C."""
        ...

    def read(self, prompt: str, folder: Path) -> str:
        """The next request; file names are completed from the folder. Raises as `ask`."""
        ...

    def busy(self, words: str) -> AbstractContextManager[Any]:
        """Says so while something takes its time."""
        ...


def clean(output: str) -> str:
    """Text in which nothing steers a terminal; lines and columns stay."""
    lines = output.replace("\r\n", "\n").expandtabs().split("\n")
    return "\n".join(printable(line) for line in lines)


class Plain:
    """Plain lines, requests from a stream, and no questions."""

    can_ask = False

    def __init__(self, requests: TextIO, out: TextIO):
        self._requests, self._out = requests, out

    def say(self, words: str, style: str = "") -> None:
        print(clean(words), file=self._out, flush=True)

    def show(self, output: str) -> None:
        if output:
            print(clean(output).removesuffix("\n"), file=self._out, flush=True)

    def ask(self, question: str, default: str = "") -> str:
        raise EOFError

    def read(self, prompt: str, folder: Path) -> str:
        line = self._requests.readline()
        if not line:
            raise EOFError
        self.say(prompt + line.rstrip("\n"))  # so that what was asked stands over what came
        return line

    def busy(self, words: str) -> AbstractContextManager[Any]:
        return contextlib.nullcontext()


class Terminal:
    """A terminal with colours, history, and completion of file names."""

    can_ask = True

    def __init__(self, lang: str, history: Path):
        from prompt_toolkit import PromptSession
        from rich.console import Console

        self._lang = lang
        self._console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._folder = Path.cwd()
        self._requests: PromptSession[str] = PromptSession(
            history=_history(history),
            completer=_names(lambda: self._folder),
            complete_while_typing=False,
        )
        self._questions: PromptSession[str] = PromptSession()

    def say(self, words: str, style: str = "") -> None:
        self._console.print(clean(words), style=STYLES[style])

    def show(self, output: str) -> None:
        lines = clean(output).removesuffix("\n").split("\n")
        if output:
            self._console.print("\n".join(lines[:MOST_LINES]))
        if (more := len(lines) - MOST_LINES) > 0:
            self.say(text(self._lang, "more_lines", n=more), "note")

    def ask(self, question: str, default: str = "") -> str:
        return self._questions.prompt(clean(question), default=clean(default))

    def read(self, prompt: str, folder: Path) -> str:
        self._folder = folder
        return self._requests.prompt(clean(prompt))

    def busy(self, words: str) -> AbstractContextManager[Any]:
        return self._console.status(words)


def state_folder() -> Path:
    """Where what a user typed is kept; need not exist."""
    base = os.environ.get("XDG_STATE_HOME", "")
    return Path(base if Path(base).is_absolute() else Path.home() / ".local/state", "hybriko_jax")


def connect(lang: str) -> Talk:
    """A terminal where there is one at both ends, else plain lines."""
    if sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty():
        return Terminal(lang, state_folder() / "history")
    return Plain(sys.stdin or open(os.devnull), sys.stdout)


def _history(path: Path) -> History:
    """A history in a file of the user's own; in memory where there can be none."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    class Kept(FileHistory):
        def store_string(self, string: str) -> None:
            with contextlib.suppress(OSError):  # a full disk loses the history, not the session
                super().store_string(string)

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError:
        return InMemoryHistory()
    return Kept(str(path))


def _names(folder: Callable[[], Path]) -> Completer:
    """Completes the last word as a path below the folder of that moment."""
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
    from prompt_toolkit.document import Document

    paths = PathCompleter(get_paths=lambda: [str(folder())], expanduser=True)

    class Names(Completer):
        def get_completions(self, document: Document, event: CompleteEvent) -> Iterator[Completion]:
            word = document.text_before_cursor.rpartition(" ")[2]
            for found in paths.get_completions(Document(word), event):
                if found.text.isprintable():
                    yield found

    return Names()

"""What the assistant says, in Korean and in English."""

from __future__ import annotations

from typing import Any

from hybriko_jax.errors import UserError
from hybriko_jax.linux.messages import LANGUAGES

TEXTS: dict[str, tuple[str, str]] = {
    # requests
    "encoding": (
        "부탁하는 말이 UTF-8이 아닙니다. 터미널의 문자 인코딩을 UTF-8로 바꿔 주세요.",
        "The request is not UTF-8. Set the encoding of the terminal to UTF-8.",
    ),
    "empty": (
        '부탁하는 말이 비어 있습니다. 예: --query "현재 폴더의 파일을 보여줘"',
        'The request is empty. Example: --query "현재 폴더의 파일을 보여줘"',
    ),
    "long": (
        "부탁하는 말이 {n:,}자로 너무 깁니다. {most:,}자 안으로 줄여 주세요.",
        "The request has {n:,} characters. Give at most {most:,}.",
    ),
    "no_letters": (
        "{query!r}: 글자가 없어 알아들을 수 없습니다. 말로 부탁해 주세요.",
        "{query!r}: there are no letters in it. Ask in words.",
    ),
    # the model
    "model": ("모델을 읽을 수 없습니다. {why}", "The model cannot be read. {why}"),
    "no_call": (
        "모델의 답을 명령으로 바꿀 수 없습니다 ({why}). 말을 바꿔 보세요.",
        "The model's answer is no command ({why}). Say it in other words.",
    ),
    "loading": ("모델을 읽는 중입니다 …", "Loading the model …"),
    "thinking": ("생각하는 중입니다 …", "Thinking …"),
    "working": ("실행하는 중입니다 …", "Running …"),
    "done": ("끝났습니다.", "Done."),
    "steps": (
        "한 번에 {n}단계까지만 합니다. 남은 일은 다시 부탁해 주세요.",
        "One request takes {n} steps at most. Ask again for what is left.",
    ),
    # before a command
    "cannot": ("지금은 실행할 수 없습니다. {why}", "This cannot be run now. {why}"),
    "undo_by": ("되돌리기: {how}.", "Undo: {how}."),
    "no_undo": ("되돌릴 수 없습니다.", "This cannot be undone."),
    "choose": ("실행(y) / 수정(e) / 취소(n) > ", "run(y) / edit(e) / cancel(n) > "),
    "choose_again": (
        "실행, 수정, 취소 가운데 하나를 적어 주세요.",
        "Answer run, edit or cancel.",
    ),
    "type_name": (
        "폴더가 통째로 지워집니다. 지우려면 이름을 그대로 적어 주세요 ({name}) > ",
        "The whole folder goes. Type its name to remove it ({name}) > ",
    ),
    "cancelled": (
        "취소했습니다. 이 명령은 실행하지 않았습니다.",
        "Cancelled. This command was not run.",
    ),
    "unasked": (
        "물어볼 터미널이 없어 실행하지 않았습니다: {line}. 묻지 않고 바꾸려면 --yes를 붙여 주세요.",
        "Not run, for there is no terminal to ask: {line}. Add --yes to change files unasked.",
    ),
    "untyped": (
        "폴더를 통째로 지우는 일은 --yes로도 하지 않습니다: {line}. 터미널에서 이름을 적어 주세요.",
        "--yes does not remove whole folders: {line}. Run it in a terminal and type the name.",
    ),
    "say_again": (
        "다시 부탁할 말 (그냥 Enter: 값을 하나씩 고치기) > ",
        "Say it again (Enter alone: edit the values) > ",
    ),
    "no_number": ("{text}: 숫자로 적어 주세요.", "{text}: give a number."),
    "no_yes": ("{text}: 예 또는 아니요로 적어 주세요.", "{text}: answer yes or no."),
    # after a command
    "code": ("(종료 코드 {code})", "(exit status {code})"),
    "truncated": (
        "출력이 너무 길어 앞부분만 보여 드렸습니다.",
        "There was more output than is shown.",
    ),
    "timed_out": (
        "너무 오래 걸려 그만두었습니다. 나누어서 부탁해 주세요.",
        "Stopped, for it took too long. Ask for smaller pieces.",
    ),
    "more_lines": (
        "… {n:,}줄이 더 있습니다. 앞, 끝, 찾는 말을 정해 부탁하면 나누어 볼 수 있습니다.",
        "… {n:,} more lines. Ask for the first or last ones, or for a word.",
    ),
    "undo_lines": ("되돌리는 명령: {lines}", "To undo: {lines}"),
    "undo_word": ("되돌리려면 '되돌려'라고 하세요.", "Say 'undo' to take it back."),
    "cd_alone": (
        "한 번만 실행할 때는 폴더 이동이 이어지지 않습니다. --query 없이 시작하면 이어집니다.",
        "The folder is not kept after one request. Start without --query to keep it.",
    ),
    "stopped": (
        "멈췄습니다. 하던 명령은 하지 않은 것으로 했습니다.",
        "Stopped. What was under way was not done.",
    ),
    # the session
    "hello": (
        "무엇을 할까요? '도움말'은 쓰는 법, '끝'은 나가기입니다.",
        "What shall be done? 'help' tells how, 'exit' leaves.",
    ),
    "help": (
        "한국어로 부탁하면 리눅스 명령으로 바꾸어 실행합니다. 예: 현재 폴더의 파일을 보여줘\n"
        "  파일을 바꾸는 명령은 먼저 묻습니다. {root} 안에서만 바꿉니다.\n"
        "  되돌려         마지막에 바꾼 것을 되돌립니다\n"
        "  휴지통 비우기  지운 파일을 아주 없앱니다\n"
        "  끝             나갑니다 (Ctrl-D)\n"
        "  Tab은 파일 이름을 채우고, 위 화살표는 앞서 한 말을 불러옵니다. Ctrl-C는 멈춥니다.",
        "Ask in Korean, and it is run as a Linux command. Example: 현재 폴더의 파일을 보여줘\n"
        "  Commands that change files are asked about first. Only {root} may change.\n"
        "  undo           takes back the last change\n"
        "  empty trash    removes deleted files for good\n"
        "  exit           leaves (Ctrl-D)\n"
        "  Tab completes file names, the up arrow brings back requests, Ctrl-C stops.",
    ),
    "nothing_to_undo": ("되돌릴 것이 없습니다.", "There is nothing to undo."),
    "undone": ("되돌렸습니다: {line}", "Undone: {line}"),
    "dropped": (
        "두 번 되지 않아 되돌릴 목록에서 뺐습니다: {line}",
        "It failed twice and was taken off the list: {line}",
    ),
    "ask_trash": (
        "휴지통을 비우면 되돌릴 수 없습니다. 비울까요? 예(y) / 아니요(n) > ",
        "What is in the trash cannot come back then. Empty it? yes(y) / no(n) > ",
    ),
    "no_trash": ("휴지통이 비어 있습니다.", "The trash is empty."),
    "trash_emptied": ("휴지통을 비웠습니다.", "The trash is empty now."),
    "trash_kept": (
        "지운 파일은 {trash} 폴더에 남아 있습니다.",
        "Removed files are kept in {trash}.",
    ),
    "moved_out": (
        "{old} 폴더가 없어져서 {new} 폴더로 왔습니다.",
        "The folder {old} is gone; this is {new}.",
    ),
    "again_leaves": (
        "한 번 더 Ctrl-C를 누르면 나갑니다.",
        "Press Ctrl-C once more to leave.",
    ),
    "bye": ("안녕히 가세요.", "Goodbye."),
    "error": ("오류: {why}", "error: {why}"),
    "no_cwd": (
        "지금 있는 폴더가 없어졌습니다. 있는 폴더로 옮긴 뒤 다시 시작해 주세요.",
        "The current folder is gone. Go to one that exists and start again.",
    ),
    "system": (
        "{name}{why}. 고친 뒤에 다시 해 주세요.",
        "{name}{why}. Mend it and try again.",
    ),
}

LABELS: dict[str, tuple[str, str]] = {
    "path": ("경로", "path"),
    "options": ("옵션", "options"),
    "recursive": ("폴더째로 (예/아니요)", "whole folders (yes/no)"),
    "source": ("무엇을", "from"),
    "destination": ("어디로", "to"),
    "name": ("이름", "name"),
    "pattern": ("찾을 말", "pattern"),
    "lines": ("줄 수", "lines"),
    "host": ("호스트", "host"),
    "count": ("횟수", "count"),
    "url": ("주소", "address"),
    "mode": ("권한", "mode"),
    "operation": ("할 일 (create/extract/list)", "operation (create/extract/list)"),
    "archive": ("묶음 파일", "archive"),
    "files": ("넣거나 꺼낼 파일", "files"),
}
"""What the arguments of tools are called when they are edited."""


def text(lang: str, key: str, **values: Any) -> str:
    """TEXTS[key] with its values filled in."""
    return TEXTS[key][LANGUAGES.index(lang)].format(**values)


def fault(lang: str, key: str, **values: Any) -> UserError:
    """The same, to be raised."""
    return UserError(text(lang, key, **values))

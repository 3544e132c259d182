"""What the executor says when it refuses: one line, in Korean and in English."""

from __future__ import annotations

import errno
from typing import Any

from hybriko_jax.errors import UserError

KOREAN, ENGLISH = LANGUAGES = ("ko", "en")

TEXTS: dict[str, tuple[str, str]] = {
    # the call
    "call": (
        "실행할 수 없는 부탁입니다 ({why}). 말을 바꿔 보세요.",
        "This call cannot be run ({why}). Say it in other words.",
    ),
    "option": (
        "{tool} {option}: 쓸 수 없는 옵션입니다. 옵션을 빼거나 바꿔 주세요.",
        "{tool} {option}: this option is not allowed. Leave it out or take another.",
    ),
    "output": (
        "curl {option}: 내려받아 파일로 저장하지는 않습니다. 내용만 보려면 옵션을 빼 주세요.",
        "curl {option}: files are not saved. Leave the option out to see the content.",
    ),
    "lines": (
        "{n}: 줄 수는 0부터 1,000,000까지입니다.",
        "{n}: give a number of lines from 0 to 1,000,000.",
    ),
    "count": (
        "{n}: 횟수는 1 이상이어야 합니다.",
        "{n}: the count must be at least 1.",
    ),
    "mode": (
        "{mode}: 쓸 수 없는 권한입니다. 755나 u+x처럼 적어 주세요.",
        "{mode}: not a mode that may be set. Write it like 755 or u+x.",
    ),
    # names
    "dash": (
        "{name}: '-'로 시작하는 이름은 받지 않습니다. 앞에 ./를 붙여 ./{name} 이라고 적어 주세요.",
        "{name}: names that begin with '-' are refused. Write ./{name}.",
    ),
    "dash_word": (
        "{name}: '-'로 시작하는 말은 받지 않습니다. 다른 말로 적어 주세요.",
        "{name}: words that begin with '-' are refused. Take another word.",
    ),
    "control": (
        "{name}: 줄바꿈이나 제어 문자가 든 말은 받지 않습니다. 빼고 다시 적어 주세요.",
        "{name}: line breaks and control characters are refused. Leave them out.",
    ),
    "new_glob": (
        "{name}: 새 이름에는 *나 ?를 쓸 수 없습니다. 다른 이름을 적어 주세요.",
        "{name}: a new name may hold no * or ?. Take another name.",
    ),
    "missing": (
        "{name}: 그런 파일이나 폴더가 없습니다. 이름을 확인해 주세요.",
        "{name}: no such file or folder. Check the name.",
    ),
    "no_match": (
        "{name}: 맞는 파일이 없습니다. 이름을 확인해 주세요.",
        "{name}: nothing matches. Check the name.",
    ),
    "many": (
        "{name}: 여러 개가 맞습니다 ({some}). 하나만 골라 주세요.",
        "{name}: several match ({some}). Choose one of them.",
    ),
    "folder": (
        "{name}: 폴더입니다. 파일 이름을 적어 주세요.",
        "{name}: this is a folder. Name a file.",
    ),
    "rm_folder": (
        "{name}: 폴더입니다. 폴더를 통째로 지우려면 그렇게 부탁해 주세요.",
        "{name}: this is a folder. Ask to remove the whole folder if you mean it.",
    ),
    "file": (
        "{name}: 폴더가 아닙니다. 폴더 이름을 적어 주세요.",
        "{name}: this is not a folder. Name a folder.",
    ),
    "no_parent": (
        "{name}: 이것이 들어갈 폴더가 없습니다. 폴더를 먼저 만들어 주세요.",
        "{name}: the folder to hold it does not exist. Make that folder first.",
    ),
    "special": (
        "{name}: 보통 파일이나 폴더가 아니라서 다루지 않습니다. 다른 파일을 골라 주세요.",
        "{name}: neither a file nor a folder. Choose another.",
    ),
    # where
    "outside": (
        "{name}: {root} 밖입니다. 그 안에서만 바꿀 수 있습니다. "
        "그곳을 바꾸려면 --root로 정해 주세요.",
        "{name}: outside {root}, and only what is inside may change. Set --root to change it.",
    ),
    "jail": (
        "{name}: {root} 밖은 볼 수 없습니다. --jail 없이 다시 시작해 주세요.",
        "{name}: nothing outside {root} may be read. Start again without --jail.",
    ),
    "root": (
        "{name}: 작업 폴더 전체나 그 위는 지우거나 옮길 수 없습니다. 안에 있는 것을 골라 주세요.",
        "{name}: the root folder and what holds it stay. Choose something inside.",
    ),
    "here": (
        "{name}: 지금 있는 폴더나 그 위는 지우거나 옮길 수 없습니다. 먼저 밖으로 나가 주세요.",
        "{name}: the current folder and what holds it stay. Leave it first.",
    ),
    "trash": (
        "{name}: 되돌리기에 쓰는 휴지통입니다. 비우려면 empty_trash를 써 주세요.",
        "{name}: this is the trash, kept for undo. Use empty_trash to empty it.",
    ),
    "no_previous": (
        "cd -: 앞서 있던 폴더가 없습니다. 폴더 이름을 적어 주세요.",
        "cd -: there is no folder before this one. Name a folder.",
    ),
    # what is there already
    "exists": (
        "{name}: 이미 있습니다. 다른 이름을 적어 주세요.",
        "{name}: exists already. Take another name.",
    ),
    "same": (
        "{name}: 자기 자신에게 옮기거나 복사할 수 없습니다. 다른 이름을 적어 주세요.",
        "{name}: source and destination are one file. Take another name.",
    ),
    "into_itself": (
        "{name}: 자기 안으로 옮기거나 복사할 수 없습니다. 다른 폴더를 골라 주세요.",
        "{name}: a folder cannot go into itself. Choose another folder.",
    ),
    "twice": (
        "{name}: 같은 이름이 두 번 나옵니다. 하나씩 나누어 부탁해 주세요.",
        "{name}: two sources have this name. Do them one at a time.",
    ),
    "need_folder": (
        "{name}: 여러 개를 둘 곳은 이미 있는 폴더여야 합니다. 폴더를 먼저 만들어 주세요.",
        "{name}: several things need a folder that exists. Make it first.",
    ),
    "typed": (
        "폴더를 통째로 지우려면 이름을 그대로 입력해야 합니다: {name}",
        "To remove the whole folder, type its name: {name}",
    ),
    "changed": (
        "보여 드린 뒤에 파일이 바뀌어 실행하지 않았습니다. 다시 부탁해 주세요.",
        "Files changed since this was shown, so nothing was run. Ask again.",
    ),
    # archives
    "archive": (
        "{name}: 풀 수 있는 tar 파일이 아닙니다. .tar, .tar.gz, .tar.bz2, .tar.xz만 됩니다.",
        "{name}: not a tar file that can be read. Only .tar, .tar.gz, .tar.bz2 and .tar.xz work.",
    ),
    "no_files": (
        "{name}: 무엇을 묶을지 적어 주세요.",
        "{name}: say what to put into it.",
    ),
    "member": (
        "{name}: 밖에 쓰려 하거나 위험한 항목 {member} 때문에 풀지 않았습니다. "
        "믿을 수 있는 파일인지 확인해 주세요.",
        "{name}: its entry {member} is unsafe or would write outside, so nothing was extracted. "
        "Check where the file is from.",
    ),
    "no_member": (
        "{name}: {member} 항목이 들어 있지 않습니다. 먼저 목록을 보세요.",
        "{name}: holds no {member}. List it first.",
    ),
    "too_big": (
        "{name}: 풀면 {size}바이트인데 디스크에는 {free}바이트만 남았습니다. 공간을 비워 주세요.",
        "{name}: holds {size} bytes, and only {free} are free. Make room first.",
    ),
    # the network
    "url": (
        "{url}: http나 https 주소가 아닙니다. https://로 시작하는 주소를 적어 주세요.",
        "{url}: not an http or https address. Give one that begins with https://.",
    ),
    "host": (
        "{host}: 호스트 이름이나 주소가 아닙니다. example.com처럼 적어 주세요.",
        "{host}: not the name or address of a host. Write it like example.com.",
    ),
    "unknown_host": (
        "{host}: 주소를 찾을 수 없습니다. 이름과 인터넷 연결을 확인해 주세요.",
        "{host}: the address cannot be found. Check the name and the connection.",
    ),
    "private": (
        "{host}: 이 컴퓨터나 내부 네트워크의 주소({address})에는 접속하지 않습니다. "
        "꼭 필요하면 --allow-private로 다시 시작해 주세요.",
        "{host}: leads to this machine or a private network ({address}), which is refused. "
        "Start again with --allow-private if you need it.",
    ),
    "redirects": (
        "{url}: 다른 주소로 {n}번 넘게 넘깁니다. 마지막 주소를 적어 주세요.",
        "{url}: redirects more than {n} times. Give the last address.",
    ),
    # running
    "not_installed": (
        "{program} 명령이 설치되어 있지 않습니다. 설치: sudo apt install {package}",
        "{program} is not installed. Install it with: sudo apt install {package}",
    ),
    "time": (
        "{seconds}초가 넘어 그만두었습니다. 바뀐 것은 없습니다. 나누어서 부탁해 주세요.",
        "Stopped after {seconds} s; nothing was changed. Do it in smaller pieces.",
    ),
    "undo_gone": (
        "{name}: 그 뒤에 없어지거나 옮겨져서 되돌릴 수 없습니다. 직접 확인해 주세요.",
        "{name}: gone since, so this cannot be undone. See to it by hand.",
    ),
    "undo_taken": (
        "{name}: 그 자리에 다른 것이 생겨서 되돌릴 수 없습니다. 그것을 먼저 옮겨 주세요.",
        "{name}: its place is taken, so this cannot be undone. Move what is there first.",
    ),
    "undo_changed": (
        "{name}: 그 뒤에 내용이 바뀌어서 되돌리지 않았습니다. 직접 확인해 주세요.",
        "{name}: changed since, so this was not undone. See to it by hand.",
    ),
    "root_missing": (
        "{name}: 작업할 폴더가 없습니다. 있는 폴더를 정해 주세요.",
        "{name}: no such folder to work in. Name one that exists.",
    ),
    "deep": (
        "폴더가 너무 깊습니다. 안쪽 폴더를 골라 나누어 주세요. 아무것도 바뀌지 않았습니다.",
        "The folder is too deep. Take the folders in it one by one. Nothing was changed.",
    ),
    "failed": (
        "{name}{why}. 아무것도 바뀌지 않았습니다.",
        "{name}{why}. Nothing was changed.",
    ),
}

_ERRNO: dict[int | None, tuple[str, str]] = {
    errno.ENOENT: ("그런 파일이나 폴더가 없습니다", "no such file or folder"),
    errno.EACCES: ("권한이 없습니다", "permission denied"),
    errno.EPERM: ("권한이 없습니다", "permission denied"),
    errno.ENOSPC: ("디스크가 가득 찼습니다", "the disk is full"),
    errno.EDQUOT: ("쓸 수 있는 용량을 다 썼습니다", "the disk quota is used up"),
    errno.EFBIG: ("파일이 너무 큽니다", "the file is too large"),
    errno.EROFS: ("읽기만 되는 디스크입니다", "the disk is read-only"),
    errno.EISDIR: ("폴더입니다", "this is a folder"),
    errno.ENOTDIR: ("폴더가 아닌 것이 경로에 있습니다", "a part of the path is no folder"),
    errno.ENOTEMPTY: ("폴더가 비어 있지 않습니다", "the folder is not empty"),
    errno.EEXIST: ("이미 있습니다", "exists already"),
    errno.EXDEV: ("다른 디스크로는 옮길 수 없습니다", "it is on another disk"),
    errno.ENAMETOOLONG: ("이름이 너무 깁니다", "the name is too long"),
    errno.E2BIG: ("파일이 너무 많습니다", "there are too many files"),
    errno.ELOOP: ("바로 가기가 서로를 가리킵니다", "symbolic links point at each other"),
    errno.EBUSY: ("다른 곳에서 쓰고 있습니다", "it is in use"),
}


def printable(value: Any) -> str:
    """A value on one line: what a terminal would act on is replaced."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value))


def fault(lang: str, key: str, **values: Any) -> UserError:
    """The error of TEXTS[key] with its values filled in."""
    shown = {k: printable(v) for k, v in values.items()}
    return UserError(TEXTS[key][LANGUAGES.index(lang)].format(**shown))


def reason(error: OSError, lang: str) -> str:
    """Why the system refused, in words."""
    other = error.strerror or str(error)
    return _ERRNO.get(error.errno, (other, other))[LANGUAGES.index(lang)]

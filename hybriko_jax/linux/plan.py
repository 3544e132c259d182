"""A call checked and turned into what will be done, before anything is done."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybriko_jax.linux.argv import joined, split_words
from hybriko_jax.linux.explain import explain
from hybriko_jax.linux.messages import LANGUAGES, printable
from hybriko_jax.linux.paths import (
    Named,
    Where,
    check_change,
    check_removal,
    check_word,
    is_glob,
    new,
    one,
    readable,
    several,
)
from hybriko_jax.linux.tools import DEFAULTS, FINISH, call_fault
from hybriko_jax.linux.web import parse_url

PINGS = 10
"""The most signals of one ping."""
COMPRESSIONS = {
    ".tar": "",
    ".tar.gz": "gz",
    ".tgz": "gz",
    ".tar.bz2": "bz2",
    ".tbz2": "bz2",
    ".tar.xz": "xz",
    ".txz": "xz",
}

_NAME = r"\w[\w.-]*"
_NUMBERS = r"[0-9]{1,9}(,[0-9]{1,9})*"
# What one option may be; a value follows after a space.
_ALLOWED = {
    "ls": r"-[alhtSrR1FAd]+",
    "wc": r"-[lwmcL]+",
    "ps": rf"[aux]{{1,3}}|-[efA]+|-u {_NAME}|-p {_NUMBERS}|-C {_NAME}|--sort=[-+]?%?[a-z]+",
    "df": r"-[hHTiamk]+",
    "du": r"-[shackm]+|--max-depth=[0-9]{1,3}|-d [0-9]{1,3}",
    "top": rf"-b|-b?n ?[0-9]{{1,3}}|-d [0-9]{{1,3}}|-u {_NAME}|-p {_NUMBERS}|-o [-+]?%?[A-Z]+",
    "curl": r"-[ILsivk]+|-X (GET|POST|PUT|PATCH|DELETE)",
}
_ONCE = re.compile(
    r"(?<!\S)(-b?n ?[0-9]+|-d [0-9]+|-b)(?!\S)"
)  # of top, which prints once in any case
_MODE = re.compile(r"0?[0-7]{3}|[ugoa]*([-+][rwxX]+|=[rwxX]*)(,[ugoa]*([-+][rwxX]+|=[rwxX]*))*")
_HOST = re.compile(r"\w[\w.:-]*")

_UNDO = {
    "mkdir": ("만든 폴더를 다시 없앱니다", "the new folder is removed again"),
    "rm": ("휴지통에서 제자리로 옮깁니다", "it comes back from the trash"),
    "cp": ("복사한 것을 없앱니다", "the copy is removed"),
    "mv": ("원래 자리로 옮깁니다", "it is moved back"),
    "chmod": ("원래 권한으로 바꿉니다", "the old mode is set again"),
    "tar": ("새로 생긴 것을 없앱니다", "what is new is removed"),
}
_OVERWRITES = (
    "이미 있는 {names}: 휴지통에 두고 바꿉니다.",
    "{names}: there already, goes to the trash and is replaced.",
)


@dataclass(frozen=True)
class Plan:
    """What a call will do. Nothing was done yet but looking.

    Attributes:
      argv: the command as a person would give it, patterns expanded. `run` adds options that
        only narrow it, and writing tools but chmod are done by Python, not by the program.
      writes: whether it changes files, or may change something on a server.
      explanation: a sentence or two in the language of `where`.
      reads, changes: resolved paths that are read, and that appear, vanish or change.
      pairs: (from, to) of cp and mv, and (file, name in the archive) of tar.
      overwrites: files that are there and will be replaced.
      needs_typed_name: what `run` must be given, before folders are removed.
      undo: how it can be taken back; "" where there is nothing to take back, or no way.
    """

    action: str
    arguments: Mapping[str, Any]
    where: Where
    argv: tuple[str, ...]
    writes: bool = False
    explanation: str = ""
    reads: tuple[Path, ...] = ()
    changes: tuple[Path, ...] = ()
    pairs: tuple[tuple[Path, Path], ...] = ()
    overwrites: tuple[Path, ...] = ()
    needs_typed_name: str | None = None
    undo: str = ""

    @property
    def line(self) -> str:
        """The command as one line, as it would be given to a shell."""
        return printable(joined(self.argv))

    @property
    def tool(self) -> str:
        return self.action.removesuffix("_command")


def make_plan(action: str, arguments: Mapping[str, Any], where: Where) -> Plan:
    """Checks a call and says what it will do; reads the file system and changes nothing.

    Args:
      action: the name of a tool, as in tools.TOOLS, but Finish.
      arguments: by the schema of that tool.
      where: the folders that it may reach, and the language.

    Raises:
      UserError: it is not allowed, or cannot work as things are.
    """
    why = call_fault(action, dict(arguments))
    if why or action == FINISH:
        raise where.fault("call", why=why or action)
    a = {**DEFAULTS, **arguments}
    tool = action.removesuffix("_command")
    options = _options(tool, a.get("options", ""), where)
    with where.plainly():
        found = _PLANNERS[tool](a, options, where)
    i = LANGUAGES.index(where.lang)
    explanation = explain(tool, {"files": "", **a, **found.pop("said", {})}, options, where.lang)
    if found.get("overwrites"):
        names = ", ".join(p.name for p in found["overwrites"][:3])
        names += ", …" if len(found["overwrites"]) > 3 else ""
        explanation += " " + _OVERWRITES[i].format(names=names)
    return Plan(
        action=action,
        arguments=dict(arguments),
        where=where,
        explanation=explanation,
        undo=_UNDO[tool][i] if found.get("changes") else "",
        **{"writes": bool(found.get("changes")), **found},
    )


def _options(tool: str, text: str, where: Where) -> list[str]:
    """The words of options that the tool allows."""
    if not text.strip():
        return []
    words = " ".join(split_words(text))
    if tool == "curl" and re.search(r"(^| )-[A-Za-z]*[oO]|--output|--remote-name", words):
        raise where.fault("output", option=words)
    if not re.fullmatch(rf"({_ALLOWED[tool]})( ({_ALLOWED[tool]}))*", words):
        raise where.fault("option", tool=tool, option=words)
    return words.split()


def _words(*parts: object) -> tuple[str, ...]:
    """One flat argument list of strings, lists of strings, and things that were named."""
    flat: list[str] = []
    for part in parts:
        if isinstance(part, Named):
            flat.append(part.shown)
        elif isinstance(part, (list, tuple)):
            flat += _words(*part)
        else:
            flat.append(str(part))
    return tuple(flat)


def _reals(found: list[Named]) -> tuple[Path, ...]:
    return tuple(n.real for n in found)


def _there(found: list[Named]) -> list[Named]:
    """Of several things, those that are no links to nowhere."""
    return [n for n in found if n.real.exists()] or found


def _files(found: list[Named], where: Where) -> list[Named]:
    """Readable files; of several things, folders are left out.

    Devices and pipes are refused: they may have no end, and tail and grep keep what they read.
    """
    files = [readable(n, where) for n in _there(found) if not n.real.is_dir()]
    if not files:
        raise where.fault("folder", name=found[0].shown)
    for n in files:
        if not n.real.is_file():
            raise where.fault("special", name=n.shown)
    return files


def _listed(tool: str):
    def plan(a, options, where):
        found = [readable(n, where, content=False) for n in several(a["path"], where)]
        return {"argv": _words(tool, options, "--", found), "reads": _reals(found)}

    return plan


def _read(tool: str):
    def plan(a, options, where):
        found = _files(several(a["path"], where), where)
        return {"argv": _words(tool, options, "--", found), "reads": _reals(found)}

    return plan


def _part(tool: str):
    def plan(a, options, where):
        if not 0 <= a["lines"] <= 1_000_000:
            raise where.fault("lines", n=a["lines"])
        return _read(tool)(a, ["-n", str(a["lines"])], where)

    return plan


def _grep(a, options, where):
    found = _there(several(a["path"], where))
    folders = [readable(n, where) for n in found if n.real.is_dir()]
    if len(folders) < len(found):
        _files(found, where)
    inside = ["-r"] if folders else []
    pattern = check_word(a["pattern"], where)
    return {
        "argv": _words("grep", "-n", inside, "-e", pattern, "--", found),
        "reads": _reals(found),
    }


def _find(a, options, where):
    start = readable(one(a["path"], where), where)
    # find takes these for the begin of an expression.
    path = f"./{start.shown}" if start.shown[0] in "(),!" else start.shown
    return {
        "argv": _words("find", path, "-name", check_word(a["name"], where)),
        "reads": (start.real,),
    }


def _status(tool: str):
    def plan(a, options, where):
        if tool == "top":
            rest = _ONCE.sub("", " ".join(options)).split()
            options = ["-b", "-n", "1", *rest]
        return {"argv": _words(tool, options)}

    return plan


def _ping(a, options, where):
    check_word(a["host"], where)
    if not _HOST.fullmatch(a["host"]):
        raise where.fault("host", host=a["host"])
    if a["count"] < 1:
        raise where.fault("count", n=a["count"])
    count = min(a["count"], PINGS)
    return {"argv": _words("ping", "-c", count, "--", a["host"]), "said": {"count": count}}


def _curl(a, options, where):
    url = parse_url(a["url"], where).geturl()
    changing = any(o in ("POST", "PUT", "PATCH", "DELETE") for o in options)
    return {"argv": _words("curl", options, "--", url), "writes": changing}


def _cd(a, options, where):
    if a["path"] == "-":
        if where.previous is None:
            raise where.fault("no_previous")
        folder = readable(Named(str(where.previous), where.previous, where.previous), where)
        return {"argv": ("cd", "-"), "reads": (folder.real,)}
    folder = readable(one(a["path"], where), where)
    if not folder.real.is_dir():
        raise where.fault("file", name=folder.shown)
    return {"argv": _words("cd", "--", folder), "reads": (folder.real,)}


def _mkdir(a, options, where):
    place = new(a["path"], where)
    check_change(place.entry, where, place.shown)
    if os.path.lexists(place.entry):
        raise where.fault("exists", name=place.shown)
    return {"argv": _words("mkdir", "--", place), "changes": (place.entry,)}


def _rm(a, options, where):
    found = several(a["path"], where)
    for n in found:
        check_removal(n.entry, where, n.shown)
    folders = [n for n in found if stat.S_ISDIR(n.entry.lstat().st_mode)]
    typed = None
    if folders and a["recursive"]:
        typed = found[0].entry.name if len(found) == 1 else a["path"]
    elif folders:
        # Like rm: of what a pattern matches, folders stay.
        found = [n for n in found if n not in folders]
        if not found:
            raise where.fault("rm_folder", name=folders[0].shown)
    return {
        "argv": _words("rm", ["-r"] if a["recursive"] else [], "--", found),
        "changes": tuple(n.entry for n in found),
        "needs_typed_name": typed,
        "said": {"recursive": typed is not None},
    }


def _cp(a, options, where):
    return _transfer(a, where, _copied)


def _mv(a, options, where):
    return _transfer(a, where, _moved)


def _copied(source: Named, where: Where) -> Path:
    """What cp takes: links are followed."""
    mode = readable(source, where).real.stat().st_mode
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise where.fault("special", name=source.shown)
    return source.real


def _moved(source: Named, where: Where) -> Path:
    """What mv takes: a link itself."""
    check_removal(source.entry, where, source.shown)
    return source.entry


def _transfer(a, where: Where, taken: Callable[[Named, Where], Path]):
    """cp and mv: every source and the place that it goes to."""
    found, goal = several(a["source"], where), new(a["destination"], where)
    into = goal.real.is_dir()
    if is_glob(a["source"]) and into:  # `mv * folder` does not mean the folder itself
        found = [n for n in found if n.entry != goal.real] or found
    if len(found) > 1 and not into:
        raise where.fault("need_folder", name=goal.shown)
    copies, pairs, overwrites = taken is _copied, [], []
    for source in found:
        path = taken(source, where)
        # cp writes through a link, mv replaces it.
        target = goal.real / source.entry.name if into else goal.real if copies else goal.entry
        if into and copies:
            target = Path(os.path.realpath(target))
        check_change(target, where, goal.shown)
        folder = stat.S_ISDIR(path.lstat().st_mode)
        if goal.shown.endswith("/") and not into and not folder:
            raise where.fault("no_parent", name=goal.shown)
        if folder and path in target.parents:
            raise where.fault("into_itself", name=source.shown)
        if os.path.lexists(target):
            if os.path.samestat(path.lstat(), target.lstat()):
                raise where.fault("same", name=source.shown)
            if folder or not stat.S_ISREG(target.lstat().st_mode) and not target.is_symlink():
                raise where.fault("exists", name=target)
            if not (target.is_symlink() or os.access(target, os.W_OK, effective_ids=True)):
                raise PermissionError(errno.EACCES, "", str(target))
            overwrites.append(target)
        if any(target == other for _, other in pairs):
            raise where.fault("twice", name=target.name)
        pairs.append((path, target))
    targets, sources = tuple(t for _, t in pairs), tuple(s for s, _ in pairs)
    inside = ["-r"] if copies and any(s.is_dir() for s in sources) else []
    return {
        "argv": _words("cp" if copies else "mv", inside, "--", found, goal),
        "reads": sources,
        "changes": targets if copies else sources + targets,
        "pairs": tuple(pairs),
        "overwrites": tuple(overwrites),
    }


def _chmod(a, options, where):
    if not _MODE.fullmatch(a["mode"]):
        raise where.fault("mode", mode=a["mode"])
    found = several(a["path"], where)
    for n in found:
        n.real.stat()  # a link that leads nowhere
        check_change(n.real, where, n.shown)
    return {"argv": _words("chmod", "--", a["mode"], found), "changes": _reals(found)}


def _tar(a, options, where):
    if a["operation"] == "create":
        return _pack(a, where)
    (archive,) = _files([one(a["archive"], where)], where)
    members = [check_word(w, where, "dash") for w in split_words(a.get("files", ""))]
    extracts = a["operation"] == "extract"
    if extracts:
        check_change(where.cwd, where, str(where.cwd))
    return {
        "argv": _words(
            "tar", "-xf" if extracts else "-tf", archive, ["--"] * bool(members), members
        ),
        "reads": (archive.real,),
        "changes": (where.cwd,) if extracts else (),
    }


def _pack(a, where: Where):
    archive = new(a["archive"], where)
    check_change(archive.real, where, archive.shown)
    if archive.real.is_dir():
        raise where.fault("folder", name=archive.shown)
    if compression(archive.real) is None:
        raise where.fault("archive", name=archive.shown)
    text = check_word(a.get("files", ""), where, "dash")
    if not text.strip():
        raise where.fault("no_files", name=archive.shown)
    found: list[Named] = []
    # One name with spaces in it, or several names.
    whole = os.path.lexists(os.path.join(where.cwd, text))
    for word in [text] if whole else split_words(text):
        found += [readable(n, where) for n in several(word, where)]
    found = [n for n in found if n.real not in (archive.real, where.trash)]
    if not found:
        raise where.fault("no_files", name=archive.shown)
    flag = {"gz": "-czf", "": "-cf"}.get(compression(archive.real) or "", "-caf")
    return {
        "argv": _words("tar", flag, archive, "--", found),
        "reads": _reals(found),
        "changes": (archive.real,),
        "pairs": tuple((n.real, _member(n.shown)) for n in found),
        "overwrites": (archive.real,) if archive.real.exists() else (),
    }


def compression(archive: Path) -> str | None:
    """What a name asks for, as tarfile calls it; None if it is no archive's name."""
    endings = [e for e in COMPRESSIONS if archive.name.lower().endswith(e)]
    return COMPRESSIONS[endings[0]] if endings else None


def _member(shown: str) -> Path:
    """A name in an archive: as tar does, without a leading / and what leads to the last `..`."""
    parts = Path(shown.lstrip("/")).parts
    ups = [i for i, part in enumerate(parts) if part == ".."]
    return Path(*parts[ups[-1] + 1 if ups else 0 :])


_PLANNERS: dict[str, Callable[[dict[str, Any], list[str], Where], dict[str, Any]]] = {
    "ls": _listed("ls"),
    "cd": _cd,
    "mkdir": _mkdir,
    "rm": _rm,
    "cp": _cp,
    "mv": _mv,
    "find": _find,
    "cat": _read("cat"),
    "grep": _grep,
    "head": _part("head"),
    "tail": _part("tail"),
    "wc": _read("wc"),
    "ps": _status("ps"),
    "df": _status("df"),
    "du": _listed("du"),
    "top": _status("top"),
    "ping": _ping,
    "curl": _curl,
    "chmod": _chmod,
    "tar": _tar,
}

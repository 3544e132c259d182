"""Running a call: no shell, nothing outside the root, nothing half done, everything taken back."""

import contextlib
import doctest
import http.server
import io
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import unicodedata
from pathlib import Path

import pytest

import hybriko_jax.linux
from hybriko_jax.errors import UserError
from hybriko_jax.linux import TOOLS, Undo, Where, empty_trash, make_plan, process, run, web
from hybriko_jax.linux.paths import TRASH
from tests.test_linux_requests import tree

NOBODY = 65534


def exact(root):
    """All that is there, but for the time of the trash folder itself."""
    found = tree(root, exact=True)
    if TRASH in found:
        found[TRASH] = "/"
    return found


def do(where, tool, /, **arguments):
    plan = make_plan(f"{tool}_command", arguments, where)
    return run(plan, typed=plan.needs_typed_name or "")


def change(where, tool, /, **arguments):
    """Does it, and gives the way back."""
    undo = do(where, tool, **arguments).undo
    assert undo is not None
    return undo


@pytest.fixture
def here(tmp_path):
    root = tmp_path / "root"
    (root / "docs" / "in").mkdir(parents=True)
    for name in ("a.txt", "b.txt", "docs/c.txt", "docs/in/d.txt"):
        (root / name).write_text(f"{name} ")
    (root / "link").symlink_to("a.txt")
    return Where(root, root)


def programs(folder, **scripts):
    """A PATH whose first folder has scripts of these names."""
    folder.mkdir(exist_ok=True)
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return f"{folder}:{process.PATH}"


# --- anything at all, as arguments ---

PIECES = (
    *(
        "a.txt",
        "b.txt",
        "docs",
        "docs/c.txt",
        "in",
        "새 파일",
        "link",
        "out",
        "up",
        "loop",
        "old.tar",
    ),
    *(
        "evil.tar",
        "x",
        "y.tar.gz",
        "-",
        "--",
        "-rf",
        "-exec",
        "--output=x",
        "--checkpoint-action=x",
    ),
    *(
        "..",
        "../..",
        "/",
        ".",
        "./",
        "~",
        "~/",
        "*",
        "?",
        "[a]",
        "{a,b}",
        "é",
        "가",
        "😀",
        " ",
        "\t",
    ),
    *(";", "|", "&", "&&", ">", "<", "'", '"', "\\", "\n", "\0", "\x1b[31m", "\u202e", "\ud800"),
    *("$(touch {canary}/PWNED)", "`touch {canary}/PWNED`", "; touch {canary}/PWNED;", "$HOME"),
    *("{canary}", "{canary}/secret.txt", "out/secret.txt", "up/canary", "> {canary}/PWNED", TRASH),
    *("http://a.kr/", "file://{canary}/secret.txt", "127.0.0.1", "755", "u+x", "777", "+x", "%s"),
    *(
        "-la",
        "-o",
        "-O",
        "-n",
        "aux",
        "-h",
        "\n touch {canary}/PWNED",
        "${{IFS}}",
        "!x",
        "#",
        "=",
        ":",
    ),
)
# What may well run; the way out is in some of it.
TAME = "a.txt b.txt docs docs/c.txt a.txt docs link *.txt new docs/new n.tar.gz old.tar docs/* * .."
TAME = (*TAME.split(), "{canary}/secret.txt", "out/secret.txt", "~")
PROGRAMS = {"ls", "cat", "find", "grep", "head", "tail", "wc", "ps", "df", "du", "top", "ping"}
PROGRAMS |= {"curl", "chmod"}


def fuzzed(rng, name, schema, tame, canary):
    """A value of an argument: with the chance `tame` one that may well run, else anything."""
    usual = rng.random() < tame
    if schema["type"] == "integer":
        return rng.choice((1, 3, 40)) if usual else rng.choice((-1, 0, 10**9, 10**30))
    if schema["type"] == "boolean":
        return rng.random() < 0.5
    if "enum" in schema:
        return rng.choice(schema["enum"])
    choices = schema.get("choices") or {
        "mode": ("000", "777", "u-r", "a+x"),
        "url": ("a.kr", "http://a.kr/?a=1&b"),
        "archive": ("old.tar", "evil.tar", "n.tar.gz"),
    }.get(name)
    if usual and choices:
        text = rng.choice(choices)
        return re.sub(r"{\w+}", "1", text)
    text = "".join(rng.choice(PIECES) for _ in range(rng.choice((1, 1, 2, 3, 5))))
    text = rng.choice(TAME) if usual else text
    return text.replace("{canary}", canary).replace("{{", "{").replace("}}", "}")


def fuzz_root(root, canary):
    """A folder with ways out of it."""
    shutil.rmtree(root, ignore_errors=True)
    (root / "docs" / "in").mkdir(parents=True)
    for name in ("a.txt", "b.txt", "docs/c.txt", "-rf", "새 파일"):
        (root / name).write_text(name)
    for name, target in {"out": canary, "up": "..", "loop": "loop", "link": "a.txt"}.items():
        (root / name).symlink_to(target)
    (root / "docs" / "out").symlink_to(canary / "secret.txt")
    with tarfile.open(root / "old.tar", "w") as tar:
        tar.add(root / "a.txt", "a.txt")
        tar.add(root / "docs", "packed")
    with tarfile.open(root / "evil.tar", "w") as tar:
        tar.add(root / "a.txt", "../canary/PWNED")


@pytest.mark.parametrize("count", [1500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_any_arguments_leave_the_outside_alone(count, tmp_path, monkeypatch):
    root, canary = tmp_path / "root", tmp_path / "canary"
    (canary / "in").mkdir(parents=True)
    (canary / "secret.txt").write_text("secret")
    monkeypatch.setenv("HOME", str(canary))
    monkeypatch.chdir(canary)
    echo = dict.fromkeys(("ping", "ps", "top", "df"), "echo")  # slow, and harmless
    monkeypatch.setattr(process, "PATH", programs(tmp_path / "bin", **echo))
    monkeypatch.setattr(web, "addresses", lambda host, port: ["127.0.0.1"])
    started = []

    class Started(subprocess.Popen):
        def __init__(self, argv, **options):
            assert isinstance(argv, list) and not options.get("shell")
            started.append(Path(argv[0]).name)
            super().__init__(argv, **options)

    monkeypatch.setattr(subprocess, "Popen", Started)
    outside = {p: exact(tmp_path / p) for p in ("canary", "bin")}
    around = sorted(os.listdir(tmp_path)) + ["root"]
    rng, tools = random.Random(count), [t for t in TOOLS if t.name != "Finish"]
    ran = undone = 0
    where = None
    for i in range(count):
        if i % 40 == 0 or where is None:
            fuzz_root(root, canary)
            where = Where(root, root)
        tool, tame = rng.choice(tools), rng.choice((0.3, 0.98, 0.98))
        arguments = {
            name: fuzzed(rng, name, schema, tame, str(canary))
            for name, schema in tool.parameters.items()
            if name in tool.required or rng.random() < 0.6
        }
        before = exact(root)
        try:
            cwd = where.cwd if where.cwd.is_dir() and i % 5 else root
            where = Where(root, cwd, jail=rng.random() < 0.1)
            plan = make_plan(tool.name, arguments, where)
            result = run(plan, typed=plan.needs_typed_name or "", seconds=0.3)
        except UserError as e:
            assert str(e).isprintable(), arguments
            assert exact(root) == before, (tool.name, arguments)  # refused or failed: as it was
        else:
            ran += 1
            assert plan.changes or exact(root) == before, (tool.name, arguments)
            if result.cwd:
                where = Where(root, result.cwd if where.holds(result.cwd) else root)
            elif result.undo and rng.random() < 0.7:
                result.undo.apply()
                undone += 1
                assert exact(root) == before, (tool.name, arguments)
        assert exact(canary) == outside["canary"], (tool.name, arguments)
    assert exact(tmp_path / "bin") == outside["bin"]
    assert sorted(os.listdir(tmp_path)) == sorted(around)
    assert set(started) <= PROGRAMS
    print(f"{count} calls: {ran} ran, {undone} undone, {len(started)} programs")
    assert ran > count / 5 and undone > count / 40  # not everything was refused


# --- bad input: one line, and nothing half done ---


@contextlib.contextmanager
def as_nobody():
    """Root may do all, so permissions are tried as someone else."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_no_permission(monkeypatch):
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        folder.chmod(0o777)
        with as_nobody():
            (folder / "shut").mkdir()
            (folder / "shut" / "in.txt").write_text("x")
            (folder / "own.txt").write_text("x")
            (folder / "secret.txt").write_text("x")
            (folder / "secret.txt").chmod(0)
            (folder / "shut").chmod(0o500)
            where = Where(folder, folder)
            before = exact(folder / "shut"), sorted(os.listdir(folder))
            for tool, arguments in (
                ("cat", {"path": "secret.txt"}),
                ("cp", {"source": "secret.txt", "destination": "new.txt"}),
                ("cp", {"source": "own.txt", "destination": "shut"}),
                ("mkdir", {"path": "shut/new"}),
                ("rm", {"path": "shut/in.txt"}),
                ("cp", {"source": "own.txt", "destination": "secret.txt"}),
                ("mv", {"source": "shut/in.txt", "destination": "."}),
                ("tar", {"operation": "create", "archive": "shut/x.tar", "files": "own.txt"}),
                ("tar", {"operation": "create", "archive": "x.tar", "files": "*.txt"}),
            ):
                with pytest.raises(UserError, match="권한이 없습니다"):
                    do(where, tool, **arguments)
                assert (exact(folder / "shut"), sorted(os.listdir(folder))) == before, tool
            assert (
                "secret.txt" in do(where, "ls", path="*.txt").output
            )  # a name needs no permission
            # A copy of a folder that may not be written to is made, and taken back.
            undo = change(where, "cp", source="shut", destination="copy")
            assert oct((folder / "copy").stat().st_mode)[-3:] == "500"
            undo.apply()
            assert not (folder / "copy").exists()
        if os.geteuid() == 0:
            (folder / "theirs").write_text("x")
            with as_nobody(), pytest.raises(UserError, match="권한이 없습니다"):
                do(where, "chmod", mode="777", path="theirs")
    finally:
        shutil.rmtree(folder)


def test_a_file_that_grows_too_large_leaves_nothing(here):
    """The limit of a process stops a copy in its middle, as a full disk does."""
    (here.root / "big").write_bytes(os.urandom(300_000))
    (here.root / "docs" / "big").write_bytes(os.urandom(300_000))
    before, limit = exact(here.root), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    try:
        for tool, arguments in (
            ("cp", {"source": "big", "destination": "a.txt"}),
            ("cp", {"source": "docs", "destination": "new"}),
            ("tar", {"operation": "create", "archive": "x.tgz", "files": "docs big"}),
        ):
            with pytest.raises(UserError, match="파일이 너무 큽니다"):
                do(here, tool, **arguments)
            assert exact(here.root) == before, tool
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def test_a_full_disk(tmp_path):
    """On a small disk of its own, which a mount in a user namespace is."""
    namespace = ("unshare", "--user", "--map-root-user", "--mount")
    mount = ["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", str(tmp_path)]
    if not shutil.which("unshare") or subprocess.run([*namespace, *mount]).returncode:
        pytest.skip("no user namespaces")
    code = f"""if True:
        import subprocess; subprocess.run({mount}, check=True)
        from pathlib import Path
        from hybriko_jax.errors import UserError
        from hybriko_jax.linux import *
        root = Path({str(tmp_path)!r})
        (root / "big").write_bytes(bytes(600_000))
        for call in (("cp_command", {{"source": "big", "destination": "two"}}),):
            try:
                run(make_plan(*call, Where(root, root)))
            except UserError as e:
                print(e, [p.name for p in root.iterdir()])
    """
    done = subprocess.run(
        [*namespace, sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "디스크가 가득 찼습니다" in done.stdout and done.stdout.endswith("['big']\n")


def test_a_command_that_is_not_installed(here, monkeypatch):
    monkeypatch.setattr(process, "PATH", str(here.root))
    for tool, arguments, package in (
        ("ping", {"host": "a.kr"}, "iputils-ping"),
        ("ls", {"path": "."}, "coreutils"),
        ("top", {}, "procps"),
    ):
        with pytest.raises(UserError, match=f"{tool} 명령이 설치되어 있지 않습니다.*{package}"):
            do(here, tool, **arguments)


def test_what_changed_since_the_plan_is_not_run(here, tmp_path):
    (tmp_path / "far").mkdir()
    plan = make_plan("cp_command", {"source": "a.txt", "destination": "docs"}, here)
    shutil.rmtree(here.root / "docs")
    (here.root / "docs").symlink_to(tmp_path / "far")
    with pytest.raises(UserError, match="밖입니다"):
        run(plan)
    plan = make_plan("rm_command", {"path": "*.txt"}, here)
    (here.root / "c.txt").write_text("new")
    with pytest.raises(UserError, match="바뀌어 실행하지 않았"):
        run(plan)
    assert not list((tmp_path / "far").iterdir()) and (here.root / "a.txt").exists()


# A signal between opening a file and the `with` that closes it leaves that to the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_at_any_moment_is_all_or_nothing(here):
    """As if pressed 0.1 ms, 0.2 ms, ... after the start; the folder is as before or done."""
    for i in range(30):
        (here.root / "docs" / f"{i}.txt").write_bytes(bytes(20_000))
    do(here, "tar", operation="create", archive="docs.tar", files="docs")
    calls = (
        ("cp", {"source": "docs", "destination": "new"}),
        ("cp", {"source": "docs/*.txt", "destination": "."}),
        ("mv", {"source": "docs/*", "destination": "."}),
        ("rm", {"path": "docs/*", "recursive": True}),
        ("tar", {"operation": "extract", "archive": "docs.tar"}),
        ("tar", {"operation": "create", "archive": "docs.tar", "files": "docs"}),
    )
    before, old = exact(here.root), signal.getsignal(signal.SIGALRM)
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    stopped = 0
    try:
        for tool, arguments in calls:
            for i in range(1, 26):
                plan = make_plan(f"{tool}_command", arguments, here)
                kept: list[Undo] = []
                try:
                    signal.setitimer(signal.ITIMER_REAL, i * i * 6e-5)
                    run(plan, typed=plan.needs_typed_name or "", keep=kept.append)
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except KeyboardInterrupt:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                    stopped += not kept
                for undo in kept:
                    undo.apply()
                assert exact(here.root) == before, (tool, i)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert stopped > 10


def test_names_that_are_spelt_in_two_ways_and_links_to_nowhere(here):
    apart = unicodedata.normalize("NFD", "한글.txt")
    (here.root / apart).write_text("가")
    assert do(here, "cat", path="한글.txt").output == "가"
    with pytest.raises(UserError, match="이미 있습니다"):
        do(here, "mkdir", path="한글.txt")
    for name in ("n1", "n2"):
        (here.root / name).symlink_to("nowhere")
    assert do(here, "ls", path="n*").output == "n1\nn2\n"
    for tool, arguments in (("cat", {"path": "n*"}), ("grep", {"path": "n*", "pattern": "x"})):
        with pytest.raises(UserError, match="n1: 그런 파일이나 폴더가 없습니다"):
            do(here, tool, **arguments)
    do(here, "rm", path="n1")
    assert not (here.root / "n1").is_symlink() and (here.root / "n2").is_symlink()


# --- limits of programs ---


def test_time_limit_ends_the_whole_group(here, tmp_path, monkeypatch):
    script = f"sleep 60 & echo $! > {tmp_path}/child; echo started; wait"
    monkeypatch.setattr(process, "PATH", programs(tmp_path / "bin", ping=script))
    start = time.monotonic()
    result = run(make_plan("ping_command", {"host": "a.kr"}, here), seconds=1)
    assert result.timed_out and result.code == 124 and result.output == "started\n"
    assert time.monotonic() - start < 10
    child = int((tmp_path / "child").read_text())
    for _ in range(100):  # a killed process stays listed until it is reaped
        status = Path(f"/proc/{child}/stat")
        if not status.exists() or status.read_text().split()[2] == "Z":
            break
        time.sleep(0.05)
    else:
        pytest.fail("the child is alive")


def test_output_is_capped_while_it_is_read(here, tmp_path, monkeypatch):
    (here.root / "big").write_bytes(b"x" * 3_000_000)
    result = do(here, "cat", path="big")
    assert result.truncated and len(result.output) == 1_000_000
    monkeypatch.setattr(process, "PATH", programs(tmp_path / "bin", ping="exec yes"))
    result = do(here, "ping", host="a.kr")
    assert result.truncated and not result.timed_out and len(result.output) == 1_000_000


def test_a_program_gets_no_input_and_little_environment(here, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_KEY", "x")
    monkeypatch.setattr(process, "PATH", programs(tmp_path / "bin", ping="cat; env; echo $*"))
    (tmp_path / "typed").write_text("typed\n")
    kept = os.dup(0)
    with open(tmp_path / "typed") as typed:
        os.dup2(typed.fileno(), 0)
    try:
        output = do(here, "ping", host="a.kr").output
    finally:
        os.dup2(kept, 0)
        os.close(kept)
    assert (
        "typed" not in output
        and "SECRET" not in output
        and "LC_ALL=C.UTF-8" in output
        and "HOME" not in output
    )
    assert output.splitlines()[-1] == "-c 4 -- a.kr"


def test_python_tools_stop_at_the_time_limit_too(here):
    before = exact(here.root)
    for arguments in (
        {"action": "cp_command", "arguments": {"source": "docs", "destination": "new"}},
        {
            "action": "tar_command",
            "arguments": {"operation": "create", "archive": "x.tar", "files": "docs"},
        },
    ):
        with pytest.raises(UserError, match="그만두었습니다. 바뀐 것은 없습니다"):
            run(make_plan(**arguments, where=here), seconds=-1)
        assert exact(here.root) == before


# --- curl ---


@pytest.mark.parametrize(
    "address,public",
    [
        *((a, True) for a in ("8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808")),
        *((a, False) for a in ("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "0.0.0.0")),
        *((a, False) for a in ("169.254.169.254", "100.64.0.1", "224.0.0.1", "255.255.255.255")),
        *((a, False) for a in ("::1", "::", "fe80::1", "fe80::1%lo", "fc00::1", "ff02::1")),
        *((a, False) for a in ("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1")),
        *((a, False) for a in ("2002:7f00:1::", "2002:a00:1::", "::127.0.0.1")),
    ],
)
def test_public_addresses(address, public):
    assert web.is_public(address) == public


@pytest.mark.parametrize(
    "url", ["127.1", "0x7f.1", "2130706433", "0177.0.0.1", "localhost", "[::1]", "[::ffff:7f00:1]"]
)
def test_every_way_to_write_this_machine_is_refused(here, url):
    with pytest.raises(UserError, match="접속하지 않습니다|찾을 수 없습니다"):
        do(here, "curl", url=f"http://{url}:9/")


class Handler(http.server.BaseHTTPRequestHandler):
    asked = []

    def do_GET(self):
        self.asked.append((self.headers["Host"], self.path))
        port = self.headers["Host"].rpartition(":")[2]
        to = {
            "/private": f"http://127.0.0.2:{port}/secret",
            "/mapped": f"http://[::ffff:127.0.0.1]:{port}/secret",
            "/file": "file:///etc/passwd",
            "/loop": "/loop",
            "/hop": f"http://other.test:{port}/ok",
            "/relative": "ok?a=1",
        }.get(self.path)
        self.send_response(302 if to else 200)
        if to:
            self.send_header("Location", to)
        self.end_headers()
        if self.path == "/slow":
            time.sleep(3)
        body = b"x" * 3_000_000 if self.path == "/big" else b"hello"
        with contextlib.suppress(ConnectionError):
            self.wfile.write(b"moved" if to else body)

    def do_DELETE(self):
        self.asked.append(("DELETE", self.path))
        self.do_GET()

    do_POST = do_GET

    def log_message(self, format, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    """A server that counts as public, under names that only our own look-up knows."""
    real = web.addresses

    def addresses(host, port):
        return ["127.0.0.1"] if host.endswith(".test") else real(host, port)

    monkeypatch.setattr(web, "addresses", addresses)
    monkeypatch.setattr(web, "is_public", lambda address: address == "127.0.0.1")
    Handler.asked.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://site.test:{httpd.server_port}"
        httpd.shutdown()


def test_curl_connects_to_the_address_that_was_checked(here, server):
    assert do(here, "curl", url=f"{server}/ok").output == "hello"
    assert do(here, "curl", url=f"{server}/hop", options="-L").output == "hello"
    assert do(here, "curl", url=f"{server}/relative", options="-sL").output == "hello"
    hosts = [(host.split(":")[0], path) for host, path in Handler.asked]
    assert hosts[1:3] == [("site.test", "/hop"), ("other.test", "/ok")]
    assert do(here, "curl", url=f"{server}/hop").output == "moved"
    shown = do(here, "curl", url=f"{server}/hop", options="-iL").output
    assert shown.count("HTTP/1.0") == 2 and "302" in shown and shown.endswith("hello")


@pytest.mark.parametrize(
    "path,message",
    [
        ("private", r"127\.0\.0\.2.*접속하지 않습니다"),
        ("mapped", "접속하지 않습니다"),
        ("file", "http나 https"),
        ("loop", "5번 넘게"),
    ],
)
def test_every_redirect_is_checked(here, server, path, message):
    with pytest.raises(UserError, match=message):
        do(here, "curl", url=f"{server}/{path}", options="-L")
    assert all(path != "/secret" for _, path in Handler.asked)


def test_curl_is_capped_and_says_what_failed(here, server):
    result = do(here, "curl", url=f"{server}/big")
    assert result.truncated and len(result.output) == 1_000_000
    plan = make_plan("curl_command", {"url": f"{server}/slow"}, here)
    result = run(plan, seconds=1)
    assert result.timed_out or result.code == 28  # its own limit may come first
    result = do(here, "curl", url="http://site.test:1/")
    assert result.code == 7 and "curl: (7)" in result.output
    with pytest.raises(UserError, match="nowhere.invalid: 주소를 찾을 수 없습니다"):
        do(here, "curl", url="http://nowhere.invalid/")
    plan = make_plan("curl_command", {"url": f"{server}/ok", "options": "-X POST"}, here)
    assert plan.writes and run(plan).output == "hello"
    do(here, "curl", url=f"{server}/hop", options="-X DELETE -sL")
    assert [path for method, path in Handler.asked if method == "DELETE"] == ["/hop", "/ok"]


# --- archives ---


def archive(path, *members):
    """Members as (name, kind, link's target or content)."""
    with tarfile.open(path, "w") as tar:
        for name, kind, value in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(value)
                tar.addfile(info, io.BytesIO(value.encode()))
            else:
                info.linkname = value
                tar.addfile(info)


FILE, LINK, HARD, FOLDER = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE


UNSAFE = (
    [("../x", FILE, "x")],
    [("/tmp/x", FILE, "x")],
    [("docs/../../x", FILE, "x")],
    [("l", LINK, "/etc")],
    [("l", LINK, "..")],
    [("d", FOLDER, ""), ("d/l", LINK, "../..")],
    [("l", LINK, "docs"), ("l/x", FILE, "x")],
    [("docs", FOLDER, ""), ("l", LINK, "docs"), ("l/x", FILE, "x")],
    [("l", LINK, "x"), ("l", FILE, "x")],
    [("a/b/l", LINK, "../../.."), ("e", LINK, "a/b/l/x")],
    [("p/q/l", LINK, "../.."), ("p/q/e", LINK, "l/../x")],
    [("h", HARD, "/etc/passwd")],
    [("h", HARD, "a.txt")],  # of a file that is not in the archive
    [("dev", tarfile.CHRTYPE, "")],
    [("pipe", tarfile.FIFOTYPE, "")],
    [("a\nb", FILE, "x")],
    [("good.txt", FILE, "x"), ("../bad", FILE, "x")],
)
TAKEN = (
    [(f"{TRASH}/x", FILE, "x")],
    [("good.txt", FILE, "x"), ("docs", FILE, "a file where a folder is")],
    [("a.txt", FOLDER, "")],
    [("link", FOLDER, ""), ("link/x", FILE, "through a link that is there")],
)


@pytest.mark.parametrize("filtered", [True, False])
@pytest.mark.parametrize("i", range(len(UNSAFE) + len(TAKEN)))
def test_an_archive_that_could_write_elsewhere_is_refused(here, tmp_path, monkeypatch, i, filtered):
    """By checks of ours, also where tarfile has no filter (Python 3.11.3)."""
    if not filtered:
        monkeypatch.delattr(tarfile, "data_filter")
    archive(here.root / "evil.tar", *(UNSAFE + TAKEN)[i])
    (here.root / "link").unlink()
    (here.root / "link").symlink_to(tmp_path)
    before = exact(tmp_path)
    message = "때문에 풀지 않았습니다" if i < len(UNSAFE) else "이미 있습니다|휴지통입니다"
    with pytest.raises(UserError, match=message):
        do(here, "tar", operation="extract", archive="evil.tar")
    assert exact(tmp_path) == before


def test_a_good_archive_with_links_is_unpacked_over_what_is_there(here):
    archive(
        here.root / "good.tar",
        *[("docs/c.txt", FILE, "new"), ("docs/in/l", LINK, "../c.txt"), ("x/y", FILE, "y")],
        *[("x/h", HARD, "x/y"), ("./z", FILE, "z")],
    )
    before = exact(here.root)
    undo = change(here, "tar", operation="extract", archive="good.tar")
    assert (here.root / "docs/c.txt").read_text() == (here.root / "docs/in/l").read_text() == "new"
    assert (here.root / "x/h").read_text() == "y" and (here.root / "docs/in/d.txt").exists()
    undo.apply()
    assert exact(here.root) == before
    do(here, "tar", operation="extract", archive="good.tar", files="x/y z")
    assert not (here.root / "x/h").exists() and (here.root / "z").exists()
    with pytest.raises(UserError, match="none 항목이"):
        do(here, "tar", operation="list", archive="good.tar", files="none")


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"])
def test_a_broken_archive(here, ending):
    good = here.root / f"x.{ending}"
    (here.root / "big").write_bytes(os.urandom(50_000))
    do(here, "tar", operation="create", archive=good.name, files=". a.txt")
    held = do(here, "tar", operation="list", archive=good.name).output.splitlines()
    assert "./docs/in/d.txt" in held and not any(TRASH in n or n == f"./{good.name}" for n in held)
    whole = good.read_bytes()
    for i, broken in enumerate((b"", b"no archive", whole[: len(whole) // 2], whole[:600])):
        good.write_bytes(broken)
        before = exact(here.root)
        with contextlib.suppress(UserError):  # cut where an entry ends, it is an archive
            change(here, "tar", operation="extract", archive=good.name).apply()
            assert i > 1
        assert exact(here.root) == before


# --- the trash, and taking back ---


def test_the_trash_is_not_shown_and_is_not_taken_along(here):
    do(here, "rm", path="b.txt")
    assert TRASH not in do(here, "ls", path=".", options="-a").output
    assert "b.txt" not in do(here, "find", path=".", name="*").output
    assert TRASH not in do(here, "find", path=str(here.root), name="*").output
    assert do(here, "grep", pattern="b.txt", path=".").code == 1
    assert TRASH not in do(here, "du", path=".", options="-a").output
    for path in (TRASH, f"{TRASH}/x", f"./{TRASH}"):
        with pytest.raises(UserError, match="휴지통입니다|없습니다"):
            make_plan("rm_command", {"path": path, "recursive": True}, here)
    with pytest.raises(UserError):
        make_plan("rm_command", {"path": ".*", "recursive": True}, here)
    empty_trash(here)
    assert not here.trash.exists()


def test_a_link_in_the_place_of_the_trash_is_not_followed(here, tmp_path):
    (tmp_path / "far").mkdir()
    here.trash.symlink_to(tmp_path / "far")
    with pytest.raises(UserError, match=TRASH):
        do(here, "rm", path="a.txt")
    empty_trash(here)
    assert (here.root / "a.txt").exists() and not list((tmp_path / "far").iterdir())


def test_folders_are_removed_only_with_the_name_typed(here):
    plan = make_plan("rm_command", {"path": "docs/", "recursive": True}, here)
    assert plan.needs_typed_name == "docs"
    for typed in ("", "y", "doc", "Docs"):
        with pytest.raises(UserError, match="이름을 그대로 입력"):
            run(plan, typed=typed)
    assert (here.root / "docs").is_dir()
    run(plan, typed=" docs ")
    assert not (here.root / "docs").exists()


def test_undo_is_refused_rather_than_losing_work(here):
    undo = change(here, "cp", source="a.txt", destination="new.txt")
    (here.root / "new.txt").write_text("edited since")
    with pytest.raises(UserError, match="내용이 바뀌어서"):
        undo.apply()
    assert (here.root / "new.txt").read_text() == "edited since"
    undo = change(here, "mkdir", path="new")
    (here.root / "new" / "x").write_text("x")
    with pytest.raises(UserError, match="내용이 바뀌어서"):
        undo.apply()
    undo = change(here, "rm", path="b.txt")
    (here.root / "b.txt").write_text("another")
    with pytest.raises(UserError, match="다른 것이 생겨서"):
        undo.apply()
    undo = change(here, "mv", source="docs/*.txt", destination=".")
    (here.root / "c.txt").unlink()
    before = exact(here.root)
    with pytest.raises(UserError, match="되돌릴 수 없습니다"):
        undo.apply()
    assert exact(here.root) == before and (here.root / "b.txt").read_text() == "another"


def test_many_changes_are_taken_back_in_reverse(here):
    before, undos = exact(here.root), []
    for tool, arguments in (
        ("mkdir", {"path": "new"}),
        ("cp", {"source": "docs", "destination": "new"}),
        ("cp", {"source": "a.txt", "destination": "b.txt"}),
        ("chmod", {"mode": "600", "path": "b.txt"}),
        ("tar", {"operation": "create", "archive": "x.tgz", "files": "new b.txt"}),
        ("rm", {"path": "docs", "recursive": True}),
        ("mv", {"source": "new/docs", "destination": "."}),
        ("mv", {"source": "a.txt", "destination": "b.txt"}),
        ("tar", {"operation": "extract", "archive": "x.tgz"}),
        ("chmod", {"mode": "000", "path": "docs"}),
        ("cp", {"source": "x.tgz", "destination": "link"}),
    ):
        undos.append((exact(here.root), change(here, tool, **arguments)))
    for state, undo in reversed(undos):
        undo.apply()
        assert exact(here.root) == state
    assert exact(here.root) == before


def test_lines_of_an_undo_do_the_same_in_a_shell(here):
    before = tree(here.root)
    for tool, arguments in (
        ("mkdir", {"path": "새 폴더"}),
        ("cp", {"source": "docs", "destination": "new"}),
        ("cp", {"source": "a.txt", "destination": "b.txt"}),
        ("mv", {"source": "*.txt", "destination": "docs"}),
        ("rm", {"path": "docs", "recursive": True}),
        ("chmod", {"mode": "400", "path": "b.txt"}),
    ):
        undo = change(here, tool, **arguments)
        subprocess.run(["sh", "-ec", "\n".join(undo.lines)], cwd=here.root, check=True)
        assert tree(here.root) == before, tool


def test_cd_is_remembered(here):
    cwd = do(here, "cd", path="docs").cwd
    there = Where(here.root, cwd or here.root, previous=here.cwd)
    assert do(there, "ls", path=".").output == "c.txt\nin\n"
    assert do(there, "cd", path="-").cwd == here.root
    with pytest.raises(UserError, match="지금 있는 폴더"):
        make_plan("rm_command", {"path": "../docs", "recursive": True}, there)


def test_the_example_of_the_package(tmp_path, monkeypatch):
    (tmp_path / "root").mkdir()
    monkeypatch.chdir(tmp_path / "root")
    Path("memo.txt").write_text("x")
    Path("../notes.txt").write_text("x")
    failed, tried = doctest.testmod(hybriko_jax.linux)
    assert failed == 0 and tried > 8


def test_the_package_is_light():
    code = "import sys, hybriko_jax.linux as l; print({'jax', 'numpy', 'rich'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"

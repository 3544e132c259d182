"""Sixty requests as calls, run in a folder, against the state and the output that they should give.

What is expected was written by hand. Where a shell can do the same, it does so in a copy of the
folder, and the two must agree. What was changed is then taken back, exactly.
"""

import functools
import http.server
import os
import re
import shutil
import stat
import subprocess
import tarfile
import threading
from dataclasses import dataclass, field

import pytest

from hybriko_jax.linux import TOOLS, Where, command_line, make_plan, process, run

LOG = "".join(f"{i:02} {'ERROR' if i % 7 == 0 else 'INFO'} 요청 {i}\n" for i in range(1, 31))
FILES = {
    "memo.txt": "첫째 줄\n둘째 줄\nTODO 셋째 줄\n",
    "app.log": LOG,
    "data.csv": "이름,점수\n가,1\n나,2\n",
    "run.sh": "#!/bin/sh\necho hi\n",
    ".hidden": "숨은 것\n",
    "a b.txt": "빈칸이 든 이름\n",
    "내 문서/보고서.txt": "보고서\n",
    "내 문서/초안.txt": "초안\n",
    "src/main.py": "import util\nprint('TODO')\n",
    "src/util.py": "x = 1\n",
    "src/lib/deep.py": "# TODO 깊은 곳\n",
    "photos/1.jpg": "그림 1",
    "photos/2.jpg": "그림 2",
}
GONE = None


@dataclass
class Case:
    request: str
    action: str
    arguments: dict
    output: list[str] | re.Pattern | None = field(default_factory=list)
    change: dict = field(default_factory=dict)  # path -> content, octal mode, "/" of a folder, GONE
    peer: bool = True  # whether a shell does the same
    ordered: bool = True  # else the order of lines is the file system's


def case(tool, request, output=(), change=(), peer=True, ordered=True, /, **arguments):
    output = list(output) if isinstance(output, (list, tuple)) else output
    return Case(request, f"{tool}_command", arguments, output, dict(change), peer, ordered)


TOP = ["a b.txt", "app.log", "data.csv", "link", "memo.txt", "old.tar.gz", "photos", "run.sh"]
TOP += ["src", "내 문서"]
PY = ["src/lib/deep.py", "src/main.py", "src/util.py"]
_ls, _rm, _cp, _mv = (functools.partial(case, tool) for tool in ("ls", "rm", "cp", "mv"))
_find, _grep, _tar, _curl = (functools.partial(case, t) for t in ("find", "grep", "tar", "curl"))

CASES = [
    _ls("지금 폴더에 뭐가 있어?", TOP, path="."),
    _ls("숨은 파일까지 다 보여줘", [".", "..", ".hidden", *TOP], path=".", options="-a"),
    _ls("src 폴더 자세히", re.compile(r"-rw-.* main\.py\n"), path="src", options="-l"),
    _ls("텍스트 파일만 보여줘", ["a b.txt", "memo.txt"], path="*.txt"),
    _ls("내 문서 폴더 열어봐", ["보고서.txt", "초안.txt"], path="내 문서"),
    case("cd", "src 폴더로 가줘", path="src"),
    case("cd", "위 폴더로 나가자", path=".."),
    case("mkdir", "새폴더 만들어줘", [], {"새폴더": "/"}, path="새폴더"),
    case("mkdir", "src 안에 tests 폴더 만들어줘", [], {"src/tests": "/"}, path="src/tests"),
    case("mkdir", "'my work' 폴더 하나 만들어", [], {"my work": "/"}, path="my work"),
    _rm("memo.txt 지워줘", [], {"memo.txt": GONE}, path="memo.txt"),
    _rm("사진 다 지워", [], {"photos/1.jpg": GONE, "photos/2.jpg": GONE}, path="photos/*.jpg"),
    _rm("링크만 지워줘", [], {"link": GONE}, path="link"),
    _rm(
        *("src 폴더 통째로 지워줘", []),
        {"src": GONE, "src/lib": GONE, "src/lib/deep.py": GONE}
        | {"src/main.py": GONE, "src/util.py": GONE},
        path="src",
        recursive=True,
    ),
    _cp(
        *("memo.txt를 메모 사본.txt로 복사", [], {"메모 사본.txt": FILES["memo.txt"]}),
        source="memo.txt",
        destination="메모 사본.txt",
    ),
    _cp(
        *("data.csv를 photos에 복사해줘", [], {"photos/data.csv": FILES["data.csv"]}),
        source="data.csv",
        destination="photos",
    ),
    _cp(
        *("app.log 내용을 memo.txt에 덮어써", [], {"memo.txt": LOG}),
        source="app.log",
        destination="memo.txt",
    ),
    _cp(
        *("photos 폴더를 backup으로 복사해줘", []),
        {"backup": "/", "backup/1.jpg": "그림 1", "backup/2.jpg": "그림 2"},
        source="photos",
        destination="backup",
    ),
    _cp(
        *("txt 파일 전부 src에 복사해줘", []),
        {"src/a b.txt": FILES["a b.txt"], "src/memo.txt": FILES["memo.txt"]},
        source="*.txt",
        destination="src",
    ),
    _mv(
        *("memo.txt 이름을 note.txt로 바꿔줘", []),
        {"memo.txt": GONE, "note.txt": FILES["memo.txt"]},
        source="memo.txt",
        destination="note.txt",
    ),
    _mv(
        *("photos를 내 문서 안으로 옮겨줘", []),
        {"photos": GONE, "photos/1.jpg": GONE, "photos/2.jpg": GONE}
        | {
            "내 문서/photos": "/",
            "내 문서/photos/1.jpg": "그림 1",
            "내 문서/photos/2.jpg": "그림 2",
        },
        source="photos",
        destination="내 문서",
    ),
    _mv(
        *("사진들 여기로 꺼내줘", []),
        {"photos/1.jpg": GONE, "photos/2.jpg": GONE, "1.jpg": "그림 1", "2.jpg": "그림 2"},
        source="photos/*",
        destination=".",
    ),
    _mv(
        *("초안을 보고서에 덮어써줘", []),
        {"내 문서/초안.txt": GONE, "내 문서/보고서.txt": "초안\n"},
        source="내 문서/초안.txt",
        destination="내 문서/보고서.txt",
    ),
    _find("파이썬 파일 찾아줘", [f"./{p}" for p in PY], {}, True, False, path=".", name="*.py"),
    _find("src에서 deep.py 어디 있어?", ["src/lib/deep.py"], path="src", name="deep.py"),
    _find("보고서라는 말이 든 파일", ["./내 문서/보고서.txt"], path=".", name="*보고서*"),
    case("cat", "memo.txt 내용 보여줘", FILES["memo.txt"].splitlines(), path="memo.txt"),
    case("cat", "내 문서의 보고서 읽어줘", ["보고서"], path="내 문서/보고서.txt"),
    case("cat", "사진 이어서 출력", ["그림 1그림 2"], path="photos/*.jpg"),
    _grep("로그에서 ERROR 찾아줘", None, pattern="ERROR", path="app.log"),
    _grep(
        *(
            "src에서 TODO 찾아줘",
            ["src/lib/deep.py:1:# TODO 깊은 곳", "src/main.py:2:print('TODO')"],
        ),
        *({}, True, False),
        pattern="TODO",
        path="src",
    ),
    _grep("없는말 있나 봐줘", [], pattern="없는말", path="memo.txt"),
    _grep(
        *("파이썬 파일에서 x = 1 찾아", ["1:x = 1"]),
        pattern="x = 1",
        path="src/u*.py",
    ),
    case("head", "로그 앞 세 줄", LOG.splitlines()[:3], path="app.log", lines=3),
    case("head", "로그 앞부분 보여줘", LOG.splitlines()[:10], path="app.log"),
    case("tail", "로그 끝 두 줄만", LOG.splitlines()[-2:], path="app.log", lines=2),
    case("tail", "메모 마지막 줄", ["TODO 셋째 줄"], path="memo.txt", lines=1),
    case("wc", "로그 몇 줄이야?", ["30 app.log"], path="app.log", options="-l"),
    case(
        "wc", "보고서 몇 글자야", ["4 내 문서/보고서.txt"], path="내 문서/보고서.txt", options="-m"
    ),
    case("wc", "메모 단어 수", ["7 memo.txt"], path="memo.txt", options="-w"),
    case("ps", "프로세스 목록", re.compile(r"PID.*COMMAND\n"), {}, False, options="aux"),
    case("ps", "1번 프로세스 뭐야", re.compile(r"\n +1 "), {}, False, options="-p 1"),
    case("df", "디스크 남은 용량", re.compile(r"Filesystem.*Avail.*\n"), {}, False, options="-h"),
    case("df", "디스크 종류까지", re.compile(r"Type"), {}, False, options="-hT"),
    case("du", "photos 용량 얼마야", re.compile(r"^\d.*\tphotos\n$"), path="photos", options="-sh"),
    case("du", "안쪽 폴더까지 용량", None, {}, True, False, path="src", options="-h --max-depth=1"),
    case("top", "시스템 상태 보여줘", re.compile(r"^top - .*\n(.*\n)*.*PID USER"), {}, False),
    case("top", "메모리 순으로 top", re.compile(r"%MEM"), {}, False, options="-o %MEM"),
    case("ping", "a.kr 살아 있어?", ["ping -c 4 -- a.kr"], {}, False, host="a.kr"),
    case("ping", "두 번만 핑", ["ping -c 2 -- 10.0.0.1"], {}, False, host="10.0.0.1", count=2),
    _curl("이 주소 열어줘", ["안녕하세요"], {}, False, url="http://{server}/hello"),
    _curl(
        "머리글만 보여줘", re.compile(r"^HTTP/1.0 200"), {}, False, url="{server}/", options="-I"
    ),
    _curl(
        *("넘겨 주면 따라가서 보여줘", ["안녕하세요"], {}, False),
        url="http://{server}/moved",
        options="-sL",
    ),
    case("chmod", "run.sh 실행 권한 줘", [], {"run.sh": 0o755}, mode="+x", path="run.sh"),
    case("chmod", "메모는 나만 보게", [], {"memo.txt": 0o600}, mode="600", path="memo.txt"),
    case(
        *("chmod", "사진 못 바꾸게 해줘", []),
        {"photos/1.jpg": 0o444, "photos/2.jpg": 0o444},
        mode="a-w",
        path="photos/*.jpg",
    ),
    _tar(
        *("src 폴더 압축해줘", [], {"src.tar.gz": "tar"}, False),
        operation="create",
        archive="src.tar.gz",
        files="src",
    ),
    _tar(
        *("메모랑 사진을 묶어줘", [], {"내 묶음.tar": "tar"}, False),
        operation="create",
        archive="내 묶음.tar",
        files="memo.txt photos",
    ),
    _tar(
        *("old.tar.gz에 뭐가 들었어?", ["packed/", "packed/a.txt", "memo.txt"]),
        operation="list",
        archive="old.tar.gz",
    ),
    _tar(
        *("old.tar.gz 풀어줘", []),
        {"packed": "/", "packed/a.txt": "묶음\n", "memo.txt": "옛 메모\n"},
        operation="extract",
        archive="old.tar.gz",
    ),
]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = "안녕하세요\n".encode()
        self.send_response(302 if self.path == "/moved" else 200)
        if self.path == "/moved":
            self.send_header("Location", "/hello")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format, *args):
        pass


@pytest.fixture(scope="module")
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


def fill(root):
    for name, content in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(0o644)
    (root / "link").symlink_to("memo.txt")
    packed = root.parent / "pack"
    (packed / "packed").mkdir(parents=True)
    (packed / "packed/a.txt").write_text("묶음\n")
    (packed / "memo.txt").write_text("옛 메모\n")
    with tarfile.open(root / "old.tar.gz", "w:gz") as tar:
        tar.add(packed / "packed", "packed")
        tar.add(packed / "memo.txt", "memo.txt")


def tree(root, exact=False):
    """Path -> content, or link's target, or "/"; with modes and times if exact."""
    found = {}
    for folder, folders, files in os.walk(root):
        if not exact and ".hybriko-trash" in folders:
            folders.remove(".hybriko-trash")
        for name in (*folders, *files, "."):
            path = os.path.normpath(os.path.join(folder, name))
            s = os.lstat(path)
            if stat.S_ISLNK(s.st_mode):
                held = f"-> {os.readlink(path)}"
            elif stat.S_ISDIR(s.st_mode):
                held = "/"
            else:
                with open(path, "rb") as f:
                    held = f.read()
            times = (stat.S_IMODE(s.st_mode), s.st_mtime_ns) if exact else ()
            found[os.path.relpath(path, root)] = (held, *times)
    return found


def modes(root):
    return {p: os.lstat(root / p).st_mode for p in tree(root)}


def expected_tree(before, change):
    after = dict(before)
    for path, value in change.items():
        if value is GONE:
            del after[path]
        elif isinstance(value, str):
            after[path] = ("/" if value == "/" else value.encode(),)
    return after


def test_there_are_sixty_over_all_tools():
    assert len(CASES) == 60
    assert {c.action for c in CASES} == {t.name for t in TOOLS} - {"Finish"}


@pytest.mark.parametrize("c", CASES, ids=range(len(CASES)))
def test_request(c, tmp_path, monkeypatch, server):
    root, copy, tools = tmp_path / "root", tmp_path / "copy", tmp_path / "bin"
    root.mkdir()
    fill(root)
    shutil.copytree(root, copy, symlinks=True)
    tools.mkdir()
    (tools / "ping").write_text('#!/bin/sh\necho ping "$@"\n')
    (tools / "ping").chmod(0o755)
    monkeypatch.setattr(process, "PATH", f"{tools}:{process.PATH}")
    arguments = {
        k: v.replace("{server}", server) if isinstance(v, str) else v
        for k, v in c.arguments.items()
    }
    where = Where(root, root, allow_private=True)
    before, exact = tree(root), tree(root, exact=True)

    plan = make_plan(c.action, arguments, where)
    assert tree(root, exact=True) == exact  # planning changes nothing
    result = run(plan, typed=plan.needs_typed_name or "")

    if isinstance(c.output, re.Pattern):
        assert c.output.search(result.output)
    elif c.output is not None:
        lines = result.output.splitlines()
        assert (lines if c.ordered else sorted(lines)) == c.output
    if c.action == "cd_command":
        assert result.cwd == {"src": root / "src", "..": tmp_path}[arguments["path"]]
    after = tree(root)
    for path, value in c.change.items():
        if value == "tar":
            listed = subprocess.run(
                ["tar", "--force-local", "-tf", root / path], capture_output=True, text=True
            )
            held = {line.rstrip("/") for line in listed.stdout.splitlines()}
            names = arguments["files"].split()
            want = {p for p in before if any(p == n or p.startswith(f"{n}/") for n in names)}
            assert listed.returncode == 0 and held == want
            after.pop(path)
        elif isinstance(value, int):
            assert stat.S_IMODE((root / path).stat().st_mode) == value
    assert after == expected_tree(before, {k: v for k, v in c.change.items() if v != "tar"})
    assert (result.undo is not None) == bool(c.change)

    if c.peer:
        shell = subprocess.run(
            *(["sh", "-c", command_line(c.action, arguments)],),
            capture_output=True,
            text=True,
            cwd=copy,
            env={"PATH": process.PATH, "LC_ALL": "C.UTF-8"},
        )
        assert tree(root) == tree(copy) and modes(root) == modes(copy)
        ours, theirs = result.output.splitlines(), (shell.stdout + shell.stderr).splitlines()
        if "-l" not in plan.argv and ".." not in ours:  # times; the trash is not shown
            assert (
                (ours, result.code) == (theirs, shell.returncode)
                if c.ordered
                else (
                    sorted(ours),
                    result.code,
                )
                == (sorted(theirs), shell.returncode)
            )

    if result.undo:
        assert all(result.undo.lines)
        result.undo.apply()
    assert tree(root, exact=True) == exact

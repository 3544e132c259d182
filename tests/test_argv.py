"""A call as an argument list: what is allowed, what it says, what is refused beforehand."""

import shutil

import pytest

from hybriko_jax.errors import UserError
from hybriko_jax.linux import TOOLS, Where, make_plan
from hybriko_jax.linux.messages import TEXTS


@pytest.fixture
def here(tmp_path):
    root = tmp_path / "root"
    (root / "docs").mkdir(parents=True)
    for name in ("a.txt", "b.txt", "run.sh", "docs/c.txt", "[과제] 1.txt", "내 문서.txt", "-rf"):
        (root / name).write_text(name)
    (root / "link").symlink_to(tmp_path)
    (tmp_path / "outside.txt").write_text("x")
    return Where(root, root)


@pytest.mark.parametrize(
    "action,arguments,argv",
    [
        ("ls_command", {"path": ".", "options": "-l -a"}, "ls|-l|-a|--|."),
        ("ls_command", {"path": "*.txt"}, "ls|--|[과제] 1.txt|a.txt|b.txt|내 문서.txt"),
        ("cat_command", {"path": "[*.txt"}, "cat|--|[과제] 1.txt"),
        # A name found by a pattern is never an option.
        ("wc_command", {"path": "*f", "options": "-l"}, "wc|-l|--|./-rf"),
        ("head_command", {"path": "내 문서.txt"}, "head|-n|10|--|내 문서.txt"),
        ("grep_command", {"pattern": "a b", "path": "docs"}, "grep|-n|-r|-e|a b|--|docs"),
        ("grep_command", {"pattern": "a", "path": "*.txt"}, None),
        ("find_command", {"path": ".", "name": "*.py"}, "find|.|-name|*.py"),
        ("rm_command", {"path": "a.txt"}, "rm|--|a.txt"),
        ("rm_command", {"path": "docs", "recursive": True}, "rm|-r|--|docs"),
        ("cp_command", {"source": "docs", "destination": "d2"}, "cp|-r|--|docs|d2"),
        ("mv_command", {"source": "*.sh", "destination": "docs"}, "mv|--|run.sh|docs"),
        ("chmod_command", {"mode": "u+x,go-w", "path": "run.sh"}, "chmod|--|u+x,go-w|run.sh"),
        ("ps_command", {"options": "aux --sort=-%mem"}, "ps|aux|--sort=-%mem"),
        ("top_command", {}, "top|-b|-n|1"),
        ("top_command", {"options": "-d 5 -u a-b -n 3"}, "top|-b|-n|1|-u|a-b"),
        ("ping_command", {"host": "192.168.0.1", "count": 10**6}, "ping|-c|10|--|192.168.0.1"),
        ("curl_command", {"url": "example.com/가?a=1&b=[2]"}, None),
        ("curl_command", {"url": "http://예.kr:8080"}, "curl|--|http://xn--2j5b.kr:8080"),
        ("tar_command", {"operation": "create", "archive": "x.tgz", "files": "a.txt docs"}, None),
        ("cd_command", {"path": "docs"}, "cd|--|docs"),
    ],
)
def test_argument_lists(here, action, arguments, argv):
    plan = make_plan(action, arguments, here)
    got = "|".join(plan.argv)
    expected = argv or {
        "grep_command": "grep|-n|-e|a|--|[과제] 1.txt|a.txt|b.txt|내 문서.txt",
        "curl_command": "curl|--|http://example.com/%EA%B0%80?a=1&b=[2]",
        "tar_command": "tar|-czf|x.tgz|--|a.txt|docs",
    }.get(action)
    assert got == expected
    assert plan.writes == (plan.tool in ("rm", "cp", "mv", "chmod", "mkdir", "tar"))


@pytest.mark.parametrize(
    "action,arguments,message",
    [
        ("fly_command", {}, "not a tool"),
        ("Finish", {"return_type": "give_answer"}, "실행할 수 없는"),
        ("ls_command", {"path": ".", "options": "--color=$(id)"}, "쓸 수 없는 옵션"),
        ("ls_command", {"path": ".", "options": "-l; id"}, "쓸 수 없는 옵션"),
        ("ps_command", {"options": "-u 'a b'"}, "쓸 수 없는 옵션"),
        ("top_command", {"options": "-u root;id"}, "쓸 수 없는 옵션"),
        ("du_command", {"path": ".", "options": "--files0-from=x"}, "쓸 수 없는 옵션"),
        ("wc_command", {"path": "a.txt", "options": "--files0-from=x"}, "쓸 수 없는 옵션"),
        *(
            ("curl_command", {"url": "http://a.kr", "options": o}, "파일로 저장하지는")
            for o in ("-O", "-o x", "-sO", "-LO", "--output x", "-sox")
        ),
        *(
            ("curl_command", {"url": "http://a.kr", "options": o}, "쓸 수 없는 옵션")
            for o in ("-K x", "-x http://p", "-d @/etc/passwd", "-T a.txt", "-X TRACE", "-b x")
        ),
        *(
            ("curl_command", {"url": u}, "http나 https")
            for u in (
                *("file:///etc/passwd", "ftp://a.kr", "gopher://a", "http://u:p@a.kr", "http://"),
                *("http://a\\b", "http://a b", "dict://a", "file:/etc/passwd", "http://a:99999"),
                *("http://a.kr:0", "javascript:alert(1)", "http://[::1", "http://[fe80::1%25lo]/"),
            )
        ),
        ("ping_command", {"host": "a;id"}, "호스트 이름이나"),
        ("ping_command", {"host": "-f"}, "'-'로 시작"),
        ("ping_command", {"host": "a.kr", "count": 0}, "1 이상"),
        ("head_command", {"path": "a.txt", "lines": -1}, "줄 수"),
        ("tail_command", {"path": "a.txt", "lines": 10**9}, "줄 수"),
        *(
            ("chmod_command", {"mode": m, "path": "a.txt"}, "쓸 수 없는 권한")
            for m in ("4755", "u+s", "+t", "999", "rwx", "--reference=b.txt", "7", "a+x;id")
        ),
        *(("rm_command", {"path": p}, "'-'로 시작") for p in ("-rf", "--", "--no-preserve-root")),
        *(
            ("cat_command", {"path": p}, "제어 문자")
            for p in ("a\nb", "a\0", "a\x1b[2J", "a\u202eb")
        ),
        ("cat_command", {"path": "\ud800"}, "제어 문자"),
        ("grep_command", {"pattern": "a\nb", "path": "a.txt"}, "제어 문자"),
        ("find_command", {"path": ".", "name": "-delete"}, "'-'로 시작"),
        ("find_command", {"path": "-delete", "name": "x"}, "'-'로 시작"),
        ("cat_command", {"path": "none.txt"}, "none.txt: 그런 파일이나 폴더가 없습니다"),
        ("cat_command", {"path": "docs"}, "docs: 폴더입니다"),
        ("cat_command", {"path": "none*"}, "맞는 파일이 없습니다"),
        ("cat_command", {"path": "/dev/zero"}, "보통 파일이나 폴더가 아니라서"),
        ("cat_command", {"path": "a" * 300}, "없습니다|이름이 너무 깁니다"),
        ("cd_command", {"path": "a.txt"}, "폴더가 아닙니다"),
        ("cd_command", {"path": "-"}, "앞서 있던 폴더"),
        ("find_command", {"path": "*.txt", "name": "x"}, "여러 개가 맞습니다"),
        ("mkdir_command", {"path": "new*"}, "새 이름에는"),
        ("mkdir_command", {"path": "docs"}, "이미 있습니다"),
        ("mkdir_command", {"path": "a/b/c"}, "폴더를 먼저 만들어"),
        *(
            ("mkdir_command", {"path": p}, "밖입니다")
            for p in ("../x", "link/x", "docs/../../x", "/tmp/x", "~/x", "docs/../link/x")
        ),
        ("rm_command", {"path": "link/outside.txt"}, "밖입니다"),
        ("rm_command", {"path": "docs"}, "docs: 폴더입니다"),
        *(("rm_command", {"path": p, "recursive": True}, "지우거나 옮길 수 없") for p in "./~"),
        ("rm_command", {"path": "..", "recursive": True}, "지우거나 옮길 수 없"),
        ("rm_command", {"path": "docs/..", "recursive": True}, "지우거나 옮길 수 없"),
        ("mv_command", {"source": ".", "destination": "docs"}, "지우거나 옮길 수 없"),
        ("mv_command", {"source": "a.txt", "destination": ".."}, "밖입니다"),
        ("mv_command", {"source": "link/outside.txt", "destination": "."}, "밖입니다"),
        ("mv_command", {"source": "docs", "destination": "docs/in"}, "자기 안으로"),
        ("mv_command", {"source": "*.txt", "destination": "run.sh"}, "이미 있는 폴더여야"),
        ("mv_command", {"source": "a.txt", "destination": "new/"}, "폴더를 먼저 만들어"),
        ("cp_command", {"source": "a.txt", "destination": "a.txt"}, "자기 자신"),
        ("cp_command", {"source": "docs", "destination": "a.txt"}, "이미 있습니다"),
        ("cp_command", {"source": "a.txt", "destination": "link"}, "밖입니다"),
        (
            "cp_command",
            {"source": "/dev/zero", "destination": "z"},
            "보통 파일이나 폴더가 아니라서",
        ),
        ("chmod_command", {"mode": "777", "path": "link"}, "밖입니다"),
        ("chmod_command", {"mode": "777", "path": "../outside.txt"}, "밖입니다"),
        ("mkdir_command", {"path": ".hybriko-trash"}, "휴지통입니다"),
        ("tar_command", {"operation": "create", "archive": "x.tar"}, "무엇을 묶을지"),
        (
            "tar_command",
            {"operation": "create", "archive": "x.zip", "files": "docs"},
            "tar 파일이 아",
        ),
        (
            "tar_command",
            {"operation": "create", "archive": "../x.tar", "files": "docs"},
            "밖입니다",
        ),
        ("tar_command", {"operation": "extract", "archive": "none.tar"}, "없습니다"),
    ],
)
def test_refused_before_anything_runs(here, action, arguments, message, monkeypatch):
    if arguments.get("path") == "~":
        monkeypatch.setenv("HOME", str(here.root.parent))
    with pytest.raises(UserError, match=message) as caught:
        make_plan(action, arguments, here)
    assert "\n" not in str(caught.value) and str(caught.value).isprintable()


def test_a_jail_confines_reading_too(here):
    jail = Where(here.root, here.root, jail=True)
    outside = here.root.parent / "outside.txt"
    for path in ("../outside.txt", "link/outside.txt", str(outside), "/etc/passwd", "/none", "~"):
        make_plan("ls_command", {"path": "."}, jail)
        with pytest.raises(UserError, match="밖은 볼 수 없습니다"):
            make_plan("ls_command", {"path": path}, jail)
    with pytest.raises(UserError, match="밖은 볼 수 없습니다"):
        make_plan("cp_command", {"source": str(outside), "destination": "x"}, jail)
    with pytest.raises(UserError, match="밖은 볼 수 없습니다"):
        make_plan("cd_command", {"path": ".."}, jail)
    with pytest.raises(UserError, match="밖은 볼 수 없습니다"):
        Where(here.root, here.root.parent, jail=True)
    assert make_plan("cat_command", {"path": str(outside)}, here).reads == (outside,)


def test_what_a_pattern_matches_of_files_and_folders(here):
    """Folders stay where a file is needed, as with rm; a folder is not moved into itself."""
    plan = make_plan("rm_command", {"path": "*"}, here)
    assert here.root / "docs" not in plan.changes and here.root / "a.txt" in plan.changes
    assert plan.needs_typed_name is None
    plan = make_plan("rm_command", {"path": "d*", "recursive": True}, here)
    assert plan.needs_typed_name == "docs"
    plan = make_plan("mv_command", {"source": "*", "destination": "docs"}, here)
    assert here.root / "docs" not in plan.reads and len(plan.pairs) == 7
    assert here.root / "link" in plan.reads  # the link goes, not what it leads to


EXPLAINED = [
    ("ls_command", {"path": "docs", "options": "-la"}, "docs 안에 있는 것", "-l: 자세히, -a: 숨은"),
    ("rm_command", {"path": "docs", "recursive": True}, "안에 든 것까지 모두", ""),
    ("rm_command", {"path": "a.txt", "recursive": True}, "a.txt 파일을 지웁니다", ""),
    ("cp_command", {"source": "a.txt", "destination": "b.txt"}, "a.txt → b.txt", "이미 있는 b.txt"),
    ("chmod_command", {"mode": "750", "path": "run.sh"}, "주인 읽기·쓰기·실행", "다른 사람 없음"),
    ("chmod_command", {"mode": "u+x,go-w", "path": "run.sh"}, "주인: 실행 더하기", "빼기"),
    ("chmod_command", {"mode": "+x", "path": "run.sh"}, "모두: 실행 더하기", ""),
    ("ps_command", {"options": "-u root"}, "프로세스", "-u root: 이 사용자"),
    ("du_command", {"path": ".", "options": "-h --max-depth=1"}, "크기", "--max-depth=1: 이 깊이"),
    ("top_command", {"options": "-d 3"}, "한 번", ""),
    ("ping_command", {"host": "a.kr", "count": 99}, "10번", ""),
    ("curl_command", {"url": "http://a.kr", "options": "-X DELETE"}, "http://a.kr", "바꿀 수 있는"),
    ("find_command", {"path": ".", "name": "*.py"}, "이름이 *.py인", ""),
    ("grep_command", {"pattern": "TODO", "path": "docs"}, "'TODO'", ""),
    ("wc_command", {"path": "a.txt", "options": "-l"}, "a.txt", "-l: 줄 수"),
    ("tail_command", {"path": "a.txt", "lines": 3}, "끝 3줄", ""),
    ("tar_command", {"operation": "create", "archive": "x.tar", "files": "docs"}, "묶습니다", ""),
]


@pytest.mark.parametrize("action,arguments,said,also", EXPLAINED)
def test_explanations(here, action, arguments, said, also):
    plan = make_plan(action, arguments, here)
    assert said in plan.explanation and also in plan.explanation
    assert plan.writes == (plan.tool in ("rm", "cp", "chmod", "tar") or "-X" in plan.line)
    english = make_plan(action, arguments, Where(here.root, here.root, lang="en"))
    hangul = [c for c in english.explanation + english.undo if "가" <= c <= "힣"]
    assert not hangul and english.explanation.endswith(".")
    assert (plan.undo == "") == (english.undo == "") == (not plan.changes)


def test_every_message_has_both_languages_and_the_same_values():
    from string import Formatter

    for ko, en in TEXTS.values():
        names = [{name for _, name, _, _ in Formatter().parse(text) if name} for text in (ko, en)]
        assert names[0] == names[1] and ko.endswith((".", "}")) and en.endswith((".", "}"))


def test_planning_changes_nothing_and_plans_are_equal(here):
    for action, arguments, *_ in EXPLAINED:
        assert make_plan(action, arguments, here) == make_plan(action, arguments, here)
    assert len(TOOLS) == 21
    shutil.rmtree(here.root)
    with pytest.raises(UserError, match="작업할 폴더가 없습니다"):
        Where(here.root, here.root)

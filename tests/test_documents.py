"""Documents are cut into pieces and put together again without a byte lost."""

import csv
import io
import json
import random
import re

import pytest
from markdown_it import MarkdownIt

from hybriko_jax.errors import UserError
from hybriko_jax.translation.documents import Layout, pieces, put_back
from hybriko_jax.translation.kept import KEPT, fragments
from hybriko_jax.translation.sentences import cut, sentences

MARKDOWN = r"""---
title: Never touched
---
# A *big* title ##

First sentence of a paragraph
that goes on. Second one with `code. Here` in it!  
After a hard break.

> A quote with [the Hub](https://hf.co/a_(b) "title"), and
> more of it.
lazy line

1. [ ] Do this.
   - [Only a link](#a)
   - **All bold.**

Underlined
===

| Head a \| b | **c** |
|:--|---|
| 1 | use `x \| y` here |
| two words |

<div>
html text
</div>

[ref]: http://example.com/x "never"

![image](a.png) See <b>this</b> and <https://a.com/x>.

```python
code = "never touched"
```

    indented code

[^1]: A note for you.

> [!NOTE]
> Be careful &amp; wait.
"""
SUBTITLES = """1
00:00:01,000 --> 00:00:02,500
Where are you
going now?

2
00:01:00.000 --> 00:01:02.000 X1:1 X2:2
<i>I am {\\an8}here.</i>
- No. 7!

"""
TABLE = 'id\ten\tnote\n1\tOne thing. Another.\tkeep "it"\n2\t\t\n3\tLast one\tx\n'
QUOTED = 'en\tid\n"He said ""no"". Then:\nnext line\there"\t1\nplain\t2\n'
LINES = (
    '{"id": 1, "text":"Say \\"hi\\" \\ud83d\\ude00. Bye \\u00e9\\/x.\\nNew line", "n": [1, {}]}\n\n'
    '{"text": null}\n { "text" : "Two" }\n{"text": "\\ud800 broken"}'
)
PLAIN = """Title

- One thing. Another thing!
  1) Numbered
\tIndented with a tab.
This is a line that is so long that its writer has wrapped it
into the next one, where it ends. And 3.14 is v1.2. of https://a.com/b.

끝.
"""
FILES = {
    "txt": ("txt", PLAIN),
    "md": ("md", MARKDOWN),
    "srt": ("srt", SUBTITLES),
    "tsv": ("tsv", TABLE),
    "tsv, quoted": ("tsv", QUOTED),
    "jsonl": ("jsonl", LINES),
}


def upper(file, layout):
    """All pieces in capitals: a translation that any reader can undo or look for."""
    found = pieces(file, layout)
    kept = KEPT[layout.format]
    texts = {p.text for p in found}
    parts = {t: fragments(t, kept) for t in texts}
    said = {t: "".join(p if i % 2 else p.upper() for i, p in enumerate(parts[t])) for t in texts}
    return put_back(found, said)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["n", "rn", "r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["", "mark"])
@pytest.mark.parametrize("tail", ["as is", "no end", "spaces"])
@pytest.mark.parametrize("form,file", FILES.values(), ids=FILES)
def test_pieces_are_the_file(form, file, end, mark, tail):
    file = {"as is": file, "no end": file.rstrip("\n"), "spaces": file + "\n \t\n"}[tail]
    if form == "jsonl" and end == "\r":
        end = "\n"
    if "\there" in file:  # a quoted cell has line ends of its own
        end = "\n"
    file = mark + file.replace("\n", end)
    if form == "tsv" and tail == "spaces":
        file = file.removesuffix(f"{end} \t{end}")
    layout = Layout(form, "en")
    found = pieces(file, layout)
    assert "".join(p.raw for p in found) == file
    assert put_back(found, {}) == put_back(found, {p.text: p.text for p in found}) == file
    texts = [p for p in found if p.text]
    assert len(texts) >= 3
    lines = re.split("\r\n|\r|\n", file)
    for p in texts:
        assert not re.search(r"[\t\r\n]|^\s|\s$", p.text)
        assert re.split("\r\n|\r|\n", p.raw)[0] in lines[p.line - 1]


@pytest.mark.parametrize("form", ["txt", "md"])
@pytest.mark.parametrize("seed", range(30))
def test_pieces_of_noise_are_the_noise(form, seed):
    words = [*"#>|`*_[](){}<>!~-+.\\\"'&%\t 가a1", "\n", "\n\n", "\r\n", "  \n", "```", "---\n"]
    words += ["다. ", "Hi. ", "1. ", "- ", "](u)", "![", "<b>", "https://a.b/c", "\u200d😀", "\x0b"]
    rng = random.Random(seed)
    file = "".join(rng.choices(words, k=400))
    layout = Layout(form, "en", longest=rng.choice((8, 40, 600)))
    found = pieces(file, layout)
    assert "".join(p.raw for p in found) == file
    for text in (p.text for p in found):
        assert "".join(fragments(text, KEPT[form])) == text


SENTENCES = {
    "ko": [
        ["설치했다.", "그리고 v1.2.3을 켰다.", "값은 3.14이다!", "정말요?", "네."],
        ['그는 "정말? 좋아." 라고 말했다.', "끝."],
        ['그가 "가. 나."라고 했다.', "좋아요!!", "그래요."],
        ["https://a.com/b.c를 보라.", "(예: 이것. 저것.) 다음이다."],
    ],
    "en": [
        ["Dr. Smith paid $3.50 for it.", "He left.", "See e.g. Fig. 2 in v1.2."],
        ['"What?" he said.', "Wait... no!", "Really?", "Yes."],
        ["Go to https://a.com/x.y?z=1.", "(See this. And that.) Use node.js now."],
    ],
}


@pytest.mark.parametrize(
    "language,expected", [(k, s) for k, v in SENTENCES.items() for s in v], ids=str
)
def test_sentences(language, expected):
    text = "  " + " \t ".join(expected) + "\n"
    spans = sentences(text, language, KEPT["txt"])
    assert [text[i:j] for i, j in spans] == expected


def test_no_space_behind_a_sentence():
    text = "설치했다.그리고 켰다. 가.나.다.라 순서다."
    assert [text[i:j] for i, j in sentences(text, "ko")] == [
        "설치했다.",
        "그리고 켰다.",
        "가.나.다.라 순서다.",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "가나다라마바사" * 30,
        "word, and " * 30,
        "e\u0301" * 100,
        "👩\u200d👩\u200d👧" * 40,
        "a `code span here` b " * 12,
        "😀" * 90,
    ],
    ids=range(6),
)
def test_cuts_lose_nothing_and_fit(text):
    def fits(part):
        return len(part.encode()) <= 60

    spans = list(cut(text, fits, 40, KEPT["md"]))
    parts = [text[i:j] for i, j in spans]
    assert "".join(parts) == text
    assert all(fits(part) and len(part) <= 40 for part in parts)
    for part in parts[1:]:
        assert part[0] not in "\u0301\u200d"
    assert text.count("`") == 2 * sum(part.count("`code span here`") for part in parts)


@pytest.mark.parametrize(
    "form,line",
    [
        ("txt", "Hello world, this is it. " * 40_000),
        ("txt", "가나다라마 " * 170_000),
        ("md", "See `code` and **[x](y)**, or " * 33_000),
        ("jsonl", '{"text": "' + 'Say \\"hi\\" to them ' * 50_000 + '"}'),
        ("tsv", "a word " * 140_000),
    ],
    ids=["sentences", "no marks", "md", "jsonl", "tsv"],
)
@pytest.mark.slow
def test_a_line_of_a_megabyte(form, line):
    found = pieces(line, Layout(form, "en"))
    assert "".join(p.raw for p in found) == line
    assert len(found) > 1000 and max(len(p.text) for p in found) <= 600


def structure(markdown):
    """What must stay: the kinds of all tokens, code, addresses and HTML."""
    found = []
    for token in MarkdownIt("commonmark").enable("table").parse(markdown):
        found.append((token.type, token.markup, token.info))
        if token.type in ("fence", "code_block", "html_block"):
            found.append(token.content)
        for child in token.children or ():
            if child.type in ("code_inline", "html_inline"):
                found.append((child.type, child.content))
            elif child.type in ("link_open", "image"):
                found.append((child.type, child.attrs))
    return found


def test_markdown_keeps_its_structure():
    said = upper(MARKDOWN, Layout("md", "en"))
    assert structure(said) == structure(MARKDOWN)
    for text in ("A *BIG* TITLE", "MORE OF IT.", "| HEAD A \\| B | **C** |", "ONLY A LINK"):
        assert text in said
    for text in ("title: Never touched", "html text", 'code = "never touched"', '"never"'):
        assert text in said
    kept = ("Never touched", "html text", "never touched", "indented code", '"never"')
    body = KEPT["md"].sub("", said)
    for text in kept:
        body = body.replace(text, "")
    assert not re.search("[a-z]{4}", body.replace("title:", "").replace("python", ""))


@pytest.mark.parametrize(
    "output", ["# 제목", "- 목록", "1. 첫째", "> 인용", "~~~", "`반쪽", "**반쪽", "+ 더하기"]
)
def test_a_translation_makes_no_markdown_of_its_own(output):
    file = "A sentence here.\n\nAnother one.\n"
    found = pieces(file, Layout("md", "en"))
    said = put_back(found, {"A sentence here.": output})
    tokens = MarkdownIt("commonmark").parse(said)
    assert [t.type for t in tokens] == ["paragraph_open", "inline", "paragraph_close"] * 2
    assert {c.type for c in tokens[1].children or ()} == {"text"}


def test_subtitles_keep_numbers_timing_and_lines():
    said = upper(SUBTITLES, Layout("srt", "en")).split("\n")
    assert [line.upper() for line in SUBTITLES.split("\n")][2:4] == said[2:4]
    for before, after in zip(SUBTITLES.split("\n"), said, strict=True):
        if "-->" in before or before.isdecimal() or not before:
            assert after == before
    assert "<i>I AM {\\an8}HERE.</i>" in said and "- NO. 7!" in said


def test_a_table_keeps_its_other_columns():
    rows = [line.split("\t") for line in upper(TABLE, Layout("tsv", "en")).split("\n")]
    expected = [line.split("\t") for line in TABLE.split("\n")]
    for row in expected[1:-1]:
        row[1] = row[1].upper()
    assert rows == expected
    said = upper(TABLE, Layout("tsv", "en", column="3"))
    assert said == TABLE.replace('keep "it"', 'KEEP "IT"').replace("note", "NOTE").replace("x", "X")
    quoted = list(csv.reader(io.StringIO(upper(QUOTED, Layout("tsv", "en"))), delimiter="\t"))
    assert [row[1] for row in quoted] == ["id", "1", "2"]
    assert [row[0].split() for row in quoted] == [
        ["en"],
        ["HE", "SAID", '"NO".', "THEN:", "NEXT", "LINE", "HERE"],
        ["PLAIN"],
    ]


def test_objects_keep_their_other_fields():
    said = upper(LINES, Layout("jsonl", "en")).split("\n")
    first = json.loads(said[0])
    assert first == {"id": 1, "text": 'SAY "HI" 😀. BYE É/X.\nNEW LINE', "n": [1, {}]}
    assert said[1:] == ["", '{"text": null}', ' { "text" : "TWO" }', LINES.split("\n")[-1]]


BAD = {
    "timing": ("srt", SUBTITLES.replace("--> 00:01:02", "-> 00:01:02"), "7번째 줄.*시간 줄이"),
    "backwards": ("srt", SUBTITLES.replace("00:01:00.0", "00:01:03.0"), "7번째 줄.*빠릅"),
    "no timing": ("srt", "1\nHello there\n", "2번째 줄.*시간 줄이"),
    "cut off": ("srt", "1", "1번째 줄.*시간 줄이"),
    "no number": ("srt", "Hello there\n", "1번째 줄: 자막 번호"),
    "not JSON": ("jsonl", '{"text": "a"}\n{"text": \n', "2번째 줄: JSON"),
    "list": ("jsonl", '["text"]\n', "1번째 줄: JSON"),
    "no field": ("jsonl", '{"a": "b", "c": 1}\n', "있는 이름: a, c"),
    "columns": ("tsv", "a\tb\nc\td\n", r"열이 2개입니다\(a, b\)"),
}  # fmt: skip


@pytest.mark.parametrize("form,file,message", BAD.values(), ids=BAD)
def test_a_bad_file_is_one_line(form, file, message):
    with pytest.raises(UserError, match=message) as e:
        pieces(file, Layout(form, "en"))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "option,shown", [("x", "첫 줄에 있는 것: id, en, note"), ("9", "열이 3개")]
)
def test_a_column_that_is_not_there(option, shown):
    with pytest.raises(UserError, match=shown):
        pieces(TABLE, Layout("tsv", "en", column=option))

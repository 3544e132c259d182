"""Translations for people: figures as text, and one HTML page with all texts side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from hybriko_jax.evaluate.translation import (
    FAULTS,
    RESAMPLES,
    Evaluation,
    Figure,
    Scores,
    sentence_scores,
)

# Nothing is fetched, whatever a text holds.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --line: #ccc; --head: #f3f3f3; --note: #666; }
@media (prefers-color-scheme: dark) { :root { --line: #444; --head: #222; --note: #aaa; } }
body { font: 15px/1.5 system-ui, sans-serif; background: Canvas; color: CanvasText; margin: 2em; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { border: 1px solid var(--line); padding: .3em .6em; text-align: left; vertical-align: top; }
th { background: var(--head); }
.texts { width: 100%; }
.texts th { position: sticky; top: 0; }
.texts td { white-space: pre-wrap; overflow-wrap: anywhere; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
button { font: inherit; font-weight: bold; color: inherit; background: none; border: 0; padding: 0;
  cursor: pointer; }
[aria-sort=ascending] button::after { content: " \\25B2"; }
[aria-sort=descending] button::after { content: " \\25BC"; }
.note { color: var(--note); overflow-wrap: anywhere; }
"""
# A column's cells are numbers where its first one is.
_SCRIPT = """
for (const button of document.querySelectorAll("th button")) {
  button.onclick = () => {
    const head = button.parentNode, body = head.closest("table").tBodies[0];
    const up = head.getAttribute("aria-sort") !== "ascending";
    const cell = row => row.cells[head.cellIndex].textContent;
    const numbers = body.rows.length && body.rows[0].cells[head.cellIndex].className === "number";
    const compare = numbers ? (a, b) => cell(a) - cell(b)
                            : (a, b) => cell(a).localeCompare(cell(b));
    const rows = [...body.rows].sort((a, b) => (up ? 1 : -1) * compare(a, b));
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    body.append(...rows);
  };
}
"""


def page(title: str, evaluations: Sequence[Evaluation]) -> str:
    """Figures and texts of each direction; the sentences of the lowest chrF come first.

    A click on the head of a column sorts by it. All that is not ours is escaped.
    """
    parts = "\n".join(map(_direction, evaluations))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p class="note">{explanation()}</p>
{parts}
<script>{_SCRIPT}</script>
</body>
</html>
"""


def explanation() -> str:
    """What stands behind the figures."""
    return (
        f"±: half the 95 % interval of {RESAMPLES:,} bootstrap resamples. p: how likely chance "
        "makes so large a difference from the model."
    )


def shown(figure: Figure) -> str:
    """A figure for people."""
    p = "" if figure.p is None else f" (p {figure.p:.3f})"
    return f"{figure.score:.2f} ± {figure.ci:.2f}{p}"


def rows_of_scores(evaluation: Evaluation) -> list[tuple[str, ...]]:
    """(label, sentences, system, figures ...) of all items, and of each label."""

    def rows(label: str, scores: Scores) -> list[tuple[str, ...]]:
        return [
            (label, f"{scores.sentences:,}", system, *map(shown, figures.values()))
            for system, figures in scores.figures.items()
        ]

    found = rows("all", evaluation.whole)
    for label, scores in evaluation.by_label.items():
        found += rows(label or "(none)", scores)
    return found


def faults_shown(faults: Mapping[str, int], of: int) -> str:
    """Counts for people."""
    counts = ", ".join(f"{n:,} {name}" for name, n in faults.items())
    return f"{counts}, of {of:,} outputs"


def _direction(e: Evaluation) -> str:
    n = len(e.items)
    signatures = "<br>".join(escape(f"{m}: {s}") for m, s in e.whole.signatures.items())
    counts = "<br>".join(
        escape(f"{name}: {faults_shown(counts, n)}") for name, counts in e.faults.items()
    )
    head = ("from", "sentences", "", *e.whole.signatures)
    return f"""<section>
<h2>{escape(e.source)} → {escape(e.target)}</h2>
<table><thead>{_row("th", head)}</thead>
<tbody>{"".join(_row("td", row) for row in rows_of_scores(e))}</tbody></table>
<p>{counts}</p>
<p class="note">{signatures}</p>
{_texts(e)}
</section>"""


def _row(tag: str, cells: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _texts(e: Evaluation) -> str:
    chrf = {name: sentence_scores(e.items, outputs) for name, outputs in e.outputs.items()}
    first = next(iter(chrf.values()))
    heads = ["#", *(f"chrF, {name}" for name in chrf), "source", *chrf, "reference", "from", "note"]
    worst_first = ' aria-sort="ascending"'
    head = "".join(
        f'<th{worst_first if i == 1 else ""}><button type="button">{escape(text)}</button></th>'
        for i, text in enumerate(heads)
    )
    rows = []
    for i in sorted(range(len(e.items)), key=lambda i: first[i]):
        item, outputs = e.items[i], {name: of[i] for name, of in e.outputs.items()}
        notes = [
            f"{name}: {fault}"
            for name, output in outputs.items()
            for fault, has in FAULTS.items()
            if has(item, output)
        ]
        numbers = [str(i + 1), *(f"{scores[i]:.1f}" for scores in chrf.values())]
        texts = [(e.source, item.source)]
        texts += [(e.target, output.text) for output in outputs.values()]
        texts += [(e.target, item.reference)]
        cells = [f'<td class="number">{number}</td>' for number in numbers]
        cells += [f'<td lang="{escape(lang)}">{escape(text)}</td>' for lang, text in texts]
        cells += [f"<td>{escape(text)}</td>" for text in (item.label, "\n".join(notes))]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    body = "\n".join(rows)
    return f'<table class="texts"><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>'

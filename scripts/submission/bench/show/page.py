"""A page to take away.

`report.html`: tables, plots and samples in one file that needs no network.
"""

import base64
import html
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from submission.bench.show.evaluate import Answered
from submission.bench.show.report import (
    domain_table,
    first_failures,
    kinds_table,
    results_table,
    samples_table,
)

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 }
td, th { border: 1px solid #999; padding: .3rem .6rem; vertical-align: top; text-align: left }
img { max-width: 100% }
code { white-space: pre-wrap; overflow-wrap: anywhere }
"""


def tables_as_html(markdown: str) -> str:
    """Paragraphs and pipe tables, which is all that our tables have.

    >>> tables_as_html("| a | b |\\n|---|---|\\n| 1 | 2 |")
    '<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>'
    """
    blocks = []
    for block in markdown.split("\n\n"):
        lines = block.strip().splitlines()
        if not lines or not lines[0].startswith("|"):
            blocks.append(f"<p>{html.escape(block)}</p>")
            continue
        rows = []
        for number, line in enumerate(lines):
            cells = [html.escape(cell.strip()) for cell in line.strip("|").split("|")]
            tag = "td" if number else "th"
            if number != 1:
                rows.append("".join(f"<{tag}>{cell}</{tag}>" for cell in cells))
        blocks.append(f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>")
    return "\n".join(blocks)


def picture(path: pathlib.Path) -> str:
    """A picture inside the page."""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{html.escape(path.stem)}" src="data:image/png;base64,{data}">'


def write_page(
    path: pathlib.Path,
    results: Mapping[str, Any],
    answers: Mapping[str, Sequence[Answered]],
    plots: Sequence[pathlib.Path],
    samples: int,
) -> None:
    """Writes the page."""
    title = f"{results['model']}, {results['recipe']}, seed {results['seed']}"
    failures = first_failures(answers, samples)
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        tables_as_html(results_table(results)),
        "<h2>By domain</h2>",
        tables_as_html(domain_table(results)),
        "<h2>What became of the answers</h2>",
        tables_as_html(kinds_table(answers)),
        *(picture(plot) for plot in plots if plot.exists()),
        f"<h2>The first {samples} held-out rows</h2>",
        samples_table(answers, samples),
        "<h2>The first held-out rows that it gets wrong in the end</h2>",
        samples_table(failures, samples),
    ]
    body = "\n".join(parts)
    path.write_text(
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{html.escape(title)}'
        f"</title><style>{STYLE}</style>\n{body}\n</html>\n"
    )

"""A notebook as one page that needs no network: folded cells closed, as Kaggle shows them.

python scripts/notebooks/page.py submission.ipynb -o page.html
"""

from __future__ import annotations

import argparse
import html
import pathlib
import re

import nbformat
from nbconvert import HTMLExporter
from nbformat import NotebookNode

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: .5rem 0; font-size: 14px }
td, th { border: 1px solid #999; padding: .2rem .5rem; vertical-align: top; text-align: left }
img, svg { max-width: 100% }
code { overflow-wrap: anywhere }
pre { font: 13px/1.45 monospace; white-space: pre-wrap; overflow-wrap: anywhere; margin: .3rem 0 }
.highlight { background: #f6f6f6; padding: .4rem .8rem; border-left: 3px solid #bbb }
details { margin: .5rem 0; color: #555 }
.anchor-link, .prompt { display: none }
"""


def page(notebook: NotebookNode, title: str = "Gemma, show your work") -> str:
    """The notebook as HTML, without scripts."""
    shown, folded = nbformat.from_dict(notebook), []
    for i, cell in enumerate(shown.cells):
        if cell.cell_type == "code" and cell.metadata.get("_kg_hide-input"):
            shown.cells[i] = nbformat.v4.new_markdown_cell(f"FOLDED-{len(folded)}-CELL")
            folded.append(cell.source)
    exporter = HTMLExporter(template_name="basic", exclude_anchor_links=True)
    body, _ = exporter.from_notebook_node(shown)
    body = re.sub(r"<script.*?</script>|<link[^>]*>", "", body, flags=re.DOTALL)
    for i, source in enumerate(folded):
        bar = f"<details><summary>{source.count(chr(10)) + 1} lines of code</summary>"
        whole = f"{bar}<pre>{html.escape(source)}</pre></details>"
        body = body.replace(f"<p>FOLDED-{i}-CELL</p>", whole)
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{html.escape(title)}'
        f"</title><style>{STYLE}</style>\n{body}\n</html>\n"
    )


def main() -> None:
    """Writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("notebook", type=pathlib.Path)
    parser.add_argument("-o", "--output", type=pathlib.Path, required=True)
    options = parser.parse_args()
    options.output.write_text(page(nbformat.read(options.notebook, as_version=4)))


if __name__ == "__main__":
    main()

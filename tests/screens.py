"""Counts the screens of the notebook, as a browser shows it with its folded cells closed.

    python tests/screens.py [NOTEBOOK] [--picture FILE]

A screen is 1,100 x 900. A folded cell is one line. Prints how many screens there are, and on which
one each thing stands that a reader looks for.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import tempfile

import nbformat
from nbconvert import HTMLExporter

ROOT = pathlib.Path(__file__).resolve().parent.parent
WIDTH, HEIGHT = 1100, 900
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
LANDMARKS = {  # the first place where this text stands
    "result": "after GRPO",
    "how to run": "How to run it",
    "prompt": "turn format",
    "settings": "profile says where we run",
    "data counts": "trace, tokens",
    "reward": "def reward_right",
    "learner": "learner = TrimmedLearner",
}
PROBE = """<script>window.onload = () => {
  const at = {}
  for (const [name, text] of Object.entries(%s)) {
    const found = [...document.querySelectorAll("p, td, th, pre, h3")]
      .find(x => x.textContent.includes(text))
    if (!found) continue
    let y = found.getBoundingClientRect().top + scrollY
    if (found.tagName === "PRE") {  // the line, not the cell
      const before = found.textContent.split(text)[0].split("\\n").length - 1
      y += before * found.getBoundingClientRect().height / found.textContent.split("\\n").length
    }
    at[name] = y
  }
  const wide = document.documentElement.scrollWidth > innerWidth
  const pictures = [...document.images].filter(x => x.naturalWidth).length
  const bodies = [document.documentElement.scrollHeight, document.body.scrollHeight]
  const main = document.querySelector("main")
  const height = main ? main.getBoundingClientRect().height : Math.max(...bodies)
  document.title = JSON.stringify({height, at, wide, pictures})
}</script></body>"""


def rendered(notebook: nbformat.NotebookNode) -> str:
    """The notebook as HTML with each folded cell as one line."""
    shown = nbformat.from_dict(notebook)
    for i, cell in enumerate(shown.cells):
        if cell.cell_type == "code" and cell.metadata.get("_kg_hide-input"):
            lines = cell.source.count("\n") + 1
            shown.cells[i] = nbformat.v4.new_markdown_cell(f"▸ {lines} lines of code, folded")
    return HTMLExporter().from_notebook_node(shown)[0]


def browse(html: str, *options: str) -> str:
    """What headless Chromium makes of a page."""
    with tempfile.TemporaryDirectory() as folder:
        page = pathlib.Path(folder, "page.html")
        page.write_text(html)
        return subprocess.run(
            [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
             "--disable-background-networking", "--disable-sync", "--hide-scrollbars",
             f"--user-data-dir={folder}/profile", *options, page.as_uri()],
            capture_output=True, text=True, timeout=180, check=True,
        ).stdout  # fmt: skip


def probe(html: str) -> dict:
    """Height in pixels, where the landmarks stand, and whether anything is too wide."""
    told = browse(
        html.replace("</body>", PROBE % json.dumps(LANDMARKS)),
        f"--window-size={WIDTH},{HEIGHT}",
        "--dump-dom",
    )
    return json.loads(told.partition("<title>")[2].partition("</title>")[0])


def main() -> None:
    """Prints the count."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("notebook", type=pathlib.Path, nargs="?", default=ROOT / "submission.ipynb")
    parser.add_argument("--picture", type=pathlib.Path, help="the whole page as a PNG")
    options = parser.parse_args()
    html = rendered(nbformat.read(options.notebook, as_version=4))
    found = probe(html)
    print(f"{found['height'] / HEIGHT:.1f} screens")
    for name, y in found["at"].items():
        print(f"{name}: screen {1 + int(y / HEIGHT)}")
    if options.picture:
        size = f"--window-size={WIDTH},{int(found['height']) + 100}"
        browse(html, size, f"--screenshot={options.picture.resolve()}")


if __name__ == "__main__":
    main()

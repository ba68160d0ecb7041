"""Build submission.ipynb from scripts/submission/, the only home of its code.

``essay/spine.py`` is the story; where a cell of it reads ``# inline: NAME``, the chapter NAME is
put in, and where one reads ``# bench``, the bench: each of its parts as one folded cell that holds
what the essay reaches (see notebooks/parts.py). Cells tagged ``modules-only`` (imports between
chapters) are dropped, because the notebook is one flat namespace. The same chapters give the same
notebook, byte for byte.

    python scripts/build_notebook.py                   # write submission.ipynb
    python scripts/build_notebook.py --check           # is it what the chapters give?
    python scripts/build_notebook.py --adopt RUN.ipynb # take over the outputs of a run
    python scripts/build_notebook.py --recipe R -o F   # the notebook of another recipe
"""

from __future__ import annotations

import argparse
import ast
import base64
import builtins
import hashlib
import json
import pathlib
import re
import sys
import textwrap
from collections.abc import Iterator

import jupytext
import nbformat
from nbformat import NotebookNode
from notebooks.parts import (
    PARTS,
    PartError,
    grouped_imports,
    import_lines,
    names_used,
    part_source,
    part_text,
    reached,
    read_bench,
)

ROOT = pathlib.Path(__file__).resolve().parent.parent
CHAPTERS = ROOT / "scripts" / "submission"
NOTEBOOK = ROOT / "submission.ipynb"
DEFAULT_RECIPE = "warm_start_grpo"
DIRECTIVE = re.compile(r"# inline: (\S+)(?: \(recipes: ([\w, ]+)\))?")
INSTALL = "# install: requirements.txt"  # the line in whose place the pins are installed
NOT_INSTALLED = "# --- Builds or runs the notebook"
PICTURES = {".svg": "image/svg+xml", ".png": "image/png"}
FIRST_SCREEN = ROOT / "data" / "first_screen.md"
SMALL_RUNS, ABLATIONS = ROOT / "data" / "small_run", ROOT / "data" / "ablations.json"
BENCH = "# bench"  # the cell in whose place the bench is put
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
    "kaggle": {
        "accelerator": "tpuV5e8",
        "dataSources": [],
        "isGpuEnabled": False,
        "isInternetEnabled": True,
        "language": "python",
        "sourceType": "notebook",
    },
}
INSTALL_CELL = '''\
# The pinned packages of requirements.txt, before the first `import jax`; what is there is skipped.
import importlib.metadata
import subprocess
import sys
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PINS = """
{pins}
"""

def is_installed(requirement: Requirement) -> bool:
    """Is a version that satisfies the pin there?"""
    try:
        return importlib.metadata.version(requirement.name) in requirement.specifier
    except importlib.metadata.PackageNotFoundError:
        return False

wanted = map(Requirement, " ".join(PINS.split()).split(", "))
wanted = [pin for pin in wanted if pin.marker is None or pin.marker.evaluate()]
missing = {{pin.name: str(pin.specifier) for pin in wanted if not is_installed(pin)}}
owners = importlib.metadata.packages_distributions()
loaded = {{canonicalize_name(x) for module in [*sys.modules] for x in owners.get(module, [])}}
stale_packages = globals().get("stale_packages", set()) | loaded.intersection(missing)
if missing:
    print("installing", *missing)
    pins = [name + version for name, version in missing.items()]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", *pins]
    done = subprocess.run(pip, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(
            "The packages could not be installed. Is the internet on? On Kaggle: 'Settings' > "
            f"'Internet'. pip says:\\n{{done.stderr[-2000:]}}"
        )
if stale_packages:
    raise RuntimeError(
        f"{{', '.join(sorted(stale_packages))}}: this kernel had loaded another version before it "
        "was installed. Restart the kernel ('Run' > 'Restart & clear cell outputs') and run again."
    )'''


class BuildError(Exception):
    """The chapters do not make a notebook; the message says why."""


def read_chapter(name: str) -> NotebookNode:
    """A chapter as notebook cells; commented magics become magics again."""
    path = CHAPTERS / f"{name}.py"
    if not path.exists():
        raise BuildError(f"There is no chapter {name!r} (scripts/submission/{name}.py).")
    return jupytext.reads(path.read_text(encoding="utf-8"), fmt="py:percent")


def install_source(path: pathlib.Path) -> str:
    """The first cell: installs the pins of the requirements file but for the build tools."""
    text = path.read_text(encoding="utf-8").split(NOT_INSTALLED)[0]
    pins = [line for line in text.splitlines() if line and not line.startswith("#")]
    listed = textwrap.fill(", ".join(pins), 100, break_long_words=False, break_on_hyphens=False)
    return INSTALL_CELL.format(pins=listed)


def is_for(recipe: str, recipes: str) -> bool:
    """Is the recipe, or the one that it is a control of, among these names?

    >>> is_for("judged_control", "distilled, judged"), is_for("judge", "distilled, judged")
    (True, False)
    """
    return recipe.removesuffix("_control") in re.split(r",\s*", recipes)


def chapter_cells(name: str, recipe: str, above: list[str]) -> Iterator[tuple[str, NotebookNode]]:
    """The cells of a chapter and of those it inlines, with the chapter each comes from."""
    for cell in read_chapter(name).cells:
        directive = DIRECTIVE.fullmatch(cell.source.strip().partition("\n")[0])
        if directive:
            inlined, recipes = directive.groups()
            if recipes is None or is_for(recipe, recipes):
                yield from chapter_cells(inlined, recipe, above)
                above.append(inlined)
            continue
        if INSTALL in cell.source.splitlines():
            cell.source = cell.source.replace(INSTALL, install_source(ROOT / "requirements.txt"))
        if cell.source.strip() == BENCH:
            yield BENCH, cell
            continue
        if "modules-only" in cell.metadata.get("tags", []):
            check_imports(name, cell.source, above)
            continue
        yield name, cell


def with_includes(source: str) -> str:
    """Markdown with the files of ``<!-- include: FILE -->`` in it."""
    return re.sub(
        r"<!-- include: (\S+) -->", lambda match: (ROOT / match[1]).read_text().strip(), source
    )


def attachments(source: str) -> dict[str, dict[str, str]]:
    """The pictures that Markdown shows as ``attachment:FILE``, as a cell holds them."""
    return {
        name: {PICTURES[pathlib.Path(name).suffix]: base64.b64encode(data).decode()}
        for name in re.findall(r"\(attachment:(\S+?)\)", source)
        if (data := (ROOT / name).read_bytes())
    }


def check_imports(chapter: str, source: str, above: list[str]) -> None:
    """A chapter imports the bench, and chapters above it.

    Raises:
      BuildError: names the chapter and the import.
    """
    for node in ast.walk(ast.parse(source)):
        module = (getattr(node, "module", None) or "").replace(".", "/")
        there = module.removeprefix("submission/")
        if there != module and not there.startswith("bench/") and there not in above:
            raise BuildError(
                f"Chapter {chapter!r} imports {node.module}, which does not stand above it."
            )


def without_magics(source: str) -> str:
    """The source with its magics blanked, so that it parses."""
    return "\n".join("" if re.match(r"\s*[%!]", line) else line for line in source.split("\n"))


class TopLevelNames(ast.NodeVisitor):
    """The names that a cell binds at top level: (name, what an import binds it to, or '')."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str]] = []

    def visit_Import(self, node: ast.Import) -> None:
        """``import a.b`` binds ``a``."""
        for alias in node.names:
            name = alias.asname or alias.name.split(".")[0]
            self.found.append((name, alias.name if alias.asname else name))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """``from a import *`` would bind names that nobody can see."""
        for alias in node.names:
            if alias.name == "*":
                raise BuildError(f"'from {node.module} import *' hides what it binds.")
            self.found.append((alias.asname or alias.name, f"{node.module}.{alias.name}"))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """A function binds its own name; what is inside is local."""
        self.found.append((node.name, ""))

    visit_AsyncFunctionDef = visit_ClassDef = visit_FunctionDef

    def visit_Lambda(self, node: ast.Lambda) -> None:
        """All local."""

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_Lambda

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        """``except E as name``."""
        if node.name:
            self.found.append((node.name, ""))
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        """Assignments, loops, ``with``, walrus."""
        if isinstance(node.ctx, ast.Store):
            self.found.append((node.id, ""))


def names_defined(source: str) -> list[tuple[str, str]]:
    """The names that a cell binds at top level, with the origin of imported ones."""
    visitor = TopLevelNames()
    visitor.visit(ast.parse(without_magics(source)))
    return visitor.found


def check_names(cells: list[tuple[str, str]]) -> None:
    """No two chapters bind the same name: in the notebook the second would replace the first.

    Args:
      cells: code with the chapter or module that it is from.

    Raises:
      BuildError: names the clashes.
    """
    bound: dict[str, tuple[str, str]] = {}
    clashes = []
    for chapter, source in cells:
        for name, origin in names_defined(source):
            first_chapter, first_origin = bound.setdefault(name, (chapter, origin))
            if first_origin != origin or (not origin and first_chapter != chapter):
                clashes.append(f"{name!r} in {first_chapter!r} and in {chapter!r}")
    if clashes:
        raise BuildError("A name is bound twice: " + "; ".join(sorted(set(clashes))) + ".")


def with_imports_in_setup(cells: list[tuple[str, NotebookNode]]) -> list[tuple[str, NotebookNode]]:
    """The cells without those that are nothing but imports, which stand in the set-up's cell."""
    setup = next((cell for _, cell in cells if "setup" in cell.metadata.get("tags", [])), None)
    if setup is None:
        return cells
    kept, lines = [], []
    for chapter, cell in cells:
        body = ast.parse(without_magics(cell.source)).body if cell.cell_type == "code" else []
        if body and all(isinstance(node, ast.Import | ast.ImportFrom) for node in body):
            lines += import_lines(body)
        else:
            kept.append((chapter, cell))
    setup.source += "\n" + grouped_imports(line for _, line in lines)
    return kept


def with_bench(cells: list[tuple[str, NotebookNode]]) -> list[NotebookNode]:
    """The cells of the essay, with the parts of the bench where it asks for them.

    Raises:
      BuildError: two places bind one name, or an arrow between modules runs up or in a circle.
    """
    root = CHAPTERS / "bench"
    try:
        modules = read_bench(root)
    except PartError as error:
        raise BuildError(str(error)) from error
    code = [(chapter, cell.source) for chapter, cell in cells
            if cell.cell_type == "code" and chapter != BENCH]  # fmt: skip
    roots = frozenset().union(*(names_used(without_magics(source)) for _, source in code))
    kept = reached(modules, roots)
    statements = [(m.name, s.source) for m in modules for s in m.statements]
    check_names([*statements, *code])
    found: list[NotebookNode] = []
    for chapter, cell in cells:
        if chapter != BENCH:
            found.append(cell)
            continue
        above = [c.source for c in found if c.cell_type == "code"]
        imported = {
            line for x in above for _, line in import_lines(ast.parse(without_magics(x)).body)
        }
        for part in PARTS:
            if source := part_source(part, modules, kept, imported):
                found.append(nbformat.v4.new_markdown_cell(part_text(part, root, modules, roots)))
                folded = nbformat.v4.new_code_cell(source, metadata={"tags": ["folded"]})
                found.append(folded)
    return found


def has_chapters(recipe: str) -> bool:
    """Has the recipe's notebook chapters that the default one has not?"""
    found = (DIRECTIVE.fullmatch(cell.source.strip()) for cell in read_chapter("essay/spine").cells)
    return any(is_for(recipe, directive[2]) for directive in found if directive and directive[2])


def build(recipe: str = DEFAULT_RECIPE) -> NotebookNode:
    """The notebook of a recipe, without outputs.

    Raises:
      BuildError: a chapter is missing or clashes with another, or the recipe is unknown.
    """
    sys.path.insert(0, str(CHAPTERS.parent))
    from submission.essay.recipes import RECIPES

    if recipe not in RECIPES:
        raise BuildError(f"Unknown recipe {recipe!r}. Choose one of: {', '.join(RECIPES)}.")
    cells = with_bench(with_imports_in_setup(list(chapter_cells("essay/spine", recipe, []))))
    notebook = nbformat.v4.new_notebook(metadata=METADATA)
    seen: dict[str, int] = {}
    for cell in cells:
        source = with_includes(cell.source) if cell.cell_type == "markdown" else cell.source
        if recipe != DEFAULT_RECIPE:
            source = source.replace(f'\nRECIPE = "{DEFAULT_RECIPE}"', f'\nRECIPE = "{recipe}"')
        digest = hashlib.sha256(f"{cell.cell_type}\n{source}".encode()).hexdigest()[:12]
        seen[digest] = seen.get(digest, 0) + 1
        identity = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
        make = nbformat.v4.new_markdown_cell
        if cell.cell_type == "code":
            make = nbformat.v4.new_code_cell
        built = make(source, id=identity)
        if pictures := attachments(source):
            built.attachments = pictures
        tags = cell.metadata.get("tags", [])
        if "folded" in tags:
            built.metadata |= {"_kg_hide-input": True, "jupyter": {"source_hidden": True}}
        if "parameters" in tags:
            built.metadata |= {"tags": ["parameters"]}
        notebook.cells.append(built)
    check_all_defined(notebook)
    nbformat.validate(notebook)
    return notebook


def check_all_defined(notebook: NotebookNode) -> None:
    """Every name that a cell uses is bound in the notebook.

    Raises:
      BuildError: names those that are not.
    """
    code = [without_magics(cell.source) for cell in notebook.cells if cell.cell_type == "code"]
    bound = {name for source in code for name, _ in names_defined(source)}
    used = frozenset().union(*map(names_used, code))
    if missing := sorted(used - bound - set(dir(builtins))):
        raise BuildError(f"Nothing in the notebook defines {', '.join(missing)}.")


def without_outputs(notebook: NotebookNode) -> NotebookNode:
    """A copy without outputs."""
    bare = nbformat.from_dict(notebook)
    for cell in bare.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return bare


def take_outputs(built: NotebookNode, executed: NotebookNode) -> NotebookNode:
    """The built notebook with the outputs of an executed one.

    Raises:
      BuildError: a code cell differs, or did not run.
    """
    ours = [cell for cell in built.cells if cell.cell_type == "code"]
    theirs = [cell for cell in executed.cells if cell.cell_type == "code"]
    if [c.source for c in ours] != [c.source for c in theirs]:
        raise BuildError("The executed notebook's code cells are not the ones the chapters give.")
    for cell, run in zip(ours, theirs, strict=True):
        if run.execution_count is None:
            raise BuildError(f"A cell of the executed notebook did not run:\n{run.source[:200]}")
        cell.outputs, cell.execution_count = run.outputs, run.execution_count
    return built


def real_gemma() -> str:
    """What the kept runs of the profile `small` came to, in a sentence; empty without any."""
    runs = [json.loads(path.read_text()) for path in sorted(SMALL_RUNS.glob("seed-*.json"))]
    if not runs:
        return ""

    def share(stage: str, bundled: bool, field: str = "accuracy") -> float:
        """The mean over runs of the share that is right, of the bundled rows or the others."""
        rows = [
            row
            for run in runs
            for name, row in run["evaluation"][stage]["by_domain"].items()
            if (name in ("math", "logic", "other")) == bundled
        ]
        right = sum(row[field] * row["n"] for row in rows)
        return round(right / sum(row["n"] for row in rows), 3)

    def told(bundled: bool) -> str:
        trained = (share(stage, bundled) for stage in ("after_sft", "after_grpo"))
        stock = share("stock", bundled, "accuracy_lenient")
        return ", ".join(f"{value:.3f}" for value in (stock, *trained))

    gains = share("after_grpo", True) > share("after_sft", True)
    seeds = ", ".join(str(run["seed"]) for run in runs)
    return (
        f" Google's Gemma 3 270M (`small`, seed {seeds}; `data/small_run/`): stock, SFT, GRPO "
        f"{told(True)} of the bundled rows, {told(False)} of public ones"
        f"{'' if gains else ': GRPO gains nothing'}."
    )


def gain_over_seeds() -> str:
    """What GRPO adds to the strongest warm start, by the ablations."""
    from submission.bench.run.statistics import mean_and_interval, plus_minus

    jobs = json.loads(ABLATIONS.read_text())
    gains = [
        jobs[f"grpo-best-{seed}"]["best"]["accuracy"] - job["sft_only_best"]["accuracy"]
        for name, job in jobs.items()
        if name == f"sft-best-{(seed := job['seed'])}"
    ]
    mean, half = mean_and_interval(gains)
    return f"over {len(gains)} seeds {mean:.3f}{plus_minus(half)}"


def first_screen(folder: pathlib.Path) -> str:
    """What the first screen says of a run: its table, and the first held-out row before and after.

    Args:
      folder: where the run left `results.json` and `answers/`.
    """
    from submission.bench.show.report import results_table

    results = json.loads((folder / "results.json").read_text())
    first = {
        name: json.loads((folder / "answers" / f"{name}.json").read_text())["answers"][0]
        for name in ("stock", results["submission"])
    }
    found = results["evaluation"]
    lenient, accuracy = found["stock"]["accuracy_lenient"], found["after_grpo"]["accuracy"]
    said = [f"`{row['completion'].replace(chr(10), '↵')}`" for row in first.values()]
    return (
        f"{results_table(results)}\n\n"
        "This is a toy Gemma of 1.2 million parameters, pre-trained for this project, on a CPU; "
        "Gemma 3 1B and 2 2B have not been run on a TPU yet. *Stock* is the model before any "
        "training. *Accuracy*: right and in the exact format; *lenient*: right in any; "
        "*stopped*: ended by itself; *tokens*: the mean. "
        f"Compare {lenient:.3f} with {accuracy:.3f}; GRPO's part of it is "
        f"{accuracy - found['after_sft']['accuracy']:.3f}, {gain_over_seeds()} "
        "([Controls](#Controls,-and-what-each-choice-is-worth))."
        f"{real_gemma()}\n\n"
        f"The first held-out row, *{first['stock']['question']}* "
        f"Before: {said[0]} After: {said[1]}\n"
    )


def dump(notebook: NotebookNode) -> str:
    """The notebook as it is written to disk."""
    return nbformat.writes(notebook, version=4, indent=1) + "\n"


def same_but_outputs(path: pathlib.Path, built: NotebookNode) -> bool:
    """Is the notebook on disk what the chapters give, outputs aside?"""
    if not path.exists():
        return False
    return dump(without_outputs(nbformat.read(path, as_version=4))) == dump(built)


def main() -> None:
    """Builds, checks or adopts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("--adopt", type=pathlib.Path, metavar="FILE", help="executed notebook")
    parser.add_argument("--recipe", default=DEFAULT_RECIPE)
    parser.add_argument("-o", "--output", type=pathlib.Path)
    options = parser.parse_args()
    if options.recipe != DEFAULT_RECIPE and options.output is None:
        parser.error(f"{NOTEBOOK.name} is the default recipe's: give another file with -o")
    options.output = options.output or NOTEBOOK
    try:
        notebook = build(options.recipe)
        if options.check:
            if not same_but_outputs(options.output, notebook):
                raise BuildError(
                    f"{options.output.name} is not what the chapters give. "
                    "Run: python scripts/build_notebook.py"
                )
            print(f"{options.output.name} is what the chapters give.")
            return
        if options.adopt:
            if options.output == NOTEBOOK:
                FIRST_SCREEN.write_text(first_screen(options.adopt.parent), encoding="utf-8")
                notebook = build(options.recipe)
            notebook = take_outputs(notebook, nbformat.read(options.adopt, as_version=4))
        elif options.output.exists():
            try:  # outputs stay for as long as the code that made them does
                notebook = take_outputs(notebook, nbformat.read(options.output, as_version=4))
            except BuildError:
                notebook = build(options.recipe)
        options.output.write_text(dump(notebook), encoding="utf-8")
    except BuildError as error:
        sys.exit(f"build_notebook.py: {error}")


if __name__ == "__main__":
    main()

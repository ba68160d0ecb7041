"""The bench as notebook cells: of each part's modules, what a notebook's essay reaches.

A part of the bench is a folder of modules. In the notebook it is one cell: the imports once, then
every top-level statement that the essay needs, directly or through other statements, in the order
of the modules' imports. Module docstrings, comments between statements and all but the first
paragraph of docstrings are left in the modules: they are for whoever reads a part there.
"""

from __future__ import annotations

import ast
import dataclasses
import pathlib
import symtable
import textwrap
from collections.abc import Iterable, Iterator, Sequence

PARTS = ("settings", "answers", "policy", "run", "rows", "show")
MAY_IMPORT = {  # the parts below each; none imports one above
    "settings": (),
    "answers": ("settings",),
    "policy": ("settings", "answers"),
    "run": ("settings", "answers", "policy"),
    "rows": ("settings", "answers", "policy", "run"),
    "show": ("settings", "answers", "policy", "run", "rows"),
}
PACKAGE = "submission.bench."


class PartError(Exception):
    """The modules do not make a part; the message says why."""


@dataclasses.dataclass(frozen=True)
class Statement:
    """A top-level statement of a module."""

    source: str
    binds: frozenset[str]  # what it defines or changes
    uses: frozenset[str]
    is_definition: bool
    registers: bool  # its decorator puts it into a register under a name


@dataclasses.dataclass(frozen=True)
class Module:
    """A module of a part, taken apart."""

    name: str  # part/module
    imports: tuple[tuple[str, str], ...]  # the name that each binds, and the statement
    needs: tuple[str, ...]  # modules of the bench, part/module
    statements: tuple[Statement, ...]


def names_used(source: str) -> frozenset[str]:
    """The global names that code uses, also from inside its functions."""
    found: set[str] = set()

    def look(table: symtable.SymbolTable) -> None:
        is_top = table.get_type() == "module"
        for symbol in table.get_symbols():
            if symbol.is_referenced() if is_top else symbol.is_global():
                found.add(symbol.get_name())
        for child in table.get_children():
            look(child)

    look(symtable.symtable(source, "cell", "exec"))
    return frozenset(found)


def names_bound(node: ast.stmt) -> frozenset[str]:
    """The names that a top-level statement of a module binds or changes."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return frozenset({node.name})
    targets = [
        target
        for part in ast.walk(node)
        for target in (
            *getattr(part, "targets", ()),
            *([part.target] if isinstance(part, ast.AugAssign | ast.AnnAssign) else ()),
        )
    ]
    names = (name for target in targets for name in ast.walk(target))
    return frozenset(name.id for name in names if isinstance(name, ast.Name))


def in_short(source: str) -> str:
    """The source with the first paragraph of each docstring only: the rest is in the modules."""
    lines = source.split("\n")
    dropped: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or not ast.get_docstring(node):
            continue
        first, last = node.body[0].lineno - 1, node.body[0].end_lineno - 1
        blank = next((i for i in range(first, last) if not lines[i].strip()), None)
        if blank is not None:
            lines[blank - 1] += ' """' if lines[blank - 1].endswith('"') else '"""'
            dropped |= set(range(blank, last + 1))
    return "\n".join(line for i, line in enumerate(lines) if i not in dropped)


def source_of(lines: Sequence[str], node: ast.stmt) -> str:
    """The source of a statement with its decorators, without the prose above it."""
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
    return "\n".join(lines[first - 1 : node.end_lineno])


def import_lines(body: Iterable[ast.stmt]) -> list[tuple[str, str]]:
    """The names that import statements bind, each with an import of it alone."""
    found = []
    for node in body:
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        origin = f"from {node.module} " if isinstance(node, ast.ImportFrom) else ""
        for alias in node.names:
            bound = alias.asname or (alias.name if origin else alias.name.split(".")[0])
            as_name = f" as {alias.asname}" if alias.asname else ""
            found.append((bound, f"{origin}import {alias.name}{as_name}"))
    return found


def read_module(root: pathlib.Path, name: str) -> Module:
    """A module of the bench.

    Raises:
      PartError: it imports a part that is not below its own, or the essay.
    """
    text = (root / f"{name}.py").read_text(encoding="utf-8")
    lines = text.split("\n")
    imports, needs, statements = [], [], []
    part = name.split("/")[0]
    body = ast.parse(text).body
    for node in body[1:] if ast.get_docstring(ast.Module(body, [])) else body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("submission"):
            there = node.module.removeprefix(PACKAGE).replace(".", "/")
            if there.split("/")[0] not in (part, *MAY_IMPORT[part]):
                raise PartError(f"{name} imports {node.module}, which is not below it.")
            needs.append(there)
        elif found := import_lines([node]):
            imports += found
        else:
            is_definition = isinstance(node, ast.FunctionDef | ast.ClassDef)
            registers = any(
                isinstance(decorator, ast.Call) and decorator.args
                for decorator in getattr(node, "decorator_list", ())
            )
            source = source_of(lines, node)
            found = Statement(
                source, names_bound(node), names_used(source), is_definition, registers
            )
            statements.append(found)
    return Module(name, tuple(imports), tuple(needs), tuple(statements))


def in_order(modules: dict[str, Module]) -> Iterator[Module]:
    """Each module after those that it imports.

    Raises:
      PartError: they import each other in a circle.
    """
    done: set[str] = set()
    under_way: list[str] = []

    def visit(name: str) -> Iterator[Module]:
        if name in under_way:
            raise PartError(f"A circle of imports: {' → '.join([*under_way, name])}.")
        if name in done:
            return
        under_way.append(name)
        for other in modules[name].needs:
            yield from visit(other)
        under_way.pop()
        done.add(name)
        yield modules[name]

    for name in modules:
        yield from visit(name)


def read_bench(root: pathlib.Path) -> list[Module]:
    """All modules of the bench, in the order in which they can stand."""
    names = [
        f"{part}/{path.stem}"
        for part in PARTS
        for path in sorted((root / part).glob("*.py"))
        if path.stem != "__init__"
    ]
    return list(in_order({name: read_module(root, name) for name in names}))


def reached(modules: Sequence[Module], roots: Iterable[str]) -> frozenset[int]:
    """The statements, by `id`, that the names in `roots` need.

    What puts itself into a register under a name comes with whatever else of its module is needed.
    """
    by_name: dict[str, list[tuple[Module, Statement]]] = {}
    for module in modules:
        for statement in module.statements:
            for name in statement.binds:
                by_name.setdefault(name, []).append((module, statement))
    kept: set[int] = set()
    seen: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for module, statement in by_name.get(name, ()):
            if id(statement) not in kept:
                kept.add(id(statement))
                waiting += statement.uses | statement.binds
                waiting += [n for s in module.statements if s.registers for n in s.binds]
    return frozenset(kept)


def grouped_imports(lines: Iterable[str]) -> str:
    """Import statements, the `from` ones of a module joined, sorted, and no longer than a line."""
    plain, by_module = set(), {}
    for line in lines:
        if line.startswith("import"):
            plain.add(line)
        else:
            module, name = line.removeprefix("from ").split(" import ")
            by_module.setdefault(module, set()).add(name)
    found = sorted(plain)
    for module, names in sorted(by_module.items()):
        line = f"from {module} import {', '.join(sorted(names))}"
        if len(line) > 100:
            names = textwrap.fill(", ".join(sorted(names)), 100, initial_indent=" " * 4,
                                  subsequent_indent=" " * 4)  # fmt: skip
            line = f"from {module} import (\n{names},\n)"
        found.append(line)
    return "\n".join(found)


def part_source(
    part: str, modules: Sequence[Module], kept: frozenset[int], imported: set[str]
) -> str:
    """The code of a part: imports once, then what is kept of its modules; may be empty.

    What is in `imported` stands in a part above; what this part imports is added to it.
    """
    imports, blocks, names = [], [], []
    for module in modules:
        if module.name.split("/")[0] != part:
            continue
        statements = [s for s in module.statements if id(s) in kept]
        if not statements:
            continue
        used = frozenset().union(*(s.uses for s in statements))
        imports += [line for name, line in module.imports if name in used]
        names.append(module.name.split("/")[1])
        for statement in statements:
            blocks.append(("\n" if statement.is_definition else "") + in_short(statement.source))
    new = [line for line in imports if line not in imported]
    imported.update(new)
    if not blocks:
        return ""
    return "\n".join([f"# Of {part}/: {', '.join(names)}", grouped_imports(new), *blocks])


def part_text(part: str, root: pathlib.Path, modules: Sequence[Module], roots: frozenset) -> str:
    """What stands above a part: its paragraph, and the names that the essay uses from it."""
    text = ast.get_docstring(ast.parse((root / part / "__init__.py").read_text(encoding="utf-8")))
    names = sorted(
        {
            name
            for module in modules
            if module.name.split("/")[0] == part
            for statement in module.statements
            for name in statement.binds & roots
        }
    )
    listed = ", ".join(f"`{name}`" for name in names)
    return f"{text} <small>Used below: {listed}.</small>"

import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import warnings

import nbformat
import pytest

import build_notebook
from conftest import ROOT
from submission.essay.recipes import RECIPES

PINS = (ROOT / "requirements.txt").read_text().splitlines()

HEADINGS = [
    "Your overall training and evaluation strategy",
    "How your finetuning dataset is created",
    "Your Tunix finetuning code",
    "[Optional 15pts] unrestricted mode",
    "Other things you want the judges to know",
]


@pytest.fixture
def chapters(tmp_path, monkeypatch):
    """Writes chapters of a small notebook and builds it."""
    monkeypatch.setattr(build_notebook, "CHAPTERS", tmp_path)
    (tmp_path / "essay").mkdir()
    (tmp_path / "essay" / "spine.py").write_text("# %%\n# inline: one\n\n# %%\n# inline: two\n")

    def build(one="# %%\nx = 1\n", two="# %%\ny = x\n", recipe=build_notebook.DEFAULT_RECIPE):
        (tmp_path / "one.py").write_text(one)
        (tmp_path / "two.py").write_text(two)
        return build_notebook.build(recipe)

    return build


def sources(notebook):
    return [cell.source for cell in notebook.cells]


def test_the_committed_notebook_is_what_the_chapters_give():
    assert build_notebook.same_but_outputs(build_notebook.NOTEBOOK, build_notebook.build())


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_notebook_of_every_recipe_can_be_built(recipe):
    assert build_notebook.build(recipe).cells  # a name of a chapter may clash with the bench's


def test_building_is_deterministic():
    assert build_notebook.dump(build_notebook.build()) == build_notebook.dump(
        build_notebook.build()
    )


def test_a_changed_cell_changes_the_check(tmp_path):
    notebook = build_notebook.build()
    notebook.cells[-1].source += " "
    path = tmp_path / "other.ipynb"
    path.write_text(build_notebook.dump(notebook))
    assert not build_notebook.same_but_outputs(path, build_notebook.build())


def test_the_official_headings_are_there_in_order():
    lines = [
        line.lstrip("# ")
        for cell in build_notebook.build().cells
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if line.startswith("## ")
    ]
    assert lines == HEADINGS


def test_kaggles_metadata_is_there():
    metadata = build_notebook.build().metadata["kaggle"]
    assert metadata["accelerator"] == "tpuV5e8"
    assert metadata["isInternetEnabled"] is True


def test_no_chapter_import_is_left_and_no_other_machines_path():
    notebook = build_notebook.build()
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    assert "from submission" not in code
    assert "/home/" not in build_notebook.dump(notebook)


def setup_cell():
    cells = build_notebook.build().cells
    return next(cell for cell in cells if "PINS =" in cell.source)


def test_the_parameters_come_first_then_the_pins_but_not_the_build_tools():
    code = [cell for cell in build_notebook.build().cells if cell.cell_type == "code"]
    assert code[0].metadata["tags"] == ["parameters"]
    assert code[1] == setup_cell()
    assert "google-tunix==0.1.7" in code[1].source
    assert "jupytext" not in code[1].source
    before = code[1].source.split("subprocess.run(")[0]
    assert "import jax" not in before.replace("`import jax`", "")
    assert code[1].metadata["_kg_hide-input"] is True


@pytest.fixture
def start(monkeypatch):
    """Runs the set-up's cell up to its imports, on a machine as described.

    `found` are versions of packages other than those that are installed here, `loaded` modules
    that the kernel has imported, `pip` what pip returns.
    """
    source = setup_cell().source.split("import absl.logging")[0]
    version, commands = importlib.metadata.version, []
    # What the cell sets is forgotten afterwards.
    monkeypatch.setattr(os, "environ", {"PATH": os.environ["PATH"]})
    monkeypatch.setattr(pathlib.Path, "glob", lambda *_: iter(()))

    def run(found=(), loaded=(), pip=(0, ""), names=None, **environment):
        found = dict(found)

        def install(command, **_):
            commands.append(command)
            if not pip[0]:
                found.clear()
            return subprocess.CompletedProcess(command, pip[0], "", pip[1])

        os.environ.update(environment)
        with monkeypatch.context() as patched, warnings.catch_warnings():
            patched.setattr(importlib.metadata, "version", lambda x: found.get(x) or version(x))
            patched.setattr(subprocess, "run", install)
            patched.setattr(sys, "modules", dict.fromkeys(loaded) | keep(sys.modules))
            names = {"PROFILE": ""} if names is None else names
            exec(source, names)
        return names, commands

    return run


def keep(modules):
    """The modules without those that a new kernel has not imported."""
    pinned = {"jax", "numpy", "matplotlib", "datasets", "flax", "orbax", "tunix"}
    return {name: x for name, x in modules.items() if name.split(".")[0] not in pinned}


def test_what_is_installed_is_not_installed_again(start):
    assert start()[1] == []


def test_a_package_of_another_version_is_installed(start, capsys):
    _, (command,) = start(found={"numpy": "2.3.0"})
    assert command[-1] == next(pin for pin in PINS if pin.startswith("numpy=="))
    assert capsys.readouterr().out == "installing numpy\n"


@pytest.mark.parametrize("module", ["numpy", "matplotlib", "huggingface_hub", "tunix"])
def test_a_package_that_the_kernel_has_loaded_already_is_named_until_it_is_restarted(start, module):
    package = {"tunix": "google-tunix", "huggingface_hub": "huggingface-hub"}.get(module, module)
    names = {"PROFILE": ""}
    for _ in range(2):  # the cell run again helps nothing: the old one is still in memory
        with pytest.raises(RuntimeError, match=f"^{package}: .*Restart the kernel"):
            start(found={package: "0.1"}, loaded=[module], names=names)
    start(loaded=[module])  # a new kernel


def test_without_internet_the_message_names_the_setting(start):
    with pytest.raises(RuntimeError, match=r"'Settings' > 'Internet'(.|\n)*No route to host"):
        start(found={"jax": "0.9"}, pip=(1, "x" * 5000 + "No route to host"))


def test_on_kaggle_without_a_tpu_it_stops_before_it_installs_anything(start):
    kaggle = {"KAGGLE_KERNEL_RUN_TYPE": "Batch"}
    with pytest.raises(RuntimeError, match=r"'Accelerator' > 'TPU v5e-8'.*PROFILE"):
        start(found={"jax": "0.9"}, **kaggle)
    start(names={"PROFILE": "tiny"}, **kaggle)
    start(PROFILE="tiny", **kaggle)
    assert start(TPU_PROCESS_ADDRESSES="local", **kaggle)[0]["shows_tpu"]
    assert "JAX_PLATFORMS" not in os.environ


def test_what_hangs_or_asks_on_such_machines_is_off(start):
    start()
    assert os.environ["JAX_PLATFORMS"] == "cpu"  # no TPU here
    assert os.environ["HF_HUB_DISABLE_XET"] == "1"
    assert os.environ["WANDB_MODE"] == "disabled"


def test_the_clock_is_not_moved_by_the_first_cell_run_again(start):
    names, _ = start()
    began = names["NOTEBOOK_START"]
    assert start(names=names)[0]["NOTEBOOK_START"] == began


def test_no_cell_nests_an_event_loop():
    """ipykernel 7 drops queued cells then; Orbax does it where uvloop is missing."""
    source = "\n".join(c.source for c in build_notebook.build().cells if c.cell_type == "code")
    assert "uvloop==" in source
    for word in ("nest_asyncio", "run_until_complete", "asyncio.run", "run_forever"):
        assert word not in source


def test_chapters_are_inlined_in_order(chapters):
    assert sources(chapters()) == ["x = 1", "y = x"]


def test_modules_only_cells_are_dropped(chapters):
    two = '# %% tags=["modules-only"]\nfrom submission.one import x\n\n# %%\ny = x\n'
    assert sources(chapters(two=two)) == ["x = 1", "y = x"]


def test_an_import_from_below_is_refused(chapters):
    one = '# %% tags=["modules-only"]\nfrom submission.two import y\n'
    with pytest.raises(build_notebook.BuildError, match=r"'one' imports submission.two"):
        chapters(one=one)


@pytest.mark.parametrize(
    "again",
    [
        "x = 2",
        "def x(): ...",
        "class x: ...",
        "import os as x",
        "for x in (): pass",
        "_ = (x := 2)",
        "from os import path as x",
        "def x(): return [x for x in ()]",
        "if True:\n    def x(): ...",
        "try: pass\nexcept OSError as x: pass",
    ],
)
def test_a_name_bound_in_two_chapters_is_refused(chapters, again):
    with pytest.raises(build_notebook.BuildError, match="'x' in 'one' and in 'two'"):
        chapters(two=f"# %%\n{again}\n")


def test_a_name_that_nothing_defines_is_refused(chapters):
    with pytest.raises(build_notebook.BuildError, match="Nothing in the notebook defines z"):
        chapters(two="# %%\ndef y():\n    return z\n")


def test_private_names_count_too(chapters):
    with pytest.raises(build_notebook.BuildError, match="'_x'"):
        chapters(one="# %%\n_x = 1\n", two="# %%\n_x = 2\n")


def test_the_same_import_in_two_chapters_is_fine(chapters):
    chapters(one="# %%\nimport os\n", two="# %%\nimport os\n")


def test_two_imports_under_one_name_are_refused(chapters):
    with pytest.raises(build_notebook.BuildError, match="'path'"):
        chapters(one="# %%\nfrom os import path\n", two="# %%\nfrom sys import path\n")


def test_names_inside_functions_and_comprehensions_are_free(chapters):
    chapters(two="# %%\ny = [x for x in ()]\ndef f():\n    x = 1\nz = lambda x: x\n")


def test_star_imports_are_refused(chapters):
    with pytest.raises(build_notebook.BuildError, match="hides what it binds"):
        chapters(two="# %%\nfrom os import *\n")


def test_another_recipe_needs_another_file(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["build_notebook.py", "--recipe", "worked_only"])
    with pytest.raises(SystemExit):
        build_notebook.main()


def test_magics_come_back(chapters):
    assert (
        sources(chapters(one="# %%\n# %pip install six\n", two="# %%\ny = 1\n"))[0]
        == "%pip install six"
    )


# --- The bench ----------------------------------------------------------------------------------


@pytest.fixture
def bench(chapters, tmp_path):
    """Writes modules of a bench under a small essay and builds the notebook."""
    (tmp_path / "essay" / "spine.py").write_text("# %%\n# bench\n\n# %%\n# inline: one\n")

    def build(essay="# %%\nx = f()\n", **modules):
        for name, source in modules.items():
            place = tmp_path / "bench" / name.replace("__", "/")
            place.parent.mkdir(parents=True, exist_ok=True)
            (place.parent / "__init__.py").write_text('"""What it promises."""\n')
            place.with_suffix(".py").write_text(source)
        return chapters(one=essay)

    return build


F = '"""About f."""\n\nimport os\nimport re\n\n# Prose.\n\n\ndef f():\n    return g(os)\n'
G = "def g(x):\n    return x\n\n\ndef unused():\n    return re\n"


def test_a_part_is_one_folded_cell_of_what_the_essay_reaches(bench):
    notebook = bench(settings__a=f"{F}\n\n{G}")
    text, part, essay = notebook.cells
    assert text.source == "What it promises. <small>Used below: `f`.</small>"
    assert part.metadata["_kg_hide-input"] is True
    assert "_kg_hide-input" not in essay.metadata
    assert "def g" in part.source
    for left_out in ("unused", "re", "Prose", "About"):
        assert left_out not in part.source.replace("return", "")


def test_a_docstring_is_cut_short_even_where_its_first_paragraph_ends_in_a_quote(bench):
    part = bench(rows__a='def f():\n    """Says "hi"\n\n    More.\n    """\n').cells[1]
    assert 'Says "hi" """' in part.source
    assert "More" not in part.source


def test_a_part_that_nothing_uses_is_left_out(bench):
    notebook = bench(settings__a="def f(): ...\n", show__b="def h(): ...\n")
    assert len(notebook.cells) == 3


def test_modules_stand_in_the_order_of_their_imports_which_are_written_once(bench):
    a = "import os\nfrom submission.bench.settings.b import g\n\n\ndef f():\n    return g(os)\n"
    part = bench(settings__a=a, settings__b="import os\n\n\ndef g(x):\n    return os\n").cells[1]
    assert part.source.count("import os") == 1
    assert part.source.index("def g") < part.source.index("def f")
    assert "submission" not in part.source


def test_what_is_registered_comes_with_its_module(bench):
    registered = "known = {}\n\n\n@known.setdefault('g', 1)\ndef g(): ...\n\n\ndef f(): ...\n"
    assert "def g" in bench(settings__a=registered).cells[1].source


def test_the_rest_of_docstrings_stays_in_the_modules(bench):
    a = 'def f():\n    """One.\n\n    >>> f()\n    1\n    """\n    return 1\n'
    source = bench(settings__a=a).cells[1].source
    assert source.endswith('def f():\n    """One."""\n    return 1')


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (
            {"settings__a": "from submission.bench.show.b import f\n", "show__b": "f = 1\n"},
            "settings/a imports submission.bench.show.b, which is not below",
        ),
        (
            {
                "rows__a": "from submission.bench.rows.b import g\n\nf = 1\n",
                "rows__b": "from submission.bench.rows.a import f\n\ng = 1\n",
            },
            "circle of imports: rows/a → rows/b → rows/a",
        ),
        ({"rows__a": "f = 1\n", "show__b": "f = 2\n"}, "'f' in 'rows/a' and in 'show/b'"),
    ],
)
def test_arrows_up_circles_and_names_bound_twice_are_refused(bench, modules, message):
    with pytest.raises(build_notebook.BuildError, match=message):
        bench(**modules)


def test_only_parts_and_the_install_cell_are_folded():
    code = [cell for cell in build_notebook.build().cells if cell.cell_type == "code"]
    folded = [cell for cell in code if "_kg_hide-input" in cell.metadata]
    assert len(folded) == 1 + 6


def test_what_is_in_the_open_stays_short():
    code = [cell for cell in build_notebook.build().cells if cell.cell_type == "code"]
    lines = [len(x.source.splitlines()) for x in code if "_kg_hide-input" not in x.metadata]
    assert max(lines) <= 60
    assert sum(lines) <= 1000


def test_a_chapter_can_be_for_some_recipes_only(chapters, tmp_path):
    chapters()
    (tmp_path / "essay" / "spine.py").write_text("# %%\n# inline: one (recipes: worked_only)\n")
    assert sources(build_notebook.build()) == []
    assert sources(build_notebook.build("worked_only")) == ["x = 1"]


def test_another_recipes_notebook_runs_that_recipe():
    text = "\n".join(sources(build_notebook.build("worked_only")))
    assert '\nRECIPE = "worked_only"' in text


def test_unknown_recipe_and_missing_chapter_are_named(chapters, tmp_path):
    with pytest.raises(build_notebook.BuildError, match="Unknown recipe 'magic'"):
        build_notebook.build("magic")
    (tmp_path / "essay" / "spine.py").write_text("# %%\n# inline: three\n")
    with pytest.raises(build_notebook.BuildError, match="no chapter 'three'"):
        build_notebook.read_chapter("three")


def executed(notebook):
    run = nbformat.from_dict(notebook)
    for number, cell in enumerate((c for c in run.cells if c.cell_type == "code"), 1):
        cell.execution_count = number
        cell.outputs = [nbformat.v4.new_output("stream", text=f"out {number}\n")]
    return run


def test_outputs_are_adopted_and_the_check_still_holds(chapters, tmp_path):
    adopted = build_notebook.take_outputs(chapters(), executed(chapters()))
    assert [c.outputs[0].text for c in adopted.cells] == ["out 1\n", "out 2\n"]
    path = tmp_path / "n.ipynb"
    path.write_text(build_notebook.dump(adopted))
    assert build_notebook.same_but_outputs(path, chapters())


def test_outputs_of_another_notebook_are_refused(chapters):
    run = executed(chapters())
    run.cells[1].source = "y = x  # changed"
    with pytest.raises(build_notebook.BuildError, match="not the ones the chapters give"):
        build_notebook.take_outputs(chapters(), run)


def test_a_cell_that_did_not_run_is_refused(chapters):
    run = executed(chapters())
    run.cells[1].execution_count = None
    with pytest.raises(build_notebook.BuildError, match="did not run"):
        build_notebook.take_outputs(chapters(), run)


STORY = ("spine", "final_results")  # no modules: they use what the chapters above define


def test_importing_a_chapter_prints_nothing():
    root = build_notebook.CHAPTERS.parent
    files = sorted(path.relative_to(root) for path in build_notebook.CHAPTERS.rglob("*.py"))
    names = [".".join(path.with_suffix("").parts) for path in files if path.stem not in STORY]
    imports = "; ".join(f"import {name}" for name in names)
    environment = {
        **os.environ,
        "PYTHONPATH": str(build_notebook.ROOT / "scripts"),
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", imports],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr[-2000:]


def test_the_first_screen_tells_the_bundled_rows_of_the_real_gemma_from_others(
    monkeypatch, tmp_path
):
    def rates(n, right):
        return {"n": n, "accuracy": right, "accuracy_lenient": right + 0.1}

    monkeypatch.setattr(build_notebook, "SMALL_RUNS", tmp_path)
    assert build_notebook.real_gemma() == ""
    for seed, bonus in ((0, 0.0), (1, 0.2)):
        stages = {
            stage: {"by_domain": {"math": rates(30, 0.1 + bonus), "logic": rates(10, 0.5 + bonus),
                                  "gsm8k": rates(20, 0.3)}}
            for stage in ("stock", "after_sft", "after_grpo")
        }  # fmt: skip
        (tmp_path / f"seed-{seed}.json").write_text(
            json.dumps({"seed": seed, "evaluation": stages})
        )
    told = build_notebook.real_gemma()
    assert "seed 0, 1;" in told
    assert "0.400, 0.300, 0.300 of the bundled rows, 0.400, 0.300, 0.300 of public" in told

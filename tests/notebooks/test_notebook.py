"""The notebook as a whole: executed with few steps, then the judges' cells in the same kernel."""

import json
import pathlib

import nbformat
import pytest
import run_notebook
from nbclient import NotebookClient

import build_notebook
from submission.essay.profiles import TINY
from submission.essay.recipes import RECIPES

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
NOTEBOOK = ROOT / "submission.ipynb"

# Few steps, but enough for the warm start to take. Put in right after the configuration.
FEWER_STEPS = """
def fewer(profile):
    stages = {name: {"prompts": 16, "generations": 8} for name in profile.stages}
    if "pairs" in stages:
        stages["pairs"] |= {"steps": 2, "pairs": 4, "save_every": 1}
    return changed(profile, {
        "sft": {"steps": min(60, profile.sft.steps), "save_every": 30},
        "grpo": {"steps": min(4, profile.grpo.steps), "save_every": 2},
        "evaluation": {"rows": 100, "batch_size": 100},
        "stages": {name: changed(profile.stages[name], new) for name, new in stages.items()},
    })

whole_recipe = Recipe.applied
Recipe.applied = lambda recipe, profile: fewer(whole_recipe(recipe, profile))
"""

# What the judges do, from the official template; they know the notebook's names alone.
JUDGES = """
import json, re

trained_ckpt_path = os.path.join(CKPT_DIR, "actor")
actor_steps = sorted(int(d) for d in os.listdir(trained_ckpt_path) if re.match(r"^\\d+$", d))
latest = os.path.join(trained_ckpt_path, str(actor_steps[-1]), "model_params")

abs_params = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), nnx.state(lora_policy, nnx.LoRAParam)
)
# Nothing of the policy in memory may help: its adapter is wiped first.
nnx.update(lora_policy, jax.tree.map(lambda x: 0 * x, nnx.state(lora_policy, nnx.LoRAParam)))
checkpointer = ocp.StandardCheckpointer()
trained_lora_params = checkpointer.restore(latest, target=abs_params)
nnx.update(
    lora_policy,
    jax.tree.map(lambda a, b: b, nnx.state(lora_policy, nnx.LoRAParam), trained_lora_params),
)

judges_sampler = sampler_lib.Sampler(
    transformer=lora_policy,
    tokenizer=tokenizer,
    cache_config=sampler_lib.CacheConfig(
        cache_size=MAX_PROMPT_LENGTH + MAX_GENERATION_STEPS + 256,
        num_layers=model_config.num_layers,
        num_kv_heads=model_config.num_kv_heads,
        head_dim=model_config.head_dim,
    ),
)
out = judges_sampler(
    input_strings=[PROMPT_TEMPLATE.format(question=row.question) for row in held_out],
    max_generation_steps=MAX_GENERATION_STEPS,
    max_prompt_length=MAX_PROMPT_LENGTH,
    temperature=INF_TEMPERATURE,
    top_k=INF_TOP_K,
    top_p=INF_TOP_P,
    echo=False,
    seed=SEED,
)
texts = out.text
shape = re.compile(
    rf"\\s*{REASONING_START}(?:(?!<).)+{REASONING_END}\\s*{SOLUTION_START}(?:(?!<).)+{SOLUTION_END}\\s*",
    re.DOTALL,
)
in_format = [
    bool(shape.fullmatch(text)) and len(tokens) < MAX_GENERATION_STEPS
    for text, tokens in zip(texts, out.tokens)
]
right = [
    f and check(row, text.split(SOLUTION_START)[1].split(SOLUTION_END)[0]) is True
    for f, row, text in zip(in_format, held_out, texts)
]
stopped = [len(tokens) < MAX_GENERATION_STEPS for tokens in out.tokens]
closing = tokenizer.encode(SOLUTION_END)[-1]  # what must stand directly before the eos
eos_last = all(t[-1] == closing for t, f in zip(out.tokens, in_format) if f)
print("JUDGES " + json.dumps({
    "step": actor_steps[-1],
    "format": sum(in_format) / len(texts),
    "accuracy": sum(right) / len(texts),
    "stopped": sum(stopped) / len(texts),
    "eos_last": eos_last,
    "names": [isinstance(PROMPT_TEMPLATE, str), TEMPERATURE > 0, TOP_K, TOP_P,
              REASONING_START, REASONING_END, SOLUTION_START, SOLUTION_END,
              unrestricted_kaggle_model, callable(kagglehub.model_download)],
}))
"""


def run(out, monkeypatch, extra=(), inject=FEWER_STEPS, edits=(), **environment):
    """Executes the notebook with few steps, as run.sh chooses it; returns it.

    `edits` are pairs of what stands in a cell and what a reader puts there.
    """
    notebook = run_notebook.notebook_to_run(environment.get("RECIPE", ""))
    for old, new in edits:
        (cell,) = (cell for cell in notebook.cells if old in cell.source)
        cell.source = cell.source.replace(old, new)
    place = next(i for i, cell in enumerate(notebook.cells) if cell.source.startswith("asked = "))
    if inject:
        notebook.cells.insert(place, nbformat.v4.new_code_cell(inject))
    notebook.cells += [nbformat.v4.new_code_cell(source) for source in extra]
    for name, value in {"OUT": str(out), "PROFILE": "tiny", **environment}.items():
        monkeypatch.setenv(name, value)
    client = NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}
    )
    client.execute()
    return notebook


def text_of(notebook):
    return "".join(
        output.get("text", "")
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "stream"
    )


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    out = tmp_path_factory.mktemp("notebook") / "outputs"
    with pytest.MonkeyPatch.context() as patch:
        return run(out, patch, [JUDGES]), out


def test_everything_is_left_where_it_belongs(executed):
    _, out = executed
    files = ("results.json", "metrics.jsonl", "plots/learning.png", "plots/before_after.png")
    for path in (*files, "groups.jsonl", "plots/kinds.png"):
        assert (out / path).stat().st_size > 0
    assert list((out / "tensorboard").iterdir())
    assert sum(path.is_file() for path in out.rglob("*")) < 500  # what Kaggle keeps
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [x["step"] for x in lines if x["stage"] == "sft"] == list(range(1, 61))
    assert [x["step"] for x in lines if x["stage"] == "grpo"] == [1, 2, 3, 4]


def test_results_have_the_promised_fields(executed):
    results = json.loads((executed[1] / "results.json").read_text())
    assert set(results) == {
        *("profile", "recipe", "model", "seed", "wall_seconds", "stages", "evaluation"),
        *("submitted_step", "submission", "data", "stock_plain"),
    }
    assert [stage["name"] for stage in results["stages"]] == ["sft", "grpo"]
    for name in ("stock", "after_sft", "after_grpo"):
        assert set(results["evaluation"][name]) == {
            *("n", "format", "accuracy", "accuracy_ci95", "accuracy_lenient", "open_score"),
            *("stopped", "mean_tokens", "by_domain", "by_kind"),
            *("open_score_lenient", "open_by_domain", "failed"),
        }
        assert results["evaluation"][name]["failed"] == 0


def test_the_judges_find_what_results_json_says(executed):
    notebook, out = executed
    line = next(x for x in text_of(notebook).splitlines() if x.startswith("JUDGES "))
    judged = json.loads(line.removeprefix("JUDGES "))
    ours = json.loads((out / "results.json").read_text())["evaluation"]["after_grpo"]
    assert judged["step"] == 4
    assert judged["format"] == pytest.approx(ours["format"], abs=1e-3)
    assert judged["accuracy"] == pytest.approx(ours["accuracy"], abs=1e-3)
    assert judged["stopped"] == pytest.approx(ours["stopped"], abs=1e-3)
    assert judged["stopped"] >= 0.9  # few steps; the full run's 99 % is in README
    assert judged["eos_last"]
    assert judged["names"] == [
        *(True, True, None, 1.0),
        *("<reasoning>", "</reasoning>", "<answer>", "</answer>", None, True),
    ]


def test_the_warm_start_teaches_the_format_even_in_few_steps(executed):
    evaluation = json.loads((executed[1] / "results.json").read_text())["evaluation"]
    assert evaluation["stock"]["format"] <= 0.05
    assert evaluation["after_sft"]["format"] >= 0.8


def test_no_warnings_in_the_output(executed):
    for cell in executed[0].cells:
        for output in cell.get("outputs", []):
            assert not (output.output_type == "stream" and output.name == "stderr"), output.text


@pytest.mark.slow
def test_the_same_seed_gives_the_same_results(executed, tmp_path, monkeypatch):
    run(tmp_path / "again", monkeypatch)

    def timeless(out):
        results = json.loads((out / "results.json").read_text())
        del results["wall_seconds"]
        for stage in results["stages"]:
            del stage["seconds"]
        return results

    assert timeless(tmp_path / "again") == timeless(executed[1])


@pytest.mark.slow
def test_a_reader_adds_rows_and_a_reward(executed, tmp_path, monkeypatch):
    """Each of the examples in the two cells, switched on."""
    row = {"question": "What is 2 plus {}?", "answer": "{}", "checker": "number", "trace": "2+{}."}
    for name, first in (("my_traces", 100), ("my_rows", 200)):
        rows = [{k: v.format(n if k != "answer" else n + 2) for k, v in row.items()}
                for n in range(first, first + 40)]  # fmt: skip
        lines = "".join(json.dumps(one) + "\n" for one in rows)
        (tmp_path / f"{name}.jsonl").write_text(lines)
    edits = [
        (
            '# Source("bundled", "my_traces.jsonl")',
            f'Source("bundled", "{tmp_path}/my_traces.jsonl")',
        ),
        ('# Source("bundled", "my_rows.jsonl"', f'Source("bundled", "{tmp_path}/my_rows.jsonl"'),
        ('# "has_a_number": (', '"has_a_number": ('),
    ]
    notebook = run(tmp_path / "out", monkeypatch, edits=edits)
    shown = build_notebook.dump(notebook)
    for name in ("my_traces", "my_rows"):
        assert f"{name}.jsonl | Apache-2.0 | 40 |" in shown
    lines = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    assert all("has_a_number" in line for line in lines if '"grpo"' in line)
    assert all("has_a_number" not in line for line in lines if '"sft"' in line)


# The default's own run is `executed`; a control differs from its recipe by a value; and on the tiny
# profile two domains have the cells and rows of `medical`.
DONE = {"warm_start_grpo", "chemistry", "legal"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe", [name for name in RECIPES if name not in DONE and not name.endswith("_control")]
)
def test_every_recipe_runs_from_top_to_bottom(executed, recipe, tmp_path, monkeypatch):
    earlier = {"START_FROM": str(executed[1])} if RECIPES[recipe].continues else {}
    run(tmp_path / "out", monkeypatch, RECIPE=recipe, **earlier)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["recipe"] == recipe
    first, *between, last = [stage["steps"] for stage in results["stages"]]
    profile = RECIPES[recipe].applied(TINY)
    assert (first, last) == (min(60, profile.sft.steps), min(4, profile.grpo.steps))
    assert between == {"trace_model": [0], "preferred": [2]}.get(
        recipe.removesuffix("_control"), []
    )
    assert (tmp_path / "out" / "final_results.json").exists() == (recipe == "curriculum")
    if earlier and not first:  # GRPO begins where the earlier run ended
        before = json.loads((executed[1] / "results.json").read_text())["evaluation"]
        begun = results["evaluation"]["after_sft"]["accuracy"]
        assert begun == pytest.approx(before["after_grpo"]["accuracy"], abs=1e-3)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"PROFILE": "laptop"}, "Unknown profile 'laptop'"),
        ({"RECIPE": "magic"}, "Unknown recipe 'magic'"),
    ],
)
def test_a_wrong_setting_stops_the_notebook_at_once(tmp_path, monkeypatch, variables, message):
    from nbclient.exceptions import CellExecutionError

    with pytest.raises(CellExecutionError, match=message):
        run(tmp_path / "out", monkeypatch, **variables)
    assert not (tmp_path / "out").exists()


# --- What is committed --------------------------------------------------------------------------


def committed():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_committed_notebook_shows_a_whole_run():
    notebook = committed()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [o for cell in code for o in cell.outputs if o.output_type == "error"]
    assert "profile tiny, model gemma3_tiny_it" in text_of(notebook)


def test_readme_shows_the_table_of_the_committed_run():
    tables = [
        output.data["text/markdown"]
        for cell in committed().cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "text/markdown" in output.get("data", {})
    ]
    headline = next(x for x in tables if x.startswith("Profile `tiny`")).split("\n\n")[1]
    assert headline in (ROOT / "README.md").read_text()

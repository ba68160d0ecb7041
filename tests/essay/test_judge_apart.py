"""A judge on chips of its own, on eight emulated devices: it says the same, without a wait."""

import json
import os
import subprocess
import sys

import pytest

from conftest import ROOT

pytestmark = pytest.mark.slow

SCRIPT = """
import dataclasses, json, pathlib, sys, time
sys.path[:0] = ["scripts", "tests"]
import jax

from conftest import short_run
from submission.bench.answers import scoring
from submission.bench.policy import chips, model
from submission.bench.rows import prepared
from submission.bench.run import budget, checkpoints, helpers, run_folder, stages
from submission.bench.settings import config
from submission.essay import grpo, judged, recipes

run = short_run(sys.argv[1], recipe="judged")
changes = {
    "grpo": {"steps": 5, "save_every": 5, "prompts": 16, "generations": 8, "micro_prompts": 4,
             "beta": 0.02},
    "generation": {"segment": 8}, "helper": {"chips": 4, "rubrics": {"rows": 16}},
}
profile = recipes.RECIPES["judged"].applied(run.profile)
teacher = recipes.TEACHERS["tiny"]["helper"]
profile = config.changed(profile, changes | {"adapter": teacher.adapter})
run = dataclasses.replace(run, profile=profile)
devices = chips.policy_devices(run)
mesh = model.make_mesh(True, devices)
stock = model.locate(run.model, 1)
tokenizer = model.load_tokenizer(stock)
policy = model.add_adapter(model.load_stock(run.model, stock, mesh), profile.adapter, 0, mesh)
checkpoints.restore_adapter(policy, pathlib.Path(teacher.step))  # knows the format

# By the plan, a 4B on four chips takes a third of the step for the half that it judges: from the
# fourth step on, the judge is made as slow as that. (What is said alike is judged once.)
said, seconds_each, judging, judged_then = {}, [0.0], [0.0], [0]
whole = judged.Judge.judged

def slowly(self, completions, examples):
    start = time.monotonic()
    found = whole(self, completions, examples)
    said.update(zip(zip(completions, examples), found))
    time.sleep(max(0.0, seconds_each[0] * len(completions) - (time.monotonic() - start)))
    judging[-1] += time.monotonic() - start
    judged_then[0] += len(completions)
    return found

def after_a_step(line):
    judging.append(0.0)
    if line["step"] == 3:
        seconds_each[0] = 0.3 * line["seconds"] / judged_then[0]
    judged_then[0] = 0

judged.Judge.judged = slowly
rows = prepared.rows_of_run(run, tokenizer)
forever = budget.Deadline.after(600)
folder = run_folder.open_run_folder(run)
session = stages.Session(run, mesh, folder, forever, listeners=[after_a_step])
report = grpo.train_grpo(policy, tokenizer, rows["grpo"], session, forever)
judge, everywhere = scoring.EXTRA_PARTS["judge"], model.make_mesh()
some = list(said)[:32]
shared = config.changed(run, {"profile": {"helper": {"chips": 0}}})
in_turn = judged.Judge(
    helpers.load_helper(shared, everywhere), tokenizer, everywhere, profile.helper.rubrics,
    judge.length,
)
judge_of_all = whole(in_turn, *zip(*some))
print(json.dumps({
    "policy": len(devices), "judge": len(judge.mesh.devices.flatten()),
    "apart": [said[key] for key in some], "in turn": judge_of_all, "judging": judging,
    "lines": [{k: line.get(k) for k in ("seconds", "reward_seconds")}
              for line in report["history"]],
}))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, str(tmp_path_factory.mktemp("run"))],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_judge_apart_says_what_a_judge_on_all_chips_says(run):
    assert (run["policy"], run["judge"]) == (4, 4)
    assert run["apart"] == pytest.approx(run["in turn"], abs=1e-4)
    assert len(set(run["apart"])) > 8


def test_a_judge_as_slow_as_planned_is_hardly_waited_for(run):
    steps = range(3, len(run["lines"]))
    took, waited = (sum(run["lines"][i][x] for i in steps) for x in ("seconds", "reward_seconds"))
    judging = sum(run["judging"][i] for i in steps)
    assert judging > 0.15 * took
    assert waited <= min(0.1 * took, 0.5 * judging)

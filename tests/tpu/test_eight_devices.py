"""The pipeline on eight emulated devices, with Tunix's sharding constraints forced on."""

import json
import os
import re
import subprocess
import sys

import pytest

from conftest import ROOT

pytestmark = pytest.mark.slow

SCRIPT = """
import dataclasses, json, re, sys
sys.path[:0] = ["scripts", "tests"]
import jax
from flax import nnx
from tpu.target import constraints_forced

from conftest import short_run
from submission.bench.policy import cluster
from submission.bench.policy import decoding, model, rollout
from submission.bench.rows import prepared
from submission.bench.run import budget, run_folder, stages
from submission.essay import grpo, sft
from submission.bench.answers.prompts import render_prompt

run = short_run(sys.argv[1])
run = dataclasses.replace(run, profile=dataclasses.replace(
    run.profile, grpo=dataclasses.replace(run.profile.grpo, steps=1), remat=True,
))
profile = run.profile
mesh = model.make_mesh()
folder = model.locate(run.model, 1)
tokenizer = model.load_tokenizer(folder)
policy = model.add_adapter(
    model.load_stock(run.model, folder, mesh), profile.adapter, run.seed, mesh
)

rows = prepared.rows_of_run(run, tokenizer)
forever = budget.Deadline.after(60)
session = stages.Session(run, mesh, run_folder.open_run_folder(run), forever)

engine_settings = dataclasses.replace(cluster.rollout_config(run), segment=8)
texts = [render_prompt(e.question) for e in rows["grpo"].examples[:12] for _ in range(4)]
programs = []
made = decoding.Decoder.__init__


def remembered(self, *arguments):
    made(self, *arguments)
    segment = self.segment

    def call(*values, **named):
        programs.append(segment.lower(*values, **named).compile().as_text())
        self.segment = segment
        return segment(*values, **named)

    self.segment = call


with constraints_forced(), mesh:
    decoding.Decoder.__init__ = remembered
    engine = rollout.PolicyRollout(policy, tokenizer, mesh, engine_settings)
    sampled = [t.tolist() for t in engine.generate(texts, engine_settings).tokens]
    one = sft.train_sft(policy, tokenizer, rows["sft"], session, forever)
    two = grpo.train_grpo(policy, tokenizer, rows["grpo"], session, forever)
moved = re.findall(
    r"= (\\S+) (?:all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)", programs[0]
)
base = jax.tree.leaves(nnx.state(policy, nnx.filterlib.Not(nnx.LoRAParam)))
print(json.dumps({
    "devices": jax.device_count(),
    "replicated": all(x.sharding.is_fully_replicated for x in base),
    "sampled": sampled,
    "moved in a segment": moved,
    "sft": [line["loss"] for line in one["history"]],
    "kl": two["history"][0]["kl"],
}))
"""


def run(tmp_path, devices):
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / str(devices))]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("devices")
    return run(folder, 1), run(folder, 8)


def test_eight_devices_train_like_one(results):
    one, eight = results
    assert eight["devices"] == 8
    assert eight["replicated"]
    assert max(abs(a - b) for a, b in zip(one["sft"], eight["sft"], strict=True)) < 1e-3
    assert abs(eight["kl"]) < 1e-5


def test_eight_devices_sample_what_one_samples(results):
    one, eight = results
    assert eight["sampled"] == one["sampled"]


def test_decoding_moves_nothing_between_devices_but_whether_all_are_done(results):
    _, eight = results
    assert all(re.fullmatch(r"pred\[\]\S*", shape) for shape in eight["moved in a segment"])

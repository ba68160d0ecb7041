"""The pipeline on eight emulated devices, with Tunix's sharding constraints forced on."""

import json
import os
import subprocess
import sys

from conftest import ROOT

SCRIPT = """
import dataclasses, json, sys
sys.path[:0] = ["scripts", "tests"]
import jax
from jax.interpreters import pxla
from tunix.utils import sharding_utils

def shard(x, spec, eager=False):  # Tunix's own, without its exception for CPUs
    mesh = pxla.thread_resources.env.physical_mesh
    if mesh.empty:
        return x
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))
    return jax.lax.with_sharding_constraint(x, sharding)

sharding_utils.shard = shard

from conftest import short_run
from submission import budget, checkpoints, grpo, model, prepared, sft

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
out = checkpoints.open_run_folder(run)
common = (run, mesh, out.checkpoints, out.metrics, budget.Deadline.after(10))
one = sft.train_sft(policy, tokenizer, rows["sft"], *common)
two = grpo.train_grpo(policy, tokenizer, rows["grpo"], *common)
embedding = policy.embedder.input_embedding.get_value()
print(json.dumps({
    "devices": jax.device_count(),
    "replicated": embedding.sharding.is_fully_replicated,
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


def test_eight_devices_train_like_one(tmp_path):
    one, eight = run(tmp_path, 1), run(tmp_path, 8)
    assert eight["devices"] == 8
    assert eight["replicated"]
    assert max(abs(a - b) for a, b in zip(one["sft"], eight["sft"], strict=True)) < 1e-3
    assert abs(eight["kl"]) < 1e-5

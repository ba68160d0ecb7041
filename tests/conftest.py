"""What the tests share: the tiny Gemma, loaded once, and a run of a few steps."""

import contextlib
import dataclasses
import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
os.chdir(ROOT)  # the configuration's paths are relative to the repository
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if worker := os.environ.get("PYTEST_XDIST_WORKER"):  # a core each: small models take half as long
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker[2:]) % len(cores)]})

import absl.logging  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import pytest  # noqa: E402
from flax import nnx  # noqa: E402
from tunix.models.gemma import model as gemma2_lib  # noqa: E402

absl.logging.set_verbosity(absl.logging.ERROR)

from submission.bench.policy import model  # noqa: E402
from submission.bench.rows import prepared  # noqa: E402
from submission.bench.run import budget, run_folder, stages  # noqa: E402
from submission.bench.settings import config  # noqa: E402
from submission.essay import profiles  # noqa: E402


def short_run(out, **changes):
    """The tiny profile with a handful of steps."""
    profile = dataclasses.replace(
        profiles.TINY,
        # Eight rows, to be split over eight devices.
        sft=dataclasses.replace(profiles.TINY.sft, steps=4, rows=8, save_every=2),
        grpo=dataclasses.replace(
            profiles.TINY.grpo,
            steps=3,
            prompts=4,
            generations=4,
            micro_prompts=4,
            save_every=2,
            beta=0.02,
        ),
        evaluation=dataclasses.replace(profiles.TINY.evaluation, rows=16, batch_size=8),
    )
    return config.Run(
        **{
            "profile": profile,
            "recipe": "warm_start_grpo",
            "seed": 0,
            "minutes": None,
            "out": str(out),
            "resume": None,
            **changes,
        }
    )


@contextlib.contextmanager
def session_of(run, mesh):
    """An opened session of a run; its folder is let go of afterwards."""
    folder = run_folder.open_run_folder(run)
    try:
        yield stages.Session(run, mesh, folder, budget.Deadline.after(10))
    finally:
        folder.release()


class Clock:
    """Time that passes only where a test moves it, or something waits."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def timeless(lines):
    """The lines of a log without what depends on the clock."""
    return [{k: v for k, v in line.items() if not k.endswith("seconds")} for line in lines]


def moved(policy, scale):
    """The policy, its adapter moved away from zero, as training would; the same way each time."""
    state = jax.tree.map(
        lambda x: x + scale * jax.random.normal(jax.random.key(x.size), x.shape, x.dtype),
        nnx.state(policy, nnx.LoRAParam),
    )
    nnx.update(policy, state)
    return policy


FACTS = {"stage": "grpo", "config": "x", "pace": {}, "state": {}}  # that a save carries
SMALL_GEMMA_2 = {
    "num_layers": 2,
    "num_embed": 640,
    "embed_dim": 32,
    "hidden_dim": 64,
    "num_heads": 4,
    "head_dim": 8,
    "num_kv_heads": 2,
    "final_logit_softcap": 30.0,
    "attention_types": (
        gemma2_lib.AttentionType.LOCAL_SLIDING,
        gemma2_lib.AttentionType.GLOBAL,
    ),
    "use_post_attn_norm": True,
    "use_post_ffw_norm": True,
    "attn_logits_soft_cap": 50.0,
    "sliding_window_size": 16,
}


def small_gemma_2(mesh, **shape):
    """A Gemma 2 with an adapter, whose logits reach its final soft cap."""
    shape = {**SMALL_GEMMA_2, **shape}
    stock = config.StockModel("gemma2_small", "gemma2", "", shape=shape, dtype="float32")
    gemma_2 = gemma2_lib.Gemma(model.tunix_config(stock), rngs=nnx.Rngs(0))
    nnx.update(gemma_2, jax.tree.map(lambda x: x.astype(jnp.float32), nnx.state(gemma_2)))
    table = gemma_2.embedder.input_embedding
    table[...] = table[...] * 30
    return model.add_adapter(gemma_2, dataclasses.replace(profiles.TINY.adapter, rank=4), 0, mesh)


@pytest.fixture(scope="session")
def mesh():
    return model.make_mesh()


@pytest.fixture(scope="session")
def tiny_folder():
    return model.locate(profiles.STOCK_MODELS["gemma3_tiny_it"], minutes=1)


@pytest.fixture(scope="session")
def tokenizer(tiny_folder):
    return model.load_tokenizer(tiny_folder)


@pytest.fixture(scope="session")
def make_policy(tiny_folder, mesh):
    """Makes a fresh policy on the tiny stock Gemma, in the dtype asked for."""

    def make(dtype="float32", seed=0):
        stock = dataclasses.replace(profiles.STOCK_MODELS["gemma3_tiny_it"], dtype=dtype)
        loaded = model.load_stock(stock, tiny_folder, mesh)
        return model.add_adapter(loaded, profiles.TINY.adapter, seed, mesh)

    return make


@pytest.fixture(scope="session")
def rows(tokenizer):
    """The rows of a run, by stage, as the notebook reads them."""
    run = profiles.read_run({"PROFILE": "tiny"}, "cpu")
    return prepared.rows_of_run(run, tokenizer)

"""The ablations: each takes away what it says, and the table says what was measured."""

import json

import ablate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tunix.rl.rollout import base_rollout

from conftest import moved
from submission.bench.answers import prompts
from submission.bench.policy import cluster, rollout
from submission.bench.settings import config
from submission.essay import grpo, profiles, rewards, sft

EOS = 1


class Engine(rollout.PolicyRollout):
    """A rollout without a model: it returns what it is given."""

    def __init__(self, tokens=()):
        self.calls, self.made = 5, [np.array(row) for row in tokens]

    def eos_id(self):
        return EOS


@pytest.fixture
def stub(monkeypatch):
    """The generation under the patches."""

    def generate(self, *arguments, **keywords):
        self.calls += 1
        return base_rollout.RolloutOutput(
            text=[], logits=None, tokens=self.made, left_padded_prompt_tokens=None, logprobs=None
        )

    monkeypatch.setattr(rollout.PolicyRollout, "generate", generate)


def test_without_eos_the_last_token_is_missing_where_there_was_one(stub):
    with ablate.without_eos():
        found = Engine([[5, 6, EOS], [5, 6, 7], [EOS]]).generate()
    assert [row.tolist() for row in found.tokens] == [[5, 6], [5, 6, 7], [EOS]]


def test_the_same_noise_is_the_first_key_again_and_again(stub):
    engine = Engine()
    with ablate.same_noise():
        engine.generate()
        engine.generate()
    assert engine.calls == 1
    engine.generate()
    assert engine.calls == 2


def test_the_stock_reference_is_the_stock_model(make_policy):
    policy = moved(make_policy(), 0.1)
    ours = cluster.REFERENCES["warm_start"]
    with ablate.stock_reference():
        reference = cluster.REFERENCES["warm_start"](policy, None, None, None)
    assert not any(x.any() for x in jax.tree.leaves(nnx.state(reference, nnx.LoRAParam)))
    assert cluster.REFERENCES["warm_start"] is ours


def test_the_kl_estimator_is_tunix_default():
    with ablate.stock_kl():
        assert grpo.algorithm_config(profiles.TINY).kl_loss_mode == "kl"
    assert grpo.algorithm_config(profiles.TINY).kl_loss_mode == "low_var_kl"


def test_without_master_weights_small_updates_round_away():
    settings = config.Optimizer(peak_rate=1e-4)
    weights = {"w": jnp.full((4,), 1.0, jnp.bfloat16)}

    def after(optimizer):
        found, state = weights, optimizer.init(weights)
        for _ in range(40):
            changes, state = optimizer.update(
                {"w": jnp.full((4,), 0.1, jnp.bfloat16)}, state, found
            )
            found = jax.tree.map(lambda x, c: (x + c).astype(x.dtype), found, changes)
        return float(found["w"][0])

    with ablate.no_master_weights():
        assert after(sft.make_optimizer(settings)) == 1.0
        assert sft.make_optimizer is grpo.make_optimizer
    assert after(grpo.make_optimizer(settings)) < 1.0


def test_without_the_gate_a_right_answer_pays_in_any_form():
    row = prompts.Example("6*7?", "42", "number")
    with ablate.no_gate():
        assert rewards.reward_right(prompts.parse("It is 42."), row) == 1.0
        assert rewards.reward_right(prompts.parse("It is 43."), row) == 0.0
    assert rewards.reward_right(prompts.parse("It is 42."), row) == 0.0


def test_a_job_needs_the_warm_start_of_its_own_seed():
    parts = ablate.jobs_of(["full", "no_sft", "stock"], [0, 1])
    assert parts == [
        ["sft:float32:0", "sft:no_master:0"],
        ["grpo:full:0", "grpo:no_sft:0", "grpo:stock:0"],
        ["sft:float32:1", "sft:no_master:1"],
        ["grpo:full:1", "grpo:no_sft:1", "grpo:stock:1"],
    ]
    assert len(ablate.ROWS) + 1 >= 9  # and the warm start alone


def scores(accuracy):
    return {
        "n": 600, "format": 1.0, "accuracy": accuracy, "accuracy_lenient": accuracy,
        "stopped": 1.0, "mean_tokens": 20.0,
    }  # fmt: skip


def test_what_is_done_is_not_done_again_and_differences_are_by_seed(tmp_path, monkeypatch, capsys):
    for seed in (0, 1, 2):
        files = {"sft-float32": {"stock_gemma": scores(0.3), "sft_only": scores(0.4 + seed / 10)}}
        files["grpo-full"] = {"full": scores(0.7 + seed / 10)}
        files["grpo-no_eos"] = {"no_eos": scores(0.6 + seed / 10)}
        for name, found in files.items():
            (tmp_path / f"{name}-{seed}.json").write_text(json.dumps({"seed": seed, **found}))
    monkeypatch.setattr(ablate.subprocess, "call", lambda *_, **__: pytest.fail("done already"))
    assert ablate.main(["--out", str(tmp_path), "--rows", "full", "no_eos"]) == 0
    lines = capsys.readouterr().out
    assert "| all of it | 3 | 0.800 ± 0.248 |  |" in lines
    assert "| no EOS in the sampled tokens | 3 | 0.700 ± 0.248 | -0.100 ± 0.000 |" in lines
    monkeypatch.setattr(ablate, "NUMBERS", tmp_path / "kept" / "numbers.json")
    monkeypatch.setattr(ablate, "TABLE", tmp_path / "kept" / "table.md")
    monkeypatch.setattr(ablate, "PLOT", tmp_path / "kept" / "plot.png")
    (tmp_path / "kept").mkdir()
    again = ["--rows", "full", "no_eos", "--write"]
    assert ablate.main(["--out", str(tmp_path), *again]) == 0
    assert (tmp_path / "kept" / "table.md").read_text().count("| 3 |") == 4
    made = []
    monkeypatch.setattr(ablate.subprocess, "call", lambda command, **_: made.append(command[-1]))
    assert ablate.main(["--out", str(tmp_path / "anew"), "--with-earlier", *again[:3]]) == 1
    assert sorted(made) == [f"sft:float32:{seed}" for seed in range(3)]  # their adapters are gone
    ablate.plot(ablate.results_in(tmp_path), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000


def test_a_job_that_fails_is_named_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ablate.subprocess, "call", lambda *_, **__: 3)
    assert ablate.main(["--out", str(tmp_path), "--rows", "full", "--seeds", "0"]) == 1
    assert "grpo:full:0 failed: see" in capsys.readouterr().out

import dataclasses
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tunix.rl import common, function_registry
from tunix.rl.grpo import grpo_learner
from tunix.sft import checkpoint_manager

from conftest import moved, session_of, short_run, timeless
from submission.bench.answers import prompts, scoring
from submission.bench.rows import curriculum, data
from submission.bench.run import checkpoints, group_metrics, stages
from submission.bench.settings import config
from submission.essay import grpo, profiles, rewards, sft


def adapter(policy):
    return [np.asarray(x) for x in jax.tree.leaves(nnx.state(policy, nnx.LoRAParam))]


def train(policy, tokenizer, rows, mesh, out, **changes):
    with session_of(short_run(out, **changes), mesh) as session:
        stages.save_first_submission(policy, session)
        report = grpo.train_grpo(policy, tokenizer, rows["grpo"], session, session.deadline)
    return report, session.folder


@pytest.fixture(scope="module")
def trained(make_policy, tokenizer, rows, mesh, tmp_path_factory):
    policy = make_policy()
    before = adapter(policy)
    report, folder = train(policy, tokenizer, rows, mesh, tmp_path_factory.mktemp("g") / "run")
    return policy, before, report, folder


# --- Trap 3: the KL estimator -----------------------------------------------------------------


def expected_gradient(mode):
    """The gradient of the KL loss term, in expectation over what the policy samples."""
    logits = jnp.array([0.3, -0.7, 1.2, 0.1])
    reference = jax.nn.log_softmax(jnp.array([1.0, 0.2, -0.4, 0.3]))

    def loss(logits):
        log_probs = jax.nn.log_softmax(logits)
        kl = common.compute_kl_divergence(log_probs, reference, mode)
        return jnp.sum(jax.lax.stop_gradient(jnp.exp(log_probs)) * kl)

    return jax.grad(loss)(logits)


def test_trap_3_the_stock_kl_has_no_gradient_and_ours_has():
    stock = grpo_learner.GRPOConfig(num_generations=2).kl_loss_mode
    ours = grpo.algorithm_config(profiles.TINY).kl_loss_mode
    assert float(jnp.abs(expected_gradient(stock)).max()) < 1e-6
    assert float(jnp.abs(expected_gradient(ours)).max()) > 0.05


def test_the_kl_gradient_points_back_to_the_reference():
    ours = grpo.algorithm_config(profiles.TINY).kl_loss_mode
    towards = jnp.array([0.3, -0.7, 1.2, 0.1]) - jnp.array([1.0, 0.2, -0.4, 0.3])
    assert float(jnp.vdot(expected_gradient(ours), towards)) > 0


# --- Trap 11: the reference -------------------------------------------------------------------


def test_trap_11_a_stock_reference_pulls_back_to_before_sft_and_ours_does_not(
    make_policy, tokenizer, mesh, tmp_path
):
    run = short_run(tmp_path)
    policy = moved(make_policy(), 0.2)
    cluster = grpo.build_cluster(policy, tokenizer, run, mesh)
    row = data.tokenize(tokenizer, prompts.Example("What is 3 + 4?", "7", "number", "3+4=7."))
    prompt, completion = jnp.array([row.prompt]), jnp.array([row.target])
    ids = {"pad_id": tokenizer.pad_id(), "eos_id": tokenizer.eos_id()}

    def log_probs(module):
        graph, state = nnx.split(module)
        return common.compute_per_token_logps(graph, state, prompt, completion, **ids)

    ours = cluster.get_ref_per_token_logps(prompt, completion, **ids)
    kl_ours = common.compute_kl_divergence(log_probs(policy), ours)
    moved(policy, 0.2)  # the policy moves on, the reference must not
    later = cluster.get_ref_per_token_logps(prompt, completion, **ids)
    np.testing.assert_array_equal(ours, later)
    assert float(common.compute_kl_divergence(log_probs(policy), later).mean()) > 0.1
    policy = moved(make_policy(), 0.2)
    kl_stock = common.compute_kl_divergence(log_probs(policy), log_probs(make_policy()))
    assert float(jnp.abs(kl_ours).max()) < 1e-6  # GRPO starts where SFT ended
    assert float(kl_stock.mean()) > 0.1


# --- Temperature ------------------------------------------------------------------------------


def test_reference_old_policy_and_loss_share_one_temperature(
    make_policy, tokenizer, mesh, tmp_path
):
    """Tunix's numbers at the sampling temperature, in micro-batches of two prompts too."""
    run = short_run(tmp_path)
    settings = dataclasses.replace(run.profile.grpo, temperature=0.7)
    run = dataclasses.replace(run, profile=dataclasses.replace(run.profile, grpo=settings))
    policy = moved(make_policy(), 0.1)
    cluster = grpo.build_cluster(policy, tokenizer, run, mesh)
    prompt = jnp.arange(4, 28).reshape(4, 6).at[1, :2].set(tokenizer.pad_id())
    completion = jnp.arange(40, 80).reshape(4, 10)
    ids = {"pad_id": tokenizer.pad_id(), "eos_id": tokenizer.eos_id()}
    graph, state = nnx.split(policy)
    stock = common.compute_per_token_logps(graph, state, prompt, completion, temperature=0.7, **ids)
    old = cluster.get_old_per_token_logps(prompt, completion)
    reference = cluster.get_ref_per_token_logps(prompt, completion, **ids, micro_batch_size=2)
    example = grpo_learner.TrainExample(
        prompt_ids=prompt,
        prompt_mask=prompt != tokenizer.pad_id(),
        completion_ids=completion,
        completion_mask=jnp.ones_like(completion),
        advantages=jnp.ones(4),
        ref_per_token_logps=reference,
        old_per_token_logps=old,
    )
    algorithm = grpo.algorithm_config(run.profile)
    algorithm.temperature = 0.7  # the learner copies it from the rollout's configuration
    loss = function_registry.get_policy_loss_fn(algorithm.policy_loss_fn)
    value, aux = loss(policy, example, algorithm, **ids)
    np.testing.assert_allclose(old, stock, atol=1e-5, rtol=0)
    np.testing.assert_allclose(reference, stock, atol=1e-5, rtol=0)
    assert float(value) == pytest.approx(-1.0, abs=1e-5)  # every ratio is 1
    assert float(aux["kl"]) == pytest.approx(0.0, abs=1e-6)


def test_the_learner_trains_with_the_chunked_loss():
    name = grpo.algorithm_config(profiles.TINY).policy_loss_fn
    assert function_registry.get_policy_loss_fn(name) is grpo.chunked_grpo_loss


# --- The stage --------------------------------------------------------------------------------


def test_grpo_moves_the_adapter(trained):
    policy, before, report, _ = trained
    assert report["steps"] == 3
    assert any((a != b).any() for a, b in zip(before, adapter(policy), strict=True))


def test_every_step_is_one_line_of_metrics(trained):
    _, _, report, folder = trained
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert {line["stage"] for line in lines} == {"grpo"}
    expected = {
        *("stage", "step", "seconds", "loss", "grad_norm", "kl", "entropy", "learning_rate"),
        *("reward", "in_format", "right", "length", "flat_groups", "failed"),
        *("tokens", "step_tokens", "from_in_format", "from_right", "from_length"),
        *("rollout_seconds", "reward_seconds", "update_seconds"),
    }
    kinds = {"right_boolean", "right_choice", "right_number", "right_text"}
    assert all(set(line) - kinds == expected for line in lines)
    assert all(set(line) & kinds for line in lines)
    assert lines == report["history"]
    assert all(np.isfinite(value) for line in lines for value in line.values() if value != "grpo")


def test_what_the_parts_earn_adds_up_to_the_reward(trained):
    for line in trained[2]["history"]:
        parts = sum(value for name, value in line.items() if name.startswith("from_"))
        assert parts == pytest.approx(line["reward"], abs=1e-9)


def test_where_the_time_goes_is_known(trained):
    for line in trained[2]["history"]:
        assert 0 < line["rollout_seconds"] < line["seconds"]
        assert 0 < line["reward_seconds"] < line["seconds"]


@pytest.mark.slow
def test_a_run_goes_on_from_an_earlier_one_with_fresh_rows(
    trained, make_policy, tokenizer, rows, mesh, tmp_path, monkeypatch
):
    """GRPO's next prompts are the ones that the earlier run would have drawn next."""
    _, _, _, folder = trained
    recipe = profiles.RECIPES["continue"]
    run = short_run(tmp_path / "next", start_from=str(folder.path), recipe="continue")
    run = dataclasses.replace(run, profile=recipe.applied(run.profile))
    assert run.profile.sft.steps == 0
    assert run.sft_sources == ()
    assert run.profile.grpo.optimizer.peak_rate == pytest.approx(
        0.3 * profiles.TINY.grpo.optimizer.peak_rate
    )
    policy, drawn = make_policy(), []
    earlier = checkpoints.restore_earlier(policy, folder.path)
    assert [x.tolist() for x in adapter(policy)] == [x.tolist() for x in adapter(trained[0])]
    draw = curriculum.PromptSampler.draw

    def listening(self, *arguments):
        found = draw(self, *arguments)
        drawn.append([example.question for example in found])
        return found

    monkeypatch.setattr(curriculum.PromptSampler, "draw", listening)
    with session_of(run, mesh) as session:
        session.earlier = earlier
        assert (
            sft.train_sft(policy, tokenizer, rows["sft"], session, session.deadline)["steps"] == 0
        )
        report = grpo.train_grpo(policy, tokenizer, rows["grpo"], session, session.deadline)
    assert report["steps"] == 3
    whole = curriculum.PromptSampler(
        rows["grpo"].groups, rows["grpo"].shares, run.profile.grpo.curriculum, run.seed + 1
    )
    expected = [[e.question for e in draw(whole, run.profile.grpo.prompts, 0.0)] for _ in range(6)]
    assert drawn == expected[3:]


def test_rows_that_the_earlier_run_did_not_have_are_drawn_from_the_beginning(capsys):
    rows = [prompts.Example(q, "1", "number") for q in "ab"]
    sampler = curriculum.PromptSampler(
        {"s": rows}, {"s": 1.0}, config.Curriculum("learnability"), 0
    )
    state = {"draws": 9, "cells": [["t", "", 0.0, 4, 0.5]], "seed": 5}
    sampler.go_on(state)
    assert "these are drawn from the beginning" in capsys.readouterr().out
    assert (sampler.draws, sampler.seed) == (0, 0)


def test_the_first_step_is_at_the_reference(trained):
    assert trained[2]["history"][0]["kl"] == pytest.approx(0.0, abs=1e-6)


def test_trap_10_the_last_checkpoint_knows_its_step(trained):
    folder = trained[3]
    actor = folder.checkpoints / "actor"
    assert checkpoints.checkpoint_steps(actor) == [0, 2, 3]  # 3 is the forced one
    manager = checkpoint_manager.CheckpointManager(str(actor))
    metadata = manager._checkpoint_manager.metadata(3).custom_metadata
    manager.close()
    assert metadata["global_step"] == 3


def test_trap_10_stock_forgets_the_step_of_a_forced_save(make_policy, tmp_path):
    manager, policy = checkpoint_manager.CheckpointManager(str(tmp_path / "actor")), make_policy()
    manager.save(3, policy, save_only_lora_params=True, force=True)
    manager._checkpoint_manager.wait_until_finished()
    metadata = manager._checkpoint_manager.metadata(3).custom_metadata or {}
    manager.close()
    assert metadata.get("global_step", 0) == 0


def test_what_was_saved_is_the_policy(trained, make_policy):
    policy, _, _, folder = trained
    restored = make_policy()
    assert checkpoints.restore_submission(restored, folder.checkpoints / "actor") == 3
    for a, b in zip(adapter(policy), adapter(restored), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_adapter_and_metrics(
    trained, make_policy, tokenizer, rows, mesh, tmp_path
):
    policy = make_policy()
    report, _ = train(policy, tokenizer, rows, mesh, tmp_path / "run")
    for a, b in zip(adapter(trained[0]), adapter(policy), strict=True):
        np.testing.assert_array_equal(a, b)

    assert timeless(report["history"]) == timeless(trained[2]["history"])


@pytest.mark.slow
def test_micro_batches_and_two_updates_per_rollout_run(
    make_policy, tokenizer, rows, mesh, tmp_path
):

    base = short_run(tmp_path)
    profile = dataclasses.replace(
        base.profile,
        grpo=dataclasses.replace(base.profile.grpo, micro_prompts=2, iterations=2, steps=2),
    )
    report, _ = train(make_policy(), tokenizer, rows, mesh, tmp_path / "run", profile=profile)
    assert report["steps"] == 2


# --- Metrics of groups ------------------------------------------------------------------------


def measured(**changes):
    rows = [prompts.Example(q, "1", "number") for q in "ab"]
    sampler = curriculum.PromptSampler(
        {"s": rows}, {"s": 1.0}, config.Curriculum("learnability", memory=0.5), 0
    )
    scorer = rewards.Scorer(config.Rewards())
    timed = types.SimpleNamespace(rollout_seconds=1.5)
    batch = {
        "prompts": ["a", "a", "b", "b"],
        "question": ["a", "a", "b", "b"],
        "completions": ["x"] * 4,
        "rewards": np.array([1.0, 1.0, 0.0, 1.0]),
        "advantages": np.zeros(4),
        "answer": ["1"] * 4,
        "checker": ["number"] * 4,
        **changes,
    }
    means, kept = {}, []
    metrics = group_metrics.metric_function(
        scorer, sampler, means.update, lambda *group: kept.append(group), timed, 2
    )
    assert metrics(**batch) == {}
    assert list(kept[0][2]) == list(batch["rewards"])
    return means, sampler


def test_flat_groups_are_those_whose_rewards_are_all_equal():
    result, _ = measured()
    assert result["reward"] == 0.75
    assert result["flat_groups"] == 0.5
    assert result["in_format"] == 0.0
    assert result["failed"] == 0.0


def test_two_groups_of_one_prompt_are_two_groups():
    result, _ = measured(prompts=["a"] * 4, rewards=np.array([1.0, 1.0, 0.0, 0.0]))
    assert result["flat_groups"] == 1.0


def test_the_curriculum_hears_how_its_prompts_fared():
    right = "<reasoning>It is one.</reasoning><answer>1</answer>"
    _, sampler = measured(completions=[right] * 4)
    (cell,) = sampler.cells.values()
    assert cell.success == pytest.approx(1 - 0.5 * 0.5**4)


def test_open_rows_have_a_mean_of_their_own():
    result, _ = measured(checker=["number", "number", "open", "open"])
    assert set(result) >= {"right", "open"}
    everything_open, _ = measured(checker=["open"] * 4)
    assert "right" not in everything_open


def test_the_policy_and_its_reference_share_one_base(make_policy, tokenizer, mesh, tmp_path):
    run, policy = short_run(tmp_path), make_policy()
    cluster = grpo.build_cluster(policy, tokenizer, run, mesh)
    assert cluster.actor_trainer.model is policy
    base = nnx.filterlib.Not(nnx.LoRAParam)
    reference = cluster.inference_worker.get_model("reference")
    for a, b in zip(
        jax.tree.leaves(nnx.state(policy, base)),
        jax.tree.leaves(nnx.state(reference, base)),
        strict=True,
    ):
        assert a.unsafe_buffer_pointer() == b.unsafe_buffer_pointer()


@pytest.mark.filterwarnings("ignore:The reward part")
def test_a_reward_that_keeps_failing_stops_the_run_with_its_message(
    make_policy, tokenizer, rows, mesh, tmp_path, monkeypatch
):
    def fail(example, answer):
        raise OSError("no process could be started")

    monkeypatch.setattr(rewards, "check", fail)
    # The policy after a real warm start is in format; here every completion is made to be.
    monkeypatch.setattr(
        scoring, "parse", lambda text: prompts.Completion(text, True, "6*7=42.", "42")
    )
    run = short_run(tmp_path)
    settings = dataclasses.replace(run.profile.grpo, prompts=16)
    profile = dataclasses.replace(run.profile, grpo=settings)
    with pytest.raises(scoring.RewardError, match="'right' has failed"):
        train(make_policy(), tokenizer, rows, mesh, tmp_path / "run", profile=profile)


@pytest.mark.slow
def test_further_parts_are_scored_logged_and_may_ask_the_policy(
    make_policy, tokenizer, rows, mesh, tmp_path
):
    from submission.essay import more_rewards  # noqa: F401 - it registers its parts

    run = short_run(tmp_path)
    weights = dataclasses.replace(
        run.profile.rewards, extras={"structure": 0.05, "gold": 0.05, "confidence": 0.05}
    )
    settings = dataclasses.replace(run.profile.grpo, steps=1)
    profile = dataclasses.replace(run.profile, rewards=weights, grpo=settings)
    report, _ = train(make_policy(), tokenizer, rows, mesh, tmp_path / "run", profile=profile)
    (line,) = report["history"]
    assert {"structure", "gold", "confidence"} <= set(line)
    assert line["failed"] == 0.0

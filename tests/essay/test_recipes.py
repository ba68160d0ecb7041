"""The stages of further recipes, each by itself."""

import dataclasses
import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sentencepiece as spm
from flax import nnx
from tunix.rl import common
from tunix.sft.dpo import dpo_trainer

import tasks
from conftest import moved, session_of, short_run
from submission.bench.answers import prompts
from submission.bench.run import checkpoints, helpers, samples, stages, statistics
from submission.bench.settings import config
from submission.bench.settings.stages import Helper, Rubrics, TraceModel
from submission.essay import (
    curriculum,  # noqa: F401
    distilled,
    grpo,
    judged,
    more_rewards,  # noqa: F401
    preferred,
    profiles,
    recipes,
    rewards,
    scaffolded,  # noqa: F401
    trace_model,
)

TEACHER = pathlib.Path(recipes.TEACHERS["tiny"]["helper"].step)  # knows the format


def adapter(policy):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(nnx.state(policy, nnx.LoRAParam))])


def recipe_run(out, recipe, **changes):
    """A short run of a recipe."""
    run = short_run(out, recipe=recipe)
    profile = recipes.RECIPES[recipe].applied(run.profile)
    fewer = {"grpo": {"steps": 2, "save_every": 2}, **changes}
    return dataclasses.replace(run, profile=config.changed(profile, fewer))


# --- Asking for a recipe ------------------------------------------------------------------------


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_a_recipe_has_all_that_it_names(name, tokenizer):
    run = dataclasses.replace(
        short_run("unused"), profile=recipes.RECIPES[name].applied(profiles.TINY)
    )
    stages.require_chapters(run, tokenizer)


def test_a_stage_that_is_not_here_is_named(tokenizer):
    profile = dataclasses.replace(profiles.TINY, stages={"magic": None})
    with pytest.raises(ValueError, match="Unknown stage 'magic'"):
        stages.require_chapters(dataclasses.replace(short_run("x"), profile=profile), tokenizer)


def test_a_recipe_without_its_second_model_says_so(tokenizer):
    run = recipe_run("unused", "distilled", helper=None)
    with pytest.raises(ValueError, match=r"'distilled' has no second model in profile 'tiny'"):
        stages.require_chapters(run, tokenizer)


def test_a_second_model_that_reads_otherwise_is_refused(tokenizer, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"{a} plus {b} is {a + b}" for a in range(40) for b in range(40)))
    spm.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(tmp_path / "tokenizer"), vocab_size=60, pad_id=3,
        minloglevel=2,
    )  # fmt: skip
    (tmp_path / "gemma3-other").mkdir()
    other = config.StockModel("gemma3_other", "gemma3", "gemma3-other", folder=str(tmp_path))
    run = recipe_run("unused", "distilled", helper=Helper(other))
    with pytest.raises(ValueError, match="gemma3_other has another tokenizer than gemma3_tiny_it"):
        helpers.require_helper(run, tokenizer)


def test_a_change_deep_inside_leaves_the_rest(tokenizer):
    changed = config.changed(profiles.TINY, {"grpo": {"optimizer": {"peak_rate": 1.0}}})
    assert changed.grpo.optimizer == dataclasses.replace(
        profiles.TINY.grpo.optimizer, peak_rate=1.0
    )
    assert dataclasses.replace(changed.grpo, optimizer=profiles.TINY.grpo.optimizer) == (
        profiles.TINY.grpo
    )


# --- Samples ------------------------------------------------------------------------------------


def test_samples_are_the_same_each_time_and_others_within_a_group(
    make_policy, tokenizer, rows, mesh, tmp_path
):
    policy, examples = make_policy(), rows["grpo"].examples[:6]

    def drawn(session):
        groups = samples.own_samples(policy, tokenizer, session, examples, 4, rewards.reward_right)
        return [[sample.completion.text for sample in group] for group in groups]

    with session_of(short_run(tmp_path), mesh) as session:
        first = drawn(session)
        assert first == drawn(session)
    assert [len(group) for group in first] == [4] * 6
    assert max(len(set(group)) for group in first) > 1


# --- The teacher --------------------------------------------------------------------------------


def test_the_divergence_from_a_teacher_has_the_gradient_of_the_reverse_kl():
    teacher = jax.nn.log_softmax(jnp.array([1.0, 0.2, -0.4, 0.3]))

    def sampled(logits):
        logps = jax.nn.log_softmax(logits)
        terms = common.compute_kl_divergence(logps, teacher, recipes.BY_TEACHER["kl_loss"])
        return jnp.sum(jax.lax.stop_gradient(jnp.exp(logps)) * terms)

    def exact(logits):
        logps = jax.nn.log_softmax(logits)
        return jnp.sum(jnp.exp(logps) * (logps - teacher))

    logits = jnp.array([0.3, -0.7, 1.2, 0.1])
    np.testing.assert_allclose(jax.grad(sampled)(logits), jax.grad(exact)(logits), atol=1e-6)


def test_rewards_count_for_nothing_beside_a_teacher():
    assert not distilled.no_advantages(rewards=np.array([0.0, 1.0]), num_generations=2).any()


@pytest.mark.slow
def test_a_policy_comes_nearer_to_its_teacher(make_policy, tokenizer, rows, mesh, tmp_path):
    size = {"steps": 16, "save_every": 16, "prompts": 8, "generations": 8}
    run = recipe_run(tmp_path / "run", "distilled", grpo=size)
    policy = make_policy()
    checkpoints.restore_adapter(policy, TEACHER)
    moved(policy, 0.05)
    with session_of(run, mesh) as session:
        report = grpo.train_grpo(policy, tokenizer, rows["grpo"], session, session.deadline)
    far = [line["kl"] for line in report["history"]]
    assert np.mean(far[-8:]) < 0.5 * np.mean(far[:8])


# --- The model of the trace ---------------------------------------------------------------------


def test_a_line_tells_two_kinds_apart_and_shuffled_labels_teach_it_nothing():
    rng = np.random.default_rng(0)
    labels = rng.random(2000) < 0.3
    features = rng.normal(size=(2000, 20)) + labels[:, None] * np.linspace(0, 1, 20)
    kept, trained = slice(0, 500), slice(500, None)

    def auc(taught):
        line = statistics.fit_line(features[trained], taught[trained], penalty=0.01)
        return statistics.area_under_curve(line.log_odds(features[kept]), labels[kept])

    assert auc(labels) > 0.9
    assert 0.3 < auc(rng.permutation(labels)) < 0.7


def test_a_fitted_line_is_calibrated():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(20_000, 2))
    chances = statistics.sigmoid(features @ np.array([1.0, -2.0]) + 0.5)
    line = statistics.fit_line(features, rng.random(20_000) < chances, penalty=1e-4)
    np.testing.assert_allclose(statistics.sigmoid(line.log_odds(features)), chances, atol=0.05)


@pytest.mark.slow
def test_the_trace_model_is_trained_once_and_scores_as_before_after_a_restart(
    make_policy, tokenizer, rows, mesh, tmp_path
):
    settings = {"trace_model": TraceModel(prompts=16, generations=4)}
    run = recipe_run(tmp_path / "run", "trace_model", stages=settings)
    policy, scorer = make_policy(), trace_model.trace_scorer
    checkpoints.restore_adapter(policy, TEACHER)
    row = prompts.Example("What is 3 + 4?", "7", "number")
    said = [prompts.parse("<reasoning>3+4=7.</reasoning><answer>7</answer>"), prompts.parse("7")]

    def scores():
        return scorer(said, [row, row], {}, None)

    with session_of(run, mesh) as session:
        train = stages.MORE_STAGES["trace_model"]
        scorer.begin(policy, tokenizer, session)
        with pytest.raises(ValueError, match="is not trained"):
            scores()
        report = train(policy, tokenizer, rows, session, session.deadline)
        first = scores()
        scorer.line = None
        assert train(policy, tokenizer, rows, session, session.deadline) == report
        assert scores() == first
    assert 0 < first[0] < 1
    assert first[1] == 0  # out of format


# --- Pairs --------------------------------------------------------------------------------------


def sample(answer, tokens=(5, 6)):
    text = f"<reasoning>so</reasoning><answer>{answer}</answer>"
    row = prompts.Example("What is 3 + 4?", "7", "number")
    completion = prompts.parse(text)
    right = bool(rewards.reward_right(completion, row))
    return samples.Sample(row, completion, np.array(tokens), right)


def test_a_pair_has_the_right_one_first_and_a_group_gives_two_at_most():
    mixed = [sample(x) for x in ("1", "7", "2", "7", "7", "3")]
    pairs = preferred.pairs_among([mixed, [sample("7")] * 4, [sample("1")] * 4])
    assert [[s.completion.answer for s in pair] for pair in pairs] == [["7", "1"], ["7", "2"]]


def test_the_loss_of_pairs_is_that_of_the_paper(make_policy, tokenizer, mesh):
    policy = moved(make_policy(), 0.1)
    pairs = [(sample("7", [30, 31, 32]), sample("1", [40, 41, 42, 43, 44])),
             (sample("7", [50]), sample("1", [60, 61]))]  # fmt: skip
    batch = preferred.pair_batch(pairs, tokenizer, prompt=40, completion=6)
    trainer = dpo_trainer.DPOTrainer(
        policy, None, optax.sgd(0.1), dpo_trainer.DPOTrainingConfig(beta=2.0, eval_every_n_steps=1)
    )
    inputs = trainer._prepare_inputs(batch)
    with mesh:
        loss, aux = preferred.simpo_loss(margin=0.5, chunk=16)(policy, inputs, "dpo", 2.0, 0.0)
    logits = policy(inputs.input_ids, inputs.positions, None, inputs.attention_mask)[0]
    logps = jax.nn.log_softmax(logits[:, 39:-1])
    chosen = jnp.take_along_axis(logps, inputs.input_ids[:, 40:, None], axis=-1)[..., 0]
    lengths = np.array([3, 1, 5, 2])
    mean = np.array([row[:n].mean() for row, n in zip(np.asarray(chosen), lengths, strict=True)])
    margins = 2.0 * (mean[:2] - mean[2:])
    np.testing.assert_allclose(loss, np.log1p(np.exp(-(margins - 0.5))).mean(), rtol=1e-4)
    np.testing.assert_allclose(aux["rewards/accuracy"], (margins > 0).mean())


@pytest.mark.slow
def test_grpo_begins_where_the_pairs_ended_after_a_restart_too(
    make_policy, tokenizer, rows, mesh, tmp_path
):
    settings = {
        "pairs": dataclasses.replace(
            recipes.BY_PAIRS["tiny"], prompts=64, steps=3, pairs=8, save_every=3
        )
    }
    run = recipe_run(tmp_path / "run", "preferred", stages=settings)
    started = []

    def through(policy):
        with session_of(run, mesh) as session:
            stages.save_first_submission(policy, session)
            report = stages.MORE_STAGES["pairs"](policy, tokenizer, rows, session, session.deadline)
            after = adapter(policy)
            stage = grpo.grpo_stage(session, session.deadline, dict)
            cluster = grpo.build_cluster(policy, tokenizer, run, mesh)
            stage.attach(cluster.actor_trainer, False)
            started.append(adapter(policy))
            cluster.close()
        return report, after

    # Taught to answer in format, so that a group has right and wrong completions.
    policy = make_policy()
    checkpoints.restore_adapter(policy, TEACHER)
    warm = adapter(policy)
    report, after = through(policy)
    assert report["steps"] == 3
    assert all("preferred" in line for line in report["history"])
    assert np.abs(after - warm).max() > 1e-4
    np.testing.assert_array_equal(started[0], after)

    again = make_policy()
    checkpoints.restore_adapter(again, TEACHER)
    _, restored = through(again)
    np.testing.assert_array_equal(restored, after)
    np.testing.assert_array_equal(started[1], after)


# --- The judge ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judge(tokenizer, mesh):
    run = recipe_run("unused", "judged")
    return judged.Judge(
        helpers.load_helper(run, mesh), tokenizer, mesh, run.profile.helper.rubrics, length=192
    )


ADDED = prompts.Example("What is 58 + 29?", "87", "number")


def judge_says(judge, *traces_and_answers, row=ADDED):
    texts = [f"<reasoning>{t}</reasoning><answer>{a}</answer>" for t, a in traces_and_answers]
    return judge([prompts.parse(text) for text in texts], [row] * len(texts), {}, None)


def test_the_judge_tells_sound_traces_from_wrong_guesses_that_it_has_not_seen(judge):
    """Problems as the rows of GRPO have them. (A slip of one digit it does not see.)"""
    new = (p for p in tasks.problems(5, "grpo") if p.checker == "number")
    said, rows, labels = [], [], []
    for problem in itertools.islice(new, 60):
        wrong = str(int(problem.answer) + 10)
        guess = problem.traces["guess"].replace(problem.answer, wrong)
        for trace, answer in ((problem.traces["steps"], problem.answer), (guess, wrong)):
            said.append(f"<reasoning>{trace}</reasoning><answer>{answer}</answer>")
            rows.append(prompts.Example(problem.question, problem.answer, "number"))
            labels.append(answer == problem.answer)
    scores = judge([prompts.parse(text) for text in said], rows, {}, None)
    assert statistics.area_under_curve(np.array(scores), np.array(labels)) > 0.8


def test_what_is_out_of_format_is_not_judged(judge):
    assert judge([prompts.parse("87")], [ADDED], {}, None) == [0.0]


def test_lines_of_a_rubric_count_by_their_weights(judge, monkeypatch):
    rubrics = Rubrics({"": (("Right?", 3.0), ("Short?", 1.0), ("Left out", 0.0))})
    monkeypatch.setattr(judge, "rubrics", rubrics)
    asked = []

    def scores(texts, rows):
        asked.extend(texts)
        return np.array([1.0, 0.2])

    monkeypatch.setattr(judge, "scores", scores)
    assert judge_says(judge, ("so", "87")) == pytest.approx([0.8])
    assert ["Right?" in text for text in asked] == [True, False]


def test_a_judge_of_open_rows_is_not_asked_about_others(judge, monkeypatch):
    monkeypatch.setattr(judge, "rubrics", Rubrics({"": (("Right?", 1.0),)}, only_open=True))
    story = prompts.Example("Tell a story.", "", "open", domain="creative")
    assert judge_says(judge, ("so", "87")) == [0.0]
    assert judge_says(judge, ("so", "87"), row=story)[0] > 0


def test_a_text_that_the_judge_cannot_read_whole_is_not_judged(judge):
    with pytest.raises(ValueError, match="over 192"):
        judge_says(judge, ("7 " * 200, "87"))


@pytest.mark.parametrize(
    "lines", [{}, {"": ()}, {"": (("Right?", 0.0),)}, {"": (("a", 1.0), ("b", -1.0))},
              {"": (("Right?", 1.0),), "creative": ()}],
)  # fmt: skip
def test_a_rubric_without_weights_is_refused(lines):
    with pytest.raises(ValueError, match="has the weights"):
        Rubrics(lines)


def test_a_judge_without_rubrics_is_refused(tokenizer):
    run = recipe_run("unused", "judged")
    run = config.changed(run, {"profile": {"helper": {"rubrics": None}}})
    with pytest.raises(ValueError, match="a judge without `rubrics`"):
        stages.require_chapters(run, tokenizer)

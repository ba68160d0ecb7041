"""The plan of nine hours: what it assumes, and that it follows from that. Nothing is compiled."""

import contextlib
import dataclasses
import io
import json
import re

import numpy as np
import preflight
import pytest
from tpu import plan as tpu_plan
from tpu import programs
from tpu.assumptions import ASSUMPTIONS

from conftest import ROOT, session_of, short_run
from submission.bench.policy.hosts import run_of_a_host
from submission.bench.run import stages
from submission.bench.settings import config
from submission.essay import profiles

PLAN = json.loads((ROOT / "data" / "plan.json").read_text())
CASES = {"likely": PLAN, "cautious": PLAN["cautious"]}


@pytest.fixture(scope="module")
def run():
    return programs.run_for(PLAN["model"], None)


@pytest.fixture(scope="module")
def shapes(run):
    """Everything of a case but what is assumed."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tpu_plan.Case, "session", lambda self: found.append(self) or {})
        patch.setattr(tpu_plan, "WHAT_IF", {})
        tpu_plan.made_again(run, PLAN)
    return found[0]


@pytest.fixture(scope="module")
def case_of(shapes):
    """The likely case, with some assumptions or least times changed."""

    def make(roofline=None, **changes):
        assumed = {name: one.likely for name, one in ASSUMPTIONS.items()} | changes
        return dataclasses.replace(
            shapes, assumed=assumed, roofline={**shapes.roofline, **(roofline or {})}
        )

    return make


# --- What is assumed ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ASSUMPTIONS)
def test_each_assumption_says_where_it_is_from(name):
    source = ASSUMPTIONS[name].source
    assert re.search(r"[\w-]+/[\w-]+", source) or "measured here" in source
    assert ASSUMPTIONS[name].unit


@pytest.mark.parametrize("name", ASSUMPTIONS)
def test_no_assumption_is_better_in_the_cautious_case(name):
    one = ASSUMPTIONS[name]
    assert one.cautious <= one.likely if one.more_is_better else one.cautious >= one.likely


@pytest.mark.parametrize("name", sorted(ASSUMPTIONS.keys() - {"judged"}))
def test_every_assumption_counts_in_the_direction_it_says(case_of, name):
    one = ASSUMPTIONS[name]
    much = 30 if one.unit.startswith("seconds") else 0.2
    worse = one.likely / 2 if one.more_is_better else one.likely + much
    before, after = case_of().session(), case_of(**{name: worse}).session()
    assert after["completions"] < before["completions"]


def test_a_judge_takes_its_time_and_a_teacher_stands_for_the_reference(case_of, shapes):
    def seconds(recipe, **changes):
        run = programs.run_for(PLAN["model"], None, recipe)
        case = case_of({"helper_pass": 0.3}, **changes)
        return dataclasses.replace(case, run=run).grpo["update"]

    plain, passes = case_of().grpo["update"], case_of().assumed["passes"]
    assert seconds("judged", judged=0.5) - plain == pytest.approx(8 * 0.3 / passes)
    assert seconds("judged", judged=1.0) - plain == pytest.approx(16 * 0.3 / passes)
    reference = shapes.roofline["reference_log_probs"]
    assert (seconds("distilled") > plain) == (reference < 0.3)


def test_passes_through_all_rows_are_planned_by_their_number(capsys):
    run = programs.run_for(PLAN["model"], None, "zero_cost")
    plan = tpu_plan.sft_alone(run, 8, {"sft_step": 0.2})
    assert plan["cautious"]["hours"] > plan["likely"]["hours"] > 0
    half = config.changed(run, {"profile": {"sft": {"epochs": 2.0}}})
    again = tpu_plan.sft_alone(half, 8, {"sft_step": 0.2})
    assert again["likely"]["updates"] == pytest.approx(plan["likely"]["updates"] / 2, abs=1)
    assert "122,400 rows of 1450 tokens, 4 times" in capsys.readouterr().out


def test_traces_are_read_no_longer_than_the_profile_allows(run):
    (glaive,) = run.sft_sources
    assert ASSUMPTIONS["traces"].cautious == 60 * glaive.minutes
    assert PLAN["cautious"]["seconds_before_first_update"]["reading rows"] <= (
        60 * run.profile.preparation_minutes
    )


# --- What follows -------------------------------------------------------------------------------


def test_the_first_update_begins_within_the_hours_that_are_planned():
    for case, most in (("likely", 0.4), ("cautious", 0.8)):
        hours = CASES[case]["hours_by_stage"]["before_first_update"]
        assert hours <= most
        parts = CASES[case]["seconds_before_first_update"]
        assert sum(parts.values()) / 3600 == pytest.approx(hours, abs=1e-3)


def test_nine_hours_make_so_many_completions():
    assert PLAN["completions"] >= 1.3e6
    assert PLAN["cautious"]["completions"] >= 0.8e6


def test_the_cautious_session_is_nowhere_better():
    likely, cautious = CASES.values()
    assert cautious["completions"] < likely["completions"]
    assert cautious["grpo_steps"] < likely["grpo_steps"]
    assert cautious["sft_tokens"] <= likely["sft_tokens"]
    for name in ("seconds_of_grpo", "seconds_before_first_update"):
        assert all(cautious[name][part] >= likely[name][part] for part in likely[name])
    for name, found in PLAN["completions_if"].items():
        assert all(found[case] < CASES[case]["completions"] for case in CASES), name


@pytest.mark.parametrize("case", CASES)
def test_a_session_lasts_nine_hours_and_keeps_back_what_its_end_needs(run, case):
    one = CASES[case]
    hours = one["hours_by_stage"]
    assert one["complete"]  # the warm start; the clock ends GRPO
    assert sum(hours.values()) == pytest.approx(run.profile.hours, abs=2e-3)
    reserve, kept_back = 3600 * hours["reserve"], one["seconds_kept_back"]
    # What is left over is what the notebook keeps back, and less than one update more.
    assert kept_back - 5 <= reserve <= kept_back + one["seconds_per_update"] + 5
    assert hours["grpo"] * 3600 == pytest.approx(
        one["grpo_steps"] * one["seconds_per_update"], abs=10
    )
    grpo = one["seconds_of_grpo"]
    assert grpo["step"] == pytest.approx(
        grpo["rollout"] + grpo["rewards"] + grpo["update"], abs=0.2
    )
    assert one["completions"] == one["grpo_steps"] * 128 * 8


def test_a_slower_program_cuts_grpo_and_a_much_slower_one_the_warm_start(case_of):
    slow = case_of({"decode": 20.0, "decode_first": 20.0}).session()
    assert PLAN["grpo_steps"] > slow["grpo_steps"] > 0
    assert slow["complete"]
    assert not case_of({"sft_step": 200.0}).session()["complete"]


# --- How long a rollout and its passes take -------------------------------------------------------


def test_half_the_rows_decode_as_fast_as_the_compiler_says(case_of):
    profile = case_of().run.profile
    past = profile.lengths.prompt + 5 * profile.generation.segment
    compiled = PLAN["roofline_seconds"]["decode_step_512"]
    assert case_of().step_seconds(past, 64) == pytest.approx(compiled, rel=0.02)
    whole = PLAN["roofline_seconds"]["decode"] / profile.generation.segment
    assert case_of().step_seconds(past, 128) == pytest.approx(whole)


def test_a_window_keeps_a_decode_step_from_reading_all_of_a_long_past(case_of):
    seen = [case_of().seen(past) for past in (256, 512, 768)]
    assert seen == [26 * 256, 26 * 512, 22 * 512 + 4 * 768]  # four layers see all


def test_completions_at_the_limit_take_all_segments_and_full_passes(case_of):
    case, settings = case_of(), case_of().run.profile.grpo
    seconds = PLAN["roofline_seconds"]
    longest = np.full(settings.prompts * settings.generations, 768)
    passes = settings.prompts / case.plan.micro_prompts
    whole = passes * (seconds["grpo_step"] + seconds["reference_log_probs"])
    assert case.passes_seconds(longest) == pytest.approx(whole)
    least = seconds["prefill"] + 6 * seconds["decode_first"]
    most = seconds["prefill"] + 6 * (seconds["decode"] + 0.01)
    assert least < case.rollout_seconds(longest) < most


def test_short_completions_take_less_and_a_few_long_ones_do_not_keep_the_batch(case_of):
    case, n = case_of(), 1024
    longest, short = case.rollout_seconds(np.full(n, 768)), case.rollout_seconds(np.full(n, 128))
    assert short < longest / 5
    few = np.full(n, 128)
    few[::64] = 768
    assert short < case.rollout_seconds(few) < 0.7 * longest
    assert case.passes_seconds(few) < 0.6 * case.passes_seconds(np.full(n, 768))


# --- What is committed --------------------------------------------------------------------------


def test_the_plan_is_what_follows_today(run):
    again = json.loads(json.dumps(tpu_plan.made_again(run, PLAN)))
    assert again == {name: value for name, value in PLAN.items() if name != "command"}
    assert (ROOT / "data" / "plan.md").read_text() == tpu_plan.as_markdown(PLAN)
    assert tpu_plan.as_table(PLAN) in (ROOT / "README.md").read_text()


@pytest.mark.slow
def test_it_is_made_anew_by_the_command_that_it_names(monkeypatch, tmp_path):
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(preflight, "ROOT", tmp_path)
    monkeypatch.setattr("sys.argv", [*PLAN["command"].split()[1:]])
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        assert preflight.main() == 0
    for name in ("plan.json", "plan.md"):
        assert (tmp_path / "data" / name).read_text() == (ROOT / "data" / name).read_text()
    assert f"cautious: 106 million SFT tokens, {PLAN['cautious']['grpo_steps']}" in told.getvalue()


def test_the_settings_have_the_seconds_of_the_likely_session():
    planned = profiles.KAGGLE.planned[PLAN["model"]]
    grpo = PLAN["seconds_of_grpo"]
    assert planned["grpo"] == {name: grpo[name] for name in ("rollout", "update", "step")}
    assert planned["sft"] == {"step": pytest.approx(PLAN["seconds_of_sft_step"], abs=0.05)}


@pytest.mark.parametrize(
    ("profile", "name", "has_plan"),
    [
        ("kaggle", "gemma3_1b_it", True),
        ("kaggle", "gemma2_2b_it", False),
        ("tiny", "gemma3_tiny_it", False),
        ("tiny", "gemma3_1b_it", False),
    ],
)
def test_a_stage_knows_the_plan_of_its_own_profile_and_model_only(
    make_policy, mesh, tmp_path, profile, name, has_plan
):
    asked = profiles.read_run({"PROFILE": profile, "MODEL": name}, "cpu").profile
    run = short_run(tmp_path / "run")
    changed = dataclasses.replace(run.profile, planned=asked.planned, model=asked.model)
    run = dataclasses.replace(run, profile=changed)
    with session_of(run, mesh) as session:
        stage = stages.Stage(
            session, "sft", run.profile.sft, session.deadline,
            subfolder="sft", shown=("loss",), keep=1,
        )  # fmt: skip
        stage.attach(trainer_of(make_policy()), remat=False)
        stage.close()
    assert bool(stage.log.plan) == has_plan


def trainer_of(policy):
    from tunix.sft import peft_trainer

    from submission.bench.policy.updates import make_optimizer

    return peft_trainer.PeftTrainer(
        policy,
        make_optimizer(profiles.TINY.sft.optimizer),
        peft_trainer.TrainingConfig(eval_every_n_steps=4, max_steps=4),
    )


def test_four_hosts_of_four_chips_make_twice_the_completions():
    """Twice the chips and twice the prompts of an update: each chip has the work that it had."""
    whole = programs.run_for(PLAN["model"], prompts=256)
    run = run_of_a_host(whole, 4)
    assert run.profile.grpo.prompts == 64

    def on_four(seconds):
        plan = tpu_plan.on_more_hosts(whole, PLAN, "v5e:4x4")
        for of in ("roofline_seconds", "seconds_to_compile"):
            plan[of] = plan[of] | {"exchange": seconds}
        return tpu_plan.made_again(run, plan)

    four, slow = on_four(0.003), on_four(1.0)
    assert (four["hosts"], four["chips"]) == (4, 4)
    for case, before in CASES.items():
        ours = four if case == "likely" else four["cautious"]
        assert 1.8 <= ours["completions"] / before["completions"] <= 2.2
    assert slow["completions"] < 0.7 * four["completions"]


def test_other_work_for_a_chip_than_was_compiled_is_refused(run):
    with pytest.raises(ValueError, match=r"128 prompts on 16 chips.*--prompts 256"):
        tpu_plan.on_more_hosts(run, PLAN, "v5e:4x4")

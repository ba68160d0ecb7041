import dataclasses
import pathlib
import re

import pytest

import submission
from submission.essay import profiles

CHAPTERS = pathlib.Path(submission.__file__).parent


def test_unknown_profile_names_the_known_ones():
    with pytest.raises(ValueError, match=r"Unknown profile 'laptop'.*tiny, small, kaggle"):
        profiles.read_run({"PROFILE": "laptop"}, "cpu")


def test_unknown_recipe_names_the_known_ones():
    with pytest.raises(ValueError, match=r"Unknown recipe 'magic'.*worked_only"):
        profiles.read_run({"RECIPE": "magic"}, "cpu")


def test_a_recipe_without_rows_in_the_profile_is_refused():
    with pytest.raises(ValueError, match=r"'worked_only' has no rows in profile 'kaggle'"):
        profiles.read_run({"PROFILE": "kaggle", "RECIPE": "worked_only"}, "cpu")


@pytest.mark.parametrize("name", ["MINUTES", "RUN_SEED"])
@pytest.mark.parametrize("value", ["soon", "-1", "nan"])
def test_a_variable_that_is_no_number_is_named(name, value):
    with pytest.raises(ValueError, match=name):
        profiles.read_run({name: value}, "cpu")


def test_a_seed_that_would_repeat_another_is_refused():
    assert profiles.read_run({"RUN_SEED": str(2**32 - 1)}, "cpu").seed == 2**32 - 1
    with pytest.raises(ValueError, match="RUN_SEED=4294967303 repeats the draws of 7"):
        profiles.read_run({"RUN_SEED": str(2**32 + 7)}, "cpu")


@pytest.mark.parametrize(
    "name", ["gemma", "a/b/c", "user/", "/model", "us er/model", "user/m.odel"]
)
def test_what_cannot_be_a_model_on_kaggle_is_refused_before_anything_is_trained(name):
    with pytest.raises(ValueError, match=r"PUBLISH_AS=.* is not a Kaggle model"):
        profiles.read_run({"PUBLISH_AS": name}, "cpu")


def test_the_hardware_chooses_the_profile_and_the_environment_overrides_it():
    assert profiles.read_run({}, "tpu").profile.name == "kaggle"
    assert profiles.read_run({}, "cpu").profile.name == "tiny"
    assert profiles.read_run({"PROFILE": "tiny"}, "tpu").profile.name == "tiny"


def test_empty_variables_count_as_unset():
    run = profiles.read_run(
        dict.fromkeys(("PROFILE", "RECIPE", "MINUTES", "RUN_SEED", "OUT"), ""), ""
    )
    assert (run.profile.name, run.recipe, run.seed, run.minutes, run.out) == (
        "tiny",
        "warm_start_grpo",
        0,
        None,
        "outputs",
    )


def test_batches_divide_as_tunix_wants_them():
    for profile in profiles.PROFILES.values():
        groups = profile.grpo.micro_prompts or 1
        assert profile.grpo.prompts % groups == 0
        assert groups * profile.grpo.generations % profile.grpo.parts == 0
        # Whatever passes the limits on tokens fits a packed row.
        assert profile.sft.shortest >= profile.lengths.prompt + profile.lengths.completion
        assert profile.sft.length >= profile.sft.shortest
        # The last step is a regular save: Tunix's forced one would drop its metadata.
        assert profile.grpo.steps % profile.grpo.save_every == 0


def test_no_chapter_asks_which_profile_it_is():
    for path in CHAPTERS.rglob("*.py"):
        if path.stem == "config":
            continue
        text = path.read_text()
        assert not re.search(r"profile(\.name)?\s*[!=]=|PROFILE\W*\s*(==|!=|in\b)", text)


@pytest.mark.parametrize("environment", [{"RECIPE": "continue"}, {"START_FROM": "/somewhere"}])
def test_an_earlier_run_and_the_recipe_that_continues_it_need_each_other(environment):
    with pytest.raises(ValueError, match="START_FROM, the folder of an earlier run, need each"):
        profiles.read_run(environment, "cpu")
    assert profiles.read_run({"RECIPE": "continue", "START_FROM": "x"}, "cpu").start_from == "x"


def test_a_time_limit_of_nothing_is_refused_and_so_is_an_unclear_resume():
    with pytest.raises(ValueError, match="MINUTES='0' is out of range"):
        profiles.read_run({"MINUTES": "0"}, "cpu")
    with pytest.raises(ValueError, match="Unknown RESUME 'yes'"):
        profiles.read_run({"RESUME": "yes"}, "cpu")


def test_both_stock_models_are_chosen_by_one_field(monkeypatch):
    for name, handle in (
        ("gemma3_1b_it", "google/gemma-3/flax/gemma3-1b-it/1"),
        ("gemma2_2b_it", "google/gemma-2/flax/gemma2-2b-it/1"),
    ):
        profile = dataclasses.replace(profiles.KAGGLE, model=profiles.STOCK_MODELS[name])
        monkeypatch.setitem(profiles.PROFILES, "kaggle", profile)
        assert profiles.read_run({}, "tpu").model.handle == handle

"""How much goes through the model at once follows from the memory of the chips."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from tunix.generate import sampler as sampler_lib

from submission.bench.policy import memory, model
from submission.bench.settings import config
from submission.essay import profiles


def kaggle(name="gemma3_1b_it", gib=15.75, **grpo):
    profile = profiles.KAGGLE
    return config.Run(
        profile=dataclasses.replace(
            profile,
            model=profiles.STOCK_MODELS[name],
            chip=dataclasses.replace(profile.chip, memory_gib=gib),
            grpo=dataclasses.replace(profile.grpo, **grpo),
        ),
        recipe="warm_start_grpo",
        seed=0,
        minutes=None,
        out="",
        resume=False,
    )


@pytest.mark.parametrize("name", ["gemma3_1b_it", "gemma2_2b_it"])
@pytest.mark.parametrize("devices", [1, 4, 8, 16, 64])
def test_both_models_are_whole_on_every_chip(name, devices):
    plan = memory.plan_memory(kaggle(name), devices)
    assert plan.replicated
    assert max(plan.training, plan.rollout) <= 15.75 * 0.9 * 2**30
    assert profiles.KAGGLE.grpo.prompts % plan.micro_prompts == 0
    assert profiles.KAGGLE.grpo.prompts % plan.rollout_prompts == 0


def test_weights_are_sliced_when_they_do_not_fit():
    """Half the memory holds Gemma 2 2B in slices only."""
    whole, sliced = (memory.plan_memory(kaggle("gemma2_2b_it", gib), 8) for gib in (15.75, 7.0))
    assert whole.replicated
    assert not sliced.replicated
    assert sliced.weights < whole.weights / 2


def test_less_memory_means_less_at_once():
    plans = [memory.plan_memory(kaggle("gemma2_2b_it", gib), 8) for gib in (24, 15.75, 11)]
    assert all(plan.replicated for plan in plans)
    for name in ("micro_prompts", "rollout_prompts"):
        at_once = [getattr(plan, name) for plan in plans]
        assert at_once == sorted(at_once, reverse=True)
        assert at_once[0] > at_once[-1]


def test_a_pass_in_parts_takes_less():
    small = profiles.read_run({"PROFILE": "small"}, "cpu")
    runs = (config.changed(small, {"profile": {"grpo": {"parts": n}}}) for n in (1, 4))
    whole, quarter = (memory.plan_memory(run, 1) for run in runs)
    assert quarter.training - quarter.weights < 0.5 * (whole.training - whole.weights)


def test_an_evaluation_starts_with_its_whole_cache_on_one_chip():
    """As Tunix's sampler makes it: 26 GiB for 256 rows of Gemma 2 2B, 6.5 for Gemma 3 1B."""
    rows = {"gemma3_1b_it": 256, "gemma2_2b_it": 64}
    for name, expected in rows.items():
        run = kaggle(name)
        assert memory.plan_memory(run, 8).evaluation_rows == expected
        cache = sampler_lib._init_cache(
            n_layers=26, cache_size=run.cache_length, batch_size=1, dtype=jnp.bfloat16,
            num_kv_heads=model.tunix_config(run.model).num_kv_heads, head_dim=256,
        )  # fmt: skip
        made = sum(x.nbytes for x in jax.tree.leaves(cache) if x.ndim == 4)
        assert memory.cache_bytes(run, 1) == made


def test_no_more_goes_through_at_once_than_keeps_the_chips_busy():
    plan = memory.plan_memory(kaggle(gib=96.0), 8)
    rows = plan.micro_prompts * profiles.KAGGLE.grpo.generations / 8
    assert rows * 1024 <= profiles.KAGGLE.chip.pass_tokens


def test_a_number_in_the_configuration_is_obeyed():
    assert memory.plan_memory(kaggle(micro_prompts=4), 8).micro_prompts == 4


def test_what_cannot_fit_is_refused_with_a_remedy():
    with pytest.raises(ValueError, match=r"does not fit 8 chips of 1\.0 GiB: shorten"):
        memory.plan_memory(kaggle(gib=1.0), 8)


def test_the_adapter_is_counted_as_it_is(make_policy):
    policy = make_policy()
    trained, whole = model.adapter_size(policy)
    assert memory.adapter_count(policy.config, profiles.TINY.adapter.rank) == trained
    assert memory.parameter_count(policy.config) == whole - trained

"""The programs of the `kaggle` profile compile for a v5e-8, here with the tiny Gemma in them."""

import dataclasses
import json
import math
import types

import jax
import jax.numpy as jnp
import preflight
import pytest
from tpu import compile as tpu_compile
from tpu import cost as compiled_cost
from tpu import programs as tpu_programs
from tpu import target as tpu_target
from tunix.models.gemma import model as gemma2_lib
from tunix.utils import sharding_utils

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(tpu_target.missing_compiler()), reason=tpu_target.missing_compiler()),
]

TINY = "gemma3_tiny_it"


@pytest.fixture(scope="module")
def devices():
    return list(tpu_target.tpu_devices("v5e:2x4"))


@pytest.fixture(scope="module")
def target(devices):
    """The `kaggle` profile with two layers of the tiny Gemma: the same programs, soon compiled."""
    return tpu_programs.make_target(tpu_programs.run_for(TINY, layers=2), devices)


@pytest.fixture(scope="module")
def reports(target):
    """Two of the programs; the others would only take more time here."""
    names = ("decode", "grpo_step")
    return {name: tpu_compile.compiled(name, tpu_programs.PROGRAMS[name], target) for name in names}


def test_a_decode_step_uses_the_links_for_scalars_only(reports):
    collectives = reports["decode"].cost.collectives
    assert all(one["count"] == one["scalars"] for one in collectives.values())
    assert reports["decode"].cost.unknown_loops == 0


def test_an_update_sends_the_gradients_of_the_adapter_and_no_more(target, reports):
    _, adapter, _ = target.parts()
    sizes = [math.prod(leaf.shape) for leaf in jax.tree.leaves(adapter)]
    kinds = reports["grpo_step"].cost.collectives
    assert set(kinds) == {"all-reduce"}
    whole = 2 * 7 / 8 * 4 * sum(sizes)  # float32, along a ring
    # A little less: of the two factors for keys and values, their product's gradient is sent.
    assert 0.95 * whole < kinds["all-reduce"]["bytes"] < 1.01 * whole


def test_a_report_has_the_keys_that_are_promised(reports):
    line = json.loads(json.dumps(reports["decode"].as_json()))
    promised = "name model fits hbm_gib flops bytes collectives roofline_seconds bound"
    assert set(promised.split()) <= set(line)
    assert line["fits"] is True
    assert line["roofline_seconds"] == pytest.approx(
        max(line["flops"] / 197e12, line["bytes"] / 819e9), rel=1e-6
    )


def test_a_program_that_does_not_fit_is_reported_with_what_it_needs(target):
    wide = dataclasses.replace(
        target.run.profile, sft=dataclasses.replace(target.run.profile.sft, rows=8 * 200)
    )
    run = dataclasses.replace(target.run, profile=wide)
    report = tpu_compile.compiled(
        "sft_step", tpu_programs.sft_step, dataclasses.replace(target, run=run)
    )
    assert not report.fits
    assert report.hbm_gib > 15.75
    assert "DOES NOT FIT" in str(report)
    assert report.as_json()["roofline_seconds"] is None


def test_the_compilers_words_for_out_of_memory_are_understood():
    words = "memory space hbm. Used 18.20G of 15.75G hbm. Exceeded hbm capacity by 2.45G."
    assert tpu_compile.needed_gib(f"RESOURCE_EXHAUSTED: Ran out of memory in {words}") == 18.2
    words = "the total memory required for HLO temporaries (33.50G) exceeds available HBM (15.75G)"
    assert tpu_compile.needed_gib(words) == 33.5
    with pytest.raises(ValueError, match="Not understood"):
        tpu_compile.needed_gib("The mesh has no axis 'fsdp'.")


def test_a_plan_follows_from_what_was_compiled(devices, monkeypatch, capsys):
    def made_up(name, *_):
        cost = compiled_cost.Cost(hbm_gib=1.0, flops=0.0, bytes=0.1 * 819e9, collectives={})
        return tpu_compile.Report(name, "gemma3_1b_it", True, 1.0, 0.0, cost, 30.0)

    def plan_of(recipe):
        options = types.SimpleNamespace(
            layers=None, programs=None, compare=None, recipe=recipe, helper=None, prompts=None
        )
        return preflight.check("gemma3_1b_it", devices, options)["plan"]

    monkeypatch.setattr(preflight, "compiled", made_up)
    plan = plan_of("")
    assert plan["chips"] == 8
    assert plan["roofline_seconds"]["grpo_step"] == pytest.approx(0.1)
    assert plan["seconds_to_compile"]["grpo_step"] == 30.0
    assert plan["completions"] > plan["cautious"]["completions"] > 0
    assert "cautious:" in capsys.readouterr().out
    assert "helper_pass" not in plan["roofline_seconds"]
    judged = plan_of("judged")
    assert judged["roofline_seconds"]["helper_pass"] == pytest.approx(0.1)
    assert judged["completions"] < plan["completions"]
    assert plan_of("zero_cost")["likely"]["updates"] > 10_000


def test_tunix_constrains_activations_inside_and_not_after():
    before = sharding_utils.shard, gemma2_lib.shard
    with tpu_target.constraints_forced():
        assert sharding_utils.shard is gemma2_lib.shard is tpu_target.constrain
        assert tpu_target.constrain(jnp.ones(2), (None,)).shape == (2,)  # no mesh: nothing to do
    assert (sharding_utils.shard, gemma2_lib.shard) == before

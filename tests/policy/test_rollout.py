import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tunix.generate import tokenizer_adapter
from tunix.rl import common
from tunix.rl.rollout import base_rollout, vanilla_rollout

from conftest import moved, short_run
from submission.bench.answers import prompts
from submission.bench.policy import cluster, rollout
from submission.bench.rows import data
from submission.essay import profiles


@pytest.fixture(scope="module")
def policy(make_policy):
    return make_policy()


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    run = short_run(tmp_path_factory.mktemp("rollout"))
    return cluster.rollout_config(run)


@pytest.fixture
def engine(policy, tokenizer, mesh, settings):
    return rollout.PolicyRollout(policy, tokenizer, mesh, settings)


@pytest.fixture(scope="module")
def stock(policy, tokenizer, settings):
    shape = policy.config
    return vanilla_rollout.VanillaRollout(
        policy,
        tokenizer_adapter.TokenizerAdapter(tokenizer),
        base_rollout.CacheConfig(
            settings.kv_cache_size, shape.num_layers, shape.num_kv_heads, shape.head_dim
        ),
    )


PROMPTS = [prompts.render_prompt(q) for q in ("What is 3 + 4?", "Work out 8 + 2.")] * 4


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one.tokens, other.tokens, strict=True))


def test_trap_4_stock_drops_the_eos_and_ours_keeps_it(stock, engine, settings, tokenizer):
    # Stock Gemma ends its turn and then stops by itself, so there is an EOS to keep.
    # The stock sampler donates the key that it is given: it gets one of its own.
    dropped = stock.generate(PROMPTS, dataclasses.replace(settings, seed=jax.random.PRNGKey(0)))
    kept = engine.generate(PROMPTS, settings)
    eos = tokenizer.eos_id()
    assert not any(eos in tokens for tokens in dropped.tokens)
    ended = [t for t in kept.tokens if len(t) <= settings.max_tokens_to_generate and t[-1] == eos]
    assert len(ended) >= len(PROMPTS) // 2
    assert all(list(tokens).count(eos) <= 1 for tokens in kept.tokens)
    assert all(len(tokens) <= settings.max_tokens_to_generate for tokens in kept.tokens)


def test_a_completion_that_hits_the_limit_has_no_eos_and_is_marked(engine, settings, tokenizer):
    short = dataclasses.replace(settings, max_tokens_to_generate=2)
    output = engine.generate(PROMPTS, short)
    cut = [i for i, tokens in enumerate(output.tokens) if tokens[-1] != tokenizer.eos_id()]
    assert cut
    for i in cut:
        assert len(output.tokens[i]) == 2
        assert output.text[i].endswith(prompts.CUT_MARK)
        assert not prompts.parse(output.text[i]).in_format


def test_trap_5_stock_repeats_its_noise_and_ours_does_not(stock, engine, settings):
    hot = dataclasses.replace(settings, temperature=3.0, max_tokens_to_generate=8)
    unseeded = dataclasses.replace(hot, seed=None)
    assert same(stock.generate(PROMPTS, unseeded), stock.generate(PROMPTS, unseeded))
    assert not same(engine.generate(PROMPTS, hot), engine.generate(PROMPTS, hot))


def test_the_same_seed_and_call_give_the_same_rollout(policy, tokenizer, mesh, settings, engine):
    hot = dataclasses.replace(settings, temperature=3.0, max_tokens_to_generate=8)
    first = engine.generate(PROMPTS, hot)
    engine.calls = 0
    assert same(first, engine.generate(PROMPTS, hot))


def test_an_engine_without_a_seed_is_refused(policy, tokenizer, mesh, settings):
    with pytest.raises(ValueError, match="seed is None"):
        rollout.PolicyRollout(policy, tokenizer, mesh, dataclasses.replace(settings, seed=None))


def test_trap_6_stock_scores_at_temperature_1_and_ours_at_the_sampling_temperature(
    policy, tokenizer, mesh, settings, stock
):
    cold = dataclasses.replace(settings, temperature=0.7)
    engine = rollout.PolicyRollout(policy, tokenizer, mesh, cold)
    row = data.tokenize(tokenizer, prompts.Example("What is 3 + 4?", "7", "number", "3+4=7."))
    prompt, completion = jnp.array([row.prompt]), jnp.array([row.target])

    def new_log_probs(temperature):  # as the GRPO loss computes them
        graph, state = nnx.split(policy)
        ids = {"pad_id": tokenizer.pad_id(), "eos_id": tokenizer.eos_id()}
        return common.compute_per_token_logps(
            graph, state, prompt, completion, **ids, temperature=temperature
        )

    new = new_log_probs(0.7)
    ratio_stock = jnp.exp(new - stock.get_per_token_logps(prompt, completion))
    ratio_ours = jnp.exp(new - engine.get_per_token_logps(prompt, completion))
    np.testing.assert_allclose(ratio_ours, 1.0, atol=1e-5)
    assert float(jnp.abs(ratio_stock - 1).max()) > 0.05


def test_rollouts_come_from_the_policy_as_it_is_now(make_policy, tokenizer, mesh, settings):
    policy = make_policy()
    engine = rollout.PolicyRollout(policy, tokenizer, mesh, settings)
    before = engine.generate(PROMPTS, settings)
    moved(policy, 0.3)
    engine.calls = 0
    assert not same(before, engine.generate(PROMPTS, settings))


def test_trap_7_sampling_explores_and_evaluation_is_greedy(tmp_path):
    for profile in profiles.PROFILES.values():
        chosen = cluster.rollout_config(short_run(tmp_path, profile=profile))
        assert chosen.top_p == 1.0  # None would be greedy
        assert chosen.temperature > 0

"""Sorting and trimming changes how much is computed, and nothing else."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tunix.rl.grpo import grpo_learner

from conftest import moved
from submission.bench.policy import losses, trimming
from submission.essay import grpo

PAD = 0


@pytest.fixture(scope="module")
def batch():
    """Sixteen prompts, left-padded by two or five, and completions of 1 to 40 tokens."""
    rng = np.random.default_rng(0)
    prompts_BP = rng.integers(4, 600, (16, 14)).astype(np.int32)
    prompts_BP[:, :5] = np.where(rng.random((16, 1)) < 0.5, PAD, prompts_BP[:, :5])
    prompts_BP[:, :2] = PAD
    completions_BC = rng.integers(4, 600, (16, 40)).astype(np.int32)
    lengths = rng.integers(1, 41, 16)
    completions_BC[np.arange(40) >= lengths[:, None]] = PAD
    return prompts_BP, completions_BC


def test_log_probs_in_trimmed_parts_are_those_of_the_whole(make_policy, batch):
    _prompts_BP, completions_BC = batch
    graph, state = nnx.split(make_policy())
    settings = dict(pad_id=PAD, temperature=0.8, chunk=4096)
    widths = []

    def scored(prompts, completions):
        widths.append(completions.shape[1])
        return losses.completion_log_probs(graph, state, prompts, completions, **settings)

    parts = trimming.in_trimmed_parts(scored, *batch, rows=4, pad_id=PAD, step=8)
    whole = losses.completion_log_probs(graph, state, *map(jnp.array, batch), **settings)
    is_token = completions_BC != PAD
    np.testing.assert_allclose(parts[is_token], whole[is_token], rtol=1e-5)
    assert parts.shape == completions_BC.shape
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 40


class Learner(trimming.TrimmedLearner):
    """The part that trims, without a cluster."""

    algo_config = grpo.ChunkedGRPOConfig(num_generations=4)

    def __init__(self, example):
        class Rollout:
            pad_id = staticmethod(lambda: PAD)

        class Cluster:
            rollout = Rollout()

            def get_rollout_config(self, mode):
                return types.SimpleNamespace(prompt_step=4, completion_step=8)

        self.rl_cluster, self.example = Cluster(), example


def stock(monkeypatch, example):
    """Tunix's learner with a given result of its rollouts."""
    monkeypatch.setattr(
        grpo_learner.GRPOLearner,
        "_generate_and_compute_advantage",
        lambda self, *arguments, **keywords: example,
    )


def gradient_and_loss(policy, example, **changes):
    changes = dict(beta=0.1, kl_loss_mode="low_var_kl") | changes
    settings = grpo.ChunkedGRPOConfig(num_generations=4, **changes)
    settings.temperature = 0.8
    graph, adapter, base = nnx.split(policy, nnx.LoRAParam, ...)

    def loss(adapter):
        model = nnx.merge(graph, adapter, base)
        return grpo.chunked_grpo_loss(model, example, settings, PAD, 1)[0]

    return jax.jit(jax.value_and_grad(loss))(adapter)


def require_mean_of_four(gradients, wanted):
    """Four passes' mean gradient; a pass that is not given has none."""
    mean = jax.tree.map(lambda *x: sum(x) / 4, *gradients)
    for ours, whole in zip(jax.tree.leaves(mean), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(ours, whole, atol=1e-5 * float(jnp.abs(whole).max()))


@pytest.mark.slow
def test_the_update_is_that_of_the_untrimmed_batch(monkeypatch, make_policy, batch):
    prompts_BP, completions_BC = map(jnp.array, batch)
    rng = np.random.default_rng(1)
    policy = moved(make_policy(), 0.1)
    graph, state = nnx.split(policy)
    settings = dict(pad_id=PAD, temperature=0.8, chunk=4096)
    own_BC = losses.completion_log_probs(graph, state, prompts_BP, completions_BC, **settings)
    whole = grpo_learner.TrainExample(
        prompt_ids=prompts_BP,
        prompt_mask=prompts_BP != PAD,
        completion_ids=completions_BC,
        completion_mask=completions_BC != PAD,
        advantages=jnp.array(rng.normal(size=16), jnp.float32),
        ref_per_token_logps=own_BC + 0.3 * rng.normal(size=(16, 40)).astype(np.float32),
        old_per_token_logps=None,
    )
    stock(monkeypatch, whole)
    learner = Learner(whole)
    merged = {"prompts": ["p"] * 16}
    sizes = [4, 4, 4, 4]
    passes = learner._process_accumulated_batches(
        micro_batches=[merged], micro_batch_sizes=sizes, mode=None
    )
    widths = [x.completion_ids.shape[1] for x in passes]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 40
    assert all(width % 8 == 0 for width in widths)
    assert (
        {x.prompt_ids.shape[1] for x in passes} == {x.prompt_mask.shape[1] for x in passes} == {12}
    )
    loss, gradient = gradient_and_loss(policy, whole)
    parts = [gradient_and_loss(policy, x) for x in passes]
    assert float(sum(x for x, _ in parts) / 4) == pytest.approx(float(loss), abs=1e-6)
    require_mean_of_four([x for _, x in parts], gradient)


# --- A policy that repeats itself -----------------------------------------------------------------


@pytest.fixture(scope="module")
def repeated(batch):
    """Four groups of four: all alike, three alike, two pairs, four kinds."""
    prompts_BP, completions_BC = batch
    rows = [0, 0, 0, 0, 4, 4, 4, 5, 8, 8, 9, 9, 12, 13, 14, 15]
    advantages = [0, 0, 0, 0, 0.5, 0.5, 0.5, -1.5, 0.9, 0.9, -0.9, -0.9, 1.5, -0.5, -0.5, -0.5]
    return grpo_learner.TrainExample(
        prompt_ids=jnp.array(prompts_BP[np.repeat([0, 4, 8, 12], 4)]),
        prompt_mask=jnp.array(prompts_BP[np.repeat([0, 4, 8, 12], 4)] != PAD),
        completion_ids=jnp.array(completions_BC[rows]),
        completion_mask=jnp.array(completions_BC[rows] != PAD),
        advantages=jnp.array(advantages, jnp.float32),
        ref_per_token_logps=None,
        old_per_token_logps=None,
    )


def passes_of(monkeypatch, example, mode="sequence-mean-token-mean"):
    stock(monkeypatch, example)
    learner = Learner(example)
    learner.algo_config = grpo.ChunkedGRPOConfig(num_generations=4, loss_agg_mode=mode)
    return learner._process_accumulated_batches(
        micro_batches=[{"prompts": ["p"] * 16}], micro_batch_sizes=[4] * 4, mode=None
    )


@pytest.mark.parametrize("mode", ["sequence-mean-token-mean", "seq-mean-token-sum"])
def test_equal_completions_are_learned_from_once_and_weigh_as_all(
    monkeypatch, make_policy, repeated, mode
):
    policy = moved(make_policy(), 0.1)
    passes = passes_of(monkeypatch, repeated, mode)
    teach = [int(np.count_nonzero(x.advantages)) for x in passes]
    assert teach == [4, 4, 0, 0]  # eight different rows: two passes of four are left
    _, wanted = gradient_and_loss(policy, repeated, beta=0.0, loss_agg_mode=mode)
    found = [gradient_and_loss(policy, x, beta=0.0, loss_agg_mode=mode)[1] for x in passes[:2]]
    require_mean_of_four(found, wanted)


def test_where_every_row_counts_for_itself_none_is_merged(monkeypatch, repeated):
    pull = dataclasses.replace(repeated, ref_per_token_logps=jnp.zeros((16, 40)))
    for passes in (
        passes_of(monkeypatch, pull),  # the KL term
        passes_of(monkeypatch, repeated, "token-mean"),  # a pass's tokens
    ):
        assert sum(np.count_nonzero(x.advantages) for x in passes) == 12

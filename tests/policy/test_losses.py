"""Chunked log-probabilities and losses against Tunix's own, in float32."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tunix.rl import algo_core, common
from tunix.rl.grpo import grpo_learner
from tunix.sft import peft_trainer
from tunix.sft import utils as sft_utils

from conftest import SMALL_GEMMA_2, moved, small_gemma_2
from submission.bench.policy import losses, model
from submission.essay import grpo

PAD, EOS = 0, 1
PROMPT, COMPLETION, BATCH = 6, 21, 4


@pytest.fixture(scope="module")
def policies(make_policy, mesh):
    return {"gemma3": moved(make_policy(), 0.1), "gemma2": moved(small_gemma_2(mesh), 0.1)}


SLOW_GEMMA_2 = pytest.param("gemma2", marks=pytest.mark.slow)
FAMILIES = pytest.mark.parametrize("family", ["gemma3", SLOW_GEMMA_2])
# Tokens per chip; with four rows: everything at once, five positions, one.
CHUNKS = pytest.mark.parametrize("chunk", [1024, 20, 1])


def completions(seed=0):
    """Left-padded prompts_BP and right-padded completions_BC of different lengths."""
    rng = np.random.default_rng(seed)
    prompts_BP = rng.integers(4, 640, (BATCH, PROMPT))
    completions_BC = rng.integers(4, 640, (BATCH, COMPLETION))
    for row, (start, end) in enumerate(zip((0, 2, 3, 0), (21, 9, 16, 4), strict=True)):
        prompts_BP[row, :start] = PAD
        completions_BC[row, end - 1] = EOS
        completions_BC[row, end:] = PAD
    return jnp.array(prompts_BP), jnp.array(completions_BC)


def train_example(policy, old=False, reference=True):
    prompts_BP, completions_BC = completions()
    rng = np.random.default_rng(1)
    logps_BC = log_probs(policy, 0.7)
    noise = lambda size: jnp.array(rng.normal(0, size, logps_BC.shape), jnp.float32)  # noqa: E731
    return grpo_learner.TrainExample(
        prompt_ids=prompts_BP,
        prompt_mask=prompts_BP != PAD,
        completion_ids=completions_BC,
        completion_mask=completions_BC != PAD,
        advantages=jnp.array([1.3, -0.7, 0.0, -0.6]),
        ref_per_token_logps=logps_BC + noise(0.5) if reference else None,
        old_per_token_logps=logps_BC + noise(0.3) if old else None,
    )


def log_probs(policy, temperature, stock=True, chunk=1024):
    graph, state = nnx.split(policy)
    if stock:
        return common.compute_per_token_logps(
            graph, state, *completions(), pad_id=PAD, eos_id=EOS, temperature=temperature
        )
    return losses.completion_log_probs(
        graph, state, *completions(), pad_id=PAD, temperature=temperature, chunk=chunk
    )


def value_and_gradients(loss, policy, *arguments, has_aux=False):
    """As `PeftTrainer` takes them: for the adapter alone."""
    differentiate = nnx.value_and_grad(
        loss, argnums=nnx.DiffState(0, nnx.LoRAParam), has_aux=has_aux
    )
    return nnx.jit(differentiate)(policy, *arguments)


def assert_close(ours, theirs, largest=1e-5):
    """Gradients differ by 1e-5 of the largest entry of all, or less."""
    ours, theirs = jax.tree.leaves(ours), jax.tree.leaves(theirs)
    size = max(float(jnp.abs(x).max()) for x in theirs)
    assert size > 0
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=largest * max(1.0, size), rtol=0)


# --- Log-probabilities ------------------------------------------------------------------------


@FAMILIES
@CHUNKS
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_of_completions_are_tunixs(policies, family, chunk, temperature):
    theirs = log_probs(policies[family], temperature)
    ours = log_probs(policies[family], temperature, stock=False, chunk=chunk)
    mask = completions()[1] != PAD
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours[mask], theirs[mask], atol=1e-5, rtol=0)


@pytest.mark.slow
def test_the_final_soft_cap_and_the_temperature_make_a_difference(policies):
    """Or the test above would not see them missing."""
    policy, mask = policies["gemma2"], completions()[1] != PAD
    capped = log_probs(policy, 1.0, stock=False)[mask]
    policy.final_logits_softcap = None
    try:
        plain = log_probs(policy, 1.0, stock=False)[mask]
    finally:
        policy.final_logits_softcap = SMALL_GEMMA_2["final_logit_softcap"]
    assert float(jnp.abs(capped - plain).max()) > 0.1
    warm = log_probs(policy, 0.7, stock=False)[mask]
    assert float(jnp.abs(capped - warm).max()) > 0.1


def jaxpr_of(function, *arguments):
    graph, state = nnx.split(arguments[0])
    pure = lambda state, *rest: function(nnx.merge(graph, state), *rest)  # noqa: E731
    return str(jax.make_jaxpr(pure)(state, *arguments[1:]))


def test_logits_exist_for_one_chunk_at_a_time(policies):
    """In what is compiled, once the model's own logits, which nobody reads, are left out."""
    graph, state = nnx.split(policies["gemma3"])
    lowered = losses.completion_log_probs.lower(
        graph, state, *completions(), pad_id=PAD, temperature=1.0, chunk=4 * 7
    )
    text = lowered.compile().as_text()
    assert "[4,7,640]" in text or "[28,640]" in text
    for positions in (COMPLETION, PROMPT + COMPLETION):
        assert f"[4,{positions},640]" not in text
        assert f"[{4 * positions},640]" not in text


def test_rows_are_split_as_the_mesh_splits_them(mesh):
    assert losses.data_shards(64) == 1
    with model.make_mesh(devices=np.array(jax.devices() * 8)[:1]):
        assert losses.data_shards(64) == 1
    eight = jax.sharding.AbstractMesh((8, 1, 1), ("data", "fsdp", "tp"))
    patch = pytest.MonkeyPatch()
    with patch.context() as m:
        env = type("Env", (), {"physical_mesh": eight})
        m.setattr(losses.pxla.thread_resources, "env", env)
        assert losses.data_shards(64) == 8
        assert losses.data_shards(63) == 1


@pytest.mark.parametrize("size", [1, 4, 5, 1000])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_only_places_that_count_are_worked_on(size, share):
    rng = np.random.default_rng(3)
    counts_BT, worked_on = rng.random((3, 7)) < share, []
    values_BTD = jnp.array(np.where(counts_BT[..., None], rng.random((3, 7, 2)), np.nan))

    def doubled(values_SCD):
        jax.debug.callback(lambda x: worked_on.append(x.shape[1]), values_SCD)
        return values_SCD * 2, values_SCD[..., 0]

    chunked = jax.jit(lambda *arrays: losses.in_chunks(doubled, size, *arrays))
    found_BTD, first_BT = jax.block_until_ready(chunked(jnp.array(counts_BT), values_BTD))
    jax.effects_barrier()
    expected_BTD = np.where(counts_BT[..., None], 2 * np.asarray(values_BTD), 0)
    np.testing.assert_array_equal(found_BTD, expected_BTD)
    np.testing.assert_array_equal(first_BT, expected_BTD[..., 0] / 2)
    assert sum(worked_on) < counts_BT.sum() + min(size, counts_BT.size)


# --- SFT --------------------------------------------------------------------------------------


def sft_inputs():
    tokens_BT = jnp.concatenate(completions(), axis=1)[:, PROMPT - 3 :]
    is_token_BT = tokens_BT != PAD
    return {
        "input_tokens": tokens_BT,
        "input_mask": is_token_BT & (jnp.arange(tokens_BT.shape[1]) > 5),
        "positions": sft_utils.build_positions_from_mask(is_token_BT),
        "attention_mask": sft_utils.make_causal_attn_mask(is_token_BT),
    }


@FAMILIES
@pytest.mark.parametrize("chunk", [1024, 20])
def test_the_sft_loss_and_its_gradients_are_tunixs(policies, family, chunk):
    inputs = sft_inputs()

    def stock(policy):
        return peft_trainer._default_loss_fn(policy, **inputs)

    def ours(policy):
        return losses.chunked_sft_loss(chunk)(policy, **inputs)

    their_loss, their_gradients = value_and_gradients(stock, policies[family])
    our_loss, our_gradients = value_and_gradients(ours, policies[family])
    np.testing.assert_allclose(our_loss, their_loss, atol=1e-5, rtol=0)
    assert_close(our_gradients, their_gradients)


def test_the_loss_leaves_no_hidden_states_in_the_model(policies):
    policy = policies["gemma3"]
    losses.chunked_sft_loss(8)(policy, **sft_inputs())
    assert not jax.tree.leaves(nnx.state(policy, nnx.Intermediate))


def test_the_backward_pass_multiplies_by_the_table_twice_and_makes_no_gradient_of_it(policies):
    """Once for the logits, once for the gradient of the hidden states."""
    inputs = sft_inputs()
    text = jaxpr_of(
        lambda policy: nnx.grad(
            lambda p: losses.chunked_sft_loss(8)(p, **inputs),
            argnums=nnx.DiffState(0, nnx.LoRAParam),
        )(policy),
        policies["gemma3"],
    )
    products = [line for line in text.splitlines() if "dot_general" in line]
    # The vocabulary has 640 tokens; a chunk is [1, 8, ...]. The model's own logits are unused.
    logits = [line for line in products if "f32[1,8,640]" in line]
    table_gradients = [x for x in products if "f32[640,128]" in x.split("=")[0]]
    assert len(logits) == 1
    assert not table_gradients


def test_training_the_table_is_an_error_not_a_wrong_gradient(make_policy):
    inputs = sft_inputs()
    differentiate = nnx.grad(
        lambda policy: losses.chunked_sft_loss(8)(policy, **inputs),
        argnums=nnx.DiffState(0, nnx.Param),
    )
    with pytest.raises(jax.errors.UnexpectedTracerError):
        differentiate(make_policy())


# --- GRPO -------------------------------------------------------------------------------------

SETTINGS = [
    ("gemma3", dict(beta=0.04)),
    ("gemma3", dict(beta=0.04, epsilon=0.1, num_iterations=2)),
    ("gemma3", dict(beta=0.0, loss_agg_mode="token-mean", num_iterations=2)),
    pytest.param("gemma2", dict(beta=0.3), marks=pytest.mark.slow),
    pytest.param(
        "gemma2",
        dict(beta=0.1, epsilon=0.3, kl_loss_mode="mse_kl", num_iterations=2),
        marks=pytest.mark.slow,
    ),
]


@pytest.mark.parametrize(("family", "settings"), SETTINGS, ids=str)
def test_the_grpo_loss_its_gradients_and_metrics_are_tunixs(policies, family, settings):
    policy = policies[family]
    settings = {"num_generations": 2, "kl_loss_mode": "low_var_kl", **settings}
    example = train_example(
        policy, old=settings.get("num_iterations", 1) > 1, reference=settings["beta"] > 0
    )
    results = []
    for make, extra in (
        (grpo_learner.GRPOConfig, {}),
        (grpo.ChunkedGRPOConfig, {"vocabulary_chunk": 20}),
    ):
        algorithm = make(**settings, **extra)
        algorithm.temperature = 0.7
        loss_function = algo_core.registry.get("policy_loss_fn", algorithm.policy_loss_fn)

        def loss(policy, loss_function=loss_function, algorithm=algorithm):
            return loss_function(policy, example, algorithm, pad_id=PAD, eos_id=EOS)

        results.append(value_and_gradients(loss, policy, has_aux=True))
    ((their_loss, their_aux), theirs), ((our_loss, our_aux), ours) = results
    np.testing.assert_allclose(our_loss, their_loss, atol=1e-5, rtol=0)
    assert_close(ours, theirs)
    # Tunix's entropy is a mean over sequences, or over tokens as its mode says; ours over tokens.
    by_token = settings.get("loss_agg_mode") == "token-mean"
    for name in ("kl", "pg_clipfrac", *["entropy"] * by_token):
        np.testing.assert_allclose(our_aux[name], their_aux[name], atol=1e-5, rtol=1e-5)
    if example.old_per_token_logps is not None:
        assert float(our_aux["pg_clipfrac"]) > 0.05  # the clip is at work


def adapter_gradient(policy, example):
    algorithm = grpo.ChunkedGRPOConfig(
        num_generations=2, kl_loss_mode="low_var_kl", beta=0.04, vocabulary_chunk=20
    )
    algorithm.temperature = 0.7
    _, found = value_and_gradients(
        lambda policy: grpo.chunked_grpo_loss(policy, example, algorithm, PAD, EOS),
        policy,
        has_aux=True,
    )
    return np.concatenate([np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(found)])


@pytest.mark.parametrize("nats", [6, 20, 89, 500, -20, -500])
def test_one_token_far_from_the_reference_is_not_the_whole_update(policies, nats):
    policy = policies["gemma3"]
    example = train_example(policy)
    near = log_probs(policy, 0.7)
    reference = example.ref_per_token_logps.at[1, 3].set(near[1, 3])  # no KL there
    without = adapter_gradient(policy, dataclasses.replace(example, ref_per_token_logps=reference))
    far = reference.at[1, 3].add(nats)
    found = adapter_gradient(policy, dataclasses.replace(example, ref_per_token_logps=far))
    assert np.isfinite(found).all()
    cosine = found @ without / np.linalg.norm(found) / np.linalg.norm(without)
    assert cosine >= 0.99


def test_a_loss_that_is_not_plain_grpo_is_refused(policies):
    algorithm = grpo.ChunkedGRPOConfig(loss_algo="gspo-token")
    with pytest.raises(ValueError, match="gspo-token"):
        grpo.chunked_grpo_loss(policies["gemma3"], None, algorithm, PAD, EOS)

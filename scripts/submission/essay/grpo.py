# %% [markdown]
# ### Stage 2: GRPO
#
# For every prompt the policy writes a *group* of completions. Each earns its reward, and its
# *advantage* is how far it lies above the mean of its group, in standard deviations. The
# policy makes what lay above more likely, and what lay below less. A group in which all earn
# the same teaches nothing.
#
# Tunix's `GRPOLearner` does the work, with the chunked log-probabilities in its loss, in the
# reference and in the old policy. Its defaults are set right in three places:
#
# - **The KL term pulls.** Tunix's default estimator, log p − log p_ref, has an expected
#   gradient of zero as a loss term, whatever its weight. `low_var_kl` (Schulman's k3) has not.
# - **The reference is the warm start**: the same base with a frozen copy of the SFT adapter.
# - **Everything sampled counts**: no top-k and no top-p, so that the distribution that is
#   sampled is the one whose log-probabilities are trained.

# %%
import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from tunix.rl import rl_cluster
from tunix.sft import sharding_utils as input_sharding

# %% tags=["modules-only"]
from submission.bench.run.budget import Deadline
from submission.bench.settings.config import Profile, Run
from submission.bench.rows.curriculum import PromptSampler
from submission.bench.rows.data import Mixture, prompt_columns
from submission.bench.run.guards import sampled_reward, signs_of_collapse
from submission.bench.policy.losses import ChunkedGRPOConfig, completion_log_probs
from submission.bench.policy.memory import plan_memory
from submission.bench.policy.model import DATA_AXES, frozen_copy
from submission.bench.answers.prompts import Example
from submission.bench.answers.scoring import EXTRA_SETUPS, Context, earned
from submission.essay.rewards import Scorer
from submission.bench.policy.rollout import EngineConfig, PolicyRollout
from submission.bench.run.stages import Session, Stage, finished_stage
from submission.bench.answers.texts import PLAIN, Vocabulary
from submission.bench.policy.trimming import TrimmedLearner, in_trimmed_parts
from submission.bench.policy.updates import make_optimizer

# %%
SPARE_STEPS = 10.0  # no step is begun unless so many fit: one that is as slow still ends in time


def metric_function(
    scorer: Scorer, sampler: PromptSampler, record: Callable[..., None], cluster: Any
) -> Callable[..., dict[str, Any]]:
    """A metric function with the signature that Tunix's learner calls; `record` gets the means.

    Among them is what each part of the reward has earned (`from_…`), and where the time went.
    """

    def group_metrics(
        prompts: Sequence[str],
        completions: Sequence[str],
        rewards: np.ndarray,
        advantages: np.ndarray,
        **columns: Any,
    ) -> dict[str, Any]:
        """Means of the reward and its parts, and the share of groups that teach nothing.

        A group is flat when all its completions earn the same: every advantage is zero. The
        curriculum hears here how its prompts fared.
        """
        parts = scorer.parts(completions, columns)
        is_open = np.array([checker == "open" for checker in columns["checker"]])
        success = np.where(is_open, parts["open"], parts["right"])
        sampler.record(columns["question"], success)
        groups: dict[str, list[float]] = {}
        for prompt, reward in zip(prompts, rewards, strict=True):
            groups.setdefault(prompt, []).append(float(reward))
        flat = [max(group) - min(group) < 1e-6 for group in groups.values()]
        means = {
            "reward": np.mean(rewards),
            "in_format": np.mean(parts["in_format"]),
            "flat_groups": np.mean(flat),
        }
        if is_open.any():
            means["open"] = np.mean(success[is_open])
        if not is_open.all():
            for name in ("right", "length"):
                means[name] = np.mean(np.array(parts[name])[~is_open])
        for name in scorer.weights.extras:
            means[name] = np.mean(parts[name])
        as_arrays = {name: np.array(values) for name, values in parts.items()}
        gains = earned(as_arrays, scorer.weights, scorer.context.progress)
        means |= {f"from_{name}": np.mean(x) for name, x in gains.items() if name in means}
        record(
            **means,
            failed=float(scorer.tally.failed.total()),
            rollout_seconds=cluster.rollout_seconds,
            reward_seconds=scorer.seconds,
        )
        return {}  # nothing for Tunix's own log

    return group_metrics


def fit_vocabulary(examples: Sequence[Example]) -> Vocabulary:
    """The words of all open rows of a run, weighted once; `PLAIN` where there are none."""
    texts = [f"{e.question}\n{e.answer}\n{e.trace}" for e in examples if e.checker == "open"]
    return Vocabulary.fit(texts) if texts else PLAIN


def rollout_config(run: Run) -> EngineConfig:
    """Sampling in training. `top_p=None` would mean greedy, whatever the temperature."""
    settings, lengths = run.profile.grpo, run.profile.lengths
    return EngineConfig(
        max_tokens_to_generate=lengths.completion,
        max_prompt_length=lengths.prompt,
        kv_cache_size=run.cache_length,
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=settings.top_k,
        seed=jax.random.PRNGKey(run.seed),
        vocabulary_chunk=run.profile.vocabulary_chunk,
        **dataclasses.asdict(run.profile.generation),
    )


def algorithm_config(profile: Profile) -> ChunkedGRPOConfig:
    """GRPO with a KL term that has a gradient."""
    settings = profile.grpo
    return ChunkedGRPOConfig(
        num_generations=settings.generations,
        num_iterations=settings.iterations,
        beta=settings.beta,
        epsilon=settings.epsilon,
        kl_loss_mode="low_var_kl",
        vocabulary_chunk=profile.vocabulary_chunk,
    )


class ChunkedCluster(rl_cluster.RLCluster):
    """Tunix's cluster, whose reference never makes all logits at once, and which times rollouts."""

    rollout_seconds: float = 0.0  # of the last one

    def generate(self, *arguments: Any, **keywords: Any) -> Any:
        """Completions, as Tunix's cluster makes them."""
        start = time.monotonic()
        found = super().generate(*arguments, **keywords)
        self.rollout_seconds = time.monotonic() - start
        return found

    def get_ref_per_token_logps(
        self,
        prompt_tokens: jax.Array,
        completion_tokens: jax.Array,
        pad_id: int,
        eos_id: int,
        micro_batch_size: int | None = None,
    ) -> jax.Array:
        """The reference's log-probabilities_BC, at the temperature of sampling, as in Tunix.

        Args:
          prompt_tokens: token ids_BP, padded on the left.
          completion_tokens: token ids_BC, padded on the right.
          pad_id: the tokenizer's padding id.
          eos_id: the tokenizer's eos id (not used).
          micro_batch_size: rows at a time; by default all.
        """
        graph, state = nnx.split(self.inference_worker.get_model("reference"))
        settings = self.get_rollout_config(rl_cluster.Mode.TRAIN)

        def scored(*tokens: np.ndarray) -> jax.Array:
            return completion_log_probs(
                graph,
                state,
                *input_sharding.shard_input(tokens, (DATA_AXES,)),
                pad_id=pad_id,
                temperature=settings.temperature,
                chunk=settings.vocabulary_chunk,
            )

        with self.cluster_config.role_to_mesh[rl_cluster.Role.REFERENCE]:
            return in_trimmed_parts(
                scored,
                prompt_tokens,
                completion_tokens,
                rows=micro_batch_size or len(prompt_tokens),
                pad_id=pad_id,
                step=settings.completion_step,
            )


def build_cluster(policy: nnx.Module, tokenizer: Any, run: Run, mesh: Mesh) -> rl_cluster.RLCluster:
    """Policy, reference and rollout engine on one mesh, sharing one base."""
    settings, plan = run.profile.grpo, plan_memory(run, mesh.devices.size)
    roles = (rl_cluster.Role.ACTOR, rl_cluster.Role.REFERENCE, rl_cluster.Role.ROLLOUT)
    cluster = ChunkedCluster(
        actor=policy,
        reference=frozen_copy(policy),
        tokenizer=tokenizer,
        cluster_config=rl_cluster.ClusterConfig(
            role_to_mesh=dict.fromkeys(roles, mesh),
            rollout_engine=PolicyRollout,
            rollout_config=rollout_config(run),
            training_config=rl_cluster.RLTrainingConfig(
                actor_optimizer=make_optimizer(settings.optimizer),
                eval_every_n_steps=settings.steps,
                max_steps=settings.steps * settings.iterations,
                mini_batch_size=settings.prompts,
                # Only where it is needed: it keeps a sum of the gradients.
                train_micro_batch_size=(
                    None if plan.micro_prompts == settings.prompts else plan.micro_prompts
                ),
                rollout_micro_batch_size=plan.rollout_prompts,
                compute_logps_micro_batch_size=plan.micro_prompts,
                data_sharding_axis=(DATA_AXES,),
            ),
        ),
    )
    # Tunix keeps a copy of the whole policy in the host's memory, which nothing here asks for.
    cluster._anchor_policy_state = None
    return cluster


def draw_on(sampler: PromptSampler, state: dict[str, Any]) -> None:
    """Lets a sampler go on where that of an earlier run was, so that the rows are fresh."""
    try:
        sampler.restore(state)
    except KeyError as error:
        print(f"The earlier run had other rows ({error}): these are drawn from the beginning.")


def train_grpo(
    policy: nnx.Module, tokenizer: Any, rows: Mixture, session: Session, deadline: Deadline
) -> dict[str, Any]:
    """Trains the policy's adapter in place; returns steps, seconds, tokens and history."""
    run, settings = session.run, session.run.profile.grpo
    if (report := finished_stage(session.folder, "grpo")) is not None:
        return report
    cluster = build_cluster(policy, tokenizer, run, session.mesh)
    scorer = Scorer(run.profile.rewards, Context(vocabulary=fit_vocabulary(rows.examples)))
    for name in run.profile.rewards.extras:
        if name in EXTRA_SETUPS:
            EXTRA_SETUPS[name](scorer.context, cluster, tokenizer, run)
    sampler = PromptSampler(rows.groups, rows.shares, settings.curriculum, run.seed + 1)
    generated = 0

    def state() -> dict[str, Any]:
        return {
            "calls": cluster.rollout.calls,
            "sampler": sampler.state(),
            "tally": scorer.tally.state(),
            "tokens": generated,
        }

    stage = Stage(
        session, "grpo", settings, deadline,
        subfolder="actor", shown=("reward", "in_format", "right", "flat_groups"),
        keep=run.profile.keep_checkpoints, always=(0,), updates_per_step=settings.iterations,
        slack=SPARE_STEPS, state=state,
        signs=functools.partial(
            signs_of_collapse,
            guards=run.profile.guards,
            most_tokens=run.profile.lengths.completion,
        ),
        score=functools.partial(sampled_reward, guards=run.profile.guards),
    )  # fmt: skip
    stage.attach(cluster.actor_trainer, run.profile.remat)
    if stage.restored:
        cluster.rollout.calls = stage.restored["calls"]
        sampler.restore(stage.restored["sampler"])
        scorer.tally.restore(stage.restored["tally"])
        generated = stage.restored["tokens"]
    elif "sampler" in session.earlier:
        draw_on(sampler, session.earlier["sampler"])

    def record(**numbers: Any) -> None:
        nonlocal generated
        generated += int(numbers.get("step_tokens", 0))
        stage.record(**numbers)

    learner = TrimmedLearner(
        rl_cluster=cluster,
        algo_config=algorithm_config(run.profile),
        reward_fns=[scorer],
        metric_fns=[metric_function(scorer, sampler, record, cluster)],
    )
    learner.completion_step, learner.record = run.profile.generation.completion_step, record
    # Where the trainer is; the learner would skip as many batches, and ours begin there.
    learner._iter_steps = learner._last_iter_step
    cluster.global_steps = stage.start

    def batches() -> Iterator[dict[str, np.ndarray]]:
        for _ in stage.steps():
            scorer.context.progress = stage.pace.progress
            yield prompt_columns(sampler.draw(settings.prompts, stage.pace.progress))

    with session.stop.heard():
        stream = batches()
        if (first := next(stream, None)) is not None:
            learner.train(itertools.chain([first], stream), skip_jit=True)
        else:
            cluster.close()
    return stage.report(tokens=generated)

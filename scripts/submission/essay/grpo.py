# %% [markdown]
# ### GRPO, the learner
#
# Two choices differ from Tunix's where $\beta>0$, as in `kaggle` (on the tiny model they make 0.003 ± 0.012). The gradient of Tunix's default KL estimator, $\log\pi_\theta-\log\pi_{\mathrm{ref}}$, is zero on average; that of k3, below, is not. And the reference is a frozen copy of the warm start, not the stock model.

# %%
import dataclasses
import functools
import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from tunix.rl import algo_core, common, function_registry, rl_cluster
from tunix.rl.grpo import grpo_learner

# %% tags=["modules-only"]
from submission.bench.answers.meaning import load_encoder
from submission.bench.answers.scoring import EXTRA_SETUPS, Context, fit_vocabulary
from submission.bench.policy.cluster import REFERENCES, ChunkedCluster, rollout_config
from submission.bench.policy.hosts import my_share, run_of_this_host, this_host
from submission.bench.policy.losses import completion_scores
from submission.bench.policy.memory import plan_memory
from submission.bench.policy.model import DATA_AXES, mesh_of
from submission.bench.policy.rollout import PolicyRollout
from submission.bench.policy.trimming import TrimmedLearner
from submission.bench.policy.updates import make_optimizer
from submission.bench.rows.curriculum import PromptSampler
from submission.bench.rows.data import Mixture, prompt_columns
from submission.bench.run.budget import Deadline
from submission.bench.run.group_metrics import metric_function
from submission.bench.run.guards import sampled_reward, signs_of_collapse
from submission.bench.run.stages import Session, Stage, finished_stage, no_stage
from submission.bench.settings.config import Profile, Run
from submission.bench.show.groups import GroupLog
from submission.essay.rewards import Scorer


# %%
SPARE_SECONDS = 100.0  # a step that stalls for so long still ends in time; to compile takes 60


def build_cluster(policy: nnx.Module, tokenizer: Any, run: Run, mesh: Mesh) -> rl_cluster.RLCluster:
    """Policy, reference and rollout engine on one mesh, sharing one base."""
    run = run_of_this_host(run)
    settings, plan = run.profile.grpo, plan_memory(run, mesh.devices.size)
    roles = (rl_cluster.Role.ACTOR, rl_cluster.Role.REFERENCE, rl_cluster.Role.ROLLOUT)
    reference = REFERENCES[settings.reference](policy, tokenizer, run, mesh)
    meshes = dict.fromkeys(roles, mesh) | {rl_cluster.Role.REFERENCE: mesh_of(reference)}
    cluster = ChunkedCluster(
        actor=policy,
        reference=reference,
        tokenizer=tokenizer,
        cluster_config=rl_cluster.ClusterConfig(
            role_to_mesh=meshes,
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


# %% [markdown]
# Tunix's learner takes batches of prompts, lets the cluster write completions, calls the rewards, and
# updates. The `Stage` around it keeps the clock, the log and the saves, and goes on after a kill.


# %%
def train_grpo(
    policy: nnx.Module, tokenizer: Any, rows: Mixture, session: Session, deadline: Deadline
) -> dict[str, Any]:
    """Trains the policy's adapter in place; returns steps, seconds, tokens and history."""
    run, settings, generated = session.run, session.run.profile.grpo, 0
    if not settings.steps:
        return no_stage("grpo")
    if (report := finished_stage(session.folder, "grpo")) is not None:
        return report
    cluster = build_cluster(policy, tokenizer, run, session.mesh)
    encoder = load_encoder(run.profile.rewards.encoder)  # reads the meaning of open answers
    context = Context(0.0, fit_vocabulary(rows.examples), encoder, examples=rows.examples)
    scorer = Scorer(run.profile.rewards, context)
    for name in EXTRA_SETUPS.keys() & run.profile.rewards.extras.keys():
        EXTRA_SETUPS[name](context, cluster, tokenizer, run)
    sampler = PromptSampler(rows.groups, rows.shares, settings.curriculum, run.seed + 1)
    groups = GroupLog(session.folder.groups, settings.generations)

    def state() -> dict[str, Any]:
        return {"calls": cluster.rollout.calls, "sampler": sampler.state(),
                "tally": scorer.tally.state(), "tokens": generated}  # fmt: skip

    stage = grpo_stage(session, deadline, state)
    stage.attach(cluster.actor_trainer, run.profile.remat)
    if saved := stage.restored:
        cluster.rollout.calls, generated = saved["calls"], saved["tokens"]
        sampler.restore(saved["sampler"])
        scorer.tally.restore(scorer.tally.state() if this_host() else saved["tally"])  # host 0's
    elif "sampler" in session.earlier:
        sampler.go_on(session.earlier["sampler"])

    def record(**numbers: Any) -> None:
        nonlocal generated
        generated += int(numbers.get("step_tokens", 0))
        stage.record(**numbers)

    def keep(*group: Any) -> None:
        groups.keep(stage.step, *group)

    learner = TrimmedLearner(
        rl_cluster=cluster,
        algo_config=algorithm_config(run.profile),
        reward_fns=[scorer],
        metric_fns=[metric_function(scorer, sampler, record, keep, cluster, settings.generations)],
    )
    learner.record = record
    learner.begin_at(stage.start)

    def batches() -> Iterator[dict[str, np.ndarray]]:
        for _ in stage.steps():
            context.progress = stage.pace.progress
            yield prompt_columns(my_share(sampler.draw(settings.prompts, stage.pace.progress)))

    with session.stop.heard():
        stream = batches()
        if (first := next(stream, None)) is not None:
            learner.train(itertools.chain([first], stream), skip_jit=True)
        else:
            cluster.close()
    return stage.report(tokens=generated)


# %%
def grpo_stage(session: Session, deadline: Deadline, state: Any) -> Stage:
    """The clock, the log, the saves and the guards of the stage."""
    profile = session.run.profile
    return Stage(
        session,
        "grpo",
        profile.grpo,
        deadline,
        subfolder="actor",
        shown=("reward", "in_format", "right", "flat_groups"),
        keep=profile.keep_checkpoints,
        always=(0,),
        updates_per_step=profile.grpo.iterations,
        spare=SPARE_SECONDS,
        state=state,
        signs=functools.partial(
            signs_of_collapse, guards=profile.guards, most_tokens=profile.lengths.completion
        ),
        score=functools.partial(sampled_reward, guards=profile.guards),
    )


# %% [markdown]
# ### GRPO, the objective
#
# For a prompt the policy $\pi_\theta$ writes a group of $G$ completions $o_1 \dots o_G$ with rewards
# $r_1 \dots r_G$. What is maximised is, as Tunix computes it (Shao et al. 2024, equation 3):
#
# $$\frac{1}{G}\sum_{i=1}^{G}\frac{1}{|o_i|}\sum_{t}\Big[\min\big(\rho_{it}A_i,\
# \mathrm{clip}(\rho_{it},1-\epsilon,1+\epsilon)\,A_i\big)-\beta\,D_{it}\Big]$$
#
# | symbol | what it is | computed by |
# |---|---|---|
# | $|o_i|$, $t$ | tokens of a completion, one of them | `mask_BC` |
# | $A_i$ | advantage: $(r_i-\mathrm{mean}\,r)\,/\,\mathrm{std}\,r$ over the group, std by $G-1$ | Tunix; by hand below |
# | $\rho_{it}$ | how much likelier a token is since it was sampled | `exp(logps_BC - old_BC)` |
# | clip | idle: with one update per rollout $\rho_{it}=1$, and $\nabla\rho_{it}=\nabla\log\pi_\theta$ | `near_BC = clip(ratio_BC, …)` |
# | $D_{it}$ | distance from the warm start, Schulman's k3: $e^d-d-1$, $d=\log\pi_{\mathrm{ref}}-\log\pi_\theta$ | `kl_loss="low_var_kl"` |
# | $\beta$, $\epsilon$ | weight of the pull, width of the clip | `beta`, `epsilon` |


# %%
@dataclasses.dataclass(kw_only=True)
class ChunkedGRPOConfig(grpo_learner.GRPOConfig):
    """Tunix's configuration, with the loss below."""

    policy_loss_fn: str = "chunked_grpo"
    vocabulary_chunk: int = 1024  # tokens per chip whose logits exist at a time
    kl_reach: float = 5.0  # nats; a token that is less likely by more is pulled back no harder


def algorithm_config(profile: Profile) -> ChunkedGRPOConfig:
    """GRPO with a KL term that has a gradient."""
    settings = profile.grpo
    return ChunkedGRPOConfig(
        num_generations=settings.generations,
        num_iterations=settings.iterations,
        beta=settings.beta,
        epsilon=settings.epsilon,
        kl_loss_mode=settings.kl_loss,
        advantage_estimator=settings.estimator,
        loss_agg_mode=settings.aggregation,
        vocabulary_chunk=profile.vocabulary_chunk,
    )


# %%
@function_registry.register_policy_loss_fn("chunked_grpo")
def chunked_grpo_loss(
    model: nnx.Module,
    train_example: common.TrainExample,
    algo_config: ChunkedGRPOConfig,
    pad_id: int,
    eos_id: int,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Tunix's `grpo_loss_fn`, its loss and the metrics that we log.

    Raises:
      ValueError: the configuration asks for `gspo-token`.
    """
    if algo_config.loss_algo != "grpo":
        raise ValueError(f"This loss is plain GRPO; loss_algo is {algo_config.loss_algo!r}.")
    mask_BC = train_example.completion_mask
    logps_BC, entropy_BC = completion_scores(
        model,
        train_example.prompt_ids,
        train_example.completion_ids,
        pad_id=pad_id,
        temperature=algo_config.temperature,
        chunk=algo_config.vocabulary_chunk,
        with_entropy=True,
    )
    mean = functools.partial(
        common.aggregate_loss, completion_mask=mask_BC, loss_agg_mode=algo_config.loss_agg_mode
    )
    old_BC = train_example.old_per_token_logps
    if old_BC is None:
        old_BC = jax.lax.stop_gradient(logps_BC)
    ratio_BC = jnp.exp(jnp.clip(logps_BC - old_BC, -20.0, 20.0))
    near_BC = jnp.clip(ratio_BC, 1 - algo_config.epsilon, 1 + algo_config.epsilon)
    advantages_B1 = train_example.advantages.astype(jnp.float32)[:, None]
    free_BC, clipped_BC = advantages_B1 * ratio_BC, advantages_B1 * near_BC
    loss = -mean(jnp.minimum(free_BC, clipped_BC))
    aux = {
        "pg_clipfrac": algo_core.masked_mean(clipped_BC < free_BC, mask_BC),
        "entropy": algo_core.masked_mean(entropy_BC, mask_BC),
        "kl": jnp.float32(0.0),
        "tokens": jnp.sum(mask_BC),
    }
    if train_example.ref_per_token_logps is not None:
        # k3 has an exponential in it. Bounded after it, as by Tunix's `kl_clamp_value`, its
        # gradient would be 0 × ∞; and one token of thousands would be the whole update.
        gap_BC = jnp.minimum(train_example.ref_per_token_logps - logps_BC, algo_config.kl_reach)
        kl_BC = common.compute_kl_divergence(
            -gap_BC, jnp.zeros_like(gap_BC), algo_config.kl_loss_mode
        )
        aux["kl"] = jnp.sum(kl_BC * mask_BC) / jnp.maximum(jnp.sum(mask_BC), 1)
        loss += algo_config.beta * mean(kl_BC)
    return loss, aux

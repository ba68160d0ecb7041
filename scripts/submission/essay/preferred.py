# %% [markdown]
# ### Pairs of its own completions
#
# Of a group of completions, one that is right and one that is not are a pair, and the policy is
# taught to find the first likelier than the second. SimPO (Meng et al. 2024, arXiv 2405.14734,
# equation 6) compares *mean* log-probabilities, so that length counts for nothing, and needs no
# reference:
#
# $$-\log\sigma\Big(\frac{\beta}{|y_w|}\log\pi_\theta(y_w)-\frac{\beta}{|y_l|}\log\pi_\theta(y_l)-\gamma\Big)$$
#
# Tunix's `DPOTrainer` takes it as its loss. A group gives two pairs at most.

# %%
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tunix.sft.dpo import dpo_trainer

# %% tags=["modules-only"]
from submission.bench.answers.prompts import render_prompt
from submission.bench.policy.losses import last_hidden_states, token_log_probs
from submission.bench.policy.model import DATA_AXES
from submission.bench.policy.rollout import left_padded
from submission.bench.policy.updates import make_optimizer
from submission.bench.rows.data import Mixture, shuffled_forever
from submission.bench.run.budget import Deadline
from submission.bench.run.checkpoints import restore_newest
from submission.bench.run.samples import Sample, own_samples
from submission.bench.run.stages import MORE_STAGES, Session, Stage, finished_stage
from submission.essay.rewards import reward_right

# %%
Pair = tuple[Sample, Sample]  # of one prompt: the right one first


def pairs_among(groups: Sequence[Sequence[Sample]]) -> list[Pair]:
    """The pairs of each group: its first right and wrong completions, then its second ones."""
    found = []
    for group in groups:
        good, bad = ([s for s in group if s.right == kind] for kind in (True, False))
        found += list(zip(good, bad, strict=False))[:2]
    return found


def pair_batch(
    pairs: Sequence[Pair], tokenizer: Any, prompt: int, completion: int
) -> dpo_trainer.TrainingInput:
    """Pairs as Tunix's trainer takes them, with prompts padded on the left to so many tokens."""
    pad_id = tokenizer.pad_id()
    asked = [render_prompt(right.example.question) for right, _ in pairs]
    ids = [[tokenizer.bos_id(), *tokenizer.encode(text)] for text in asked]
    prompts_NP = left_padded(ids, prompt, pad_id)
    texts_2NC = np.full((2, len(pairs), completion), pad_id, np.int32)
    for row, pair in enumerate(pairs):
        for side, sample in enumerate(pair):
            texts_2NC[side, row, : len(sample.tokens)] = sample.tokens
    chosen_NC, rejected_NC = texts_2NC
    return dpo_trainer.TrainingInput(
        prompt_ids=prompts_NP, prompt_mask=prompts_NP != pad_id,
        chosen_ids=chosen_NC, chosen_mask=chosen_NC != pad_id,
        rejected_ids=rejected_NC, rejected_mask=rejected_NC != pad_id,
    )  # fmt: skip


# %%
def simpo_loss(margin: float, chunk: int) -> Any:
    """The loss above, with the signature that `DPOTrainer` calls."""

    def loss_fn(
        model: nnx.Module,
        train_example: dpo_trainer.TrainExample,
        algorithm: str,
        beta: float,
        label_smoothing: float,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Chosen completions fill the first half of the rows, rejected ones the second."""
        rows, count = train_example, train_example.logits_to_keep
        hidden_BTD = last_hidden_states(model, rows.input_ids, rows.positions, rows.attention_mask)
        counts_BC = rows.completion_mask.astype(bool)
        logps_BC, _ = token_log_probs(
            model,
            hidden_BTD[:, -count - 1 : -1],
            rows.input_ids[:, -count:],
            counts_BC,
            chunk=chunk,
        )
        mean_B = logps_BC.sum(-1) / jnp.maximum(counts_BC.sum(-1), 1)
        chosen_N, rejected_N = jnp.split(beta * mean_B, 2)
        loss = -jax.nn.log_sigmoid(chosen_N - rejected_N - margin).mean()
        sides = {"chosen": chosen_N.mean(), "rejected": rejected_N.mean()}
        return loss, {
            **{f"rewards/{name}": value for name, value in sides.items()},
            **{f"log_probs/{name}": value / beta for name, value in sides.items()},
            "rewards/margin": (chosen_N - rejected_N).mean(),
            "rewards/accuracy": (chosen_N > rejected_N).mean(),
        }

    return loss_fn


# %%
def train_pairs(
    policy: nnx.Module,
    tokenizer: Any,
    rows: Mapping[str, Mixture],
    session: Session,
    deadline: Deadline,
) -> dict[str, Any]:
    """Samples, pairs, trains the policy's adapter in place; returns what a stage reports."""
    run, folder = session.run, session.folder
    settings, lengths = run.profile.stages["pairs"], run.profile.lengths
    if (report := finished_stage(folder, "pairs")) is not None:
        restore_newest(folder.checkpoints / "pairs", policy, None, folder.fingerprint)
        return report
    rng = np.random.default_rng(run.seed)
    examples = rows["grpo"].examples
    chosen = [examples[i] for i in rng.permutation(len(examples))[: settings.prompts]]
    drawn = own_samples(policy, tokenizer, session, chosen, settings.generations, reward_right)
    groups = list(drawn)
    tokens, pairs = sum(len(s.tokens) for group in groups for s in group), pairs_among(groups)
    print(f"pairs: {len(pairs)} of {len(groups)} prompts")
    if not pairs:
        raise ValueError("Of no prompt one completion is right and one is not: nothing to prefer.")
    if settings.shuffled:
        pairs = [pair[::-1] if swap else pair
                 for pair, swap in zip(pairs, rng.random(len(pairs)) < 0.5, strict=True)]  # fmt: skip
    trainer = dpo_trainer.DPOTrainer(
        policy,
        None,
        make_optimizer(settings.optimizer),
        dpo_trainer.DPOTrainingConfig(
            beta=settings.beta, eval_every_n_steps=settings.steps, max_steps=settings.steps,
            data_sharding_axis=(DATA_AXES,),
        ),
    )  # fmt: skip
    trainer.with_loss_fn(simpo_loss(settings.margin, run.profile.vocabulary_chunk), has_aux=True)
    stage = Stage(
        session, "pairs", settings, deadline.share(run.profile.sft_share),
        subfolder="pairs", shown=("loss", "preferred"), keep=1,
    )  # fmt: skip
    stage.attach(trainer, run.profile.remat)

    def batches() -> Iterator[dpo_trainer.TrainingInput | None]:
        yield from itertools.repeat(None, stage.start)  # Tunix skips what has been trained
        stream = shuffled_forever(pairs, run.seed)
        stream = itertools.islice(stream, stage.start * settings.pairs, None)
        for _ in stage.steps():
            batch = list(itertools.islice(stream, settings.pairs))
            stage.record(step_tokens=sum(len(s.tokens) for pair in batch for s in pair))
            yield pair_batch(batch, tokenizer, lengths.prompt, lengths.completion)

    with session.mesh, session.stop.heard():
        trainer.train(batches(), skip_jit=True)
    return stage.report(tokens=tokens)


MORE_STAGES["pairs"] = train_pairs

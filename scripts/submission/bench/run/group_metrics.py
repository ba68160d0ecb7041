"""What is measured of the groups of a step."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from submission.bench.answers.scoring import BatchScorer, earned
from submission.bench.policy.hosts import gather


def metric_function(
    scorer: BatchScorer,
    sampler: Any,
    record: Callable[..., None],
    keep: Callable[..., None],
    cluster: Any,
    generations: int,
) -> Callable[..., dict[str, Any]]:
    """A metric function with the signature that Tunix's learner calls.

    Args:
      scorer: has the parts of the reward.
      sampler: a `PromptSampler`, which hears how its prompts fared.
      record: gets the means, among them what each part has earned (`from_…`), and the times.
      keep: gets prompts, completions, rewards and advantages as they are.
      cluster: knows how long the rollout took.
      generations: completions of a group; those of one prompt follow each other.
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
        keep(prompts, completions, rewards, advantages)
        as_arrays = {k: np.array(x) for k, x in scorer.parts(completions, columns).items()}
        mine = {"rewards": rewards, "checker": columns["checker"], "question": columns["question"],
                "failed": [scorer.tally.failed.total()]}  # fmt: skip
        everywhere = gather(as_arrays | mine, "the rewards")
        parts = {k: np.concatenate([np.asarray(x[k]) for x in everywhere]) for k in everywhere[0]}
        rewards, kinds, questions, failed = map(parts.pop, mine)
        is_open = kinds == "open"
        success = np.where(is_open, parts["open"], parts["right"])
        sampler.record(questions, success)
        # By position: two groups of a step may have the same prompt.
        flat = np.ptp(np.reshape(rewards, (-1, generations)), axis=1) < 1e-6
        means = {
            "reward": np.mean(rewards),
            "in_format": np.mean(parts["in_format"]),
            "flat_groups": np.mean(flat),
        }
        if is_open.any():
            means["open"] = np.mean(success[is_open])
        if not is_open.all():
            for name in ("right", "length"):
                means[name] = np.mean(parts[name][~is_open])
            for kind in {*kinds[~is_open]}:
                means[f"right_{kind}"] = np.mean(parts["right"][kinds == kind])
        for name in scorer.weights.extras:
            means[name] = np.mean(parts[name])
        gains = earned(parts, scorer.weights, scorer.context.progress)
        means |= {f"from_{name}": np.mean(x) for name, x in gains.items() if name in means}
        record(
            **means,
            failed=float(failed.sum()),
            rollout_seconds=cluster.rollout_seconds,
            reward_seconds=scorer.seconds,
        )
        return {}  # nothing for Tunix's own log

    return group_metrics

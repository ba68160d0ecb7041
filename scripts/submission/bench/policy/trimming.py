"""No work on padding, and none twice.

Completions are padded to the longest there may be, and few are that long. An update is a mean
over sequences, taken in passes of equally many, so their order is free: sorted by length, the
short ones go through the model together, in arrays no wider than they need. Widths are
multiples of one number, so that the compiled programs stay few.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tunix.rl import common, rl_cluster
from tunix.rl.grpo import grpo_learner

from submission.bench.policy.hosts import everyones


def completion_lengths(tokens_BC: Any, pad_id: int) -> np.ndarray:
    """Where the last token of each completion stands, counted from 1.

    >>> completion_lengths([[5, 0, 7, 0], [5, 0, 0, 0]], pad_id=0).tolist()
    [3, 1]
    """
    is_token_BC = np.asarray(tokens_BC) != pad_id
    return is_token_BC.shape[1] - is_token_BC[:, ::-1].argmax(axis=1)


def trimmed_width(tokens_BC: Any, pad_id: int, step: int) -> int:
    """The width that holds all completions: a multiple of `step`, or all there is.

    >>> trimmed_width([[5, 6, 7, 0, 0], [5, 0, 0, 0, 0]], pad_id=0, step=2)
    4
    """
    longest = int(completion_lengths(tokens_BC, pad_id).max())
    return min(-(-longest // step) * step, np.shape(tokens_BC)[1])


def in_trimmed_parts(
    function: Callable[[jax.Array, jax.Array], jax.Array],
    prompts_BP: jax.Array,
    tokens_BC: jax.Array,
    *,
    rows: int,
    pad_id: int,
    step: int,
) -> jax.Array:
    """`function(prompts, completions)`_BC, a number per token, over rows sorted by length.

    Args:
      function: of some rows, with completions as wide as they need; each row by itself.
      prompts_BP: token ids.
      tokens_BC: token ids of the completions.
      rows: how many at a time.
      pad_id: the tokenizer's padding id.
      step: widths are multiples of it.

    Returns:
      The results in the order of the arguments; 0 where it was padding.
    """
    order = np.argsort(-completion_lengths(tokens_BC, pad_id), kind="stable")
    prompts_BP, tokens_BC = np.asarray(prompts_BP)[order], np.asarray(tokens_BC)[order]
    results_BC = []
    for start in range(0, len(order), rows):
        part = slice(start, start + rows)
        width = trimmed_width(tokens_BC[part], pad_id, step)
        result = function(prompts_BP[part], tokens_BC[part, :width])
        results_BC.append(jnp.pad(result, ((0, 0), (0, tokens_BC.shape[1] - width))))
    return jnp.concatenate(results_BC)[np.argsort(order)]


def without_noise(advantages_B: Any, generations: int, estimator: str = "grpo") -> np.ndarray:
    """The advantages, and 0 in groups whose rewards are equal but for the rounding of their mean.

    Divided by the group's spread, that rounding is 0.02, and in any other group an advantage is at
    least 0.7 away from 0. Other estimators leave both as small as they are.

    >>> without_noise([0.02, 0.02, -0.7, 0.7], generations=2).tolist()
    [0.0, 0.0, -0.7, 0.7]
    >>> without_noise([1e-8, 1e-8, -0.01, 0.01], generations=2, estimator="drgrpo").tolist()
    [0.0, 0.0, -0.01, 0.01]
    """
    advantages_PG = np.reshape(advantages_B, (-1, generations))
    least = 0.5 if estimator == "grpo" else 1e-6
    is_flat_P1 = np.abs(advantages_PG).max(axis=1, keepdims=True) < least
    return np.where(is_flat_P1, 0.0, advantages_PG).reshape(-1)


def of_distinct_rows(advantages_B: Any, prompts_BP: Any, tokens_BC: Any) -> np.ndarray:
    """The advantages, where the first of equal rows has the sum of all, and the others 0.

    A policy that is sure writes the same completion again and again. Its gradient is the same too,
    so that one of them, with the sum of their advantages, stands for all.

    >>> of_distinct_rows([0.5, 0.5, -1.0], [[5], [5], [5]], [[6, 7], [6, 7], [6, 8]]).tolist()
    [1.0, 0.0, -1.0]
    """
    rows = np.concatenate([prompts_BP, tokens_BC], axis=1)
    _, first, same_B = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    of_first_B = np.zeros(len(rows), np.float32)
    of_first_B[first] = np.bincount(same_B.reshape(-1), advantages_B)
    return of_first_B


class TrimmedLearner(grpo_learner.GRPOLearner):
    """Tunix's learner, whose trainer gets sorted and trimmed passes.

    It has to have a whole batch when it sorts: Tunix then cuts it into passes.
    """

    record: Callable[..., None] = staticmethod(lambda **_: None)  # hears of the lengths

    @property
    def widths(self) -> Any:
        """The engine's settings: what widths are multiples of."""
        return self.rl_cluster.get_rollout_config(rl_cluster.Mode.TRAIN)

    def _generate_and_compute_advantage(self, *arguments: Any, **keywords: Any) -> Any:
        example = super()._generate_and_compute_advantage(*arguments, **keywords)
        pad_id = self.rl_cluster.rollout.pad_id()
        lengths_B = completion_lengths(example.completion_ids, pad_id)
        of_all = everyones(lengths_B, "the lengths of completions")
        self.record(tokens=of_all.mean(), step_tokens=of_all.sum())
        settings = self.algo_config
        advantages_B = without_noise(
            example.advantages, settings.num_generations, settings.advantage_estimator
        )
        if example.ref_per_token_logps is None and settings.loss_agg_mode != "token-mean":
            advantages_B = of_distinct_rows(
                advantages_B, example.prompt_ids, example.completion_ids
            )
        # All passes have one width of prompts, which are padded on the left.
        backwards_BP = np.asarray(example.prompt_ids)[:, ::-1]
        width = trimmed_width(backwards_BP, pad_id, self.widths.prompt_step)
        example = dataclasses.replace(
            example,
            advantages=advantages_B,
            prompt_ids=example.prompt_ids[:, -width:],
            prompt_mask=example.prompt_mask[:, -width:],
        )
        # Rows that teach nothing come last: a pass of nothing else is left out.
        order = np.lexsort((-lengths_B, advantages_B == 0))
        return jax.tree.map(lambda x: x[order], example)

    def _process_accumulated_batches(self, **keywords: Any) -> list[common.TrainExample]:
        return [self.trimmed(x) for x in super()._process_accumulated_batches(**keywords)]

    def begin_at(self, step: int) -> None:
        """Begins where the trainer is; Tunix would skip as many batches, and ours begin there."""
        self._iter_steps = self._last_iter_step
        self.rl_cluster.global_steps = step

    def trimmed(self, example: common.TrainExample) -> common.TrainExample:
        """The same rows, no wider than the longest completion needs."""
        pad_id = self.rl_cluster.rollout.pad_id()
        width = trimmed_width(example.completion_ids, pad_id, self.widths.completion_step)
        names = ("completion_ids", "completion_mask", "ref_per_token_logps", "old_per_token_logps")
        found = {name: getattr(example, name) for name in names}
        narrow = {name: x[:, :width] for name, x in found.items() if x is not None}
        return dataclasses.replace(example, **narrow)

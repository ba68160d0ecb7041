"""Completions of the policy's own, labelled, for stages that learn from them."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from submission.bench.answers.prompts import Completion, Example, parse, render_prompt
from submission.bench.answers.scoring import Tally, check_all
from submission.bench.policy.cluster import rollout_config
from submission.bench.policy.memory import plan_memory
from submission.bench.policy.rollout import PolicyRollout, left_padded
from submission.bench.run.stages import Session


class Sample(NamedTuple):
    """A completion of a row's question."""

    example: Example
    completion: Completion
    tokens: np.ndarray  # with the EOS, if it ended by itself
    right: bool


def own_samples(
    policy: nnx.Module,
    tokenizer: Any,
    session: Session,
    examples: Sequence[Example],
    generations: int,
    is_right: Callable[[Completion, Example], float],
) -> Iterator[list[Sample]]:
    """Groups of completions, sampled as GRPO does, by noise of their own; the same each time.

    Args:
      policy: as it is now.
      tokenizer: its tokenizer.
      session: of the run. Told to stop, it ends here.
      examples: the rows whose questions are asked.
      generations: completions of each.
      is_right: 1.0 where an answer is right.

    Raises:
      RewardError: too many answers could not be checked.
    """
    run, mesh, weights = session.run, session.mesh, session.run.profile.rewards
    tally = Tally(weights.most_failures, weights.seconds)
    key = jax.random.fold_in(jax.random.key(run.seed), 1)
    config = dataclasses.replace(rollout_config(run), seed=key)
    engine = PolicyRollout(policy, tokenizer, mesh, config)
    rows = plan_memory(run, mesh.devices.size).rollout_prompts * run.profile.grpo.generations
    at_once = max(1, rows // generations)
    for start in range(0, len(examples), at_once):
        session.stop.check()
        batch = [e for e in examples[start : start + at_once] for _ in range(generations)]
        with mesh:
            found = engine.generate([render_prompt(e.question) for e in batch], config)
        said = [parse(text) for text in found.text]
        right = map(bool, check_all(said, batch, is_right, tally))
        samples = [Sample(*x) for x in zip(batch, said, found.tokens, right, strict=True)]
        yield from (samples[i : i + generations] for i in range(0, len(samples), generations))


def in_passes(
    function: Callable[[jax.Array], jax.Array],
    ids: Sequence[Sequence[int]],
    *,
    rows: int,
    length: int,
    pad_id: int,
    mesh: Mesh,
) -> np.ndarray:
    """`function(tokens_BT)`, so many rows of ids at a time, padded on the left to one length."""
    filled = [*ids, *ids[:1] * (-len(ids) % rows)]  # another size would be compiled anew
    tokens_NT = left_padded(filled, length, pad_id)
    with mesh:
        found = [
            np.asarray(function(jnp.array(part)))
            for part in np.split(tokens_NT, len(tokens_NT) // rows)
        ]
    return np.concatenate(found)[: len(ids)]

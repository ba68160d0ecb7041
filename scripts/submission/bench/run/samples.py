"""Completions of the policy's own, for stages that learn from them."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from submission.bench.answers.prompts import Example, render_prompt
from submission.bench.policy.cluster import rollout_config
from submission.bench.policy.memory import plan_memory
from submission.bench.policy.rollout import PolicyRollout
from submission.bench.run.stages import Session


class Sample(NamedTuple):
    """A completion of a row's question."""

    example: Example
    text: str
    tokens: np.ndarray  # with the EOS, if it ended by itself


def own_samples(
    policy: nnx.Module,
    tokenizer: Any,
    session: Session,
    examples: Sequence[Example],
    generations: int,
) -> Iterator[list[Sample]]:
    """Groups of completions, sampled as GRPO does, by noise of their own; the same each time.

    Args:
      policy: as it is now.
      tokenizer: its tokenizer.
      session: of the run. Told to stop, it ends here.
      examples: the rows whose questions are asked.
      generations: completions of each.
    """
    run, mesh = session.run, session.mesh
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
        samples = [Sample(*each) for each in zip(batch, found.text, found.tokens, strict=True)]
        yield from (samples[i : i + generations] for i in range(0, len(samples), generations))

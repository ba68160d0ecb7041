"""Tunix's cluster with a reference that never makes all logits at once."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx
from tunix.rl import rl_cluster
from tunix.sft import sharding_utils as input_sharding

from submission.bench.policy.losses import completion_log_probs
from submission.bench.policy.model import DATA_AXES, frozen_copy
from submission.bench.policy.rollout import EngineConfig
from submission.bench.policy.trimming import in_trimmed_parts
from submission.bench.settings.config import Run

# Whom the KL term holds the policy near to, by name: (policy, tokenizer, run, mesh) -> model.
REFERENCES: dict[str, Callable[..., nnx.Module]] = {
    "warm_start": lambda policy, *_: frozen_copy(policy)
}


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

# %% [markdown]
# ### Generation in training
#
# Rollouts come from Tunix's stock sampler, behind Tunix's own door for rollout engines. We
# change four things about how it is called:
#
# - **The EOS stays in the completion.** The sampler cuts it off, and a policy that is never
#   rewarded for stopping slowly forgets to stop.
# - **Every call has a fresh key.** Without a seed, Tunix draws the *same* noise at every step.
# - **The weights are the policy's, now.** They are read again at every call.
# - **Old log-probabilities are taken at the sampling temperature**, like the new ones.
#
# A completion that ran into the length limit is handed on with a mark at its end, so that it
# fails the format.

# %%
import dataclasses
from typing import Any

import jax
import numpy as np
from flax import nnx
from tunix.rl import common as rl_common
from tunix.rl.rollout import base_rollout, vanilla_rollout

# %% tags=["modules-only"]
from submission.prompts import CUT_MARK


# %%
def ended(tokens: np.ndarray, limit: int) -> bool:
    """Did a completion of the stock sampler, which comes without its EOS, end by itself?"""
    return len(tokens) < limit


def mark_cut(text: str, tokens: np.ndarray, limit: int) -> str:
    """The text as rewards and evaluation see it: marked if it did not end by itself."""
    return text if ended(tokens, limit) else text + CUT_MARK


class PolicyRollout(base_rollout.BaseRollout):
    """Tunix's stock sampler as a rollout engine that keeps the EOS and varies its key."""

    def __init__(
        self,
        rollout_actor: nnx.Module,
        tokenizer: Any,
        mesh: Any,
        rollout_config: base_rollout.RolloutConfig,
    ) -> None:
        if rollout_config.seed is None:
            raise ValueError("RolloutConfig.seed is None: every step would draw the same noise.")
        shape = rollout_actor.config
        self._policy = rollout_actor
        self._temperature = rollout_config.temperature
        self._stock = vanilla_rollout.VanillaRollout(
            rollout_actor,
            tokenizer,
            base_rollout.CacheConfig(
                cache_size=rollout_config.kv_cache_size,
                num_layers=shape.num_layers,
                num_kv_heads=shape.num_kv_heads,
                head_dim=shape.head_dim,
            ),
        )
        self.calls = 0  # how many keys have been used

    def generate(
        self, prompts: list[str], rollout_config: base_rollout.RolloutConfig, **kwargs: Any
    ) -> base_rollout.RolloutOutput:
        """One completion per prompt, each with its EOS if it ended by itself."""
        self._stock._sampler.transformer_state = nnx.variables(self._policy)
        key = jax.random.fold_in(rollout_config.seed, self.calls)
        self.calls += 1
        output = self._stock.generate(prompts, dataclasses.replace(rollout_config, seed=key))
        limit = rollout_config.max_tokens_to_generate
        text = [mark_cut(t, n, limit) for t, n in zip(output.text, output.tokens, strict=True)]
        tokens = [
            np.append(n, np.int32(self.eos_id())) if ended(n, limit) else n for n in output.tokens
        ]
        return dataclasses.replace(output, text=text, tokens=tokens)

    def get_per_token_logps(
        self, prompt_tokens: jax.Array, completion_tokens: jax.Array
    ) -> jax.Array:
        """The policy's own log-probabilities, at the temperature it samples at."""
        graph, state = nnx.split(self._policy)
        return rl_common.compute_per_token_logps(
            graph,
            state,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            pad_id=self.pad_id(),
            eos_id=self.eos_id(),
            stop_gradient=True,
            return_logits=False,
            temperature=self._temperature,
        )

    def update_params(self, params: Any, filter_types: Any = None) -> None:
        """Nothing to do: the weights are the policy's own and are read at every call."""

    def pad_id(self) -> int:
        """The tokenizer's padding id."""
        return self._stock.pad_id()

    def eos_id(self) -> int:
        """The tokenizer's eos id."""
        return self._stock.eos_id()

    def model(self) -> nnx.Module:
        """The policy."""
        return self._policy

# %% [markdown]
# ### A teacher beside the policy
#
# In on-policy distillation the policy writes, and a better model says of each token how likely it
# would have been. GRPO does this as it stands: its reference is the teacher, every advantage is 0,
# and the divergence is $\frac12(\log\pi_\theta-\log\pi_{\mathrm{teacher}})^2$. On the policy's own
# samples, the gradient of that is the gradient of $\mathrm{KL}(\pi_\theta\,\|\,\pi_{\mathrm{teacher}})$.
# No gold answer is read; rewards are shown, and count for nothing.

# %%
from typing import Any

import numpy as np
from flax import nnx
from jax.sharding import Mesh
from tunix.rl import function_registry

# %% tags=["modules-only"]
from submission.bench.policy.cluster import REFERENCES
from submission.bench.run.helpers import load_helper, require_helper
from submission.bench.run.stages import REQUIREMENTS
from submission.bench.settings.config import Run


# %%
@function_registry.register_advantage_estimator("none")
def no_advantages(rewards: np.ndarray, num_generations: int) -> np.ndarray:
    """Nothing is better than its group."""
    return np.zeros(len(rewards), np.float32)


def teacher(policy: nnx.Module, tokenizer: Any, run: Run, mesh: Mesh) -> nnx.Module:
    """The reference of GRPO."""
    return load_helper(run, mesh)


REFERENCES["helper"], REQUIREMENTS["helper"] = teacher, require_helper

# %% [markdown]
# ### A judge
#
# A second model reads the question, what the policy wrote, and a rubric, and is asked whether all
# of it holds, yes or no. Nothing is generated and nothing parsed: one pass over the text gives the
# odds of *yes* against *no* as the next token, and their probability is the reward. Rubrics are by
# domain; each line has a weight, and lines are asked one by one.

# %%
import functools
import random
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

# %% tags=["modules-only"]
from submission.bench.answers.prompts import Completion, Example, render_prompt
from submission.bench.answers.scoring import EXTRA_PARTS, EXTRA_SETUPS, Context
from submission.bench.policy.losses import final_logits, states_of_tokens
from submission.bench.run.helpers import load_helper, require_helper
from submission.bench.run.samples import in_passes
from submission.bench.run.stages import REQUIREMENTS
from submission.bench.settings.config import Run
from submission.bench.settings.stages import Rubrics

# %%
YES, NO = "yes", "no"


def judge_prompt(completion: Completion, example: Example, line: str) -> str:
    """What the judge is asked of a completion, for a line of the rubric."""
    said = f"{completion.reasoning.strip()}\n{completion.answer.strip()}"
    return render_prompt(f"{example.question}\n{said}\n{line} {YES} or {NO}?")


@functools.partial(jax.jit, static_argnames=("pad_id", "yes", "no"))
def odds_of_yes(
    graph: nnx.GraphDef, state: nnx.State, tokens_BT: jax.Array, pad_id: int, yes: int, no: int
) -> jax.Array:
    """The log-odds_B of one token against another after prompts_BT, padded on the left."""
    model = nnx.merge(graph, state)
    last_BD = states_of_tokens(model, tokens_BT, pad_id)[:, -1]
    logits_BV = final_logits(model, model.embedder.decode(last_BD), temperature=1.0)
    return logits_BV[:, yes] - logits_BV[:, no]


class Judge:
    """A model on the policy's chips, asked in turn with it."""

    def __init__(
        self, model: nnx.Module, tokenizer: Any, mesh: Any, rubrics: Rubrics, length: int
    ) -> None:
        """A judge whose prompts have so many tokens at most."""
        self.graph, self.state = nnx.split(model)
        self.tokenizer, self.mesh, self.rubrics, self.length = tokenizer, mesh, rubrics, length
        self.yes, self.no = (tokenizer.encode(word)[0] for word in (YES, NO))

    def scores(self, prompts: Sequence[str], rows: int) -> np.ndarray:
        """The probability of *yes* for each prompt, so many at a time.

        Raises:
          ValueError: a prompt is too long to be read whole.
        """
        ids = [[self.tokenizer.bos_id(), *self.tokenizer.encode(prompt)] for prompt in prompts]
        if (longest := max(map(len, ids))) > self.length:
            raise ValueError(f"A judge's prompt has {longest} tokens, over {self.length}.")
        pad_id, ends = self.tokenizer.pad_id(), {"yes": self.yes, "no": self.no}
        ask = functools.partial(odds_of_yes, self.graph, self.state, pad_id=pad_id, **ends)
        odds_N = in_passes(ask, ids, rows=rows, length=self.length, pad_id=pad_id, mesh=self.mesh)
        return np.asarray(jax.nn.sigmoid(odds_N))

    def __call__(
        self,
        completions: Sequence[Completion],
        examples: Sequence[Example],
        parts: Mapping[str, Sequence[float]],
        context: Context,
    ) -> list[float]:
        """The weighted share of the rubric that holds, 0 to 1; 0 out of format."""
        asked = [
            (i, weight, judge_prompt(completions[i], examples[i], line))
            for i in range(len(completions))
            if completions[i].in_format
            and not (self.rubrics.only_open and examples[i].checker != "open")
            for line, weight in self.rubrics.of(examples[i].domain)
        ]
        sums, weights = np.zeros(len(completions)), np.zeros(len(completions))
        if asked:
            found = self.scores([prompt for *_, prompt in asked], self.rubrics.rows)
            for (i, weight, _), score in zip(asked, found, strict=True):
                sums[i] += weight * score
                weights[i] += weight
        return (sums / np.maximum(weights, 1e-9)).tolist()


# %%
def no_judge(*_: Any) -> list[float]:
    """Before GRPO begins.

    Raises:
      ValueError: always.
    """
    raise ValueError("There is no judge yet: GRPO seats it.")


def toss_coins(
    completions: Sequence[Completion],
    examples: Sequence[Example],
    parts: Mapping[str, Sequence[float]],
    context: Context,
) -> list[float]:
    """The control: a judge that knows nothing, and says the same of the same text."""
    return [random.Random(c.text).random() * c.in_format for c in completions]


def seat_judge(context: Context, cluster: Any, tokenizer: Any, run: Run) -> None:
    """Loads the judge onto the policy's chips."""
    mesh = next(iter(cluster.cluster_config.role_to_mesh.values()))
    rubrics = run.profile.helper.rubrics
    length = run.cache_length + rubrics.line_tokens
    EXTRA_PARTS["judge"] = Judge(load_helper(run, mesh), tokenizer, mesh, rubrics, length)


def require_judge(run: Run, tokenizer: Any) -> None:
    """Is there a judge, who reads as the policy writes and has something to ask?

    Raises:
      ValueError: there is not.
    """
    require_helper(run, tokenizer)
    if run.profile.helper.rubrics is None:
        raise ValueError(f"Recipe {run.recipe!r} has a judge without `rubrics`: give it some.")


EXTRA_PARTS.update(judge=no_judge, coin=toss_coins)
EXTRA_SETUPS["judge"], REQUIREMENTS["judge"] = seat_judge, require_judge

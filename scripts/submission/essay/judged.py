# %% [markdown]
# ### A judge
#
# A second model reads the question, what the policy wrote, and a rubric, and is asked whether all
# of it holds, yes or no. Nothing is generated and nothing parsed: one pass over the text gives the
# odds of *yes* against *no* as the next token, and their probability is the reward. Rubrics are by
# domain; each line has a weight, and lines are asked one by one.
#
# On the policy's own chips the two take turns. A judge with chips of its own is asked of each
# completion as soon as it has ended, while the others are still written; what the reward then
# waits for is only what is not answered yet.

# %%
import concurrent.futures
import functools
import random
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

# %% tags=["modules-only"]
from submission.bench.answers.prompts import Completion, Example, parse, render_prompt
from submission.bench.answers.scoring import EXTRA_PARTS, EXTRA_SETUPS, Context
from submission.bench.policy.losses import final_logits, states_of_tokens
from submission.bench.policy.model import mesh_of
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
    """A model that says of completions how far they hold."""

    def __init__(
        self, model: nnx.Module, tokenizer: Any, mesh: Any, rubrics: Rubrics, length: int
    ) -> None:
        """A judge whose prompts have so many tokens at most."""
        self.graph, self.state = nnx.split(model)
        self.tokenizer, self.mesh, self.rubrics, self.length = tokenizer, mesh, rubrics, length
        self.yes, self.no = (tokenizer.encode(word)[0] for word in (YES, NO))
        self.rows: dict[str, Example] = {}  # by the policy's prompt, to be asked of them early
        # What it has begun with: where the answers will be, and at which place among them.
        self.asked: dict[tuple[str, str], tuple[concurrent.futures.Future, int]] = {}
        self.thread = concurrent.futures.ThreadPoolExecutor(1)  # one after the other

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

    def listen(self, prompts: Sequence[str], texts: Sequence[str]) -> None:
        """Begins with completions that have just ended; those of other rows it leaves."""
        new = {}
        for key in zip(prompts, texts, strict=True):
            if key[0] in self.rows and key not in self.asked:
                new[key] = parse(key[1]), self.rows[key[0]]
        if new:
            found = self.thread.submit(self.judged, *zip(*new.values(), strict=True))
            self.asked |= {key: (found, place) for place, key in enumerate(new)}

    def __call__(
        self,
        completions: Sequence[Completion],
        examples: Sequence[Example],
        parts: Mapping[str, Sequence[float]],
        context: Context,
    ) -> list[float]:
        """What it says of each, 0 to 1; of what it has not been asked yet, now."""
        keys = [
            (render_prompt(e.question), c.text) for c, e in zip(completions, examples, strict=True)
        ]
        begun, self.asked = self.asked, {}
        values = {key: begun[key][0].result()[begun[key][1]] for key in keys if key in begun}
        left = [i for i, key in enumerate(keys) if key not in values]
        found = self.judged([completions[i] for i in left], [examples[i] for i in left])
        values |= {keys[i]: value for i, value in zip(left, found, strict=True)}
        return [values[key] for key in keys]

    def judged(self, completions: Sequence[Completion], examples: Sequence[Example]) -> list[float]:
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
    """Loads the judge onto its chips; if they are its own, it listens to the rollout."""
    mesh = next(iter(cluster.cluster_config.role_to_mesh.values()))
    helper = run.profile.helper
    length = run.cache_length + helper.rubrics.line_tokens
    model = load_helper(run, mesh)
    judge = Judge(model, tokenizer, mesh_of(model), helper.rubrics, length)
    EXTRA_PARTS["judge"] = judge
    if helper.chips:
        judge.rows = {render_prompt(example.question): example for example in context.examples}
        cluster.rollout.listener = judge.listen


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

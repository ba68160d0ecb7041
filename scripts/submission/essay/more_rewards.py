# %% [markdown]
# ### Further parts of the reward
#
# Four parts that a recipe can switch on, each with a small weight in `Rewards.extras`. (Weights
# that change over the run need nothing more: `late` in the configuration names them.)
#
# | part | range | pays for |
# |---|---|---|
# | `structure` | 0 to 1 | as many different steps as the row's difficulty asks for |
# | `teacher` | 0 to 1 | speaks of what the reference trace speaks of, beyond the question |
# | `gold` | 0 to 1 | the trace makes the gold answer likelier, by the policy's own probabilities |
# | `confidence` | 0 to 1 | right and sure, best; wrong and sure, worst |
#
# The first three are style, and style pays no more than its answer is worth: they are multiplied
# by `right`, or on open rows by `open`. So they never lift a wrong answer. `confidence` has to pay
# wrong answers a little, up to a half, or else there would be no reason to admit a doubt. It never
# pays a wrong answer more than a right one. All parts are 0 out of format.

# %%
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

# %% tags=["modules-only"]
from submission.bench.settings.config import Rewards, Run
from submission.bench.answers.open_answers import clamp, ramp
from submission.bench.answers.prompts import (
    REASONING_END,
    REASONING_START,
    SOLUTION_START,
    Completion,
    Example,
    render_prompt,
)
from submission.bench.answers.scoring import EXTRA_PARTS, EXTRA_SETUPS, Context
from submission.bench.policy.rollout import left_padded
from submission.essay.rewards import components
from submission.bench.answers.texts import (
    LONGEST_TEXT,
    PLAIN,
    SMALL_WORDS,
    WORD,
    Text,
    Vocabulary,
    cosine,
    read_source_text,
    read_text,
    stem,
)

# %% [markdown]
# **Calibrated confidence.** The last line of the trace may say how sure the model is, as in
# `Confidence: 80%`. It is scored as in Damani et al. 2025, "Beyond Binary Rewards"
# (arXiv 2507.16806): r − (c − r)², where r is 1 or 0 and c is the confidence. The square is
# Brier's score, a proper one: if the model is right with probability p, saying p pays best. The
# r in front keeps right above wrong, whatever was said. We move the result from −1…1 to 0…1.
#
# A trace that says nothing is read as 50 %, the least informative value. An honest statement
# earns p(1−p)/2 less than everything there is, and p(1−p) is largest at one half, so silence is
# never better than honesty. A second statement, or one that cannot be read, costs what the worst
# possible one would have cost.

# %%
STATEMENT = re.compile(r"confidence\W{0,9}\d", re.IGNORECASE)
STATEMENT_TO_END = re.compile(r"confidence\W{0,9}\d[^\n]*", re.IGNORECASE)
LAST_LINE = re.compile(r"confidence: ?([0-9]{1,3}(?:\.[0-9]{1,3})?) ?%\.?", re.IGNORECASE)
UNSAID = 0.5


def stated_confidence(trace: str) -> float | None:
    """What the last line of a trace says, 0 to 1; 0.5 if there is no statement at all.

    None: there is a statement, but it is not the last line, not alone, not a percentage.

    >>> stated_confidence("6*7=42.\\nConfidence: 80%"), stated_confidence("6*7=42.")
    (0.8, 0.5)
    >>> stated_confidence("Confidence: 10%\\nConfidence: 90%") is None
    True
    >>> stated_confidence("Confidence: 120%") is None
    True
    """
    count = len(STATEMENT.findall(trace))
    if not count:
        return UNSAID
    match = LAST_LINE.fullmatch(trace.rstrip().rpartition("\n")[2].strip())
    if count > 1 or match is None or float(match[1]) > 100:
        return None
    return float(match[1]) / 100


def reward_confidence(completion: Completion, right: float) -> float:
    """0 to 1: (1 + r − (c − r)²) / 2, from 0.5 to 1 for right answers, from 0 to 0.5 for wrong.

    Args:
      completion: the confidence c is read from its trace.
      right: r, 1 or 0.

    >>> sure = Completion("", True, "6*7=42.\\nConfidence: 100%", "42")
    >>> unsure = Completion("", True, "6*7=42.\\nConfidence: 50%", "42")
    >>> [reward_confidence(c, r) for r in (1, 0) for c in (sure, unsure)]
    [1.0, 0.875, 0.0, 0.375]
    """
    if not completion.in_format:
        return 0.0
    confidence = stated_confidence(completion.reasoning)
    loss = 1.0 if confidence is None else (confidence - right) ** 2
    return (1 + right - loss) / 2


# %% [markdown]
# **Structure by difficulty.** A hard row needs more steps than an easy one. The idea is that of
# curricula by depth of thought (Jung and Jung 2025, arXiv 2508.18279), which count the steps of a
# teacher's trace; we turn it round and ask a trace for the steps that its row needs.
#
# A step is a sentence, or an equation in one, that says something: at least two numbers or
# words with a meaning, and at least a third of them new. A line break alone makes no step, so
# breaking a sentence into lines gains nothing; neither does saying it again, nor a number in
# front of it.

# %%
BULLET = re.compile(
    r"^[ \t*#_]*(?:[-•>]\s|(?:step[ \t]*)?\(?\d{1,3}[.):]+(?=\s|[*_]|$))[*_]*", re.I | re.MULTILINE
)
STEP_WORD = re.compile(WORD)
STEP_END = re.compile(r"(?<![.!?…;])[.!?…;]++[\"'”’)\]]*+(?:\s+|$)")
EQUATION_BORDER = re.compile(r",\s|\n")


def without_statement(trace: str) -> str:
    """The trace without its line of confidence: neither a step nor a word of the argument."""
    return STATEMENT_TO_END.sub("", trace[:LONGEST_TEXT])


def split_steps(trace: str) -> list[str]:
    """The sentences and list items of a trace; with several equations, one for each.

    >>> split_steps("17+25: 7+5=12, 1+2+1=4, so 42.\\n- 42 is\\nmore")
    ['17+25: 7+5=12', '1+2+1=4 so 42', '42 is more']
    """
    lines = "\n".join(without_statement(trace).splitlines())
    steps = []
    for sentence in STEP_END.split(BULLET.sub(". ", lines)):
        step = ""
        for clause in EQUATION_BORDER.split(sentence):
            if "=" in step and "=" in clause:
                steps.append(step)
                step = clause
            else:
                step = f"{step} {clause}" if step else clause
        steps.append(step)
    return [step.strip() for step in steps if step.strip(" .")]


def count_steps(trace: str) -> int:
    """How many different steps a trace has.

    >>> count_steps("17+25: 7+5=12, 1+2+1=4, so 42. 42 is more than 40.")
    3
    >>> count_steps("17 and 25 make 42. 17 and 25 make 42.\\n1. 25 and 17\\nmake\\n42.\\n2.\\n3.")
    1
    """
    steps, said = 0, set()
    for step in split_steps(trace.lower().replace("’", "'")):
        words = [word for word in STEP_WORD.findall(step) if word not in SMALL_WORDS]
        content = {word if word[0].isdigit() else stem(word) for word in words}
        new = content - said
        if len(content) > 1 and 3 * len(new) >= len(content):
            steps += 1
            said |= content
    return steps


def reward_structure(completion: Completion, example: Example) -> float:
    """0 to 1: rises up to the steps that the row needs, 1 + 4 × difficulty; then flat.

    Past four times as many it falls, and at eight times it is 0.

    >>> trace = Completion("", True, "6*7=42. 42 is less than 50.", "yes")
    >>> easy, hard = (Example("", "yes", "boolean", difficulty=d) for d in (0.0, 0.75))
    >>> reward_structure(trace, easy), reward_structure(trace, hard)
    (1.0, 0.5)
    """
    if not completion.in_format:
        return 0.0
    needed = 1 + 4 * clamp(example.difficulty)
    steps = count_steps(completion.reasoning)
    return min(ramp(steps, 0, needed), ramp(steps, 8 * needed, 4 * needed))


# %% [markdown]
# **The teacher's words.** Where a row has a reference trace, a trace is like it if it speaks of
# the same things: the cosine of TF-IDF vectors, with the vocabulary of the run, fitted once. (The
# entry that came third in this competition had such a part.) Three changes. The question's own
# similarity is the zero: a copy of the question earns nothing. From 0.6 on (or from halfway
# between question and reference, if that is more) everything is paid: nobody is to learn the
# reference by heart. And if the teacher writes in sentences, so must the
# trace: a list of the right words is like the reference in a bag of words, and nowhere else.

# %%
ALIKE = 0.6  # cosine from which the part pays in full


def sentence_share(text: Text) -> float:
    """The share of words that stand in sentences built like sentences, or in equations; 0 to 1.

    >>> [sentence_share(read_text(t)) for t in ("It has yeast.", "yeast gas dough", "6*7=42.")]
    [1.0, 0.0, 1.0]
    """
    sound = 0
    for sentence in text.sentences:
        numbers = sum(word[0].isdigit() for word in sentence.words)
        if sentence.sound or 2 * numbers >= len(sentence.words):
            sound += len(sentence.words)
    return sound / max(1, len(text.words))


def reward_teacher(
    completion: Completion, example: Example, vocabulary: Vocabulary = PLAIN
) -> float:
    """0 to 1: like the row's reference trace, beyond what the question says; 0 without one.

    >>> row = Example(
    ...     "Why does bread rise?", "gas", "text", trace="Yeast eats sugar, and it gives off gas."
    ... )
    >>> def score(trace):
    ...     return reward_teacher(Completion("", True, trace, "gas"), row)
    >>> score("The yeast in it feeds on sugar and makes a gas.")
    1.0
    >>> score("Why does bread rise?"), score("yeast sugar gas eats gives")
    (0.0, 0.0)
    """
    if not completion.in_format or not example.trace:
        return 0.0
    reference = vocabulary.weights(example.trace)
    trace = without_statement(completion.reasoning)
    zero = cosine(vocabulary.weights(example.question), reference)
    if zero > 0.999:  # the question says it all
        return 0.0
    everything = max(ALIKE, (1 + zero) / 2)
    alike = ramp(cosine(vocabulary.weights(trace), reference), zero, everything)
    teacher = sentence_share(read_source_text(example.trace))
    return alike * (ramp(sentence_share(read_text(trace)), 0.0, teacher) if teacher else 1.0)


# %% [markdown]
# **The gold answer's probability.** In RLPR (Yu et al. 2025, arXiv 2506.18254) a trace is good if
# the policy, having written it, finds the gold answer likely: the mean probability of its tokens
# after the trace, less the same without a trace, clipped to 0…1. A mean, not a product, so that
# one rare token does not decide. No checker is needed, so it works for any row with a gold answer.
#
# Where we depart from the paper:
#
# - It is a part beside the checker, not in its place, and pays only as far as the answer that was
#   really given is worth something.
# - "Without a trace" is an empty one between the same tags, so that both are read in the place
#   where our policy expects an answer.
# - Probabilities are those at the sampling temperature, like all others in this run.
# - Of a long gold answer the first 32 tokens count. There is no filter of flat groups: a flat
#   group has no advantage anyway.
#
# The policy is asked through the cluster's `get_old_per_token_logps`, which reads the weights as
# they are now. (`get_actor_per_token_logps` sounds right, but with one mesh for all roles it reads
# a copy from the start of the run, for ever.) Everything has a fixed shape, so that one program is
# compiled for the whole run: contexts are padded on the left, gold answers on the right, and a
# batch that is not full repeats its first row.

# %%
GOLD_TOKENS = 32
GOLD_ROWS = 32  # in a forward pass; small, since a pass that is not full costs as much


class GoldProbability:
    """The policy's mean probability of gold answers, given traces."""

    def __init__(
        self, cluster: Any, tokenizer: Any, context: int, batch: int, answer: int = GOLD_TOKENS
    ) -> None:
        """Asks nothing yet.

        Args:
          cluster: Tunix's `RLCluster`.
          tokenizer: with `encode` and `bos_id`, adding no BOS itself.
          context: tokens of prompt and trace, at most; of a longer one the last count.
          batch: rows in one forward pass; on several devices, a multiple of their number.
          answer: tokens of the gold answer, at most; of a longer one the first count.
        """
        self.cluster, self.tokenizer = cluster, tokenizer
        self.context, self.batch, self.answer = context, batch, answer

    @classmethod
    def of_run(cls, cluster: Any, tokenizer: Any, run: Run) -> "GoldProbability":
        """With the lengths of a run, and no more rows at once than it trains on at once."""
        groups = cluster.cluster_config.training_config.compute_logps_micro_batch_size
        trained = groups * run.profile.grpo.generations
        return cls(cluster, tokenizer, run.cache_length, min(GOLD_ROWS, trained))

    def tokens(self, question: str, trace: str, gold: str) -> tuple[list[int], list[int]]:
        """The context, up to and with the opening tag of the answer, and the gold answer.

        Both are encoded as one text, as SFT has them: a tokenizer may join what meets at the
        border, and then the joined token belongs to the answer.
        """
        prompt = [self.tokenizer.bos_id(), *self.tokenizer.encode(render_prompt(question))]
        opening = f"{REASONING_START}{trace}{REASONING_END}{SOLUTION_START}"
        before, whole = (self.tokenizer.encode(text) for text in (opening, opening + gold))
        shared = 0
        while shared < min(len(before), len(whole)) and before[shared] == whole[shared]:
            shared += 1
        return prompt + list(whole[:shared]), list(whole[shared:])

    def __call__(
        self, questions: Sequence[str], traces: Sequence[str], answers: Sequence[str]
    ) -> list[float]:
        """A probability for each triple, 0 to 1; 0 for an empty answer."""
        pad = self.cluster.rollout.pad_id()
        rows = [self.tokens(*row) for row in zip(questions, traces, answers, strict=True)]
        values = []
        for start in range(0, len(rows), self.batch):
            part = rows[start : start + self.batch]
            filled = part + part[:1] * (self.batch - len(part))
            contexts_BT = left_padded([context for context, _ in filled], self.context, pad)
            golds_BT = np.full((self.batch, self.answer), pad, np.int32)
            for i, (_, gold) in enumerate(filled):
                golds_BT[i, : len(gold)] = gold[: self.answer]
            logps_BT = np.asarray(self.cluster.get_old_per_token_logps(contexts_BT, golds_BT))
            counts = [min(len(gold), self.answer) for _, gold in part]
            values += [
                float(np.exp(row[:count]).mean()) if count else 0.0
                for row, count in zip(logps_BT, counts, strict=False)
            ]
        return values


# %% [markdown]
# **As parts of a batch.** What an answer is worth is `right` or, on an open row, `open`; the other
# of the two is 0.


# %%
def worth(parts: Mapping[str, Sequence[float]]) -> list[float]:
    """What each answer is worth, 0 to 1.

    >>> worth({"right": [1.0, 0.0], "open": [0.0, 0.4]})
    [1.0, 0.4]
    """
    return [right + open_ for right, open_ in zip(parts["right"], parts["open"], strict=True)]


def times_worth(
    score: Callable[[Completion, Example], float],
    completions: Sequence[Completion],
    examples: Sequence[Example],
    parts: Mapping[str, Sequence[float]],
) -> list[float]:
    """Each score times what its answer is worth; where that is nothing, it is not worked out."""
    rows = zip(worth(parts), completions, examples, strict=True)
    return [w and w * score(completion, example) for w, completion, example in rows]


def part_structure(
    completions: Sequence[Completion],
    examples: Sequence[Example],
    parts: Mapping[str, Sequence[float]],
    context: Context,
) -> list[float]:
    """`reward_structure`, as far as the answer is worth something."""
    return times_worth(reward_structure, completions, examples, parts)


def part_teacher(
    completions: Sequence[Completion],
    examples: Sequence[Example],
    parts: Mapping[str, Sequence[float]],
    context: Context,
) -> list[float]:
    """`reward_teacher`, as far as the answer is worth something."""
    score = functools.partial(reward_teacher, vocabulary=context.vocabulary)
    return times_worth(score, completions, examples, parts)


def part_gold(
    completions: Sequence[Completion],
    examples: Sequence[Example],
    parts: Mapping[str, Sequence[float]],
    context: Context,
) -> list[float]:
    """What the trace adds to the gold answer's probability, as far as the answer is worth it.

    Raises:
      ValueError: the stage that trains has not filled in `gold_probability`, or it gives no
        numbers.
    """
    if context.gold_probability is None:
        raise ValueError(
            "The part 'gold' asks the policy, and there is none: set `gold_probability` of the "
            "context to a GoldProbability once the cluster is built."
        )
    earned = worth(parts)
    values = [0.0] * len(completions)
    asked = [i for i, example in enumerate(examples) if earned[i] and example.answer]
    if not asked:
        return values
    # The rows of a group share their question, and so their probability without a trace.
    without = list(dict.fromkeys((examples[i].question, "", examples[i].answer) for i in asked))
    triples = without + [
        (examples[i].question, completions[i].reasoning, examples[i].answer) for i in asked
    ]
    found = context.gold_probability(*zip(*triples, strict=True))
    if not np.all(np.isfinite(found)):
        raise ValueError(
            "The policy's probabilities are not finite: its weights may not be either."
        )
    bare = dict(zip(without, found, strict=False))
    for i, probability in zip(asked, found[len(without) :], strict=True):
        gain = probability - bare[examples[i].question, "", examples[i].answer]
        values[i] = earned[i] * clamp(gain)
    return values


def part_confidence(
    completions: Sequence[Completion],
    examples: Sequence[Example],
    parts: Mapping[str, Sequence[float]],
    context: Context,
) -> list[float]:
    """`reward_confidence`; 0 on open rows, where nobody can say what is right."""
    rows = zip(completions, examples, parts["right"], strict=True)
    return [
        0.0 if example.checker == "open" else reward_confidence(completion, right)
        for completion, example, right in rows
    ]


EXTRA_PARTS.update(
    structure=part_structure,
    teacher=part_teacher,
    gold=part_gold,
    confidence=part_confidence,
)


def ask_policy(context: Context, cluster: Any, tokenizer: Any, run: Run) -> None:
    """Lets the part `gold` ask the policy of a run."""
    context.gold_probability = GoldProbability.of_run(cluster, tokenizer, run)


EXTRA_SETUPS["gold"] = ask_policy

# %% [markdown]
# One row, three completions: right and sure, right with a doubt and in one step, wrong and sure.

# %%
three_pears = components(
    prompts=[""] * 3,
    completions=[
        "<reasoning>6*7=42. 42-2=40.\nConfidence: 90%</reasoning><answer>40</answer>",
        "<reasoning>It should be 40 pears.\nConfidence: 60%</reasoning><answer>40</answer>",
        "<reasoning>6*7=48. 48-2=46.\nConfidence: 90%</reasoning><answer>46</answer>",
    ],
    weights=Rewards(extras={"structure": 0.05, "confidence": 0.05}),
    answer=["40"] * 3,
    checker=["number"] * 3,
    difficulty=[0.25] * 3,
)
{
    name: [round(value, 3) for value in three_pears[name]]
    for name in ("right", "structure", "confidence")
}

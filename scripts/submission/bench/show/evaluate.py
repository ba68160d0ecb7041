"""Evaluation, as the judges do it.

Held-out rows, greedy decoding, Tunix's stock sampler, no `eos_tokens`. Three numbers over the
rows that can be checked, the accuracy with its 95 % interval (Wilson), and one over the others:

- **format**: strictly in format, and ended by the tokenizer's eos;
- **accuracy**: in format, and right;
- **lenient accuracy**: right, with the format forgiven. Stock Gemma knows nothing of our
  tags, so this is the number that a gain has to be measured against;
- **open score**: the mean score of the answers that have no gold one to match, by the reward's
  own measure; leniently, of all that was said, in the format or not.
"""

import collections
import concurrent.futures
import dataclasses
import itertools
import math
import os
import pathlib
import re
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from submission.bench.answers.checkers import LONGEST_ANSWER, check
from submission.bench.answers.meaning import load_encoder
from submission.bench.answers.open_answers import UNSEEN, Alike, Reader, open_score, see_batch
from submission.bench.answers.prompts import (
    CUT_MARK,
    TAGS,
    TURN_END,
    Completion,
    Example,
    parse,
    render_prompt,
)
from submission.bench.policy.hosts import gather, host_count, host_patience, this_host
from submission.bench.policy.model import make_sampler
from submission.bench.policy.rollout import ended, mark_cut
from submission.bench.run.budget import Deadline, until
from submission.bench.run.run_folder import read_json, write_json
from submission.bench.run.stages import Session
from submission.bench.settings.config import CHECK_SECONDS, Run
from submission.bench.settings.limits import within

LAST_NUMBER = re.compile(r"[-−]?\d(?:[\d,]*\d)?(?:\.\d+)?(?!.*\d)", re.DOTALL)


def without_tags(text: str) -> str:
    """What was said in the first turn, whatever its format."""
    text = text.split(TURN_END)[0]
    for mark in (*TAGS, CUT_MARK):
        text = text.replace(mark, "\n")
    return text


def is_right_leniently(completion: Completion, example: Example) -> bool:
    """Right with the format forgiven, by one rule for all three evaluations.

    Stock Gemma ends in sentences ("Altogether she sold 48 + 24 = 72 clips."), so for a number
    the last one in its last line counts too.
    """
    answer = completion.lenient_answer
    if example.checker == "code" and not completion.in_format:
        answer = without_tags(completion.text)  # a program has many lines
    if check(example, answer) is True:
        return True
    last = LAST_NUMBER.search(answer[-LONGEST_ANSWER:])
    return example.checker == "number" and last is not None and check(example, last[0]) is True


@dataclasses.dataclass(frozen=True)
class Answered:
    """One held-out row with what the model made of it."""

    example: Example
    completion: Completion
    tokens: int  # without the EOS
    stopped: bool
    right: bool
    right_leniently: bool
    open_score: float = 0.0
    open_score_lenient: float = 0.0
    failed: bool = False  # could not be scored, tried twice


def said_openly(completion: Completion) -> Completion:
    """What was said, as if it had been in the format."""
    said = completion.answer if completion.in_format else without_tags(completion.text)
    return Completion(completion.text, True, completion.reasoning or "-", said)


def judge_open(
    example: Example, completion: Completion, tokens: int, stopped: bool, seen: Alike
) -> Answered:
    """Scores an answer without a gold one; leniently, its text alone, in the format or not."""
    text = said_openly(completion)
    leniently = open_score(text, example, alike=seen, with_trace=False)
    score = open_score(completion, example, alike=seen)
    return Answered(example, completion, tokens, stopped, False, False, score, leniently)


def judge_exactly(
    example: Example, completion: Completion, tokens: int, stopped: bool, seen: Alike
) -> Answered:
    """Scores an answer that has a gold one; leniently, whatever its format."""
    right = completion.in_format and check(example, completion.answer) is True
    leniently = right or is_right_leniently(completion, example)
    return Answered(example, completion, tokens, stopped, right, leniently)


def judge(
    example: Example, completion: Completion, tokens: int, stopped: bool, seen: Alike = UNSEEN
) -> Answered:
    """Scores one completion. A checker that fails, not the answer, is tried twice and counted."""
    score = judge_open if example.checker == "open" else judge_exactly
    for _ in range(2):
        try:
            return within(CHECK_SECONDS, lambda: score(example, completion, tokens, stopped, seen))
        except (RuntimeError, TimeoutError) as error:
            warnings.warn(f"An answer could not be checked: {error}", stacklevel=2)
    return Answered(example, completion, tokens, stopped, False, False, failed=True)


def judge_all(
    examples: Sequence[Example],
    completions: Sequence[Completion],
    tokens: Sequence[int],
    stopped: Sequence[bool],
    encoder: Reader | None = None,
) -> list[Answered]:
    """Scores completions, several at a time: those with code wait for child processes.

    Open answers are scored each by itself, so that a score does not depend on its batch.
    """
    said = [said_openly(completion) for completion in completions]
    seen = [UNSEEN] * len(said)
    if encoder is not None:
        seen = [found._replace(elsewhere=0.0) for found in see_batch(said, examples, encoder)]
    with concurrent.futures.ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        return list(pool.map(judge, examples, completions, tokens, stopped, seen))


QUIET_SECONDS = 30.0  # an evaluation says how far it is about as often


def answer_greedily(
    sampler: Any,
    examples: Sequence[Example],
    batch_size: int,
    max_prompt_length: int,
    max_generation_steps: int,
    deadline: Deadline | None = None,
    encoder: Reader | None = None,
    before_batch: Callable[[], None] = lambda: None,
) -> list[Answered]:
    """Completions of all examples, by greedy decoding without `eos_tokens`.

    With a deadline, of as many of the first ones as its time allows, a batch at least. What
    `before_batch` raises ends it.
    """
    answered: list[Answered] = []
    said = time.monotonic()
    # The last batch is filled up: another size would be compiled anew. All sizes are multiples
    # of the number of devices, which share the batch.
    chips = jax.local_device_count()
    size = -(-min(batch_size, len(examples)) // chips) * chips
    starts = range(0, len(examples), batch_size)
    for start in starts if deadline is None else until(deadline, starts):
        before_batch()
        batch = list(examples[start : start + batch_size])
        prompts = [render_prompt(e.question) for e in batch]
        prompts += [prompts[-1]] * (size - len(batch))
        output = sampler(
            prompts,
            max_generation_steps=max_generation_steps,
            max_prompt_length=max_prompt_length,
            temperature=0,
            top_k=1,
            top_p=None,
            echo=False,
        )
        completions = [
            parse(mark_cut(text, ended(tokens, max_generation_steps)))
            for text, tokens in zip(output.text, output.tokens, strict=True)
        ]
        sizes = [len(tokens) for tokens in output.tokens]
        stopped = [ended(tokens, max_generation_steps) for tokens in output.tokens]
        answered += judge_all(batch, completions[: len(batch)], sizes, stopped, encoder)
        if len(answered) < len(examples) and time.monotonic() - said > QUIET_SECONDS:
            print(f"  {len(answered)} of {len(examples)} held-out rows are answered", flush=True)
            said = time.monotonic()
    if len(answered) < len(examples):
        print(f"Time for {len(answered)} of {len(examples)} held-out rows only.")
    return answered


def write_answers(path: pathlib.Path, answered: Sequence[Answered], seconds: float) -> None:
    """Keeps what the model said, for a run that goes on, and for whoever wants to read it."""
    kept = [
        {
            "question": a.example.question,
            "completion": a.completion.text,
            "tokens": a.tokens,
            "stopped": a.stopped,
        }
        for a in answered
    ]
    write_json(path, {"seconds": seconds, "answers": kept})


def read_answers(
    path: pathlib.Path, examples: Sequence[Example], encoder: Reader | None = None
) -> tuple[list[Answered], float] | None:
    """What was kept, judged anew, and the seconds it took; None if there is nothing that fits."""
    found = read_json(path, {"answers": []})
    kept = found["answers"]
    examples = examples[: len(kept)]
    if not kept or [row["question"] for row in kept] != [e.question for e in examples]:
        return None
    answered = judge_all(
        examples,
        [parse(row["completion"]) for row in kept],
        [row["tokens"] for row in kept],
        [row["stopped"] for row in kept],
        encoder,
    )
    return answered, found["seconds"]


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share.

    >>> [round(x, 3) for x in wilson(50, 100)]
    [0.404, 0.596]
    """
    if n == 0:
        return 0.0, 1.0
    z, p = 1.959964, successes / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)
    return max(0.0, low), min(1.0, high)


def worse_beyond_noise(before: Sequence[Answered], after: Sequence[Answered]) -> bool:
    """Has the accuracy on the same rows fallen by more than chance makes likely?

    McNemar's test: of the rows that only one of the two has right, how many are the first one's?
    Beyond 1.96 standard deviations of a fair coin, which chance gives once in forty times.
    """
    pairs = list(zip(before, after, strict=False))  # where time was short, of the rows of both
    lost = sum(a.right and not b.right for a, b in pairs)
    won = sum(b.right and not a.right for a, b in pairs)
    return lost - won > 1.96 * math.sqrt(lost + won)


def better_one(earlier: Mapping[str, Sequence[Answered]], last: Sequence[Answered]) -> str | None:
    """The evaluation that was better than the last by more than chance, the best of several."""
    better = {
        name: sum(row.right for row in rows)
        for name, rows in earlier.items()
        if worse_beyond_noise(rows, last)
    }
    return max(better, key=better.get, default=None)


def share(flags: Sequence[bool]) -> float:
    """The share of those that are true; 0 of none."""
    return round(sum(flags) / len(flags), 4) if flags else 0.0


def grouped_by(field: str, rows: Sequence[Answered]) -> list[tuple[str, list[Answered]]]:
    """The rows of each domain, or of whatever their examples have in the field, by its name."""
    found = collections.defaultdict(list)
    for row in rows:
        found[getattr(row.example, field)].append(row)
    return sorted(found.items())


def rates(rows: Sequence[Answered]) -> dict[str, Any]:
    """The shares of rows that can be checked."""
    right = [a.right for a in rows]
    return {
        "n": len(rows),
        "format": share([a.completion.in_format for a in rows]),
        "accuracy": share(right),
        "accuracy_ci95": [round(x, 4) for x in wilson(sum(right), len(rows))],
        "accuracy_lenient": share([a.right_leniently for a in rows]),
    }


def open_scores(rows: Sequence[Answered]) -> dict[str, float | None]:
    """The mean scores of rows that cannot be checked; None of none."""
    return {
        name: round(float(np.mean([getattr(a, name) for a in rows])), 4) if rows else None
        for name in ("open_score", "open_score_lenient")
    }


def summarise(answered: Sequence[Answered]) -> dict[str, Any]:
    """The numbers of one evaluation, as they stand in `results.json`."""
    checkable = [a for a in answered if a.example.checker != "open"]
    unchecked = [a for a in answered if a.example.checker == "open"]
    return {
        **rates(checkable),
        **open_scores(unchecked),
        "failed": sum(a.failed for a in answered),
        "stopped": share([a.stopped for a in answered]),
        "mean_tokens": round(float(np.mean([a.tokens for a in answered])), 1),
        "by_domain": {name: rates(rows) for name, rows in grouped_by("domain", checkable)},
        "by_kind": {name: rates(rows) for name, rows in grouped_by("checker", checkable)},
        "open_by_domain": {
            name: {
                "n": len(rows),
                "format": share([a.completion.in_format for a in rows]),
                **open_scores(rows),
            }
            for name, rows in grouped_by("domain", unchecked)
        },
    }


def stock_plain(evaluation: Mapping[str, Any], trained: str) -> dict[str, Any]:
    """The honest baseline: what the stock model says to the plain question, read leniently.

    No prompt here holds an instruction, so it is the same evaluation. `below` names the domains in
    which the trained model is worse.
    """
    stock, after = evaluation["stock"], evaluation[trained]["by_domain"]
    domains = {name: row["accuracy_lenient"] for name, row in stock["by_domain"].items()}
    below = [name for name, plain in domains.items() if after[name]["accuracy"] < plain]
    return {"accuracy": stock["accuracy_lenient"], "by_domain": domains, "below": below}


def results_of(
    run: Run,
    answers: Mapping[str, Sequence[Answered]],
    stages: Sequence[Mapping[str, Any]],
    **numbers: Any,
) -> dict[str, Any]:
    """What `results.json` holds: the run, its stages, its evaluations, and further numbers."""
    kept = ("name", "steps", "planned", "seconds", "tokens", "skipped")
    evaluation = {name: summarise(rows) for name, rows in answers.items()}
    return {
        "profile": run.profile.name,
        "recipe": run.recipe,
        "model": run.model.name,
        "seed": run.seed,
        **numbers,
        "stages": [{key: stage[key] for key in kept} for stage in stages],
        "evaluation": evaluation,
        "stock_plain": stock_plain(evaluation, numbers.get("submission", "after_grpo")),
    }


class Examiner:
    """Evaluates the policy of a session, again and again, with the judges' sampler."""

    def __init__(
        self,
        policy: nnx.Module,
        tokenizer: Any,
        held_out: Sequence[Example],
        session: Session,
        batch_size: int,
    ) -> None:
        self.policy, self.held_out, self.session = policy, held_out, session
        self.sampler = make_sampler(policy, tokenizer, session.run.cache_length)
        lengths = session.run.profile.lengths
        self.encoder = load_encoder(session.run.profile.rewards.encoder)
        self.sizes = (batch_size, lengths.prompt, lengths.completion)
        self.answers: dict[str, list[Answered]] = {}  # by the name of the evaluation

    def answer(self, rows: Sequence[Example], deadline: Deadline | None = None) -> list[Answered]:
        """What the policy, as it is now, answers; by greedy decoding."""
        self.sampler.transformer_state = nnx.variables(self.policy)
        stop = self.session.stop
        with self.session.mesh, stop.heard():
            return answer_greedily(
                self.sampler, rows, *self.sizes, deadline, self.encoder, before_batch=stop.check
            )

    def evaluate(self, name: str) -> None:
        """Evaluates the policy as it is now; what was evaluated before a kill is read."""
        session, kept = self.session, self.session.folder.answers / f"{name}.json"
        if (before := read_answers(kept, self.held_out, self.encoder)) is not None:
            self.answers[name], session.evaluation_seconds = before
        else:
            start = time.monotonic()
            mine = self.answer(self.held_out[this_host() :: host_count()], session.deadline)
            session.stop.check()
            wait = host_patience() + time.monotonic() - start  # others may take as long again
            by_turns = itertools.zip_longest(*gather(mine, f"the evaluation {name}", wait))
            rows = itertools.chain.from_iterable(by_turns)
            self.answers[name] = list(itertools.takewhile(lambda row: row is not None, rows))
            session.evaluation_seconds = time.monotonic() - start
            write_answers(kept, self.answers[name], session.evaluation_seconds)
        numbers = summarise(self.answers[name])
        print(
            f"{name}: format {numbers['format']:.3f}, accuracy {numbers['accuracy']:.3f}, "
            f"lenient {numbers['accuracy_lenient']:.3f}, stopped {numbers['stopped']:.3f} "
            f"(n = {numbers['n']})"
        )

# %% [markdown]
# ### Rows
#
# Rows of any source become `Example`s. The bundled ones, of the `tiny` profile, are made by
# `scripts/tasks.py`: sums, stories, comparisons, yes/no questions, choices, sorting and
# words. Their traces come in three styles: 30 % are bare guesses ("I think it is 42."), 45 %
# give one equation a step ("17+25=42."), 25 % work digit by digit ("17+25: 7+5=12, 1+2+1=4,
# so 42."). The `kaggle` profile takes glaive's traces in all their length. Public datasets are
# read by streaming, row by row, so that only what is used travels.

# %%
import collections
import dataclasses
import json
import pathlib
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import datasets
import numpy as np

# %% tags=["modules-only"]
from submission.checkers import check
from submission.config import Lengths, Source
from submission.prompts import (
    TAGS,
    TURN_END,
    TURN_START,
    Example,
    example_from_mapping,
    render_prompt,
    render_target,
)


# %%
def read_bundled(source: Source) -> Iterator[Example]:
    """The rows of a JSON-lines file, those of `source.select` only.

    Raises:
      FileNotFoundError: the file is missing.
      ValueError: a line is not JSON, or a field is missing; names file and line.
    """
    path = pathlib.Path(source.location)
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist. Run the notebook from the repository's root, or remake the "
            "file with scripts/tasks.py."
        )
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            where = f"{path}, line {number}"
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{where}: not JSON ({error}).") from error
            example = example_from_mapping(row, where)
            if not source.select or example.source.startswith(source.select):
                yield example


# %% [markdown]
# **glaive's reasoning set** has the thinking inside the response, between `<think>` tags,
# and the answer after it. We keep both, in our own tags.

# %%
THINKING = re.compile(r"\s*<think>(?P<trace>.+?)</think>(?P<answer>.+)", re.DOTALL)


def adapt_glaive(row: Mapping[str, Any]) -> Example | None:
    """A row of `glaiveai/reasoning-v1-20m`; None if it has no thinking or no answer.

    >>> adapt_glaive({"prompt": "6*7?", "response": "<think>It is 42.</think>42"}).trace
    'It is 42.'
    """
    match = THINKING.fullmatch(row["response"])
    if match is None or not row["prompt"].strip():
        return None
    trace, answer = match["trace"].strip(), match["answer"].strip()
    if not trace or not answer:
        return None
    return Example(row["prompt"].strip(), answer, "open", trace, source="glaiveai/reasoning-v1-20m")


def adapt_gsm8k(row: Mapping[str, Any]) -> Example | None:
    """A row of `openai/gsm8k`: the working without its `<<48/2=24>>` marks, then the number.

    >>> adapt_gsm8k({"question": "Half of 48?", "answer": "48/2 = <<48/2=24>>24\\n#### 24"}).answer
    '24'
    """
    working, mark, answer = row["answer"].rpartition("####")
    if not mark:
        return None
    trace = re.sub(r"<<[^>]*>>", "", working).strip()
    answer = answer.strip().replace(",", "")
    return Example(row["question"].strip(), answer, "number", trace, "math", source="openai/gsm8k")


ADAPTERS: dict[str, Callable[[Mapping[str, Any]], Example | None]] = {
    "glaive": adapt_glaive,
    "gsm8k": adapt_gsm8k,
}


def read_hub(source: Source) -> Iterator[Example | None]:
    """The rows of a dataset on the hub, streamed; None where a row cannot be used.

    Raises:
      ValueError: the dataset lacks a column that the adapter needs.
      RuntimeError: the hub cannot be reached; says what to do.
    """
    try:
        rows = datasets.load_dataset(
            source.location,
            source.subset,
            split=source.split,
            revision=source.revision,
            streaming=True,
        )
        for row in rows:
            try:
                yield ADAPTERS[source.adapter](row)
            except KeyError as error:
                raise ValueError(
                    f"{source.location}: a row has no field {error}; it has {sorted(row)}."
                ) from error
    except (OSError, datasets.exceptions.DatasetsError) as error:
        raise RuntimeError(
            f"Could not read {source.location}: {error}\nIs the internet on? On Kaggle: "
            "'Settings' > 'Internet'. PROFILE=tiny needs none."
        ) from error


# %% [markdown]
# **Tokens.** One function turns an example into tokens, and it is the only place where BOS
# and EOS are added. The loss covers the target alone: the prompt is masked. The target ends
# with the tokenizer's eos *directly* after `</answer>`, because that, not Gemma's
# `<end_of_turn>`, is where the judges' sampler stops.


# %%
@dataclasses.dataclass(frozen=True)
class Tokens:
    """An example in tokens: the prompt with its BOS, the target with its EOS."""

    prompt: list[int]
    target: list[int]


def tokenize(tokenizer: Any, example: Example) -> Tokens:
    """The tokens that SFT trains on; the sampler makes the same of `render_prompt`."""
    prompt = [tokenizer.bos_id(), *tokenizer.encode(render_prompt(example.question))]
    return Tokens(prompt, [*tokenizer.encode(render_target(example)), tokenizer.eos_id()])


# English text has about four characters a token. What has more than eight for every token
# allowed is dropped before the tokenizer sees it: of glaive's rows, nearly all.
CHARACTERS_PER_TOKEN = 8
EARLY_LOOK = 20_000  # rows after which a source must have kept its minimum share


def why_not(tokenizer: Any, example: Example, lengths: Lengths, needs_trace: bool) -> str:
    """Why an example cannot be used; empty if it can.

    A row is used if its gold answer passes its own checker, if it fits the token limits
    whole (a cut target would lose its closing tag), and if nothing in it would be read as
    Gemma's turn marks or our tags.
    """
    text = example.question + example.trace + example.answer
    if any(mark in text for mark in (*TAGS, TURN_START, TURN_END)):
        return "contains a tag"
    if needs_trace and not example.trace:
        return "has no trace"
    if needs_trace and len(text) > CHARACTERS_PER_TOKEN * (lengths.prompt + lengths.completion):
        return f"over {CHARACTERS_PER_TOKEN} characters per token allowed"
    if example.checker not in ("open", "code") and check(example, example.answer) is not True:
        return "gold answer fails its own checker"
    tokens = tokenize(tokenizer, example)
    if len(tokens.prompt) > lengths.prompt:
        return f"prompt over {lengths.prompt} tokens"
    if needs_trace and len(tokens.target) > lengths.completion:
        return f"target over {lengths.completion} tokens"
    return ""


def load_examples(
    sources: Sequence[Source],
    tokenizer: Any,
    lengths: Lengths,
    *,
    needs_trace: bool,
    minimum_kept: float,
    at_most: int = 1_000_000,
    clock: Callable[[], float] = time.monotonic,
) -> list[Example]:
    """The usable rows of all sources, in order; prints what was dropped, and why.

    Reading a source ends with its rows, with enough usable ones, or with its minutes,
    whichever comes first. The kept share is looked at early, so that a source of which next
    to nothing fits does not use the time up.

    Raises:
      ValueError: less than `minimum_kept` of a source's rows can be used, or none.
    """
    kept: list[Example] = []
    for source in sources:
        read = read_bundled if source.adapter == "bundled" else read_hub
        dropped: collections.Counter[str] = collections.Counter()
        usable: list[Example] = []
        end = clock() + 60 * source.minutes
        for seen, example in enumerate(read(source)):
            if len(usable) >= min(source.rows, at_most) or clock() > end:
                break
            if seen == EARLY_LOOK and len(usable) < minimum_kept * seen:
                break
            reason = (
                "not in the source's format"
                if example is None
                else why_not(tokenizer, example, lengths, needs_trace)
            )
            if reason:
                dropped[reason] += 1
            else:
                usable.append(example)
        seen = len(usable) + sum(dropped.values())
        share = len(usable) / seen if seen else 0.0
        reasons = "".join(f", {count} {reason}" for reason, count in dropped.most_common())
        what = ", ".join(source.select) or source.split
        print(f"{source.location} ({what}): {len(usable)} of {seen} rows{reasons}")
        if not usable or share < minimum_kept:
            raise ValueError(
                f"{source.location}: only {len(usable)} of {seen} rows can be used{reasons or ''}; "
                f"at least {minimum_kept:.0%} must be. Raise the lengths in the profile, or "
                "choose another source."
            )
        kept += usable
    return kept


# %% [markdown]
# **Batches.** Both stages draw from an endless stream of shuffled epochs. The order of epoch
# `e` depends on the seed and on `e` alone.


# %%
def shuffled_forever(items: Sequence[Any], seed: int) -> Iterator[Any]:
    """Epoch after epoch, each in its own order."""
    for epoch in range(1_000_000):
        order = list(range(len(items)))
        random.Random(f"{seed}/{epoch}").shuffle(order)
        for index in order:
            yield items[index]


def batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Full batches only: Tunix recompiles for any other shape."""
    batch: list[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []


def pad_tokens(rows: Sequence[Tokens], length: int, pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Right-padded tokens_BT and the loss mask_BT: true on targets, their EOS included.

    Raises:
      ValueError: a row is longer than `length`; cutting it would lose its closing tag.
    """
    tokens_BT = np.full((len(rows), length), pad_id, np.int32)
    mask_BT = np.zeros((len(rows), length), bool)
    for i, row in enumerate(rows):
        start, end = len(row.prompt), len(row.prompt) + len(row.target)
        if end > length:
            raise ValueError(f"An example of {end} tokens does not fit the length {length}.")
        tokens_BT[i, :end] = row.prompt + row.target
        mask_BT[i, start:end] = True
    return tokens_BT, mask_BT


def prompt_columns(examples: Sequence[Example]) -> dict[str, np.ndarray]:
    """A batch for Tunix's learner: `prompts` and the fields of `Example`, one array each."""
    columns = {name: [] for name in examples[0].columns()}
    for example in examples:
        for name, value in example.columns().items():
            columns[name].append(value)
    arrays = {name: np.array(values) for name, values in columns.items()}
    return {"prompts": np.array([render_prompt(e.question) for e in examples]), **arrays}


# %%
pears = Example("Ada has 17 pears and finds 25. How many now?", "42", "number", "17+25=42.")
print(render_prompt(pears.question) + render_target(pears))

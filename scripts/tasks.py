"""The bundled tasks: seven kinds of small problems, each with a correct worked trace.

The tiny Gemma is pre-trained, warm-started, rewarded and judged on problems made here.
Nobody else's text is in them, so they can be shipped and remade.

Every problem can be written down at three levels of detail:

- ``guess``: no working at all ("I think it is 42.").
- ``short``: one equation or remark per step ("17+25=42.").
- ``steps``: digit by digit ("17+25: 7+5=12, 1+2+1=4, so 42.").

Which split a problem belongs to is decided by a hash of what has to be worked out
(``split_of``), whatever its wording, so that no two splits can ever share a calculation.

    python scripts/tasks.py            # writes data/train.jsonl and data/held_out.jsonl
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import itertools
import json
import pathlib
import random
from collections.abc import Callable, Iterator

DATA = pathlib.Path(__file__).resolve().parent.parent / "data"

# Shares of the hash space. `tuning` is for whoever changes a hyper-parameter: `held_out`
# stays unseen until the result is reported.
SPLITS = {"pretrain": 60, "sft": 10, "grpo": 10, "tuning": 10, "held_out": 10}

# Rows shipped per split. Style shares apply to the SFT rows.
SFT_ROWS, GRPO_ROWS, HELD_OUT_ROWS = 3000, 3000, 600
SFT_STYLE_SHARES = {"guess": 0.3, "short": 0.45, "steps": 0.25}

NAMES = [
    "Ada",
    "Ben",
    "Cleo",
    "Dan",
    "Eva",
    "Finn",
    "Gus",
    "Hana",
    "Ivo",
    "Jane",
    "Kai",
    "Lena",
    "Max",
    "Nora",
    "Otto",
    "Pia",
]
ITEMS = [
    "pears",
    "plums",
    "coins",
    "shells",
    "books",
    "cards",
    "stones",
    "pens",
    "nuts",
    "beads",
    "cakes",
    "eggs",
]
WORDS = [
    "red",
    "cat",
    "sun",
    "map",
    "tree",
    "fish",
    "milk",
    "door",
    "lamp",
    "ring",
    "book",
    "star",
    "leaf",
    "rain",
    "wolf",
    "boat",
    "hill",
    "king",
    "salt",
    "moon",
    "bird",
    "gold",
    "rose",
    "sand",
    "snow",
    "wind",
    "fire",
    "frog",
    "corn",
    "bell",
    "coat",
    "desk",
]
POSITIONS = ("first", "second", "third", "fourth")


@dataclasses.dataclass(frozen=True)
class Problem:
    """One generated problem with its answer and its working at each level of detail."""

    keys: tuple[str, ...]  # what has to be worked out, in no wording
    question: str
    answer: str
    traces: dict[str, str]
    checker: str
    domain: str
    difficulty: float
    choices: tuple[str, ...] = ()


def split_of(key: str) -> str:
    """The split that a calculation belongs to, in whatever words it is asked for.

    >>> split_of("17 + 25") == split_of(expression([17, 25]))
    True
    """
    digest = hashlib.sha256(key.encode()).digest()
    point = int.from_bytes(digest[:4], "big") % 100
    for name, share in SPLITS.items():
        if point < share:
            return name
        point -= share
    raise AssertionError("the shares of SPLITS add up to 100")


# --- Arithmetic, in short and in steps ---------------------------------------------------


def digits(number: int) -> list[int]:
    """The digits of a number, ones first."""
    return [int(digit) for digit in reversed(str(number))]


def add_in_steps(a: int, b: int) -> str:
    """``17+25: 7+5=12, 1+2+1=4, so 42.``; one column at a time, with the carry."""
    columns = list(itertools.zip_longest(digits(a), digits(b), fillvalue=0))
    carry, parts = 0, []
    for left, right in columns:
        carried = f"+{carry}" if carry else ""
        total = left + right + carry
        parts.append(f"{left}+{right}{carried}={total}")
        carry = total // 10
    return f"{a}+{b}: {', '.join(parts)}, so {a + b}."


def subtract_in_steps(a: int, b: int) -> str:
    """``42-17: 12-7=5, 4-1-1=2, so 25.``; one column at a time, with the borrow."""
    columns = list(itertools.zip_longest(digits(a), digits(b), fillvalue=0))
    borrow, parts = 0, []
    for left, right in columns:
        borrowed = f"-{borrow}" if borrow else ""
        lent = 10 if left - right - borrow < 0 else 0
        parts.append(f"{left + lent}-{right}{borrowed}={left + lent - right - borrow}")
        borrow = lent // 10
    return f"{a}-{b}: {', '.join(parts)}, so {a - b}."


def work_out(numbers: list[int], style: str) -> str:
    """The working of a chain of additions and subtractions (negative: subtract)."""
    total, parts = numbers[0], []
    for number in numbers[1:]:
        if style == "short":
            parts.append(f"{total}{number:+d}={total + number}.")
        else:
            in_steps = add_in_steps if number > 0 else subtract_in_steps
            parts.append(in_steps(total, abs(number)))
        total += number
    return " ".join(parts)


def draw_chain(rng: random.Random, terms: int, largest: int) -> list[int]:
    """A chain of ``terms`` numbers whose running total stays within 0 to 999."""
    numbers = [rng.randint(2, largest)]
    while len(numbers) < terms:
        total = sum(numbers)
        number = rng.randint(2, largest) * rng.choice((1, -1))
        if 0 <= total + number <= 999:
            numbers.append(number)
    return numbers


def expression(numbers: list[int]) -> str:
    """``12 + 7 - 5``."""
    signs = (f" {'+' if n > 0 else '-'} {abs(n)}" for n in numbers[1:])
    return f"{numbers[0]}{''.join(signs)}"


def both(make: Callable[[str], str], answer: str) -> dict[str, str]:
    """All three traces; ``make`` gives the working for ``short`` and for ``steps``."""
    return {"guess": f"I think it is {answer}.", "short": make("short"), "steps": make("steps")}


def chain_difficulty(terms: int, largest: int) -> float:
    """0 to 1, from the number of terms and of digits."""
    return round(0.4 * (terms - 2) + 0.6 * (len(str(largest)) - 1) / 2, 2)


# --- The seven kinds ---------------------------------------------------------------------


def draw_size(rng: random.Random) -> tuple[int, int]:
    """Number of terms and the largest number, from easy to hard."""
    return rng.choice(((2, 9), (2, 99), (2, 600), (2, 600), (3, 20), (3, 99)))


def make_sum(rng: random.Random) -> Problem:
    """A chain of two or three terms."""
    terms, largest = draw_size(rng)
    chain = draw_chain(rng, terms, largest)
    ask = rng.choice(("What is {}?", "Work out {}."))
    return Problem(
        (expression(chain),),
        ask.format(expression(chain)),
        str(sum(chain)),
        both(lambda style: work_out(chain, style), str(sum(chain))),
        "number",
        "math",
        chain_difficulty(terms, largest),
    )


def make_story(rng: random.Random) -> Problem:
    """The same in words."""
    terms, largest = draw_size(rng)
    chain = draw_chain(rng, terms, largest)
    name, item = rng.choice(NAMES), rng.choice(ITEMS)
    text = f"{name} has {chain[0]} {item}."
    for number in chain[1:]:
        verbs = ("buys {}", "finds {} more") if number > 0 else ("loses {}", "gives away {}")
        text += f" {name} {rng.choice(verbs).format(abs(number))}."
    return Problem(
        (expression(chain),),
        f"{text} How many {item} now?",
        str(sum(chain)),
        both(lambda style: work_out(chain, style), str(sum(chain))),
        "number",
        "math",
        chain_difficulty(terms, largest),
    )


def make_larger(rng: random.Random) -> Problem:
    """The value of the larger of two sums."""
    largest = rng.choice((9, 50, 99))
    left, right = draw_chain(rng, 2, largest), draw_chain(rng, 2, largest)
    while sum(left) == sum(right):
        right = draw_chain(rng, 2, largest)
    answer = max(sum(left), sum(right))

    def work(style: str) -> str:
        sums = f"{work_out(left, style)} {work_out(right, style)}"
        return f"{sums} {answer} is larger."

    return Problem(
        (expression(left), expression(right)),
        f"Which is larger, {expression(left)} or {expression(right)}?",
        str(answer),
        both(work, str(answer)),
        "number",
        "math",
        chain_difficulty(3, largest),
    )


def make_yes_no(rng: random.Random) -> Problem:
    """Is a sum more, or less, than a number?"""
    largest = rng.choice((9, 99, 99, 600))
    chain = draw_chain(rng, 2, largest)
    total = sum(chain)
    other = max(0, total + rng.choice((-9, -4, -2, -1, 1, 2, 4, 9)))
    if other == total:
        other += 3
    word, truth = rng.choice((("more", total > other), ("less", total < other)))

    def work(style: str) -> str:
        relation = "more" if total > other else "less"
        return f"{work_out(chain, style)} {total} is {relation} than {other}."

    answer = "yes" if truth else "no"
    return Problem(
        (expression(chain),),
        f"Is {expression(chain)} {word} than {other}?",
        answer,
        both(work, answer),
        "boolean",
        "logic",
        chain_difficulty(2, largest),
    )


def make_choice(rng: random.Random) -> Problem:
    """A sum with three values to choose from."""
    largest = rng.choice((9, 99, 99, 600))
    chain = draw_chain(rng, 2, largest)
    total = sum(chain)
    wrong = [total + d for d in (-10, -2, -1, 1, 2, 10) if total + d >= 0]
    values = [total, *rng.sample(wrong, 2)]
    rng.shuffle(values)
    letter = "ABC"[values.index(total)]
    listing = " ".join(f"{mark}) {value}" for mark, value in zip("ABC", values, strict=True))

    def work(style: str) -> str:
        if style == "short":
            return f"{work_out(chain, style)} {total} is {letter}."
        marks = zip("ABC", values, strict=True)
        tried = (f"{mark} {value} {'yes' if value == total else 'no'}" for mark, value in marks)
        return f"{work_out(chain, style)} {', '.join(tried)}."

    return Problem(
        (expression(chain),),
        f"What is {expression(chain)}? {listing}",
        letter,
        both(work, letter),
        "choice",
        "math",
        chain_difficulty(2, largest),
        tuple(str(value) for value in values),
    )


def make_order(rng: random.Random) -> Problem:
    """Three or four numbers to sort."""
    count = rng.choice((3, 3, 4))
    numbers = rng.sample(range(2, 99), count)
    ranked = sorted(numbers)
    answer = ", ".join(map(str, ranked))

    def work(style: str) -> str:
        if style == "short":
            return f"Smallest {ranked[0]}, largest {ranked[-1]}."
        left, parts = list(numbers), []
        while len(left) > 1:
            smallest = min(left)
            left.remove(smallest)
            parts.append(f"{smallest}, left {' '.join(map(str, left))}.")
        return f"{' '.join(parts)} {left[0]}."

    return Problem(
        (f"order {answer}",),
        f"Sort from small to large: {' '.join(map(str, numbers))}",
        answer,
        both(work, answer),
        "text",
        "logic",
        0.4 if count == 3 else 0.8,
    )


def make_words(rng: random.Random) -> Problem:
    """Words to say backwards, or one to pick by its place."""
    count = rng.choice((3, 4))
    words = rng.sample(WORDS, count)
    numbered = [f"{p} {w}" for p, w in zip(POSITIONS, words, strict=False)]
    if rng.random() < 0.5:
        question = f"Say these words backwards: {' '.join(words)}"
        answer = " ".join(reversed(words))

        def work(style: str) -> str:
            if style == "short":
                return f"The last word is {words[-1]}."
            return f"{', '.join(reversed(numbered))}."

        difficulty = 0.4 if count == 3 else 0.7
    else:
        place = rng.randrange(count)
        question = f"Which word is {POSITIONS[place]}: {' '.join(words)}"
        answer = words[place]

        def work(style: str) -> str:
            if style == "short":
                return f"The words start with {words[0]}."
            return f"{', '.join(numbered[: place + 1])}."

        difficulty = 0.2
    key = " ".join(sorted(words))
    return Problem((key,), question, answer, both(work, answer), "text", "other", difficulty)


KINDS: dict[str, tuple[Callable[[random.Random], Problem], float]] = {
    "sum": (make_sum, 0.20),
    "story": (make_story, 0.22),
    "larger": (make_larger, 0.12),
    "yes_no": (make_yes_no, 0.12),
    "choice": (make_choice, 0.14),
    "order": (make_order, 0.10),
    "words": (make_words, 0.10),
}


def problems(seed: int, split: str, *, distinct: bool = True) -> Iterator[Problem]:
    """Problems of a split, for ever, by the shares of ``KINDS``; each question once, or not."""
    rng = random.Random(seed)
    makers = [maker for maker, _ in KINDS.values()]
    shares = [share for _, share in KINDS.values()]
    seen = set()
    while True:
        make = rng.choices(makers, shares)[0]
        problem = make(rng)
        # The kind stays: one with two calculations is in a split less often.
        while {split_of(key) for key in problem.keys} != {split} or problem.question in seen:
            problem = make(rng)
        if distinct:
            seen.add(problem.question)
        yield problem


def row(problem: Problem, style: str, split: str) -> dict[str, object]:
    """A problem as a line of ``data/*.jsonl``: the fields of ``prompts.Example``."""
    return {
        "question": problem.question,
        "answer": problem.answer,
        "trace": problem.traces[style] if style else "",
        "domain": problem.domain,
        "checker": problem.checker,
        "choices": list(problem.choices),
        "tests": [],
        "difficulty": problem.difficulty,
        "source": f"tasks/{split}/{style}" if style else f"tasks/{split}",
    }


def rows(seed: int, split: str, count: int) -> list[dict[str, object]]:
    """``count`` rows of a split; SFT rows carry a trace in a style drawn by its share."""
    rng = random.Random(seed + 1)
    shares = SFT_STYLE_SHARES if split == "sft" else {"": 1.0}
    return [
        row(problem, rng.choices(list(shares), list(shares.values()))[0], split)
        for problem, _ in zip(problems(seed, split), range(count), strict=False)
    ]


def write_rows(path: pathlib.Path, lines: list[dict[str, object]]) -> None:
    """One JSON object a line."""
    with path.open("w", encoding="utf-8") as file:
        for line in lines:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def main() -> None:
    """Writes the bundled rows."""
    train = rows(11, "sft", SFT_ROWS) + rows(12, "grpo", GRPO_ROWS)
    write_rows(DATA / "train.jsonl", train)
    write_rows(DATA / "held_out.jsonl", rows(13, "held_out", HELD_OUT_ROWS))


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    main()

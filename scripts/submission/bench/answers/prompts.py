"""The prompt, and what a good completion looks like.

The prompt is the user's question in Gemma's turn format and nothing else: no system text,
no description of the tags. A format that is learned together with a long instruction
breaks as soon as the instruction is missing; one that is learned from plain questions
holds for any question. The newline after `<start_of_turn>model` belongs to the format.
There is no `<bos>`: Tunix's sampler adds it.
"""

import dataclasses
import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

REASONING_START, REASONING_END = "<reasoning>", "</reasoning>"
SOLUTION_START, SOLUTION_END = "<answer>", "</answer>"
TAGS = (REASONING_START, REASONING_END, SOLUTION_START, SOLUTION_END)
TURN_START, TURN_END = "<start_of_turn>", "<end_of_turn>"

PROMPT_TEMPLATE = f"{TURN_START}user\n{{question}}{TURN_END}\n{TURN_START}model\n"


def render_prompt(question: str) -> str:
    """The one function that builds a prompt: for SFT, GRPO, evaluation and the judges."""
    return PROMPT_TEMPLATE.format(question=question)


# A row of any source becomes an `Example`. It carries what its checker needs: the gold
# answer, the kind of answer it is, and the choices where there are any.


CHECKER_KINDS = ("number", "choice", "boolean", "text", "code", "open")
# Further kinds of a recipe: (example, answer) -> is it right? None if the row cannot tell.
MORE_CHECKERS: dict[str, Callable[[Any, str], bool | None]] = {}


@dataclasses.dataclass(frozen=True)
class Example:
    """One row, from any source, for any stage."""

    question: str
    answer: str
    checker: str
    trace: str = ""  # the reference reasoning
    domain: str = "other"
    choices: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    difficulty: float = 0.5
    source: str = ""

    def columns(self) -> dict[str, Any]:
        """The fields as scalars: Tunix repeats ragged columns wrongly, so lists are JSON."""
        return vars(self) | {"choices": json.dumps(self.choices), "tests": json.dumps(self.tests)}


def render_target(example: Example) -> str:
    """What SFT teaches the model to say, up to the tokenizer's eos, which follows at once."""
    return (
        f"{REASONING_START}{example.trace}{REASONING_END}"
        f"{SOLUTION_START}{example.answer}{SOLUTION_END}"
    )


def example_from_mapping(row: Mapping[str, Any], where: str) -> Example:
    """A line of `data/*.jsonl` as an `Example`.

    Raises:
      ValueError: a field is missing or unknown to the checkers; names it and `where`.
    """
    required = ("question", "answer", "checker", "domain", "source")
    for field in required:
        if field not in row:
            raise ValueError(
                f"{where}: the row has no field {field!r}. Every row needs question, answer and "
                "checker."
            )
    if row["checker"] not in (*CHECKER_KINDS, *MORE_CHECKERS):
        raise ValueError(
            f"{where}: unknown checker {row['checker']!r}. "
            f"Choose one of: {', '.join(CHECKER_KINDS)}."
        )
    known = {field.name for field in dataclasses.fields(Example)}
    values = {name: value for name, value in row.items() if name in known}
    for field in ("question", "answer", "trace"):
        value = values.get(field, "")
        if not isinstance(value, str | int | float):
            raise ValueError(f"{where}: {field!r} is {value!r}, which is no text.")
        values[field] = ("no", "yes")[value] if isinstance(value, bool) else str(value)
    values["choices"] = tuple(values.get("choices", ()))
    values["tests"] = tuple(values.get("tests", ()))
    return Example(**values)


# A completion is read **once**, into a small record; the rewards and the evaluation read the
# record. The format is strict: each tag exactly once and in order, both parts non-empty,
# nothing outside them but white space, and none of Gemma's turn marks anywhere. A second tag in
# another spelling (`<Answer>`, `< answer >`, full-width brackets) is a second tag, and a part
# made of characters that nobody can see is empty.


SHAPE = re.compile(
    rf"\s*{REASONING_START}(?P<reasoning>.+){REASONING_END}\s*"
    rf"{SOLUTION_START}(?P<answer>.+){SOLUTION_END}\s*",
    re.DOTALL,
)
TAG_LIKE = re.compile(
    r"<\s*+/?\s*+(?:reasoning|answer)\s*/?\s*>"
    r"|</?(?:reasoning|answer)\s[^<>\n]{0,40}>",
    re.IGNORECASE,
)
# Letters of other alphabets that look like those of the tags.
LOOK_ALIKES = str.maketrans("аеоѕгпіαεορνιԝ", "aeosrniaeopviw")
INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2064\u2800\ufeff]")
VISIBLE = re.compile(r"[^\W_]|[!-~]")
# What a rollout writes behind a completion that ran into the length limit. It did not end
# with the tokenizer's eos, so it has failed the format, whatever its text says.
CUT_MARK = "<cut>"


@dataclasses.dataclass(frozen=True)
class Completion:
    """A completion, read once. `reasoning` and `answer` are empty when out of format."""

    text: str
    in_format: bool
    reasoning: str = ""
    answer: str = ""

    @property
    def lenient_answer(self) -> str:
        """The answer with the format forgiven.

        It is what follows the first `<answer>`, if there is one, or else the last line that
        the model wrote before it ended its turn. The same rule is used before and after
        training, so that a gain in format is not sold as a gain in knowledge.
        """
        if self.in_format:
            return self.answer
        text = self.text.removesuffix(CUT_MARK).split(TURN_END)[0]
        if SOLUTION_START in text:
            text = text.split(SOLUTION_START, 1)[1].split(SOLUTION_END)[0]
        for tag in TAGS:
            text = text.replace(tag, "\n")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1] if lines else ""


def parse(text: str) -> Completion:
    """Reads a completion.

    >>> parse("<reasoning>6*7=42</reasoning><answer>42</answer>").answer
    '42'
    >>> parse("So: <reasoning>6*7=42</reasoning><answer>42</answer>").in_format
    False
    """
    plain = INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).translate(LOOK_ALIKES)
    once = len(TAG_LIKE.findall(plain)) == len(TAGS) and all(text.count(t) == 1 for t in TAGS)
    clean = TURN_START not in text and TURN_END not in text
    match = SHAPE.fullmatch(text) if once and clean else None
    if match is None:
        return Completion(text, in_format=False)
    reasoning, answer = match["reasoning"].strip(), match["answer"].strip()
    if not VISIBLE.search(reasoning) or not VISIBLE.search(answer):
        return Completion(text, in_format=False)
    return Completion(text, True, reasoning, answer)

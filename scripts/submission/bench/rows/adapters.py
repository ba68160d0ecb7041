"""From anyone's row to ours.

Every public dataset has its own columns and its own quirks. An **adapter** turns one row of
one dataset into an `Example`, or into a few words that say why it cannot: a count of those
words is printed when the rows are loaded. An adapter is a pure function. A row that is odd
(a field that is empty, missing a value, or of another type) is a reason, not an error; only
a *column* that is not there at all is an error, because then the dataset is another one than
we think.

The kind of answer belongs to the dataset, so the adapter sets the checker. The domain comes
from `config`, except where the rows themselves say it.
"""

import ast
import hashlib
import html
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from submission.bench.answers.code_answers import TEST_REQUEST, shown_tests
from submission.bench.answers.prompts import Example
from submission.bench.settings.config import Source

NO_QUESTION, NO_ANSWER, NO_TRACE = "no question", "no answer", "no thinking"


RowAdapter = Callable[[Mapping[str, Any], Source], Example | str]
ADAPTERS: dict[str, RowAdapter] = {}
# Where the file format stores columns apart, as parquet does, no others travel.
COLUMNS: dict[str, tuple[str, ...]] = {}


def looks_at(columns: str) -> Callable[[RowAdapter], RowAdapter]:
    """Enters an adapter, and the columns that it looks at, in the tables."""

    def enter(adapt: RowAdapter) -> RowAdapter:
        name = adapt.__name__.removeprefix("adapt_")
        ADAPTERS[name], COLUMNS[name] = adapt, tuple(columns.split())
        return adapt

    return enter


def text_of(value: Any) -> str:
    """A field as text, stripped; empty for anything that is no text (None, NaN, a list).

    >>> text_of(" Why? "), text_of(None), text_of(float("nan"))
    ('Why?', '', '')
    """
    return value.replace("\r\n", "\n").strip() if isinstance(value, str) else ""


def texts_of(value: Any) -> tuple[str, ...]:
    """A list of texts; empty if any part of it is no text, or empty.

    >>> texts_of(["one ", "two"]), texts_of(["one", None]), texts_of("one")
    (('one', 'two'), (), ())
    """
    if isinstance(value, str) or not isinstance(value, Sequence):
        return ()
    texts = tuple(map(text_of, value))
    return texts if all(texts) else ()


def question_and_answer(
    question: str, answer: str, source: Source, *, checker: str = "open", **fields: Any
) -> Example | str:
    """The `Example`, or the reason if question or answer is empty."""
    if not question:
        return NO_QUESTION
    if not answer:
        return NO_ANSWER
    fields.setdefault("domain", source.domain)
    return Example(question, answer, checker, source=source.location, **fields)


# **Traces.** Reasoning sets keep the thinking inside the response, between `<think>` and
# `</think>`, with the answer after it. We keep both, in our own tags. A response with a second
# pair, or with text before the first, is left out: it is not clear what is thinking there.


THINK_START, THINK_END = "<think>", "</think>"
# Of the dataset's own tokenizer. Nothing near this fits the lengths of any profile.
MOST_TRACE_TOKENS = 4_096


def split_thinking(response: str) -> tuple[str, str] | None:
    """Thinking and answer; None unless it is one `<think>` block, then text.

    >>> split_thinking("<think>6*7=42</think>It is 42.")
    ('6*7=42', 'It is 42.')
    >>> split_thinking("It is 42.") is None
    True
    """
    if not response.startswith(THINK_START) or response.count(THINK_START) != 1:
        return None
    trace, mark, answer = response[len(THINK_START) :].partition(THINK_END)
    if not mark or THINK_END in answer:
        return None
    return trace.strip(), answer.strip()


def with_thinking(question: str, response: str, source: Source) -> Example | str:
    """The `Example` of a question and a response that thinks first."""
    parts = split_thinking(response)
    if parts is None or not parts[0]:
        return NO_TRACE
    return question_and_answer(question, parts[1], source, trace=parts[0])


@looks_at("prompt response")
def adapt_glaive(row: Mapping[str, Any], source: Source) -> Example | str:
    """`glaiveai/reasoning-v1-20m`: the thinking stands inside `response`.

    >>> row = {"prompt": "6*7?", "response": "<think>It is 42.</think>42"}
    >>> adapt_glaive(row, Source("glaive", "")).trace
    'It is 42.'
    """
    return with_thinking(text_of(row["prompt"]), text_of(row["response"]), source)


@looks_at("messages num_tokens")
def adapt_mixture_of_thoughts(row: Mapping[str, Any], source: Source) -> Example | str:
    """`open-r1/Mixture-of-Thoughts`: one turn of each side; `num_tokens` drops the long early.

    >>> turns = [dict(role="user", content="6*7?"),
    ...          dict(role="assistant", content="<think>It is 42.</think>42")]
    >>> adapt_mixture_of_thoughts({"messages": turns, "num_tokens": 30}, Source("", "")).answer
    '42'
    >>> adapt_mixture_of_thoughts({"messages": turns, "num_tokens": 9000}, Source("", ""))
    'over 4096 tokens of its own'
    """
    tokens, messages = row["num_tokens"], row["messages"]
    if isinstance(tokens, int | float) and tokens > MOST_TRACE_TOKENS:
        return f"over {MOST_TRACE_TOKENS} tokens of its own"
    turns = [m for m in messages if isinstance(m, Mapping)] if isinstance(messages, list) else []
    if [turn.get("role") for turn in turns] != ["user", "assistant"]:
        return "not one turn of each side"
    question, response = (text_of(turn.get("content")) for turn in turns)
    return with_thinking(question, response, source)


# **Answers that can be checked.** GSM8K writes its sums twice, `48/2 = <<48/2=24>>24`: the marks
# go, the sum stays. MBPP's tests are the checker; the question shows the first one, because
# without it nobody could know the function's name. Some of its tests need code of their own to
# run before them; those rows are left out.


CALCULATION = re.compile(r"<<[^<>]*>>")


@looks_at("question answer")
def adapt_gsm8k(row: Mapping[str, Any], source: Source) -> Example | str:
    r"""`openai/gsm8k`: the working without its `<<48/2=24>>` marks, then the number.

    >>> row = {"question": "Half of 48?", "answer": "48/2 = <<48/2=24>>24\n#### 24"}
    >>> example = adapt_gsm8k(row, Source("gsm8k", ""))
    >>> example.trace, example.answer
    ('48/2 = 24', '24')
    """
    question, solution = text_of(row["question"]), text_of(row["answer"])
    working, mark, answer = solution.rpartition("####")
    if solution and not mark:
        return "no line ####"
    return question_and_answer(
        question,
        answer.strip().replace(",", ""),
        source,
        checker="number",
        trace=CALCULATION.sub("", working).strip(),
        difficulty=min(1.0, working.count("<<") / 8),  # steps of the reference solution
    )


def is_assertion(test: str) -> bool:
    """Is this one `assert` statement, and nothing else?

    >>> is_assertion("assert f(1) == 2"), is_assertion("f(1)"), is_assertion("assert (")
    (True, False, False)
    """
    try:
        statements = ast.parse(test).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return len(statements) == 1 and isinstance(statements[0], ast.Assert)


@looks_at("text prompt code test_list challenge_test_list test_setup_code test_imports")
def adapt_mbpp(row: Mapping[str, Any], source: Source) -> Example | str:
    r"""`google-research-datasets/mbpp`: `text` in the full set is `prompt` in the sanitized one.

    >>> example = adapt_mbpp({"text": "Write a function to add two numbers.",
    ...     "code": "def add(a, b):\r\n    return a + b", "test_setup_code": "",
    ...     "test_list": ["assert add(1, 2) == 3"], "challenge_test_list": []}, Source("", ""))
    >>> print(example.question)
    Write a function to add two numbers.
    Your code must pass this test, and others like it:
    assert add(1, 2) == 3
    Put the Python code of the function in the answer.
    >>> example.answer
    'def add(a, b):\n    return a + b'
    """
    task = text_of(row["prompt"] if "prompt" in row else row["text"])
    tests = texts_of(row["test_list"])
    if text_of(row.get("test_setup_code")) or texts_of(row.get("test_imports")):
        return "tests need code of their own"
    if not tests or not all(map(is_assertion, tests)):
        return "no tests that can be run"
    if not task:
        return NO_QUESTION
    shown = "\n".join(shown_tests(tests))
    question = f"{task}{TEST_REQUEST}{shown}\nPut the Python code of the function in the answer."
    challenges = tuple(filter(is_assertion, texts_of(row.get("challenge_test_list"))))
    program = text_of(row["code"])
    return question_and_answer(
        question,
        program,
        source,
        checker="code",
        tests=tests + challenges,
        difficulty=min(1.0, program.count("\n") / 20),  # lines of the reference program
    )


# **Choices** are listed in the question and answered by a letter. In SciQ the right answer has a
# column of its own, so it must be given a place among the wrong ones. A place drawn from a hash
# of the texts is the same in every run, and no place is the right one more often than another.


def choice_question(
    question: str, choices: tuple[str, ...], right: int, source: Source, **fields: Any
) -> Example | str:
    """A question with its choices listed, `A) …` a line, and the letter of the right one."""
    if not question:
        return NO_QUESTION
    if len({" ".join(choice.split()) for choice in choices}) < max(2, len(choices)):
        return "choices are not distinct"
    letters = [chr(ord("A") + place) for place in range(len(choices))]
    listed = "".join(
        f"\n{letter}) {choice}" for letter, choice in zip(letters, choices, strict=True)
    )
    return question_and_answer(
        question + listed, letters[right], source, checker="choice", choices=choices, **fields
    )


@looks_at("question choices answerKey")
def adapt_arc(row: Mapping[str, Any], source: Source) -> Example | str:
    """`allenai/ai2_arc`: labels are A to E in some rows and 1 to 4 in others.

    >>> row = {"question": "Which is a planet?", "answerKey": "2",
    ...        "choices": {"text": ["Moon", "Mars", "Sun"], "label": ["1", "2", "3"]}}
    >>> adapt_arc(row, Source("arc", "")).answer
    'B'
    """
    question, options, key = text_of(row["question"]), row["choices"], text_of(row["answerKey"])
    options = options if isinstance(options, Mapping) else {}
    choices, labels = texts_of(options.get("text")), texts_of(options.get("label"))
    if not choices or len(choices) != len(labels):
        return "choices and labels do not match"
    if labels.count(key) != 1:
        return NO_ANSWER
    difficulty = 0.3 if source.subset == "ARC-Easy" else 0.7
    return choice_question(question, choices, labels.index(key), source, difficulty=difficulty)


@looks_at("question correct_answer support distractor1 distractor2 distractor3")
def adapt_sciq(row: Mapping[str, Any], source: Source) -> Example | str:
    """`allenai/sciq`: four columns of choices; `support`, often empty, becomes the trace.

    >>> row = {"question": "What do plants breathe in?", "correct_answer": "carbon dioxide",
    ...        "distractor1": "gold", "distractor2": "salt", "distractor3": "iron", "support": ""}
    >>> adapt_sciq(row, Source("sciq", "")).choices
    ('carbon dioxide', 'iron', 'gold', 'salt')
    """
    question, right = text_of(row["question"]), text_of(row["correct_answer"])
    wrong = [text_of(row[f"distractor{number}"]) for number in (1, 2, 3)]
    if not right or not all(wrong):
        return "a choice is empty"
    choices = sorted(
        (right, *wrong),
        key=lambda choice: hashlib.sha256(f"{question}\0{choice}".encode()).digest(),
    )
    return choice_question(
        question, tuple(choices), choices.index(right), source, trace=text_of(row["support"])
    )


@looks_at("question answer facts")
def adapt_strategyqa(row: Mapping[str, Any], source: Source) -> Example | str:
    """`ChilleD/StrategyQA`: a truth value; `facts`, a text or a list, becomes the trace.

    >>> row = {"question": "Can a pear fly?", "answer": False, "facts": ["Pears have no wings."]}
    >>> example = adapt_strategyqa(row, Source("strategyqa", ""))
    >>> example.answer, example.trace
    ('no', 'Pears have no wings.')
    """
    if not isinstance(row["answer"], bool):
        return NO_ANSWER
    facts = row.get("facts")
    trace = text_of(facts) or "\n".join(texts_of(facts))
    answer = "yes" if row["answer"] else "no"
    return question_and_answer(
        text_of(row["question"]), answer, source, checker="boolean", trace=trace
    )


# **Open answers** have a reference to compare with, and no single right text. Text from Reddit
# brings its mark-up along; Dolly's passages bring Wikipedia's footnote numbers.


POST_TAGS = re.compile(
    r"\s*(?:\[\s*(?P<tag>[a-z]{2,3}|modpost|meta|discussion)\s*\]\s*)+[:-]?\s*", re.IGNORECASE
)
NEEDS_A_PICTURE = frozenset({"IP", "MP"})  # image prompt, media prompt
NO_PROMPT = frozenset({"OT", "CC", "MOD", "MODPOST", "META", "DISCUSSION"})  # talk of the site's
GONE = frozenset({"[deleted]", "[removed]", "[deleted by user]"})
SCENE_BREAK = re.compile(r"\n[ \t]*(?:[*_~#=-][ \t]*){3,}(?=\n|$)")
FOOTNOTE = re.compile(r"\[(?:\d{1,3}|citation needed|note \d+)\]")


def clean_post(text: str) -> str:
    """A Reddit post without what the site's mark-up left in it.

    >>> clean_post("It rained. <newline> * * * <newline> &nbsp; Then&#39;twas dry .")
    "It rained.\\n\\nThen'twas dry ."
    """
    text = html.unescape(text.replace("<newline>", "\n")).replace("\xa0", " ")
    text = text.replace("\u200b", "")
    lines = "\n".join(" ".join(line.split()) for line in text.splitlines())
    return re.sub(r"\n{2,}", "\n\n", SCENE_BREAK.sub("\n", "\n" + lines)).strip()


@looks_at("prompt story")
def adapt_writingprompts(row: Mapping[str, Any], source: Source) -> Example | str:
    """`euclaise/writingprompts`: posts from Reddit; the story is the reference.

    >>> row = {"prompt": "[ WP ] A pear learns to fly.", "story": "It began on a Monday."}
    >>> adapt_writingprompts(row, Source("writingprompts", "")).question
    'Write a short story from this prompt: A pear learns to fly.'
    """
    prompt, story = text_of(row["prompt"]), text_of(row["story"])
    if prompt.lower() in GONE or story.lower() in GONE:
        return "deleted"
    if match := POST_TAGS.match(prompt):
        if match["tag"].upper() in NEEDS_A_PICTURE:
            return "needs a picture"
        if match["tag"].upper() in NO_PROMPT:
            return "not a prompt"
        prompt = prompt[match.end() :]
    prompt, story = clean_post(prompt), clean_post(story)
    if not prompt:
        return NO_QUESTION
    return question_and_answer(f"Write a short story from this prompt: {prompt}", story, source)


DOLLY_DOMAINS = {
    "brainstorming": "ideation",
    "creative_writing": "creative",
    "summarization": "summarization",
    "classification": "other",
    "closed_qa": "other",
    "general_qa": "other",
    "information_extraction": "other",
    "open_qa": "other",
}


@looks_at("instruction context response category")
def adapt_dolly(row: Mapping[str, Any], source: Source) -> Example | str:
    r"""`databricks/databricks-dolly-15k`: the category is the domain, the context a passage.

    >>> example = adapt_dolly({"instruction": "When was it built?", "response": "In 1889.",
    ...     "context": "It was built in 1889.[3]", "category": "closed_qa"}, Source("dolly", ""))
    >>> example.question, example.domain
    ('When was it built?\n\nIt was built in 1889.', 'other')
    """
    category = text_of(row["category"])
    if category not in DOLLY_DOMAINS:
        return "unknown category"
    question, context = text_of(row["instruction"]), FOOTNOTE.sub("", text_of(row["context"]))
    if question and context:
        question = f"{question}\n\n{context}"
    answer = FOOTNOTE.sub("", text_of(row["response"]))
    return question_and_answer(question, answer, source, domain=DOLLY_DOMAINS[category])


@looks_at("document summary")
def adapt_xsum(row: Mapping[str, Any], source: Source) -> Example | str:
    """`EdinburghNLP/xsum`: an article, and one sentence that sums it up.

    >>> adapt_xsum({"document": "Pears fell.", "summary": "Pears."}, Source("xsum", "")).question
    'Summarise this article in one sentence.\\n\\nPears fell.'
    """
    document = text_of(row["document"])
    question = f"Summarise this article in one sentence.\n\n{document}" if document else ""
    return question_and_answer(question, text_of(row["summary"]), source)


@looks_at("question reference_answer")
def adapt_rar_science(row: Mapping[str, Any], source: Source) -> Example | str:
    """`ScaleAI/RaR-Science`: a question and a reference answer; the rubrics stay behind.

    >>> row = {"question": "Why is the sky blue?", "reference_answer": "Rayleigh scattering."}
    >>> adapt_rar_science(row, Source("rar_science", "")).checker
    'open'
    """
    return question_and_answer(text_of(row["question"]), text_of(row["reference_answer"]), source)

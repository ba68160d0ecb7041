"""Is this answer right?

A checker compares an answer with the gold one and says right or wrong, never "close". It
forgives what people write around an answer (a lead-in, bold type, a unit, a full stop, an
explanation) and never forgives a second answer: who says "yes and no", or names all the
choices, has said nothing.

An answer is read once, without a look at the gold one; only then are the two compared. So nobody
is right twice: an answer that would be right for two golds that differ is right for neither.

When the *gold* answer cannot be read, the checker says `None`: it cannot tell. Such rows
are dropped when they are loaded.
"""

import re

from submission.bench.answers.answer_text import LONGEST_ANSWER, plain_text
from submission.bench.answers.boolean_answers import check_boolean
from submission.bench.answers.choice_answers import check_choice
from submission.bench.answers.code_answers import check_code
from submission.bench.answers.math_answers import check_formula
from submission.bench.answers.number_answers import check_number
from submission.bench.answers.prompts import MORE_CHECKERS, Example
from submission.bench.answers.text_answers import check_text

# Who takes an answer back, or talks to the one who grades, has given none.
RETRACTED = re.compile(
    r"\b(?:retract|withdraw|disregard|crossed|do not count|ignore (?:the|that|this|my)|kidding"
    r"|forget (?:that|i|what)|joking|scratch that|never ?mind|take (?:that|it|this) back"
    r"|second thoughts?|graders?|edit:|a (?:yes|no) (?:here|is|would)|equally my"
    r"|both (?:are|could be) (?:possible|right))",
    re.IGNORECASE,
)
FORMAL_GOLD = re.compile(r"[\\^=√]|^\(.*\)$")  # of the kind text, but a formula


# One function stands before them all. Code is run, in a child process, against the row's tests;
# everything else is read here.


def check(example: Example, answer: str) -> bool | None:
    """Is `answer` right? None if the row has no answer that can be checked.

    Raises:
      RuntimeError: a child process that a checker needs cannot be started.
    """
    gold, question = example.answer, example.question
    if example.checker == "code":
        return check_code(answer, example.tests)
    if example.checker in MORE_CHECKERS:
        return MORE_CHECKERS[example.checker](example, answer)
    if len(gold) > LONGEST_ANSWER:
        return None
    if len(answer) > LONGEST_ANSWER or (RETRACTED.search(answer) and not RETRACTED.search(gold)):
        answer = ""
    match example.checker:
        case "number":
            right = check_number(gold, answer, question)
            right = check_formula(gold, answer, question) if right is None else right
            if right is None and gold.startswith(r"\text{"):  # "even", "Evelyn"
                return check_text(plain_text(gold), answer, (), question)
            return right
        case "choice":
            return check_choice(gold, answer, example.choices, question)
        case "boolean":
            return check_boolean(gold, answer, question)
        case "text":
            right = check_formula(gold, answer, question) if FORMAL_GOLD.search(gold) else None
            if right is not None:
                return right
            return check_text(gold, answer, example.choices, question)
    return None  # open answers have no gold to match

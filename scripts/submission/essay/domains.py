# %% [markdown]
# ### Rows of one domain
#
# Medicine, chemistry and law: an adapter for each public set turns a row into ours. Their answers
# are letters, numbers, yes or no, so that the checkers are those of all other rows.

# %%
from collections.abc import Mapping
from typing import Any

# %% tags=["modules-only"]
from submission.bench.answers.prompts import Example
from submission.bench.rows.adapters import (
    NO_ANSWER,
    choice_question,
    looks_at,
    question_and_answer,
    text_of,
    texts_of,
)
from submission.bench.settings.config import Source

# %%
VERDICTS = ("yes", "no", "maybe")
LEGAL_QUESTIONS = {  # by task: what is asked of a text
    "hearsay": "Is this evidence hearsay?",
    "personal_jurisdiction": "Has the court in this forum personal jurisdiction?",
    "proa": "Does this statute give a private right of action?",
    "telemarketing_sales_rule": "Is this a violation of the Telemarketing Sales Rule?",
    "overruling": "Does this sentence overrule an earlier case?",
    "legal_reasoning_causality": "Does the court rely on statistical evidence for causality here?",
    "definition_classification": "Does this sentence define a term?",
}


@looks_at("question options answer_idx")
def adapt_medqa(row: Mapping[str, Any], source: Source) -> Example | str:
    """`GBaker/MedQA-USMLE-4-options`: options by letter, and the letter of the right one.

    >>> row = {"question": "Which is a vitamin?", "options": {"A": "iron", "B": "retinol"},
    ...        "answer_idx": "B"}
    >>> adapt_medqa(row, Source("medqa", "")).answer
    'B'
    """
    options, key = row["options"], text_of(row["answer_idx"])
    # Arrow keeps a struct's fields for all rows, so that some may be empty in this one.
    options = {k: text_of(v) for k, v in options.items()} if isinstance(options, Mapping) else {}
    options = {letter: text for letter, text in sorted(options.items()) if text}
    if not options.get(key):
        return NO_ANSWER
    choices, right = tuple(options.values()), list(options).index(key)
    return choice_question(text_of(row["question"]), choices, right, source)


@looks_at("question context long_answer final_decision")
def adapt_pubmedqa(row: Mapping[str, Any], source: Source) -> Example | str:
    """`qiaojin/PubMedQA`: yes, no or maybe, by an abstract; its conclusion becomes the trace.

    >>> row = {"question": "Do pears help?", "context": {"contexts": ["Ten ate pears."]},
    ...        "long_answer": "They did not.", "final_decision": "no"}
    >>> example = adapt_pubmedqa(row, Source("pubmedqa", ""))
    >>> example.answer, example.question.splitlines()[:3]
    ('B', ['Do pears help?', '', 'Ten ate pears.'])
    """
    question, verdict = text_of(row["question"]), text_of(row["final_decision"]).lower()
    if verdict not in VERDICTS:
        return NO_ANSWER
    context = row["context"] if isinstance(row["context"], Mapping) else {}
    if question and (passages := texts_of(context.get("contexts"))):
        question = "\n\n".join((question, *passages))
    trace, right = text_of(row["long_answer"]), VERDICTS.index(verdict)
    return choice_question(question, VERDICTS, right, source, trace=trace)


@looks_at("problem_text answer_number unit solution source")
def adapt_scibench(row: Mapping[str, Any], source: Source) -> Example | str:
    r"""`xw27/scibench`: a number in the unit that the question then names; books by `select`.

    >>> row = {"problem_text": "What is the pressure?", "answer_number": "50.7",
    ...        "unit": r"$\mathrm{atm}$ ", "source": "atkins", "solution": ""}
    >>> adapt_scibench(row, Source("scibench", "", select=("atkins",))).question
    'What is the pressure?\nGive the number alone, in $\\mathrm{atm}$.'
    """
    if source.select and text_of(row["source"]) not in source.select:
        return "of another book"
    question, unit = text_of(row["problem_text"]), text_of(row["unit"])
    if question and unit:
        question = f"{question}\nGive the number alone, in {unit}."
    number, trace = text_of(row["answer_number"]), text_of(row.get("solution"))
    return question_and_answer(question, number.lstrip("+"), source, checker="number", trace=trace)


@looks_at("text answer")
def adapt_legalbench(row: Mapping[str, Any], source: Source) -> Example | str:
    """`nguha/legalbench`: the task, which is the source's subset, says what is asked.

    >>> row = {"text": "Ann told Ben that it rained.", "answer": "Yes"}
    >>> adapt_legalbench(row, Source("legalbench", "", subset="hearsay")).question
    'Is this evidence hearsay? Answer yes or no.\\n\\nAnn told Ben that it rained.'
    """
    text, answer = text_of(row["text"]), text_of(row["answer"]).lower()
    if answer not in ("yes", "no"):
        return NO_ANSWER
    asked = f"{LEGAL_QUESTIONS[source.subset or 'hearsay']} Answer yes or no."
    question = f"{asked}\n\n{text}" if text else ""
    return question_and_answer(question, answer, source, checker="boolean")

import ast
import doctest
import json
import math

import hub_server
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from submission.bench.answers import checkers
from submission.bench.answers.prompts import Example
from submission.bench.rows import adapters
from submission.bench.settings.config import Source
from submission.essay import profiles

# --- One row at a time ----------------------------------------------------------------------


def adapted(name, row, **fields):
    return adapters.ADAPTERS[name](row, Source(name, f"somebody/{name}", **fields))


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(adapters).failed == 0


def test_every_public_source_has_an_adapter_and_its_columns():
    used = {source.adapter for source in profiles.SOURCES.values()}
    assert used <= set(adapters.ADAPTERS)
    assert set(adapters.ADAPTERS) == set(adapters.COLUMNS)


def test_glaives_thinking_becomes_the_trace():
    row = {"prompt": " Why? ", "response": "<think>\nFirst.\n</think>\n\nBecause."}
    example = adapted("glaive", row)
    assert (example.question, example.trace, example.answer) == ("Why?", "First.", "Because.")
    assert (example.checker, example.source) == ("open", "somebody/glaive")


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("Because.", "no thinking"),
        ("<think></think>Because.", "no thinking"),
        ("<think> \n </think>Because.", "no thinking"),
        ("<think>x</think>", "no answer"),
        ("<think>x", "no thinking"),
        ("a <think>x</think> b", "no thinking"),
        ("<think>x</think> b </think> c", "no thinking"),
        ("<think>x <think>y</think> b", "no thinking"),
        (None, "no thinking"),
        (math.nan, "no thinking"),
    ],
)
def test_glaive_rows_without_one_block_of_thinking_and_an_answer_are_dropped(response, reason):
    assert adapted("glaive", {"prompt": "Why?", "response": response}) == reason


def test_gsm8k_loses_its_marks_and_its_thousands_separators():
    row = {"question": "q", "answer": "She has 48/2 = <<48/2=24>>24.\n#### 1,024"}
    example = adapted("gsm8k", row, domain="math")
    assert (example.trace, example.answer) == ("She has 48/2 = 24.", "1024")
    assert (example.checker, example.domain) == ("number", "math")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [("24", "no line ####"), ("24 ####", "no answer"), ("", "no answer"), (None, "no answer")],
)
def test_gsm8k_rows_without_a_final_number_are_dropped(answer, reason):
    assert adapted("gsm8k", {"question": "q", "answer": answer}) == reason


MBPP = {
    "task_id": 601,
    "text": "Write a function to find the longest chain.",
    "code": "def chain(a):\r\n\treturn len(a)",
    "test_list": ["assert chain([1]) == 1", "assert chain([]) == 0"],
    "test_setup_code": "",
    "challenge_test_list": ["assert chain([1, 2]) == 2"],
}


def test_mbpp_shows_its_first_test_only_and_keeps_all():
    example = adapted("mbpp", MBPP, domain="code")
    assert "assert chain([1]) == 1" in example.question
    assert "chain([])" not in example.question
    assert "chain([1, 2])" not in example.question
    assert example.tests == (*MBPP["test_list"], *MBPP["challenge_test_list"])
    assert example.answer == "def chain(a):\n\treturn len(a)"
    assert example.checker == "code"


def test_mbpps_reference_solution_passes_the_tests_of_its_row():
    example = adapted("mbpp", MBPP)
    exec("\n".join((example.answer, *example.tests)), {})


def test_the_sanitized_mbpp_has_its_task_in_another_column():
    sanitized = {k: v for k, v in MBPP.items() if k in ("task_id", "code", "test_list")}
    sanitized |= {"prompt": "Find the longest chain.", "test_imports": []}
    assert adapted("mbpp", sanitized).question.startswith("Find the longest chain.\n")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"test_setup_code": "root = Node(1)"}, "tests need code of their own"),
        ({"test_imports": ["import math"]}, "tests need code of their own"),
        ({"test_list": []}, "no tests that can be run"),
        ({"test_list": ["chain([1])"]}, "no tests that can be run"),
        ({"test_list": ["assert chain([1]) =="]}, "no tests that can be run"),
        ({"test_list": None}, "no tests that can be run"),
        ({"text": None}, "no question"),
        ({"code": ""}, "no answer"),
    ],
)
def test_mbpp_rows_that_cannot_be_checked_are_dropped(change, reason):
    assert adapted("mbpp", MBPP | change) == reason


def test_a_challenge_test_that_does_not_parse_is_left_out():
    example = adapted(
        "mbpp", MBPP | {"challenge_test_list": ["assert (", "assert chain([9]) == 1"]}
    )
    assert example.tests[2:] == ("assert chain([9]) == 1",)
    assert all(isinstance(ast.parse(test).body[0], ast.Assert) for test in example.tests)


@pytest.mark.parametrize(
    ("labels", "key", "letter"),
    [
        ("ABCD", "C", "C"),
        ("1234", "3", "C"),
        ("ABC", "A", "A"),
        ("ABCDE", "E", "E"),
        ("123", "2", "B"),
    ],
)
def test_arcs_labels_become_letters(labels, key, letter):
    texts = [f"choice {number}" for number in range(len(labels))]
    row = {
        "question": "Which?",
        "choices": {"text": texts, "label": list(labels)},
        "answerKey": key,
    }
    example = adapted("arc", row)
    assert (example.answer, example.choices) == (letter, tuple(texts))
    assert example.question.splitlines()[1:] == [
        f"{chr(65 + place)}) {text}" for place, text in enumerate(texts)
    ]
    assert checkers.check(example, letter) is True


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"answerKey": "D"}, "no answer"),
        ({"answerKey": None}, "no answer"),
        ({"choices": None}, "choices and labels do not match"),
        ({"choices": {"text": ["x"], "label": ["A", "B"]}}, "choices and labels do not match"),
        ({"choices": {"text": ["x", "x "], "label": ["A", "B"]}}, "choices are not distinct"),
        ({"choices": {"text": ["x"], "label": ["A"]}}, "choices are not distinct"),
        ({"question": " "}, "no question"),
    ],
)
def test_odd_choices_are_dropped(change, reason):
    row = {
        "question": "Which?",
        "choices": {"text": ["x", "y"], "label": ["A", "B"]},
        "answerKey": "A",
    }
    assert adapted("arc", row | change) == reason


def sciq(number):
    return {
        "question": f"What is number {number}?",
        "correct_answer": f"right {number}",
        **{f"distractor{place}": f"wrong {number} {place}" for place in (1, 2, 3)},
        "support": "",
    }


def test_sciqs_right_answer_is_at_every_place_about_as_often():
    examples = [adapted("sciq", sciq(number)) for number in range(400)]
    for place, letter in enumerate("ABCD"):
        there = [e for e in examples if e.answer == letter]
        assert 70 <= len(there) <= 130, letter
        assert all(e.choices[place].startswith("right") for e in there)


def test_sciqs_order_does_not_depend_on_the_columns_or_the_run():
    row = sciq(7)
    swapped = row | {"distractor1": row["distractor3"], "distractor3": row["distractor1"]}
    assert adapted("sciq", row).choices == adapted("sciq", swapped).choices


@pytest.mark.parametrize("support", ["", None])
def test_sciq_without_support_has_no_trace(support):
    assert adapted("sciq", sciq(1) | {"support": support}).trace == ""


@pytest.mark.parametrize(
    ("answer", "facts", "gold", "trace"),
    [
        (True, "Pears are fruit.", "yes", "Pears are fruit."),
        (False, ["Pears are fruit.", "Fruit has no wings."], "no",
         "Pears are fruit.\nFruit has no wings."),
        (True, None, "yes", ""),
        (True, [], "yes", ""),
    ],
)  # fmt: skip
def test_strategyqas_facts_are_a_text_or_a_list(answer, facts, gold, trace):
    example = adapted("strategyqa", {"question": "Can it?", "answer": answer, "facts": facts})
    assert (example.answer, example.trace, example.checker) == (gold, trace, "boolean")


@pytest.mark.parametrize("answer", ["yes", 1, None, math.nan])
def test_strategyqa_rows_whose_answer_is_no_truth_value_are_dropped(answer):
    row = {"question": "Can it?", "answer": answer, "facts": ""}
    assert adapted("strategyqa", row) == "no answer"


@pytest.mark.parametrize(
    "prompt",
    ["[WP] A pear flies.", "[ WP ] A pear flies.", "[wp]A pear flies.", "[WP][EU] A pear flies.",
     "[TT]: A pear flies.", "A pear flies.", "A pear&nbsp;flies."],
)  # fmt: skip
def test_prompts_of_writingprompts_lose_their_tags(prompt):
    example = adapted("writingprompts", {"prompt": prompt, "story": "Once."})
    assert example.question == "Write a short story from this prompt: A pear flies."


@pytest.mark.parametrize("tag", ["[OT]", "[ OT ]", "[Modpost]", "[ Modpost ]", "[CC]", "[Meta]"])
def test_what_the_site_talks_of_itself_is_no_prompt(tag):
    row = {"prompt": f"{tag} Sunday free write: leave a story", "story": "Once."}
    assert adapted("writingprompts", row) == "not a prompt"


def test_a_bracket_that_is_no_tag_stays():
    example = adapted("writingprompts", {"prompt": "[Spoilers] It ends.", "story": "Once."})
    assert example.question.endswith("[Spoilers] It ends.")


def test_stories_lose_what_the_site_left_in_them():
    story = (
        "It rained. <newline> <newline> * * * <newline> &nbsp; <newline> &gt; She\u200b said no."
    )
    example = adapted("writingprompts", {"prompt": "Rain", "story": story})
    assert example.answer == "It rained.\n\n> She said no."


@pytest.mark.parametrize(
    ("prompt", "story", "reason"),
    [
        ("[IP] The tower", "Once.", "needs a picture"),
        ("[WP] Rain", "[deleted]", "deleted"),
        ("[removed]", "Once.", "deleted"),
        ("[WP] ", "Once.", "no question"),
        ("[WP] Rain", "* * *", "no answer"),
    ],
)
def test_posts_that_cannot_be_answered_are_dropped(prompt, story, reason):
    assert adapted("writingprompts", {"prompt": prompt, "story": story}) == reason


def dolly(**change):
    row = {"instruction": "When?", "context": "", "response": "In 1889.", "category": "open_qa"}
    return adapted("dolly", row | change, domain="other")


@pytest.mark.parametrize(
    ("category", "domain"),
    [
        ("brainstorming", "ideation"),
        ("creative_writing", "creative"),
        ("summarization", "summarization"),
        ("closed_qa", "other"),
        ("classification", "other"),
    ],
)
def test_dollys_category_is_the_domain(category, domain):
    assert dolly(category=category).domain == domain


def test_dollys_passage_is_part_of_the_question_without_its_footnotes():
    example = dolly(context="It was built[2] in 1889.[citation needed]", response="1889.[2]")
    assert example.question == "When?\n\nIt was built in 1889."
    assert example.answer == "1889."


def test_a_dolly_category_that_is_not_known_is_a_reason():
    assert dolly(category="poetry") == dolly(category=None) == "unknown category"


def turns(*roles_and_texts):
    return [{"role": role, "content": content} for role, content in roles_and_texts]


@pytest.mark.parametrize(
    ("messages", "tokens", "reason"),
    [
        (turns(("user", "q"), ("assistant", "<think>t</think>a")), 4097,
         "over 4096 tokens of its own"),
        (turns(("user", "q"), ("assistant", "a")), 9, "no thinking"),
        (turns(("user", "q")), 9, "not one turn of each side"),
        (turns(("user", "q"), ("assistant", "a"), ("user", "b"), ("assistant", "c")), 9,
         "not one turn of each side"),
        (turns(("system", "s"), ("user", "q")), 9, "not one turn of each side"),
        (None, 9, "not one turn of each side"),
        ("text", 9, "not one turn of each side"),
        (turns(("user", None), ("assistant", "<think>t</think>a")), 9, "no question"),
    ],
)  # fmt: skip
def test_conversations_that_are_not_question_thinking_answer_are_dropped(messages, tokens, reason):
    assert adapted("mixture_of_thoughts", {"messages": messages, "num_tokens": tokens}) == reason


def test_long_conversations_are_dropped_before_they_are_looked_at():
    assert adapted("mixture_of_thoughts", {"messages": None, "num_tokens": 90_000}).startswith(
        "over"
    )


# Whatever stands in the columns, an adapter gives an Example or a reason.
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from(["<think>a</think>b", "#### 3", "[WP] x", "A", "open_qa", "assert f(1)"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["text", "label", "role", "content"]), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


@pytest.mark.parametrize("name", adapters.ADAPTERS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_row_is_an_error(name, data):
    row = {column: data.draw(ANYTHING) for column in adapters.COLUMNS[name]}
    result = adapted(name, row)
    assert isinstance(result, Example | str)
    if isinstance(result, str):
        assert 0 < len(result) < 60  # a reason that can be counted, not the row itself
    else:
        assert result.question
        assert result.answer
        json.dumps(result.columns())  # all of it is plain text and numbers


@pytest.mark.parametrize("name", adapters.ADAPTERS)
def test_a_column_that_is_not_there_is_an_error(name):
    with pytest.raises(KeyError):
        adapted(name, {"unrelated": 1})


# --- End to end: the real client, true schemas, from a hub on this machine ---------------------

TEXT, TEXTS = pa.string(), pa.list_(pa.string())


def columns(*names, **others):
    return pa.schema([*((name, TEXT) for name in names), *others.items()])


TURNS = turns(("user", "Why is the sky blue?"), ("assistant", "<think>Air.</think>Scattering."))
# Per source: where its file lies, the schema of the file, a row, and what becomes of it.
PUBLISHED = {
    "glaive": (
        "data/train-00000-of-00001.parquet",
        columns("prompt", "response"),
        {"prompt": "Why?", "response": "<think>\nHm.\n</think>\n\nSo."},
        {"question": "Why?", "trace": "Hm.", "answer": "So.", "domain": "other"},
    ),
    "gsm8k": (
        "main/train-00000-of-00001.parquet",
        columns("question", "answer"),
        {"question": "Half of 48?", "answer": "It is 48/2=<<48/2=24>>24.\n#### 24"},
        {"answer": "24", "trace": "It is 48/2=24.", "checker": "number", "domain": "math"},
    ),
    "mbpp": (
        "full/train-00000-of-00001.parquet",
        pa.schema(
            [("task_id", pa.int32()), ("text", TEXT), ("code", TEXT), ("test_list", TEXTS),
             ("test_setup_code", TEXT), ("challenge_test_list", TEXTS)]
        ),
        MBPP,
        {"checker": "code", "tests": [*MBPP["test_list"], *MBPP["challenge_test_list"]]},
    ),
    "arc_easy": (
        "ARC-Easy/train-00000-of-00001.parquet",
        columns("id", "question", choices=pa.struct([("text", TEXTS), ("label", TEXTS)]),
                answerKey=TEXT),
        {"id": "x_1", "question": "Which is a planet?", "answerKey": "2",
         "choices": {"text": ["Moon", "Mars", "Sun"], "label": ["1", "2", "3"]}},
        {"answer": "B", "choices": ["Moon", "Mars", "Sun"], "checker": "choice",
         "question": "Which is a planet?\nA) Moon\nB) Mars\nC) Sun"},
    ),
    "sciq": (
        "data/train-00000-of-00001.parquet",
        columns("question", "distractor3", "distractor1", "distractor2", "correct_answer",
                "support"),
        sciq(1) | {"support": "It is known."},
        {"checker": "choice", "trace": "It is known.", "domain": "science"},
    ),
    "strategyqa": (
        "train.jsonl",
        None,
        {"qid": "1", "question": "Can a pear fly?", "answer": False,
         "facts": ["Pears have no wings.", "Flying needs wings."]},
        {"answer": "no", "checker": "boolean", "domain": "logic",
         "trace": "Pears have no wings.\nFlying needs wings."},
    ),
    "writingprompts": (
        "data/train-00000-of-00001.parquet",
        columns("prompt", "story"),
        {"prompt": "[ WP ] A pear flies.", "story": "Once. <newline> Twice."},
        {"question": "Write a short story from this prompt: A pear flies.",
         "answer": "Once.\nTwice.", "domain": "creative"},
    ),
    "dolly": (
        "databricks-dolly-15k.jsonl",
        None,
        {"instruction": "Sum it up.", "context": "It rained.[1]", "response": "Rain.",
         "category": "summarization"},
        {"question": "Sum it up.\n\nIt rained.", "domain": "summarization"},
    ),
    "xsum": (
        "default/train/0000.parquet",
        columns("document", "summary", "id"),
        {"document": "It rained.", "summary": "Rain.", "id": "1"},
        {"question": "Summarise this article in one sentence.\n\nIt rained.", "answer": "Rain."},
    ),
    "mixture_of_thoughts": (
        "science/train-00000-of-00001.parquet",
        columns(messages=pa.list_(pa.struct([("content", TEXT), ("role", TEXT)])),
                num_tokens=pa.int64(), source=TEXT),
        {"messages": TURNS, "num_tokens": 12, "source": "somewhere"},
        {"question": "Why is the sky blue?", "trace": "Air.", "answer": "Scattering."},
    ),
    "rar_science": (
        "data/train-00000-of-00001.parquet",
        columns(
            "question", "reference_answer", "question_source",
            rubric=pa.list_(
                pa.struct([("description", TEXT), ("title", TEXT), ("weight", pa.int64())])
            ),
            rubric_list=TEXTS, rubric_count=pa.int64(),
        ),
        {"question": "Why blue?", "reference_answer": "Scattering.", "question_source": "x",
         "rubric": [{"description": "d", "title": "t", "weight": -1}], "rubric_list": ["d"],
         "rubric_count": 1},
        {"question": "Why blue?", "answer": "Scattering.", "checker": "open"},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with hub_server.reading_hub(str(tmp_path_factory.mktemp("hf"))) as hub_and_reader:
        yield hub_and_reader


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_row_of_the_published_schema_arrives_as_an_example(served, name):
    hub, read = served
    source = profiles.SOURCES[name]
    path, schema, row, expected = PUBLISHED[name]
    empty = dict.fromkeys(row)  # a row of nulls must be a reason, not an error
    if schema is None:
        files = {path: hub_server.json_lines([row, empty, row | {"facts": "As a text."}])}
    else:
        files = {path: hub_server.parquet([row, empty, row], schema)}
    if source.subset:
        files["README.md"] = hub_server.card(**{source.subset: {"train": path}})
    ref = "refs/convert/parquet" if name == "xsum" else "main"
    commit = hub.add(source.location, files, ref=ref)
    if source.revision and source.revision != ref:
        hub.repositories[source.location].refs[source.revision] = commit
    names = ("adapter", "location", "subset", "split", "revision", "domain")
    done = read({name: getattr(source, name) for name in names})
    assert done.error is None, done.error
    first, nothing, last = done.rows
    assert {field: first[field] for field in expected} == expected
    assert first["checker"] == source.checker
    assert first["source"] == source.location
    assert isinstance(nothing, str)
    if name == "strategyqa":
        assert last["trace"] == "As a text."
    else:
        assert last == first
    if first["checker"] in ("number", "choice", "boolean"):
        example = Example(**first | {"choices": tuple(first["choices"])})
        assert checkers.check(example, first["answer"]) is True


def test_every_public_source_was_served():
    adapters_served = {profiles.SOURCES[name].adapter for name in PUBLISHED}
    ours = {name for name, f in adapters.ADAPTERS.items() if f.__module__ == adapters.__name__}
    assert adapters_served == ours  # those of a recipe are tested with it

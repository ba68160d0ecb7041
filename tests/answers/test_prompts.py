import json

import pytest

from submission.bench.answers import prompts

GOOD = "<reasoning>6*7=42</reasoning><answer>42</answer>"


@pytest.mark.parametrize(
    "text", [GOOD, f"  {GOOD}\n", GOOD.replace("><answer", ">\n\n<answer"), GOOD.replace("=", "\n")]
)
def test_in_format(text):
    completion = prompts.parse(text)
    assert completion.in_format
    assert completion.answer == "42"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "42",
        f"So: {GOOD}",
        f"{GOOD} I hope this helps.",
        f"{GOOD}<answer>43</answer>",
        f"{GOOD}{GOOD}",
        f"{GOOD}<end_of_turn>",
        GOOD.replace("=", "<end_of_turn>\n<start_of_turn>user\n"),
        GOOD.replace("=", "<Answer>9</Answer>"),
        f"{GOOD}{prompts.CUT_MARK}",
        "<answer>42</answer><reasoning>6*7</reasoning>",
        "<reasoning></reasoning><answer>42</answer>",
        "<reasoning>6*7</reasoning><answer> \n</answer>",
        "<reasoning>6*7</reasoning>42<answer>42</answer>",
        "<reasoning>6*7<answer>42</answer></reasoning>",
        "<REASONING>6*7</REASONING><ANSWER>42</ANSWER>",
        "<reasoning>6*7</reasoning><answer>42",
        f"{GOOD}< answer >43</ answer >",
        GOOD.replace("6*7", "6*7 </Reasoning >"),
        GOOD.replace("=42<", "=42\uff1canswer\uff1e43<"),
        GOOD.replace("6*7=42", "6*7 <\u0430nswer>43</\u0430nswer>"),
        GOOD.replace("6*7=42", "6*7 <answer id=1>43</answer id>"),
        GOOD.replace("6*7=42", "\u200b\u200b"),
        GOOD.replace("6*7=42", "\u2800"),
        GOOD.replace(">42<", ">\u200b<"),
    ],
)
def test_out_of_format(text):
    assert not prompts.parse(text).in_format


def test_comparisons_with_a_variable_called_answer_are_no_tags():
    assert prompts.parse(GOOD.replace("6*7", "if x < answer or answer > y: 6*7")).in_format


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (GOOD, "42"),
        ("The answer is 42.<end_of_turn>\n<start_of_turn>user", "The answer is 42."),
        ("6*7=42\n42<end_of_turn>\n", "42"),
        ("<answer>42", "42"),
        ("<answer>42</answer> or so", "42"),
        ("<reasoning>6*7</reasoning>42", "42"),
        (f"{GOOD}{prompts.CUT_MARK}", "42"),
        ("", ""),
    ],
)
def test_lenient_answer(text, answer):
    assert prompts.parse(text).lenient_answer == answer


def test_the_template_has_one_placeholder_and_gemmas_newline_and_no_bos():
    assert prompts.PROMPT_TEMPLATE.count("{question}") == 1
    assert prompts.PROMPT_TEMPLATE.replace("{question}", "").count("{") == 0
    assert prompts.PROMPT_TEMPLATE.endswith("<start_of_turn>model\n")
    assert "<bos>" not in prompts.PROMPT_TEMPLATE


def test_braces_in_a_question_stay():
    assert "{x} {" in prompts.render_prompt("{x} {")


def test_list_fields_travel_as_json():
    columns = prompts.Example("q", "A", "choice", choices=("1", "2")).columns()
    assert json.loads(columns["choices"]) == ["1", "2"]
    assert columns["tests"] == "[]"


def test_a_missing_field_is_named_with_its_place():
    with pytest.raises(ValueError, match=r"rows.jsonl, line 3.*'answer'"):
        prompts.example_from_mapping({"question": "q"}, "rows.jsonl, line 3")


def test_an_unknown_checker_is_named():
    row = {"question": "", "answer": "", "checker": "guess", "domain": "", "source": ""}
    with pytest.raises(ValueError, match=r"line 1: unknown checker 'guess'"):
        prompts.example_from_mapping(row, "line 1")

import pytest

from submission.bench.answers import prompts
from submission.bench.answers.prompts import Example
from submission.bench.policy import model
from submission.bench.run import budget
from submission.bench.show import evaluate
from submission.essay import profiles


def answered(text, example, tokens=5, stopped=True):
    return evaluate.judge(example, prompts.parse(text), tokens, stopped)


GOOD = "<reasoning>6*7=42.</reasoning><answer>42</answer>"
ROW = Example("6*7?", "42", "number", domain="math")


def test_strict_and_lenient_accuracy_differ_by_the_format():
    rows = [
        answered(text, ROW) for text in (GOOD, "42", "41", GOOD.replace("<answer>42", "<answer>1"))
    ]
    summary = evaluate.summarise(rows)
    assert (summary["n"], summary["format"]) == (4, 0.5)
    assert (summary["accuracy"], summary["accuracy_lenient"]) == (0.25, 0.5)
    assert summary["accuracy_ci95"][0] < 0.25 < summary["accuracy_ci95"][1]
    assert summary["by_domain"]["math"]["n"] == 4


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("Altogether she sold 48 + 24 = 42 clips.<end_of_turn>", True),
        ("First 48.\n\nSo she sold a total of **42** clips in May.", True),
        ("The total is 42, not 43.", False),
        ("42\nI do not know.", False),
    ],
)
def test_the_last_number_of_the_last_line_counts_leniently(text, right):
    assert evaluate.is_right_leniently(prompts.parse(text), ROW) is right


def test_open_rows_do_not_count_in_the_accuracy():
    rows = [answered(GOOD, ROW), answered(GOOD, Example("Write a poem.", "", "open"))]
    summary = evaluate.summarise(rows)
    assert summary["n"] == 1
    assert summary["open_score"] == 0.0  # "42" is no poem
    assert summary["open_by_domain"]["other"]["format"] == 1.0


def test_an_open_answer_without_tags_scores_leniently_only():
    story = "The fox crossed the frozen lake at dusk, and it left a thin line of prints behind. "
    told = answered(story, Example("Write about a fox.", "", "open", domain="creative"))
    summary = evaluate.summarise([told])
    assert summary["open_score"] == 0.0 < summary["open_score_lenient"]


def test_without_open_rows_there_is_no_open_score():
    assert evaluate.summarise([answered(GOOD, ROW)])["open_score"] is None


def test_a_program_counts_leniently_without_tags():
    row = Example("Double x.", "", "code", domain="code", tests=("assert f(2) == 4",))
    program = "```python\ndef f(x):\n    return 2 * x\n```"
    stock, wrong = answered(program, row), answered(program.replace("2 *", "3 *"), row)
    assert (stock.right, stock.right_leniently) == (False, True)
    assert not wrong.right_leniently
    assert evaluate.summarise([stock, wrong])["accuracy_lenient"] == 0.5


@pytest.mark.parametrize("checker", ["code", "open"])
def test_what_a_model_says_after_its_turn_does_not_count(checker):
    """Stock Gemma goes on after `<end_of_turn>`: the judges' sampler stops at EOS only."""
    row = Example("Write about a fox.", "", checker, tests=("assert f(2) == 4",))
    said = {
        "code": "```python\ndef f(x):\n    return 2 * x\n```",
        "open": "The fox crossed the frozen lake at dusk, and it left a thin line of prints.",
    }[checker]
    alone, followed = (answered(text, row) for text in (said, f"{said}<end_of_turn>\nx = = 1 No"))
    assert followed.right_leniently == alone.right_leniently == (checker == "code")
    assert followed.open_score_lenient == alone.open_score_lenient


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (5, 10), (0, 0)])
def test_the_interval_contains_the_share_and_stays_in_range(successes, n):
    low, high = evaluate.wilson(successes, n)
    share = successes / n if n else 0.5
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1


def test_batches_do_not_change_the_answers(make_policy, tokenizer, rows):
    lengths = profiles.TINY.lengths
    sampler = model.make_sampler(make_policy(), tokenizer, lengths.prompt + lengths.completion)
    first = rows["held_out"].examples[:10]

    def texts(batch_size):
        answers = evaluate.answer_greedily(
            sampler, first, batch_size, lengths.prompt, lengths.completion
        )
        return [a.completion.text for a in answers]

    assert texts(10) == texts(4)  # 4 + 4 + 2, the last batch filled up
    assert len(texts(10)) == 10


def test_stock_gemma_knows_some_answers_and_no_tags(make_policy, tokenizer, rows):
    lengths = profiles.TINY.lengths
    sampler = model.make_sampler(make_policy(), tokenizer, lengths.prompt + lengths.completion)
    answers = evaluate.answer_greedily(
        sampler, rows["held_out"].examples[:200], 200, lengths.prompt, lengths.completion
    )
    summary = evaluate.summarise(answers)
    assert summary["format"] <= 0.05
    assert 0.2 < summary["accuracy_lenient"] < 0.8


@pytest.mark.parametrize(
    ("lost", "won", "worse"),
    [(0, 0, False), (3, 0, False), (4, 0, True), (30, 20, False), (40, 20, True), (20, 40, False)],
)
def test_worse_is_what_chance_does_not_explain(lost, won, worse):
    right, wrong = answered(GOOD, ROW), answered("41", ROW)
    before = [right] * lost + [wrong] * won + [right, wrong] * 50
    after = [wrong] * lost + [right] * won + [right, wrong] * 50
    assert evaluate.worse_beyond_noise(before, after) == worse


def test_of_several_better_evaluations_the_best_is_taken():
    right, wrong = answered(GOOD, ROW), answered("41", ROW)
    last = [wrong] * 50
    some, more, little = ([right] * n + [wrong] * (50 - n) for n in (20, 30, 2))
    assert evaluate.better_one({"a": some, "b": more, "c": little}, last) == "b"
    assert evaluate.better_one({"c": little}, last) is None
    assert evaluate.better_one({}, last) is None


def test_answers_are_kept_and_judged_anew(tmp_path):
    rows = [answered(GOOD, ROW), answered("Six sevens: 42.", ROW, tokens=7, stopped=False)]
    evaluate.write_answers(tmp_path / "a.json", rows, 12.5)
    assert evaluate.read_answers(tmp_path / "a.json", [ROW, ROW]) == (rows, 12.5)
    # Where time was short, fewer rows were answered than there are.
    assert evaluate.read_answers(tmp_path / "a.json", [ROW] * 3) == (rows, 12.5)
    other = Example("7*7?", "49", "number")
    assert evaluate.read_answers(tmp_path / "a.json", [other, ROW]) is None
    assert evaluate.read_answers(tmp_path / "none.json", [ROW]) is None


def test_an_evaluation_without_time_answers_a_batch_and_says_so(
    make_policy, tokenizer, rows, capsys
):
    held_out = rows["held_out"].examples[:24]
    sampler = model.make_sampler(make_policy(), tokenizer, 128)
    late = budget.Deadline.after(0)
    found = evaluate.answer_greedily(sampler, held_out, 8, 48, 80, late)
    assert len(found) == 8
    assert "Time for 8 of 24 held-out rows only." in capsys.readouterr().out


def test_a_signal_ends_an_evaluation_before_its_next_batch(make_policy, tokenizer, rows, capsys):
    """Of many rows, it would be minutes until it was heard."""
    sampler, batches = model.make_sampler(make_policy(), tokenizer, 128), []

    def check():
        if batches:
            raise budget.StoppedBySignalError("SIGTERM")
        batches.append(1)

    with pytest.raises(budget.StoppedBySignalError):
        evaluate.answer_greedily(
            sampler, rows["held_out"].examples[:24], 8, 48, 80, before_batch=check
        )
    assert capsys.readouterr().out == ""


def test_a_long_evaluation_says_how_far_it_is(make_policy, tokenizer, rows, capsys, monkeypatch):
    monkeypatch.setattr(evaluate, "QUIET_SECONDS", 0.0)
    sampler = model.make_sampler(make_policy(), tokenizer, 128)
    assert len(evaluate.answer_greedily(sampler, rows["held_out"].examples[:16], 8, 48, 80)) == 16
    assert capsys.readouterr().out == "  8 of 16 held-out rows are answered\n"

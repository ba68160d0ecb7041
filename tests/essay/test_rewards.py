import math
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest
from tunix.rl import reward_manager
from tunix.rl.grpo import grpo_learner

from submission.bench.answers import prompts, scoring
from submission.bench.settings.config import Rewards
from submission.essay import rewards

SCRIPTS = pathlib.Path(__file__).resolve().parent.parent.parent / "scripts"
RIGHT = (
    "<reasoning>There are 6 baskets of 7 pears, and 6 times 7 is 42.</reasoning><answer>42</answer>"
)
WRONG = RIGHT.replace("42</answer>", "41</answer>")
COLUMNS = {"answer": ["42"], "checker": ["number"]}


def reward(text, **columns):
    return rewards.combined([""], [text], **{**COLUMNS, **columns})[0]


def test_right_earns_all_and_wrong_little():
    assert reward(RIGHT) == pytest.approx(1.0)
    assert reward(WRONG) == pytest.approx(0.1)
    assert reward(RIGHT) >= reward(WRONG) + 0.3


@pytest.mark.parametrize(
    "text", ["42", f"{RIGHT} {RIGHT}", f"{RIGHT}!", RIGHT + prompts.CUT_MARK, ""]
)
def test_out_of_format_earns_nothing(text):
    assert reward(text) == 0.0


def test_the_examples_beside_the_code_are_true():
    """The prose of the chapter shows what passes each part and what does not."""
    question, trace = {"question": ["What is 6 times 7?"]}, "<reasoning>6*7</reasoning>"

    def part(name, said, after="", **columns):
        text = f"{trace}<answer>{said}</answer>{after}"
        return rewards.components([""], [text], **{**question, **COLUMNS, **columns})[name][0]

    assert part("in_format", "42") == 1.0
    assert part("in_format", "42", after=" yes") == 0.0
    assert [part("right", x) for x in ("42.0", "forty-two", "42 or 43")] == [1.0, 1.0, 0.0]
    assert part("length", "42") > part("length", "43") == 0.0
    jar = {"question": ["Name a use for an old jar"], "answer": [""], "checker": ["open"]}
    trace = "<reasoning>What is small and gets lost at home? Buttons. A jar shows them.</reasoning>"
    good = "Keep buttons in an old jar, sorted by colour, on the window sill where light falls in."
    assert part("open", good, **jar) > 0.2
    assert part("open", "It depends on many factors.", **jar) == 0.0


def test_length_pays_only_with_a_right_answer():
    long = "<reasoning>" + "word " * 500 + "</reasoning><answer>{}</answer>"
    assert reward(long.format(42)) < reward(RIGHT)
    assert reward(long.format(41)) == reward(WRONG)


def test_the_length_band_is_flat_and_its_slopes_are_clamped():
    band = Rewards(shortest=4, longest=10, slope=10)

    def at(words):
        return rewards.reward_length(prompts.Completion("", True, "w " * words, "x"), band)

    assert [at(n) for n in (1, 2, 4, 7, 10)] == [0.25, 0.5, 1.0, 1.0, 1.0]
    assert [at(n) for n in (15, 20, 21, 30, 1000)] == [0.5, 0.0, 0.0, 0.0, 0.0]
    beyond = [at(n) for n in range(10, 200)]
    assert beyond == sorted(beyond, reverse=True)  # never climbs again


def test_rewards_do_not_depend_on_batch_mates():
    texts = [RIGHT, WRONG, "42", RIGHT]
    columns = {name: values * 4 for name, values in COLUMNS.items()}
    together = rewards.combined([""] * 4, texts, **columns)
    assert together == [reward(text) for text in texts]
    assert rewards.combined([""] * 4, texts[::-1], **columns) == together[::-1]


def test_choices_may_be_a_list_or_json():
    for choices in (["18", "42"], '["18", "42"]'):
        assert reward(RIGHT, checker=["choice"], answer=["B"], choices=[choices]) == 1.0


@pytest.mark.parametrize("empty", [None, "", "null", "[]", float("nan"), ()])
def test_empty_list_columns_are_empty_lists(empty):
    assert reward(RIGHT, choices=[empty], tests=[empty]) == 1.0


def test_a_missing_question_is_an_empty_one():
    assert reward(RIGHT, question=[None]) == 1.0


def test_dots_are_no_words_of_a_trace():
    dots = RIGHT.replace(prompts.parse(RIGHT).reasoning, "so " + ". " * 12)
    assert reward(dots) < reward(RIGHT)


def test_the_columns_of_the_learner_are_taken_as_numpy_arrays():
    columns = {name: np.array(values) for name, values in COLUMNS.items()}
    extra = {"trajectory_ids": ["0_0"], "mode": "train"}
    assert rewards.combined([""], np.array([RIGHT]), **columns, **extra) == [1.0]


def test_a_column_of_another_length_is_named():
    with pytest.raises(ValueError, match="'answer' has 2 values for 1 completions"):
        rewards.combined([""], [RIGHT], answer=["42", "43"], checker=["number"])


def test_a_missing_column_is_named():
    with pytest.raises(ValueError, match="'checker'"):
        rewards.combined([""], [RIGHT], answer=["42"])


def test_components_are_named_and_unweighted():
    parts = rewards.components([""], [RIGHT], **COLUMNS)
    expected = {"in_format": [1.0], "right": [1.0], "length": [1.0], "open": [0.0], "partly": [0.0]}
    assert parts == expected


def manager(function):
    config = grpo_learner.GRPOConfig(num_generations=2)
    return reward_manager.SequenceRewardManager([function], config)


def test_trap_9_tunix_counts_a_nan_reward_as_zero_and_ours_stops():
    def broken(prompts, completions, **columns):
        return [math.nan]

    stock = manager(broken)(prompts=["p"], completions=[RIGHT])
    assert stock["rewards"].tolist() == [0.0]  # silently

    with pytest.raises(ValueError, match="The reward is nan"):
        rewards.total({"in_format": 1.0, "right": math.nan, "length": 0.0}, Rewards())
    ours = manager(rewards.Scorer(Rewards(right=math.nan)))
    with pytest.raises(ValueError, match="The reward is nan"):
        ours(prompts=["p"], completions=[RIGHT], **COLUMNS)


def test_trap_9_tunix_fills_in_parameters_named_like_its_settings_and_ours_has_none():
    seen = {}

    def with_beta(prompts, completions, beta=7.0, **columns):
        seen["beta"] = beta
        return [0.0]

    manager(with_beta)(prompts=["p"], completions=[RIGHT])
    assert seen["beta"] == 0.04  # Tunix's own default of the KL weight
    # Ours passes through the same manager unharmed: it takes nothing by such a name.
    result = manager(rewards.combined)(prompts=["p"], completions=[RIGHT], **COLUMNS)
    assert result["rewards"].tolist() == [1.0]


# --- Failures: counted, shown, bounded --------------------------------------------------------


@pytest.fixture
def broken_checker(monkeypatch):
    def fail(example, answer):
        raise OSError("no process could be started")

    monkeypatch.setattr(rewards, "check", fail)


def test_a_failure_is_counted_and_does_not_pay(broken_checker):
    scorer = rewards.Scorer(Rewards())
    with pytest.warns(UserWarning, match="'right' failed: OSError: no process could be started"):
        assert scorer([""], [RIGHT], **COLUMNS) == [pytest.approx(0.1)]
    assert scorer.tally.failed == {"right": 1}


@pytest.mark.filterwarnings("ignore:The reward part")
def test_too_many_failures_stop_the_run(broken_checker):
    scorer = rewards.Scorer(Rewards())
    columns = {name: values * 30 for name, values in COLUMNS.items()}
    with pytest.raises(scoring.RewardError, match=r"'right' has failed 21 of 21 times.*OSError"):
        scorer([""] * 30, [RIGHT] * 30, **columns)


@pytest.mark.filterwarnings("ignore:The reward part")
def test_few_failures_among_many_do_not_stop_the_run():
    tally = scoring.Tally(most=0.1)
    for i in range(1000):
        tally.attempt("x", (lambda: 1 / 0) if i % 20 == 0 else (lambda: 1.0), 0.0)
    assert (tally.failed["x"], tally.tried["x"]) == (50, 1000)


def test_a_part_that_is_not_a_number_is_a_failure():
    tally = scoring.Tally(most=0.1)
    with pytest.warns(UserWarning, match="the value is nan"):
        assert tally.attempt("x", lambda: math.nan, 0.0) == 0.0


def hang_in_python():
    while True:
        pass


@pytest.mark.parametrize("hang", [hang_in_python, lambda: time.sleep(30)])
def test_a_scoring_that_hangs_is_a_failure_and_costs_no_more_than_its_time(hang):
    tally = scoring.Tally(most=0.1, seconds=0.3)
    start = time.monotonic()
    with pytest.warns(UserWarning, match="TimeoutError: no answer after 0.3 seconds"):
        assert tally.attempt("x", hang, 0.0) == 0.0
    assert time.monotonic() - start < 3


# --- What a configuration can ask for ---------------------------------------------------------


def test_a_part_that_this_notebook_lacks_is_named():
    with pytest.raises(ValueError, match=r"no reward part 'no_such_part' here.*--recipe"):
        rewards.Scorer(Rewards(extras={"no_such_part": 0.1}))


def test_an_extra_part_cannot_push_the_reward_past_one(monkeypatch):
    monkeypatch.setitem(scoring.EXTRA_PARTS, "all", lambda texts, *_: [1.0] * len(texts))
    scorer = rewards.Scorer(Rewards(extras={"all": 0.2}))
    assert scorer([""], [RIGHT], **COLUMNS) == [pytest.approx(1.0)]
    assert scorer([""], [WRONG], **COLUMNS) == [pytest.approx(0.3 / 1.2)]


def test_weights_move_with_the_progress_and_arrive():
    weights = Rewards(right=0.8, late={"right": 0.4, "length": 0.5})
    scorer = rewards.Scorer(weights)
    now = [scoring.current_weights(weights, p)["right"] for p in (0.0, 0.5, 1.0, 2.0)]
    assert now == [0.8, pytest.approx(0.6), 0.4, 0.4]
    scorer.context.progress = 1.0
    assert scorer([""], [RIGHT], **COLUMNS) == [pytest.approx(1.0)]


def test_a_partial_format_earns_nothing_unless_the_configuration_says_so():
    half = "<reasoning>6*7</reasoning> 42"
    assert rewards.Scorer(Rewards())([""], [half], **COLUMNS) == [0.0]
    assert rewards.Scorer(Rewards(partly=0.1))([""], [half], **COLUMNS) == [pytest.approx(0.05)]
    assert rewards.Scorer(Rewards(partly=0.1))([""], [WRONG], **COLUMNS) == [pytest.approx(0.1)]


def test_reward_and_metrics_score_a_batch_once(monkeypatch):
    calls = []
    check = rewards.check
    monkeypatch.setattr(rewards, "check", lambda e, a: calls.append(a) or check(e, a))
    scorer = rewards.Scorer(Rewards())
    scorer([""], [RIGHT], **COLUMNS)
    scorer.parts([RIGHT], COLUMNS)
    assert len(calls) == 1
    scorer.parts([RIGHT], {**COLUMNS, "answer": ["41"]})  # another row: scored anew
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("text", "in_format", "right", "partly"),
    [
        ("<reasoning>6*7</reasoning><answer>42</answer>", 1.0, 1.0, 0.0),
        ("<reasoning>6*7</reasoning><answer>43</answer>", 1.0, 0.0, 0.0),
        ("<answer>42</answer>", 0.0, 0.0, 0.5),
        ("<reasoning>6*7</reasoning> 42", 0.0, 0.0, 0.5),
    ],
)
def test_each_part_passes_and_fails(text, in_format, right, partly):
    row, said = prompts.Example("6 times 7?", "42", "number"), prompts.parse(text)
    assert rewards.reward_format(said) == in_format
    assert rewards.reward_right(said, row) == right
    assert rewards.reward_partly(said) == partly


@pytest.mark.parametrize(("words", "value"), [(1, 0.5), (3, 1.0), (5, 0.75), (6, 0.5), (99, 0.0)])
def test_the_length_band_is_flat_in_the_middle_and_never_climbs_again(words, value):
    band = Rewards(shortest=2, longest=4, slope=4)
    said = prompts.Completion("", True, "word " * words, "x")
    assert rewards.reward_length(said, band) == value


def test_the_package_s_face_is_the_reward_and_needs_no_jax():
    code = (
        "import sys; from submission import combined, components, parse\n"
        "good = '<reasoning>6 times 7</reasoning><answer>42</answer>'\n"
        "columns = dict(answer=['42'], checker=['number'], choices=['[]'], tests=[[]])\n"
        "assert combined(['6*7?'], [good], **columns)[0] > 0.9\n"
        "assert components(['6*7?'], [good], **columns)['right'] == [1.0]\n"
        "assert parse(good).in_format and 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=SCRIPTS)

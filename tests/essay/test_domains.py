"""Rows of one domain: public sets in the hub's own schema, read by the real client, and robots."""

import dataclasses
import itertools
import json

import pytest
import robots

from submission.bench.answers.checkers import check
from submission.bench.answers.prompts import Example
from submission.bench.rows import data, prepared, reading
from submission.bench.settings import config
from submission.bench.settings.config import Source
from submission.essay import (
    domains,
    profiles,
    recipes,
    robotics,
)

ROWS = {
    "medqa": {
        "question": "A man has a cold. Which is best?",
        "options": {"A": "Rest", "B": "Surgery", "C": "Leeches", "D": "Gold"},
        "answer": "Rest", "answer_idx": "A", "meta_info": "step1",
    },
    "pubmedqa": {
        "pubid": 1, "question": "Do pears help?", "context": {"contexts": ["Ten ate pears."]},
        "long_answer": "It is not known.", "final_decision": "maybe",
    },
    "scibench": {
        "problem_text": "How much heat?", "answer_number": "+7.3", "answer_latex": " +7.3",
        "unit": "kJ", "source": "atkins", "problemid": "1", "solution": "",
    },
    "legalbench": {"index": "0", "text": "Ann told Ben that it rained.", "answer": "No"},
}  # fmt: skip
GOLD = {"medqa": "A", "pubmedqa": "C", "scibench": "7.3", "legalbench": "no"}
BAD = {
    "medqa": {"answer_idx": "E"}, "pubmedqa": {"final_decision": None},
    "scibench": {"source": "calculus"}, "legalbench": {"answer": "Maybe"},
}  # fmt: skip
SOURCES = {
    source.adapter: source
    for source in (recipes.MEDQA, recipes.PUBMEDQA, recipes.SCIBENCH, recipes.LEGALBENCH[0])
}


@pytest.mark.parametrize("name", ROWS)
def test_a_set_in_the_hubs_schema_is_read_and_its_answers_pass_their_checker(name, tmp_path):
    lines = [ROWS[name], ROWS[name] | BAD[name]]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    source = dataclasses.replace(SOURCES[name], location=str(tmp_path), split="train")
    # A folder has no subsets, but the task says what is asked.
    adapt = dataclasses.replace(source, subset=None)
    good, bad = reading.read_source(adapt)
    assert good.answer == GOLD[name]
    assert good.domain == source.domain
    assert not data.gold_fault(good)
    assert isinstance(bad, str)


def test_each_legal_task_has_its_question():
    assert set(domains.LEGAL_QUESTIONS) == set(recipes.LEGAL_TASKS)


@pytest.mark.parametrize("name", ["medical", "chemistry", "legal"])
def test_no_row_of_a_domain_is_both_held_out_and_trained_on(name):
    profile = recipes.RECIPES[name].applied(profiles.KAGGLE)
    for held_out, trained in itertools.product(profile.evaluation.sources, profile.grpo_sources):
        if (held_out.location, held_out.subset) == (trained.location, trained.subset):
            assert held_out.split != trained.split or held_out.look == trained.skip > 0


def test_rows_are_skipped_and_looked_at_in_the_order_of_the_source(tokenizer):
    whole = Source("bundled", profiles.BUNDLED, ("tasks/sft/",))

    def rows(**changes):
        source = dataclasses.replace(whole, **changes)
        return data.load_mixture(
            [source], tokenizer, config.Lengths(200, 200), needs_trace=True, minimum_kept=0.5
        )

    everything = rows().examples
    parts = [rows(look=1000), rows(skip=1000)]
    assert sum((part.examples for part in parts), ()) == everything
    assert parts[0].counts[0].read == 1000


def test_the_two_sets_of_zero_cost_follow_each_other():
    first, next_ = (
        recipes.RECIPES[name].applied(profiles.KAGGLE).sft_sources["warm_start_grpo"][0]
        for name in ("zero_cost", "zero_cost_continue")
    )
    assert (first.skip, first.look) == (0, 180_000)
    assert (next_.skip, next_.look) == (180_000, 100_000)
    rates = [
        recipes.RECIPES[name].applied(profiles.KAGGLE).sft.optimizer.peak_rate
        for name in ("zero_cost", "zero_cost_continue")
    ]
    assert rates == pytest.approx([2e-5, 5e-6])


def test_a_recipe_whose_sources_are_off_is_refused_before_anything_is_read():
    run = profiles.read_run({"PROFILE": "tiny"}, "cpu")
    run = config.changed(run, {"profile": {"grpo_sources": ()}})
    with pytest.raises(ValueError, match="no rows for grpo in profile 'tiny': all of its sources"):
        prepared.read_rows(run, tokenizer=None)


# --- Robots -------------------------------------------------------------------------------------

WORLD = {"size": 4, "robot": [0, 0], "box": [1, 0], "goal": [1, 2], "walls": [[0, 1]]}


@pytest.mark.parametrize(
    ("plan", "works"),
    [
        ("E G N N P", True),
        ("east, grab, north, north, put.", True),
        ("E G E N N W P", True),  # a longer way
        ("E G N N", False),  # still carried
        ("E N N", False),  # without the box
        ("N", False),  # into a wall
        ("W E E G N N P", False),  # off the floor
        ("G E G N N P", False),  # grabs at nothing
        ("E G N N P E", True),  # the box stays where it is
        ("E G P E N W G N P", False),  # nothing there to grab
        ("", False),
        ("go east", False),
        ("E G N N P " * 30, False),  # too many steps
        ("E W " * 24 + "E G", False),
    ],
)
def test_a_plan_is_right_if_it_works(plan, works):
    example = Example("", "E G N N P", "plan", tests=(json.dumps(WORLD),))
    assert check(example, plan) is works


def test_a_robot_alone_has_to_end_at_the_goal():
    world = {**WORLD, "box": None, "robot": [1, 0]}
    example = Example("", "N N", "plan", tests=(json.dumps(world),))
    assert [check(example, plan) for plan in ("N N", "N N N", "N")] == [True, False, False]


def test_a_row_without_a_world_cannot_be_checked():
    assert check(Example("", "N", "plan"), "N") is None


def test_the_bundled_robots_are_those_that_the_generator_makes(tmp_path):
    robots.main(tmp_path / "robots.jsonl")
    made = (tmp_path / "robots.jsonl").read_bytes()
    assert made == (robots.DATA / "robots.jsonl").read_bytes()
    questions = [json.loads(line)["question"] for line in made.decode().splitlines()]
    assert len(questions) == len(set(questions)) == sum(robots.ROWS.values())


def test_a_trace_says_where_each_step_leads():
    for line in (robots.DATA / "robots.jsonl").read_text().splitlines()[:200]:
        row = json.loads(line)
        world = json.loads(row["tests"][0])
        here = tuple(world["robot"])
        for step in row["trace"].rstrip(".").split(", ")[1:]:
            if step in "GP":
                continue
            move, x, y = step.split()
            here = (here[0] + robotics.MOVES[move][0], here[1] + robotics.MOVES[move][1])
            assert here == (int(x), int(y))
        assert here == tuple(world["goal"])

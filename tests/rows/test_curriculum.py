import collections

import pytest

from submission.bench.answers.prompts import Example
from submission.bench.rows import curriculum
from submission.bench.settings.config import Curriculum


def rows(count, difficulty, word):
    return [Example(f"{word} {n}?", str(n), "number", difficulty=difficulty) for n in range(count)]


def sampler(kind, seed=0, **settings):
    groups = {"a": rows(40, 0.1, "easy") + rows(40, 0.9, "hard"), "b": rows(20, 0.5, "other")}
    return curriculum.PromptSampler(
        groups, {"a": 0.8, "b": 0.2}, Curriculum(kind, **settings), seed
    )


def kinds(examples):
    return collections.Counter(e.question.split()[0] for e in examples)


def teach(drawer, p, draws=60):
    """Answers what is drawn with the success rates `p`, by the first word of the question."""
    for _ in range(draws):
        drawn = drawer.draw(16, 0.0)
        drawer.record([e.question for e in drawn], [p[e.question.split()[0]] for e in drawn])


def test_uniform_draws_by_the_shares_of_the_mixture():
    drawer = sampler("uniform")
    counted = kinds([e for _ in range(200) for e in drawer.draw(10, 0.0)])
    assert counted["easy"] / 2000 == pytest.approx(0.4, abs=0.05)
    assert counted["other"] / 2000 == pytest.approx(0.2, abs=0.05)


def test_uniform_does_not_listen_to_success():
    told, untold = sampler("uniform"), sampler("uniform")
    told.record(["easy 0?"] * 50, [1.0] * 50)
    assert told.draw(10, 0.0) == untold.draw(10, 0.0)


def test_learnability_leaves_what_is_mastered_and_what_is_hopeless():
    drawer = sampler("learnability")
    teach(drawer, {"easy": 1.0, "hard": 0.0, "other": 0.5})
    counted = kinds([e for _ in range(100) for e in drawer.draw(10, 0.0)])
    assert counted["other"] > 0.6 * 1000  # though it is only a fifth of the mixture
    assert min(counted["easy"], counted["hard"]) > 0  # the floor: nothing is forgotten


@pytest.mark.parametrize("kind", ["uniform", "learnability"])
def test_what_can_be_guessed_is_drawn_as_often_as_it_is_weighed(kind):
    choice = [Example(f"choice {n}?", "A", "choice", choices=("x", "y")) for n in range(100)]
    yes_no = [Example(f"boolean {n}?", "yes", "boolean") for n in range(100)]
    groups = {"a": [*rows(200, 0.1, "number"), *choice, *yes_no]}

    def counted(weight):
        settings = Curriculum(kind, guessed=weight)
        drawer = curriculum.PromptSampler(groups, {"a": 1.0}, settings, 0)
        return kinds([e for _ in range(200) for e in drawer.draw(10, 0.0)])

    assert counted(0.0) == {"number": 2000}
    assert counted(0.5)["number"] / 2000 == pytest.approx(2 / 3, abs=0.05)
    assert counted(1.0)["number"] / 2000 == pytest.approx(1 / 2, abs=0.05)


def test_rows_that_can_all_be_guessed_are_drawn_all_the_same():
    groups = {"a": [Example(f"boolean {n}?", "yes", "boolean") for n in range(20)]}
    settings = Curriculum("uniform", guessed=0.0)
    drawer = curriculum.PromptSampler(groups, {"a": 1.0}, settings, 0)
    assert len(drawer.draw(10, 0.0)) == 10


def test_a_cell_that_becomes_learnable_comes_back():
    drawer = sampler("learnability")
    teach(drawer, {"easy": 1.0, "hard": 0.0, "other": 1.0})
    before = kinds([e for _ in range(50) for e in drawer.draw(10, 0.0)])["hard"]
    teach(drawer, {"easy": 1.0, "hard": 0.5, "other": 1.0})
    after = kinds([e for _ in range(50) for e in drawer.draw(10, 0.0)])["hard"]
    assert after > 1.5 * before


def test_phases_go_from_easy_to_hard_by_progress():
    drawer = sampler("phases")
    assert set(kinds(drawer.draw(16, 0.0))) == {"easy"}
    assert "hard" not in kinds([e for _ in range(20) for e in drawer.draw(10, 0.5)])
    assert "hard" in kinds([e for _ in range(20) for e in drawer.draw(10, 0.99)])


def test_a_phase_without_rows_draws_from_all():
    drawer = curriculum.PromptSampler(
        {"a": rows(5, 0.9, "hard")}, {"a": 1.0}, Curriculum("phases"), 0
    )
    assert len(drawer.draw(3, 0.0)) == 3


def test_no_question_twice_in_a_batch_and_every_row_once_in_an_epoch():
    drawer = curriculum.PromptSampler(
        {"a": rows(24, 0.1, "easy")}, {"a": 1.0}, Curriculum("uniform"), 0
    )
    drawn = [e.question for _ in range(3) for e in drawer.draw(8, 0.0)]
    assert len(set(drawn)) == 24


def test_more_prompts_than_questions_still_gives_a_full_batch():
    drawer = curriculum.PromptSampler(
        {"a": rows(3, 0.1, "easy")}, {"a": 1.0}, Curriculum("uniform"), 0
    )
    assert len(drawer.draw(8, 0.0)) == 8


@pytest.mark.parametrize("kind", ["uniform", "phases", "learnability"])
def test_the_seed_decides(kind):
    def questions(seed):
        drawer = sampler(kind, seed)
        return [e.question for _ in range(4) for e in drawer.draw(8, 0.9)]

    assert questions(1) == questions(1)
    assert questions(1) != questions(2)


def test_the_order_of_the_sources_does_not_matter():
    groups = {"a": rows(9, 0.1, "easy"), "b": rows(9, 0.5, "other")}
    turned = dict(reversed(groups.items()))
    shares = {"a": 0.5, "b": 0.5}
    one, two = (
        curriculum.PromptSampler(g, shares, Curriculum("learnability"), 3) for g in (groups, turned)
    )
    assert one.draw(6, 0.0) == two.draw(6, 0.0)

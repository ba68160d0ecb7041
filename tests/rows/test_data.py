import collections
import dataclasses
import itertools
import json
import re

import numpy as np
import pytest

import tasks
from submission.bench.answers import checkers, prompts
from submission.bench.answers.prompts import Example
from submission.bench.rows import data, hub, reading
from submission.bench.settings.config import Lengths, MixtureShares, Source


def load_examples(*arguments, **settings):
    return list(data.load_mixture(*arguments, **settings).examples)


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Source("bundled", str(path))


ROW = {"question": "q?", "answer": "1", "checker": "number", "domain": "math", "source": "s"}


# --- The bundled rows -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundled():
    train = list(reading.read_bundled(Source("bundled", "data/train.jsonl")))
    return {
        "sft": [e for e in train if e.source.startswith("tasks/sft")],
        "grpo": [e for e in train if e.source.startswith("tasks/grpo")],
        "held_out": list(reading.read_bundled(Source("bundled", "data/held_out.jsonl"))),
    }


def calculations(example):
    """What has to be worked out, read from the question alone, in no wording."""
    question = example.question
    if question.startswith("Sort"):
        return {"order " + ", ".join(sorted(re.findall(r"\d+", question), key=int))}
    if "word" in question:
        return {" ".join(sorted(question.partition(":")[2].split()))}
    if story := re.findall(r" (has|buys|finds|loses|gives away) (\d+)", question):
        signs = {"has": "", "loses": " - ", "gives away": " - "}
        return {"".join(signs.get(verb, " + ") + number for verb, number in story)}
    return set(re.findall(r"\d+(?: [+-] \d+)+", question))


def test_the_splits_share_no_calculation_in_any_wording(bundled):
    asked = {name: [calculations(e) for e in rows] for name, rows in bundled.items()}
    assert len(asked["held_out"]) >= 500
    for name, rows in asked.items():
        assert all(rows)
        # By construction: a hash of the calculation decides, for the pre-training text too.
        assert {tasks.split_of(key) for keys in rows for key in keys} == {name}
    keys = {name: set().union(*rows) for name, rows in asked.items()}
    assert not keys["sft"] & keys["grpo"]
    assert not keys["held_out"] & (keys["sft"] | keys["grpo"])


def test_no_question_comes_twice_within_a_split(bundled):
    for rows in bundled.values():
        assert len({e.question for e in rows}) == len(rows)


def test_pre_training_draws_from_its_own_split_only():
    problems = itertools.islice(tasks.problems(3, "pretrain", distinct=False), 500)
    assert {tasks.split_of(key) for problem in problems for key in problem.keys} == {"pretrain"}


def test_the_files_are_what_the_generator_makes(bundled):
    made = tasks.rows(13, "held_out", tasks.HELD_OUT_ROWS)
    assert [row["question"] for row in made] == [e.question for e in bundled["held_out"]]


def test_every_gold_answer_passes_its_own_checker(bundled):
    for rows in bundled.values():
        assert all(checkers.check(e, e.answer) is True for e in rows)


def test_every_kind_and_several_difficulties_are_there(bundled):
    for rows in bundled.values():
        assert {e.checker for e in rows} == {"number", "choice", "boolean", "text"}
        assert len({e.difficulty for e in rows}) >= 4


def equations(trace):
    """Every `a+b-c=d` in a trace."""
    return re.findall(r"(?<![\d+-])(\d+(?:[+-]\d+)+)=(\d+)", trace)


def test_every_equation_in_every_trace_is_true(bundled):
    seen = 0
    for example in bundled["sft"]:
        for left, right in equations(example.trace):
            terms = left.replace("-", "+-").split("+")
            assert sum(map(int, terms)) == int(right), example
            seen += 1
    assert seen > 3000


def test_worked_traces_state_the_answer_they_lead_to(bundled):
    for example in bundled["sft"]:
        if example.checker == "number":
            numbers = example.trace.replace(".", " ").replace("=", " ").split()
            assert example.answer in numbers, example


# --- From sources to a mixture ----------------------------------------------------------------


KEEP = dict(lengths=Lengths(48, 80), needs_trace=False, minimum_kept=0.5)


def questions(*numbers):
    return [{**ROW, "question": f"q{n}"} for n in numbers]


@pytest.fixture
def glaive(tmp_path):
    """Makes a local dataset of glaive's schema, to be read by the real client."""

    def make(*rows, name="glaive", **settings):
        folder = tmp_path / name
        folder.mkdir()
        write(folder / "train.jsonl", *rows)
        return Source("glaive", str(folder), **settings)

    return make


def thought(n):
    return {"prompt": f"What is {n}+1?", "response": f"<think>{n}+1={n + 1}.</think>{n + 1}"}


def test_hub_rows_are_streamed_by_the_real_client(glaive, tokenizer, capsys):
    rows = [thought(n) for n in range(20)]
    rows.insert(3, {"prompt": "no thinking", "response": "1"})
    kept = load_examples(
        (glaive(*rows, rows=5),), tokenizer, Lengths(48, 80), needs_trace=True, minimum_kept=0.5
    )
    assert [e.answer for e in kept] == ["1", "2", "3", "4", "5"]
    assert "5 of 6 rows kept, 1 no thinking" in capsys.readouterr().out


def test_every_row_that_was_read_is_counted_once(tmp_path, tokenizer, capsys):
    long = {**ROW, "question": "word " * 50}
    source = write(tmp_path / "r.jsonl", *questions(*range(6), 0, 1), long)
    mixture = data.load_mixture(
        (source,), tokenizer, keep_out=[Example("Q5!", "1", "number")], **KEEP
    )
    (count,) = mixture.counts
    assert count.dropped == {
        "duplicates": 2, "prompt over 48 tokens": 1, "copies of held-out rows": 1
    }  # fmt: skip
    assert (count.kept, count.read, len(mixture.examples)) == (5, 9, 5)
    assert (
        "r.jsonl (Apache-2.0): 5 of 9 rows kept, 2 duplicates, 1 copies of held-out rows, "
        "1 prompt over 48 tokens\n"
    ) in capsys.readouterr().out


def test_enough_rows_are_not_counted_as_read_and_dropped(tmp_path, tokenizer):
    source = write(tmp_path / "r.jsonl", *questions(*range(9)))
    (count,) = data.load_mixture((source,), tokenizer, at_most=4, **KEEP).counts
    assert (count.kept, count.read) == (4, 4)


def test_of_two_sources_with_the_same_row_the_first_has_it(tmp_path, tokenizer):
    first = write(tmp_path / "a.jsonl", *questions(1, 2))
    second = write(tmp_path / "b.jsonl", *questions(2, 3))
    groups = data.load_mixture((first, second), tokenizer, **KEEP).groups
    assert [[e.question for e in rows] for rows in groups.values()] == [["q1", "q2"], ["q3"]]


def test_shares_are_by_rows_to_a_power_and_weight(tmp_path, tokenizer):
    first = write(tmp_path / "a.jsonl", *questions(*range(16)))
    second = write(tmp_path / "b.jsonl", *questions(*range(100, 104)))
    second = dataclasses.replace(second, weight=2.0)
    shares = data.load_mixture(
        (first, second), tokenizer, shares=MixtureShares(0.5, cap=1.0), **KEEP
    ).shares
    assert list(shares.values()) == [0.5, 0.5]


def test_a_source_twice_is_an_error(tmp_path, tokenizer):
    source = write(tmp_path / "a.jsonl", ROW)
    with pytest.raises(ValueError, match=r"a.jsonl is in the mixture twice"):
        data.load_mixture((source, source), tokenizer, **KEEP)


def down(rows, monkeypatch):
    """The real reader, but the hub's sources break off after so many rows."""
    read = data.read_source

    def breaking(source, **settings):
        if source.adapter == "bundled":
            yield from read(source, **settings)
            return
        yield from (Example(f"far {n}?", "1", "number") for n in range(rows))
        raise hub.SourceDown("Could not read it. Is the internet on?")

    monkeypatch.setattr(data, "read_source", breaking)


def test_a_source_that_is_down_is_left_out_with_a_warning(tmp_path, tokenizer, monkeypatch):
    down(0, monkeypatch)
    here = write(tmp_path / "a.jsonl", *questions(1, 2))
    far = Source("gsm8k", "openai/gsm8k", weight=1.0)
    with pytest.warns(UserWarning, match=r"openai/gsm8k \(train\) is left out: .*internet on"):
        mixture = data.load_mixture((here, far), tokenizer, **KEEP)
    assert list(mixture.shares.values()) == [1.0]
    assert list(mixture.groups) == [str(tmp_path / "a.jsonl")]
    assert [count.kept for count in mixture.counts] == [2, 0]


def test_too_much_that_is_down_stops_the_run(tmp_path, tokenizer, monkeypatch):
    down(0, monkeypatch)
    here = write(tmp_path / "a.jsonl", *questions(1, 2))
    far = Source("gsm8k", "openai/gsm8k", weight=3.0)
    message = "Only 25% of the mixture's weight could be read, less than 50%.*openai/gsm8k.*down"
    with (
        pytest.warns(UserWarning, match="is left out"),
        pytest.raises(RuntimeError, match=message),
    ):
        data.load_mixture((here, far), tokenizer, **KEEP)


def test_a_source_that_breaks_off_gives_the_rows_that_came(tokenizer, monkeypatch):
    down(7, monkeypatch)
    with pytest.warns(UserWarning, match="goes on with what there is: it is down"):
        mixture = data.load_mixture((Source("gsm8k", "openai/gsm8k"),), tokenizer, **KEEP)
    assert len(mixture.examples) == 7


FAR = Source("glaive", "glaiveai/reasoning-v1-20m")


@pytest.mark.parametrize(("came", "few", "groups"), [(0, 5, 1), (3, 5, 2), (5, 5, 1)])
def test_others_are_added_to_sources_that_broke_off_before_there_were_enough_rows(
    tmp_path, tokenizer, monkeypatch, capsys, came, few, groups
):
    down(came, monkeypatch)
    monkeypatch.setattr(data, "FEW", few)
    held_out = [Example("Q1!", "1", "number")]
    here = write(tmp_path / "a.jsonl", *questions(1, 2, 3))
    fallback = (here,) if came else (Source("gsm8k", "openai/gsm8k"), here)  # that is down too
    with pytest.warns(UserWarning, match="glaive"):
        mixture = data.load_mixture((FAR,), tokenizer, fallback=fallback, keep_out=held_out, **KEEP)
    kept = {count.source.location: count.kept for count in mixture.counts}
    added = {source.location: 0 for source in fallback} | {here.location: 2}  # less the held-out
    assert kept == {FAR.location: came} | (added if came < few else {})
    assert len(mixture.shares) == groups
    told = f"Of {data.source_label(FAR)} only {came} rows came. Others are added: "
    assert capsys.readouterr().out.count(told) == (came < few)
    read = [(row["location"], row["kept"]) for row in data.what_was_read({"sft": mixture})]
    assert read == [(location, count) for location, count in kept.items() if count]


def test_rows_to_fall_back_on_that_did_not_travel_are_left_out(tmp_path, tokenizer, monkeypatch):
    down(0, monkeypatch)
    here, gone = write(tmp_path / "a.jsonl", *questions(1, 2)), Source("bundled", "not/here.jsonl")
    with pytest.warns(UserWarning, match="glaive"):
        mixture = data.load_mixture((FAR,), tokenizer, fallback=(gone, here), **KEEP)
    assert [count.source.location for count in mixture.counts] == [FAR.location, here.location]


def test_nothing_is_added_to_a_source_that_has_few_rows_and_gave_them_all(tmp_path, tokenizer):
    first, second = (write(tmp_path / f"{n}.jsonl", *questions(n)) for n in (1, 2))
    mixture = data.load_mixture((first,), tokenizer, fallback=(second,), **KEEP)
    assert [count.source for count in mixture.counts] == [first]


def test_reading_ends_with_its_minutes_and_goes_on_with_what_there_is(tmp_path, tokenizer):
    source = write(tmp_path / "r.jsonl", *({**ROW, "question": f"q{n}"} for n in range(50)))
    ticks = iter(range(1000))
    source = dataclasses.replace(source, minutes=0.5)
    with pytest.warns(UserWarning, match=r"goes on with what there is: its 0.5 minutes were over"):
        kept = load_examples((source,), tokenizer, clock=lambda: next(ticks), **KEEP)
    assert len(kept) == 30


def test_minutes_for_all_sources_together_leave_the_last_ones_out(tmp_path, tokenizer):
    sources = [
        write(tmp_path / f"{name}.jsonl", *questions(*range(start, start + 50)))
        for name, start in (("a", 0), ("b", 100), ("c", 200))
    ]
    ticks = itertools.count()
    with pytest.warns(UserWarning, match="minutes were over"):
        mixture = data.load_mixture(
            sources,
            tokenizer,
            minutes=1.2,
            clock=lambda: next(ticks),
            **KEEP,
        )
    first, second, third = (count.kept for count in mixture.counts)
    assert (first, third) == (50, 0)
    assert 0 < second < 50
    assert len(mixture.shares) == 2


def test_a_source_of_which_next_to_nothing_fits_is_given_up_early(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(data, "EARLY_LOOK", 10)
    long = {**ROW, "question": "word " * 60}
    source = write(tmp_path / "r.jsonl", ROW, *[long] * 99)
    with pytest.raises(ValueError, match="only 1 of 10 rows"):
        load_examples((source,), tokenizer, Lengths(48, 80), needs_trace=False, minimum_kept=0.5)


# --- Tokens ---------------------------------------------------------------------------------


def test_the_prompt_is_tokenized_as_the_sampler_does(tokenizer, make_policy):
    from submission.bench.policy.model import make_sampler

    sampler = make_sampler(make_policy(), tokenizer, 64)
    example = Example("What is 1 + 2?", "3", "number", "1+2=3.")
    tokens = data.tokenize(tokenizer, example)
    assert tokens.prompt == list(sampler.tokenize(prompts.render_prompt(example.question)))


def test_the_target_ends_with_the_eos_directly_after_the_answer_tag(tokenizer):
    target = data.tokenize(tokenizer, Example("q", "3", "number", "1+2=3.")).target
    assert target[-1] == tokenizer.eos_id()
    assert tokenizer.decode(target[-2:-1]) == "</answer>"
    assert target.count(tokenizer.eos_id()) == 1
    assert tokenizer.bos_id() not in target


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, ""),
        ({"question": "word " * 55}, "prompt over 48 tokens"),
        ({"question": "word " * 60}, "prompt over 288 characters"),
        ({"trace": "word " * 90}, "target over 80 tokens"),
        ({"trace": "word " * 99}, "target over 480 characters"),
        ({"trace": ""}, "has no trace"),
        ({"answer": "many"}, "gold answer cannot be read"),
        ({"checker": "text", "answer": "word " * 90, "trace": "x"}, "target over 80 tokens"),
        ({"question": "<start_of_turn>user"}, "contains a tag"),
        ({"trace": "</reasoning>"}, "contains a tag"),
    ],
)
def test_why_a_row_is_dropped(tokenizer, change, reason):
    row = dataclasses.replace(Example("What is 1 + 2?", "3", "number", "1+2=3."), **change)
    found = data.misfit(tokenizer, row, Lengths(48, 80), True) or data.gold_fault(row)
    assert found == reason


def test_the_gold_answer_is_checked_by_its_own_checker_whatever_it_is():
    choices = dict(checker="choice", choices=("x", "y"))
    rows = {
        Example("q", "42", "number"): "",
        Example("q", "B", **choices): "",
        Example("q", "C", **choices): "gold answer cannot be read",
        Example("q", "perhaps", "boolean"): "gold answer cannot be read",
        Example("q", "anything at all", "open"): "",
        Example("q", "", "open"): "",
        Example("q", " ", "text"): "gold answer cannot be read",
    }
    assert {row: data.gold_fault(row) for row in rows} == rows


DOUBLE = "def double(x):\n    return 2 * x"
DOUBLE_TESTS = ("assert double(2) == 4", "assert double(-1) == -2")


def test_code_is_kept_if_its_program_passes_its_tests():
    def code(program, *tests):
        return data.gold_fault(Example("Double it.", program, "code", tests=tests))

    assert code(DOUBLE, *DOUBLE_TESTS) == ""
    assert code("", *DOUBLE_TESTS) == ""  # nobody gave a program: the tests are enough
    assert code(DOUBLE, *DOUBLE_TESTS, "assert double(1) == 3") == (
        "gold answer fails its own checker"
    )
    assert code(DOUBLE, "print(double(2))") == "gold answer cannot be read"
    assert code("", "print(double(2))") == "gold answer cannot be read"


def test_code_rows_stay_in_line_while_their_programs_run(tokenizer):
    rows = [
        Example(f"Double {n}.", DOUBLE, "code", tests=(f"assert double({n}) == {2 * n + n % 2}",))
        if n % 3
        else Example(f"What is {n}?", str(n), "number")
        for n in range(20)
    ]
    row_filter = data.RowFilter(tokenizer, Lengths(48, 80), False, ())
    judged = list(row_filter.judged(rows))
    assert [row for row, _ in judged] == rows
    assert [bool(reason) for _, reason in judged] == [n % 3 > 0 and n % 2 == 1 for n in range(20)]


def test_prompts_over_the_length_are_counted_and_stop_the_run_if_too_many(
    tmp_path, tokenizer, capsys
):
    source = write(tmp_path / "r.jsonl", ROW, {**ROW, "question": "word " * 50})
    assert len(load_examples((source,), tokenizer, **KEEP)) == 1
    assert "1 of 2 rows kept, 1 prompt over 48 tokens" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"only 1 of 2 rows.*at least 90.0% must be"):
        load_examples((source,), tokenizer, **KEEP | {"minimum_kept": 0.9})


def test_what_is_kept_has_its_closing_tags(tokenizer, glaive):
    """Of traces of all lengths, those that are kept are whole."""
    rows = [
        {"prompt": f"Count to {n}?", "response": f"<think>{'1, ' * n}done.</think>{n}"}
        for n in range(60)
    ]
    lengths = Lengths(48, 40)
    kept = load_examples((glaive(*rows),), tokenizer, lengths, needs_trace=True, minimum_kept=0.05)
    assert 0 < len(kept) < len(rows)
    for example in kept:
        target = data.tokenize(tokenizer, example).target
        assert len(target) <= lengths.completion
        assert tokenizer.decode(target[:-1]).endswith(f"<answer>{example.answer}</answer>")
    shortest_dropped = rows[len(kept)]  # the rows are in order of length
    assert kept[-1].question == rows[len(kept) - 1]["prompt"]
    trace = "1, " * (len(kept)) + "done."
    left_out = Example(shortest_dropped["prompt"], str(len(kept)), "open", trace)
    assert len(data.tokenize(tokenizer, left_out).target) > lengths.completion


# --- Batches --------------------------------------------------------------------------------


def test_an_epoch_has_every_row_once_and_the_seed_decides_the_order():
    def take(seed, count=20):
        return [
            x for x, _ in zip(data.shuffled_forever(range(10), seed), range(count), strict=False)
        ]

    first = take(1)
    assert sorted(first[:10]) == sorted(first[10:]) == list(range(10))
    assert first[:10] != first[10:]
    assert first == take(1)
    assert first != take(2)


def mixture_of(**counts):
    groups = {
        name: tuple(Example(f"{name}{i}", "1", "number") for i in range(count))
        for name, count in counts.items()
    }
    return data.Mixture(groups, data.mixture_shares(
        counts, dict.fromkeys(counts, 1.0), MixtureShares(0.5, cap=0.5)))  # fmt: skip


def drawn(mixture, seed, count):
    return [e.question for e in itertools.islice(data.mixed_forever(mixture, seed), count)]


def test_one_source_is_drawn_as_its_shuffled_epochs():
    mixture = mixture_of(a=10)
    plain = itertools.islice(data.shuffled_forever(mixture.groups["a"], 3), 35)
    assert drawn(mixture, 3, 35) == [e.question for e in plain]


@pytest.mark.parametrize("seed", range(5))
def test_any_stretch_of_the_stream_has_the_sources_in_proportion(seed):
    mixture = mixture_of(a=400, b=100, c=9)
    stream = [question[0] for question in drawn(mixture, seed, 1000)]
    for start, length in ((0, 20), (0, 1000), (333, 50), (900, 100)):
        found = collections.Counter(stream[start : start + length])
        for name, share in mixture.shares.items():
            assert abs(found[name] - share * length) <= len(mixture.shares)


def test_a_small_source_comes_in_whole_epochs_too():
    small = [q for q in drawn(mixture_of(a=400, b=5), 1, 200) if q[0] == "b"]
    epochs = [small[i : i + 5] for i in range(0, len(small) - 4, 5)]
    assert len(epochs) > 3
    assert all(sorted(epoch) == ["b0", "b1", "b2", "b3", "b4"] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_the_seed_decides_the_stream():
    mixture = mixture_of(a=40, b=20)
    assert drawn(mixture, 1, 100) == drawn(mixture, 1, 100)
    assert drawn(mixture, 1, 100) != drawn(mixture, 2, 100)


def test_columns_have_one_value_per_example():
    rows = [Example("a", "1", "number"), Example("b", "B", "choice", choices=("x", "y", "z"))]
    columns = data.prompt_columns(rows)
    assert all(isinstance(v, np.ndarray) and len(v) == 2 for v in columns.values())
    assert columns["prompts"][0] == prompts.render_prompt("a")
    assert json.loads(str(columns["choices"][1])) == ["x", "y", "z"]

import dataclasses
import doctest
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import moved, short_run
from submission.bench.answers import scoring
from submission.bench.answers.prompts import TAGS, Completion, Example, parse, render_prompt
from submission.bench.answers.texts import PLAIN, Vocabulary
from submission.bench.rows import data
from submission.bench.settings.config import Rewards
from submission.essay import grpo, more_rewards, profiles, rewards


def test_the_examples_in_the_docstrings():
    assert doctest.testmod(more_rewards).failed == 0


def written(trace, answer="42"):
    return Completion("", True, trace, answer)


# --- Confidence -------------------------------------------------------------------------------


def confidence(said, right):
    return more_rewards.reward_confidence(written(f"6*7=42.\n{said}"), right)


def test_right_and_sure_is_best_and_wrong_and_sure_is_worst():
    sure, unsure = "Confidence: 100%", "Confidence: 40%"
    order = [confidence(said, r) for said, r in ((sure, 1), (unsure, 1), (unsure, 0), (sure, 0))]
    assert order == sorted(order, reverse=True)
    assert len(set(order)) == 4
    assert order[0] == 1.0
    assert order[-1] == 0.0


@pytest.mark.parametrize("percent", range(0, 101, 5))
def test_to_say_the_truth_pays_best(percent):
    p = percent / 100
    expected = {
        c: p * confidence(f"Confidence: {c}%", 1) + (1 - p) * confidence(f"Confidence: {c}%", 0)
        for c in range(101)
    }
    assert max(expected, key=expected.get) == percent
    silent = p * confidence("", 1) + (1 - p) * confidence("", 0)
    assert silent <= expected[percent] + 1e-12
    twice = "Confidence: 0%\nConfidence: 100%"
    hedged = p * confidence(twice, 1) + (1 - p) * confidence(twice, 0)
    assert hedged <= min(expected.values()) + 1e-12


def test_100_percent_on_everything_loses_against_silence_unless_nearly_all_is_right():
    def earned(said, share_right):
        return share_right * confidence(said, 1) + (1 - share_right) * confidence(said, 0)

    assert earned("Confidence: 100%", 0.5) < earned("", 0.5)
    assert earned("Confidence: 100%", 0.7) < earned("", 0.7)
    assert earned("Confidence: 100%", 0.9) > earned("", 0.9)


@pytest.mark.parametrize(
    "said",
    [
        "Confidence: 100%\nConfidence: 0%",
        "Confidence: 100%\nSo it is 42.",
        "Confidence: 101%",
        "Confidence: 999999%",
        "Confidence: -5%",
        "Confidence: 0.9",
        "Confidence: 80% or 20%",
        "Confidence: ٩٠%",
        "I say Confidence: 90%",
        "confidence = 90%",
    ],
)
def test_a_statement_that_cannot_be_read_costs_what_the_worst_one_would(said):
    assert confidence(said, 1) == confidence("Confidence: 0%", 1) == 0.5
    assert confidence(said, 0) == confidence("Confidence: 100%", 0) == 0.0


@pytest.mark.parametrize("said", ["Confidence: 90%", "confidence: 90 %", "Confidence:90.0%.\n  "])
def test_small_differences_in_spelling_are_read(said):
    assert more_rewards.stated_confidence(f"6*7=42.\n{said}") == 0.9


@pytest.mark.parametrize(
    "trace", ["", "The 95% confidence interval is 3 to 5.", "I am confident.", "It is 80% likely."]
)
def test_talk_of_confidence_is_no_statement(trace):
    assert more_rewards.stated_confidence(trace) == more_rewards.UNSAID


# --- Structure --------------------------------------------------------------------------------

TRACE = "Ada has 17 pears. She finds 25 more, so 17+25=42. Then 3 are lost, and 42-3=39."


def structure(trace, difficulty=0.5):
    row = Example("How many?", "39", "number", difficulty=difficulty)
    return more_rewards.reward_structure(written(trace), row)


def test_an_easy_row_needs_few_steps_and_a_hard_one_more():
    one = "6*7=42."
    assert structure(one, 0.0) == 1.0
    values = [structure(one, d / 20) for d in range(21)]
    assert values == sorted(values, reverse=True)
    assert values[-1] == pytest.approx(0.2)
    jumps = np.abs(np.diff([structure(TRACE, d / 1000) for d in range(1001)]))
    assert jumps.max() < 0.01  # no cliff in the difficulty


def test_more_different_steps_pay_until_they_are_too_many():
    steps = [f"{n}+{n + 1}={2 * n + 1}." for n in range(1000, 100_000, 1500)]
    values = [structure(" ".join(steps[:count]), 0.5) for count in range(1, 40)]
    assert values[:3] == pytest.approx([1 / 3, 2 / 3, 1])
    assert set(values[2:12]) == {1.0}
    assert values[12:] == sorted(values[12:], reverse=True)
    assert set(values[23:]) == {0.0}


@pytest.mark.parametrize(
    "hack",
    [
        "{0} {0} {0}",
        "{0}\n{0}\n{0}",
        "{0}\n1.\n2.\n3.\n4.",
        "1. {0}\n2. {0}\n3. {0}",
        "Step 1: {0}\nStep 2: {0}\nStep 3: {0}",
        "**Step 1:** {0}\n**Step 2:** {0}",
        "{0}\n\n\n-\n-\n-\n...\n. . . ! ? !",
        "{0} So. Then. Next. Now. And so on. Yes.",
        "{0} Pears? Pears! Pears. Ada. Ada; Ada.",
        "{0}\nConfidence: 97%",
    ],
)
def test_what_is_no_new_step_does_not_count(hack):
    assert more_rewards.count_steps(hack.format(TRACE)) == more_rewards.count_steps(TRACE) == 3


def test_line_breaks_make_no_steps():
    broken = TRACE.replace(" ", "\n")
    assert more_rewards.count_steps(broken) <= more_rewards.count_steps(TRACE)
    words = "Ada has seventeen big pears and finds some more green pears in the old garden"
    assert more_rewards.count_steps(words.replace(" ", "\n")) == 1
    assert more_rewards.count_steps(words.replace(" ", "\r\n\r\n")) == 1


def test_equations_are_steps_with_or_without_line_breaks():
    equations = ["17+25=42", "42-3=39", "39*2=78"]
    for separator in ("\n", ". ", ", ", "; ", "\n- ", "\n2) "):
        assert more_rewards.count_steps(separator.join(equations)) == 3, separator


def test_decimal_points_and_commas_in_numbers_end_no_step():
    assert more_rewards.count_steps("1,234.5 + 1,000.25 = 2,234.75") == 1


# --- The teacher's words ----------------------------------------------------------------------

BREAD = Example(
    "Why does bread dough rise when it is left to stand?",
    "Yeast gives off gas.",
    "text",
    trace=(
        "Dough has yeast in it. The yeast feeds on sugar from the flour and gives off carbon "
        "dioxide, and the gluten traps the bubbles."
    ),
)
HONEST = (
    "There is yeast in the dough, which eats the sugar of the flour. It makes a gas, and the "
    "bubbles cannot get out because the gluten holds them."
)
WORDS = "dough yeast sugar flour gives carbon dioxide gluten traps bubbles feeds"
FITTED = Vocabulary.fit([BREAD.trace, "The sun warms the sea.", "Flour is milled wheat.", HONEST])


def teacher(trace, row=BREAD, vocabulary=FITTED):
    return more_rewards.reward_teacher(written(trace), row, vocabulary)


@pytest.mark.parametrize("vocabulary", [PLAIN, FITTED])
def test_an_honest_trace_of_the_same_thought_is_paid(vocabulary):
    assert teacher(HONEST, vocabulary=vocabulary) > 0.6
    assert teacher(BREAD.trace, vocabulary=vocabulary) == 1.0
    assert teacher("The sun warms the sea, and the sea warms the air.") == 0.0


def test_from_0_6_on_everything_is_paid():
    close = BREAD.trace.replace("Dough has yeast in it. ", "")
    weights = FITTED.weights(close)
    similarity = more_rewards.cosine(weights, FITTED.weights(BREAD.trace))
    assert more_rewards.ALIKE < similarity < 0.99
    assert teacher(close) == teacher(BREAD.trace) == 1.0


@pytest.mark.parametrize(
    "copy",
    [
        BREAD.question,
        BREAD.question * 5,
        f"The question is: {BREAD.question}",
        "When it is left to stand, why does bread dough rise?",
        "",
    ],
)
def test_a_copy_of_the_question_earns_nothing(copy):
    assert teacher(copy) == 0.0


def test_a_question_that_is_like_the_reference_leaves_room_above_it():
    row = dataclasses.replace(BREAD, question=BREAD.trace.split(". ")[1])
    assert teacher(row.question, row) == 0.0
    assert teacher(row.trace, row) > 0.3


def test_stuffing_the_references_words_pays_less_than_a_sentence_of_them():
    assert teacher(WORDS) == 0.0
    assert teacher(f"{WORDS} " * 4) == 0.0
    modest = "It rises because there is yeast in the dough."
    assert teacher(f"{modest} {WORDS}") < teacher(HONEST)


def test_a_teacher_of_equations_is_followed_by_equations():
    row = Example("What is 310 + 148?", "458", "number", trace="310+148: 300+100=400, so 458.")
    assert teacher("310+148: 300+100=400. 458.", row, PLAIN) > 0.5


def test_without_a_reference_there_is_nothing_to_be_like():
    assert teacher(HONEST, dataclasses.replace(BREAD, trace="")) == 0.0


# --- As parts of the reward -------------------------------------------------------------------

PROBLEM = Example(
    "Ada has 17 pears and finds 25. She loses 3. How many has she?",
    "39",
    "number",
    trace="17+25=42 pears after the find. 42-3=39 pears in the end.",
    difficulty=0.5,
)
OPEN = dataclasses.replace(BREAD, checker="open", domain="science")
SHAPED = profiles.RECIPES["shaped"].applied(profiles.TINY).rewards
FULL = Rewards(extras={"structure": 0.1, "teacher": 0.1, "confidence": 0.1})
PURE = ("structure", "teacher", "confidence")


def score(texts, rows, weights=FULL, **context):
    scorer = rewards.Scorer(weights, scoring.Context(**context))
    columns = {name: [row.columns()[name] for row in rows] for name in rows[0].columns()}
    return scorer(["" for _ in texts], texts, **columns), scorer.parts(texts, columns)


def in_tags(trace, answer):
    return f"<reasoning>{trace}</reasoning><answer>{answer}</answer>"


def test_style_pays_nothing_with_a_wrong_answer():
    texts = [in_tags(PROBLEM.trace, answer) for answer in ("39", "40")]
    _, parts = score(texts, [PROBLEM] * 2)
    for name in ("structure", "teacher"):
        assert parts[name][0] > 0.5
        assert parts[name][1] == 0.0


def test_on_open_rows_style_pays_as_far_as_the_answer_is_worth_something():
    good = (
        "Yeast in the dough feeds on sugar and gives off carbon dioxide. Kneading has made the "
        "gluten stretchy, so the bubbles are trapped, and the loaf swells while it rests."
    )
    texts = [in_tags(HONEST, good), in_tags(HONEST, "I cannot say. " * 5)]
    _, parts = score(texts, [OPEN] * 2)
    for name in ("structure", "teacher"):
        assert parts["open"][0] >= parts[name][0] > 0.2
        assert parts[name][1] <= parts["open"][1] < 0.05
    assert parts["confidence"] == [0.0, 0.0]


@pytest.mark.parametrize(
    "text", ["", "39", in_tags(TRACE, "39") + "!", f"<answer>39</answer>{TRACE}"]
)
def test_out_of_format_every_part_is_nothing(text):
    values, parts = score([text] * 2, [PROBLEM, OPEN])
    assert values == [0.0, 0.0]
    assert all(parts[name] == [0.0, 0.0] for name in PURE)


@pytest.mark.parametrize("weights", [SHAPED, FULL])
def test_right_with_an_ordinary_trace_is_worth_far_more_than_wrong(weights):
    """Right with no style and the worst confidence, against wrong with the best of everything."""
    band = dataclasses.replace(weights, shortest=2, longest=400)
    plain = in_tags("They are 39 pears.\nConfidence: 1%\nConfidence: 2%", "39")
    wrong = in_tags(f"{PROBLEM.trace}\nConfidence: 0%", "40")
    (right, best_wrong), parts = score([plain, wrong], [PROBLEM] * 2, band)
    assert parts["confidence"] == [0.5, 0.5]  # these are the bounds: see the next test
    assert right >= best_wrong + 0.6


@given(st.text(max_size=60) | st.integers(-20, 140).map("Confidence: {}%".format))
def test_confidence_alone_never_puts_wrong_above_right(said):
    completion = written(f"6*7=42.\n{said}")
    right, wrong = (more_rewards.reward_confidence(completion, r) for r in (1, 0))
    assert 0.0 <= wrong <= 0.5 <= right <= 1.0


def test_weights_move_from_the_first_to_the_last():
    weights = Rewards(
        extras={"structure": 0.1}, late={"structure": 0.0, "in_format": 0.05, "right": 0.85}
    )
    early, middle, late = (scoring.current_weights(weights, p) for p in (0.0, 0.5, 1.0))
    assert (early["structure"], middle["structure"], late["structure"]) == (0.1, 0.05, 0.0)
    assert late["right"] == 0.85
    text = [in_tags("It is 39.", "39"), in_tags(PROBLEM.trace, "39")]
    first, _ = score(text, [PROBLEM] * 2, dataclasses.replace(weights, shortest=1), progress=0.0)
    last, _ = score(text, [PROBLEM] * 2, dataclasses.replace(weights, shortest=1), progress=1.0)
    assert first[1] > first[0]
    assert last[1] == last[0] == pytest.approx(1.0)


# --- What holds for every completion ----------------------------------------------------------

PIECES = (
    *TAGS,
    *("39", "17+25=42", "Confidence: 80%", "Confidence: ", "%", "=", ",", ". ", "1. ", "- ", "\n"),
    *("yeast", "dough", "the", " and ", "\u200b", "½", "٤٢", "\x00", "\x0b", "💡", "<cut>"),
    *("9" * 400, "a" * 3000, ", " * 500, "." * 3000, "Step 3: ", "**", "nan%", "1e999"),
)
noise = st.lists(st.sampled_from(PIECES) | st.text(max_size=20), max_size=12).map("".join)
tagged = st.tuples(noise, noise | st.just("39")).map(lambda parts: in_tags(*parts))
row = st.sampled_from((PROBLEM, OPEN, BREAD)).flatmap(
    lambda e: st.builds(
        dataclasses.replace,
        st.just(e),
        difficulty=st.floats(0, 1) | st.just(math.nan),
        trace=st.just(e.trace) | noise,
        question=st.just(e.question) | noise,
    )
)
quick = settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))


@quick
@given(st.lists(st.tuples(noise | tagged, row), min_size=1, max_size=4), st.randoms())
def test_every_part_is_in_range_and_the_same_alone_and_in_any_batch(pairs, rng):
    completions, rows = [parse(text) for text, _ in pairs], [e for _, e in pairs]
    tally = scoring.Tally(0.0, grace=0)  # any failure raises

    def parts(completions, rows):
        context = scoring.Context(vocabulary=FITTED)
        return rewards.score_batch(completions, rows, FULL, context, tally)

    together = parts(completions, rows)
    order = list(range(len(pairs)))
    rng.shuffle(order)
    mixed = parts([completions[i] for i in order], [rows[i] for i in order])
    for name in PURE:
        assert all(math.isfinite(v) and 0.0 <= v <= 1.0 for v in together[name])
        assert mixed[name] == [together[name][i] for i in order]
        alone = [parts([c], [e])[name][0] for c, e in zip(completions, rows, strict=True)]
        assert alone == together[name]
        for completion, value in zip(completions, together[name], strict=True):
            assert completion.in_format or value == 0.0


@quick
@given(noise)
def test_saying_a_trace_twice_adds_no_step(trace):
    plain = " ".join(more_rewards.without_statement(trace).split("\n"))[:5000]
    twice = more_rewards.count_steps(f"{plain}.\n\n{plain}.")
    assert twice <= more_rewards.count_steps(f"{plain}.") + 1  # the seam may join two halves


@pytest.mark.parametrize("piece", [".", " ", ", ", ",=", '."', "Confidence: ", "1. ", "a, ", "=\n"])
def test_time_grows_no_faster_than_the_length(piece):
    def seconds(length):
        completion = written((piece * length)[:length])
        times = []
        for _ in range(3):
            start = time.thread_time()
            more_rewards.reward_structure(completion, PROBLEM)
            more_rewards.reward_confidence(completion, 1)
            times.append(time.thread_time() - start)
        return min(times)

    assert seconds(16_000) < 32 * max(seconds(1_000), 0.0005)


# --- The gold answer's probability ------------------------------------------------------------


def fake_policy(asked=None):
    """0.25 without a trace; with one, what the trace says in percent."""

    def probability(questions, traces, answers):
        if asked is not None:
            asked.extend(zip(questions, traces, answers, strict=True))
        return [int(t) / 100 if t else 0.25 for t in traces]

    return probability


GOLD = Rewards(extras={"gold": 0.1})


def test_gold_pays_what_the_trace_adds_and_never_less_than_nothing():
    texts = [in_tags(trace, "39") for trace in ("25", "65", "100", "5")]
    _, parts = score(texts, [PROBLEM] * 4, GOLD, gold_probability=fake_policy())
    assert parts["gold"] == pytest.approx([0.0, 0.4, 0.75, 0.0])


def test_gold_asks_only_where_it_can_pay_and_once_a_group_without_a_trace():
    asked = []
    texts = [in_tags("65", "39"), in_tags("70", "39"), in_tags("100", "40"), "100"]
    _, parts = score(texts, [PROBLEM] * 4, GOLD, gold_probability=fake_policy(asked))
    assert parts["gold"] == pytest.approx([0.4, 0.45, 0.0, 0.0])
    assert [trace for _, trace, _ in asked] == ["", "65", "70"]
    asked.clear()
    score(["39"], [PROBLEM], GOLD, gold_probability=fake_policy(asked))
    nothing_to_match = dataclasses.replace(OPEN, answer="")
    score([in_tags("50", HONEST)], [nothing_to_match], GOLD, gold_probability=fake_policy(asked))
    assert asked == []


def test_gold_without_a_policy_is_a_counted_failure_that_says_what_to_do():
    scorer = rewards.Scorer(GOLD)
    columns = {name: [value] for name, value in PROBLEM.columns().items()}
    with pytest.warns(UserWarning, match="gold_probability"):
        scorer([""], [in_tags("6", "39")], **columns)
    assert scorer.tally.failed["gold"] == 1


def test_a_policy_that_gives_no_numbers_is_a_counted_failure():
    scorer = rewards.Scorer(GOLD, scoring.Context(gold_probability=lambda q, t, a: [math.nan] * 2))
    columns = {name: [value] for name, value in PROBLEM.columns().items()}
    with pytest.warns(UserWarning, match="not finite"):
        scorer([""], [in_tags("6", "39")], **columns)
    assert scorer.tally.failed["gold"] == 1


# The policy is real from here on.

QUESTIONS = ["What is 3 + 4?", "What is 17 + 25?", "Which is larger, 3 or 12?"]
TRACES = ["3+4=7.", "", "12 is larger, and 3 is not. 12."]
ANSWERS = ["7", "42", "12"]


@pytest.fixture(scope="module")
def built(make_policy, tokenizer, mesh, tmp_path_factory):
    """A policy and its cluster, sampling at a temperature that is not 1."""
    out = tmp_path_factory.mktemp("gold")
    run = short_run(out)
    profile = dataclasses.replace(
        run.profile, grpo=dataclasses.replace(run.profile.grpo, temperature=0.7)
    )
    run = dataclasses.replace(run, profile=profile)
    policy = make_policy()
    cluster = grpo.build_cluster(policy, tokenizer, run, mesh)
    # As Tunix takes it when a cluster is built; ours lets go of it.
    cluster._anchor_policy_state = jax.tree.map(jnp.copy, nnx.state(policy))
    return policy, cluster, run


@pytest.fixture
def gold(built, tokenizer):
    return more_rewards.GoldProbability.of_run(built[1], tokenizer, built[2])


@nnx.jit
def forward(policy, tokens_BT):
    length = tokens_BT.shape[1]
    mask = jnp.tril(jnp.ones((1, length, length), bool))
    return policy(tokens_BT, jnp.arange(length)[None], None, mask)[0].astype(jnp.float32)


def by_hand(policy, context, answer, temperature):
    """The mean probability of an answer's tokens, from one forward pass.

    Nothing stands before or between the tokens; what comes behind them they cannot see.
    """
    tokens = [*context, *answer]
    logits = forward(policy, jnp.array([tokens + [0] * (160 - len(tokens))]))[0]
    probabilities = np.asarray(jax.nn.softmax(logits / temperature))
    return float(np.mean([probabilities[len(context) - 1 + i, a] for i, a in enumerate(answer)]))


def test_the_probability_is_that_of_a_direct_forward_pass(built, gold):
    policy, _, run = built
    found = gold(QUESTIONS, TRACES, ANSWERS)
    for value, *triple in zip(found, QUESTIONS, TRACES, ANSWERS, strict=True):
        expected = by_hand(policy, *gold.tokens(*triple), run.profile.grpo.temperature)
        assert value == pytest.approx(expected, abs=1e-4)
    assert all(0.0 < value <= 1.0 for value in found)
    assert len(set(found)) == 3


def test_the_tokens_are_those_that_sft_teaches(gold, tokenizer):
    for question, trace, answer in zip(QUESTIONS, TRACES, ANSWERS, strict=True):
        taught = data.tokenize(tokenizer, Example(question, answer, "number", trace=trace))
        context, answer_tokens = gold.tokens(question, trace, answer)
        ours = context + answer_tokens
        assert ours == (taught.prompt + taught.target)[: len(ours)]
        assert answer in tokenizer.decode(answer_tokens)
        assert tokenizer.decode(context[1:]) == render_prompt(question) + in_tags(trace, "")[:-9]


def test_neither_batch_mates_nor_padding_matter(gold):
    together = gold(QUESTIONS * 7, TRACES * 7, ANSWERS * 7)  # more than a micro-batch
    assert len(together) == 21 > gold.batch
    for i in range(3):
        (alone,) = gold(QUESTIONS[i : i + 1], TRACES[i : i + 1], ANSWERS[i : i + 1])
        assert together[i::3] == pytest.approx([alone] * 7, abs=1e-5)


def test_long_gold_answers_count_by_their_first_tokens(built, gold, tokenizer):
    policy, cluster, run = built
    short = more_rewards.GoldProbability(cluster, tokenizer, gold.context, gold.batch, answer=3)
    context, tokens = gold.tokens(QUESTIONS[0], TRACES[0], "7 and 7 and 7 and 7")
    assert len(tokens) > 3
    expected = by_hand(policy, context, tokens[:3], run.profile.grpo.temperature)
    (value,) = short(QUESTIONS[:1], TRACES[:1], ["7 and 7 and 7 and 7"])
    assert value == pytest.approx(expected, abs=1e-4)


def test_nothing_asked_and_nothing_to_ask_for(gold):
    assert gold([], [], []) == []
    assert gold(QUESTIONS[:1], TRACES[:1], [""]) == [0.0]


def test_a_trace_that_is_too_long_still_gives_a_probability(gold):
    (value,) = gold(QUESTIONS[:1], ["3+4=7. " * 200], ANSWERS[:1])
    assert 0.0 < value <= 1.0


def test_one_program_serves_all_texts(gold):
    compiled = []

    def listen(event, duration, **kwargs):
        if "backend_compile" in event:
            compiled.append(event)

    gold(QUESTIONS, TRACES, ANSWERS)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        jax.jit(lambda x: x * 3.25)(1.0)
        assert len(compiled) == 1  # the listener hears
        gold(["How much is it?"] * 40, ["Some 3 or 4. " * n for n in range(40)], ["12345"] * 40)
        gold(QUESTIONS[:1], ["So it is 7."], ["seven"])
        assert len(compiled) == 1
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_trap_16_the_policy_is_asked_as_it_is_now(built, gold, tokenizer):
    policy, cluster, run = built
    ids = {"pad_id": tokenizer.pad_id(), "eos_id": tokenizer.eos_id()}
    context, answer = gold.tokens(QUESTIONS[0], TRACES[0], ANSWERS[0])

    def stock():
        one, other = jnp.array([context] * gold.batch), jnp.array([answer] * gold.batch)
        return np.asarray(cluster.get_actor_per_token_logps(one, other, **ids))[0]

    before, stock_before = gold(QUESTIONS, TRACES, ANSWERS), stock()
    moved(policy, 0.2)
    after, stock_after = gold(QUESTIONS, TRACES, ANSWERS), stock()
    np.testing.assert_array_equal(stock_before, stock_after)  # the policy of the start, for ever
    assert np.abs(np.subtract(after, before)).max() > 1e-3
    expected = by_hand(policy, context, answer, run.profile.grpo.temperature)
    assert after[0] == pytest.approx(expected, abs=1e-4)


def test_gold_is_a_part_of_the_reward(built, gold):
    problem = Example("What is 3 + 4?", "7", "number")
    texts = [in_tags("3+4=7.", "7"), in_tags("3+4=8.", "8"), "7"]
    values, parts = score(texts, [problem] * 3, GOLD, gold_probability=gold)
    bare, given = gold(["What is 3 + 4?"] * 2, ["", "3+4=7."], ["7"] * 2)
    assert parts["gold"] == pytest.approx([max(0.0, given - bare), 0.0, 0.0], abs=1e-5)
    assert values[0] >= values[1] + 0.3

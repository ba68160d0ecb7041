"""What holds for every completion, whatever stands in it."""

import ast
import concurrent.futures
import itertools
import json
import math
import os
import subprocess
import sys
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from submission.bench.answers import open_answers
from submission.bench.answers.prompts import TAGS, Example, parse
from submission.bench.settings.config import Rewards
from submission.essay import rewards

ROWS = (
    Example("What is 6 times 7?", "42", "number", domain="math"),
    Example("Which is a metal?", "B", "choice", domain="science", choices=("air", "iron", "oak")),
    Example("Is water wet?", "yes", "boolean", domain="logic"),
    Example("Say sun cat backwards.", "cat sun", "text"),
    Example("Write a story about a fox in the snow.", "", "open", domain="creative"),
    Example("Why does bread rise?", "Yeast gives off gas.", "open", domain="science"),
)
PIECES = (
    *TAGS,
    *(
        "42",
        "B",
        "yes",
        "no",
        "cat sun",
        "The answer is",
        "\\boxed{",
        "}",
        "$",
        "**",
        "/",
        "^",
        ".",
    ),
    *(
        "bread",
        "yeast",
        "the",
        "fox ",
        " and ",
        "\n",
        "\u200b",
        "½",
        "٤٢",
        "￼",
        "\x00",
        "💡",
        "<cut>",
    ),
    *("9" * 400, "(" * 50, "a" * 3000, "1e999", "nan", "-inf", "10^9", "<end_of_turn>"),
)
noise = st.lists(st.sampled_from(PIECES) | st.text(max_size=20), max_size=12).map("".join)
tagged = st.tuples(noise, noise).map(
    lambda parts: f"<reasoning>{parts[0]}</reasoning><answer>{parts[1]}</answer>"
)
completion = noise | tagged
row = st.sampled_from(ROWS)
quick = settings(deadline=None, max_examples=200, suppress_health_check=list(HealthCheck))


def score(pairs):
    columns = {name: [e.columns()[name] for e, _ in pairs] for name in ROWS[0].columns()}
    scorer = rewards.Scorer(Rewards())  # by words alone, whatever is installed
    return scorer([e.question for e, _ in pairs], [t for _, t in pairs], **columns)


@quick
@given(row, completion)
def test_every_reward_is_a_number_from_0_to_1(example, text):
    (value,) = score([(example, text)])
    assert isinstance(value, float)
    assert math.isfinite(value)
    assert 0.0 <= value <= 1.0


@quick
@given(st.lists(st.tuples(row, completion), min_size=2, max_size=5), st.randoms())
def test_order_does_not_matter(pairs, rng):
    together = score(pairs)
    order = list(range(len(pairs)))
    rng.shuffle(order)
    assert score([pairs[i] for i in order]) == [together[i] for i in order]


@quick
@given(st.lists(st.tuples(st.sampled_from(ROWS[:5]), completion), min_size=2, max_size=5))
def test_batch_mates_do_not_matter_but_for_open_answers_to_other_prompts(pairs):
    assert score(pairs) == [score([pair])[0] for pair in pairs]


@quick
@given(st.lists(st.tuples(row, completion), min_size=1, max_size=4))
def test_off_the_main_thread_it_is_the_same(pairs):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(score, pairs).result() == score(pairs)


@quick
@given(row, noise)
def test_out_of_format_nothing_is_earned(example, text):
    if not parse(text).in_format:
        assert score([(example, text)]) == [0.0]


@quick
@given(st.sampled_from(ROWS[:4]), noise, noise)
def test_a_wrong_answer_never_earns_more_than_the_format(example, trace, answer):
    (value,) = score([(example, f"<reasoning>{trace}</reasoning><answer>{answer}</answer>")])
    assert value <= 0.1 + 1e-9 or value >= 0.9 - 1e-9  # nothing between wrong and right


@quick
@given(st.sampled_from(ROWS[4:]), noise, noise)
def test_every_part_of_an_open_score_is_in_range(example, trace, answer):
    completion = parse(f"<reasoning>{trace}</reasoning><answer>{answer}</answer>")
    parts = open_answers.open_parts(completion, example)
    assert all(0.0 <= value <= 1.0 for value in parts.values()), parts


PROSE = (
    "Yeast in the dough feeds on sugar, and it gives off carbon dioxide, which the stretchy gluten "
    "traps. So the loaf swells while it rests, and the oven sets it. "
)
KINDS = {
    "prose": PROSE,
    "letters": "a",
    "spaces": " ",
    "numbers": "1,",
    "brackets": "(",
    "stars": "*",
    "lines": "ab\n",
    "dots": "x. ",
    "yes": "yes, ",
    "tags": "<answer>",
    "half tags": "< answer ",
    "fractions": "\\frac{1}{",
    "number words": "one thousand twenty one ",
    "more dots": ".",
}

# What patterns are made of, and what may lead into them.
UNITS = """one thousand|twenty one|one thousand twenty one |a hundred and |twenty-|and a |two thirds
minus |point one |dozen | million|1,|1 000 |1.|1|1 1/2 |1/2/|1^2^|1.2.3|1,234,|1e5e|0.(3)|10^|2*|1+
1 %|$1|$|$$|$1$|€|½|²|⁺|<|</|>|<b>|<sup>|<answer>|<reasoning>|(|)|[|]|{|}|\\|\\frac|\\frac{1}{
\\text{|\\boxed{|{1\\over 2}|\\cdot |sqrt(|√|*|**|**a**|_|_a_|a_|`|-|- |–|=|=1=|= 1 |- 1 - |→|=>|#|•
1) |12/
.|,|, |;|!|?|…|'|"|’|: |a.|A. |x|x |a |the |is |is the |b is |because |not |is not |yes |no, |or|
and |yes, but |a: b: |answer: |the answer is |it is |apples |i.e. |U.S.|10:30 |3 p.m. |&|~|____|
[x]| |é|confidence 9|def f(x):|    x""".replace("\n", "|").split("|")
UNITS = [unit for unit in UNITS if unit]
UNITS += [unit + "\n" for unit in ("", "x", "1. x", "    x", "- x")] + ["\t", "\u00ad", "```\n"]
LEADS = ("", " ", "a ", "1", "$", "<", "\\", "-", "= ", "Yes, ", "the answer is ", "one thousand ")


def slowest(example, length=20_000):
    """The longest time, in CPU seconds, over one completion of so many characters, and its text."""
    found = (0.0, "")
    for unit, lead, end in itertools.product(UNITS, LEADS, ("", "x")):
        body = (lead + unit * (length // len(unit)))[: length - 60] + end
        for text in (f"<reasoning>so</reasoning><answer>{body}</answer>", body)[: 1 if lead else 2]:
            start = time.process_time()
            score([(example, text)])
            took = time.process_time() - start
            if took > found[0]:  # once more: another process may have had the caches
                start = time.process_time()
                score([(example, text)])
                took = min(took, time.process_time() - start)
            found = max(found, (took, text[:80] + text[-40:]))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(ROWS)))
def test_no_text_of_20_000_characters_takes_long(number):
    """In a process of its own: no thread gets a turn while a pattern is at work."""
    code = f"import test_reward_properties as t; print(t.slowest(t.ROWS[{number}]))"
    here = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, text=True, check=True,
        timeout=300, env=os.environ | {"PYTHONPATH": here},
    ).stdout  # fmt: skip
    assert ast.literal_eval(told)[0] < 0.2, told  # 0.05 on a machine with nothing else to do


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("example", ROWS, ids=lambda e: f"{e.checker}-{e.domain}")
def test_time_grows_no_faster_than_the_length(name, example):
    def seconds(length):
        body = (KINDS[name] * length)[:length]
        text = f"<reasoning>{body}</reasoning><answer>{body}</answer>"
        times = []
        for _ in range(3):
            start = time.process_time()  # of all threads: a part is scored in one of its own
            score([(example, text)])
            times.append(time.process_time() - start)
        return min(times)

    # Sixteen times the length: twice sixteen times the time is borne, and a floor for noise.
    assert seconds(64_000) < 32 * max(seconds(4_000), 0.0005)


@pytest.mark.parametrize("example", ROWS, ids=lambda e: f"{e.checker}-{e.domain}")
def test_256_completions_of_768_tokens_take_half_a_second(example):
    """Words are counted as tokens and a third: 570 words each, all of them different texts."""
    texts = []
    for i in range(256):
        words = f"{PROSE} Loaf {i}. ".split() * 20
        trace, answer = " ".join(words[:400]), " ".join(words[400:570])
        texts.append(f"<reasoning>{trace}</reasoning><answer>{answer}</answer>")
    seconds = []
    for _ in range(8):  # the best of eight: other processes share the core's caches and its clock
        start = time.process_time()
        score([(example, text) for text in texts])
        seconds.append(time.process_time() - start)
        if seconds[-1] < 0.5:
            break
    assert min(seconds) < 0.5


def test_columns_survive_json():
    columns = ROWS[1].columns()
    assert json.loads(columns["choices"]) == list(ROWS[1].choices)

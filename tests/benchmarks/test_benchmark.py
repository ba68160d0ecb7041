"""The benchmark: is the work on both sides what it says, and are its numbers what they say?"""

import dataclasses
import itertools
import json
import re

import benchmark
import numpy as np
import pytest
from benchmarks import small as benchmark_small
from benchmarks import tiny as benchmark_tiny
from benchmarks import tools as benchmark_tools

from submission.bench.policy import rollout
from submission.bench.rows import packing
from submission.bench.settings import config
from submission.essay import profiles, rewards

SHAPE = benchmark_tiny.SMALL | dict(
    num_layers=1, num_embed=160, embed_dim=32, hidden_dim=64, num_heads=2, head_dim=16
)
LIMIT = 16


@pytest.fixture(scope="module")
def small(mesh):
    stock = config.StockModel("small", "gemma3", "", shape=SHAPE, dtype="float32")
    return benchmark_tools.random_policy(stock, mesh, benchmark_tiny.ADAPTER)


def engines(policy, mesh):
    tokenizer = benchmark_tools.Characters()
    settings = benchmark_tiny.greedy(LIMIT, 48, 4)
    return {
        "stock": benchmark_tiny.stock_engine(policy, tokenizer, LIMIT + 48),
        "ours": rollout.PolicyRollout(policy, tokenizer, mesh, settings),
    }


def completions(engine, texts):
    return [t.tolist() for t in engine.generate(texts, benchmark_tiny.greedy(LIMIT, 48, 4)).tokens]


# --- Forced lengths ---------------------------------------------------------------------------


@pytest.mark.slow
def test_forced_lengths_hold_in_both_engines_with_the_same_tokens(small, mesh):
    texts = [letter * 30 for letter in "abcd" for _ in range(2)]
    wanted = [1, 16, 7, 2, 16, 3, 11, 5]
    found = {}
    with benchmark_tools.forced_lengths(wanted, eos_id=1, pad_id=0):
        for name, engine in engines(small, mesh).items():
            found[name] = completions(engine, texts)
    assert [len(t) for t in found["ours"]] == wanted
    assert all(t[-1] == 1 and not {0, 1} & set(t[:-1]) for t in found["ours"])
    assert found["stock"] == [t[:-1] for t in found["ours"]]  # it leaves the EOS out
    assert len({tuple(t) for t in found["ours"]}) > 4


@pytest.mark.slow
def test_without_force_the_lengths_are_others(small, mesh):
    """The claim above would fail if nothing were forced; and the force ends with its block."""
    with benchmark_tools.forced_lengths([3, 3], eos_id=1, pad_id=0):
        pass
    for engine in engines(small, mesh).values():
        assert [len(t) for t in completions(engine, ["a" * 30, "b" * 30])] != [3, 3]


@pytest.mark.slow
def test_the_rollout_measurement_checks_tokens_and_lengths_itself():
    found = benchmark_tiny.measure_rollout(shape=SHAPE, limit=LIMIT, parts=(6,), repeats=1)
    assert found["ours"]["seconds"] > 0
    assert found["stock"]["seconds"] > 0
    tokens = sum(benchmark_tools.spread_lengths(64, LIMIT))
    assert f"{tokens} tokens, the same on all sides" in found["remarks"]["seconds"]


def test_a_different_token_or_length_is_noticed():
    stock = [[5, 6], [7]]
    benchmark_tiny.require_equal_work({"stock": stock, "ours": [[5, 6], [7]]}, [3, 2])
    with pytest.raises(AssertionError, match="ours: not the tokens of the stock sampler"):
        benchmark_tiny.require_equal_work({"stock": stock, "ours": [[5, 6], [8]]}, [3, 2])
    with pytest.raises(AssertionError, match="stock: not the lengths"):
        benchmark_tiny.require_equal_work({"stock": stock, "ours": stock}, [3, 3])


def test_most_lengths_are_short_and_a_few_reach_the_limit():
    lengths = np.array(benchmark_tools.spread_lengths(64, 128))
    assert (lengths <= 64).mean() > 0.8
    assert 1 <= (lengths == 128).sum() <= 4
    assert benchmark_tools.spread_lengths(64, 128) == lengths.tolist()


# --- The numbers ------------------------------------------------------------------------------


def test_padded_and_packed_batches_hold_the_same_examples():
    texts = [list(range(4, 4 + n)) for n in (5, 9, 7, 3)]
    examples = [packing.Tokens(text[:2], text[2:]) for text in texts]
    (padded,) = benchmark_tiny.padded_batches(examples, 4, 12, 0)
    (packed,) = packing.packed_batches(examples, 2, 12, 0)
    assert padded.tokens.shape == (4, 12)
    assert packed.tokens.shape == (2, 12)
    assert benchmark_tiny.useful([padded]) == (16.0, 0.5)
    assert benchmark_tiny.useful([packed]) == (16.0, 1.0)


def test_random_examples_are_as_long_as_those_of_gsm8k():
    drawn = list(itertools.islice(benchmark_small.gsm8k_lengths(1000), 2000))
    prompts, targets = (
        [len(x) for x in side] for side in zip(*map(dataclasses.astuple, drawn), strict=True)
    )
    assert np.median(prompts) == pytest.approx(64, rel=0.05)
    assert np.median(targets) == pytest.approx(93, rel=0.05)
    assert np.quantile(np.add(prompts, targets), 0.95) == pytest.approx(276, rel=0.05)
    assert max(np.add(prompts, targets)) <= benchmark_small.LONGEST


def test_where_lengths_are_forced_no_group_is_flat():
    columns = {"question": ["1?"] * 8, "answer": ["1"] * 8, "checker": ["number"] * 8}
    with benchmark_tools.random_rewards():
        found = rewards.Scorer(profiles.TINY.rewards)(["1?"] * 8, ["nothing"] * 8, **columns)
    assert len(set(found)) == 8
    assert set(rewards.Scorer(profiles.TINY.rewards)(["1?"] * 8, ["nothing"] * 8, **columns)) == {0}


# --- The table --------------------------------------------------------------------------------


@pytest.fixture
def report(monkeypatch, tmp_path):
    """What the command line writes, with measurements that take no time."""
    result = {
        "stock": {"seconds": 4.0, "only stock": 1.0},
        "ours": {"seconds": 1.0, "unknown": None},
        "remarks": {"seconds": "as said"},
        "failed": ["ours: out of memory"],
    }
    monkeypatch.setattr(benchmark, "measure", lambda *arguments: result)
    arguments = ["--json", str(tmp_path / "x.json"), "--only", "rollout"]
    assert benchmark.main(arguments) == 1  # something failed
    written = json.loads((tmp_path / "x.json").read_text())
    return written, benchmark.document(written)


def test_the_json_has_what_is_needed_to_repeat_it(report):
    written, _ = report
    assert set(written) == {"command", "machine", "date", "versions", "measurements"}
    assert written["command"] == "python scripts/benchmark.py --only rollout"
    assert set(written["measurements"]) == {"rollout"}


def test_a_part_of_the_measurements_does_not_replace_the_table():
    with pytest.raises(SystemExit):
        benchmark.main(["--write", "--only", "rollout"])


def test_the_table_shows_ratios_failures_and_what_was_not_measured(report):
    _, page = report
    assert "| seconds | 4 | 1 | 0.25 | as said |" in page
    assert "| only stock | 1 | – | – |  |" in page
    assert "failed, ours: out of memory" in page
    assert page.count("not measured") == len(benchmark.BY_DEFAULT) - 1


def test_the_committed_table_names_its_command_machine_and_date():
    page = benchmark.TABLE.read_text()
    assert "python scripts/benchmark.py" in page
    assert re.search(r"cores, \d+ GiB, load .*; 20\d\d-\d\d-\d\d;", page)
    lines = [line for line in page.splitlines() if line.startswith("| ")][1:]
    names = [line.split(":")[0].strip("| ") for line in lines if ":" in line.split("|")[1]]
    assert names == list(benchmark.MEASUREMENTS)
    for line in lines:
        *_, stock, ours, ratio, _remark = line.strip("|").split("|")
        if ratio.strip() != "–":
            assert float(ours) / float(stock) == pytest.approx(float(ratio), rel=0.02)

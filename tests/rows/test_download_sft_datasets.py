import dataclasses
import hashlib
import itertools
import json
import pathlib
import subprocess
import sys

import download_sft_datasets
import hub_server
import pyarrow.parquet as pq
import pytest
import sentencepiece

from submission.bench.rows import data, prepared
from submission.bench.settings import config
from submission.bench.settings.config import Lengths, Source
from submission.essay import profiles, recipes

TOKENIZER = "data/tiny_gemma/tokenizer.model"


def write(path, *rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def sha256(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def thought(n):
    return {"prompt": f"What is {n}+1?", "response": f"<think>{n}+1={n + 1}.</think>{n + 1}"}


def story(n, extra=0):
    return {
        "question": f"Ada has {n} pears and buys {n + extra}. How many?",
        "answer": f"{n}+{n + extra} = <<1>>{2 * n + extra}\n#### {2 * n + extra}",
    }


@pytest.fixture(scope="module")
def tokenizer():
    return sentencepiece.SentencePieceProcessor(model_file=TOKENIZER)


@pytest.fixture
def mixed(tmp_path, monkeypatch):
    """A profile that reads two local datasets, through the real client, and a bundled file."""
    write(tmp_path / "glaive" / "train.jsonl", *map(thought, range(40)), thought(3), {
        "prompt": "too long", "response": f"<think>{'word ' * 400}</think>1"
    })  # fmt: skip
    write(tmp_path / "gsm8k" / "train.jsonl", *map(story, range(30)))
    write(tmp_path / "gsm8k" / "test.jsonl", *map(story, range(25, 40)))
    gsm8k = Source("gsm8k", str(tmp_path / "gsm8k"), domain="math", licence="MIT")
    bundled = Source("bundled", profiles.BUNDLED, ("tasks/grpo",), rows=50)
    profile = dataclasses.replace(
        profiles.TINY,
        name="mixed",
        sft_sources={"warm_start_grpo": (Source("glaive", str(tmp_path / "glaive")),)},
        grpo_sources=(gsm8k, bundled),
        evaluation=dataclasses.replace(
            profiles.TINY.evaluation, sources=(dataclasses.replace(gsm8k, split="test"),), rows=12
        ),
    )
    profile = dataclasses.replace(
        profile, sft=dataclasses.replace(profile.sft, minimum_kept=0.5), lengths=Lengths(64, 80)
    )
    monkeypatch.setitem(profiles.PROFILES, "mixed", profile)
    return profile


def prepare(folder, *options):
    download_sft_datasets.main(
        ["--out", str(folder), "--profile", "mixed", "--tokenizer", TOKENIZER, *options]
    )
    return json.loads((folder / "manifest.json").read_text())


def run_of(profile, **changes):
    return config.Run(
        dataclasses.replace(profile, **changes), "warm_start_grpo", 0, None, "", False
    )


@pytest.fixture
def folder(tmp_path, mixed):
    prepare(tmp_path / "rows")
    return tmp_path / "rows"


def test_prepared_rows_are_those_of_the_sources_in_the_same_order(mixed, folder, tokenizer):
    read = prepared.rows_of_run(run_of(mixed), tokenizer)
    there = prepared.rows_of_run(run_of(mixed, prepared=str(folder)), tokenizer)
    assert set(read) == set(there) == {"held_out", "sft", "grpo"}
    for stage in read:
        assert list(there[stage].groups.items()) == list(read[stage].groups.items())
        assert there[stage] == read[stage]
        assert len(read[stage].examples) > 10
    streams = (itertools.islice(data.mixed_forever(m["grpo"], 7), 200) for m in (read, there))
    assert all(one == other for one, other in zip(*streams, strict=True))


def test_no_prepared_row_gives_away_a_held_out_one(mixed, folder, tokenizer):
    rows = prepared.rows_of_run(run_of(mixed, prepared=str(folder)), tokenizer)
    held_out = {e.question for e in rows["held_out"].examples}
    assert held_out & {story(n)["question"] for n in range(30)}  # the test split overlaps
    assert not held_out & {e.question for e in rows["grpo"].examples}
    assert rows["grpo"].counts[0].dropped == {"copies of held-out rows": 5}


def test_the_manifest_says_where_the_rows_are_from(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    for name, file in manifest["files"].items():
        assert sha256(folder / name) == file["sha256"]
        assert pq.read_table(folder / name).num_rows == file["rows"]
    (glaive,) = manifest["stages"]["sft"]["sources"]
    assert (glaive["read"], glaive["kept"]) == (42, 40)
    # The reader drops the long row by its characters, before its adapter sees it.
    assert glaive["dropped"] == {"duplicates": 1, f"over {6 * 144} characters": 1}
    gsm8k, bundled = manifest["stages"]["grpo"]["sources"]
    assert gsm8k["licence"] == "MIT"
    assert bundled["sha256"] == sha256(profiles.BUNDLED)
    assert manifest["tokenizer"] == sha256(TOKENIZER)
    assert manifest["packages"]["datasets"]
    assert manifest["recipe"] == "warm_start_grpo"


@pytest.mark.parametrize("recipe", ["zero_cost", "zero_cost_continue", "robotics"])
def test_the_rows_of_a_recipe_are_prepared_by_its_name(recipe, tmp_path, tokenizer):
    manifest = prepare(tmp_path / "rows", "--profile", "tiny", "--recipe", recipe)
    assert manifest["recipe"] == recipe
    profile = recipes.RECIPES[recipe].applied(profiles.TINY)
    read = prepared.rows_of_run(run_of(profile), tokenizer)
    there = prepared.rows_of_run(run_of(profile, prepared=str(tmp_path / "rows")), tokenizer)
    assert there == read
    (source,) = profile.sft_sources["warm_start_grpo"]
    (count,) = manifest["stages"]["sft"]["sources"]
    assert count["read"] == (source.look or 1500)
    assert bool(read["grpo"].examples) == bool(profile.grpo.steps)


def test_preparing_twice_gives_the_same_files(tmp_path, mixed):
    first, second = prepare(tmp_path / "one"), prepare(tmp_path / "two")
    assert first["files"] == second["files"]
    assert first["stages"] == second["stages"]


def test_shares_can_change_without_preparing_again(mixed, folder, tokenizer):
    sources = tuple(dataclasses.replace(s, weight=5.0, minutes=1.0) for s in mixed.grpo_sources[:1])
    changed = run_of(
        mixed,
        prepared=str(folder),
        grpo_sources=(*sources, *mixed.grpo_sources[1:]),
        mixture=config.MixtureShares(temperature=0, cap=1.0),
    )
    shares = prepared.rows_of_run(changed, tokenizer)["grpo"].shares
    assert list(shares.values()) == pytest.approx([5 / 6, 1 / 6])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(lengths=Lengths(48, 80)), "held_out: lengths: .*64.* there .*, .*48.* here"),
        (
            dict(grpo_sources=()),
            r"grpo: sources: \['.*gsm8k.*recipe warm_start_grpo of profile mixed",
        ),
        (
            dict(grpo_sources=(Source("gsm8k", "openai/gsm8k"),)),
            r"grpo: sources: .* there .*, \['openai/gsm8k \(train\)'\] here",
        ),
    ],
)
def test_a_folder_for_another_run_is_refused(mixed, folder, tokenizer, change, message):
    run = run_of(mixed, prepared=str(folder), **change)
    with pytest.raises(ValueError, match=f"was not prepared for this run: {message}.*again"):
        prepared.rows_of_run(run, tokenizer)


def test_fewer_rows_of_a_source_need_another_folder(mixed, folder, tokenizer):
    sources = tuple(dataclasses.replace(source, rows=10) for source in mixed.grpo_sources)
    run = run_of(mixed, prepared=str(folder), grpo_sources=sources)
    with pytest.raises(ValueError, match=r"grpo: rows of .*gsm8k.*: 1000000 there .*, 10 here"):
        prepared.rows_of_run(run, tokenizer)


def test_rows_counted_with_another_tokenizer_are_refused(mixed, folder, tmp_path):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["some words and 12 numbers", "to learn from"]),
        model_prefix=str(tmp_path / "other"),
        vocab_size=40,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    other = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "other.model"))
    run = run_of(mixed, prepared=str(folder))
    with pytest.raises(ValueError, match=r"counted with the tokenizer of tokenizer.model, another"):
        prepared.rows_of_run(run, other)


def test_a_file_that_has_changed_is_refused(mixed, folder, tokenizer):
    path = folder / "sft.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)
    run = run_of(mixed, prepared=str(folder))
    with pytest.raises(ValueError, match=r"sft.parquet has changed since it was prepared"):
        prepared.rows_of_run(run, tokenizer)


@pytest.mark.parametrize("name", ["manifest.json", "grpo.parquet"])
def test_a_missing_file_is_named(mixed, folder, tokenizer, name):
    (folder / name).unlink()
    run = run_of(mixed, prepared=str(folder))
    with pytest.raises(ValueError, match=rf"cannot be used: File.*{name}.*download_sft_datasets"):
        prepared.rows_of_run(run, tokenizer)


def test_a_manifest_that_is_no_json_is_named(mixed, folder, tokenizer):
    (folder / "manifest.json").write_text("{oops")
    with pytest.raises(
        ValueError, match=r"cannot be used: JSONDecodeError: Expect.*Prepare the folder again"
    ):
        prepared.rows_of_run(run_of(mixed, prepared=str(folder)), tokenizer)


def test_a_folder_with_something_in_it_is_left_alone(folder):
    before = sorted(folder.iterdir())
    with pytest.raises(SystemExit, match="is not an empty folder"):
        prepare(folder)
    assert sorted(folder.iterdir()) == before


def test_a_preparation_that_fails_leaves_no_folder(tmp_path, mixed, monkeypatch):
    def full(path, mixture):
        raise OSError("No space left on device")

    monkeypatch.setattr(download_sft_datasets, "write_rows", full)
    with pytest.raises(SystemExit, match="No space left"):
        prepare(tmp_path / "rows")
    assert not (tmp_path / "rows").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--profile", "laptop"], "Unknown profile 'laptop'"),
        (["--recipe", "worked_only"], "Recipe 'worked_only' has no rows in profile 'mixed'"),
        (["--model", "gemma9"], "Unknown model 'gemma9'"),
        (["--tokenizer", "nowhere.model"], "nowhere.model does not exist"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_read(
    tmp_path, mixed, monkeypatch, options, message
):
    monkeypatch.setattr(prepared, "read_rows", None)
    with pytest.raises(SystemExit, match=message):
        prepare(tmp_path / "rows", *options)


# --- End to end -----------------------------------------------------------------------------


def test_the_command_prepares_the_bundled_rows(tmp_path):
    command = [sys.executable, "scripts/download_sft_datasets.py", "--profile", "tiny"]
    command += ["--recipe", "worked_only", "--out", str(tmp_path / "rows")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "rows is ready" in done.stdout
    manifest = json.loads((tmp_path / "rows" / "manifest.json").read_text())
    assert (manifest["profile"], manifest["recipe"]) == ("tiny", "worked_only")
    assert manifest["files"]["held_out.parquet"]["rows"] == 600


KAGGLE_CHILD = """
import dataclasses, json, sys, warnings
sys.path.insert(0, "scripts")
import sentencepiece
import download_sft_datasets
from submission.bench.rows import data, prepared
from submission.essay import profiles
options = ["--out", sys.argv[1], "--tokenizer", sys.argv[2]]
download_sft_datasets.main(options)
run = profiles.read_run({"PROFILE": "kaggle"}, "cpu")
tokenizer = sentencepiece.SentencePieceProcessor(model_file=sys.argv[2])
read = prepared.read_rows(run, tokenizer)
profile = dataclasses.replace(run.profile, prepared=sys.argv[1])
there = prepared.rows_of_run(dataclasses.replace(run, profile=profile), tokenizer)
print(json.dumps(data.what_was_read(there)))
print(json.dumps([[stage, len(rows.examples), list(there[stage].groups.items())
    == list(rows.groups.items()), there[stage].shares == rows.shares]
    for stage, rows in read.items()]))
"""


def serve_public_datasets(hub):
    """A few rows in the schema of each dataset of the kaggle profile but one."""

    def serve(name, **subsets):
        source = profiles.SOURCES[name]
        files = {
            f"{subset}/{split}-00000-of-00001.parquet": hub_server.parquet(list(rows))
            for subset, splits in subsets.items()
            for split, rows in splits.items()
        }
        card = hub_server.card(**{
            subset: {split: f"{subset}/{split}-*" for split in splits}
            for subset, splits in subsets.items()
        })  # fmt: skip
        hub.add(source.location, {**files, "README.md": card}, source.revision or "main")

    def program(n):
        return {
            "task_id": n, "text": f"Write a function f{n} to add {n}.", "test_setup_code": "",
            "code": f"def f{n}(x):\n    return x + {n}", "challenge_test_list": [],
            "test_list": [f"assert f{n}({x}) == {x + n}" for x in (1, 2, 3)],
        }  # fmt: skip

    def arc(n, word):
        return {
            "id": str(n), "question": f"Which {word} has {n} legs?", "answerKey": "B",
            "choices": {"text": [f"a{n}", f"b{n}", f"c{n}"], "label": ["A", "B", "C"]},
        }  # fmt: skip

    def fact(n):
        return {"question": f"Is {n} less than {n + 5}?", "answer": True, "facts": f"{n} is."}

    def order(n):
        return {"instruction": f"Name {n} trees.", "context": "", "response": "Oak and elm.",
                "category": "brainstorming"}  # fmt: skip

    serve("glaive", default={"train": map(thought, range(60))})
    held_out = [story(n, 50) for n in range(20)]
    serve("gsm8k", main={"train": [*map(story, range(40)), held_out[7]], "test": held_out})
    serve("mbpp", full={"train": map(program, range(8)), "test": map(program, range(50, 54))})
    serve("strategyqa", default={"train": map(fact, range(30)), "test": map(fact, range(90, 99))})
    serve("dolly", default={"train": map(order, range(2, 260))})
    serve(
        "arc_easy",
        **{
            subset: {split: [arc(n, kind) for n in legs] for split, legs in ARC_LEGS.items()}
            for subset, kind in (("ARC-Easy", "animal"), ("ARC-Challenge", "insect"))
        },
    )


ARC_LEGS = {"train": range(20), "test": range(40, 50)}


def read_kaggle(hub, tmp_path, script=KAGGLE_CHILD):
    """The kaggle profile's rows, read and prepared by a child of the real clients."""
    return subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "rows"), TOKENIZER],
        env=hub_server.child_environment(hub.endpoint, str(tmp_path / "hf")),
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.slow
def test_without_glaive_the_warm_start_learns_from_worked_solutions(tmp_path):
    with hub_server.Hub() as hub:
        serve_public_datasets(hub)
        del hub.repositories[profiles.SOURCES["glaive"].location]
        commit = hub.repositories["openai/gsm8k"].refs[profiles.SOURCES["gsm8k"].revision]
        done = read_kaggle(hub, tmp_path)
    assert done.returncode == 0, done.stderr
    *_, read, stages = map(json.loads, done.stdout.splitlines()[-2:])
    assert all(same_rows and same_shares for _, _, same_rows, same_shares in stages)  # prepared
    gsm8k, ours = (row for row in read if row["stage"] == "sft")
    assert (gsm8k["location"], gsm8k["licence"], gsm8k["commit"]) == ("openai/gsm8k", "MIT", commit)
    assert (gsm8k["read"], gsm8k["kept"]) == (41, 40)  # one is held out
    assert (ours["location"], ours["commit"]) == (profiles.BUNDLED, None)
    assert ours["kept"] > 2000
    told = "Of glaiveai/reasoning-v1-20m (train) only 0 rows came. Others are added: openai/gsm8k"
    assert done.stdout.count(told) == 2  # prepared, then read


DOWN_CHILD = """
import sys, time
time.sleep = lambda seconds: None
sys.path.insert(0, "scripts")
import sentencepiece
from submission.bench.rows import prepared
from submission.essay import profiles
tokenizer = sentencepiece.SentencePieceProcessor(model_file=sys.argv[2])
prepared.read_rows(profiles.read_run({"PROFILE": "kaggle"}, "cpu"), tokenizer)
"""


def test_without_a_hub_the_run_stops_and_says_what_needs_none(tmp_path):
    """There is nothing to evaluate on, and there are no prompts: traces alone are no run."""
    with hub_server.Hub() as hub:
        hub.trouble("", hub_server.Trouble(status=503, times=None))
        done = read_kaggle(hub, tmp_path, DOWN_CHILD)
    assert done.returncode == 1
    message = done.stderr.partition("RuntimeError: Only 0% of the mixture's weight could be")[2]
    assert message.count("the last with 503 Service Unavailable") == 5
    assert message.count("trouble of the hub's own: start again later") == 5
    assert "internet" not in message
    assert (
        "scripts/download_sft_datasets.py has prepared needs no hub, nor does PROFILE=" in message
    )


@pytest.mark.slow
def test_the_kaggle_profile_is_prepared_from_a_hub_one_of_whose_datasets_is_gone(tmp_path):
    """The real clients, a hub on this machine; prepared rows beside rows read at once."""
    with hub_server.Hub() as hub:
        serve_public_datasets(hub)
        done = read_kaggle(hub, tmp_path)
        commits = {name: set(repository.commits) for name, repository in hub.repositories.items()}
    assert done.returncode == 0, done.stderr
    stages = {stage: rest for stage, *rest in json.loads(done.stdout.splitlines()[-1])}
    assert [count for count, _, _ in stages.values()] == [
        20 + 4 + 10 + 9 + 100, 60, 40 + 8 + 20 + 20 + 30 + 158,
    ]  # fmt: skip
    assert all(same_rows and same_shares for _, same_rows, same_shares in stages.values())
    assert "writingprompts (train) is left out" in done.stderr

    manifest = json.loads((tmp_path / "rows" / "manifest.json").read_text())
    grpo = {entry["name"]: entry for entry in manifest["stages"]["grpo"]["sources"]}
    gone = grpo.pop("euclaise/writingprompts (train)")
    assert gone["kept"] == 0
    assert "no public dataset" in gone["trouble"]
    for entry in grpo.values():
        assert entry["revision"] in commits[entry["id"]]
    assert grpo["databricks/databricks-dolly-15k (train)"]["dropped"] == {
        "copies of held-out rows": 100
    }


@pytest.mark.parametrize(("minutes", "whole", "part"), [(None, 20, 1.0), (30.0, 3, 0.15)])
def test_of_a_short_run_each_source_gets_its_part_of_the_reading(
    monkeypatch, tokenizer, minutes, whole, part
):
    """Or the first large one would have it all, and the others none."""
    given = {}

    def load_mixture(*, sources, fallback, minutes, **_):
        given.update({source.location: source.minutes for source in (*sources, *fallback)})
        given["whole"] = max(minutes, given.get("whole", 0))
        return data.Mixture({}, {}, ())

    monkeypatch.setattr(prepared, "load_mixture", load_mixture)
    run = dataclasses.replace(profiles.read_run({}, "tpu"), minutes=minutes)
    prepared.read_rows(run, tokenizer, clock=lambda: 0.0)
    glaive = profiles.SOURCES["glaive"]
    assert given["whole"] == pytest.approx(whole)
    assert given[glaive.location] == pytest.approx(part * glaive.minutes)

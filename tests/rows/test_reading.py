import collections
import doctest
import itertools
import json
import os
import pathlib
import subprocess
import sys
import threading
import time
import types

import httpx
import hub_server
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import Trouble

from submission.bench.answers.prompts import Example
from submission.bench.rows import hub as hub_module
from submission.bench.rows import reading
from submission.bench.rows.hub import SourceDown
from submission.bench.settings.config import Source
from submission.essay import profiles

GLAIVE = dict(adapter="glaive", location="glaiveai/reasoning-v1-20m")
DOLLY = dict(adapter="dolly", location="databricks/databricks-dolly-15k")
GROUP, GROUPS = 100, 20  # rows in a row group, row groups in the first of two files
FOOTER = 1 << 16  # bytes that Arrow asks for first, from the end of a file
FIRST, SECOND = "train-00000-of-00002.parquet", "train-00001-of-00002.parquet"


def thinking(number, length=3000):
    """A row like glaive's, whose bytes cannot be compressed away."""
    noise = os.urandom(length // 2).hex()
    return {"prompt": f"q{number}", "response": f"<think>t{number}</think>{noise}"}


def questions(rows):
    return [row["question"] for row in rows]


# What a reader must give, whatever happens on the way: every row once, in order.
ALL = [f"q{number}" for number in range(GROUP * (GROUPS + 5))]


@pytest.fixture(scope="module")
def files():
    rows = [thinking(number) for number in range(len(ALL))]
    half = GROUP * GROUPS
    # Without statistics, the footer comes in one request, and requests can be counted.
    first = hub_server.parquet(
        rows[:half], row_group_size=GROUP, compression="none", write_statistics=False
    )
    second = hub_server.parquet(rows[half:], row_group_size=GROUP)
    return {f"data/{FIRST}": first, f"data/{SECOND}": second}


@pytest.fixture(scope="module")
def served(tmp_path_factory, files):
    with hub_server.reading_hub(str(tmp_path_factory.mktemp("hf"))) as (hub, read):
        hub.add(GLAIVE["location"], files)
        rows = [
            {"instruction": f"q{n}", "context": "", "response": "r" * 50, "category": "open_qa"}
            for n in range(3000)
        ]
        hub.add(DOLLY["location"], {"databricks-dolly-15k.jsonl": hub_server.json_lines(rows)})
        yield hub, read


@pytest.fixture
def hub(served):
    served[0].forget()
    return served[0]


@pytest.fixture
def read(served):
    return served[1]


def test_the_examples_in_the_docstrings_hold():
    for module in (reading, hub_module):
        assert doctest.testmod(module).failed == 0


# --- Only what is needed travels --------------------------------------------------------------


def test_all_rows_come_once_and_in_order(hub, read):
    done = read(GLAIVE)
    assert done.error is None
    assert questions(done.rows) == ALL


def test_one_row_group_of_twenty_costs_its_own_bytes_and_little_more(hub, read, files):
    done = read(GLAIVE, take=10)
    assert questions(done.rows) == ALL[:10]
    whole = len(files[f"data/{FIRST}"])
    # One row group, the footer, and at most the two that are read ahead.
    assert hub.sent("parquet") < 4 * whole / GROUPS + FOOTER
    assert not hub.asked(SECOND)


def test_a_whole_file_travels_once(hub, read, files):
    read(GLAIVE)
    assert hub.sent("parquet") < 1.05 * sum(map(len, files.values())) + 2 * FOOTER


def test_columns_that_no_adapter_looks_at_stay_where_they_are(hub, read):
    rows = [
        {"question": f"q{n}", "reference_answer": "a", "rubric_list": [os.urandom(2000).hex()]}
        for n in range(500)
    ]
    hub.add("ScaleAI/RaR-Science", {"data/train.parquet": hub_server.parquet(rows)})
    done = read(dict(adapter="rar_science", location="ScaleAI/RaR-Science"))
    assert questions(done.rows) == [f"q{n}" for n in range(500)]
    assert hub.sent("parquet") < 100_000  # of two million


def test_a_footer_longer_than_the_first_request_is_read_whole(hub, read):
    content = hub_server.parquet([thinking(n) for n in range(120)], row_group_size=5)
    assert int.from_bytes(content[-8:-4], "little") > FOOTER
    hub.add("somebody/footer", {"data/train.parquet": content})
    done = read(dict(adapter="glaive", location="somebody/footer"))
    assert questions(done.rows) == ALL[:120]


def test_only_the_files_named_in_the_source_are_read(hub, read):
    done = read({**GLAIVE, "files": f"data/{SECOND}"})
    assert questions(done.rows) == ALL[GROUP * GROUPS :]
    assert not hub.asked(FIRST)


@pytest.mark.parametrize("workers", [2, 3, 7])
def test_the_rows_do_not_depend_on_the_number_of_workers(hub, read, workers):
    done = read(GLAIVE, workers=workers)
    assert done.error is None
    assert questions(done.rows) == ALL


@pytest.mark.parametrize("workers", [1, 3])
def test_files_that_have_no_row_groups_are_read_one_after_the_other(hub, read, workers):
    numbers = [range(begin, begin + 700) for begin in range(0, 2800, 700)]
    names = [f"train-{number:05}-of-00004.jsonl" for number in range(4)]
    contents = [hub_server.json_lines(thinking(n, length=100) for n in part) for part in numbers]
    hub.add("somebody/files", dict(zip(names, contents, strict=True)))
    hub.trouble("00002-of", Trouble(cut=100, times=6))
    done = read(dict(adapter="glaive", location="somebody/files"), workers=workers)
    assert done.error is None
    assert questions(done.rows) == [f"q{n}" for n in range(2800)]


def test_several_workers_share_a_slow_hub(hub, read):
    seconds = {}
    for workers in (1, 4):
        hub.forget()
        hub.trouble("parquet", Trouble(times=None, delay=0.1))
        seconds[workers] = read(GLAIVE, workers=workers).seconds
    assert seconds[4] < 0.7 * seconds[1]


def test_long_rows_are_counted_and_not_read(hub, read):
    rows = [thinking(n, length=200 if n % 10 == 0 else 4000) for n in range(200)]
    hub.add("somebody/mixed", {"data/train.parquet": hub_server.parquet(rows)})
    done = read(dict(adapter="glaive", location="somebody/mixed"), longest=1000)
    counts = collections.Counter(row for row in done.rows if isinstance(row, str))
    assert counts == {"over 1000 characters": 180}
    assert questions(row for row in done.rows if isinstance(row, dict)) == [
        f"q{n}" for n in range(0, 200, 10)
    ]


def test_long_rows_are_counted_the_same_way_in_json_lines(hub, read):
    rows = [thinking(n, length=200 if n % 10 == 0 else 4000) for n in range(200)]
    hub.add("somebody/lines", {"train.jsonl": hub_server.json_lines(rows)})
    done = read(dict(adapter="glaive", location="somebody/lines"), longest=1000)
    assert sum(row == "over 1000 characters" for row in done.rows) == 180


# --- Revisions ------------------------------------------------------------------------------


def test_a_branch_is_resolved_to_its_commit(hub, read):
    commit = hub.repositories[GLAIVE["location"]].refs["main"]
    assert read(GLAIVE, do="resolve").rows == [commit]
    assert read({**GLAIVE, "revision": commit}, do="resolve").rows == [commit]


def test_after_the_first_answer_only_the_commit_is_asked_for(hub, read):
    """The branch may move while we read: a retry must not see another dataset."""
    commit = hub.repositories[GLAIVE["location"]].refs["main"]
    read(GLAIVE, take=1)
    assert [line.path for line in hub.log if commit not in line.path] == [
        "/api/datasets/" + GLAIVE["location"]
    ]


def test_a_pinned_commit_is_read_although_the_branch_has_moved(hub, read):
    old = hub.add("somebody/moving", {"train.jsonl": hub_server.json_lines([thinking(1)])})
    hub.add("somebody/moving", {"train.jsonl": hub_server.json_lines([thinking(2)])})
    source = dict(adapter="glaive", location="somebody/moving")
    assert questions(read({**source, "revision": old}).rows) == ["q1"]
    assert questions(read(source).rows) == ["q2"]


def test_a_local_folder_has_no_revision(tmp_path):
    assert reading.resolve_revision(Source("glaive", str(tmp_path))) == "local"
    assert reading.resolve_revision(profiles.WORKED) == "local"


# --- Trouble that passes ----------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(
    "trouble",
    [
        dict(status=500, times=3, after=2),
        dict(status=429, retry_after=7, times=2, after=3),
        dict(status=503, times=9, after=4),
        dict(cut=100_000, times=1, after=5),
        dict(cut=100_000, times=8, after=5),
        dict(cut=0, times=7, after=2),
    ],
    ids=json.dumps,
)
def test_no_row_is_lost_or_comes_twice(hub, read, trouble, workers):
    hub.trouble("parquet", Trouble(**trouble))
    done = read(GLAIVE, workers=workers)
    assert done.error is None
    assert questions(done.rows) == ALL


def test_what_had_come_before_the_break_does_not_travel_again(hub, read, files):
    # The footer and 10 row groups pass; then seven cuts in one row group: the client gives up.
    hub.trouble("parquet", Trouble(cut=1000, times=7, after=11))
    done = read(GLAIVE)
    assert questions(done.rows) == ALL
    assert done.ours == [1.0]
    whole = sum(map(len, files.values()))
    assert hub.sent("parquet") < 1.05 * whole + 3 * FOOTER + 7 * 1000


def test_a_broken_json_file_goes_on_at_the_row_where_it_broke(hub, read):
    """Ten thousand rows, of which the client fetches some, then loses the connection."""
    rows = [
        {"instruction": f"q{n}", "context": "x" * 2000, "response": "r", "category": "open_qa"}
        for n in range(10_000)
    ]  # 21 MB: the client reads 10 MB at a time
    hub.add("somebody/long", {"train.jsonl": hub_server.json_lines(rows)})
    hub.trouble("jsonl", Trouble(cut=1000, times=7, after=2))
    done = read(dict(adapter="dolly", location="somebody/long"))
    assert done.error is None
    assert len(done.ours) == 1
    assert [q.split("\n")[0] for q in questions(done.rows)] == [f"q{n}" for n in range(10_000)]


def test_the_api_may_fail_too(hub, read):
    hub.trouble("^/api/", Trouble(status=500, times=3))
    done = read(DOLLY)
    assert done.error is None
    assert len(done.rows) == 3000
    assert done.ours[:2] == [1.0, 2.0]


def test_a_list_of_files_that_breaks_off_is_not_taken_for_the_whole_list(hub, read):
    hub.page = 1  # entries; the second page has the second file
    hub.trouble("/tree/.*/data", Trouble(status=500, times=1, after=1))
    done = read(GLAIVE)
    hub.page = 1000
    assert done.error is None
    assert done.ours == [1.0]
    assert questions(done.rows) == ALL


def test_waits_double_from_failure_to_failure(hub, read):
    hub.trouble("/tree/", Trouble(status=500, times=5))
    done = read(DOLLY, retry=dict(first_wait=0.5, longest_wait=3.0))
    assert done.ours == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_a_row_between_two_failures_starts_the_count_again(hub, read):
    for group in (3, 6, 9, 12, 15):
        hub.trouble(FIRST, Trouble(status=500, times=2, after=group))
    done = read(GLAIVE, retry=dict(refusals=4))
    assert done.error is None
    assert questions(done.rows) == ALL
    assert len(done.ours) >= 3  # in all; in a row, it would have been one too many


@pytest.mark.parametrize("kind", [dict(delay=5.0), dict(pace=2000.0)], ids=["stall", "trickle"])
def test_a_read_that_stalls_is_a_read_that_failed(hub, read, kind):
    """A trickle never meets the client's own time limit: every packet comes in time."""
    hub.trouble("parquet", Trouble(times=1, after=4, **kind))
    done = read(GLAIVE, retry=dict(stall=0.7))
    assert done.error is None
    assert questions(done.rows) == ALL
    assert done.ours == [1.0]
    assert done.seconds < 4


def test_a_list_of_files_that_stalls_is_noticed_although_the_client_has_no_limit_for_it(hub, read):
    hub.trouble("/tree/", Trouble(times=1, delay=20.0))
    done = read(GLAIVE, retry=dict(stall=0.7), take=5)
    assert questions(done.rows) == ALL[:5]
    assert done.seconds < 5


# --- A hub that says "later" ------------------------------------------------------------------

# Where it says so: when the branch is resolved, the card read, the files listed, a footer read;
# in the middle of a file.
PLACES = {
    "revision": ("^/api/datasets/[^/]+/[^/]+$", 0),
    "card": ("README.md", 0),
    "files": ("/tree/", 0),
    "footer": ("parquet", 0),
    "middle": ("parquet", 7),
}
BUSY = {
    "60 s by RateLimit": dict(status=429, seconds=60, ratelimit=True),
    "280 s by RateLimit": dict(status=429, seconds=280, ratelimit=True),
    "280 s by Retry-After": dict(status=429, seconds=280, retry_after=280),
    "503 for 100 s by Retry-After": dict(status=503, seconds=100, retry_after=100),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("busy", BUSY)
def test_a_wait_that_the_hub_states_is_kept_and_no_failure(hub, read, place, busy):
    pattern, after = PLACES[place]
    hub.trouble(pattern, Trouble(after=after, **BUSY[busy]))
    done = read(GLAIVE, retry=dict(attempts=1, refusals=1), workers=3)
    assert done.error is None
    assert questions(done.rows) == ALL
    assert done.ours == [BUSY[busy]["seconds"] + 1]
    assert not done.waited  # else it would be waited for twice
    assert f"again in {done.ours[0]:g} s as the hub asks" in done.printed


@pytest.mark.parametrize("place", PLACES)
def test_two_minutes_of_503_are_survived(hub, read, place):
    pattern, after = PLACES[place]
    hub.trouble(pattern, Trouble(after=after, status=503, seconds=120))
    done = read(GLAIVE)
    assert done.error is None
    assert questions(done.rows) == ALL
    assert 120 <= sum(done.ours) < 160
    assert not done.waited


def test_an_hour_is_not_waited_for_at_once_and_not_past_the_minutes(hub, read):
    hub.trouble("", Trouble(status=429, retry_after=3600, times=None))
    done = read({**GLAIVE, "minutes": 12.0})
    assert done.ours == [301, 301]
    assert "its 12 minutes end before the next try, in 301 s" in done.error[1]
    assert "A token raises the limit" in done.error[1]


def test_a_wait_past_the_minutes_of_a_source_leaves_it_with_what_it_has(hub, read):
    hub.trouble("parquet", Trouble(status=429, seconds=280, ratelimit=True, after=6))
    done = read({**GLAIVE, "minutes": 4.0})
    assert done.error is None
    assert questions(done.rows) == ALL[: 5 * GROUP]
    assert done.ours == []
    assert "4 minutes are over (429 Too Many Requests)" in done.printed


def test_a_date_or_nothing_in_place_of_seconds_is_a_plain_failure(hub, read):
    for said in ("Sun, 29 Nov 2026 12:00:00 GMT", 0):
        hub.forget()
        hub.trouble("/tree/", Trouble(status=429, retry_after=said, times=2))
        done = read(GLAIVE)
        assert questions(done.rows) == ALL
        assert done.ours == [1.0, 2.0]


@pytest.mark.slow
def test_no_single_refusal_while_a_dataset_is_opened_changes_what_is_read(hub, read):
    """Some of the client's requests may fail without its telling anyone."""
    rows = {name: [{"question": name, "answer": "#### 1"}] for name in ("main", "socratic")}
    files = {f"{name}/train.parquet": hub_server.parquet(rows[name]) for name in rows}
    card = hub_server.card(**{name: {"train": f"{name}/train.parquet"} for name in rows})
    for number in range(30):
        hub.forget()
        location = f"somebody/card{number}"  # new each time: the client keeps the card
        hub.add(location, {**files, "README.md": card})
        hub.trouble("", Trouble(status=503, times=1, after=number))
        done = read(dict(adapter="gsm8k", location=location, subset="main"))
        assert questions(done.rows) == ["main"], number
        assert not hub.troubles[0][1].times or number >= len(hub.log)
    assert number > len(hub.log)  # and each of them was met


# --- Tokens -----------------------------------------------------------------------------------


def test_a_token_of_the_environment_or_of_kaggles_secrets_is_sent_with_every_request(hub, read):
    for given in (
        dict(environment={"HF_TOKEN": "hf_one"}),
        dict(secrets={"HF_TOKEN": "hf_one"}),
        dict(environment={"HF_TOKEN": "hf_one"}, secrets={"HF_TOKEN": "hf_two"}),
    ):
        hub.forget()
        assert questions(read(GLAIVE, take=500, **given).rows) == ALL[:500]
        assert set(hub.tokens) == {"hf_one"}
    hub.forget()
    read(GLAIVE, secrets={"ANOTHER": "hf_one"})
    assert set(hub.tokens) == {""}


@pytest.mark.parametrize("given", ["environment", "secrets"])
def test_a_stale_token_does_not_hide_public_data(hub, read, given):
    hub.trouble("", Trouble(status=401, token="hf_stale", times=None))
    done = read(GLAIVE, workers=3, **{given: {"HF_TOKEN": "hf_stale"}})
    assert done.error is None
    assert questions(done.rows) == ALL
    assert done.printed.count("The hub refuses the token HF_TOKEN (401)") == 1
    assert hub.tokens[:2] == ["hf_stale", ""]  # the same again
    assert set(hub.tokens[2:]) == {""}
    assert done.ours == []


def test_the_token_is_for_the_hub_alone():
    seen = []

    def answer(request):
        seen.append(request.headers.get("Authorization"))
        return httpx.Response(200)

    token = hub_module.HubToken("hf_one")
    with httpx.Client(auth=token, transport=httpx.MockTransport(answer)) as client:
        client.get(huggingface_hub.constants.ENDPOINT + "/api")
        client.get("https://example.org")
    assert seen == ["Bearer hf_one", None]


def test_a_secret_that_is_missing_or_does_not_come_is_no_error(monkeypatch):
    def serve(get_secret):
        client = types.SimpleNamespace(get_secret=get_secret)
        module = types.SimpleNamespace(UserSecretsClient=lambda: client)
        monkeypatch.setitem(sys.modules, "kaggle_secrets", module)

    assert hub_module.kaggle_secret("HF_TOKEN") == ""  # no such module
    serve({"HF_TOKEN": "hf_one"}.__getitem__)
    assert hub_module.kaggle_secret("HF_TOKEN") == "hf_one"
    assert hub_module.kaggle_secret("ANOTHER") == ""
    serve(lambda name: threading.Event().wait(20))
    assert hub_module.kaggle_secret("HF_TOKEN", seconds=0.1) == ""


# --- Trouble that stays -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "waits", "remedy"),
    [
        (429, 9, "A token raises the limit of the hub. It is HF_TOKEN: a secret on Kaggle"),
        (500, 9, "trouble of the hub's own: start again later"),
        (401, 0, "at 'main'. Correct it in SOURCES, or switch the source off. If it is gated"),
        (403, 0, "give a token. It is HF_TOKEN"),
        (418, 3, "The connection is slow, or breaks: start again later"),
    ],
)
def test_what_helps_is_said_by_what_was_seen(hub, read, status, waits, remedy):
    hub.trouble("", Trouble(status=status, times=None))
    done = read(GLAIVE)
    kind, message = done.error
    assert kind == "SourceDown"
    assert f"Could not read glaiveai/reasoning-v1-20m: {waits + 1} reads in a row" in message
    assert f"after 0 rows, the last with {status} " in message
    assert remedy in message
    assert "internet" not in message
    assert done.ours == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 30.0][:waits]
    assert not done.waited  # the clients wait for no status


def test_a_dataset_whose_files_are_gated_is_not_asked_for_again(hub, read):
    hub.trouble("resolve", Trouble(status=403, times=None))
    done = read(GLAIVE)
    assert done.error[0] == "SourceDown"
    assert "If it is gated, accept its terms" in done.error[1]
    assert done.ours == []


def test_a_source_that_goes_down_half_way_has_given_its_rows_first(hub, read):
    hub.trouble("parquet", Trouble(status=500, times=None, after=5))
    done = read(GLAIVE)
    kind, message = done.error
    assert kind == "SourceDown"
    assert questions(done.rows) == ALL[: len(done.rows)]
    assert len(done.rows) == 4 * GROUP
    assert f"after {4 * GROUP} rows" in message
    # As the client comes, it would have tried for half an hour.
    assert sum(done.ours + done.waited) < 180


def test_a_json_source_that_goes_down_is_noticed_as_soon(hub, read):
    hub.trouble("jsonl", Trouble(cut=100, times=None, after=1))
    done = read(DOLLY)
    assert done.error[0] == "SourceDown"
    assert sum(done.ours + done.waited) < 120


def test_a_dataset_that_does_not_exist_is_not_asked_for_again(hub, read):
    done = read(dict(adapter="glaive", location="somebody/nothing"))
    assert done.error[0] == "SourceDown"
    assert "no public dataset 'somebody/nothing' at 'main'" in done.error[1]
    assert done.ours == []
    assert len(hub.log) == 1


def test_a_revision_that_does_not_exist_is_named(hub, read):
    done = read({**GLAIVE, "revision": "refs/pr/7"})
    assert done.error[0] == "SourceDown"
    assert "at 'refs/pr/7'" in done.error[1]


def test_nothing_listening_ends_in_one_clear_message(tmp_path):
    """The real client, told to talk to an address where nothing listens."""
    script = """
from submission.bench.rows import hub, reading
from submission.essay import profiles
next(reading.read_source(profiles.SOURCES['gsm8k'], retry=hub.Retry(first_wait=0.1)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=hub_server.child_environment("http://127.0.0.1:9", str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=120,
        cwd=hub_server.ROOT,
    )
    assert done.returncode == 1
    last_lines = "\n".join(done.stderr.splitlines()[-2:])
    assert "SourceDown: Could not read openai/gsm8k: 4 reads in a row have failed" in last_lines
    assert "Is the internet on?" in last_lines


def test_the_minutes_of_a_source_end_its_retries(hub, read):
    hub.trouble("", Trouble(status=500, times=None))
    done = read({**GLAIVE, "minutes": 0.02}, retry=dict(attempts=1000))
    assert done.error[0] == "SourceDown"
    assert len(done.ours) < 3


def test_a_source_whose_minutes_end_during_a_stall_gives_what_it_had(hub, read):
    hub.trouble("parquet", Trouble(delay=30.0, times=None, after=5))
    done = read({**GLAIVE, "minutes": 0.05})
    assert done.error is None
    assert questions(done.rows) == ALL[: 4 * GROUP]
    assert done.seconds < 8


def test_a_process_with_a_stuck_read_still_ends_cleanly(hub, tmp_path):
    """A thread that waits for the hub must not bring the interpreter down at its end."""
    hub.trouble("parquet", Trouble(delay=60.0, times=None, after=3))  # footer, two row groups
    script = """
import itertools
from submission.bench.rows import reading
from submission.bench.settings.config import Source
rows = reading.read_source(Source("glaive", "glaiveai/reasoning-v1-20m"), workers=2)
print(len(list(itertools.islice(rows, 150))))
"""
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=hub_server.child_environment(hub.endpoint, str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=60,
        cwd=hub_server.ROOT,
    )
    hub.closing.set()  # lets the delayed answers go
    hub.closing = threading.Event()
    assert (done.returncode, done.stdout.split()[-1]) == (0, "150"), done.stderr
    assert time.monotonic() - begin < 30


# --- Rows that are not what was promised --------------------------------------------------------


def test_a_column_that_is_missing_is_named_with_those_that_are_there(hub, read):
    rows = [{"prompt": "q", "answer": "a"}]
    for location, name, content in (
        ("somebody/wrong", "data/train.parquet", hub_server.parquet(rows)),
        ("somebody/wrong-lines", "train.jsonl", hub_server.json_lines(rows)),
    ):
        hub.forget()
        hub.add(location, {name: content})
        done = read(dict(adapter="glaive", location=location))
        kind, message = done.error
        assert kind == "ColumnsError"
        assert message.startswith(f"{location}: ")
        assert "'response'" in message
        assert "'prompt'" in message
        assert done.ours == []  # no use trying again


def test_a_dataset_of_other_columns_altogether_is_named(hub, read):
    hub.add("somebody/other", {"data/train.parquet": hub_server.parquet([{"image": "x"}])})
    kind, message = read(dict(adapter="glaive", location="somebody/other")).error
    assert kind == "ColumnsError"
    assert "('prompt', 'response')" in message
    assert "['image']" in message


def test_a_split_that_is_missing_is_named(hub, read):
    kind, message = read({**GLAIVE, "split": "test"}).error
    assert kind == "ValueError"
    assert "no split 'test'; there are ['train']" in message


def test_a_column_error_is_a_value_error():
    assert issubclass(reading.ColumnsError, ValueError)
    assert issubclass(SourceDown, RuntimeError)


# --- Local folders --------------------------------------------------------------------------------


def test_a_local_folder_is_read_as_the_hub_is(tmp_path, files):
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(content)
    rows = reading.read_source(Source("glaive", str(tmp_path)))
    assert [row.question for row in rows] == ALL


def test_reading_ahead_stops_when_nobody_wants_more(tmp_path, files):
    (tmp_path / "train.parquet").write_bytes(files[f"data/{FIRST}"])
    before = threading.active_count()
    rows = reading.read_source(Source("glaive", str(tmp_path)), workers=3)
    assert [row.question for row in itertools.islice(rows, 3)] == ALL[:3]
    rows.close()
    assert threading.active_count() == before


SCAN = """
import pathlib, resource, sys
from submission.bench.rows import reading
from submission.bench.settings.config import Source

def resident():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024

sizes, rows = [], 0
for row in reading.read_source(Source("glaive", sys.argv[1], minutes=9)):
    rows += 1
    if rows % 100_000 == 0:
        sizes.append(resident())
print(rows, *sizes)
"""


@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="needs /proc")
def test_a_million_rows_take_no_more_memory_than_a_hundred_thousand(tmp_path):
    text = "<think>" + "x" * 200 + "</think>y"
    table = pa.table({"prompt": [f"q{n}" for n in range(250_000)], "response": [text] * 250_000})
    for number in range(4):
        pq.write_table(
            table, tmp_path / f"train-{number:05}-of-00004.parquet", row_group_size=10_000
        )
    done = subprocess.run(
        [sys.executable, "-c", SCAN, str(tmp_path)],
        env=hub_server.child_environment("http://127.0.0.1:9", str(tmp_path / "hf")),
        capture_output=True,
        text=True,
        timeout=120,
        cwd=hub_server.ROOT,
        check=True,
    )
    rows, first, *later = map(float, done.stdout.split())
    assert rows == 1_000_000
    assert max(later) - first < 40  # MB


# --- Bundled rows -------------------------------------------------------------------------------

ROW = {"question": "q?", "answer": "1", "checker": "number", "domain": "math", "source": "s"}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Source("bundled", str(path))


def test_a_missing_file_is_named_with_the_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.jsonl does not exist.*tasks.py"):
        next(reading.read_source(Source("bundled", str(tmp_path / "nowhere.jsonl"))))


def test_a_line_that_is_no_json_is_named(tmp_path):
    source = write(tmp_path / "rows.jsonl", ROW)
    with (tmp_path / "rows.jsonl").open("a") as lines:
        lines.write("{oops\n")
    with pytest.raises(ValueError, match=r"rows.jsonl, line 2: not JSON"):
        list(reading.read_source(source))


def test_a_row_without_a_field_is_named(tmp_path):
    source = write(tmp_path / "rows.jsonl", {k: v for k, v in ROW.items() if k != "checker"})
    with pytest.raises(ValueError, match=r"line 1: the row has no field 'checker'"):
        list(reading.read_source(source))


def test_only_the_selected_parts_of_a_file_are_read(tmp_path):
    source = write(tmp_path / "rows.jsonl", ROW, {**ROW, "source": "tasks/sft/steps"})
    chosen = Source("bundled", source.location, ("tasks/sft/",))
    assert [row.source for row in reading.read_source(chosen)] == ["tasks/sft/steps"]


def test_a_parquet_file_of_examples_gives_the_examples_back(tmp_path):
    examples = [
        Example("q?", "A", "choice", "t", "science", ("x", "y"), (), 0.25, "s"),
        Example("f?", "def f(): pass", "code", tests=("assert f() is None",), source="s"),
    ]
    fields = [vars(example) for example in examples]
    (tmp_path / "rows.parquet").write_bytes(hub_server.parquet(fields))
    assert list(reading.read_source(Source("bundled", str(tmp_path / "rows.parquet")))) == examples


def test_a_parquet_row_without_a_field_is_named(tmp_path):
    (tmp_path / "rows.parquet").write_bytes(hub_server.parquet([{"question": "q"}]))
    with pytest.raises(ValueError, match=r"rows.parquet, row 1: the row has no field 'answer'"):
        list(reading.read_source(Source("bundled", str(tmp_path / "rows.parquet"))))

"""A stand-in for the Hugging Face hub on 127.0.0.1, for tests of the real client.

It answers what `datasets`, `huggingface_hub` and its file system ask for when they stream a
dataset: repository info, file trees, path infos, and files with byte ranges. The requests were
found by logging the installed clients. Trouble can be ordered per path: status codes, cut
connections, stalls, trickles. Every request is logged with the bytes that were sent, so that a
test can say what travelled.

    with Hub() as hub:
        hub.add("openai/gsm8k", {"main/train-00000-of-00001.parquet": parquet(rows)})
        hub.trouble("resolve", Trouble(status=500, times=2))
        ...  # a child process with HF_ENDPOINT=hub.endpoint

The clients read HF_ENDPOINT when they are imported: `Reader` starts such a child once and
reads sources through it, one after the other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.server
import io
import json
import math
import os
import pathlib
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = pathlib.Path(__file__).resolve().parent.parent
PIECE = 1 << 16  # bytes sent at a time


# --- Files ----------------------------------------------------------------------------------


def parquet(rows: list[dict], schema: pa.Schema | None = None, **options: Any) -> bytes:
    """A parquet file of rows; `options` go to `pq.write_table`, e.g. `row_group_size`."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), buffer, **options)
    return buffer.getvalue()


def json_lines(rows: Iterable[dict]) -> bytes:
    """A JSON-lines file of rows."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def card(**configs: Mapping[str, str]) -> bytes:
    """A README.md whose front matter says which files belong to which config and split."""
    lines = ["---", "configs:"]
    for name, splits in configs.items():
        lines += [f"- config_name: {name}", "  data_files:"]
        for split, path in splits.items():
            lines += [f"  - split: {split}", f"    path: {path}"]
    return "\n".join([*lines, "---", ""]).encode()


# --- The server -----------------------------------------------------------------------------


@dataclasses.dataclass
class Trouble:
    """What goes wrong with a request, and how often."""

    times: int | None = 1  # None: for ever
    after: int = 0  # let this many matching requests pass first
    method: str = ""  # only this one
    status: int | None = None  # answer with this status and no body
    retry_after: int | None = None  # seconds, with `status`
    seconds: float | None = None  # for so long by the hub's clock, from the first time on
    ratelimit: bool = False  # with `seconds`: the answer says how many of them are left
    token: str = ""  # only for requests with this one
    end: float = 0.0  # by the hub's clock, once it has begun
    cut: int | None = None  # close the connection after this many bytes of the body
    delay: float = 0.0  # seconds before the answer
    pace: float = 0.0  # bytes a second; 0: as fast as it goes


@dataclasses.dataclass(frozen=True)
class Asked:
    """A line of the request log."""

    method: str
    path: str
    range: str
    status: int
    sent: int  # bytes of the body


@dataclasses.dataclass
class Repository:
    """The files of a dataset at each of its revisions."""

    refs: dict[str, str]  # branch or ref -> commit
    commits: dict[str, dict[str, bytes]]


class Hub:
    """The server; a context manager. `log` is what was asked since the last `forget`."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.troubles: list[tuple[str, Trouble]] = []
        self.log: list[Asked] = []
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.now = 0.0  # seconds; only whoever sleeps moves this clock: POST /sleep/SECONDS
        self.tokens: list[str] = []  # what the requests were authorized with, since `forget`
        self.page = 1000  # entries of a file list that come in one answer, as on the hub
        hub = self

        class Handler(Answer):
            """The handler of this hub."""

        Handler.hub = hub
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> Hub:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()

    def add(self, dataset: str, files: Mapping[str, bytes], ref: str = "main") -> str:
        """Puts a commit with these files at `ref`; returns its hash."""
        digest = hashlib.sha1(dataset.encode())
        for path, content in sorted(files.items()):
            digest.update(path.encode() + hashlib.sha1(content).digest())
        commit = digest.hexdigest()
        repository = self.repositories.setdefault(dataset, Repository({}, {}))
        repository.refs[ref] = commit
        repository.commits[commit] = dict(files)
        return commit

    def trouble(self, pattern: str, trouble: Trouble) -> None:
        """From now on, requests whose path contains the regular expression have this."""
        with self.lock:
            self.troubles.append((pattern, trouble))

    def forget(self) -> None:
        """No more trouble, and an empty log."""
        with self.lock:
            self.troubles.clear()
            self.log.clear()
            self.tokens.clear()

    def trouble_for(self, method: str, path: str, token: str = "") -> Trouble:
        """The first trouble that this request meets; counts it."""
        with self.lock:
            self.tokens.append(token)
            for pattern, trouble in self.troubles:
                if not re.search(pattern, path) or trouble.method not in ("", method):
                    continue
                if trouble.token not in ("", token):
                    continue
                if trouble.after > 0:
                    trouble.after -= 1
                elif trouble.seconds is not None:
                    trouble.end = trouble.end or self.now + trouble.seconds
                    if self.now < trouble.end:
                        return dataclasses.replace(trouble, seconds=trouble.end - self.now)
                elif trouble.times is None or trouble.times > 0:
                    if trouble.times is not None:
                        trouble.times -= 1
                    return trouble
        return Trouble()

    def asked(self, pattern: str) -> list[Asked]:
        """The log lines whose path contains the regular expression."""
        with self.lock:
            return [line for line in self.log if re.search(pattern, line.path)]

    def sent(self, pattern: str = "") -> int:
        """Bytes of the bodies that were sent for such paths."""
        return sum(line.sent for line in self.asked(pattern))


class Answer(http.server.BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"  # connections stay open, as on the hub
    hub: Hub

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal: the log is in `Hub.log`."""

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def answer(self) -> None:
        """Meets its trouble, then routes."""
        url = urllib.parse.urlsplit(self.path)
        self.form = urllib.parse.parse_qs(
            self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        )
        path = urllib.parse.unquote(url.path)
        if path.startswith("/sleep/"):
            self.trouble, self.logged = Trouble(), path
            self.hub.now += float(path.removeprefix("/sleep/"))
            self.send(200, b"", {})
            return
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.trouble = self.hub.trouble_for(self.command, path, token)
        self.logged = path
        if self.trouble.delay:
            self.hub.closing.wait(self.trouble.delay)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if self.trouble.status is not None:
                headers = {}
                if self.trouble.retry_after is not None:
                    headers["Retry-After"] = str(self.trouble.retry_after)
                if self.trouble.ratelimit:
                    headers["RateLimit"] = f'"api";r=0;t={math.ceil(self.trouble.seconds)}'
                    headers["RateLimit-Policy"] = '"fixed window";"api";q=3000;w=300'
                self.send(self.trouble.status, b"", headers)
            else:
                self.route(path, urllib.parse.parse_qs(url.query))

    def route(self, path: str, query: Mapping[str, list[str]]) -> None:
        """The hub's addresses, as far as reading a dataset needs them."""
        for pattern, handle in (
            (r"/api/datasets/([^/]+/[^/]+)(?:/revision/(.+))?", self.info),
            (r"/api/datasets/([^/]+/[^/]+)/tree/(.+)", self.tree),
            (r"/api/datasets/([^/]+/[^/]+)/paths-info/(.+)", self.paths_info),
            (r"/datasets/([^/]+/[^/]+)/resolve/(.+)", self.resolve),
        ):
            if match := re.fullmatch(pattern, path):
                handle(query, *match.groups())
                return
        self.refuse("EntryNotFound")

    def commit_of(self, dataset: str, rest: str | None) -> tuple[str, dict[str, bytes], str]:
        """The commit of `REVISION[/path]`, its files, and the path."""
        repository = self.hub.repositories[dataset]
        rest = rest or "main"
        for name in (*repository.refs, *repository.commits):
            if rest == name or rest.startswith(name + "/"):
                commit = repository.refs.get(name, name)
                return commit, repository.commits[commit], rest[len(name) + 1 :]
        raise LookupError("RevisionNotFound")

    def found(self, dataset: str, rest: str | None) -> tuple[str, dict[str, bytes], str] | None:
        """As `commit_of`, or None after a refusal has been sent."""
        if dataset not in self.hub.repositories:
            self.refuse("RepoNotFound")
            return None
        try:
            return self.commit_of(dataset, rest)
        except LookupError as error:
            self.refuse(str(error))
            return None

    def info(self, _: Mapping[str, list[str]], dataset: str, rest: str | None) -> None:
        """What `HfApi.dataset_info` reads."""
        if found := self.found(dataset, rest):
            commit, files, _ = found
            siblings = [{"rfilename": path} for path in sorted(files)]
            self.send_json({"id": dataset, "sha": commit, "siblings": siblings, "tags": []})

    def tree(self, query: Mapping[str, list[str]], dataset: str, rest: str) -> None:
        """What lies in a folder, or under it."""
        if found := self.found(dataset, rest):
            _, files, folder = found
            entries = listing(files, folder, query.get("recursive", ["false"])[0].lower() == "true")
            if folder and not entries:
                self.refuse("EntryNotFound")
            else:
                begin = int(query.get("cursor", ["0"])[0])
                end = begin + self.hub.page
                more = {}
                if end < len(entries):
                    options = {name: value[0] for name, value in query.items()}
                    again = urllib.parse.urlencode(options | {"cursor": end})
                    address = self.path.partition("?")[0]
                    more["Link"] = f'<{self.hub.endpoint}{address}?{again}>; rel="next"'
                self.send_json(entries[begin:end], more)

    def paths_info(self, _: Mapping[str, list[str]], dataset: str, rest: str) -> None:
        """The entries of the paths in the form that exist."""
        if found := self.found(dataset, rest):
            _, files, _ = found
            everything = {entry["path"]: entry for entry in listing(files, "", True)}
            self.send_json([everything[p] for p in self.form.get("paths", []) if p in everything])

    def resolve(self, _: Mapping[str, list[str]], dataset: str, rest: str) -> None:
        """A file, or a range of its bytes."""
        if not (found := self.found(dataset, rest)):
            return
        commit, files, path = found
        if path not in files:
            self.refuse("EntryNotFound")
            return
        content = files[path]
        headers = {
            "X-Repo-Commit": commit,
            "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
            "Accept-Ranges": "bytes",
        }
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not wanted:
            self.send(200, content, headers)
            return
        start = int(wanted[1])
        end = min(int(wanted[2] or len(content)), len(content) - 1)
        if start >= len(content):
            self.send(416, b"", headers)
            return
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        self.send(206, content[start : end + 1], headers)

    def refuse(self, code: str) -> None:
        """A 404 as the hub words it."""
        self.send(404, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

    def send_json(self, value: Any, headers: Mapping[str, str] | None = None) -> None:
        """An answer of the API."""
        kind = {"Content-Type": "application/json"}
        self.send(200, json.dumps(value).encode(), kind | dict(headers or {}))

    def send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """Sends an answer, with its trouble, and logs it."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        sent = 0
        if self.command != "HEAD":
            stop = len(body) if self.trouble.cut is None else min(self.trouble.cut, len(body))
            piece = PIECE
            if self.trouble.pace:
                piece = max(1, min(PIECE, int(self.trouble.pace / 20)))
            try:
                while sent < stop and not self.hub.closing.is_set():
                    if self.trouble.pace:
                        time.sleep(piece / self.trouble.pace)
                    part = body[sent : min(sent + piece, stop)]
                    self.wfile.write(part)
                    sent += len(part)
            finally:
                self.log_answer(status, sent)
            if stop < len(body):
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self.log_answer(status, 0)

    def log_answer(self, status: int, sent: int) -> None:
        """A line in the hub's log."""
        asked = Asked(self.command, self.logged, self.headers.get("Range", ""), status, sent)
        with self.hub.lock:
            self.hub.log.append(asked)


def listing(files: Mapping[str, bytes], folder: str, recursive: bool) -> list[dict[str, Any]]:
    """The entries of a folder as the hub lists them: folders and files, with sizes."""
    entries: dict[str, dict[str, Any]] = {}
    prefix = f"{folder}/" if folder else ""
    for path, content in sorted(files.items()):
        if not path.startswith(prefix):
            continue
        parts = path[len(prefix) :].split("/")
        for depth in range(1, len(parts)):
            name = prefix + "/".join(parts[:depth])
            if recursive or depth == 1:
                entries.setdefault(
                    name,
                    {
                        "type": "directory",
                        "path": name,
                        "oid": hashlib.sha1(name.encode()).hexdigest(),
                        "size": 0,
                    },
                )
        if recursive or len(parts) == 1:
            entries[path] = {
                "type": "file",
                "path": path,
                "oid": hashlib.sha1(content).hexdigest(),
                "size": len(content),
            }
    return list(entries.values())


# --- The child that reads -------------------------------------------------------------------

# Our waits are told to the hub, whose clock they move, and not slept through. The clients' own
# are compressed a hundredfold, and recorded.
CHILD = """
import dataclasses, io, json, os, sys, threading, time, types, urllib.request
out, sys.stdout = sys.stdout, sys.stderr
real_sleep, older, waited = time.sleep, set(), []
def sleep(seconds):
    if threading.current_thread() not in older:  # one that an earlier task has left behind
        waited.append(seconds)
    real_sleep(seconds / 100)
time.sleep = sleep
def sleep_by_the_hubs_clock(seconds):
    ours.append(seconds)
    address = f"{os.environ['HF_ENDPOINT']}/sleep/{seconds}"
    urllib.request.urlopen(urllib.request.Request(address, method="POST")).close()
from submission.bench.rows import hub, reading
from submission.bench.settings.config import Source
for line in sys.stdin:
    task = json.loads(line)
    older, waited = set(threading.enumerate()) - {threading.main_thread()}, []
    ours, rows, error = [], [], None
    printed = sys.stdout = io.StringIO()
    begin = time.monotonic()
    try:
        source = Source(**task["source"])
        os.environ.pop("HF_TOKEN", None)
        os.environ |= task["environment"]
        sys.modules.pop("kaggle_secrets", None)
        if task["secrets"]:
            client = types.SimpleNamespace(get_secret=task["secrets"].__getitem__)
            sys.modules["kaggle_secrets"] = types.SimpleNamespace(UserSecretsClient=lambda: client)
        hub.connect.cache_clear()
        if task["do"] == "resolve":
            rows.append(reading.resolve_revision(source))
        else:
            stream = reading.read_source(
                source,
                retry=reading.Retry(**task["retry"]),
                sleep=sleep_by_the_hubs_clock,
                clock=lambda: time.monotonic() + sum(ours),
                **task["options"],
            )
            for row in stream:
                rows.append(row if isinstance(row, str) else dataclasses.asdict(row))
                if len(rows) == task["take"]:
                    break
            stream.close()
    except Exception as problem:
        error = [type(problem).__name__, str(problem)]
    seconds = time.monotonic() - begin
    said = dict(rows=rows, error=error, ours=ours, waited=list(waited), seconds=seconds)
    said["printed"] = printed.getvalue()
    print(json.dumps(said), file=out, flush=True)
"""


@dataclasses.dataclass(frozen=True)
class Read:
    """What the child read from a source."""

    rows: list[Any]  # Examples as dictionaries, reasons as strings
    error: list[str] | None  # type and message
    ours: list[float]  # the waits between our own attempts, in seconds
    waited: list[float]  # those of the clients
    seconds: float
    printed: str


def child_environment(endpoint: str, home: str) -> dict[str, str]:
    """The environment that points the real client at `endpoint`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return kept | {
        "PYTHONPATH": str(ROOT / "scripts"),
        "HF_ENDPOINT": endpoint,
        "HF_HOME": home,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
    }


class Reader:
    """A child process whose clients talk to a hub of ours; one import for many tests."""

    def __init__(self, endpoint: str, home: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=child_environment(endpoint, home),
        )

    def __call__(
        self,
        source: Mapping[str, Any],
        *,
        do: str = "read",
        take: int = -1,
        retry: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Read:
        """Reads a source (the fields of `config.Source`), at most `take` rows."""
        task = dict(source=source, do=do, take=take, retry=retry or {}, options=options)
        task |= dict(environment=environment or {}, secrets=secrets or {})  # Kaggle's secrets
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"The reading child ended with {self.process.wait()}.")
        return Read(**json.loads(line))

    def close(self) -> None:
        """Ends the child."""
        self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()


@contextlib.contextmanager
def reading_hub(home: str) -> Iterator[tuple[Hub, Reader]]:
    """A hub, and a child that reads from it."""
    with Hub() as hub:
        reader = Reader(hub.endpoint, home)
        try:
            yield hub, reader
        finally:
            reader.close()

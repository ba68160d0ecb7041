"""Reading rows, also when the network is not at its best.

A source is read row by row, and only what is needed travels: of a parquet file, the columns
and row groups in use. At no time is more in memory than a few batches and the row groups that
they are from, however many rows are scanned. A connection that breaks is opened again at the
row where it broke, so that no row comes twice. A read that stalls is a read that failed: the
clients' own time limits are per packet, so the limit that counts is here.
"""

import collections
import contextlib
import itertools
import json
import math
import pathlib
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import datasets
import fsspec
import huggingface_hub
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from submission.bench.answers.prompts import Example, example_from_mapping
from submission.bench.rows.adapters import ADAPTERS, COLUMNS
from submission.bench.rows.hub import TRANSIENT, Patience, Retry, connect
from submission.bench.settings.config import Source

Made = TypeVar("Made")


class ColumnsError(ValueError):
    """A source has not the columns that its adapter needs."""


class Background(Iterator[Made]):
    """Items made ahead in a thread, a few at most; `next` waits `limit()` seconds, no longer.

    A thread cannot be killed. One that hangs is left alone: it is a daemon, it holds no more
    than a connection, and it ends when it next has something to say.

    Raises:
      TimeoutError: nothing came in time.
      Exception: whatever making the items raised.
    """

    def __init__(self, items: Iterable[Made], limit: Callable[[], float], ahead: int = 2) -> None:
        self.limit, self.stopped = limit, False
        self.line: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.room = threading.Semaphore(ahead)
        self.thread = threading.Thread(target=self.make, args=(items,), daemon=True)
        self.thread.start()

    def make(self, items: Iterable[Made]) -> None:
        """What the thread does; an exception is the last item."""
        end: Exception = StopIteration()
        try:
            for item in items:
                self.room.acquire()
                if self.stopped:
                    return
                self.line.put(item)
        except Exception as error:
            end = error
        self.line.put(end)

    def __next__(self) -> Made:
        limit = self.limit()
        try:
            item = self.line.get(timeout=limit)
        except queue.Empty:
            raise TimeoutError(f"no answer within {limit:g} seconds") from None
        if isinstance(item, Exception):
            self.line.put(item)  # for whoever asks again
            raise item
        self.room.release()
        return item

    def close(self) -> None:
        """No more items; a thread that is not stuck has ended when this returns."""
        self.stopped = True
        self.room.release()
        self.thread.join(timeout=1.0)


# **Opening.** Where no commit is pinned in `config`, the branch is resolved once, to the commit
# that it points at now, and everything after reads that commit, also after a retry. The commit
# is printed, so that the run can be repeated.


def resolve_revision(source: Source) -> str:
    """The commit that a source is read at; `local` for a file or folder on this machine.

    A pinned commit is asked for as well: of all requests, this one fails the fastest.

    Raises:
      OSError, httpx.HTTPError: the hub did not answer, or has no such dataset or revision.
    """
    if source.adapter == "bundled" or pathlib.Path(source.location).exists():
        return "local"
    connect()
    hub = huggingface_hub.HfApi()
    return hub.dataset_info(source.location, revision=source.revision, timeout=10).sha


def open_source(source: Source, revision: str) -> tuple[list[str], datasets.IterableDataset | None]:
    """The files of a source's split, local paths or hf:// addresses, in the order they are read.

    For formats other than parquet, also a stream, of which each file is a shard.

    Raises:
      ValueError: there is no such split; names those that there are.
    """
    # A file list that broke off half way stays in the cache, and looks complete.
    huggingface_hub.HfFileSystem.clear_instance_cache()
    builder = datasets.load_dataset_builder(
        source.location,
        source.subset,
        data_files={source.split: source.files} if source.files else None,
        revision=None if revision == "local" else revision,
    )
    splits = builder.config.data_files
    if source.split not in splits:
        raise ValueError(
            f"{source.location}: no split {source.split!r}; there are {sorted(map(str, splits))}."
        )
    files = list(map(str, splits[source.split]))
    if all(file.endswith(".parquet") for file in files):
        return files, None
    return files, builder.as_streaming_dataset(source.split)


# **Parts.** A row group of a parquet file, or else a whole file, is a part. Several are read at
# the same time, each in its own thread, and given on in order, so the rows do not depend on how
# many they are.


class Place(NamedTuple):
    """Where a reader stands: rows taken from a part of a file."""

    file: int = 0
    part: int = 0  # row group
    rows: int = 0


Batch = pa.RecordBatch | list[dict[str, Any]]
BATCH_ROWS = 500
PIECE = 16 << 20  # bytes of one request
SLACK = 128  # bytes: some old writers count a column's last header wrongly


def text_lengths(batch: Batch) -> pa.Array:
    """Characters in the text columns of each row."""
    if isinstance(batch, list):
        texts = ([v for v in row.values() if isinstance(v, str)] for row in batch)
        return pa.array([sum(map(len, row)) for row in texts], pa.int64())
    total = pa.array([0] * batch.num_rows, pa.int64())
    for column in batch.columns:
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            total = pc.add(total, pc.fill_null(pc.cast(pc.utf8_length(column), pa.int64()), 0))
    return total


def rows_of(batch: Batch, longest: float) -> list[dict[str, Any] | str]:
    """The rows as mappings; a reason for those with more than `longest` characters of text.

    >>> rows_of(pa.RecordBatch.from_pylist([{"a": "to"}, {"a": "together"}]), 5)
    [{'a': 'to'}, 'over 5 characters']
    """
    fits = pc.less_equal(text_lengths(batch), longest)
    if isinstance(batch, list):
        rows = iter(itertools.compress(batch, fits.to_pylist()))
    else:
        # Long rows are told apart in Arrow, without the interpreter lock, and never become Python
        # objects. Of a set of which few rows fit, scanning is mostly this.
        rows = iter(batch.filter(fits).to_pylist())
    return [next(rows) if fit else f"over {longest} characters" for fit in fits.to_pylist()]


def column_ranges(group: pq.RowGroupMetaData, columns: list[str], size: int) -> list[list[int]]:
    """The byte ranges of the columns in a row group; neighbours are one range."""
    ranges: list[list[int]] = []
    for chunk in map(group.column, range(group.num_columns)):
        if chunk.path_in_schema.split(".")[0] not in columns:
            continue
        begin = min(chunk.dictionary_page_offset or size, chunk.data_page_offset)
        end = min(size, begin + chunk.total_compressed_size + SLACK)
        if ranges and begin <= ranges[-1][1]:
            ranges[-1][1] = end
        else:
            ranges.append([begin, end])
    return ranges


def parquet_parts(source: Source, path: str, first: int) -> Iterator[Callable]:
    """For each row group from `first` on: a function that gives its batches.

    An empty batch says that a piece has arrived. The bytes are laid at their places in a file
    that is otherwise empty: Arrow would ask for column after column, or else call back into
    Python from threads of its own, and one of those that waits for the network when the
    interpreter ends brings it down.
    """
    file_system, name = fsspec.core.url_to_fs(path)
    # No cache: the file system's own reads 5 MB ahead, more than many a row group has.
    with file_system.open(name, "rb", cache_type="none") as file:
        footer, size = pq.ParquetFile(file, pre_buffer=False).metadata, file.size
    known = footer.schema.to_arrow_schema().names
    columns = [column for column in COLUMNS[source.adapter] if column in known]
    if not columns:
        raise ColumnsError(
            f"{source.location}: none of the columns {COLUMNS[source.adapter]} is there; there "
            f"are {sorted(known)}."
        )

    def batches(group: int) -> Iterator[Batch]:
        with tempfile.NamedTemporaryFile() as sparse:
            for begin, end in column_ranges(footer.row_group(group), columns, size):
                for piece in range(begin, end, PIECE):
                    stop = min(piece + PIECE, end)
                    data = file_system.cat_file(name, piece, stop, cache_type="none")
                    if len(data) != stop - piece:
                        raise OSError(f"{len(data)} bytes came of {stop - piece}")
                    sparse.seek(piece)
                    sparse.write(data)
                    yield []
            sparse.truncate(size)
            sparse.flush()
            parquet = pq.ParquetFile(sparse.name, metadata=footer)
            yield from parquet.iter_batches(BATCH_ROWS, [group], columns=columns)

    for group in range(first, footer.num_row_groups):
        yield lambda group=group: batches(group)


def parts_of(
    source: Source, files: list[str], stream: datasets.IterableDataset | None, start: Place
) -> Iterator[tuple[Place, Callable]]:
    """Every part from `start` on: its place, and a function that gives its batches."""

    def batches(index: int) -> Iterator[Batch]:
        rows = iter(stream.shard(num_shards=len(files), index=index))
        while batch := list(itertools.islice(rows, BATCH_ROWS)):
            yield batch

    for index, path in enumerate(files[start.file :], start.file):
        first = start.part if index == start.file else 0
        if stream is None:
            for group, read in enumerate(parquet_parts(source, path, first), first):
                yield Place(index, group), read
        elif first == 0:
            yield Place(index), lambda index=index: batches(index)


def adapt(source: Source, row: dict[str, Any] | str) -> Example | str:
    """The row through its adapter.

    Raises:
      ColumnsError: the adapter needs a column that the dataset has not.
    """
    if isinstance(row, str):
        return row
    try:
        return ADAPTERS[source.adapter](row, source)
    except KeyError as error:
        raise ColumnsError(
            f"{source.location}: a row has no field {error}; it has {sorted(row)}. The adapter "
            f"{source.adapter!r} does not fit this dataset, or this revision of it."
        ) from error


def read_part(
    source: Source, batches: Iterable[Batch], skip: int, longest: float
) -> Iterator[tuple[list[Example | str], int]]:
    """The rows of a part after the first `skip`, batch by batch, and how many lie behind then."""
    count = 0
    for raw in batches:
        batch = rows_of(raw, longest)
        new = [adapt(source, row) for row in batch[max(0, skip - count) :]]
        count += len(batch)
        yield new, max(count, skip)  # also without rows: skipping is progress, not a stall


def read_parts(
    parts: Background, source: Source, start: Place, workers: int, longest: float
) -> Iterator[tuple[Place, Background]]:
    """The parts from `start` on with their batches, in order; `workers` are read at a time."""
    line: collections.deque[tuple[Place, Background]] = collections.deque()
    end: Exception | None = None
    try:
        while line or end is None:
            while end is None and len(line) < workers:
                try:
                    place, read = next(parts)
                except (StopIteration, *TRANSIENT) as error:
                    end = error  # what is in line comes first
                    break
                skip = start.rows if place == start._replace(rows=0) else 0
                part = read_part(source, read(), skip, longest)
                line.append((place, Background(part, parts.limit)))
            if line:
                yield line[0]
                line.popleft()
        if not isinstance(end, StopIteration):
            raise end
    finally:
        for reader in (parts, *(reader for _, reader in line)):
            reader.close()


def read_hub(
    source: Source,
    *,
    retry: Retry | None = None,
    longest: float = math.inf,
    workers: int = 1,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    resolved: Callable[[str], None] = lambda commit: None,
) -> Iterator[Example | str]:
    """The rows of a public dataset, streamed, adapted, in an order that is always the same.

    Args:
      source: a dataset id on the hub, or a local folder of the same layout.
      retry: how failures are met.
      longest: rows with more characters of text than this are counted, not read.
      workers: parts that are read at a time. They share the download of a large source; the rows
        and their order do not depend on them.
      clock: seconds, for the minutes of the source.
      sleep: waits between attempts.
      resolved: is told the commit that is read.

    Raises:
      SourceDown: the source stays down; also after some rows.
      ColumnsError: the adapter needs a column that is not there; names both.
      ValueError: there is no such split.
    """
    patience = Patience(source, retry or Retry(), clock, sleep)
    revision = patience.trying(lambda: resolve_revision(source))
    if revision != "local":
        resolved(revision)
    if revision not in ("local", source.revision):
        print(f"{source.location}: {source.revision or 'main'} is at {revision}")
    opened = patience.trying(lambda: open_source(source, revision))
    place = Place()
    while True:
        parts = Background(parts_of(source, *opened, place), patience.limit)
        try:
            with contextlib.closing(read_parts(parts, source, place, workers, longest)) as line:
                for part, batches in line:
                    for rows, count in batches:
                        yield from rows
                        place = part._replace(rows=count)
                        patience.count(len(rows))
                    place = Place(part.file, part.part + 1)
            return
        except TRANSIENT as error:
            if not patience.after(error):
                return


# **Bundled rows** are files of this repository, one `Example` a line or a row.


def bundled_rows(path: pathlib.Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a JSON-lines or parquet file, and where each of them stands."""
    if path.suffix == ".parquet":
        batches = pq.ParquetFile(path).iter_batches(BATCH_ROWS)
        for number, row in enumerate((row for batch in batches for row in batch.to_pylist()), 1):
            yield f"{path}, row {number}", row
        return
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            where = f"{path}, line {number}"
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{where}: not JSON ({error}).") from error
            if not isinstance(row, dict):
                raise ValueError(f"{where}: not a JSON object, {{...}}.")
            yield where, row


def is_there(source: Source) -> bool:
    """Is there anything to read? Of a source on the hub, only reading it can tell.

    >>> is_there(Source("bundled", "no_such_rows.jsonl")), is_there(Source("gsm8k", "openai/gsm8k"))
    (False, True)
    """
    return source.adapter != "bundled" or pathlib.Path(source.location).exists()


def read_bundled(source: Source) -> Iterator[Example]:
    """The rows of a JSON-lines or parquet file, those of `source.select` only.

    Raises:
      FileNotFoundError: the file is missing.
      ValueError: a line is not JSON, or a field is missing; names file and line.
    """
    path = pathlib.Path(source.location)
    if not is_there(source):
        raise FileNotFoundError(
            f"{path} does not exist. Run the notebook from the repository's root, or remake the "
            "file with scripts/tasks.py."
        )
    for where, row in bundled_rows(path):
        known = {"domain": source.domain, "source": path.name}  # where a row does not say it
        example = example_from_mapping(known | row, where)
        if not source.select or example.source.startswith(source.select):
            yield example


def read_source(source: Source, **options: Any) -> Iterator[Example | str]:
    """The rows of any source, or why not; for options and errors see `read_hub`, `read_bundled`."""
    return read_bundled(source) if source.adapter == "bundled" else read_hub(source, **options)

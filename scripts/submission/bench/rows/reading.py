"""Reading, when the network is not at its best.

A source is read row by row, and only what is needed travels: of a parquet file, the columns
and row groups in use. At no time is more in memory than a few batches and the row groups that
they are from, however many rows are scanned. A connection that breaks is opened again at the
row where it broke, so that no row comes twice. A read that stalls is a read that failed: the
clients' own time limits are per packet, and some of their requests have none, so the limit
that counts is here.

Every failure is followed by a wait twice as long as the one before. After a few failures with
no row between them, or when the minutes of the source are over, the source is **down**: the
error says so, and the caller decides what to do without it.
"""

import contextlib
import dataclasses
import itertools
import json
import math
import pathlib
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import datasets
import fsspec
import httpx
import huggingface_hub
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from submission.bench.answers.prompts import Example, example_from_mapping
from submission.bench.rows.adapters import ADAPTERS, COLUMNS
from submission.bench.settings.config import Source

Made = TypeVar("Made")


class SourceDown(RuntimeError):  # noqa: N818 - it is a state, and the name is read as one
    """A source could not be read, after all retries. The message says what to do."""


class ColumnsError(ValueError):
    """A source has not the columns that its adapter needs."""


@dataclasses.dataclass(frozen=True)
class Retry:
    """When to try again, and when to give up."""

    attempts: int = 4  # failures without a row between them, after which a source is down
    first_wait: float = 1.0  # seconds after the first failure; doubled after each other
    longest_wait: float = 30.0  # seconds
    stall: float = 60.0  # seconds without a batch, after which a read has failed

    def wait(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row.

        >>> [Retry().wait(failures) for failures in (1, 2, 3, 9)]
        [1.0, 2.0, 4.0, 30.0]
        """
        return min(self.longest_wait, self.first_wait * 2 ** (failures - 1))


class Background(Iterator[Made]):
    """Items made ahead in a thread, a few at most; `next` waits `limit()` seconds, no longer.

    A thread cannot be killed. One that hangs is left alone: it is a daemon, it holds no more
    than a connection, and it ends when it next has something to say.

    Raises:
      TimeoutError: nothing came in time.
      Exception: whatever making the items raised.
    """

    def __init__(self, items: Iterable[Made], limit: Callable[[], float], ahead: int = 2) -> None:
        self.limit = limit
        self.line: queue.Queue[tuple[str, Any]] = queue.Queue(ahead)
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.make, args=(items,), daemon=True)
        self.thread.start()

    def make(self, items: Iterable[Made]) -> None:
        """What the thread does."""
        try:
            for item in items:
                if not self.put(("item", item)):
                    break
            else:
                self.put(("end", None))
        except Exception as error:
            self.put(("error", error))

    def put(self, said: tuple[str, Any]) -> bool:
        """Waits for a place in the line; false if nobody listens any more."""
        while not self.stopped.is_set():
            with contextlib.suppress(queue.Full):
                self.line.put(said, timeout=0.05)
                return True
        return False

    def __next__(self) -> Made:
        if self.stopped.is_set():
            raise StopIteration
        limit = self.limit()
        try:
            kind, value = self.line.get(timeout=limit)
        except queue.Empty:
            raise TimeoutError(f"no answer within {limit:g} seconds") from None
        if kind == "item":
            return value
        self.stopped.set()
        raise value if kind == "error" else StopIteration

    def close(self) -> None:
        """No more items; a thread that is not stuck has ended when this returns."""
        self.stopped.set()
        self.thread.join(timeout=1.0)


# **Opening.** Where no commit is pinned in `config`, the branch is resolved once, to the commit
# that it points at now, and everything after reads that commit, also after a retry. The commit
# is printed, so that the run can be repeated.


def resolve_revision(source: Source) -> str:
    """The commit that a source is read at; `local` for a file or folder on this machine.

    A pinned commit is asked for as well: of all requests, this one fails the fastest.

    Raises:
      SourceDown: the hub has no such dataset or revision, or one may not read it.
      OSError, httpx.HTTPError: the hub did not answer.
    """
    if source.adapter == "bundled" or pathlib.Path(source.location).exists():
        return "local"
    try:
        found = huggingface_hub.HfApi().dataset_info(
            source.location, revision=source.revision, timeout=10
        )
    except (
        huggingface_hub.errors.RepositoryNotFoundError,
        huggingface_hub.errors.RevisionNotFoundError,
    ) as error:
        raise SourceDown(
            f"The hub has no public dataset {source.location!r} at {source.revision or 'main'!r}. "
            "Correct it in SOURCES, or switch the source off."
        ) from error
    return found.sha


@dataclasses.dataclass(frozen=True)
class Opened:
    """A dataset whose files are known."""

    source: Source
    files: tuple[str, ...]  # local paths or hf:// addresses, in the order they are read
    stream: datasets.IterableDataset | None  # for formats other than parquet, one file a shard


def open_source(source: Source, revision: str) -> Opened:
    """Finds the files of a source's split.

    Raises:
      ValueError: there is no such split; names those that there are.
    """
    # Left alone, the client tries each read 20 times, 5 to 60 seconds apart, and a source that
    # is down is noticed after half an hour. We count the retries ourselves.
    for setting in ("STREAMING_READ", "STREAMING_OPEN"):
        setattr(datasets.config, f"{setting}_MAX_RETRIES", 1)
        setattr(datasets.config, f"{setting}_RETRY_INTERVAL", 0)
    datasets.config.STREAMING_READ_SERVER_UNAVAILABLE_RETRY_INTERVAL = 0
    datasets.config.STREAMING_READ_RATE_LIMIT_RETRY_INTERVAL = 0
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
    files = tuple(map(str, splits[source.split]))
    if all(file.endswith(".parquet") for file in files):
        return Opened(source, files, None)
    return Opened(source, files, builder.as_streaming_dataset(source.split))


# **Parts.** A row group of a parquet file, or else a whole file, is a part. Parts are read in
# order, and the order is always the same. With several workers, each reads every n-th part in
# its own thread; the parts are put back in line, so the rows do not depend on the number of
# workers.


@dataclasses.dataclass(frozen=True, order=True)
class Place:
    """Where a reader stands: rows taken from a part of a file."""

    file: int = 0
    part: int = 0  # row group
    rows: int = 0


@dataclasses.dataclass(frozen=True)
class RowBatch:
    """Rows that were read, after their adapter, and the place behind them."""

    rows: list[Example | str]
    then: Place
    ends_part: bool = False


BATCH_ROWS = 500
FOOTER = 1 << 16  # bytes; most footers are shorter
PIECE = 16 << 20  # bytes of one request
SLACK = 128  # bytes: some old writers count a column's last header wrongly


def text_lengths(batch: pa.RecordBatch) -> pa.Array:
    """Characters in the text columns of each row."""
    total = pa.array([0] * batch.num_rows, pa.int64())
    for column in batch.columns:
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            total = pc.add(total, pc.fill_null(pc.cast(pc.utf8_length(column), pa.int64()), 0))
    return total


def rows_of(
    batch: pa.RecordBatch | list[dict[str, Any]], longest: int | None
) -> list[dict[str, Any] | str]:
    """The rows as mappings; a reason for those with more than `longest` characters of text.

    >>> rows_of(pa.RecordBatch.from_pylist([{"a": "to"}, {"a": "together"}]), 5)
    [{'a': 'to'}, 'over 5 characters']
    """
    reason = f"over {longest} characters"
    if isinstance(batch, list):
        most = math.inf if longest is None else longest
        lengths = (sum(len(v) for v in row.values() if isinstance(v, str)) for row in batch)
        return [
            row if length <= most else reason for row, length in zip(batch, lengths, strict=True)
        ]
    if longest is None:
        return batch.to_pylist()
    # Long rows are told apart in Arrow, without the interpreter lock, and never become Python
    # objects. Of a set of which few rows fit, scanning is mostly this.
    fits = pc.less_equal(text_lengths(batch), longest)
    short = iter(batch.filter(fits).to_pylist())
    return [next(short) if fit else reason for fit in fits.to_pylist()]


def read_range(file: Any, begin: int, end: int) -> bytes:
    """The bytes from `begin` up to `end` of an open file.

    Raises:
      OSError: there were fewer.
    """
    file.seek(begin)
    data = file.read(end - begin)
    if len(data) != end - begin:
        raise OSError(f"{len(data)} bytes came of {end - begin}")
    return data


def read_footer(file: Any) -> pq.FileMetaData:
    """What the end of a parquet file says about the rest of it."""
    tail = read_range(file, max(0, file.size - FOOTER), file.size)
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if length > len(tail):
        tail = read_range(file, max(0, file.size - length), file.size)
    return pq.read_metadata(pa.BufferReader(tail))


def column_ranges(group: pq.RowGroupMetaData, columns: list[str], size: int) -> list[list[int]]:
    """The byte ranges of the columns in a row group; neighbours are one range."""
    ranges: list[list[int]] = []
    chunks = [group.column(index) for index in range(group.num_columns)]
    for chunk in chunks:
        if chunk.path_in_schema.split(".")[0] not in columns:
            continue
        begin = chunk.data_page_offset
        if chunk.dictionary_page_offset:
            begin = min(begin, chunk.dictionary_page_offset)
        end = min(size, begin + chunk.total_compressed_size + SLACK)
        if ranges and begin <= ranges[-1][1]:
            ranges[-1][1] = end
        else:
            ranges.append([begin, end])
    return ranges


def group_batches(
    file: Any, footer: pq.FileMetaData, group: int, columns: list[str]
) -> Iterator[pa.RecordBatch | list]:
    """The batches of a row group; an empty list for every piece that arrived.

    The bytes are fetched here and laid at their places in a file that is otherwise empty.
    Given the open file itself, Arrow would call back into Python from threads of its own: one
    that waits for the network when the interpreter ends brings it down.
    """
    with tempfile.NamedTemporaryFile() as sparse:
        for begin, end in column_ranges(footer.row_group(group), columns, file.size):
            for piece in range(begin, end, PIECE):
                sparse.seek(piece)
                sparse.write(read_range(file, piece, min(piece + PIECE, end)))
                yield []
        sparse.truncate(file.size)
        sparse.flush()
        parquet = pq.ParquetFile(sparse.name, metadata=footer)
        yield from parquet.iter_batches(BATCH_ROWS, [group], columns=columns)


def parquet_parts(opened: Opened, path: str, first: int) -> Iterator[Callable]:
    """For each row group from `first` on: a function that gives its batches."""
    file_system, name = fsspec.core.url_to_fs(path)
    # No cache: the file system's own reads 5 MB ahead, more than many a row group has.
    with file_system.open(name, "rb", cache_type="none") as file:
        footer = read_footer(file)
        known = footer.schema.to_arrow_schema().names
        wanted = [column for column in COLUMNS[opened.source.adapter] if column in known]
        if not wanted:
            raise ColumnsError(
                f"{opened.source.location}: none of the columns "
                f"{COLUMNS[opened.source.adapter]} is there; there are {sorted(known)}."
            )
        for group in range(first, footer.num_row_groups):
            yield lambda group=group: group_batches(file, footer, group, wanted)


def streamed_batches(stream: datasets.IterableDataset) -> Iterator[list[dict[str, Any]]]:
    """The rows of a stream, some at a time."""
    rows = iter(stream)
    while batch := list(itertools.islice(rows, BATCH_ROWS)):
        yield batch


def parts_of(opened: Opened, start: Place) -> Iterator[tuple[Place, Callable]]:
    """Every part from `start` on: its place, and a function that gives its raw batches."""
    for index, path in enumerate(opened.files[start.file :], start.file):
        first = start.part if index == start.file else 0
        if opened.stream is None:
            for group, read in enumerate(parquet_parts(opened, path, first), first):
                yield Place(index, group), read
        elif first == 0:
            shard = opened.stream.shard(num_shards=len(opened.files), index=index)
            yield Place(index), lambda shard=shard: streamed_batches(shard)


def adapt(opened: Opened, row: dict[str, Any] | str) -> Example | str:
    """The row through its adapter.

    Raises:
      ColumnsError: the adapter needs a column that the dataset has not.
    """
    if isinstance(row, str):
        return row
    source = opened.source
    try:
        return ADAPTERS[source.adapter](row, source)
    except KeyError as error:
        raise ColumnsError(
            f"{source.location}: a row has no field {error}; it has {sorted(row)}. The adapter "
            f"{source.adapter!r} does not fit this dataset, or this revision of it."
        ) from error


def read_parts(
    opened: Opened, start: Place, worker: int, workers: int, longest: int | None
) -> Iterator[RowBatch]:
    """The batches of every `workers`-th part, from number `worker` on, each part with its end."""
    for number, (place, read) in enumerate(parts_of(opened, start)):
        if number % workers != worker:
            continue
        # Only in the part where the last connection broke is there anything to skip.
        taken, rows = (start.rows if number == 0 else 0), 0
        for raw in read():
            batch = rows_of(raw, longest)
            skipped = min(max(0, taken - rows), len(batch))
            rows += len(batch)
            new = [adapt(opened, row) for row in batch[skipped:]]
            # An empty batch is a sign of life: skipping is progress, not a stall.
            yield RowBatch(new, dataclasses.replace(place, rows=max(rows, taken)))
        yield RowBatch([], Place(place.file, place.part + 1), ends_part=True)


def in_order(readers: list[Background[RowBatch]]) -> Iterator[RowBatch]:
    """The batches of all readers, part after part; ends when the reader whose turn it is ends."""
    for reader in itertools.cycle(readers):
        for batch in reader:
            yield batch
            if batch.ends_part:
                break
        else:
            return


# **Patience.** What may fail, and be tried again: the network, the hub, a file that came in
# pieces. What is no use trying again: a dataset that does not exist, or one with other columns.


# A RuntimeError too: one thread closes the client's connections while another uses them.
TRANSIENT = (OSError, RuntimeError, httpx.HTTPError, pa.ArrowInvalid)


@dataclasses.dataclass
class Patience:
    """Counts failures, waits after each, and says when it is over."""

    source: Source
    retry: Retry
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    failures: int = 0  # since the last row
    rows: int = 0  # so far

    def __post_init__(self) -> None:
        self.end = self.clock() + 60 * self.source.minutes

    def limit(self) -> float:
        """Seconds that a read may take from now on: `stall`, or what is left of the minutes."""
        return max(0.1, min(self.retry.stall, self.end - self.clock()))

    def after(self, error: Exception) -> bool:
        """Waits after a failure; false if the minutes are over, and there are rows to go on with.

        Raises:
          SourceDown: it was one failure too many, or there is no row, and no time.
        """
        if isinstance(error, SourceDown):
            raise error
        self.failures += 1
        wait = self.retry.wait(self.failures)
        late = self.clock() + wait > self.end
        if late and self.rows:
            print(f"{self.source.location}: {self.source.minutes:g} minutes are over ({error})")
            return False
        if late or self.failures >= self.retry.attempts:
            raise SourceDown(
                f"Could not read {self.source.location}: {self.failures} reads in a row have "
                f"failed, after {self.rows} rows, the last with {type(error).__name__}: {error}\n"
                "Is the internet on? On Kaggle: 'Settings' > 'Internet'. PROFILE=tiny needs none."
            ) from error
        print(f"{self.source.location}: {type(error).__name__}: {error}; again in {wait:g} s")
        self.sleep(wait)
        return True


def trying(make: Callable[[], Made], patience: Patience) -> Made:
    """What `make` gives, tried again as `patience` allows; bounded in time."""
    while True:
        attempt = Background((make() for _ in range(1)), patience.limit)
        try:
            return next(attempt)
        except TRANSIENT as error:
            patience.after(error)
        finally:
            attempt.stopped.set()


def read_hub(
    source: Source,
    *,
    retry: Retry = Retry(),
    longest: int | None = None,
    workers: int = 1,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Example | str]:
    """The rows of a public dataset, streamed, adapted, in an order that is always the same.

    Args:
      source: a dataset id on the hub, or a local folder of the same layout.
      retry: how failures are met.
      longest: rows with more characters of text than this are counted, not read.
      workers: threads that read ahead. They share the download of a large source; the rows
        and their order do not depend on them.
      clock: seconds, for the minutes of the source.
      sleep: waits between attempts.

    Raises:
      SourceDown: the source stays down; also after some rows.
      ColumnsError: the adapter needs a column that is not there; names both.
      ValueError: there is no such split.
    """
    patience = Patience(source, retry, clock, sleep)
    revision = trying(lambda: resolve_revision(source), patience)
    if revision not in ("local", source.revision):
        print(f"{source.location}: {source.revision or 'main'} is at {revision}")
    opened = trying(lambda: open_source(source, revision), patience)
    place = Place()
    while True:
        readers = [
            Background(read_parts(opened, place, number, workers, longest), patience.limit)
            for number in range(workers)
        ]
        try:
            for batch in in_order(readers):
                yield from batch.rows
                place = batch.then
                patience.rows += len(batch.rows)
                if batch.rows:
                    patience.failures = 0
            return
        except TRANSIENT as error:
            if not patience.after(error):
                return
        finally:
            for reader in readers:
                reader.stopped.set()
            for reader in readers:
                reader.close()


# **Bundled rows** are files of this repository, one `Example` a line or a row.


def bundled_rows(path: pathlib.Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a JSON-lines or parquet file, and where each of them stands."""
    if path.suffix == ".parquet":
        numbers = itertools.count(1)
        for batch in pq.ParquetFile(path).iter_batches(BATCH_ROWS):
            for row in batch.to_pylist():
                yield f"{path}, row {next(numbers)}", row
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


def read_bundled(source: Source) -> Iterator[Example]:
    """The rows of a JSON-lines or parquet file, those of `source.select` only.

    Raises:
      FileNotFoundError: the file is missing.
      ValueError: a line is not JSON, or a field is missing; names file and line.
    """
    path = pathlib.Path(source.location)
    if not path.exists():
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
    """The rows of any source; where one cannot be used, the reason. Options: see `read_hub`.

    Raises:
      SourceDown: a public source stays down.
      FileNotFoundError: a bundled file is missing.
      ValueError: the rows are not what the source promises; names file and line, or columns.
    """
    return read_bundled(source) if source.adapter == "bundled" else read_hub(source, **options)

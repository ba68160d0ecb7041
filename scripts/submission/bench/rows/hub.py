"""The hub, on good days and bad ones.

`datasets`, its file systems and `huggingface_hub` send all they ask through one client, so that
what a bad day needs is said once. An answer that says *later* ends the request: left alone, each
library would wait where no clock of ours sees it. A wait that the hub states is kept, and is no
failure. Other failures are followed by waits that double. After too many without a row between
them, or when the minutes of the source are over, the source is **down**: the error says what was
seen and what helps, and the caller decides what to do without it.
"""

import dataclasses
import functools
import importlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import datasets
import httpx
import huggingface_hub
import pyarrow as pa

from submission.bench.settings.config import Source
from submission.bench.settings.limits import within


class SourceDown(RuntimeError):  # noqa: N818 - it is a state, and the name is read as one
    """A source could not be read, after all retries. The message says what to do."""


ASK_AGAIN = (408, 429, 500, 502, 503, 504)  # answers after which it is worth asking again
TOKEN_PLACE = "It is HF_TOKEN: a secret on Kaggle ('Add-ons' > 'Secrets'), else in the environment."
LONGEST_STATED = 300  # seconds; the hub counts requests in windows of five minutes
# What may be tried again: the network, the hub, a file that came in pieces. A RuntimeError too:
# one thread closes the client's connections while another uses them.
TRANSIENT = (OSError, RuntimeError, httpx.HTTPError, pa.ArrowInvalid)


class HubToken(httpx.Auth):
    """A token raises the hub's limits; one that is refused must not hide what is public."""

    def __init__(self, token: str) -> None:
        self.token, self.refused = token, False

    def auth_flow(self, request: httpx.Request) -> Iterator[httpx.Request]:
        """The request with the token, and once more without it if it was refused."""
        if self.refused:
            request.headers.pop("Authorization", None)
        elif self.token and str(request.url).startswith(huggingface_hub.constants.ENDPOINT):
            request.headers.setdefault("Authorization", f"Bearer {self.token}")
        answer = yield request
        if answer.status_code == 401 and request.headers.pop("Authorization", None):
            if not self.refused:
                print("The hub refuses the token HF_TOKEN (401): what is public is read without.")
            self.refused = True
            yield request


def kaggle_secret(name: str, seconds: float = 10.0) -> str:
    """A secret of the Kaggle session; empty if there is none, or no answer in time."""
    try:
        client = importlib.import_module("kaggle_secrets").UserSecretsClient
        return within(seconds, lambda: client().get_secret(name)) or ""
    except Exception:  # no such module, no such secret, no access: every secret is optional
        return ""


def raise_if_later(answer: httpx.Response) -> None:
    """Raises `HfHubHTTPError` for an answer that the client would wait after."""
    if answer.status_code in ASK_AGAIN:
        huggingface_hub.utils.hf_raise_for_status(answer)


@functools.cache
def connect() -> None:
    """Sets the clients up, once, so that the waiting is done here alone."""
    for name in [name for name in vars(datasets.config) if name.startswith("STREAMING_")]:
        setattr(datasets.config, name, 1 if name.endswith("_MAX_RETRIES") else 0)
    token = HubToken(os.environ.get("HF_TOKEN") or kaggle_secret("HF_TOKEN"))
    hooks = {**huggingface_hub.get_session().event_hooks, "response": [raise_if_later]}
    huggingface_hub.set_client_factory(
        lambda: httpx.Client(auth=token, event_hooks=hooks, follow_redirects=True, timeout=60)
    )


def answer_behind(error: BaseException | None) -> tuple[BaseException | None, int, float]:
    """What an error comes from: the client's own error, the hub's status, its stated wait.

    The libraries wrap the client's errors in others. Without an answer both numbers are 0.
    """
    while error is not None and not isinstance(error, httpx.HTTPError):
        error = error.__cause__ or error.__context__
    answer = getattr(error, "response", None)
    if answer is None:
        return error, 0, 0
    after, seconds = answer.headers.get("Retry-After", ""), [0]
    if after.isdigit():
        seconds.append(int(after))
    limit = huggingface_hub.utils.parse_ratelimit_headers(answer.headers)
    if answer.status_code == 429 and limit and not limit.remaining:
        seconds.append(limit.reset_in_seconds)
    # One second more, because whole seconds are stated.
    return error, answer.status_code, min(LONGEST_STATED, max(seconds)) + 1 if max(seconds) else 0


@dataclasses.dataclass(frozen=True)
class Retry:
    """When to try again, and when to give up."""

    attempts: int = 4  # failures in a row, without an answer, after which a source is down
    refusals: int = 10  # of answers that say "later": the hub is there, and has 2.5 minutes
    first_wait: float = 1.0  # seconds after the first failure; doubled after each other
    longest_wait: float = 30.0  # seconds
    stall: float = 60.0  # seconds without a batch, after which a read has failed


@dataclasses.dataclass
class Patience:
    """Counts failures, waits after each, and says when it is over."""

    source: Source
    retry: Retry = Retry()
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    failures: int = 0  # since the last row
    rows: int = 0  # so far

    def __post_init__(self) -> None:
        self.end = self.clock() + 60 * self.source.minutes

    def limit(self) -> float:
        """Seconds that a read may take from now on: `stall`, or what is left of the minutes."""
        return max(0.1, min(self.retry.stall, self.end - self.clock()))

    def count(self, rows: int) -> None:
        """So many rows have come; any at all, and the count of failures starts again."""
        self.rows += rows
        self.failures *= not rows

    def verdict(self, error: BaseException | None, status: int) -> tuple[int, str]:
        """After how many failures such as this one the source is down, and what helps then."""
        unknown = (
            huggingface_hub.errors.RepositoryNotFoundError,  # also one that is gated
            huggingface_hub.errors.RevisionNotFoundError,
        )
        if isinstance(error, unknown) or status in (401, 403):  # it is no use asking again
            return 1, (
                f"The hub shows no public dataset {self.source.location!r} at "
                f"{self.source.revision or 'main'!r}. Correct it in SOURCES, or switch the source "
                f"off. If it is gated, accept its terms on the hub and give a token. {TOKEN_PLACE}"
            )
        if status == 429:
            return self.retry.refusals, f"A token raises the limit of the hub. {TOKEN_PLACE}"
        if status in ASK_AGAIN:
            return self.retry.refusals, "That is trouble of the hub's own: start again later."
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return self.retry.attempts, (
                "Is the internet on? On Kaggle: 'Settings' > 'Internet'. PROFILE=tiny needs none."
            )
        return self.retry.attempts, "The connection is slow, or breaks: start again later."

    def after(self, error: Exception) -> bool:
        """Waits after a failure; false if the minutes are over, and there are rows to go on with.

        Raises:
          SourceDown: it was one failure too many, or there is no row, and no time.
        """
        cause, status, stated = answer_behind(error)
        self.failures += not stated
        doubled = self.retry.first_wait * 2 ** (self.failures - 1)
        wait = stated or min(self.retry.longest_wait, doubled)
        where, minutes = self.source.location, f"{self.source.minutes:g} minutes"
        # The client's own words for an answer go on and on.
        told = f"{status} {cause.response.reason_phrase}" if status else ""
        told = told or f"{type(error).__name__}: {cause or error}"
        late = self.clock() + wait > self.end
        if late and self.rows:
            print(f"{where}: {minutes} are over ({told})")
            return False
        most, remedy = self.verdict(cause, status)
        if late or self.failures >= most:
            seen = f"{self.failures} reads in a row have failed"
            if late:
                seen = f"its {minutes} end before the next try, in {wait:g} s"
            raise SourceDown(
                f"Could not read {where}: {seen}, after {self.rows} rows, the last with {told}\n"
                f"{remedy}"
            ) from error
        print(f"{where}: {told}; again in {wait:g} s{' as the hub asks' * bool(stated)}")
        self.sleep(wait)
        return True

    def trying(self, make: Callable[[], Any]) -> Any:
        """What `make` gives, tried again as patience allows; bounded in time."""
        while True:
            try:
                return within(self.limit(), make)
            except TRANSIENT as error:
                self.after(error)

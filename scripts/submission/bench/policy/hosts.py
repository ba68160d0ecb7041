"""More than one host.

A slice of many chips has several hosts, with a few chips each. Each runs the whole notebook, by
JAX's own distributed runtime. What a step computes is **local**: each host writes and scores the
completions of its own prompts, on its own chips, as if it were alone. What is **agreed** is little:
the gradient of the adapter, whose mean over the hosts each of them applies; and, through the
runtime's store, a few numbers: how the prompts fared, whether there is time for another step.
**Host 0 writes**: the log, the saves, the results. What it alone decides or reads, it tells.

A host that is not heard of for `HOST_SECONDS` is missing: the others name it, and end.
"""

import atexit
import contextlib
import dataclasses
import functools
import itertools
import math
import os
import pathlib
import pickle
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax._src.distributed import global_state
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from orbax.checkpoint import options as orbax_options

from submission.bench.settings.config import Run
from submission.bench.settings.host import hosts_named

LOOK_SECONDS = 2.0  # between two looks at whether another host has failed
SILENT, DEAF = 0.7, 0.8  # of its limit: a host is missing; who cannot hear that is ended
MOST_BYTES = 3 * 2**20  # of a message: the store takes four


class HostError(RuntimeError):
    """Another host is missing, or has failed."""


def host_patience() -> float:
    """How long a host waits for the others, in seconds."""
    return float(os.environ.get("HOST_SECONDS") or 300)


def join_hosts(environment: Mapping[str, str]) -> None:
    """Joins the other hosts, if the environment says that there are any (`hosts_named`)."""
    given = hosts_named(environment)
    if given is None or jax.distributed.is_initialized():
        return
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM for itself
    # The runtime's own limits are a net below ours, and of its words nobody would learn much.
    net = {"heartbeat_timeout_seconds": int(3 * host_patience()) + 60}
    net["initialization_timeout"] = int(host_patience())
    jax.distributed.initialize(**given, **net, shutdown_timeout_seconds=30)
    pulse = Pulse()
    pulse.start()
    atexit.register(pulse.end)
    with contextlib.suppress(ImportError, AttributeError):
        from IPython import get_ipython

        get_ipython().events.register("post_run_cell", _tell_of_failure)


def _tell_of_failure(result: Any) -> None:
    """After a cell that failed: the others need not wait."""
    if error := result.error_before_exec or result.error_in_exec:
        with contextlib.suppress(Exception):  # it may be the store that is gone
            said = f"host {this_host()} failed: {type(error).__name__}: {error}"
            global_state.client.key_value_set("failed", said[:2000])


class Pulse(threading.Thread):
    """Tells the others that this host is alive, and sees whether they are.

    A host that is gone while this one's chips wait for its gradient leaves nobody who could raise
    an error: then this thread names it, and ends the process.
    """

    last: "Pulse | None" = None

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.heard = {host: (b"", time.monotonic()) for host in range(host_count())}
        self.over = threading.Event()
        Pulse.last = self

    def silent(self, share: float = SILENT) -> list[int]:
        """The hosts that have been silent for longer than this share of what they may."""
        longest = time.monotonic() - share * host_patience()
        return [host for host, (_, when) in self.heard.items() if when < longest]

    def tell(self, beat: bytes) -> None:
        """Says that this host is alive, or done."""
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            key = f"alive/{this_host()}"
            global_state.client.key_value_set_bytes(key, beat, allow_overwrite=True)

    def end(self) -> None:
        """Before the process ends: one that ends with a thread inside the runtime is aborted."""
        self.over.set()
        self.join(3 * LOOK_SECONDS)
        self.tell(b"done")

    def run(self) -> None:
        """Until the process ends."""
        client = global_state.client
        for beat in itertools.count():
            self.tell(str(beat).encode())
            for host in self.heard:
                with contextlib.suppress(jax.errors.JaxRuntimeError):  # it has said nothing yet
                    said = client.key_value_try_get_bytes(f"alive/{host}")
                    if said != self.heard[host][0] or said == b"done":
                        self.heard[host] = (said, time.monotonic())
            if late := self.silent(DEAF):
                print(missing_hosts(*late), file=sys.stderr, flush=True)
                time.sleep(LOOK_SECONDS)  # for the notebook to hear of it
                os._exit(1)
            if self.over.wait(LOOK_SECONDS):
                return


def missing_hosts(host: int, *others: int, what: str = "") -> str:
    """The message about hosts that do not come."""
    names = ", ".join(map(str, (host, *others)))
    return (
        f"Host {names} of {host_count()} is missing: host {this_host()} waits no longer than "
        f"{host_patience():.0f} s for it{what and f' ({what})'}. What was saved is good: start all "
        "hosts again to go on."
    )


def host_count() -> int:
    """How many hosts there are."""
    return global_state.num_processes or 1


def this_host() -> int:
    """The number of this host, from 0."""
    return global_state.process_id or 0


def my_share(items: Sequence[Any]) -> Sequence[Any]:
    """This host's part of what all have: equal parts, one after the other.

    Raises:
      ValueError: they cannot be equal.
    """
    if len(items) % host_count():
        raise ValueError(f"{len(items)} rows cannot be shared by {host_count()} hosts equally.")
    size = len(items) // host_count()
    return items[this_host() * size : (this_host() + 1) * size]


def run_of_a_host(run: Run, hosts: int) -> Run:
    """The run as one of so many hosts has it, with its share of what an update takes.

    Raises:
      ValueError: the hosts cannot share them equally, or a part of the recipe is for one host.
    """
    if hosts == 1:
        return run
    profile, settings = run.profile, run.profile.grpo
    if profile.stages or profile.helper:
        raise ValueError(f"Recipe {run.recipe!r} runs on one host; there are {hosts}.")
    if settings.prompts % hosts:
        raise ValueError(
            f"{settings.prompts} prompts of a step cannot be shared equally by {hosts} "
            "hosts: change `grpo.prompts` in the profile."
        )
    prompts = settings.prompts // hosts
    at_once = settings.micro_prompts and math.gcd(prompts, settings.micro_prompts)
    settings = dataclasses.replace(settings, prompts=prompts, micro_prompts=at_once)
    sft = dataclasses.replace(profile.sft, rows=profile.sft.rows // hosts)
    return dataclasses.replace(run, profile=dataclasses.replace(profile, grpo=settings, sft=sft))


def run_of_this_host(run: Run) -> Run:
    """The run with this host's share of what an update takes."""
    return run_of_a_host(run, host_count())


# **The store** keeps what a host says under the number of the talk, which each host counts for
# itself: all have the same talks, in the same order. What is said twice ago, all have heard.

_talks = itertools.count()


def _heard(key: str, what: str, seconds: float) -> bytes:
    client, end, host = global_state.client, time.monotonic() + seconds, int(key.split("/")[2])
    while True:
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            wait = max(0.1, min(LOOK_SECONDS, end - time.monotonic()))
            return client.blocking_key_value_get_bytes(key, int(1000 * wait))
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            raise HostError(client.key_value_try_get("failed"))
        if time.monotonic() >= end or (Pulse.last and host in Pulse.last.silent()):
            raise HostError(missing_hosts(host, what=what))


def gather(value: Any, what: str, seconds: float | None = None) -> list[Any]:
    """What each host has to say, in their order; all have to ask.

    Args:
      value: what this host says; anything that can be pickled, of up to 3 MB.
      what: for the message.
      seconds: how long to wait for the others; by default `host_patience`.

    Raises:
      HostError: another host did not come, or has failed; names it.
    """
    if host_count() == 1:
        return [value]
    talk, client = next(_talks), global_state.client
    said = pickle.dumps(value)
    if len(said) > MOST_BYTES:
        raise ValueError(f"{len(said):,} bytes are too many to be told to the other hosts: {what}")
    client.key_value_set_bytes(f"talk/{talk}/{this_host()}", said)
    keys = [f"talk/{talk}/{host}" for host in range(host_count())]
    told = [pickle.loads(_heard(key, what, seconds or host_patience())) for key in keys]
    if talk > 1:
        client.key_value_delete(f"talk/{talk - 2}/{this_host()}")
    return told


def lead(action: Callable[[], Any], what: str, seconds: float | None = None) -> Any:
    """What host 0 has made of `action`, on all hosts; if it raised, all raise the same."""
    if host_count() == 1:
        return action()
    found = error = None
    if this_host() == 0:
        try:
            found = action()
        except Exception as raised:  # whatever it is, the others have to know
            error = raised
    found, error = gather((found, error), what, seconds)[0]
    if error is not None:
        raise error
    return found


def in_turn(action: Callable[[], Any], what: str) -> Any:
    """`action` on host 0, and when it is over on the others: they find what it has left."""
    found = lead(action, what)
    return found if this_host() == 0 else action()


def everyones(values: Any, what: str) -> np.ndarray:
    """The numbers of all hosts, one host's after the other's."""
    return np.concatenate(gather(np.asarray(values), what))


def require_same(adapter: str, when: str) -> None:
    """Raises HostError if the hosts' adapters, by their fingerprints, are not the same."""
    found = gather(adapter, "their adapters")
    if len({*found}) > 1:
        raise HostError(f"The hosts' adapters differ {when}. What was saved before is good.")


def require_shared(path: pathlib.Path) -> None:
    """Raises HostError if a host does not see what host 0 has made."""
    there = gather(path.exists(), "a look at the folder")
    if not all(there):
        raise HostError(
            f"Host {there.index(False)} does not see {path}: OUT (or --out) has to be a folder "
            "that all hosts share."
        )


def handed_out(make: Callable[[], Any], folder: pathlib.Path, what: str, seconds: float) -> Any:
    """What host 0 has made, however large, by a file in a folder that all hosts see.

    Raises:
      HostError: a host does not see it.
    """
    if host_count() == 1:
        return make()
    path = folder / ".handed_out"

    def written() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(make()))

    lead(written, what, seconds)
    require_shared(path)
    found = pickle.loads(path.read_bytes())
    gather(None, what)  # all have read it
    if this_host() == 0:
        path.unlink()
    return found


# **The gradient** is the mean over the hosts, weighed by how much each has looked at: what one host
# with all the rows would compute. It is all that the chips of different hosts exchange.


def counted_tokens(inputs: Any) -> float:
    """The tokens that count in a pass of either stage."""
    mask = inputs.counts[:, 1:] if hasattr(inputs, "counts") else inputs.completion_mask
    return float(np.sum(np.asarray(mask)))


def mesh_of_hosts(chips: Sequence[Any]) -> Mesh:
    """The chips of all hosts, one host's beside the other's."""
    chips = sorted(chips, key=lambda chip: (chip.process_index, chip.id))
    hosts = len({chip.process_index for chip in chips})
    return Mesh(np.array(chips).reshape(hosts, -1), ("hosts", "chips"))


@functools.cache
def exchange(home: Mesh, mesh: Mesh) -> tuple[NamedSharding, Callable, Callable]:
    """Where the hosts' arrays lie beside each other, and two programs: scale, and add them up."""

    def scaled(trees: tuple, parts: tuple) -> tuple:
        of_part = lambda part, tree: jax.tree.map(  # noqa: E731
            lambda x: (part * x.astype(jnp.float32))[None], tree
        )
        return tuple(map(of_part, parts, trees))

    def added(tree: Any) -> Any:
        return jax.tree.map(lambda x_H: jnp.sum(x_H, axis=0), tree)

    whole = PartitionSpec()
    return (
        NamedSharding(mesh, PartitionSpec("hosts")),
        jax.jit(scaled, out_shardings=NamedSharding(home, whole)),
        jax.jit(added, out_shardings=NamedSharding(mesh, whole)),
    )


def sum_over_hosts(trees: tuple, parts: tuple[float, ...], home: Mesh) -> tuple:
    """The sums over the hosts of a part of each tree of arrays, in float32, whole on every chip.

    Args:
      trees: arrays on this host's mesh, alike on all hosts.
      parts: of each tree, what this host's is multiplied by.
      home: this host's mesh.
    """
    of_hosts, scaled, added = exchange(home, mesh_of_hosts(jax.devices()))
    at_home = NamedSharding(home, PartitionSpec())

    def moved(x: jax.Array, shape: tuple[int, ...], place: NamedSharding) -> jax.Array:
        """The same bytes on the same chips, seen as another array."""
        copies = [shard.data for shard in x.addressable_shards]
        return jax.make_array_from_single_device_arrays(shape, place, copies)

    mine = scaled(trees, tuple(map(np.float32, parts)))
    beside = jax.tree.map(lambda x: moved(x, (host_count(), *x.shape[1:]), of_hosts), mine)
    return jax.tree.map(lambda x: moved(x, x.shape, at_home), added(beside))


# **Orbax** on several hosts saves no array that lies on one host's chips alone, and what lies on
# the chips of all it saves with all hosts, each of which then waits for every other. The adapter is
# the same on all. So host 0 saves it by itself, from its memory.


def in_memory(module: nnx.Module) -> nnx.Module:
    """On several hosts, the same module with its arrays in this host's memory."""
    if host_count() == 1:
        return module
    graph, state = nnx.split(module)
    return nnx.merge(graph, jax.device_get(state))


def orbax_alone() -> orbax_options.MultiprocessingOptions:
    """For Orbax: this host reads or writes by itself, and waits for no other."""
    if host_count() == 1:
        return orbax_options.MultiprocessingOptions()
    return orbax_options.MultiprocessingOptions(
        primary_host=this_host(),
        active_processes={this_host()},
        barrier_sync_key_prefix=f"host{this_host()}",
    )

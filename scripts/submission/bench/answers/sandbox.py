"""A child process that can be killed.

An answer of the `code` kind is a program that nobody has read. It may loop for ever, fill the
memory, leave processes behind, or look for the expected values. So it runs in a child process
that gets the program and the *calls* (`add(2, 3)`), never the expected values. What comes back
is what the calls gave, and the comparison happens here.

There are two processes for every program. The **supervisor** is ours: it starts the worker,
adopts whatever the worker leaves behind, and goes only when all of it is dead. The **worker**
puts up its own fences and then runs the program.

| what the program may want | what stops it |
|---|---|
| time, memory, long files, many threads | the kernel's limits, and a deadline kept here |
| processes that outlive it | the filter; behind it the supervisor, reaper of all orphans |
| other people's files and processes | the filter; under root also another user id |
| the network | the filter |
| the right answers | they are not there |

The **filter** is the kernel's own (seccomp): after the modules that the program names have been
imported, the worker may compute, ask for memory, start threads, tell the time and write to
what is already open. It can open no file, start no process, send no signal, make no socket. An
**audit hook** refuses the same things from inside Python.

What this does not cover. The filter needs Linux on x86-64. Elsewhere the hook stands before files
and network, and it is a fence and no wall: a program that sets out to break its interpreter can
take it down. There is no network or mount namespace, and no help against a flaw in the kernel. A
program may write its own report to the pipe, but would have to know the right values.
"""

import contextlib
import dataclasses
import itertools
import json
import marshal
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import psutil

FENCES = ("user", "filter", "hook")


class SandboxError(RuntimeError):
    """The machinery has failed: a process could not be started. It says nothing of the answer."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one program may use, for its start and all its calls together."""

    seconds: float = 10.0  # wall clock, from before the child starts
    memory_bytes: int = 512 << 20  # of address space
    output_bytes: int = 1 << 20  # of the report; what is printed goes nowhere
    file_bytes: int = 1 << 20  # of one file, where files can be written at all
    files: int = 16  # open at the same time
    processes: int = 16  # and threads, beside those that the user has already
    fences: tuple[str, ...] = FENCES  # the tests take them down to see what stands behind


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What the calls gave."""

    values: tuple[Any, ...]  # one for every call, if there is no problem
    problem: str = ""  # why there are fewer, or ''
    fences: tuple[str, ...] = ()  # those that stood


# **The supervisor.** The source of the child is a string, handed to a fresh interpreter with
# `-c`: in a notebook there is no module that a child could import. The kernel gives the orphans of
# a process to its nearest "subreaper". As the supervisor is one, a daemon that has left its session
# and its group is still the supervisor's child, and "no children left" means that nothing is left.
#
# It hears of the notebook's end in three ways: standard input hangs up, its parent changes, or
# the time is over. A fork bomb is first stopped, process by process, and killed once there is
# nothing new: killing one at a time would make room for the next.


SUPERVISOR = r"""
import ctypes, marshal, os, resource, select, signal, struct, sys, time
from builtins import *  # copies: what the program does to the builtins is its own affair
from _json import encode_basestring_ascii as quote

LINUX = sys.platform == "linux"
SET_PDEATHSIG, SET_SECCOMP, SET_CHILD_SUBREAPER, SET_NO_NEW_PRIVS = 1, 22, 36, 38

def control(option, a, b=0):
    "prctl(2): has the kernel agreed?"
    return LINUX and ctypes.CDLL(None).prctl(option, *map(ctypes.c_ulong, (a, b, 0, 0))) == 0

def ending(function, *arguments):
    "Ends the process with the function, and says what it has raised."
    try:
        function(*arguments)
        os._exit(0)
    except BaseException as error:
        os.write(1, (type(error).__name__ + ": " + str(error)).encode()[:2000])
    finally:
        os._exit(1)

def silence(*descriptors):
    null = os.open(os.devnull, os.O_RDWR)
    for number in descriptors:
        os.dup2(null, number)

def processes():
    "Of every process: its number, its parent's, its user's, and how many threads it has."
    for name in os.listdir("/proc") if LINUX else ():
        try:
            with open("/proc/" + name + "/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
            yield int(name), int(fields[1]), os.stat("/proc/" + name).st_uid, int(fields[17])
        except (OSError, ValueError, IndexError):
            pass  # not a process, or one that has just gone

def descendants():
    "All processes below this one, however far they have moved."
    parent_of = {pid: parent for pid, parent, *_ in processes()}
    found = {os.getpid()}
    while more := {pid for pid in parent_of if parent_of[pid] in found} - found:
        found = found | more
    return found - {os.getpid()}

def send(number, *pids):
    for pid in pids:
        try:
            os.kill(pid, number)
        except OSError:
            pass

def kill_all():
    "Until nothing is left: collects the dead, stops the living one by one, then kills them."
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        stopped = set()
        while new := descendants() - stopped:
            send(signal.SIGSTOP, *new)
            stopped |= new
        send(signal.SIGKILL, *stopped)
        time.sleep(0.001)

def remove(folder):
    "Removes a folder of any depth and modes. It is empty if the filter stood."
    try:
        os.rmdir(folder)
    except OSError:
        script = 'chmod -Rf u+rwx "$0"; rm -rf "$0"'
        os.spawnl(os.P_WAIT, "/bin/sh", "sh", "-c", script, folder)

def supervise():
    job = marshal.load(open(0, "rb", closefd=False))
    control(SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    supervisor, parent = os.getpid(), os.getppid()
    end = time.monotonic() + job["seconds"]
    folder = job["folder"] + "/sandbox-" + os.urandom(8).hex()
    worker = os.fork()
    if worker == 0:
        ending(work, job, folder, supervisor)
    silence(1, 2)
    watch = select.poll()
    watch.register(0, 0)  # hang-up only
    gone = 0
    while not (gone or watch.poll(50)) and os.getppid() == parent and time.monotonic() < end:
        gone = os.waitpid(worker, os.WNOHANG)[0]
    send(signal.SIGKILL, -worker)  # its group, as far as it has stayed there
    if not gone:
        send(signal.SIGKILL, worker)
        os.waitpid(worker, 0)
    kill_all()
    remove(folder)
"""


# **The worker's fences.** Their order matters: modules first, because afterwards no file can be
# read; the user id before the death signal, because changing it clears the signal; the filter
# late, because it refuses all that the other fences need.
#
# A user id of its own, from the range that systemd keeps for such short-lived users, makes the
# limit on processes count this program alone. Root has no such limit.


FENCING = r"""
# What the filter lets through, by number (x86-64).
CALLS = dict(
    read=0, write=1, close=3, lseek=8, mmap=9, mprotect=10, munmap=11, brk=12, rt_sigaction=13,
    rt_sigprocmask=14, rt_sigreturn=15, sched_yield=24, mremap=25, madvise=28, nanosleep=35,
    getpid=39, exit=60, uname=63, gettimeofday=96, getrlimit=97, getrusage=98, sysinfo=99,
    times=100, getuid=102, getgid=104, geteuid=107, getegid=108, getppid=110, sigaltstack=131,
    gettid=186, time=201, futex=202, sched_getaffinity=204, clock_gettime=228, clock_getres=229,
    clock_nanosleep=230, exit_group=231, set_robust_list=273, getrandom=318, rseq=334,
)
CLONE, CLONE3, CLONE_THREAD, X86_64 = 56, 435, 0x10000, 0xC000003E
LOAD, IF_EQUAL, IF_BITS, RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050001  # EPERM
NOT_THERE = 0x00050026  # ENOSYS: the C library then uses `clone`, of which we can read the flags

MODULES = frozenset(
    "abc array ast base64 binascii bisect calendar cmath collections contextlib copy csv "
    "dataclasses datetime decimal difflib enum fractions functools hashlib heapq html inspect io "
    "itertools json keyword logging math numbers operator pprint queue random re secrets "
    "statistics string struct sys textwrap threading time timeit traceback types typing "
    "unicodedata warnings weakref zlib __future__".split()
)
# What some of them import at the first use of a function, when no file can be read any more.
LATER = dict(
    collections="collections.abc copy heapq", datetime="_strptime", functools="typing weakref",
    time="_strptime",
)

class Absent(type(sys)):
    "Stands for a module that may be imported, but not used."

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *_, **__):
        raise PermissionError("the sandbox has no such module")

def import_named(text):
    "Imports the modules of which the text has the name, while files can still be read."
    words = "".join(c if c.isalnum() or c == "_" else " " for c in text).split()
    for name in sorted(MODULES.intersection(words)):
        for module in (name, *LATER.get(name, "").split()):
            __import__(module)
        if name == "random":
            sys.modules[name].seed(0)  # the same program gives the same values
    for name in sys.stdlib_module_names.intersection(words) - MODULES - set(sys.modules):
        if name[0] != "_":  # an unused import is no fault
            sys.modules[name] = Absent(name)

def set_limits(job, alone):
    others = () if alone else processes()
    there = sum(threads for *_, user, threads in others if user == os.getuid())
    limits = dict(
        CORE=0, CPU=int(job["seconds"]) + 2, AS=job["memory_bytes"], FSIZE=job["file_bytes"],
        NOFILE=job["files"], NPROC=job["processes"] + there,
    )
    for name, amount in limits.items():
        try:
            resource.setrlimit(getattr(resource, "RLIMIT_" + name), (amount, amount))
        except (ValueError, OSError, AttributeError):
            pass  # it is lower already, or this system has no such limit

def become(user, folder):
    "A user of its own, if this process may."
    try:
        os.chown(folder, user, user)
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    except OSError:
        return False
    return True

def filter_calls():
    "Installs the filter: a program of the kernel's little machine, run at every system call."
    if os.uname().machine != "x86_64" or not LINUX:
        return False
    steps = [(LOAD, 0, 0, 4), (IF_EQUAL, 1, 0, X86_64), (RETURN, 0, 0, KILL), (LOAD, 0, 0, 0)]
    for number in CALLS.values():
        steps += [(IF_EQUAL, 0, 1, number), (RETURN, 0, 0, ALLOW)]
    steps += [(IF_EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, NOT_THERE), (IF_EQUAL, 0, 3, CLONE)]
    steps += [(LOAD, 0, 0, 16), (IF_BITS, 0, 1, CLONE_THREAD)]
    steps += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, REFUSE)]
    code = b"".join(struct.pack("HBBI", *step) for step in steps)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = ctypes.create_string_buffer(struct.pack("HP", len(steps), ctypes.addressof(buffer)))
    return control(SET_NO_NEW_PRIVS, 1) and control(SET_SECCOMP, 2, ctypes.addressof(program))

def refuse(event, arguments):
    # Both sets are constants of the code, which nothing can change. The join makes a plain string
    # of the name: a subclass of str could lie about its hash.
    if event.partition(".")[0] in {
        "open", "os", "subprocess", "socket", "ctypes", "shutil", "tempfile", "signal", "resource",
        "pty", "fcntl", "mmap", "gc", "syslog", "glob", "pathlib", "webbrowser", "urllib",
    } or (
        event == "import" and "".join((arguments[0], ""))
        in {"ctypes", "_ctypes", "_posixsubprocess", "_socket", "_posixshmem"}
    ):
        raise PermissionError("the sandbox refuses " + event)

def work(job, folder, supervisor):
    "What the supervisor's child does: put up the fences, then the job."
    os.setsid()
    os.mkdir(folder, 0o700)
    os.chdir(folder)
    os.dup2(1, 3)
    silence(1, 2)
    if job["path"] is None:
        silence(0)
        import_named(" ".join(job["readings"] + job["calls"]))
    os.closerange(4, 64)
    stands, alone = [], "user" in job["fences"] and os.geteuid() == 0
    set_limits(job, alone)
    if alone and become(job["user"], folder):
        stands.append("user")
    control(SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:
        os._exit(1)  # it has died before the line above
    if "filter" in job["fences"] and filter_calls():
        stands.append("filter")
    if "hook" in job["fences"]:
        for name in [name for name in sys.modules if "ctypes" in name]:
            del sys.modules[name]
        del globals()["ctypes"]
        sys.addaudithook(globals().pop("refuse"))  # no name leads to it from here on
        stands.append("hook")
    run(job, stands) if job["path"] is None else serve(job)
"""


# **The report.** Values go back by their exact type: an object that says it is equal to
# everything is of none of these types, and so is a subclass of `int` that lies. Some types of the
# standard library go back as the plain type that they extend: `Counter`, `defaultdict` and
# `OrderedDict` as a dictionary, a named tuple as a tuple. Generators, ranges, views, queues and
# the like are run through, and go back as `Iterated`. Anything else is a problem, and so is a
# report that is too long, too deep, or not there because the program has left early.
#
# It is JSON, with a name beside what JSON does not know: `(1, 2.5)` is
# `{"tuple":[1,{"float":"2.5"}]}`. The notebook reads no more of it than the limit, and decodes with
# a few lines that know these types and evaluate nothing.


REPORTING = r"""
from _collections import OrderedDict, defaultdict, deque

DICTS = {dict, OrderedDict, defaultdict}  # and Counter, where the program has it
ITERABLES = {range, deque, *map(type, ({}.keys(), {}.values(), {}.items()))}
OF_PYTHON = ("builtins", "itertools", "_collections")  # where its own iterators are at home

class Unreportable(Exception):
    pass

def pieces(value, depth=0):
    "The report of a value, piece by piece, by exact type."
    kind, name, items = type(value), "", value
    if depth > 60:
        raise Unreportable("a value nested more than 60 deep")
    if value is None or kind is bool:
        yield {None: "null", False: "false", True: "true"}[value]
    elif kind is str:
        yield quote(value)
    elif kind is int:
        if value.bit_length() > 14_000:  # Python reads no more than 4,300 digits
            raise Unreportable("an integer of more than 14,000 bits")
        yield repr(value)
    elif kind in (float, complex, bytes):
        text = value.hex() if kind is bytes else repr(value)
        yield '{"' + kind.__name__ + '":"' + text + '"}'
    elif kind in (list, tuple, set, frozenset):
        name = kind.__name__
    elif kind in DICTS:
        name, items = "dict", dict.items(value)
    elif kind in ITERABLES or (hasattr(kind, "__next__") and kind.__module__ in OF_PYTHON):
        name = "iterated"
    elif isinstance(value, tuple) and hasattr(kind, "_fields"):
        name, items = "tuple", tuple.__iter__(value)  # a named one
    else:
        raise Unreportable("a value of the unsupported type " + str(kind.__name__)[:100])
    if name:
        yield '{"' + name + '":['
        for i, item in enumerate(items):
            if i:
                yield ","
            yield from pieces(item, depth + 1)
        yield "]}"

def compiled(readings):
    "The first of several readings of a program that is one."
    for number, source in enumerate(readings, 1):
        try:
            return compile(source, "<solution>", "exec", dont_inherit=True)
        except SyntaxError:
            if number == len(readings):
                raise

def run(job, stands, write=os.write, leave=os._exit):
    "Runs the program, then the calls; reports what they gave."
    module = type(sys)("solution")
    sys.modules["solution"] = sys.modules["__main__"] = module
    values, problem, room = [], "", job["output_bytes"]
    if "collections" in sys.modules:
        DICTS.add(sys.modules["collections"].Counter)
    write(3, ("fences: " + " ".join(stands) + "\n").encode())
    where = "the program"
    try:
        exec(compiled(job["readings"]), module.__dict__)
        for number, call in enumerate(job["calls"], 1):
            where, encoded = "call " + str(number), []
            for piece in pieces(eval(call, module.__dict__)):
                room -= len(piece)
                if room < 0:
                    raise Unreportable("more than " + str(job["output_bytes"]) + " bytes")
                encoded.append(piece)
            values.append("".join(encoded))
    except Unreportable as error:
        problem = where + " gave " + str(error)
    except BaseException as error:  # SystemExit, too
        problem = where + " raised " + str(type(error).__name__)[:100]
    report = ("[[" + ",".join(values) + "]," + quote(problem) + "]").encode()
    while report:
        report = report[write(3, report) :]
    leave(0)

def serve(job):
    "Answers requests, a line each, with a function of our own."
    import json

    def say(value_of):
        try:
            reply = json.dumps({"value": value_of()})
        except BaseException as error:
            reply = json.dumps({"error": type(error).__name__ + ": " + str(error)[:500]})
        print(reply, file=pipe, flush=True)

    def start():
        exec(compile(job["readings"][0], "<worker>", "exec", dont_inherit=True), space)
        space["answer"]

    pipe, space = open(3, "w", closefd=False), {"__name__": "worker"}
    sys.path[:] = job["path"]
    say(start)
    for line in open(0, "rb", closefd=False):
        say(lambda: space["answer"](json.loads(line)))

ending(supervise)
"""


@dataclasses.dataclass(frozen=True)
class Iterated:
    """What a generator, a range, a view or another iterable that is no list has given.

    Equal to no list: only what goes through it (`list(…)`, `sorted(…)`) sees the items.
    """

    items: tuple[Any, ...]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)

    def __bool__(self) -> bool:
        raise TypeError("a generator is true even if it is empty, a range is not")


DECODERS = {kind.__name__: kind for kind in (float, complex, list, tuple, set, frozenset, dict)}
DECODERS |= {"bytes": bytes.fromhex, "iterated": lambda items: Iterated(tuple(items))}
LARGEST_HASHED = 5_000  # items: the time of equal hashes grows with the square, and is 0.2 s here


def decode(tagged: dict[str, Any]) -> Any:
    """The value of an object in the report, whose content has been decoded before.

    >>> json.loads('{"tuple":[1,{"float":"2.5"}]}', object_hook=decode)
    (1, 2.5)
    """
    ((kind, content),) = tagged.items()
    if kind in ("set", "frozenset", "dict") and len(content) > LARGEST_HASHED:
        raise ValueError(f"{len(content)} items")
    return DECODERS[kind](content)


def read_report(report: bytes, count: int) -> Outcome:
    """The outcome of `count` calls from what the worker, or a program in its place, has written."""
    if not report:
        return Outcome((), "the program ended without a report")
    try:
        values, problem = json.loads(report, object_hook=decode)
        if type(values) is not list or type(problem) is not str:
            raise TypeError("not a list and a text")
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return Outcome((), "the report is not readable")
    if not problem and len(values) != count:
        problem = f"{len(values)} of {count} values"
    return Outcome(tuple(values[:count]), problem[:300])


# **The notebook's side.** The interpreter starts without the user's settings, the site packages
# and the environment; only the seed of the hashes is set, so that a program that lists a set
# gives the same list each time. Nothing is run between fork and exec in this process, which
# has JAX's threads.


CHILD_SOURCE = SUPERVISOR + FENCING + REPORTING
SPAWNING = dict(
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0, cwd="/",
    env={"PYTHONHASHSEED": "0"}, start_new_session=True,
)  # fmt: skip
END_SECONDS = 1.5  # that a supervisor may take to end, before it is killed itself
FIRST_USER, LAST_USER = 61184, 65519
USERS = itertools.count(os.getpid())


def end_process(process: subprocess.Popen) -> None:
    """Ends a supervisor and all that it has started."""
    process.stdin.close()  # to the supervisor, this is the sign to clear up
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()  # the kernel then kills the worker
        process.wait()
    process.stdout.close()


class Supervised:
    """A supervisor with its worker, seen from the notebook; for one thread at a time.

    Args:
      readings: of the worker's source, of which it takes the first that compiles.
      calls: what it evaluates, if it does not serve.
      path: `sys.path` of a worker that serves, else None.

    Raises:
      SandboxError: the interpreter cannot be started.
    """

    def __init__(self, limits: Limits, **job: Any) -> None:
        job |= dataclasses.asdict(limits)
        job["seconds"] += END_SECONDS / 2  # the notebook's own deadline comes first
        job["user"] = FIRST_USER + next(USERS) % (LAST_USER - FIRST_USER)
        job["folder"] = tempfile.gettempdir()
        command = [sys.executable, "-P", "-s", "-S", "-B", "-c", CHILD_SOURCE]
        try:
            self.process = subprocess.Popen(command, **SPAWNING)
        except (OSError, TypeError) as error:  # TypeError: there is no sys.executable
            raise SandboxError(f"No child process could be started: {error}") from error
        self.end = weakref.finalize(self, end_process, self.process)  # once; at the latest at exit
        self.send(marshal.dumps(job))

    def send(self, data: bytes) -> None:
        """Writes all of it to the child. If that has gone, the next `receive` meets the end."""
        with contextlib.suppress(BrokenPipeError):
            while data:
                data = data[self.process.stdin.write(data) :]

    def receive(self, until: float, at_most: int, last: bytes = b"") -> tuple[bytes, bool]:
        """What the child writes, and whether it has come to its end.

        Args:
          until: the time, by the monotonic clock, at which to stop waiting.
          at_most: bytes after which to stop reading.
          last: the end of a message; empty: the message ends where the pipe does.
        """
        data, descriptor, watch = b"", self.process.stdout.fileno(), select.poll()
        watch.register(descriptor, select.POLLIN)
        while len(data) <= at_most:
            left = until - time.monotonic()
            if left <= 0 or not watch.poll(1000 * left):
                break
            more = os.read(descriptor, 65536)
            data += more
            if not more or (last and data.endswith(last)):
                return data, True
        return data, False


def run_calls(readings: Sequence[str], calls: Sequence[str], limits: Limits) -> Outcome:
    """Runs a program in a child process and evaluates calls of what it defines.

    It returns at most one second after the limit, and nothing that the program has started is
    alive then. Can be used from several threads at once.

    Args:
      readings: of a program; the first that compiles is run, as a module that is not `__main__`.
      calls: expressions, evaluated one after the other.

    Raises:
      SandboxError: no child could be started, or it failed before it came to the program.

    >>> run_calls(["def double(x): return 2 * x"], ["double(21)", "double('ab')"], Limits()).values
    (42, 'abab')
    """
    until = time.monotonic() + limits.seconds
    child = Supervised(limits, readings=list(readings), calls=list(calls), path=None)
    try:
        data, complete = child.receive(until, limits.output_bytes + 8 * len(calls) + 1000)
    finally:
        child.end()
    complaint, begun, rest = data.partition(b"fences:")
    if not begun:
        said = complaint.decode("utf-8", "replace") or "no time was left"
        raise SandboxError(f"The sandbox did not get as far as the program: {said}.")
    fences, _, report = rest.partition(b"\n")
    if complete:
        outcome = read_report(report, len(calls))
    elif time.monotonic() < until:
        outcome = Outcome((), f"a report of more than {limits.output_bytes} bytes")
    else:
        outcome = Outcome((), f"no report within {limits.seconds:g} s")
    return dataclasses.replace(outcome, fences=tuple(fences.decode().split()))


# **A worker that stays.** Some libraries of our own choice cannot be trusted with text that a
# model wrote: they may need hours for a tower of powers. A `Worker` runs such code in a child that
# stays, because the imports take a second or more, and that is killed if it takes too long over
# one request. Its fences are those of time and memory only, since the code is ours.


WORKER_START_SECONDS = 60.0  # its imports, on a busy machine
WORKER_REPLY_BYTES = 1 << 20


PATIENCE = 10  # how many times a limit is waited for while the machine's cores are taken


class Worker:
    """A persistent child for trusted code and untrusted text; can be shared by threads.

    Nothing starts before the first `ask`. The time of the start is not the request's.

    Args:
      source: Python source that defines `answer(request)`; request and answer are what JSON
        can hold. It has this process's `sys.path`, not its modules.
      seconds: for each request.
      memory_bytes: of address space.
    """

    def __init__(self, source: str, seconds: float = 2.0, memory_bytes: int = 4 << 30) -> None:
        self.source, self.seconds = source, seconds
        # Of seconds, files and processes as good as none.
        self.limits = Limits(1e9, memory_bytes, files=1 << 20, processes=1 << 20, fences=())
        self.lock = threading.RLock()
        self.child: Supervised | None = None
        self.family: list[psutil.Process] = []  # supervisor and worker

    def ask(self, request: Any) -> Any:
        """The answer to one request.

        Raises:
          TimeoutError: it took too long. The child is dead; the next request gets a new one.
          RuntimeError: `answer` has raised, or the child has died.
          SandboxError: the child could not be started, or its source fails.
        """
        line = json.dumps(request).encode() + b"\n"
        with self.lock:
            try:
                if self.child is None:
                    self.start()
                used = self.cpu_seconds()[0]
                self.child.send(line)
                reply = self.patient_reply(used)
            except BaseException:  # also an interrupt: a late reply must not answer another request
                self.close()
                raise
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply["value"]

    def start(self) -> None:
        """Starts the child and waits until its source has run."""
        path = [folder for folder in sys.path if folder]
        self.child = Supervised(self.limits, readings=[self.source], path=path)
        try:
            reply = self.reply(WORKER_START_SECONDS)
            if "error" in reply:
                raise RuntimeError(reply["error"])
            root = psutil.Process(self.child.process.pid)
            self.family = [root, *root.children(recursive=True)]
        except (TimeoutError, RuntimeError, psutil.Error) as error:
            raise SandboxError(f"The worker did not start: {error}") from error

    def cpu_seconds(self) -> tuple[float, bool]:
        """What the child has used of the cores, and whether it wants one now."""
        with contextlib.suppress(psutil.Error):
            used = sum(sum(process.cpu_times()[:2]) for process in self.family)
            return used, any(process.status() == psutil.STATUS_RUNNING for process in self.family)
        return 0.0, False

    def patient_reply(self, used: float) -> dict[str, Any]:
        """The reply; on a busy machine the limit counts the time that the child has had a core."""
        for _ in range(PATIENCE):
            try:
                return self.reply(self.seconds)
            except TimeoutError:
                now, wants = self.cpu_seconds()
                if not wants or now - used > 0.8 * self.seconds:
                    raise
        return self.reply(self.seconds)

    def reply(self, seconds: float) -> dict[str, Any]:
        """The next line of the child."""
        until = time.monotonic() + seconds
        data, ended = self.child.receive(until, WORKER_REPLY_BYTES, last=b"\n")
        if data.endswith(b"\n"):
            return json.loads(data)
        if ended or len(data) > WORKER_REPLY_BYTES:
            raise RuntimeError(f"The worker has died: {data[:500].decode('utf-8', 'replace')}")
        raise TimeoutError(f"The worker took more than {seconds:g} s over a request.")

    def close(self) -> None:
        """Ends the child; a later `ask` would start a new one."""
        with self.lock:
            if self.child is not None:
                self.child.end()
                self.child = None

"""A child process that can be killed.

An answer of the `code` kind is a program that nobody has read. It may loop for ever, fill the
memory, leave processes behind, or look for the expected values. So it never runs in the
notebook's process. It runs in a child, and the child gets the program and the *calls*
(`add(2, 3)`), never the expected values. What comes back is what the calls gave, and the
comparison happens here.

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
what is already open. It can open no file, neither to write nor to read, start no process, send
no signal, make no socket. An **audit hook** refuses the same things from inside Python.

What this does not cover. The filter needs Linux on x86-64. Where it is missing, the hook is what
stands before files and network, and the hook is a fence and no wall: a program that sets out
to break the interpreter it runs in can take it down. There is no network or mount namespace. A
flaw in the kernel is beyond all of this. And a program that writes its own report to the pipe
gains nothing, because it would have to know the right values.
"""

import dataclasses
import itertools
import json
import marshal
import math
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


def control(option, first, second=0):
    "prctl(2): has the kernel agreed?"
    if not LINUX:
        return False
    return ctypes.CDLL(None).prctl(option, *map(ctypes.c_ulong, (first, second, 0, 0))) == 0


def descendants():
    "All processes below this one, however far they have moved."
    parent_of = {}
    for name in os.listdir("/proc") if LINUX else ():
        try:
            with open("/proc/" + name + "/stat", "rb") as file:
                parent_of[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            pass  # not a process, or one that has just gone
    found = more = {os.getpid()}
    while more := {pid for pid in parent_of if parent_of[pid] in found} - found:
        found = found | more
    return found - {os.getpid()}


def send(pid, number):
    try:
        os.kill(pid, number)
    except OSError:
        pass


def any_left():
    "Collects the dead; is anything alive?"
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def kill_all():
    while any_left():
        stopped = set()
        while new := descendants() - stopped:
            for pid in new:
                send(pid, signal.SIGSTOP)
            stopped |= new
        for pid in stopped:
            send(pid, signal.SIGKILL)
        time.sleep(0.001)


def empty_here():
    "Removes what is here, folders excepted; the names of those, made passable."
    inner = []
    for entry in list(os.scandir(".")):
        if entry.is_dir(follow_symlinks=False):
            os.chmod(entry.name, 0o700)
            inner.append(entry.name)
        else:
            os.unlink(entry.name)
    return inner


def remove(folder):
    "Removes a folder of any depth and modes, step by step: a path could get too long."
    os.chmod(folder, 0o700)
    os.chdir(folder)
    names, left = [], [empty_here()]
    while left[-1] or names:
        if left[-1]:
            names.append(left[-1].pop())
            os.chdir(names[-1])
            left.append(empty_here())
        else:
            os.chdir("..")
            os.rmdir(names.pop())
            left.pop()
    os.chdir("/")
    os.rmdir(folder)


def take(count):
    "Exactly so many bytes of standard input; the rest is for the worker."
    data = b""
    while len(data) < count:
        more = os.read(0, count - len(data))
        if not more:
            os._exit(0)  # the notebook has gone
        data += more
    return data


def supervise():
    job = marshal.loads(take(int.from_bytes(take(8), "big")))
    control(SET_CHILD_SUBREAPER, 1)
    wake, waker = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(waker, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    supervisor, parent = os.getpid(), os.getppid()
    end = time.monotonic() + job["seconds"]
    folder = job["folder"] + "/sandbox-" + os.urandom(8).hex()
    os.mkdir(folder, 0o700)
    try:
        worker = os.fork()
        if worker == 0:
            try:
                work(job, folder, supervisor)
            except BaseException as error:
                os.write(2, (type(error).__name__ + ": " + str(error)).encode()[:2000])
            finally:
                os._exit(1)
        os.close(1)
        watch = select.poll()
        watch.register(0, 0)  # hang-up only
        watch.register(wake, select.POLLIN)
        alive = True
        while alive and os.getppid() == parent and time.monotonic() < end:
            if 0 in dict(watch.poll(1000)):
                break
            try:
                os.read(wake, 4096)
            except BlockingIOError:
                pass
            alive = os.waitpid(worker, os.WNOHANG)[0] == 0
        send(-worker, signal.SIGKILL)  # its group, as far as it has stayed there
        if alive:
            send(worker, signal.SIGKILL)
            os.waitpid(worker, 0)
        kill_all()
    finally:
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
LATER = {
    "collections": ["collections.abc", "copy", "heapq"],
    "datetime": ["_strptime"],
    "functools": ["typing", "weakref"],
    "time": ["_strptime"],
}


class Absent(type(sys)):
    "Stands for a module that may be imported, but not used."

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return refuse_call


def refuse_call(*_, **__):
    raise PermissionError("the sandbox has no such module")


def import_named(text):
    "Imports the modules of which the text has the name, while files can still be read."
    words = "".join(c if c.isalnum() or c == "_" else " " for c in text).split()
    for name in sorted(MODULES.intersection(words)):
        for module in (name, *LATER.get(name, ())):
            __import__(module)
        if name == "random":
            sys.modules[name].seed(0)  # the same program gives the same values
    for name in sys.stdlib_module_names.intersection(words) - MODULES - set(sys.modules):
        if name[0] != "_":  # an unused import is no fault
            sys.modules[name] = Absent(name)


def set_limits(job, alone):
    processes = job["processes"]
    if processes is not None and not alone:
        for name in os.listdir("/proc") if LINUX else ():
            try:
                if os.stat("/proc/" + name).st_uid == os.getuid():
                    processes += len(os.listdir("/proc/" + name + "/task"))
            except OSError:
                pass  # not a process, or one that has just gone
    for name, amount in (
        ("CORE", 0),
        ("CPU", job["cpu"]),
        ("AS", job["memory"]),
        ("FSIZE", job["file"]),
        ("NOFILE", job["files"]),
        ("NPROC", processes),
    ):
        if amount is not None:
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
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    os.dup2(1, 3)
    null = os.open(os.devnull, os.O_RDWR)
    for number in (1, 2) if job["serve"] else (0, 1, 2):
        os.dup2(null, number)
    os.closerange(4, 64)
    os.chdir(folder)
    import_named(" ".join(job["sources"] + job["calls"]))
    stands = []
    alone = "user" in job["fences"] and os.geteuid() == 0
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
    (serve if job["serve"] else run)(job, stands)
"""


# **The report.** Values go back by their exact type: an object that says it is equal to
# everything is of none of these types, and so is a subclass of `int` that lies. Some types of the
# standard library go back as the plain type that they extend: `Counter`, `defaultdict` and
# `OrderedDict` as a dictionary, a named tuple as a tuple. Generators, ranges, views, queues and
# the like are run through, and go back as `Iterated`. Anything else is a problem, and so is a
# report that is too long, too deep, or not there because the program has left early.


REPORTING = r"""
import itertools
from _collections import OrderedDict, defaultdict, deque

DICTS = {dict, OrderedDict, defaultdict}  # and Counter, where the program has it
ITERATED = {
    range, map, filter, zip, enumerate, reversed, deque, type(_ for _ in ()),
    type({}.keys()), type({}.values()), type({}.items()),
    type(reversed([])), type(iter({}.values())), type(iter({}.items())), type(reversed({})),
    *map(type, map(iter, ([], (), {}, set(), "", "\u0100", b"", range(0), deque()))),
    *(kind for kind in vars(itertools).values() if type(kind) is type),
}


class Unreportable(Exception):
    pass


def is_named_tuple(kind, mro=type.__dict__["__mro__"], names=type.__dict__["__dict__"]):
    "Is this a class that `namedtuple` has made?"
    return (
        type(kind) is type
        and mro.__get__(kind) == (kind, tuple, object)
        and "_fields" in names.__get__(kind)
        and "__eq__" not in names.__get__(kind)
    )


def pieces(value, depth=0):
    "The report of a value, piece by piece, by exact type."
    kind = type(value)
    if depth > 30:
        raise Unreportable("a value nested more than 30 deep")
    if value is None:
        yield "null"
    elif kind is bool:
        yield "true" if value else "false"
    elif kind is str:
        yield quote(value)
    elif kind is int:
        if value.bit_length() > 100_000:
            raise Unreportable("an integer of more than 100,000 bits")
        yield '["int","' + hex(value) + '"]'
    elif kind is float:
        yield '["float","' + float.hex(value) + '"]'
    elif kind is complex:
        yield '["complex","' + float.hex(value.real) + " " + float.hex(value.imag) + '"]'
    elif kind is bytes:
        yield '["bytes","' + value.hex() + '"]'
    elif kind in DICTS:
        yield '["dict",['
        for i, (key, item) in enumerate(dict.items(value)):
            yield ",[" if i else "["
            yield from pieces(key, depth + 1)
            yield ","
            yield from pieces(item, depth + 1)
            yield "]"
        yield "]]"
    elif kind in (list, tuple, set, frozenset) or kind in ITERATED or is_named_tuple(kind):
        if kind in (list, tuple, set, frozenset):
            yield '["' + kind.__name__ + '",['
        else:
            yield '["iterated",[' if kind in ITERATED else '["tuple",['
        for i, item in enumerate(tuple.__iter__(value) if is_named_tuple(kind) else value):
            if i:
                yield ","
            yield from pieces(item, depth + 1)
        yield "]]"
    else:
        raise Unreportable("a value of the unsupported type " + str(kind.__name__)[:100])


def compiled(sources):
    "The first of several readings of a program that is one."
    for number, source in enumerate(sources, 1):
        try:
            return compile(source, "<solution>", "exec", dont_inherit=True)
        except SyntaxError:
            if number == len(sources):
                raise


def run(job, stands, write=os.write, leave=os._exit):
    "Runs the program, then the calls; reports what they gave."
    module = type(sys)("solution")
    sys.modules["solution"] = sys.modules["__main__"] = module
    values, problem, room = [], "", job["output"]
    if "collections" in sys.modules:
        DICTS.add(sys.modules["collections"].Counter)
    write(3, ("ready " + " ".join(stands) + "\n").encode())
    where = "the program"
    try:
        exec(compiled(job["sources"]), module.__dict__)
        for number, call in enumerate(job["calls"], 1):
            where = "call " + str(number)
            value, encoded = eval(call, module.__dict__), []
            for piece in pieces(value):
                room -= len(piece)
                if room < 0:
                    raise Unreportable("more than " + str(job["output"]) + " bytes")
                encoded.append(piece)
            values.append("".join(encoded))
    except Unreportable as error:
        problem = where + " gave " + str(error)
    except BaseException as error:  # SystemExit, too
        problem = where + " raised " + str(type(error).__name__)[:100]
    report = ('{"values":[' + ",".join(values) + '],"problem":' + quote(problem) + "}").encode()
    while report:
        report = report[write(3, report) :]
    leave(0)
"""


# In the other direction the notebook reads no more than the limit, and decodes with a few lines
# that know these types and evaluate nothing.


@dataclasses.dataclass(frozen=True)
class Iterated:
    """What a generator, a range, a view or another iterable that is no list has given.

    Equal to no list: only what goes through it (`list(…)`, `sorted(…)`) sees the items.

    >>> list(Iterated((1, 2))), Iterated((1, 2)) == [1, 2]
    ([1, 2], False)
    """

    items: tuple[Any, ...]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)

    def __bool__(self) -> bool:
        raise TypeError("a generator is true even if it is empty, a range is not")


DECODERS = {
    "int": lambda text: int(text, 16),
    "float": float.fromhex,
    "complex": lambda text: complex(*map(float.fromhex, text.split())),
    "bytes": bytes.fromhex,
    "list": lambda items: [decode_value(item) for item in items],
    "tuple": lambda items: tuple(decode_value(item) for item in items),
    "set": lambda items: {decode_value(item) for item in items},
    "frozenset": lambda items: frozenset(decode_value(item) for item in items),
    "iterated": lambda items: Iterated(tuple(decode_value(item) for item in items)),
    "dict": lambda items: {decode_value(key): decode_value(value) for key, value in items},
}


def decode_value(item: Any) -> Any:
    """A value of the report.

    Raises:
      ValueError, TypeError, KeyError, OverflowError or RecursionError: nothing that the
        worker's own encoder writes.

    >>> decode_value(["tuple", [["int", "0x2a"], "pears", None]])
    (42, 'pears', None)
    """
    if item is None or type(item) is bool or type(item) is str:
        return item
    if type(item) is not list:
        raise ValueError(f"a bare {type(item).__name__} in the report")
    kind, content = item
    if type(content) is not (str if kind in ("int", "float", "complex", "bytes") else list):
        raise ValueError(f"a {kind} of {type(content).__name__} in the report")
    return DECODERS[kind](content)


def read_report(report: bytes, count: int) -> Outcome:
    """The outcome of `count` calls from what the worker has written.

    >>> read_report(b'{"values":[["int","0x5"]],"problem":""}', 1).values
    (5,)
    >>> read_report(b'{"values":[["int","0x5"]],"problem":""}', 2).problem
    '1 of 2 values'
    >>> read_report(b"", 1).problem
    'the program ended without a report'
    """
    if not report:
        return Outcome((), "the program ended without a report")
    try:
        content = json.loads(report)
        values = tuple(decode_value(item) for item in content["values"])
        problem = content["problem"]
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError, AttributeError):
        return Outcome((), "the report is not readable")
    if type(problem) is not str:
        return Outcome((), "the report is not readable")
    if not problem and len(values) != count:
        problem = f"{len(values)} of {count} values"
    return Outcome(values[:count], problem[:300])


# **The notebook's side.** The interpreter starts without the user's settings, the site packages
# and the environment; only the seed of the hashes is set, so that a program that lists a set
# gives the same list each time. Nothing is run between fork and exec in this process, which
# has JAX's threads.


SERVING = r"""
def serve(job, stands):
    "Answers requests, a line each, with a function of our own."
    import json

    def say(reply):
        data = json.dumps(reply).encode() + b"\n"
        while data:
            data = data[os.write(3, data) :]

    def in_words(error):
        return type(error).__name__ + ": " + str(error)[:500]

    sys.path[:] = job["path"]
    space = {"__name__": "worker"}
    try:
        exec(compile(job["sources"][0], "<worker>", "exec", dont_inherit=True), space)
        answer = space["answer"]
    except BaseException as error:
        return say({"error": "the source failed: " + in_words(error)})
    say({"value": "ready"})
    for line in open(0, "rb", closefd=False):
        try:
            reply = {"value": answer(json.loads(line))}
            json.dumps(reply)
        except BaseException as error:
            reply = {"error": in_words(error)}
        say(reply)
"""

STARTING = r"""
try:
    supervise()
except BaseException as error:
    os.write(2, (type(error).__name__ + ": " + str(error)).encode()[:2000])
    os._exit(1)
os._exit(0)
"""
CHILD_SOURCE = SUPERVISOR + FENCING + REPORTING + SERVING + STARTING
INTERPRETER_FLAGS = ("-P", "-s", "-S", "-B")
CHILD_ENVIRONMENT = {"PYTHONHASHSEED": "0"}
END_SECONDS = 0.8  # that a supervisor may take to end, before it is killed itself
FIRST_USER, LAST_USER = 61184, 65519
USERS = itertools.count(os.getpid())
FOR_EVER = 1e9  # seconds


class Supervised:
    """A supervisor with its worker, seen from the notebook; for one thread at a time.

    Raises:
      SandboxError: the interpreter cannot be started.
    """

    def __init__(
        self, sources: Sequence[str], calls: Sequence[str], limits: Limits, *, serve: bool = False
    ) -> None:
        job = dict(
            sources=list(sources),
            calls=list(calls),
            serve=serve,
            seconds=FOR_EVER if serve else limits.seconds + END_SECONDS / 2,
            cpu=None if serve else math.ceil(limits.seconds) + 1,
            memory=limits.memory_bytes,
            output=limits.output_bytes,
            file=limits.file_bytes,
            files=None if serve else limits.files,
            processes=None if serve else limits.processes,
            fences=list(limits.fences),
            user=FIRST_USER + next(USERS) % (LAST_USER - FIRST_USER),
            folder=tempfile.gettempdir(),
            path=[folder for folder in sys.path if folder],
        )
        try:
            self.process = subprocess.Popen(
                [sys.executable, *INTERPRETER_FLAGS, "-c", CHILD_SOURCE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd="/",
                env=CHILD_ENVIRONMENT,
                start_new_session=True,
            )
        except (OSError, TypeError) as error:  # TypeError: there is no sys.executable
            raise SandboxError(f"No child process could be started: {error}") from error
        packed = marshal.dumps(job)
        try:
            self.send(len(packed).to_bytes(8, "big") + packed)
        except OSError as error:
            raise SandboxError(f"The child process died at its start: {self.end()}") from error

    def send(self, data: bytes) -> None:
        """Writes all of it to the child. Raises BrokenPipeError if it has gone."""
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
                return data, False
            more = os.read(descriptor, 65536)
            data += more
            if not more or (last and data.endswith(last)):
                return data, True
        return data, False

    def end(self) -> str:
        """Ends the child and all that it has started; what the supervisor complained of."""
        self.process.stdin.close()  # to the supervisor, this is the sign to clear up
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()  # the kernel then kills the worker
            self.process.wait()
        os.set_blocking(self.process.stderr.fileno(), False)
        complaint = self.process.stderr.read(2000) or b""
        self.process.stdout.close()
        self.process.stderr.close()
        return complaint.decode("utf-8", "replace")


DEFAULT_LIMITS = Limits()


def run_calls(
    program: str | Sequence[str], calls: Sequence[str], limits: Limits = DEFAULT_LIMITS
) -> Outcome:
    """Runs a program in a child process and evaluates calls of what it defines.

    It returns at most one second after the limit, and nothing that the program has started is
    alive then. Can be used from several threads at once.

    Args:
      program: Python source, or several readings of one, of which the first that compiles is run,
        as a module that is not `__main__`.
      calls: expressions, evaluated one after the other.
      limits: for everything together.

    Returns:
      the values, by exact type, or the problem.

    Raises:
      SandboxError: no child could be started, or it failed before it came to the program.

    >>> run_calls("def double(x): return 2 * x", ["double(21)", "double('ab')"]).values
    (42, 'abab')
    >>> run_calls("while True: pass", ["double(21)"], Limits(seconds=0.3)).problem
    'no report within 0.3 s'
    """
    until = time.monotonic() + limits.seconds
    child = Supervised([program] if isinstance(program, str) else program, calls, limits)
    try:
        data, complete = child.receive(until, limits.output_bytes + 8 * len(calls) + 1000)
    finally:
        complaint = child.end()
    head, _, report = data.partition(b"\n")
    if not head.startswith(b"ready"):
        raise SandboxError(
            f"The sandbox did not get as far as the program: {complaint or 'no time was left'}."
        )
    fences = tuple(head.decode("ascii", "replace").split()[1:])
    if complete:
        outcome = read_report(report, len(calls))
    elif time.monotonic() < until:
        outcome = Outcome((), f"a report of more than {limits.output_bytes} bytes")
    else:
        outcome = Outcome((), f"no report within {limits.seconds:g} s")
    return dataclasses.replace(outcome, fences=fences)


# **A worker that stays.** Some libraries of our own choice cannot be trusted with text that a
# model wrote: they may need hours for a tower of powers. A `Worker` runs such code in a child that
# stays, because the imports take a second or more, and that is killed if it takes too long over
# one request. Its fences are those of time and memory only, since the code is ours.


WORKER_START_SECONDS = 60.0  # its imports, on a busy machine
WORKER_REPLY_BYTES = 1 << 20


class Worker:
    """A persistent child for trusted code and untrusted text; can be shared by threads.

    Nothing starts before the first `ask`. The time of the start is not the request's.

    Args:
      source: Python source that defines `answer(request)`; request and answer are what JSON
        can hold. It has this process's `sys.path`, not its modules.
      seconds: for each request.
      memory_bytes: of address space.

    >>> worker = Worker("def answer(request): return request[::-1]")
    >>> worker.ask("abc")
    'cba'
    >>> worker.close()
    """

    def __init__(self, source: str, seconds: float = 2.0, memory_bytes: int = 4 << 30) -> None:
        self.source, self.seconds = source, seconds
        self.limits = Limits(memory_bytes=memory_bytes, fences=())
        self.lock = threading.Lock()
        self.child: Supervised | None = None
        self.finalizer: Any = None

    def ask(self, request: Any) -> Any:
        """The answer to one request.

        Raises:
          TimeoutError: it took too long. The child is dead; the next request gets a new one.
          RuntimeError: `answer` has raised, or the child has died.
          SandboxError: the child could not be started, or its source fails.
        """
        line = json.dumps(request).encode() + b"\n"
        with self.lock:
            if self.child is None:
                self.start()
            try:
                self.child.send(line)
                reply = self.reply(self.seconds)
            except (OSError, TimeoutError, RuntimeError) as error:
                self.stop()
                if isinstance(error, TimeoutError):
                    raise
                raise RuntimeError(f"The worker has died: {error}") from error
            except BaseException:
                self.stop()  # an interrupt: a late reply must not answer the next request
                raise
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply["value"]

    def start(self) -> None:
        """Starts the child and waits until its source has run."""
        self.child = Supervised([self.source], (), self.limits, serve=True)
        self.finalizer = weakref.finalize(self, self.child.end)  # also at the interpreter's exit
        try:
            reply = self.reply(WORKER_START_SECONDS)
        except (TimeoutError, RuntimeError) as error:
            self.stop()
            raise SandboxError(f"The worker did not start: {error}") from error
        if "error" in reply:
            self.stop()
            raise SandboxError(reply["error"])

    def reply(self, seconds: float) -> dict[str, Any]:
        """The next line of the child."""
        data, complete = self.child.receive(
            time.monotonic() + seconds, WORKER_REPLY_BYTES, last=b"\n"
        )
        if complete and data.endswith(b"\n"):
            return json.loads(data)
        if complete or len(data) > WORKER_REPLY_BYTES:
            raise RuntimeError("no complete reply")
        raise TimeoutError(f"The worker took more than {seconds:g} s over a request.")

    def stop(self) -> None:
        """Kills the child, if there is one."""
        if self.child is not None:
            self.finalizer()
            self.child = None

    def close(self) -> None:
        """Ends the child; a later `ask` would start a new one."""
        with self.lock:
            self.stop()

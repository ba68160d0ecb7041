import concurrent.futures
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import uuid

import pytest

from submission.bench.answers import sandbox
from submission.bench.answers.sandbox import FENCES, Limits, SandboxError, Worker

ROOT = os.geteuid() == 0
SCRIPTS = pathlib.Path(sandbox.__file__).parents[3]
# What stands: everything; what stands on other processors; the supervisor and the limits alone.
STANDING = {"all": FENCES, "no filter": ("user", "hook"), "bare": ("user",)}


def processes():
    """pid → (parent, command line) of all there are, the dead but not buried included."""
    found = {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_bytes().rpartition(b")")[2].split()
            found[int(folder.name)] = (int(stat[1]), (folder / "cmdline").read_bytes())
        except OSError:
            pass
    return found


def with_mark(mark):
    return {pid for pid, (_, line) in processes().items() if mark.encode() in line}


@pytest.fixture(autouse=True)
def mark(monkeypatch, tmp_path):
    """Every child of a test carries its mark in its command line; none may be left."""
    mark = "mark-" + uuid.uuid4().hex
    monkeypatch.setattr(sandbox, "CHILD_SOURCE", sandbox.CHILD_SOURCE + "# " + mark)
    room = tmp_path / "room"
    room.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(room))
    before = {pid for pid, (parent, _) in processes().items() if parent == os.getpid()}
    yield mark
    assert with_mark(mark) == set()
    after = {pid for pid, (parent, _) in processes().items() if parent == os.getpid()}
    assert after <= before, "a child, or its remains"
    assert list(room.iterdir()) == [], "a folder"


def source(text):
    return textwrap.dedent(text)


LIMITS = Limits()


def run_calls(program, calls, limits=LIMITS):
    return sandbox.run_calls([program], calls, limits)


def test_values_come_back_by_their_exact_type():
    program = "def f(x): return x"
    values = (
        1, -(2**200), True, None, 1.5, float("inf"), -0.0, 2 - 3j, "naïve \ud800\n\"", b"\x00\xff",
        [1, [2.0]], (1, "a"), {1, 2}, frozenset({3}), {"a": [1], (1, 2): {}}, [], (), set(), {},
    )  # fmt: skip
    outcome = run_calls(program, [f"f({value!r})".replace("inf", "1e999") for value in values])
    assert outcome.problem == ""
    assert outcome.values == values
    assert [type(v) for v in outcome.values] == [type(v) for v in values]
    assert str(outcome.values[6]) == "-0.0"


def test_generators_and_their_like_come_back_run_through():
    calls = ["(x for x in [1])", "range(1, 2)", "iter([1])", "{1: 2}.keys()", "map(abs, [-1])"]
    assert run_calls("", calls).values == (sandbox.Iterated((1,)),) * len(calls)


def test_a_nan_comes_back():
    (value,) = run_calls("", ["float('nan')"]).values
    assert value != value


def test_all_fences_stand_where_they_can():
    wanted = [fence for fence in FENCES if fence != "user" or ROOT]
    assert run_calls("", []).fences == tuple(wanted)


@pytest.mark.parametrize("module", sorted("math re collections itertools heapq datetime".split()))
def test_the_named_modules_are_there(module):
    assert run_calls(f"import {module} as m", ["m.__name__"]).values == (module,)


def test_every_module_of_the_list_can_be_imported_behind_the_fences():
    scope = {}
    exec(sandbox.FENCING.split("class Absent")[0], scope)
    program = "".join(f"import {name}\n" for name in sorted(scope["MODULES"] - {"__future__"}))
    assert run_calls(program, ["1"]).values == (1,)


def test_a_module_that_cannot_be_had_may_be_imported_but_not_used():
    imports = "import pickle, subprocess as s\nfrom socket import socket\nimport plistlib\n"
    program = imports + "def f(x): return x + 1\ndef g(): return s.run('ls')\n"
    assert run_calls(program, ["f(1)"]).values == (2,)
    assert run_calls(program, ["g()"]).problem == "call 1 raised PermissionError"
    assert "the program raised" in run_calls("import numpy", ["1"]).problem


def test_of_several_readings_the_first_that_compiles_is_run():
    readings = ["def f(:", "def f(): return 2", "def f(): return 3"]
    assert sandbox.run_calls(readings, ["f()"], LIMITS).values == (2,)
    outcome = sandbox.run_calls(["def f(:", "x ="], ["f()"], LIMITS)
    assert outcome.problem == "the program raised SyntaxError"


def test_threads_and_sleep_and_dates_work_behind_the_fences():
    program = source("""
        import threading, time, datetime, random, typing, dataclasses, collections
        @dataclasses.dataclass
        class P:
            x: int
        Q = collections.namedtuple("Q", "a b")
        def f():
            got = []
            t = threading.Thread(target=lambda: got.append(1)); t.start(); t.join()
            time.sleep(0.001)
            day = datetime.datetime.strptime("2024-02-29", "%Y-%m-%d").day
            return got, day, P(3).x, Q(1, 2).b, 0 <= random.random() < 1
    """)
    assert run_calls(program, ["f()"]).values == (([1], 29, 3, 2, True),)


@pytest.mark.parametrize(
    "expression",
    [
        "collections.Counter('abca').most_common(1)",
        "collections.UserDict(a=1).copy()['a']",
        "functools.singledispatch(lambda x: x)(3)",
        "datetime.datetime.strptime('2024', '%Y').year",
        "time.strptime('2024', '%Y').tm_year",
        "hashlib.sha256(b'').hexdigest(), hashlib.md5(b'').hexdigest()",
        "decimal.Decimal(1) / 3 < fractions.Fraction(1, 2)",
        "statistics.stdev([1.0, 2.0, 4.0]), statistics.NormalDist().cdf(0)",
        "'naïve'.encode('latin-1').decode('utf-8', 'replace'), 'x'.encode('ascii')",
        "re.sub(r'(?i)a', 'b', 'Aa'), string.Template('$x').substitute(x=1)",
        "calendar.monthrange(2024, 2)[1], calendar.month(2024, 2)",
        "json.loads(json.dumps({'a': [1.5, None]}))",
        "ast.literal_eval('[1]'), html.unescape('&lt;'), next(csv.reader(['a,b']))",
        "str(inspect.signature(lambda x: 0)), timeit.timeit('1', number=1) < 9",
        "logging.warning('x'), len(weakref.WeakSet())",
        "random.sample(range(9), 3) and random.gauss(0, 1) < 99",
    ],
)
def test_the_library_works_behind_the_fences(expression):
    modules = (
        "ast calendar collections csv datetime decimal fractions functools hashlib html inspect "
        "json logging random re statistics string time timeit weakref".split()
    )
    used = [name for name in modules if name + "." in expression]
    program = "".join(f"import {name}\n" for name in used) + f"def f(): return {expression}"
    assert run_calls(program, ["f()"]).problem == ""


def test_the_same_program_gives_the_same_values():
    program = "import random\ndef f(): return list({'a', 'b', 'c', 'd', 'e'}), random.random()"
    assert run_calls(program, ["f()"]) == run_calls(program, ["f()"])


def test_calls_share_one_module_that_is_not_main():
    program = (
        "n = 0\ndef f():\n global n\n n += 1\n return n, __name__\nif __name__ == '__main__': 1/0"
    )
    assert run_calls(program, ["f()", "f()"]).values == ((1, "solution"), (2, "solution"))


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        ("def f(:", "the program raised SyntaxError"),
        ("\0", "the program raised "),
        ("import sys; sys.exit()", "the program raised SystemExit"),
        ("raise SystemExit(0)", "the program raised SystemExit"),
        ("raise KeyboardInterrupt", "the program raised KeyboardInterrupt"),
        ("import os; os._exit(0)", "the program ended without a report"),
        ("def f(): raise SystemExit", "call 1 raised SystemExit"),
        ("def f(): return f()", "call 1 raised RecursionError"),
        ("def f(): return (1 for x in iter(int, 1))", "call 1 gave more than 1048576 bytes"),
        ("def f(): return (1/0 for x in [1])", "call 1 raised ZeroDivisionError"),
        ("def f(): return iter(int, 1)", "call 1 gave more than 1048576 bytes"),
        ("def f(): return f", "call 1 gave a value of the unsupported type function"),
        ("def f(): return object", "call 1 gave a value of the unsupported type type"),
        ("def f(): return [1] * 10**7", "call 1 gave more than 1048576 bytes"),
        ("def f(): return 'x' * 10**7", "call 1 gave more than 1048576 bytes"),
        ("def f(): return 1 << 10**6", "call 1 gave an integer of more than"),
        ("def f():\n x = []\n x.append(x)\n return x", "call 1 gave a value nested more than 60"),
        ("def f(): return input()", "call 1 raised EOFError"),
        ("import sys\ndef f(): return sys.stdin.read(1) + 1", "call 1 raised TypeError"),
        ("import numpy", "the program raised ModuleNotFoundError"),
        ("f = 1 +", "the program raised SyntaxError"),
        ("class E(Exception):\n  def __str__(s): return 1/0\nraise E", "the program raised E"),
    ],
)
def test_problems_are_named(program, problem):
    outcome = run_calls(program, ["f()"])
    assert outcome.problem.startswith(problem)
    assert outcome.values == ()


LIAR = "__eq__ = __ge__ = lambda *_: True\n __hash__ = lambda s: 1\n __repr__ = lambda s: '42'"


@pytest.mark.parametrize("base", "object int float str bytes list tuple dict set frozenset".split())
def test_an_object_that_equals_everything_is_not_reported(base):
    program = f"class Any({base}):\n {LIAR}\ndef f(x): return x(Any())"
    for around in ("lambda a: a", "lambda a: [a]", "lambda a: {'k': (a,)}", "lambda a: {a}"):
        outcome = run_calls(program, [f"f({around})"])
        assert outcome.values == ()
        assert "unsupported type Any" in outcome.problem


PATCHES = """
import builtins, sys, json, operator
class Any:
    __eq__ = lambda *_: True
for name in ("type", "repr", "int", "hex", "len", "isinstance", "str", "enumerate", "exec", "eval"):
    setattr(builtins, name, lambda *_, **__: Any())
json.dumps = json.loads = lambda *_, **__: '42'
sys.stdout = sys.stderr = sys.__stdout__ = None
sys.exit = sys._getframe = None
def f(): return Any()
def g(): return 5
"""


def test_patched_builtins_change_nothing_in_the_report():
    assert run_calls(PATCHES, ["f()"]).problem.startswith("call 1 gave a value of the unsupported")
    assert run_calls(PATCHES, ["g()"]).values == (5,)


def test_deleted_builtins_change_nothing_in_the_report():
    program = (
        "import builtins\nfor n in list(vars(builtins)): delattr(builtins, n)\ndef f(): return 5"
    )
    assert run_calls(program, ["f()"]).values in ((5,), ())
    program = "__builtins__.clear() if type(__builtins__) is dict else vars(__builtins__).clear()"
    assert run_calls(program + "\ndef f(): return 5", ["f()"]).values in ((5,), ())


@pytest.mark.parametrize(
    "forged",
    [
        b"",
        b"\x00\xff" * 100,
        b"{}",
        b"[]",
        b"5",
        b"NaN",
        b'[5,""]',
        b'["5",""]',
        b"[[],5]",
        b'[[],""]',
        b'[[],"",5]',
        b'[[{"int":5}],""]',
        b'[[{"bytes":5}],""]',
        b'[[{"bytes":"x"}],""]',
        b'[[{"float":"0x1p99999"}],""]',
        b'[[{"float":' + b"9" * 4000 + b'}],""]',
        b'[[{"os":"0x1"}],""]',
        b'[[{"set":[{"list":[]}]}],""]',
        b'[[{"list":[],"set":[]}],""]',
        b'[[{}],""]',
        b'[[{"dict":[["a"]]}],""]',
        b'[[{"iterated":1}],""]',
        b'[[1,1],""]',
        b'[[1],""][[1],""]',
        b'{"list":[[1],""]}{}',
        b"[[" + b"[" * 60_000,
        b"[[" + b'{"list":[' * 5_000 + b"]}" * 5_000 + b'],""]',
        b"1" * 60_000,
        b"[[" + b"1" * 60_000 + b'],""]',
        b"x" * 200_000,
        b'[[{"complex":"1 1 1"}],""]',
    ],
)
def test_a_forged_report_gives_a_problem_and_no_harm(forged):
    program = source(f"""
        import os
        forged = {forged[:70_000]!r} * {max(1, len(forged) // 70_000)}
        for fd in range(32):
            try:
                os.write(fd, forged)
            except OSError:
                pass
        os._exit(0)
    """)
    outcome = run_calls(program, ["f()"])
    assert outcome.problem != ""


def test_a_forged_report_before_the_real_one_gives_a_problem():
    program = "import os\nos.write(3, b'[[1],\"\"]')\ndef f(): return 1"
    assert run_calls(program, ["f()"]).problem == "the report is not readable"


def test_a_forged_set_of_equal_hashes_is_not_even_made():
    numbers = ",".join(str(i * (2**61 - 1)) for i in range(40_000))
    start = time.monotonic()
    for kind in ("set", "frozenset"):
        report = f'[[{{"{kind}":[{numbers}]}}],""]'
        assert sandbox.read_report(report.encode(), 1).problem == "the report is not readable"
    assert time.monotonic() - start < 1


FORK = "import os\nos.fork()\n"
BUSY = """
import os, signal
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
while True:
    pass
"""
BOMB = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass"
RUNNER = """
import os, time
end = time.time() + 60
while time.time() < end:  # each generation leaves the next behind and goes
    if os.fork():
        os._exit(0)
    os.setsid()
"""
DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.chdir("/")
        time.sleep(60)
    os._exit(0)
def f(): return 1
"""
THREADS = """
import threading
def spin():
    while True:
        pass
for _ in range(4):
    threading.Thread(target=spin).start()
def f(): return 1
"""
DIRTY = """
import os
os.symlink("/etc/passwd", "link"); os.symlink(".", "loop"); os.symlink("/", "root")
os.makedirs("a/b/c"); open("a/b/c/file", "w").write("x"); os.mkfifo("a/pipe")
os.chmod("a/b/c", 0); os.chmod("a/b", 0); os.chmod("a", 0)
for _ in range(200):  # a path of 10,000 characters
    os.mkdir("d" * 50); os.chdir("d" * 50)
"""
CLOSE = "import os\nos.closerange(0, 100)\ndef f(): return 1"
# Programs that must not give 4711, must end in time, and must leave nothing.
ATTACKS = {
    "endless loop": "while True: pass",
    "endless call": "def f():\n    while True: pass",
    "busy, ignoring signals": BUSY,
    "fork bomb": BOMB,
    "runner": RUNNER,
    "daemon": DAEMON,
    "fork": FORK,
    "threads without end": THREADS,
    "sleep": "import time; time.sleep(60)",
    "memory": "x = []\nwhile True: x.append(bytearray(1 << 20))",
    "one big block": "x = bytearray(1 << 40)",
    "huge power": "def f(): return 10**10**7",
    "output": "while True: print('x' * 100000)",
    "errors": "import sys\nwhile True: sys.stderr.write('x' * 100000)",
    "output through the descriptors": "import os\nwhile True: os.write(1, b'x' * 99999)",
    "endless report": "import os\nwhile True: os.write(3, b'x' * 99999)",
    "recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef f(x=0): return f(x + 1)\nf()",
    "deep nesting": "def f():\n x = []\n for _ in range(10**6): x = [x]\n return x",
    "deep source": "x = " + "(" * 5000 + ")" * 5000,
    "minus signs": "x = " + "-" * 20000 + "1",
    "segfault": "import ctypes; ctypes.string_at(0)",
    "abort": "import os; os.abort()",
    "stop itself": "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
    "kill all": "import os; os.kill(-1, 9)",
    "kill the supervisor": "import os; os.kill(os.getppid(), 9)",
    "stop the supervisor": "import os; os.kill(os.getppid(), 19)",
    "kill the group": "import os; os.killpg(0, 9)",
    "closed descriptors": CLOSE,
    "dirty folder": DIRTY,
    "own folder gone": "import os; d = os.getcwd(); os.chdir('/'); os.rmdir(d)",
    "mode 000": "import os; os.chmod('.', 0)",
    "long file": "f = open('x', 'wb')\nwhile True: f.write(bytes(1 << 20)); f.flush()",
    "many files": "i = 0\nwhile True:\n    open(str(i), 'w').close(); i += 1",
    "reads standard input": "import sys\ndef f(): return sys.stdin.read()",
    "trace": "import sys\ndef t(*_): return t\nsys.settrace(t)\ndef f(): return 1",
    "alarm": "import signal\nsignal.setitimer(signal.ITIMER_REAL, 0.01)\nwhile True: pass",
}  # fmt: skip
# Without the filter, these would reach other processes of an ordinary user.
OF_OTHERS = ("kill all", "kill the supervisor", "stop the supervisor")


@pytest.mark.parametrize("standing", STANDING)
@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_ends_in_time_and_leaves_nothing(attack, standing):
    if standing == "bare" and attack in OF_OTHERS and not ROOT:
        pytest.skip("only the filter or another user id stops this one")
    limits = Limits(seconds=0.6, fences=STANDING[standing])
    start = time.monotonic()
    outcome = run_calls(ATTACKS[attack], ["f()"], limits)
    assert time.monotonic() - start < limits.seconds + 1
    assert outcome.values != (4711,)
    assert outcome.values in ((), (1,), ("",))


@pytest.mark.parametrize(
    "statement",
    [
        "os.fork()",
        "os.system('true')",
        "os.kill(os.getppid(), 0)",
        "os.killpg(0, 0)",
        "os.listdir('/')",
        "os.mkdir('x')",
        "os.open('/etc/passwd', os.O_RDONLY)",
        "os.execv('/bin/true', ['true'])",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "os.unlink('x')",
        "os.setuid(0)",
        "open('/etc/passwd')",
        "open('x', 'w')",
        "open('/proc/self/environ')",
        "__import__('ctypes').string_at(0)",
        "__import__('subprocess').run(['true'])",
        "__import__('socket').socket()",
        "__import__('_socket').socket()",
        "__import__('_posixsubprocess').fork_exec",
        "__import__('resource').setrlimit(7, (999, 999))",
        "__import__('signal').pthread_kill(1, 9)",
        "__import__('gc').get_objects()",
    ],
)
@pytest.mark.parametrize("standing", ["no filter", "all"])
def test_the_fences_refuse(statement, standing):
    program = f"import os\ndef f(): return {statement}"
    outcome = run_calls(program, ["f()"], Limits(seconds=3, fences=STANDING[standing]))
    refusals = ("PermissionError", "ModuleNotFoundError", "FileNotFoundError", "KeyError")
    assert outcome.problem.endswith(refusals), outcome


TAKE_DOWN = """
import os, sys
frame = sys._getframe()
while frame:
    space = frame.f_globals
    for name, value in list(space.items()):
        if getattr(value, "__name__", "") == "refuse":
            value.__defaults__ = ((), ())
            value.__code__ = (lambda event, arguments: None).__code__
        if name.startswith("REFUSED"):
            space[name] = frozenset()
    for value in list(frame.f_locals.values()):
        if getattr(value, "__name__", "") == "refuse":
            value.__code__ = (lambda event, arguments: None).__code__
    frame = frame.f_back
try:
    os.listdir("/")
except PermissionError as error:
    trace = error.__traceback__
    while trace:
        trace.tb_frame.f_globals["PermissionError"] = lambda text: None
        trace = trace.tb_next
def f(): return os.listdir("/")
class Name(str):
    __hash__ = lambda self: 0
    __eq__ = lambda *_: False
def g(): return len(__import__(Name("_posixsubprocess")).__name__)
"""


@pytest.mark.parametrize("call", ["f()", "g()"])
def test_the_hook_cannot_be_taken_down_from_a_frame(call):
    outcome = run_calls(TAKE_DOWN, [call], Limits(seconds=3, fences=("hook",)))
    assert outcome.problem.startswith("call 1 raised "), outcome
    assert run_calls(TAKE_DOWN, [call], Limits(seconds=3, fences=())).problem == ""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the filter is for x86-64 only")
@pytest.mark.parametrize(
    "statement",
    [
        "os.fork()",
        "os.kill(os.getppid(), 0)",
        "os.listdir('/')",
        "os.stat('/')",
        "os.mkdir('x')",
        "os.chdir('/')",
        "os.open('/etc/passwd', os.O_RDONLY)",
        "os.open('x', os.O_CREAT | os.O_WRONLY)",
        "os.execv('/bin/true', ['true'])",
        "os.setsid()",
        "os.pipe()",
        "os.nice(1)",
        "os.memfd_create('x')",
        "open('/proc/1/environ')",
    ],
)
def test_the_filter_alone_refuses(statement):
    program = f"import os\ndef f(): return {statement}"
    outcome = run_calls(program, ["f()"], Limits(seconds=3, fences=("filter",)))
    assert outcome.problem == "call 1 raised PermissionError"


def test_what_is_refused_would_work_without_the_fences():
    program = (
        "import os\ndef f(): open('x', 'w').write('y'); return open('x').read(), os.listdir('.')"
    )
    assert run_calls(program, ["f()"], Limits(fences=())).values == (("y", ["x"]),)
    assert run_calls(program, ["f()"], Limits(fences=("user",))).values == (("y", ["x"]),)


@pytest.mark.parametrize("standing", ["all", "no filter"] + ["bare"] * ROOT)
def test_a_secret_of_the_notebook_cannot_be_read(tmp_path, standing):
    secret = tmp_path / "secret"
    secret.write_text("4711")
    secret.chmod(0o600)
    program = source(f"""
        import os
        def f():
            got = []
            for path in ({str(secret)!r}, "/proc/{os.getpid()}/environ", "/proc/{os.getpid()}/mem",
                         "/proc/%d/mem" % os.getppid(), "/proc/{os.getpid()}/fd/1"):
                try:
                    open(path, "rb").read(1)
                    got.append(path)
                except (OSError, MemoryError):
                    pass
            return got
    """)
    assert run_calls(program, ["f()"], Limits(fences=STANDING[standing])).values == ([],)


def test_the_expected_values_are_nowhere_in_the_child(mark):
    program = (
        "import os, time\ndef f():\n    time.sleep(0.6)\n    return sorted(os.environ), os.getcwd()"
    )
    pool = concurrent.futures.ThreadPoolExecutor(1)
    running = pool.submit(run_calls, program, ["f()"], Limits(fences=("user",)))
    time.sleep(0.35)
    pids = with_mark(mark)
    assert pids
    for pid in pids:
        assert b"time.sleep(0.6)" not in processes()[pid][1], "not even the program is in argv"
    names, folder = running.result().values[0]
    assert names == ["LC_CTYPE", "PYTHONHASHSEED"] or names == ["PYTHONHASHSEED"]
    assert folder.startswith(tempfile.gettempdir())


@pytest.mark.skipif(not ROOT, reason="only root can give the program another user id")
def test_a_program_of_root_is_not_root():
    program = "import os\ndef f(): return os.getuid(), os.geteuid(), os.getgroups()"
    outcome = run_calls(program, ["f()"], Limits(fences=("user",)))
    uid, effective, groups = outcome.values[0]
    assert uid == effective >= sandbox.FIRST_USER
    assert groups == []


def test_the_limit_on_processes_binds():
    program = source("""
        import os, time
        def f():
            for count in range(1000):
                try:
                    if os.fork() == 0:
                        time.sleep(60)
                except OSError:
                    return count
    """)
    limits = Limits(seconds=5, processes=8, fences=("user",))
    (count,) = run_calls(program, ["f()"], limits).values
    assert count <= 12  # of an ordinary user, others may have ended since they were counted


def test_a_file_cannot_grow_past_its_limit():
    program = "def f():\n    with open('x', 'wb', 0) as file: return file.write(bytes(100_000))"
    limits = Limits(fences=("user",), file_bytes=1000)
    assert run_calls(program, ["f()"], limits).values == (1000,)


def test_several_threads_at_once():
    def one(i):
        return run_calls("def f(x): return x * x", [f"f({i})"]).values

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(one, range(24))) == [(i * i,) for i in range(24)]


def test_one_program_cannot_disturb_its_neighbour():
    bad = "import os, signal\ntry:\n os.kill(-1, 9)\nexcept OSError: pass\ndef f(): return 1"
    good = "import time\ndef f(): time.sleep(0.5); return 2"
    limits = Limits(seconds=5, fences=("user",) if ROOT else FENCES)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        neighbour = pool.submit(run_calls, good, ["f()"], limits)
        time.sleep(0.2)
        run_calls(bad, ["f()"], limits)
        assert neighbour.result().values == (2,)


def test_a_failure_of_the_machinery_is_no_wrong_answer(monkeypatch):
    for executable in ("/nowhere/python", "/bin/false", "/bin/true", "", None):
        monkeypatch.setattr(sys, "executable", executable)
        with pytest.raises(SandboxError):
            run_calls("", ["1"])


def test_a_folder_that_cannot_be_made_is_named(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    with pytest.raises(SandboxError, match="/nowhere/sandbox-"):
        run_calls("", ["1"])


def test_an_interrupt_leaves_nothing_behind():
    def interrupt():
        time.sleep(0.4)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # xdist's workers ignore it
    try:
        threading.Thread(target=interrupt).start()
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            run_calls("while True: pass", ["1"], Limits(seconds=5))
        assert time.monotonic() - start < 2
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    "work",
    [
        "sandbox.run_calls([DAEMON + 'while True: pass'], ['f()'], sandbox.Limits(fences=()))",
        "sandbox.Worker('def answer(r):\\n while True: pass', seconds=60).ask(1)",
    ],
)
def test_all_children_die_with_the_notebook(work, mark, tmp_path):
    script = source(f"""
        import sys, threading, time
        sys.path.insert(0, {str(SCRIPTS)!r})
        from submission.bench.answers import sandbox
        import tempfile
        tempfile.tempdir = {tempfile.gettempdir()!r}
        sandbox.CHILD_SOURCE += "# {mark}"
        DAEMON = {DAEMON!r}
        thread = threading.Thread(target=lambda: {work}, daemon=True)
        thread.start()
        time.sleep(60)
    """)
    path = tmp_path / "script.py"
    path.write_text(script)
    notebook = subprocess.Popen([sys.executable, str(path)])
    try:
        end = time.monotonic() + 10
        while len(with_mark(mark)) < 2 and time.monotonic() < end:
            time.sleep(0.05)
        assert len(with_mark(mark)) >= 2
        time.sleep(0.2)
    finally:
        notebook.kill()
        notebook.wait()
    end = time.monotonic() + 2
    while with_mark(mark) and time.monotonic() < end:
        time.sleep(0.05)
    assert with_mark(mark) == set()


REVERSE = """
import time
calls = 0
def answer(request):
    global calls
    calls += 1
    if request == "sleep":
        time.sleep(60)
    if request == "die":
        import os; os._exit(1)
    if request == "raise":
        raise ValueError("no such thing")
    if request == "print":
        print("x" * 100_000)
    if request == "object":
        return object()
    if request == "large":
        return "x" * 300_000
    if request == "flood":
        return "x" * 3_000_000
    if request == "memory":
        return len(bytearray(1 << 40))
    return [calls, request]
"""


@pytest.fixture
def worker():
    worker = Worker(REVERSE, seconds=1.0, memory_bytes=1 << 30)
    yield worker
    worker.close()


def test_a_worker_stays(worker):
    assert worker.ask({"a": ["ü", None, 1.5]}) == [1, {"a": ["ü", None, 1.5]}]
    assert worker.ask("print") == [2, "print"]
    assert len(worker.ask("large")) == 300_000


def test_a_slow_request_kills_the_worker_and_the_next_gets_a_new_one(worker):
    worker.ask(1)
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        worker.ask("sleep")
    assert time.monotonic() - start < 2
    assert worker.child is None
    assert worker.ask(1) == [1, 1]


@pytest.mark.parametrize("request_", ["die", "flood"])
def test_a_worker_that_dies_says_so_and_comes_back(worker, request_):
    with pytest.raises(RuntimeError):
        worker.ask(request_)
    assert worker.ask(1) == [1, 1]


@pytest.mark.parametrize("request_", ["raise", "object", "memory"])
def test_an_error_in_the_answer_is_told_and_the_worker_stays(worker, request_):
    with pytest.raises(RuntimeError, match=r"ValueError: no such thing|TypeError|MemoryError"):
        worker.ask(request_)
    assert worker.ask(1) == [2, 1]


def test_the_import_time_is_not_the_first_requests():
    worker = Worker("import time; time.sleep(0.8)\ndef answer(r): return r", seconds=0.4)
    assert worker.ask(5) == 5
    worker.close()


@pytest.mark.parametrize("source_", ["1/0", "x = 1", "import os; os._exit(3)", "def f(:"])
def test_a_source_that_fails_is_a_failure_of_the_machinery(source_):
    with pytest.raises(SandboxError):
        Worker(source_).ask(1)


def test_a_worker_can_be_shared_by_threads(worker):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(worker.ask, range(50)))
    assert [reply[1] for reply in replies] == list(range(50))
    assert sorted(reply[0] for reply in replies) == list(range(1, 51))


def test_a_worker_outlives_the_thread_that_started_it(worker):
    thread = threading.Thread(target=worker.ask, args=(1,))
    thread.start()
    thread.join()
    time.sleep(0.1)
    assert worker.ask(1) == [2, 1]


def test_a_worker_that_is_forgotten_is_ended(mark):
    worker = Worker("def answer(r): return r")
    worker.ask(1)
    assert with_mark(mark)
    del worker
    assert with_mark(mark) == set()


def test_a_closed_worker_can_be_closed_again_and_asked_again(worker):
    worker.ask(1)
    worker.close()
    worker.close()
    assert worker.ask(1) == [1, 1]


def test_a_worker_sees_the_packages_of_the_notebook():
    worker = Worker("import pytest\ndef answer(r): return pytest.__version__", seconds=2)
    assert worker.ask(0) == pytest.__version__
    worker.close()

"""One run, one folder.

Everything that a run leaves is in one folder, with the configuration that made it. A run that was
killed is found there and goes on where its last save was; one of another configuration is not
taken for it. What a finished run left is moved aside, never overwritten.
"""

import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
import typing
import warnings
from collections.abc import Mapping
from typing import Any

from submission.bench.policy.hosts import gather, lead, require_shared, this_host
from submission.bench.settings.config import Profile, Run
from submission.bench.settings.host import holder

# What may differ between a run and its continuation: where and how long, not what.
FREE_SETTINGS = (
    "hours",
    "host_gib",
    "download_minutes",
    "preparation_minutes",
    "preparation_share",
    "compilation_cache",
    "keep_checkpoints",
    "save_minutes",
    "closing_seconds",
    "upload_seconds",
    "planned",
)


def settings_of(run: Run) -> dict[str, Any]:
    """All that makes a run what it is, flat: names with dots, and values as JSON has them."""

    def flat(value: Any, name: str) -> dict[str, Any]:
        parts = dict(enumerate(value)) if isinstance(value, list) else value
        if not isinstance(parts, dict) or not parts:
            return {name: value}
        found: dict[str, Any] = {}
        for key, part in parts.items():
            found |= flat(part, f"{name}.{key}" if name else str(key))
        return found

    profile = dataclasses.asdict(run.profile)
    whole = {
        **{name: value for name, value in profile.items() if name not in FREE_SETTINGS},
        "recipe": run.recipe,
        "seed": run.seed,
    }
    return flat(json.loads(json.dumps(whole)), "")


def rebuilt(kind: Any, value: Any) -> Any:
    """A value of a type from its parts, as `run_of` has them; parts unknown today are left out."""
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{name: rebuilt(hints[name], x) for name, x in value.items() if name in hints})
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        return tuple(rebuilt(parts[0], x) for x in (value.values() if value else ()))
    if origin is Mapping:
        return {name: rebuilt(parts[1], x) for name, x in value.items()}
    return value


def run_of(settings: Mapping[str, Any]) -> Run:
    """The run that `settings_of` has written down; its time limits are not among them."""
    nested: dict[str, Any] = {}
    for name, value in settings.items():
        *path, last = name.split(".")
        place = nested
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    profile = rebuilt(Profile, {"hours": 0.0, **nested})
    return Run(profile, nested["recipe"], nested["seed"], minutes=None, out="", resume=None)


def fingerprint(settings: Mapping[str, Any]) -> str:
    """A short name of a configuration.

    >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) != fingerprint({"a": 1})
    True
    """
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two configurations, a line each.

    >>> differences({"seed": 0, "grpo.beta": 0.02}, {"seed": 1, "grpo.beta": 0.02})
    ['seed: 0 -> 1']
    """
    names = sorted({*before, *now})
    pairs = [(name, before.get(name), now.get(name)) for name in names]
    return [f"{name}: {old} -> {new}" for name, old, new in pairs if old != new]


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes the file under another name first, so that it is there whole or not at all."""
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(draft, path)


def read_json(path: pathlib.Path, default: Any) -> Any:
    """What a file holds; the default if there is none, or it is damaged."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return default


class RunFolder:
    """The folder of one run, locked: two runs cannot share it."""

    def __init__(self, path: str) -> None:
        self.path = pathlib.Path(path).resolve()
        self.settings = self.path / "run.json"
        self.stages = self.path / "stages.json"
        self.answers = self.path / "answers"
        self.checkpoints = self.path / "checkpoints"
        self.results = self.path / "results.json"
        self.metrics = self.path / "metrics.jsonl"
        self.groups = self.path / "groups.jsonl"
        self.plots = self.path / "plots"
        self.fingerprint = ""
        self.own: Any = None  # a folder that goes with the process
        self.goes_on = False  # with what an earlier process has left
        self._lock: Any = None

    def lock(self) -> None:
        """Raises RuntimeError if another run holds the folder."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = (self.path / ".lock").open("a")
        try:
            # A lock of the process: running the notebook again in its kernel is no conflict.
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):  # some network file systems
                warnings.warn(f"{self.path} cannot be locked: start no second run there.",
                              stacklevel=2)  # fmt: skip
                return
            self._lock.close()
            raise RuntimeError(
                f"Another run is writing to {self.path}. Wait for it, or choose another folder "
                "with OUT (or --out)."
            ) from None
        self._lock.truncate(0)
        print(holder(os.getpid()), end="", file=self._lock, flush=True)  # whose folder it is

    def release(self) -> None:
        """Lets go of the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def finished_stage(self, name: str) -> dict[str, Any] | None:
        """The report of a stage, if it has come to its end."""
        return read_json(self.stages, {}).get(name)

    def finish_stage(self, report: Mapping[str, Any]) -> None:
        """Notes that a stage has come to its end."""
        write_json(self.stages, {**read_json(self.stages, {}), report["name"]: dict(report)})

    def move_aside(self) -> None:
        """Moves what an older run has left into a folder beside this one."""
        # Only what a run leaves is moved: the folder may hold files of somebody else's.
        ours = (self.settings, self.stages, self.answers, self.checkpoints, self.metrics,
                self.groups, self.results, self.plots)  # fmt: skip
        kept = [entry for entry in ours if entry.exists()]
        if not kept:
            return
        besides = map(self.path.joinpath, "submission.ipynb report.html tensorboard wandb".split())
        kept += [entry for entry in besides if entry.exists()]
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.{number}")).exists():
            number += 1
        aside.mkdir()
        for entry in kept:
            shutil.move(entry, aside / entry.name)
        print(f"Older outputs are now in {aside.name}/.")


ATTACHED = pathlib.Path("/kaggle/input")  # where outputs of earlier sessions are, read-only
DEEPEST = 5  # folders down


def attached_run(settings: Mapping[str, Any], path: pathlib.Path) -> bool:
    """Copies the attached outputs of an unfinished run of these settings to `path`, if any are.

    Of several the one that was saved last.
    """
    found = []
    for name, folders, files in os.walk(ATTACHED):
        place = pathlib.Path(name)
        if len(place.relative_to(ATTACHED).parts) >= DEEPEST:
            folders.clear()
        unfinished = "run.json" in files and "results.json" not in files
        if unfinished and read_json(place / "run.json", None) == settings:
            found.append(place)
    if not found:
        return False
    saved = max(found, key=lambda place: max(x.stat().st_mtime for x in place.rglob("*")))
    # Contents alone: what is attached is read-only, and its copy must not be.
    shutil.copytree(saved, path, copy_function=shutil.copyfile, dirs_exist_ok=True,
                    ignore=shutil.ignore_patterns(".lock", "clock.json", "run.json"))  # fmt: skip
    for place in [path, *filter(pathlib.Path.is_dir, path.rglob("*"))]:
        place.chmod(0o755)
    write_json(path / "run.json", settings)  # last: without it, the copy is not whole
    print(f"An unfinished run is attached: {saved} is copied to {path}.")
    return True


def open_run_folder(run: Run) -> RunFolder:
    """The locked folder of a run: a new one, or that of the same run, unfinished.

    Hosts other than 0 get a folder of their own, for as long as they live, with what host 0 has
    written so far; the checkpoints alone are those of all.

    Raises:
      RuntimeError: another run holds it, or it is finished and was to be resumed; or a host does
        not see it.
      ValueError: the run to be resumed was made with another configuration; or a host has another.
    """
    folder = RunFolder(run.out)
    settings = gather(settings_of(run), "the settings")
    for host, others in enumerate(settings):
        if changed := differences(settings[0], others):
            raise ValueError(f"Host {host} has other settings than host 0: {', '.join(changed)}")
    folder.fingerprint = fingerprint(settings[0])
    folder.goes_on = lead(lambda: _take(folder, run), "the run's folder")
    require_shared(folder.checkpoints)
    return _copy_of(folder) if this_host() else folder


def _copy_of(folder: RunFolder) -> RunFolder:
    """A folder of this process's own, with the checkpoints of the one given."""
    own = tempfile.TemporaryDirectory(prefix="host-")
    copy = RunFolder(own.name)
    copy.own, copy.checkpoints = own, folder.checkpoints
    copy.fingerprint, copy.goes_on = folder.fingerprint, folder.goes_on
    if folder.goes_on:
        for entry in (folder.stages, folder.metrics):
            if entry.exists():
                shutil.copyfile(entry, copy.path / entry.name)
        shutil.copytree(folder.answers, copy.answers)
    for entry in (copy.plots, copy.answers):
        entry.mkdir(exist_ok=True)
    return copy


def _take(folder: RunFolder, run: Run) -> bool:
    """Locks the folder and makes it ready; does the run go on there?"""
    settings = settings_of(run)
    folder.lock()
    before = read_json(folder.settings, None)
    finished = folder.results.exists()  # it is written last
    try:
        if run.resume and finished:
            raise RuntimeError(
                f"The run in {folder.path} is finished: there is nothing to resume. Unset RESUME "
                "to start another one."
            )
        if run.resume is not False and before is None and attached_run(settings, folder.path):
            before = settings
        if run.resume is not False and before is not None and not finished:
            changed = differences(before, settings)
            if changed and run.resume:
                raise ValueError(
                    f"The run in {folder.path} was made with another configuration:\n  "
                    + "\n  ".join(changed)
                    + "\nResume it with its own, or unset RESUME to start anew."
                )
            folder.goes_on = not changed
    except (RuntimeError, ValueError):
        folder.release()
        raise
    if folder.goes_on:
        print(f"An unfinished run is in {folder.path.name}/. It goes on where it was saved.")
    else:
        folder.move_aside()
        if run.resume:
            print("There is nothing to resume: it starts from the beginning.")
        write_json(folder.settings, settings)
    for entry in (folder.checkpoints, folder.plots, folder.answers):
        entry.mkdir(exist_ok=True)
    return folder.goes_on


def require_space(folder: RunFolder, needed: int) -> None:
    """Raises OSError if the disk has less than `needed` bytes, before training begins."""
    free = shutil.disk_usage(folder.checkpoints).free
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"{folder.path} has {free / 1e6:,.0f} MB left and the checkpoints need "
            f"{needed / 1e6:,.0f} MB. Make room, or choose another disk with OUT (or --out)",
        )

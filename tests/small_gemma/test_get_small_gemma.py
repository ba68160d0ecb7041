"""The command: what it leaves, what it says where it cannot, and that it then leaves nothing."""

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

import get_small_gemma
import pytest
from small_gemma import cache, packages

from conftest import ROOT
from submission.bench.settings import host

PARTS = (b"GG", b"UF", b"of a", b"toy")


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Runs the command with packages that hold a toy; returns the exit code."""

    def install(folder, names=packages.PACKAGES):
        for i, content in enumerate(PARTS):
            (folder / f"part{i + 1}" / "data").mkdir(parents=True)
            (folder / f"part{i + 1}" / "data" / f"toy.gguf.part0{i}").write_bytes(content)
        (folder / "main" / "data").mkdir(parents=True)
        (folder / "main" / "data" / "GEMMA_TERMS.html").write_bytes(b"terms")

    def convert(gguf_file, folder):
        assert gguf_file.read_bytes() == b"".join(PARTS)
        (folder / "gemma3-270m").mkdir()
        (folder / "gemma3-270m" / "manifest").write_bytes(b"weights")
        (folder / "tokenizer.model").write_bytes(b"pieces")

    monkeypatch.setenv("MODEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(packages, "install", install)
    monkeypatch.setattr(
        packages.join, "__defaults__", (hashlib.sha256(b"GGUFof atoy").hexdigest(),)
    )
    monkeypatch.setattr(get_small_gemma, "convert", convert)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(*options):
        monkeypatch.setattr(sys, "argv", ["get_small_gemma.py", *options])
        return get_small_gemma.main()

    return run


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache" / "gemma3-270m"


def must_not_run(*arguments, **names):
    raise AssertionError("this was to be refused before")


def left(tmp_path):
    """What lies in the cache, locks aside."""
    found = (tmp_path / "cache").glob("*")
    return sorted(path.name for path in found if path.name != ".lock")


def test_the_folder_is_whole_says_its_origin_and_holds_the_terms(start, folder, capsys):
    assert start() == 0
    card = json.loads((folder / "card.json").read_text())
    assert set(card["files"]) == {"GEMMA_TERMS.html", "gemma3-270m/manifest", "tokenizer.model"}
    assert "Gemma Terms of Use" in card["licence"]
    assert packages.NAME in card["origin"]
    said = capsys.readouterr().out
    assert "Terms of Use" in said
    assert "ready, in" in said


def test_a_second_start_does_nothing_and_is_silent(start, monkeypatch, capsys):
    assert start() == 0
    capsys.readouterr()
    monkeypatch.setattr(packages, "install", must_not_run)
    assert start() == 0
    assert capsys.readouterr() == ("", "")


def test_packages_that_cannot_be_had_end_in_one_message(tmp_path):
    """The real pip, with no index to ask."""
    environment = {**os.environ, "MODEL_CACHE": str(tmp_path / "cache"), "PIP_NO_INDEX": "1"}
    done = subprocess.run(
        [sys.executable, "scripts/get_small_gemma.py"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("get_small_gemma.py: The packages of Gemma 3 270M")
    assert "could not be had: pip says 'ERROR: No matching distribution found" in line
    assert "PROFILE=tiny needs none" in line
    assert left(tmp_path) == []


def test_another_checksum_is_refused_and_nothing_is_kept(start, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(packages.join, "__defaults__", ("0" * 64,))
    monkeypatch.setattr(get_small_gemma, "convert", must_not_run)
    assert start() == 1
    said = capsys.readouterr().err
    assert f"not {'0' * 64}" in said
    assert "Nothing was kept" in said
    assert left(tmp_path) == []


def test_a_missing_part_is_named(tmp_path):
    with pytest.raises(get_small_gemma.GetError, match="four parts of a GGUF file; found: none"):
        packages.parts_in(tmp_path)


def test_a_break_in_the_middle_leaves_nothing(start, tmp_path, monkeypatch):
    def breaks(gguf_file, folder):
        (folder / "tokenizer.model").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(get_small_gemma, "convert", breaks)
    with pytest.raises(KeyboardInterrupt):
        start()
    assert left(tmp_path) == []


def test_what_a_killed_process_has_left_is_removed(start, tmp_path, capsys):
    (tmp_path / "cache" / f"{cache.DRAFT}x").mkdir(parents=True)
    assert start() == 0
    assert left(tmp_path) == ["gemma3-270m"]
    assert "left half-written" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["missing", "shorter"])
def test_a_folder_that_is_not_whole_is_made_again_and_says_why(start, folder, capsys, damage):
    assert start() == 0
    if damage == "missing":
        (folder / "tokenizer.model").unlink()
    else:
        (folder / "tokenizer.model").write_bytes(b"pie")
    capsys.readouterr()
    assert start() == 0
    why = "missing" if damage == "missing" else "3 bytes, not 6"
    assert (
        f"is made again, for it is not whole: tokenizer.model is {why}." in capsys.readouterr().out
    )
    assert (folder / "tokenizer.model").read_bytes() == b"pieces"


def test_a_folder_of_somebody_elses_is_not_touched(start, folder, capsys):
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("three years")
    assert start() == 1
    assert "not a folder that this script has made" in capsys.readouterr().err
    assert os.listdir(folder) == ["thesis.txt"]


def test_too_little_memory_is_said_before_anything_is_fetched(start, monkeypatch, capsys):
    monkeypatch.setattr(host, "free_memory", lambda: 1.5)
    monkeypatch.setattr(packages, "install", must_not_run)
    assert start() == 1
    assert "needs 3.5 GiB of free memory, and 1.5 GiB are free" in capsys.readouterr().err


def test_too_little_disk_is_said_before_anything_is_fetched(start, monkeypatch, capsys):
    usage = shutil.disk_usage("/")._replace(free=2 * 10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(packages, "install", must_not_run)
    assert start() == 1
    assert "has 0.2 GB left, and 1.5 GB are needed" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_to_is_named(start, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MODEL_CACHE", str(tmp_path / "file" / "cache"))
    assert start() == 1
    assert "cannot be written to" in capsys.readouterr().err


HOLD = """
import fcntl, sys, time
with open(sys.argv[1], "a") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print("held", flush=True)
    time.sleep(1)
"""


def test_two_processes_do_not_make_it_at_once(start, tmp_path, capsys):
    (tmp_path / "cache").mkdir()
    command = [sys.executable, "-c", HOLD, str(tmp_path / "cache" / ".lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        other.stdout.readline()
        assert start() == 0
        assert other.wait() == 0
    assert "waiting for it" in capsys.readouterr().out


def test_nothing_of_the_model_is_in_the_repository():
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("this is no git checkout")
    sizes = {name: (ROOT / name).stat().st_size for name in listed.stdout.split("\0")
             if name and (ROOT / name).is_file()}  # fmt: skip
    assert not [name for name in sizes if name.endswith(".gguf") or "270m/" in name]
    assert max(sizes.values()) < 5e6


def test_the_default_cache_lies_outside_of_the_repository(monkeypatch):
    monkeypatch.delenv("MODEL_CACHE", raising=False)
    assert not host.model_cache().is_relative_to(pathlib.Path(ROOT))

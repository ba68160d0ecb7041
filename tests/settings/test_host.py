"""Where models are kept, and what memory there is."""

import pathlib
from types import SimpleNamespace

import pytest

from conftest import ROOT
from submission.bench.settings import host
from submission.essay import profiles


@pytest.fixture
def machine(monkeypatch):
    """A machine with 20 GiB free, on which this process holds one."""
    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=2**30))
    free = SimpleNamespace(available=20 * 2**30)
    monkeypatch.setattr(host.psutil, "Process", lambda: process)
    monkeypatch.setattr(host.psutil, "virtual_memory", lambda: free)


def test_the_cache_is_the_users_and_can_be_moved(monkeypatch):
    monkeypatch.delenv("MODEL_CACHE", raising=False)
    monkeypatch.setenv("HOME", "/people/zoe")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert host.model_cache() == pathlib.Path("/people/zoe/.cache/gemma-show-your-work")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert host.model_cache() == pathlib.Path("/caches/gemma-show-your-work")
    monkeypatch.setenv("MODEL_CACHE", "~/models")
    assert host.model_cache() == pathlib.Path("/people/zoe/models")


def test_what_the_process_holds_is_its_to_use(machine, tmp_path):
    assert host.free_memory(tmp_path) == 21


@pytest.mark.parametrize(
    ("limit", "used", "stat", "cached"),
    [
        ("memory.max", "memory.current", "memory.stat", "file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat",
         "cache"),
    ],
)  # fmt: skip
def test_a_containers_limit_counts_and_its_cached_files_do_not(
    machine, tmp_path, limit, used, stat, cached
):
    (tmp_path / "memory").mkdir()
    (tmp_path / limit).write_text(f"{8 * 2**30}\n")
    (tmp_path / used).write_text(f"{5 * 2**30}\n")
    (tmp_path / stat).write_text(f"anon 1\n{cached} {3 * 2**30}\nmapped_{cached} 7\n")
    assert host.free_memory(tmp_path) == 8 - 5 + 3 + 1
    if limit == "memory.max":
        (tmp_path / limit).write_text("max\n")
        assert host.free_memory(tmp_path) == 21


def test_too_little_memory_is_said_with_both_numbers(monkeypatch):
    monkeypatch.setattr(host, "free_memory", lambda: 7.25)
    with pytest.raises(RuntimeError, match=r"profile small needs 12 GiB.*and 7\.2 GiB are free"):
        host.require_memory(12.0, "The profile small")
    host.require_memory(7.0, "A smaller one")


def test_a_profile_that_names_no_memory_does_not_look(monkeypatch):
    monkeypatch.setattr(host, "free_memory", lambda: 0.0)
    host.require_memory(profiles.TINY.host_gib, "The profile tiny")


def test_the_script_of_a_model_is_there():
    scripts = [stock.script for stock in profiles.STOCK_MODELS.values() if stock.script]
    assert scripts == ["scripts/get_small_gemma.py"]
    assert all((ROOT / script).exists() for script in scripts)

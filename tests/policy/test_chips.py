import subprocess
import sys

import jax
import pytest

from conftest import Clock
from submission.bench.policy import chips


@pytest.fixture
def busy(monkeypatch):
    """JAX where the chips are free after so many seconds; the clock, and how often it forgot."""

    def start(free_after, error=None):
        clock, forgotten = Clock(), []

        def default_backend():
            if clock.now < free_after:
                if error:
                    raise RuntimeError(error)
                return "cpu"
            return "tpu"

        monkeypatch.setattr(jax, "default_backend", default_backend)
        monkeypatch.setattr(jax.extend.backend, "clear_backends", lambda: forgotten.append(1))
        jax.config.update("jax_platforms", None)
        return clock, forgotten

    before = jax.config.jax_platforms
    yield start
    jax.config.update("jax_platforms", before)


@pytest.mark.parametrize("error", [None, "Unable to initialize backend 'tpu'"])
def test_chips_that_are_busy_for_half_a_minute_are_waited_for(busy, error):
    clock, forgotten = busy(30.0, error)
    assert chips.free_platform(True, clock=clock, sleep=clock.sleep) == "tpu"
    assert clock.now == 30.0
    assert len(forgotten) == 6


@pytest.mark.parametrize("error", [None, "the device is in use"])
def test_chips_that_stay_busy_stop_the_run_within_a_minute(busy, error):
    clock, _ = busy(1e9, error)
    with pytest.raises(RuntimeError, match=r"has a TPU, and after 60 s JAX cannot.*JAX_PLATFORMS"):
        chips.free_platform(True, clock=clock, sleep=clock.sleep)
    assert clock.now == 60.0


def test_without_a_tpu_and_where_the_cpu_was_asked_for_nothing_is_waited_for(busy):
    clock, _ = busy(1e9)
    assert chips.free_platform(False, clock=clock, sleep=clock.sleep) == "cpu"
    jax.config.update("jax_platforms", "cpu")
    assert chips.free_platform(True, clock=clock, sleep=clock.sleep) == "cpu"
    assert clock.now == 0.0


def test_jax_finds_its_backend_again_after_it_was_told_to_forget():
    code = (
        "import jax, jax.extend; print(jax.default_backend());"
        "jax.extend.backend.clear_backends(); print(jax.default_backend())"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["cpu", "cpu"]

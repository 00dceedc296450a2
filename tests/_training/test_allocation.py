"""In processes of their own: one that has run out of memory once allocates from another arena."""

import os
import subprocess
import sys
import threading
from platform import libc_ver

import pytest

from sklearn_micranet._training import _allocation
from sklearn_micranet._training._allocation import freed_memory_kept

with_glibc = pytest.mark.skipif(
    libc_ver()[0] != "glibc", reason="only glibc is told to keep memory"
)

HEAD = """
import threading
from resource import RUSAGE_SELF, getrusage
import torch
from sklearn_micranet._training._allocation import freed_memory_kept

N_MIB = 96  # more than glibc ever keeps by itself

def n_page_faults():
    before = getrusage(RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(N_MIB * 2**18)
    return getrusage(RUSAGE_SELF).ru_minflt - before

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

outside = n_page_faults()
"""


def run(code, **environment):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    process = subprocess.run(
        [sys.executable, "-c", HEAD + code],
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode == 0, process.stderr


@with_glibc
def test_a_freed_tensor_is_the_next_ones_memory():
    run("""
with freed_memory_kept():
    n_page_faults()
    assert n_page_faults() < outside / 3
""")


@with_glibc
def test_what_was_kept_goes_back_to_the_system():
    run("""
try:
    with freed_memory_kept():
        tensors = [torch.ones(N_MIB * 2**18) for _ in range(10)]
        del tensors
        kept = resident()
        raise RuntimeError
except RuntimeError:
    pass
assert kept - resident() > 8 * N_MIB * 2**20
""")


@with_glibc
@pytest.mark.parametrize(
    "environment",
    [
        {"SKLEARN_MICRANET_KEEP_FREED_MEMORY": "0"},
        {"MALLOC_TRIM_THRESHOLD_": "67108864"},
        {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=67108864"},
    ],
)
def test_it_can_be_switched_off(environment):
    run(
        """
with freed_memory_kept():
    n_page_faults()
    assert n_page_faults() > outside / 2
""",
        **environment,
    )


def test_each_entry_is_left_once(monkeypatch):
    calls = []

    class Libc:
        def mallopt(self, parameter, value):
            calls.append((parameter, value))

        def malloc_trim(self, pad):
            calls.append(pad)

    monkeypatch.setattr(_allocation, "_glibc", Libc)
    monkeypatch.setattr(_allocation, "_is_set_from_outside", lambda: False)
    inside = threading.Barrier(4)

    def enter_and_leave():
        with freed_memory_kept():
            inside.wait()

    threads = [threading.Thread(target=enter_and_leave) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [value for _, value in calls[:2]] == [_allocation._NEVER] * 2
    assert len(calls) == 5  # set once, and set back once
    assert _allocation._n_inside == 0


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_nothing_happens_without_glibc(monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform)
    _allocation._glibc.cache_clear()
    with freed_memory_kept():
        assert _allocation._glibc() is None
    _allocation._glibc.cache_clear()

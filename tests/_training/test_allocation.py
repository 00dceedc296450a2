import sys
from platform import libc_ver

import pytest
import torch

from sklearn_micranet._training import _allocation
from sklearn_micranet._training._allocation import freed_memory_kept

N_MIB = 64  # more than glibc ever keeps by itself
with_glibc = pytest.mark.skipif(
    libc_ver()[0] != "glibc", reason="only glibc is told to keep memory"
)


def n_page_faults():
    from resource import RUSAGE_SELF, getrusage  # not on Windows

    before = getrusage(RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(N_MIB * 2**18)
    return getrusage(RUSAGE_SELF).ru_minflt - before


@with_glibc
def test_a_freed_tensor_is_the_next_ones_memory():
    outside = n_page_faults()
    with freed_memory_kept():
        n_page_faults()
        inside = n_page_faults()
    assert inside < outside / 3


@with_glibc
def test_what_was_kept_goes_back_to_the_system():
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    with freed_memory_kept():
        tensors = [torch.ones(N_MIB * 2**18) for _ in range(10)]
        del tensors
        kept = resident()
    assert kept - resident() > 8 * N_MIB * 2**20


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_nothing_happens_without_glibc(monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform)
    _allocation._glibc.cache_clear()
    with freed_memory_kept():
        assert _allocation._glibc() is None
    _allocation._glibc.cache_clear()

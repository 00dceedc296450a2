"""Random numbers and devices."""

import os
from contextlib import contextmanager
from numbers import Integral
from threading import RLock

import torch
from sklearn.utils import check_random_state

# Initial weights, dropout and others draw from torch's global generators, which all threads share.
_lock = RLock()


def _new_lock():
    global _lock
    _lock = RLock()  # another thread, which a child process lacks, may have held the old one


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)


def draw_seed(random_state):
    """Return the seed that `random_state` is or, if it is not an int, draw one from it."""
    if isinstance(random_state, Integral):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31))


@contextmanager
def seeded(random_state, device, n_threads=None):
    """Seed torch from a RandomState, and leave its global generators as they were.

    One thread at a time: others wait, so that trainings in threads end as one after the other.

    Parameters
    ----------
    random_state : RandomState instance
    device : torch.device
    n_threads : int, default=None
        Number of CPU threads for as long; None leaves it as it is.
    """
    devices = [device] if device.type == "cuda" else []
    with _lock, torch.random.fork_rng(devices):
        n_threads_before = torch.get_num_threads()
        seed = random_state.randint(2**31)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed every GPU
        if devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        torch.set_num_threads(n_threads or n_threads_before)
        try:
            yield
        finally:
            torch.set_num_threads(n_threads_before)


def resolve_device(device):
    """Return the torch.device that "auto" or a device name stands for."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)

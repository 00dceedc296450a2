"""What the benchmarks share: contenders timed in turns, and claims that can fail."""

import platform
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from multiprocessing import get_context
from statistics import median
from time import perf_counter

import numpy as np
import torch

from sklearn_micranet import MicraNetClassifier

N_CLASSES = 10
SIZE = 256  # px


def print_machine(*packages, device="cpu"):
    """Print the device and the versions that the figures belong to."""
    name = torch.cuda.get_device_name() if torch.device(device).type == "cuda" else "CPU"
    versions = ", ".join(f"{p} {version(p)}" for p in ("torch", "numpy", *packages))
    print(f"{platform.machine()}, {name}, {torch.get_num_threads()} threads; {versions}")


def side_by_side(contenders, n_rounds=5, *, warm_up=True):
    """Time contenders in turns, so that all meet the same noise.

    Parameters
    ----------
    contenders : dict of str to callable
    n_rounds : int
    warm_up : bool
        Run each once before.

    Returns
    -------
    seconds : dict of str to list of n_rounds float
    """
    seconds = {name: [] for name in contenders}
    if warm_up:
        for run in contenders.values():
            run()
    for _ in range(n_rounds):
        for name, run in contenders.items():
            start = perf_counter()
            run()
            seconds[name].append(perf_counter() - start)
    for name, runs in seconds.items():
        print(f"{name:24} median {median(runs):8.3f} s ({min(runs):.3f} to {max(runs):.3f})")
    return seconds


@contextmanager
def in_processes(prepare, names):
    """Give each contender a process of its own.

    Memory that one has freed, or returned to the system, would change the time of the next.

    Parameters
    ----------
    prepare : callable
        Called with a name, in the process, it returns what to run there. It can be pickled.
    names : iterable of str

    Yields
    ------
    contenders : dict of str to callable
    """
    with ExitStack() as stack:
        contenders = {}
        for name in names:
            executor = ProcessPoolExecutor(
                1, get_context("spawn"), initializer=_prepare, initargs=(prepare, name)
            )
            stack.enter_context(executor)
            contenders[name] = lambda executor=executor: executor.submit(_run).result()
        yield contenders


def _prepare(prepare, name):
    global run
    run = prepare(name)


def _run():
    run()  # what it returns stays in the process


def ratio(seconds, one, other):
    """Return the median over the rounds of how many times as long `one` takes as `other`."""
    return median(a / b for a, b in zip(seconds[one], seconds[other], strict=True))


def verdict(claims):
    """Print which claims hold; return the exit code, 0 if all do."""
    for claim, holds in claims.items():
        print(f"{'holds' if holds else 'FAILS'}: {claim}")
    return 0 if all(claims.values()) else 1


def classifier_that_finds(present, n_classes=N_CLASSES, **parameters):
    """Return a default network that predicts the classes `present` in every image."""
    rng = np.random.default_rng(0)
    images, labels = rng.random((8, 64, 64), dtype=np.float32), rng.integers(0, 2, (8, n_classes))
    classifier = MicraNetClassifier(
        max_epochs=1, validation_fraction=0, random_state=0, **parameters
    )
    return classifier.fit(images, labels).set_params(
        threshold=[0.0 if k in present else 1.0 for k in range(n_classes)]
    )

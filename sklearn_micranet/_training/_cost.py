"""What a training will cost: told before it takes long, and refused before memory runs out."""

import re
import time
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from skorch.callbacks import Callback

from sklearn_micranet._stack._warnings import warn_user

from ._batches import n_batches

GIB = 2**30
LONG = 300  # seconds of a whole training, from which on it is told
_N_MEASURED = 2  # training batches, after the first, which is slower than others
_NO_LIMIT = 2**60  # bytes, from which on a limit of a control group is none
_CGROUPS = (  # files that hold what a process may use, and what it uses
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)


class TrainingCost(Callback):
    """Warn of a training that will take long, with what its first batches took.

    Parameters
    ----------
    n_epochs : int
        At most.
    n_batches : int
        Training batches per epoch.
    clock : callable, default=time.perf_counter
    """

    def __init__(self, n_epochs, n_batches, clock=time.perf_counter):
        self.n_epochs = n_epochs
        self.n_batches = n_batches
        self.clock = clock

    def on_train_begin(self, net, X=None, **kwargs):
        self.times_ = []
        self.n_bytes_ = step_bytes(net.module_, *_largest_step(net, X))
        self.memory_ = memory_in_use(torch.device(net.device))

    def on_batch_end(self, net, training=False, **kwargs):
        if not training or self.times_ is None:
            return
        self.times_.append(self.clock())
        if len(self.times_) <= _N_MEASURED:
            return
        seconds = (self.times_[-1] - self.times_[0]) / _N_MEASURED * self.n_batches
        self.times_ = None  # once is enough
        n_bytes = measured_bytes(self.memory_, memory_in_use(torch.device(net.device)))
        message = cost_message(seconds, self.n_epochs, n_bytes or self.n_bytes_)
        if message is not None:
            warn_user(message)


def cost_message(seconds, n_epochs, n_bytes):
    """Return what to say of a training, None if it does not take long.

    Parameters
    ----------
    seconds : float
        Of an epoch.
    n_epochs : int
        At most.
    n_bytes : int
        Of a step.

    Examples
    --------
    >>> from sklearn_micranet._training._cost import cost_message
    >>> cost_message(60, 100, 2**31)[:63]
    'An epoch takes about 1.0 min, 100 epochs (max_epochs) about 1.7'
    >>> cost_message(0.5, 100, 2**31) is None
    True
    """
    if seconds * n_epochs < LONG:
        return None
    return (
        f"An epoch takes about {_duration(seconds)}, {n_epochs} epochs (max_epochs) about "
        f"{_duration(seconds * n_epochs)}, unless early stopping ends them; a step needs about "
        f"{_number(n_bytes / GIB)} GiB of memory. Smaller images or crops, fewer n_filters, or a "
        "CUDA device take less time; checkpoint_dir keeps what was done."
    )


def _duration(seconds):
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{_number(seconds)} s"


def _number(value):
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def step_bytes(network, shape, n_images):
    """Estimate the memory that a training step takes, from the shapes that pass the network.

    What each layer returns is kept for the backward pass, where two gradients of the largest
    are alive at a time; of each weight there are the gradient and the two averages of Adam.

    Parameters
    ----------
    network : torch.nn.Module
    shape : tuple of int
        Of a batch of images, (any number, n_channels, height, width).
    n_images : int
    """
    with torch.device("meta"):  # takes no memory
        copy = deepcopy(network).to("meta")
        images = torch.empty(1, *shape[1:], dtype=torch.float32)
    sizes = []

    def count(module, args, result):
        if not getattr(module, "inplace", False):
            sizes.append(result.numel() * 4)

    for module in copy.modules():
        if not list(module.children()):
            module.register_forward_hook(count)
    with torch.no_grad():
        copy.eval()(images)  # batch normalisation cannot train on one value
    of_image = images.numel() * 4 + sum(sizes) + 2 * max(sizes)
    return n_images * of_image + 4 * sum(4 * p.numel() for p in network.parameters())


def check_fits(net, data):
    """Raise a ValueError if the steps of a net do not fit in the memory of its device.

    Parameters
    ----------
    net : skorch.NeuralNet
        Initialised.
    data : LabelledImages or MaskedImages
    """
    available = available_memory(torch.device(net.device))
    check_step(net.module_, *_largest_step(net, data), available)


def _largest_step(net, data):
    """Return the shape of the images, and how many there are in the largest batch."""
    images, _ = data[np.array([0])]
    return images.shape, -(-len(data) // n_batches(len(data), net.batch_size))


def check_step(network, shape, n_images, available):
    """Raise a ValueError if a step will not fit in memory.

    Parameters
    ----------
    network, shape, n_images
        As of `step_bytes`.
    available : int or None
        Bytes that are free; None if that is not known.
    """
    needed = step_bytes(network, shape, n_images)
    if available is None or needed <= available:
        return
    of_none = step_bytes(network, shape, 0)
    fitting = int((available - of_none) // (step_bytes(network, shape, 1) - of_none))
    advice = f"Set batch_size={fitting}" if fitting > 1 else "Cut them into crops"
    raise ValueError(
        f"A training step must fit in memory: {available / GIB:.1f} GiB are free. Got {n_images} "
        f"images of {shape[2]} x {shape[3]} px instead, which need about {needed / GIB:.1f} GiB. "
        f"{advice}, or take fewer n_filters."
    )


def measured_bytes(before, after):
    """Return how far the memory of the process, or on its device, rose above what it was.

    None if nothing says so, or if more was used at an earlier time: then the highest is not of
    these steps.

    Parameters
    ----------
    before, after : (int, int) or None
        As of `memory_in_use`.
    """
    if before is None or after is None or after[1] <= before[1]:
        return None
    return after[1] - before[0]


def memory_in_use(device, root="/"):
    """Return the bytes in use, and the most that ever were, None if nothing says so.

    Parameters
    ----------
    device, root
        As of `available_memory`.
    """
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)
    found = dict(
        re.findall(r"^(VmRSS|VmHWM):\s+(\d+)", _read(Path(root) / "proc/self/status") or "", re.M)
    )
    return (int(found["VmRSS"]) * 1024, int(found["VmHWM"]) * 1024) if len(found) == 2 else None


def available_memory(device, root="/"):
    """Return the bytes that are free on a device, None if nothing says so.

    Parameters
    ----------
    device : torch.device
    root : str or path-like
        Where the files of Linux are that tell of the memory.
    """
    if device.type == "cuda":
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserved
    free = []
    meminfo = _read(Path(root) / "proc/meminfo")
    for line in (meminfo or "").splitlines():
        if line.startswith("MemAvailable:"):
            free.append(int(line.split()[1]) * 1024)
    for limit, used in _CGROUPS:
        limit, used = (_read(Path(root) / "sys/fs/cgroup" / name) for name in (limit, used))
        if limit and used and limit.strip().isdigit() and int(limit) < _NO_LIMIT:
            free.append(max(0, int(limit) - int(used)))
    return min(free) if free else None


def _read(path):
    try:
        return path.read_text()
    except OSError:
        return None

"""What a training costs is told before it takes long, and refused before memory runs out."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError

from sklearn_micranet import MicraNetClassifier, UNetSegmenter
from sklearn_micranet._network._module import MicraNet
from sklearn_micranet._training import _cost
from sklearn_micranet._training._cost import (
    available_memory,
    check_step,
    cost_message,
    measured_bytes,
    memory_in_use,
    step_bytes,
)

CPU = torch.device("cpu")
IMAGES = np.random.default_rng(0).random((12, 16, 16), dtype=np.float32)
LABELS = np.arange(12) % 2
IMAGES[1::2] += 1
SMALL = {"n_filters": 2, "max_epochs": 3, "batch_size": 2, "validation_fraction": 0}
FITS = {
    "classifier": lambda **p: MicraNetClassifier(**SMALL | p, random_state=0).fit(IMAGES, LABELS),
    "U-Net": lambda **p: UNetSegmenter(**SMALL | p, n_poolings=1, random_state=0).fit(
        IMAGES, IMAGES[:, None] > 1
    ),
}


def write(folder, **files):
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_the_memory_of_a_step_by_hand():
    """Of one filter, one image of 8 x 8 px and float32.

    Two convolutions and two normalisations at each of the 8 layers, whose results have 64, 64,
    2 x 16, 2 x 16, 4 x 4, 4 x 4, 8 and 8 values for the four depths, three poolings of 16, 8 and 4,
    the global maxima, the dropped ones, and the logit.
    """
    network = MicraNet(1, 1, n_filters=1)
    layers = 2 * 2 * (64 + 2 * 16 + 4 * 4 + 8)
    pooled = 16 + 2 * 4 + 4 * 1 + 8 + 8 + 1
    weights = sum(p.numel() for p in network.parameters())
    of_image = 4 * (64 + layers + pooled + 2 * 64)
    assert step_bytes(network, (1, 1, 8, 8), 0) == 16 * weights
    assert step_bytes(network, (5, 1, 8, 8), 3) == 3 * of_image + 16 * weights


def test_a_step_that_does_not_fit_is_refused_with_the_batch_that_fits():
    network = MicraNet(1, 1, n_filters=4)
    shape, fixed = (1, 1, 64, 64), step_bytes(network, (1, 1, 64, 64), 0)
    of_image = step_bytes(network, shape, 1) - fixed
    check_step(network, shape, 8, fixed + 8 * of_image)
    check_step(network, shape, 8, None)
    with pytest.raises(ValueError, match=r"Got 8 images of 64 x 64 px .* Set batch_size=7,"):
        check_step(network, shape, 8, fixed + 8 * of_image - 1)
    with pytest.raises(ValueError, match=r"must fit in memory.* Cut them into crops"):
        check_step(network, shape, 8, fixed + of_image)


@pytest.mark.parametrize("name", FITS)
def test_fit_refuses_before_the_step_and_is_unfitted(name, monkeypatch):
    monkeypatch.setattr(_cost, "available_memory", lambda device: 10_000)
    monkeypatch.setattr(torch.optim.Adam, "step", None)  # it would be an error to come so far
    with pytest.raises(ValueError, match=r"A training step must fit in memory: 0\.0 GiB are free"):
        FITS[name]()


def test_partial_fit_refuses_before_the_step_and_keeps_the_weights(monkeypatch):
    labels = np.arange(4) % 2
    classifier = MicraNetClassifier(n_filters=1, random_state=0)
    fitted = MicraNetClassifier(n_filters=1, random_state=0).partial_fit(IMAGES[:4], labels, [0, 1])
    before = fitted.decision_function(IMAGES)
    monkeypatch.setattr(_cost, "available_memory", lambda device: 10_000)
    for each in (classifier, fitted):
        with pytest.raises(ValueError, match=r"A training step must fit in memory"):
            each.partial_fit(IMAGES[:4], labels, [0, 1])
    with pytest.raises(NotFittedError, match="is not fitted yet"):
        classifier.predict(IMAGES)
    np.testing.assert_array_equal(fitted.decision_function(IMAGES), before)


def test_free_memory_is_what_the_machine_and_the_control_group_leave(tmp_path):
    assert available_memory(CPU, tmp_path) is None
    write(tmp_path, proc__meminfo="MemTotal:  900 kB\nMemAvailable:   500 kB\n")
    assert available_memory(CPU, tmp_path) == 500 * 1024
    group = {"sys__fs__cgroup__memory_dot_current": "100000"}
    write(tmp_path, sys__fs__cgroup__memory_dot_max="max\n", **group)
    assert available_memory(CPU, tmp_path) == 500 * 1024
    write(tmp_path, sys__fs__cgroup__memory_dot_max="300000\n")
    assert available_memory(CPU, tmp_path) == 200_000
    write(tmp_path, sys__fs__cgroup__memory_dot_max="90000\n")
    assert available_memory(CPU, tmp_path) == 0


def test_free_memory_in_the_first_version_of_control_groups(tmp_path):
    folder = tmp_path / "sys/fs/cgroup/memory"
    folder.mkdir(parents=True)
    (folder / "memory.usage_in_bytes").write_text("7")
    (folder / "memory.limit_in_bytes").write_text("9223372036854771712")  # none
    assert available_memory(CPU, tmp_path) is None
    (folder / "memory.limit_in_bytes").write_text("10")
    assert available_memory(CPU, tmp_path) == 3


def test_the_memory_of_steps_is_read_where_the_machine_tells_it(tmp_path):
    assert memory_in_use(CPU, tmp_path) is None
    write(tmp_path, proc__self__status="Name:\tpython\nVmHWM:\t  90 kB\nVmRSS:\t  70 kB\n")
    assert memory_in_use(CPU, tmp_path) == (70 * 1024, 90 * 1024)


def test_measured_memory_is_the_rise_unless_more_was_used_before():
    assert measured_bytes((70, 90), (75, 100)) == 30
    assert measured_bytes((70, 90), (75, 90)) is None
    assert measured_bytes(None, None) is None


@pytest.mark.parametrize(("after", "gib"), [((3, 7), "5.0"), ((3, 4), "0.0015")])
def test_the_memory_told_is_measured_or_else_estimated(after, gib, monkeypatch):
    """Two GiB in use and four at most before the first step; seven at most after three of them."""
    in_use = iter([(2 * 2**30, 4 * 2**30), tuple(2**30 * n for n in after)])
    monkeypatch.setattr(_cost, "memory_in_use", lambda device: next(in_use))
    monkeypatch.setattr(_cost, "step_bytes", lambda *args: 1_610_613)  # 0.0015 GiB
    monkeypatch.setattr(_cost, "LONG", 0)
    with pytest.warns(UserWarning, match=f"a step needs about {gib} GiB"):
        FITS["classifier"]()


def test_what_is_said_of_a_long_training():
    assert cost_message(2.99, 100, 2**30) is None
    message = cost_message(90, 100, 3 * 2**29)
    assert "An epoch takes about 1.5 min, 100 epochs (max_epochs) about 2.5 h," in message
    assert "a step needs about 1.5 GiB" in message
    small = cost_message(0.04, 100_000, 2**25)
    assert "An epoch takes about 0.04 s, 100000 epochs (max_epochs) about 1.1 h," in small
    assert "a step needs about 0.031 GiB" in small


@pytest.mark.parametrize("name", FITS)
@pytest.mark.parametrize(("seconds", "is_long"), [(15.0, False), (20.0, True)])
def test_a_long_training_says_so_once_and_at_the_line_of_the_user(
    name, seconds, is_long, monkeypatch
):
    """Six batches of 15 s in each of 3 epochs are 270 s, of 20 s they are 360 s."""
    times = iter(seconds * np.arange(100.0))
    initialise = _cost.TrainingCost.__init__

    def with_clock(self, *args):
        initialise(self, *args, clock=lambda: next(times))

    monkeypatch.setattr(_cost.TrainingCost, "__init__", with_clock)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        FITS[name]()
    told = [w for w in caught if "An epoch takes about" in str(w.message)]
    assert len(told) == is_long
    if is_long:
        assert told[0].filename == __file__
        assert "about 2.0 min, 3 epochs (max_epochs) about 6.0 min" in str(told[0].message)

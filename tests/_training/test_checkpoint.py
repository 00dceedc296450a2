import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from copy import deepcopy
from functools import partial
from pathlib import Path

import h5py
import joblib
import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import (
    Callback,
    EarlyStopping,
    EpochScoring,
    Freezer,
    GradientNormClipping,
    LRScheduler,
    Unfreezer,
)
from torch.optim.lr_scheduler import StepLR
from watched import Watched

from sklearn_micranet import MicraNetClassifier, MicraNetEnsemble
from sklearn_micranet._network._module import MicraNet
from sklearn_micranet._network._weights import read_tensors
from sklearn_micranet._training import _augmentation, _checkpoint, _schedule
from sklearn_micranet._training._augmentation import make_augmenter
from sklearn_micranet._training._checkpoint import training_key

N, N_EPOCHS = 12, 4
LABELS = np.arange(N) % 3 % 2
IMAGES = np.random.default_rng(0).random((N, 8, 8)) + LABELS[:, None, None]


@pytest.fixture(autouse=True)
def patience_counts_epochs(monkeypatch):
    monkeypatch.setattr(_schedule, "STEPS_OF_AN_EPOCH", 1)


def small(**parameters):
    defaults = {"n_filters": 2, "max_epochs": N_EPOCHS, "batch_size": 4, "random_state": 0}
    return MicraNetClassifier(**(defaults | {"validation_fraction": 0.25} | parameters))


def weights(classifier):
    return {name: tensor.clone() for name, tensor in classifier.module_.state_dict().items()}


def losses(classifier):
    return [{k: v for k, v in row.items() if k != "dur"} for row in classifier.history_]


def assert_same_training(classifier, expected):
    """Compare bit for bit, and once more after another epoch: the optimiser is part of it."""
    assert losses(classifier) == losses(expected)
    for _ in range(2):
        others = weights(expected)
        for name, tensor in weights(classifier).items():
            assert torch.equal(tensor, others[name]), name
        for either in (classifier, expected):
            either.partial_fit(IMAGES, LABELS)


class Stop(Watched):
    """Count the epochs, and raise an error at an event of one of them."""

    def __init__(self, epoch=None, event="on_batch_end", error=ZeroDivisionError, losses=None):
        self.epoch = epoch
        self.event = event
        self.error = error
        self.losses = losses  # take the place of the validation losses, epoch by epoch
        self.n_epochs = 0
        self.n_batches = 0

    def get_params(self, deep=True):
        return {}  # wherever it stops, it is the same training

    def notify(self, event, net, training=None):
        self.n_epochs += event == "on_epoch_end"
        self.n_batches += event == "on_batch_end"
        if self.losses and event == "on_batch_end" and not training:
            net.history.record_batch("valid_loss", self.losses[len(net.history) - 1])
        is_reached = (len(net.history), event) == (self.epoch, self.event)
        is_mid_epoch = training and len(net.history[-1, "batches"]) == 2
        if is_reached and (is_mid_epoch or event != "on_batch_end"):
            raise self.error

    def on_epoch_begin(self, net, **kwargs):
        self.notify("on_epoch_begin", net)

    def on_batch_end(self, net, training, **kwargs):
        self.notify("on_batch_end", net, training)

    def on_epoch_end(self, net, **kwargs):
        self.notify("on_epoch_end", net)

    def on_train_end(self, net, **kwargs):
        self.notify("on_train_end", net)


def fit_interrupted(make, stop, **data):
    """Fit until `stop` raises its error."""
    classifier = make().set_params(callbacks=[stop])
    with pytest.raises(stop.error):
        fit(classifier, **data)
    return classifier


def fit(classifier, **data):
    X, y = data.pop("X", IMAGES), data.pop("y", LABELS)
    return classifier.fit(X, y, **data)


# --- a resumed training is an uninterrupted one -------------------------------------------------

TRAININGS = {
    "plateau": {"lr_schedule": "plateau", "patience": 0, "lr": 0.05},
    "cosine": {"lr_schedule": "cosine"},
    "constant": {"lr_schedule": "constant"},
    "negatives_per_positive": {"negatives_per_positive": 0.5},
    "augmentation": {"augmentation": "microscopy"},
    "dropout": {"dropout": 0.9},
    "class_weight": {"class_weight": {1: 3.0}},
    "training loss": {"validation_fraction": 0},
    "bfloat16": {"precision": "bfloat16"},
    "early stopping off": {"early_stopping": False},
    "sample_weight": {"sample_weight": np.arange(N) % 4},
    "validation images": {"X_val": IMAGES[:6] + 0.1, "y_val": LABELS[:6]},
    "fine-tuning": {"fine_tune_depth": 1},
    "flattened": {"X": IMAGES.reshape(N, 64), "image_shape": (4, 16)},
}


@pytest.mark.parametrize("name", TRAININGS)
def test_a_resumed_training_equals_an_uninterrupted_one(name, tmp_path):
    options = dict(TRAININGS[name])
    data = {k: options.pop(k) for k in ("X", "X_val", "y_val", "sample_weight") if k in options}

    def make(**parameters):
        return small(**options, **parameters)

    def make_kept():
        return make(checkpoint_dir=tmp_path)

    # The second interruption is of a training that was resumed.
    for epoch in (2, 3):
        stop = Stop(epoch)
        fit_interrupted(make_kept, stop, **data)
        assert stop.n_epochs == 1
    stop = Stop()
    resumed = fit(make_kept().set_params(callbacks=[stop]), **data)
    assert stop.n_epochs == N_EPOCHS - 2
    assert len(os.listdir(tmp_path)) == 1
    expected = fit(make(), **data)
    assert losses(resumed) == losses(expected)
    for n, tensor in weights(resumed).items():
        assert torch.equal(tensor, weights(expected)[n]), n


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
@pytest.mark.parametrize(
    ("event", "n_left"),
    # A checkpoint is written behind the user's callbacks of the next epoch's begin.
    [("on_epoch_begin", 3), ("on_batch_end", 2), ("on_epoch_end", 2)],
)
def test_resumes_wherever_an_error_came(event, n_left, error, tmp_path):
    fit_interrupted(lambda: small(checkpoint_dir=tmp_path), Stop(3, event, error))
    stop = Stop()
    resumed = fit(small(checkpoint_dir=tmp_path, callbacks=[stop]))
    assert stop.n_epochs == n_left
    assert_same_training(resumed, fit(small()))


def test_resumes_from_an_error_at_the_end(tmp_path):
    fit_interrupted(lambda: small(checkpoint_dir=tmp_path), Stop(N_EPOCHS, "on_train_end"))
    stop = Stop()
    resumed = fit(small(checkpoint_dir=tmp_path, callbacks=[stop]))
    assert stop.n_epochs == 1
    assert_same_training(resumed, fit(small()))


@pytest.mark.parametrize(
    ("epoch", "losses_of_epochs", "n_epochs", "best"),
    [
        (4, [3, 1, 2, 2, 2, 0, 0, 0], 5, 2),  # the best and two misses before the interruption
        (2, [3, 1, 2, 2, 2, 0, 0, 0], 5, 2),  # all after it
        (5, [3, 1, 2, 0, 2, 2, 2, 0], 7, 4),  # misses that an improvement has wiped out
        (8, [8, 7, 6, 5, 4, 3, 2, 9], 8, 7),  # does not stop early, returns to the best
    ],
)
def test_early_stopping_across_an_interruption(epoch, losses_of_epochs, n_epochs, best, tmp_path):
    parameters = {"max_epochs": 8, "n_iter_no_change": 3}

    def make(**more):
        return small(**parameters, **more)

    stop = Stop(epoch, error=KeyboardInterrupt, losses=losses_of_epochs)
    fit_interrupted(lambda: make(checkpoint_dir=tmp_path), stop)
    last, uninterrupted = (Stop(losses=losses_of_epochs) for _ in range(2))
    resumed = fit(make(checkpoint_dir=tmp_path, callbacks=[last]))
    assert len(resumed.history_) == n_epochs
    assert last.n_epochs == n_epochs - epoch + 1
    at_best = fit(small(max_epochs=best, early_stopping=False))
    for name, tensor in weights(resumed).items():
        assert torch.equal(tensor, weights(at_best)[name]), name
    assert_same_training(resumed, fit(make(callbacks=[uninterrupted])))


def test_the_plateau_schedule_counts_across_an_interruption(tmp_path):
    parameters = {"patience": 1, "lr": 1e-2, "max_epochs": 5}
    plateau = [1.0] * 5  # epochs 2 and 3 do not improve: the rate falls after 3 and after 5
    fit_interrupted(lambda: small(checkpoint_dir=tmp_path, **parameters), Stop(3, losses=plateau))
    last = Stop(losses=plateau)
    resumed = fit(small(checkpoint_dir=tmp_path, callbacks=[last], **parameters))
    np.testing.assert_allclose(resumed.history_[:, "event_lr"], [1e-2] * 3 + [1e-3] * 2)
    assert last.n_epochs == 3


@pytest.mark.parametrize("kind", [int, np.random.RandomState, None])
def test_any_random_state_is_resumed(kind, tmp_path):
    def random_state():
        return kind and kind(7)

    np.random.seed(1)
    expected = fit(small(random_state=random_state()))
    np.random.seed(1)
    fit_interrupted(lambda: small(random_state=random_state(), checkpoint_dir=tmp_path), Stop(3))
    np.random.seed(2)  # None: what counts is the seed in the file
    resumed = fit(small(random_state=random_state(), checkpoint_dir=tmp_path, callbacks=[Stop()]))
    # Without a seed the finished training is not kept: the next one is to be another.
    assert len(os.listdir(tmp_path)) == (0 if kind is None else 1)
    assert_same_training(resumed, expected)


def test_without_a_seed_a_finished_training_is_never_returned(tmp_path):
    fits = [fit(small(random_state=None, checkpoint_dir=tmp_path)) for _ in range(3)]
    last_losses = [classifier.history_[-1, "train_loss"] for classifier in fits]
    assert len(set(last_losses)) == 3


def test_ctrl_c_leaves_a_fitted_classifier_and_a_checkpoint_of_the_last_epoch(tmp_path):
    class CtrlC(Stop):
        def notify(self, event, net, training=None):
            if event == "on_batch_end" and len(net.history) == self.epoch:
                signal.raise_signal(signal.SIGINT)

    losses_of_epochs = [3, 1, 2, 2, 2]  # the best is not the last
    # A process started in the background ignores Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(small(checkpoint_dir=tmp_path, callbacks=[CtrlC(4)]))
    finally:
        signal.signal(signal.SIGINT, before)
    stop = Stop(4, error=KeyboardInterrupt, losses=losses_of_epochs)
    interrupted = fit_interrupted(lambda: small(checkpoint_dir=tmp_path / "other"), stop)
    at_best = fit(small(max_epochs=2, early_stopping=False))
    assert np.array_equal(interrupted.predict_proba(IMAGES), at_best.predict_proba(IMAGES))
    resumed = fit(small(checkpoint_dir=tmp_path, callbacks=[CtrlC()]))
    assert len(os.listdir(tmp_path)) == 2  # with the folder "other"
    assert_same_training(resumed, fit(small()))


# --- kill -9 ------------------------------------------------------------------------------------

TRAIN_AND_DIE = """
import os, signal, sys
import joblib, torch
from skorch import NeuralNet

torch.set_num_threads(1)
classifier, X, y = joblib.load(sys.argv[1])
epoch, where = int(sys.argv[2]), sys.argv[3]
now, notify, fsync = None, NeuralNet.notify, os.fsync

def notify_and_die(net, event, **kwargs):
    global now
    now = len(net.history) + (event == "on_epoch_begin")  # which adds its row
    if where == "batch" and event == "on_batch_end" and now == epoch and kwargs["training"]:
        os.kill(os.getpid(), signal.SIGKILL)
    notify(net, event, **kwargs)

def write_half_and_die(file):
    if where == "write" and now == epoch:
        os.truncate(file, os.fstat(file).st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(file)

NeuralNet.notify, os.fsync = notify_and_die, write_half_and_die
classifier.fit(X, y)
"""


def test_resumes_after_kill_9(tmp_path):
    folder = tmp_path / "checkpoints"
    job = tmp_path / "job"
    make = {"augmentation": "microscopy", "lr_schedule": "cosine"}
    joblib.dump((small(checkpoint_dir=folder, **make), IMAGES, LABELS), job)
    path = [str(Path(_checkpoint.__file__).parents[2]), *sys.path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path))}
    kept = []
    # In epoch 3; when that has been trained anew, while its checkpoint is being written.
    for epoch, where in ((3, "batch"), (4, "write")):
        command = [sys.executable, "-c", TRAIN_AND_DIE, str(job), str(epoch), where]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert run.returncode == -signal.SIGKILL, run.stderr
        (file,) = folder.glob("*.pt")
        kept.append(file.read_bytes())
    assert kept[0] == kept[1]
    assert len(list(folder.glob("*.part"))) == 1  # half written
    epochs = json.loads(read_tensors(file)["history"])
    resumed = fit(small(checkpoint_dir=folder, **make))
    # Their durations, too: they were not run again.
    assert [{**row, "batches": []} for row in resumed.history_[:2]] == epochs
    assert_same_training(resumed, fit(small(**make)))


def test_what_killed_writes_have_left_is_removed(tmp_path):
    fit(small(checkpoint_dir=tmp_path))
    (file,) = tmp_path.iterdir()
    an_hour_ago = time.time() - 3700
    for n in range(2):  # before a training that is finished, and before one that goes on
        old, young, other = (
            tmp_path / f"{name}.part" for name in (f"{file.name}.a", f"{file.name}.b", "c.pt.d")
        )
        for part in (old, young, other):
            part.write_bytes(b"half")
        for part in (old, other):
            os.utime(part, (an_hour_ago, an_hour_ago))
        if n:
            file.unlink()
        fit(small(checkpoint_dir=tmp_path))
        assert set(tmp_path.iterdir()) == {file, young, other}


def test_what_grew_old_during_a_training_is_removed_at_its_end(tmp_path, monkeypatch):
    fit(small(checkpoint_dir=tmp_path))
    (file,) = tmp_path.iterdir()
    file.unlink()
    (tmp_path / f"{file.name}.a.part").write_bytes(b"half")
    finish = _checkpoint.Checkpoint.finish

    def finish_late(checkpoint, net):
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 3700)
        finish(checkpoint, net)

    monkeypatch.setattr(_checkpoint.Checkpoint, "finish", finish_late)
    fit(small(checkpoint_dir=tmp_path))
    assert os.listdir(tmp_path) == [file.name]


@pytest.mark.parametrize("fails", ["torch.save", "os.replace"])
def test_an_error_while_a_checkpoint_is_written_keeps_the_old_one(fails, tmp_path, monkeypatch):
    real, calls = {"torch.save": torch.save, "os.replace": os.replace}[fails], []

    def fail_the_third_time(*args, **kwargs):
        calls.append(args)
        if len(calls) == 3:
            raise OSError("disk")
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(fails, fail_the_third_time)
        with pytest.raises(OSError, match="disk"):
            fit(small(checkpoint_dir=tmp_path, callbacks=[Stop()]))
    (file,) = tmp_path.iterdir()
    assert file.suffix == ".pt"
    stop = Stop()
    resumed = fit(small(checkpoint_dir=tmp_path, callbacks=[stop]))
    assert stop.n_epochs == N_EPOCHS - 2
    assert_same_training(resumed, fit(small()))


# --- what was finished --------------------------------------------------------------------------


@pytest.mark.parametrize("n_iter_no_change", [1, 25])
def test_a_finished_training_returns_at_once(n_iter_no_change, tmp_path):
    valid_losses = [3, 2, 4, 1, 1]
    parameters = {"n_iter_no_change": n_iter_no_change, "checkpoint_dir": tmp_path}
    first, second = (Stop(losses=valid_losses) for _ in range(2))
    trained = fit(small(callbacks=[first], **parameters))
    assert first.n_epochs == (3 if n_iter_no_change == 1 else N_EPOCHS)  # one stops early
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    returned = fit(small(callbacks=[second], **parameters))
    assert second.n_batches == second.n_epochs == 0
    assert returned.history_ == trained.history_
    assert file.read_bytes() == content
    assert np.array_equal(returned.predict_proba(IMAGES), trained.predict_proba(IMAGES))
    assert_same_training(returned, trained)


def test_a_training_that_diverged_stays_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(ValueError, match="Training diverged"):
            fit(small(lr=1e30, checkpoint_dir=tmp_path))


def test_a_pickle_holds_no_checkpoint(tmp_path):
    pickled = pickle.dumps(fit(small(checkpoint_dir=tmp_path)))
    assert b"sklearn_micranet._network._module" in pickled
    assert b"sklearn_micranet._training._checkpoint" not in pickled


# --- which training a file belongs to -----------------------------------------------------------


def files_of(folder, *fits):
    """Return the names of the files that trainings leave."""
    for classifier, data in fits:
        fit(classifier.set_params(checkpoint_dir=folder), **data)
    return sorted(os.listdir(folder))


@pytest.fixture(scope="module")
def pretrained():
    return [fit(small(random_state=seed, max_epochs=1)) for seed in (1, 2)]


OTHER_PARAMETERS = {
    "image_shape": (8, 8),
    "background_label": 1,
    "n_filters": 3,
    "dropout": 0.4,
    "lr": 2e-3,
    "lr_schedule": "cosine",
    "min_lr": 1e-4,
    "patience": 3,
    "batch_size": 5,
    "max_epochs": 2,
    "early_stopping": False,
    "n_iter_no_change": 3,
    "validation_fraction": 0.5,
    "augmentation": "flip",
    "class_weight": "balanced",
    "negatives_per_positive": 0.5,
    "pretrained": MicraNet(n_channels=1, n_outputs=1, n_filters=2).state_dict(),
    "fine_tune_depth": 2,
    "min_coverage": 0.1,
    "precision": "bfloat16",
    "n_threads": 1,
    "callbacks": [Freezer("depth*")],
    "random_state": 1,
}
WITHOUT_INFLUENCE = {
    "threshold": 0.3,
    "device": "cpu",
    "checkpoint_dir": "a folder",
    "callbacks": [],
    "verbose": 1,
}


def test_every_parameter_either_counts_or_does_not():
    assert OTHER_PARAMETERS.keys() | WITHOUT_INFLUENCE.keys() == small().get_params().keys()


def test_another_parameter_is_another_training(tmp_path):
    assert len(files_of(tmp_path, (small(), {}))) == 1
    for n, (name, value) in enumerate(OTHER_PARAMETERS.items(), start=2):
        assert len(files_of(tmp_path, (small(**{name: value}), {}))) == n, name


def test_other_pretrained_weights_are_another_training(pretrained, tmp_path):
    one, two = pretrained
    one.save_weights(tmp_path / "one.pt")
    folder = tmp_path / "checkpoints"
    same = (FrozenEstimator(one), one.module_.state_dict(), tmp_path / "one.pt")
    fits = [(small(max_epochs=1, pretrained=given), {}) for given in same]
    assert len(files_of(folder, *fits)) == 1
    assert len(files_of(folder, (small(max_epochs=1), {}))) == 2
    two.save_weights(tmp_path / "one.pt")  # the same path
    fits = [(small(max_epochs=1, pretrained=tmp_path / "one.pt"), {})]
    assert len(files_of(folder, *fits)) == 3


@pytest.mark.parametrize("name", WITHOUT_INFLUENCE.keys() - {"checkpoint_dir"})
def test_parameters_without_influence(name, tmp_path):
    first = fit(small(checkpoint_dir=tmp_path))
    second = fit(small(checkpoint_dir=tmp_path, **{name: WITHOUT_INFLUENCE[name]}))
    assert len(os.listdir(tmp_path)) == 1
    assert second.history_ == first.history_


def test_a_callback_is_run_that_another_training_was_without(tmp_path):
    fit(small(checkpoint_dir=tmp_path))
    frozen = fit(small(checkpoint_dir=tmp_path, callbacks=[Freezer("depth*")]))
    expected = fit(small(callbacks=[Freezer("depth*")]))
    assert not frozen.module_.depth1.conv_a.weight.requires_grad
    for name, tensor in weights(frozen).items():
        assert torch.equal(tensor, weights(expected)[name]), name


def criterion(net, X, y):
    return 0.0


CALLBACKS = [
    [Freezer("depth*")],
    [Freezer("depth1*")],
    [Unfreezer("depth*")],
    [("freezer", Freezer("depth*"))],
    [Freezer("depth*"), Freezer("linear*")],
    [EpochScoring("accuracy")],
    [EpochScoring(criterion)],
    [GradientNormClipping],
    [GradientNormClipping(1.0)],
    [LRScheduler(StepLR, step_size=2)],
    [LRScheduler(StepLR, step_size=3)],
]


def key_of(**parameters):
    classifier = small(**parameters)
    augment = make_augmenter(classifier.augmentation)
    return training_key(classifier.get_params(), augment, None, 0)


def test_callbacks_are_found_by_their_parameters():
    keys = [key_of(callbacks=callbacks) for callbacks in (None, *CALLBACKS)]
    assert len(set(keys)) == len(keys)
    assert keys[0] == key_of(callbacks=[]) == key_of(callbacks=())
    assert keys[1:] == [key_of(callbacks=tuple(deepcopy(callbacks))) for callbacks in CALLBACKS]


def test_callbacks_that_have_been_run_are_the_same(tmp_path):
    callbacks = [EpochScoring(criterion), EarlyStopping(), LRScheduler(StepLR, step_size=2)]
    classifier = small(lr_schedule="constant", callbacks=callbacks)
    assert len(files_of(tmp_path, (classifier, {}), (classifier, {}))) == 1


def jitter(batch):
    return batch + 0.01 * torch.randn_like(batch)


class Shift(torch.nn.Module):
    """Holds tensors, and remembers its last batch as the modules of kornia do."""

    def __init__(self, shift=0.1, scale=1.0, p=0.5):
        super().__init__()
        self._p = p
        self.register_buffer("shift", torch.tensor([shift]))
        self.register_buffer("unsaved", torch.ones(2, dtype=torch.bfloat16), persistent=False)
        self.bound = torch.tensor(9.0)
        self.scale = scale
        self.dtype = torch.float64

    def forward(self, batch):
        self._last, self.dtype = batch, batch.dtype
        return (self.scale * batch + self.shift).clamp(max=self.bound)


def test_an_augmentation_that_was_edited_is_another_training(tmp_path):
    # As when a cell of a notebook is changed and run again: module and name stay the same.
    def edited(batch):
        return batch + torch.randn_like(batch)

    edited.__name__ = edited.__qualname__ = "jitter"
    for n, wrap in enumerate((lambda f: f, partial, lambda f: ["flip", f], torch.no_grad()), 1):
        steps = [wrap(jitter), wrap(jitter), wrap(edited)]
        fits = [(small(augmentation=step, max_epochs=1), {}) for step in steps]
        assert len(files_of(tmp_path, *fits)) == 2 * n


def test_the_constants_of_the_package_count(monkeypatch):
    before = [key_of(augmentation=name) for name in (None, "gamma", "microscopy", "blur", "flip")]
    monkeypatch.setattr(_augmentation, "GAMMA_SIGMA", 0.3)
    monkeypatch.setattr(_augmentation, "BLUR_RADIUS", 9)
    after = [key_of(augmentation=name) for name in (None, "gamma", "microscopy", "blur", "flip")]
    same = [a == b for a, b in zip(before, after, strict=True)]
    assert same == [True, False, False, False, True]


def test_versions_count(monkeypatch):
    before = key_of()
    monkeypatch.setattr(_checkpoint, "_VERSIONS", ("another",))
    assert key_of() != before


EDITED = """
import torch

SIZES = (0.1, 0.2)


def jitter(batch):
    return batch + SIZES[0] * torch.randn_like(batch)


class Jitter:
    def __call__(self, batch):
        return jitter(batch)
"""


@pytest.mark.parametrize("use", ["jitter", "Jitter()"])
def test_a_module_of_the_user_that_is_edited_is_another_training(use, tmp_path):
    script = f"""
import numpy as np
from sklearn_micranet import MicraNetClassifier
from users_module import jitter, Jitter
X = np.random.default_rng(0).random((8, 8, 8))
MicraNetClassifier(n_filters=1, max_epochs=1, random_state=0, checkpoint_dir="folder",
                   augmentation={use}).fit(X, np.arange(8) % 2)
"""
    (tmp_path / "script.py").write_text(script)
    path = [str(Path(_checkpoint.__file__).parents[2]), *sys.path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path))}
    counts = []
    for text in (EDITED, EDITED, EDITED.replace("(0.1", "(0.3"), EDITED.replace("+ S", "- S")):
        (tmp_path / "users_module.py").write_text(text)
        command = [sys.executable, "-B", "script.py"]
        run = subprocess.run(command, cwd=tmp_path, env=environment, timeout=300, check=False)
        assert run.returncode == 0
        counts.append(len(list((tmp_path / "folder").iterdir())))
    assert counts == [1, 1, 2, 3]


def test_modules_are_found_by_their_tensors_and_public_attributes():
    modules = [
        Shift(),
        Shift(0.2),
        Shift(scale=2.0),
        Shift(p=1.0),
        torch.nn.Sequential(Shift()),
        torch.nn.Sequential(Shift(), Shift()),
        torch.nn.Sequential(Shift(), Shift(scale=2.0)),
        torch.nn.Identity(),
    ]
    keys = [key_of(augmentation=module) for module in modules]
    assert len(set(keys)) == len(keys)
    modules[0](torch.zeros(1, 1, 2, 2))
    assert keys == [key_of(augmentation=deepcopy(module)) for module in modules]


def test_a_module_with_tensors_is_resumed(tmp_path):
    def make(**parameters):
        return small(augmentation=[Shift(), "flip"], **parameters)

    fit_interrupted(lambda: make(checkpoint_dir=tmp_path), Stop(3))
    stop = Stop()
    resumed = fit(make(checkpoint_dir=tmp_path, callbacks=[stop]))
    assert stop.n_epochs == N_EPOCHS - 2
    assert_same_training(resumed, fit(make()))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("augmentation", ["flip", partial(torch.add, other=threading.Lock())]),
        ("callbacks", [Freezer(threading.Lock())]),
    ],
)
def test_what_cannot_be_taken_apart_is_named(name, value, tmp_path):
    message = rf"^{name} must hold functions, .* where checkpoint_dir .* Got .* instead: let get_"
    with pytest.raises(TypeError, match=message) as error:
        fit(small(checkpoint_dir=tmp_path, **{name: value}))
    assert len(str(error.value)) < 600
    assert os.listdir(tmp_path) == []


def test_a_checkpoint_that_cannot_be_read_now_is_kept(tmp_path, monkeypatch):
    fit(small(checkpoint_dir=tmp_path))
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()

    def fail(*args, **kwargs):
        raise MemoryError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", fail)
        with pytest.raises(MemoryError, match="no memory"):
            fit(small(checkpoint_dir=tmp_path))
    assert file.read_bytes() == content


def changed(array, index, value):
    array = array.copy()
    array[index] = value
    return array


OTHER_DATA = {
    "a pixel": {"X": changed(IMAGES, (11, 7, 7), 0.5)},
    "the order": {"X": IMAGES[::-1]},
    "a label": {"y": changed(LABELS, 11, 1 - LABELS[11])},
    "several classes": {"y": np.arange(N) % 3},
    "several labels": {"y": np.eye(2, dtype=int)[LABELS]},
    "weights": {"sample_weight": np.linspace(1, 2, N)},
    "an image left out": {"sample_weight": np.arange(N) > 0},
    "validation images": {"X_val": IMAGES[:6], "y_val": LABELS[:6]},
    "other validation images": {"X_val": IMAGES[:6] + 1, "y_val": LABELS[:6]},
    "other validation labels": {"X_val": IMAGES[:6], "y_val": 1 - LABELS[:6]},
}


@pytest.mark.parametrize("n_read_at_once", [5, 64])
def test_other_data_are_another_training(n_read_at_once, tmp_path, monkeypatch):
    monkeypatch.setattr(_checkpoint, "N_READ_AT_ONCE", n_read_at_once)
    fits = [(small(max_epochs=1), data) for data in [{}, *OTHER_DATA.values()]]
    assert len(files_of(tmp_path, *fits)) == 1 + len(OTHER_DATA)


def test_the_same_images_are_the_same_training(tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    memory_mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    with h5py.File(tmp_path / "images.h5", "w") as file:
        file["images"] = IMAGES
        same = [
            IMAGES,
            IMAGES.copy(order="F"),
            np.stack([IMAGES, IMAGES])[0],
            list(IMAGES),
            memory_mapped,
            file["images"],
        ]
        fits = [(small(max_epochs=1), {"X": X}) for X in same]
        assert len(files_of(tmp_path / "checkpoints", *fits)) == 1


def test_memory_mapped_images_are_resumed(tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    images = np.load(tmp_path / "images.npy", mmap_mode="r")
    folder = tmp_path / "checkpoints"
    fit_interrupted(lambda: small(checkpoint_dir=folder), Stop(3), X=images)
    stop = Stop()
    resumed = fit(small(checkpoint_dir=folder, callbacks=[stop]), X=images)
    assert stop.n_epochs == N_EPOCHS - 2
    assert_same_training(resumed, fit(small()))


def test_folders_are_made(tmp_path):
    class PathLike:
        def __fspath__(self):
            return str(tmp_path / "a" / "b")

    for folder in (PathLike(), str(tmp_path / "a" / "b"), tmp_path / "a" / "b"):
        stop = Stop()
        fit(small(checkpoint_dir=folder, callbacks=[stop]))
        assert stop.n_epochs == (N_EPOCHS if isinstance(folder, PathLike) else 0)
    assert len(list((tmp_path / "a" / "b").glob("*.pt"))) == 1


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_damaged_checkpoint_is_named_and_replaced(share, tmp_path):
    first = fit(small(checkpoint_dir=tmp_path))
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.warns(RuntimeWarning, match=f"{file.name} is damaged: the training starts anew"):
        again = fit(small(checkpoint_dir=tmp_path))
    assert_same_training(again, first)


# --- searches and ensembles ---------------------------------------------------------------------


class CountAll(Callback):
    """Count the epochs of all trainings, clones included."""

    total, stop_at = 0, None

    def on_epoch_end(self, net, **kwargs):
        CountAll.total += 1
        if CountAll.total == CountAll.stop_at:
            raise KeyboardInterrupt


@pytest.fixture
def count(monkeypatch):
    monkeypatch.setattr(CountAll, "total", 0)
    monkeypatch.setattr(CountAll, "stop_at", None)
    return CountAll


def restarted(count, n_epochs_of_all, stop_at, start):
    """Interrupt something, start it again, and return its result."""
    count.stop_at = stop_at
    with pytest.raises(KeyboardInterrupt):
        start()
    assert count.total == stop_at
    count.total, count.stop_at = 0, None
    result = start()
    assert count.total == n_epochs_of_all - stop_at + 1  # only the epoch that was cut off
    return result


def test_a_grid_search_is_resumed(count, tmp_path):
    grid = {"lr": [1e-3, 1e-2], "dropout": [0.0, 0.5]}

    def search(**parameters):
        classifier = small(max_epochs=3, callbacks=[CountAll()], **parameters)
        return GridSearchCV(classifier, grid, cv=2, scoring="neg_log_loss")

    # 8 trainings and the last one on all images. The interruption is in the fourth.
    resumed = restarted(count, 27, 11, lambda: search(checkpoint_dir=tmp_path).fit(IMAGES, LABELS))
    assert len(os.listdir(tmp_path)) == 9
    expected = search().fit(IMAGES, LABELS)
    for name in ("split0_test_score", "split1_test_score"):
        assert np.array_equal(resumed.cv_results_[name], expected.cv_results_[name])
    assert resumed.best_params_ == expected.best_params_
    assert np.array_equal(resumed.predict_proba(IMAGES), expected.predict_proba(IMAGES))


def test_an_ensemble_is_resumed(count, tmp_path):
    def ensemble(**parameters):
        classifier = small(max_epochs=3, callbacks=[CountAll()], **parameters)
        return MicraNetEnsemble(classifier, random_state=0)

    expected = ensemble().fit(IMAGES, LABELS)
    n_epochs = count.total
    count.total = 0
    resumed = restarted(
        count, n_epochs, 5, lambda: ensemble(checkpoint_dir=tmp_path).fit(IMAGES, LABELS)
    )
    assert np.array_equal(resumed.predict_proba(IMAGES), expected.predict_proba(IMAGES))

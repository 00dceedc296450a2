import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import joblib
import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback

from sklearn_micranet import MicraNetClassifier, MicraNetEnsemble, _checkpoint
from sklearn_micranet._network import MicraNet

N, N_EPOCHS = 12, 4
LABELS = np.arange(N) % 3 % 2
IMAGES = np.random.default_rng(0).random((N, 8, 8)) + LABELS[:, None, None]


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


class Stop(Callback):
    """Count the epochs, and raise an error at an event of one of them."""

    def __init__(self, epoch=None, event="on_batch_end", error=ZeroDivisionError, losses=None):
        self.epoch = epoch
        self.event = event
        self.error = error
        self.losses = losses  # take the place of the validation losses, epoch by epoch
        self.n_epochs = 0
        self.n_batches = 0

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
    resumed = fit(small(random_state=random_state(), checkpoint_dir=tmp_path))
    assert len(os.listdir(tmp_path)) == 1
    assert_same_training(resumed, expected)


def test_ctrl_c_leaves_a_fitted_classifier_and_a_checkpoint_of_the_last_epoch(tmp_path):
    class CtrlC(Stop):
        def notify(self, event, net, training=None):
            if event == "on_batch_end" and len(net.history) == 4:
                signal.raise_signal(signal.SIGINT)

    losses_of_epochs = [3, 1, 2, 2, 2]  # the best is not the last
    # A process started in the background ignores Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(small(checkpoint_dir=tmp_path, callbacks=[CtrlC()]))
    finally:
        signal.signal(signal.SIGINT, before)
    stop = Stop(4, error=KeyboardInterrupt, losses=losses_of_epochs)
    interrupted = fit_interrupted(lambda: small(checkpoint_dir=tmp_path / "other"), stop)
    at_best = fit(small(max_epochs=2, early_stopping=False))
    assert np.array_equal(interrupted.predict_proba(IMAGES), at_best.predict_proba(IMAGES))
    resumed = fit(small(checkpoint_dir=tmp_path))
    assert_same_training(resumed, fit(small()))


# --- kill -9 ------------------------------------------------------------------------------------

TRAIN_AND_DIE = """
import os, signal, sys
from pathlib import Path
import joblib, torch
from skorch.callbacks import Callback

torch.set_num_threads(1)
classifier, X, y = joblib.load(sys.argv[1])
epoch, where = int(sys.argv[2]), sys.argv[3]
now = None

class Kill(Callback):
    def on_batch_end(self, net, training, **kwargs):
        if where == "batch" and len(net.history) == epoch and training:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_epoch_begin(self, net, **kwargs):
        global now
        now = len(net.history)

def write_half(path, content):
    with open(path, "wb") as file:
        file.write(content[: len(content) // (2 if now == epoch else 1)])
    if now == epoch:
        os.kill(os.getpid(), signal.SIGKILL)

if where == "write":
    Path.write_bytes = write_half
classifier.set_params(callbacks=[Kill()]).fit(X, y)
"""


def test_resumes_after_kill_9(tmp_path):
    folder = tmp_path / "checkpoints"
    job = tmp_path / "job"
    make = {"augmentation": "microscopy", "lr_schedule": "cosine"}
    joblib.dump((small(checkpoint_dir=folder, **make), IMAGES, LABELS), job)
    path = [str(Path(_checkpoint.__file__).parents[1]), *sys.path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path))}
    kept = []
    # In epoch 3; when that has been trained anew, while its checkpoint is being written.
    for epoch, where in ((3, "batch"), (4, "write")):
        command = [sys.executable, "-c", TRAIN_AND_DIE, str(job), str(epoch), where]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert run.returncode == -signal.SIGKILL, run.stderr
        kept.append([p.read_bytes() for p in folder.glob("*.pt")])
    assert len(kept[0]) == 1
    assert kept[0] == kept[1]
    assert len(list(folder.glob("*.part"))) == 1  # half written
    stop = Stop()
    resumed = fit(small(checkpoint_dir=folder, callbacks=[stop], **make))
    assert stop.n_epochs == N_EPOCHS - 2
    assert_same_training(resumed, fit(small(**make)))


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
            fit(small(checkpoint_dir=tmp_path))
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
    assert b"sklearn_micranet._network" in pickled
    assert b"sklearn_micranet._checkpoint" not in pickled


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


@pytest.mark.parametrize("n_hashed_at_once", [5, 64])
def test_other_data_are_another_training(n_hashed_at_once, tmp_path, monkeypatch):
    monkeypatch.setattr(_checkpoint, "N_HASHED_AT_ONCE", n_hashed_at_once)
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

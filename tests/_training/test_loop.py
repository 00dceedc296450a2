import pickle

import numpy as np
import pandas as pd
import pytest
import torch
import tqdm
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback, EarlyStopping, EpochScoring, ProgressBar
from watched import Watched

from sklearn_micranet import MicraNetClassifier
from sklearn_micranet._training import _schedule
from sklearn_micranet._training._schedule import (
    WarmupCosine,
    patience_in_epochs,
    training_callbacks,
)
from sklearn_micranet._training._statistics import N_STEPS_OF_CHANGE


@pytest.fixture(autouse=True)
def patience_counts_epochs(monkeypatch):
    monkeypatch.setattr(_schedule, "STEPS_OF_AN_EPOCH", 1)


@pytest.mark.parametrize(
    ("patience", "n_batches", "expected"), [(10, 1, 100), (10, 4, 25), (10, 10, 10), (25, 300, 25)]
)
def test_epochs_of_few_steps_count_in_proportion(patience, n_batches, expected, monkeypatch):
    monkeypatch.setattr(_schedule, "STEPS_OF_AN_EPOCH", 10)
    assert patience_in_epochs(patience, n_batches) == expected


def images_and_labels(n):
    y = np.arange(n) % 2
    return np.random.default_rng(0).random((n, 8, 8), dtype=np.float32) + y[:, None, None], y


class Observer(Watched):
    """Record weights and learning rates; replace the validation loss, if given, epoch by epoch."""

    def __init__(self, valid_losses=None):
        self.valid_losses = valid_losses

    def on_train_begin(self, net, **kwargs):
        self.weights = []
        self.rates = []

    def on_batch_begin(self, net, training=False, **kwargs):
        if training:
            self.rates.append(net.optimizer_.param_groups[0]["lr"])

    def on_batch_end(self, net, training=False, **kwargs):
        if self.valid_losses and not training:
            net.history.record_batch("valid_loss", self.valid_losses[len(net.history) - 1])

    def on_epoch_end(self, net, **kwargs):
        self.weights.append({k: v.clone() for k, v in net.module_.state_dict().items()})


def fit(observer, n=20, **parameters):
    """Fit a small network on n images, half of which are for validation."""
    defaults = {"n_filters": 1, "validation_fraction": 0.5, "random_state": 0}
    classifier = MicraNetClassifier(callbacks=[observer], **(defaults | parameters))
    return classifier.fit(*images_and_labels(n))


def are_equal(weights, others):
    return all(torch.equal(weights[name], others[name]) for name in weights)


# --- schedules -------------------------------------------------------------------------------


def test_warmup_rises_for_a_tenth_and_a_cosine_falls():
    factor = WarmupCosine(n_steps=20, floor=0.2)
    assert factor(0) == 0.5
    assert factor(1) == 1
    assert factor(2) == 1
    assert factor(5) == pytest.approx(0.2 + 0.8 * (1 + 3**0.5 / 2) / 2)  # cos(pi / 6)
    assert factor(8) == pytest.approx(0.2 + 0.8 * 0.75)  # cos(pi / 3)
    assert factor(11) == pytest.approx(0.6)  # cos(pi / 2)
    assert factor(14) == pytest.approx(0.2 + 0.8 * 0.25)
    assert factor(20) == factor(25) == pytest.approx(0.2)


@pytest.mark.parametrize("n_steps", [1, 2, 3, 4])
def test_a_training_of_few_steps_starts_at_full_rate(n_steps):
    assert WarmupCosine(n_steps, floor=0)(0) == 1


def test_the_cosine_schedule_sets_the_rate_of_each_batch():
    observer = Observer()
    fit(observer, lr_schedule="cosine", lr=1e-2, min_lr=2e-3, batch_size=2, max_epochs=4)
    assert len(observer.rates) == 20  # 4 epochs of 10 images, two at a time
    expected = {0: 0.5e-2, 1: 1e-2, 2: 1e-2, 8: 0.8e-2, 11: 0.6e-2, 14: 0.4e-2}
    for step, rate in expected.items():
        assert observer.rates[step] == pytest.approx(rate)
    assert 2e-3 < observer.rates[-1] < 2.1e-3


def test_the_cosine_schedule_never_exceeds_a_rate_below_min_lr():
    observer = Observer()
    fit(observer, lr_schedule="cosine", lr=1e-6, min_lr=1e-5, max_epochs=3)
    assert max(observer.rates) <= 1e-6


def test_the_plateau_schedule_lowers_the_rate_after_more_than_patience_epochs():
    observer = Observer([1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5])
    parameters = {"patience": 1, "early_stopping": False, "max_epochs": 10}
    classifier = fit(observer, lr_schedule="plateau", lr=1e-2, min_lr=5e-4, **parameters)
    # Epochs 2 and 3, then 5 and 6, then 7 and 8 bring no improvement.
    expected = [1e-2] * 3 + [1e-3] * 3 + [5e-4] * 4
    np.testing.assert_allclose(observer.rates, expected)
    np.testing.assert_allclose(classifier.history_[:, "event_lr"], expected)


def test_the_constant_schedule_keeps_the_rate():
    observer = Observer([1] * 30)
    fit(observer, lr_schedule="constant", lr=3e-3, max_epochs=15)
    assert observer.rates == [3e-3] * 15


# --- early stopping --------------------------------------------------------------------------

LOSSES = [5, 3, 1, 2, 2, 2, 2, 2]


def test_early_stopping_returns_to_the_weights_of_the_best_epoch():
    observer = Observer(LOSSES)
    classifier = fit(observer, n_iter_no_change=3, max_epochs=8)
    assert len(classifier.history_) == 6  # the best epoch and three more
    assert not are_equal(observer.weights[2], observer.weights[5])
    assert are_equal(classifier.module_.state_dict(), observer.weights[2])


def test_the_best_weights_are_kept_also_when_no_epoch_is_left_to_stop():
    observer = Observer(LOSSES)
    classifier = fit(observer, n_iter_no_change=100, max_epochs=8)
    assert len(classifier.history_) == 8
    assert not are_equal(observer.weights[2], observer.weights[7])
    assert are_equal(classifier.module_.state_dict(), observer.weights[2])


def test_without_early_stopping_the_last_weights_are_kept():
    observer = Observer(LOSSES)
    classifier = fit(observer, early_stopping=False, n_iter_no_change=1, max_epochs=8)
    assert len(classifier.history_) == 8
    assert are_equal(classifier.module_.state_dict(), observer.weights[7])


def test_without_validation_images_the_training_loss_is_monitored():
    observer = Observer()
    classifier = fit(observer, validation_fraction=0, max_epochs=8, lr=0.03)
    assert "valid_loss" not in classifier.history_[0]
    best = observer.weights[np.argmin(classifier.history_[:, "train_loss"])]
    assert N_STEPS_OF_CHANGE > 8  # so that the statistics are estimated anew
    for name, tensor in classifier.module_.state_dict().items():
        assert "running" in name or torch.equal(tensor, best[name]), name


@pytest.mark.parametrize(
    ("parameters", "names"),
    [
        ({}, ["lr_schedule", "early_stopping"]),
        ({"lr_schedule": "cosine"}, ["lr_schedule", "early_stopping"]),
        ({"lr_schedule": "constant"}, ["early_stopping"]),
        ({"early_stopping": False}, ["lr_schedule"]),
        ({"lr_schedule": "constant", "early_stopping": False}, []),
    ],
)
def test_callbacks_are_those_asked_for(parameters, names):
    callbacks = training_callbacks(MicraNetClassifier(**parameters), 3, "valid_loss")
    assert [name for name, _ in callbacks] == ["cost", *names]


# --- Ctrl-C ----------------------------------------------------------------------------------


class CtrlC(Watched):
    """Interrupt in a batch, counted over all epochs."""

    def __init__(self, n_batches, training=True):
        self.n_batches = n_batches
        self.training = training

    def on_train_begin(self, net, **kwargs):
        self.n_left = self.n_batches

    def on_batch_end(self, net, training=False, **kwargs):
        self.n_left -= training == self.training
        if self.n_left == 0:
            raise KeyboardInterrupt("Ctrl-C")


def interrupt(n_batches, *callbacks, training=True, **parameters):
    """Fit 10 images, two at a time, and press Ctrl-C after so many batches."""
    classifier = MicraNetClassifier(
        n_filters=1,
        lr=1e-2,
        batch_size=2,
        validation_fraction=0.5,
        random_state=0,
        callbacks=[*callbacks, CtrlC(n_batches, training)],
        **parameters,
    )
    with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
        classifier.fit(*images_and_labels(20))
    return classifier


# In the third batch of the fourth, fifth and sixth epoch: right after the best, and later.
@pytest.mark.parametrize(("n_batches", "n_whole"), [(18, 3), (23, 4), (28, 5)])
def test_ctrl_c_leaves_the_best_weights_so_far(n_batches, n_whole):
    observer = Observer(LOSSES)
    classifier = interrupt(n_batches, observer)
    assert len(classifier.history_) == n_whole
    assert are_equal(classifier.module_.state_dict(), observer.weights[2])
    assert classifier.history_[:, "valid_loss"] == LOSSES[:n_whole]
    assert classifier.history_[:, "epoch"] == list(range(1, n_whole + 1))


def test_ctrl_c_leaves_the_best_weights_of_a_user_s_early_stopping():
    observer = Observer(LOSSES)
    own = EarlyStopping(patience=100, load_best=True)
    classifier = interrupt(18, observer, own, early_stopping=False)
    assert are_equal(classifier.module_.state_dict(), observer.weights[2])


def test_ctrl_c_in_validation_leaves_whole_epochs_only():
    observer = Observer(LOSSES)
    classifier = interrupt(5 * 4 + 1, observer, training=False)
    assert classifier.history_[:, "valid_loss"] == LOSSES[:4]
    assert are_equal(classifier.module_.state_dict(), observer.weights[2])


def test_without_early_stopping_ctrl_c_leaves_the_last_weights():
    observer = Observer(LOSSES)
    classifier = interrupt(18, observer, early_stopping=False)
    assert len(classifier.history_) == 3
    assert not any(are_equal(classifier.module_.state_dict(), w) for w in observer.weights)


def test_ctrl_c_in_the_first_epoch_leaves_a_fitted_classifier():
    classifier = interrupt(2)
    assert classifier.history_ == []
    assert not classifier.module_.training
    X, _ = images_and_labels(20)
    assert np.isfinite(classifier.predict_proba(X)).all()
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(classifier)).predict_proba(X), classifier.predict_proba(X)
    )


def test_after_ctrl_c_the_classifier_is_trained_on():
    classifier = interrupt(18, max_epochs=5)
    X, y = images_and_labels(20)
    classifier.partial_fit(X, y)
    assert len(classifier.history_) == 4
    expected = fit(Observer(), max_epochs=2).module_.state_dict()
    parameters = {"lr": 1e-3, "batch_size": 32, "max_epochs": 2, "callbacks": None}
    assert are_equal(classifier.set_params(**parameters).fit(X, y).module_.state_dict(), expected)


def test_ctrl_c_in_partial_fit_leaves_the_epochs_before():
    X, y = images_and_labels(20)
    ctrl_c = CtrlC(11)  # an epoch has ten batches
    classifier = MicraNetClassifier(n_filters=1, batch_size=2, callbacks=[ctrl_c], random_state=0)
    classifier.partial_fit(X, y, classes=[0, 1]).partial_fit(X, y)
    ctrl_c.n_batches = 4
    with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
        classifier.partial_fit(X, y)
    assert len(classifier.history_) == 2
    assert classifier.predict(X).shape == (20,)


def test_ctrl_c_ends_a_grid_search():
    fits = []

    class Count(Callback):
        def on_train_begin(self, net, **kwargs):
            fits.append(net)

    classifier = MicraNetClassifier(
        n_filters=1, max_epochs=3, batch_size=4, callbacks=[Count(), CtrlC(5)]
    )
    search = GridSearchCV(classifier, {"lr": [1e-3, 1e-2]}, cv=2)
    with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
        search.fit(*images_and_labels(20))
    assert len(fits) == 1


# --- early stopping is not Ctrl-C ------------------------------------------------------------


def test_a_user_s_early_stopping_ends_training_normally(capsys):
    observer = Observer(LOSSES)
    scoring = EpochScoring(lambda net, X, y: len(net.history), name="own", use_caching=False)
    classifier = MicraNetClassifier(
        n_filters=1,
        validation_fraction=0.5,
        callbacks=[observer, EarlyStopping(patience=2), ("own", scoring)],
        random_state=0,
        verbose=1,
    )
    classifier.fit(*images_and_labels(20))
    assert classifier.history_[:, "valid_loss"] == LOSSES[:5]
    # What comes behind it in the list has its last epoch, too.
    assert classifier.history_[:, "own"] == [1, 2, 3, 4, 5]
    assert epochs_of(capsys.readouterr().out) == [1, 2, 3, 4, 5]
    assert not classifier.module_.training


def test_two_early_stoppings_may_stop_at_once():
    observer = Observer(LOSSES)
    own = EarlyStopping(patience=3)
    classifier = MicraNetClassifier(
        n_filters=1,
        validation_fraction=0.5,
        n_iter_no_change=3,
        callbacks=[observer, own],
        random_state=0,
    )
    classifier.fit(*images_and_labels(20))
    assert len(classifier.history_) == 6
    assert are_equal(classifier.module_.state_dict(), observer.weights[2])


def test_a_user_s_early_stopping_that_never_stops_leaves_ctrl_c_alone():
    classifier = interrupt(8, EarlyStopping(patience=50))
    assert len(classifier.history_) == 1


# --- reports ---------------------------------------------------------------------------------


def epochs_of(out):
    """Return the numbers of the epochs of which a line is printed."""
    return [int(line.split()[0]) for line in out.splitlines() if line.split()[0].isdigit()]


@pytest.fixture
def bars(monkeypatch):
    """Record the progress bars."""
    made = []

    def bar(**kwargs):
        made.append(real(**kwargs))
        return made[-1]

    real = tqdm.tqdm
    monkeypatch.setattr(tqdm, "tqdm", bar)
    return made


@pytest.mark.parametrize(
    ("losses", "n_epochs"), [(LOSSES, 6), ([5, 3, 2, 1], 4)], ids=["stopped early", "to the end"]
)
def test_verbose_reports_every_epoch_and_closes_each_bar(losses, n_epochs, capsys, bars):
    classifier = fit(
        Observer(losses), n_iter_no_change=3, max_epochs=len(losses), batch_size=4, verbose=1
    )
    out = capsys.readouterr().out
    assert epochs_of(out) == classifier.history_[:, "epoch"] == list(range(1, n_epochs + 1))
    assert len(bars) == n_epochs
    assert all(bar.disable for bar in bars)  # what tqdm sets when it is closed
    assert {(bar.n, bar.total) for bar in bars} == {(3, 3)}  # batches of 4, 3 and 3 images


def test_ctrl_c_closes_the_bar(bars):
    interrupt(8, verbose=1)
    assert [bar.disable for bar in bars] == [True, True]


def test_without_verbose_there_is_no_bar(capsys):
    classifier = fit(Observer(), max_epochs=2)
    assert capsys.readouterr() == ("", "")
    assert not any(isinstance(c, ProgressBar) for _, c in classifier.net_.callbacks_)


def test_the_history_is_a_table():
    classifier = fit(Observer(), max_epochs=3, early_stopping=False)
    table = pd.DataFrame(classifier.history_)
    assert table["epoch"].tolist() == [1, 2, 3]
    assert {"train_loss", "valid_loss", "event_lr", "dur"} <= set(table)
    assert "batches" not in table
    assert table["train_loss"].tolist() == classifier.history_[:, "train_loss"]
    assert "batches" in classifier.net_.history[0]  # which stays as it was

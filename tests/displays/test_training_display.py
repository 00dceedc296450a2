import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.frozen import FrozenEstimator

from sklearn_micranet import MicraNetClassifier
from sklearn_micranet.displays import TrainingDisplay

HISTORY = [
    {"train_loss": 0.7, "valid_loss": 0.6, "valid_loss_best": True, "event_lr": 1e-3},
    {"train_loss": 0.4, "valid_loss": 0.5, "valid_loss_best": True, "event_lr": 1e-3},
    {"train_loss": 0.2, "valid_loss": 0.8, "valid_loss_best": False, "event_lr": 1e-4},
]


def curve(display, name):
    x, y = display.lines_[name].get_data()
    return np.asarray(x).tolist(), np.asarray(y).tolist()


def legend(display):
    return [text.get_text() for text in display.axes_[0].get_legend().get_texts()]


def test_losses_learning_rate_and_best_epoch():
    display = TrainingDisplay.from_history(HISTORY)
    assert curve(display, "training loss") == ([1, 2, 3], [0.7, 0.4, 0.2])
    assert curve(display, "validation loss") == ([1, 2, 3], [0.6, 0.5, 0.8])
    assert curve(display, "learning rate") == ([1, 2, 3], [1e-3, 1e-3, 1e-4])
    assert display.best_epoch == 2
    assert display.best_line_.get_xdata() == [2, 2]
    assert legend(display) == ["training loss", "validation loss", "best epoch (2)"]
    losses, rates = display.axes_
    assert losses.get_ylabel() == "loss"
    assert rates.get_ylabel() == "learning rate"
    assert rates.get_xlabel() == "epoch"
    assert rates.get_yscale() == "log"
    assert losses.get_shared_x_axes().joined(losses, rates)


def test_without_validation_the_training_loss_is_monitored():
    rows = [{"train_loss": loss, "train_loss_best": loss < 2} for loss in (2, 1, 3)]
    display = TrainingDisplay.from_history(rows)
    assert display.best_epoch == 2
    assert list(display.lines_) == ["training loss"]
    assert len(display.axes_) == 1
    assert display.axes_[0].get_xlabel() == "epoch"


def test_losses_may_have_a_logarithmic_axis():
    assert TrainingDisplay([3, 2]).plot(log_scale=True).axes_[0].get_yscale() == "log"
    assert TrainingDisplay([3, 2]).plot().axes_[0].get_yscale() == "linear"
    assert TrainingDisplay([3, 2]).plot().best_line_ is None


def test_a_single_epoch_is_a_mark():
    display = TrainingDisplay([3]).plot()
    assert display.lines_["training loss"].get_marker() == "o"


def test_one_ax_is_split():
    figure, axes = plt.subplots(1, 2)
    display = TrainingDisplay.from_history(HISTORY, ax=axes[1])
    assert display.figure_ is figure
    assert len(figure.axes) == 4


class Trained(BaseEstimator):
    def __init__(self, lr_schedule="constant", lr=0.01):
        self.lr_schedule, self.lr = lr_schedule, lr

    def __sklearn_is_fitted__(self):
        return True

    def fit(self, X, y=None):
        return self

    @property
    def net_(self):
        return type(
            "Net", (), {"history": [{**r, "batches": self.batches(r)} for r in self.history_]}
        )

    def batches(self, row):
        if self.lr_schedule != "cosine":
            return [{"train_loss": 1}]
        return [{"event_lr": 0.5}, {"event_lr": 1 / row["epoch"]}, {"valid_loss": 3}]

    @property
    def history_(self):
        return [{"epoch": epoch, "train_loss": 1.0} for epoch in (1, 2)]


@pytest.mark.parametrize(
    ("schedule", "rates"), [("constant", [0.01, 0.01]), ("cosine", [1, 0.5]), ("plateau", None)]
)
def test_learning_rates_that_the_epochs_do_not_tell(schedule, rates):
    display = TrainingDisplay.from_estimator(FrozenEstimator(Trained(schedule)))
    assert display.learning_rate == rates


@pytest.mark.parametrize("schedule", ["plateau", "cosine", "constant"])
def test_the_history_of_a_classifier_has_what_is_drawn(schedule):
    X = np.random.default_rng(0).random((20, 16, 16))
    classifier = MicraNetClassifier(
        n_filters=1, max_epochs=3, lr=0.02, lr_schedule=schedule, random_state=0
    ).fit(X, np.arange(20) % 2)
    display = TrainingDisplay.from_estimator(classifier)
    assert curve(display, "training loss")[1] == classifier.history_[:, "train_loss"]
    assert curve(display, "validation loss")[1] == classifier.history_[:, "valid_loss"]
    best = 1 + int(np.argmin(classifier.history_[:, "valid_loss"]))
    assert display.best_epoch == best
    rates = curve(display, "learning rate")[1]
    if schedule == "cosine":  # warmed up after the first of three batches, then half way down
        np.testing.assert_allclose(rates, [0.02, 0.02, (0.02 + 1e-5) / 2])
    else:
        assert rates == [0.02, 0.02, 0.02]


def test_refuses():
    with pytest.raises(ValueError, match=r'with "train_loss". Got \[\] instead. Fit the classif'):
        TrainingDisplay.from_history([])
    with pytest.raises(ValueError, match=r"with \"train_loss\". Got \['loss'\] instead"):
        TrainingDisplay.from_history([{"loss": 3}])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        TrainingDisplay([1, 2], valid_loss=[1]).plot()
    with pytest.raises(ValueError, match=r"shape \(n_epochs,\), .* Got shape \(1, 2\) instead"):
        TrainingDisplay([[1, 2]]).plot()
    with pytest.raises(TypeError, match=r"must have a history_, .* Got BaseEstimator instead"):
        TrainingDisplay.from_estimator(
            type("BaseEstimator", (Trained,), {"history_": property()})()
        )

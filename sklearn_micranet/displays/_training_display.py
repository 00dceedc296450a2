"""TrainingDisplay: how a training went."""

import numpy as np
from sklearn.utils import check_array
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from ._axes import CLASS_COLOURS, pyplot, several_axes

_ORANGE, _BLUE, _GREY = CLASS_COLOURS[4], CLASS_COLOURS[6], "0.35"


class TrainingDisplay:
    """Losses and learning rate of each epoch, and the best epoch.

    It is recommended to use :meth:`from_estimator` or :meth:`from_history`.

    The best epoch is the one with the lowest loss of those that early stopping monitors: of the
    validation loss, or of the training loss where there is none.

    Parameters
    ----------
    train_loss : array-like of shape (n_epochs,)
        Loss of the training images, from epoch 1 on.
    valid_loss : array-like of shape (n_epochs,), default=None
        Loss of the validation images.
    learning_rate : array-like of shape (n_epochs,), default=None
        Learning rate, > 0; NaN where it is not known.
    best_epoch : int, default=None
        Number of the best epoch, from 1 on.
    title : str, default=None
        Title of the figure.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        The losses and, where it is known, the learning rate.
    figure_ : matplotlib Figure
        Figure of these axes.
    lines_ : dict
        The Line2D of "training loss", "validation loss" and "learning rate", as far as drawn.
    best_line_ : matplotlib Line2D or None
        The best epoch.

    See Also
    --------
    sklearn_micranet.MicraNetClassifier : Its `history_` holds what is drawn.

    Examples
    --------
    >>> from sklearn_micranet.displays import TrainingDisplay
    >>> display = TrainingDisplay.from_history(
    ...     [
    ...         {"train_loss": 0.7, "valid_loss": 0.6, "valid_loss_best": True, "event_lr": 1e-3},
    ...         {"train_loss": 0.4, "valid_loss": 0.5, "valid_loss_best": True, "event_lr": 1e-3},
    ...         {"train_loss": 0.2, "valid_loss": 0.8, "valid_loss_best": False, "event_lr": 1e-4},
    ...     ]
    ... )
    >>> display.best_epoch
    2
    """

    def __init__(
        self, train_loss, *, valid_loss=None, learning_rate=None, best_epoch=None, title=None
    ):
        self.train_loss = train_loss
        self.valid_loss = valid_loss
        self.learning_rate = learning_rate
        self.best_epoch = best_epoch
        self.title = title

    @classmethod
    def from_estimator(cls, estimator, *, ax=None, **plot_params):
        """Draw the training of a classifier.

        Parameters
        ----------
        estimator : fitted MicraNetClassifier
            It may be in a :class:`sklearn.frozen.FrozenEstimator`.
        ax : matplotlib Axes or array-like of these, default=None
            One is split; ``None`` makes a new figure.
        **plot_params : dict
            Passed to :meth:`plot`.

        Returns
        -------
        display : TrainingDisplay
        """
        pyplot()
        check_is_fitted(estimator)
        if not hasattr(estimator, "history_"):
            raise TypeError(
                "estimator must have a history_, as a MicraNetClassifier has. Got "
                f"{type(estimator).__name__} instead. Of an ensemble, pass one classifier."
            )
        rows = [dict(row) for row in estimator.history_]
        # A schedule that goes by batches, and a constant rate, leave no trace in the epochs.
        for row, whole in zip(rows, estimator.net_.history, strict=True):
            rates = [b["event_lr"] for b in whole.get("batches", []) if "event_lr" in b]
            if rates:
                row.setdefault("event_lr", rates[-1])
            elif getattr(estimator, "lr_schedule", None) == "constant":
                row.setdefault("event_lr", estimator.lr)
        return cls.from_history(rows, ax=ax, **plot_params)

    @classmethod
    def from_history(cls, history, *, ax=None, **plot_params):
        """Draw a training from its history.

        Parameters
        ----------
        history : list of dict
            One for each epoch, with "train_loss" and, as far as known, "valid_loss",
            "valid_loss_best" or "train_loss_best", and "event_lr", the learning rate: such as
            ``history_`` of a :class:`~sklearn_micranet.MicraNetClassifier`.
        ax : matplotlib Axes or array-like of these, default=None
            One is split; ``None`` makes a new figure.
        **plot_params : dict
            Passed to :meth:`plot`.

        Returns
        -------
        display : TrainingDisplay
        """
        pyplot()
        rows = list(history)
        if not rows or not all("train_loss" in row for row in rows):
            raise ValueError(
                'history must be one dict for each epoch, with "train_loss". Got '
                f"{sorted(rows[0]) if rows else rows} instead. Fit the classifier first."
            )
        monitored = "valid_loss" if "valid_loss" in rows[0] else "train_loss"
        best = [i for i, row in enumerate(rows, start=1) if row.get(f"{monitored}_best")]
        rates = [row.get("event_lr", np.nan) for row in rows]
        display = cls(
            [row["train_loss"] for row in rows],
            valid_loss=[row["valid_loss"] for row in rows] if "valid_loss" in rows[0] else None,
            learning_rate=None if np.all(np.isnan(rates)) else rates,
            best_epoch=best[-1] if best else None,
        )
        return display.plot(ax, **plot_params)

    def plot(self, ax=None, *, log_scale=False):
        """Draw the losses and, below, the learning rate.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of these, default=None
            One is split; ``None`` makes a new figure.
        log_scale : bool, default=False
            Whether the losses have a logarithmic axis.

        Returns
        -------
        self : TrainingDisplay
        """
        pyplot()
        losses = {"training loss": self.train_loss, "validation loss": self.valid_loss}
        losses = {name: _curve(loss, name) for name, loss in losses.items() if loss is not None}
        rates = None if self.learning_rate is None else _curve(self.learning_rate, "learning rate")
        check_consistent_length(*losses.values(), rates)

        n_axes = 1 if rates is None else 2
        ratios = None if rates is None else (3, 1)
        self.axes_ = several_axes(
            ax, n_axes, n_columns=1, width=5.5, aspect=0.6 / n_axes, height_ratios=ratios
        )
        self.figure_ = self.axes_[0].figure
        epochs = np.arange(1, 1 + len(losses["training loss"]))
        styles = {"training loss": (_BLUE, "-"), "validation loss": (_ORANGE, "--")}
        self.lines_ = {}
        for name, loss in losses.items():
            colour, linestyle = styles[name]
            self.lines_[name] = self._draw_curve(self.axes_[0], epochs, loss, colour, linestyle)
            self.lines_[name].set_label(name)
        self.axes_[0].set(ylabel="loss", yscale="log" if log_scale else "linear", title=self.title)
        if rates is not None:
            self.lines_["learning rate"] = self._draw_curve(
                self.axes_[1], epochs, rates, _GREY, "-"
            )
            self.axes_[1].set(ylabel="learning rate", yscale="log")
            self.axes_[0].sharex(self.axes_[1])
            self.axes_[0].tick_params(labelbottom=False)
        self._draw_best()
        self.axes_[-1].set_xlabel("epoch")
        self.axes_[-1].xaxis.get_major_locator().set_params(integer=True)
        self.axes_[0].legend(frameon=False)
        return self

    def _draw_curve(self, axes, epochs, values, colour, linestyle):
        """Draw a line, or a mark where there is a single epoch."""
        axes.spines[["top", "right"]].set_visible(False)
        marker = "o" if len(epochs) == 1 else None
        (line,) = axes.plot(epochs, values, color=colour, linestyle=linestyle, marker=marker)
        return line

    def _draw_best(self):
        self.best_line_ = None
        if self.best_epoch is None:
            return
        for axes in self.axes_[::-1]:  # the one that is kept is that of the losses
            self.best_line_ = axes.axvline(self.best_epoch, color=_GREY, linestyle=":")
        self.best_line_.set_label(f"best epoch ({self.best_epoch})")


def _curve(values, name):
    if np.ndim(values) != 1 or len(values) == 0:
        raise ValueError(
            f"{name} must have shape (n_epochs,), one number for each epoch. "
            f"Got shape {np.shape(values)} instead."
        )
    return check_array(
        values, dtype=np.float64, ensure_2d=False, ensure_all_finite=False, input_name=name
    )

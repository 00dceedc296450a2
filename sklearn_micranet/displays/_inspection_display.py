"""InspectionDisplay: how much is found by looking at little."""

from numbers import Integral, Real

import numpy as np
from sklearn.utils import check_array
from sklearn.utils.validation import check_consistent_length

from sklearn_micranet._stack._numbers import check_scalar
from sklearn_micranet.metrics import inspection_curve

from ._axes import pyplot, single_axes
from ._estimators import respond


class InspectionDisplay:
    """Share of the objects found against the share of the area that an expert inspects.

    It is recommended to use :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    inspected : array-like of shape (n_thresholds + 1,)
        Share of the area in [0, 1], from :func:`~sklearn_micranet.metrics.inspection_curve`.
    recall : array-like of shape (n_thresholds + 1,)
        Share of the objects in [0, 1], likewise.
    name : str, default=None
        Name of the curve, for the legend.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the curve.
    figure_ : matplotlib Figure
        Figure of these axes.
    line_ : matplotlib Line2D
        The curve.
    chance_level_ : matplotlib Line2D or None
        Inspection in random order.
    inspected_at_target_ : float or None
        Share of the area after which the target is reached, NaN if it never is; ``None`` without
        a target.

    See Also
    --------
    write_decisions : A list of what to inspect, to be accepted or declined.

    Examples
    --------
    Ten windows of 100 px each, of which the network ranks four as follows:

    >>> from sklearn_micranet.displays import InspectionDisplay
    >>> display = InspectionDisplay.from_predictions(
    ...     [0.9, 0.8, 0.7, 0.6], [1, 1, 0, 1], areas=100, total_area=1000, target_recall=1
    ... )
    >>> display.inspected_at_target_
    0.4
    """

    def __init__(self, inspected, recall, *, name=None):
        self.inspected = inspected
        self.recall = recall
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y,
        *,
        pos_label=None,
        map_index=None,
        total_area=None,
        name=None,
        ax=None,
        **plot_params,
    ):
        """Rank windows by the probability of a class and draw the curve.

        Parameters
        ----------
        estimator : fitted classifier
            It has `predict_proba` and `classes_`, such as a MicraNetClassifier.
        X : array-like of shape (n_windows, height, width[, n_channels])
            Windows of one size, such as the crops of
            :func:`~sklearn_micranet.images.extract_crops`.
        y : array-like of shape (n_windows,) or (n_windows, n_classes)
            Their true labels.
        pos_label : label, default=None
            Class to look for, of labels of shape (n_windows,). ``None`` stands for 1 or True where
            the labels are two of -1, 0 and 1.
        map_index : int, default=None
            Column to look for, of an indicator matrix.
        total_area : float, default=None
            Area of all images, px; ``None`` stands for that of the windows, which must not overlap.
        name : str, default=None
            Name of the curve; ``None`` takes the name of the estimator's class.
        ax : matplotlib Axes, default=None
            Axes to draw on; ``None`` makes a new figure.
        **plot_params : dict
            Passed to :meth:`plot`.

        Returns
        -------
        display : InspectionDisplay
        """
        pyplot()
        check_consistent_length(X, y)
        y = np.asarray(y)
        column, is_true = _column_and_truth(
            y, getattr(estimator, "classes_", ()), pos_label, map_index
        )
        shape = np.shape(X)
        if len(shape) not in (3, 4):
            raise ValueError(
                "X must hold windows of one size, (n_windows, height, width[, n_channels]). Got "
                f"shape {shape} instead: use from_predictions with the areas."
            )
        area = shape[1] * shape[2]
        return cls.from_predictions(
            respond(estimator, X, "predict_proba")[:, column],
            is_true,
            areas=area,
            total_area=area * len(y) if total_area is None else total_area,
            name=type(estimator).__name__ if name is None else name,
            ax=ax,
            **plot_params,
        )

    @classmethod
    def from_predictions(
        cls,
        scores,
        is_true,
        *,
        areas,
        total_area,
        n_true=None,
        name=None,
        ax=None,
        **plot_params,
    ):
        """Draw the curve of windows or objects that were scored before.

        Parameters
        ----------
        scores : array-like of shape (n_proposals,)
            Scores of the windows or objects; the higher, the earlier it is inspected.
        is_true : array-like of shape (n_proposals,), bool or 0/1
            Whether a window holds an object, or whether an object is a true one; with an expert's
            list, ``decision == "accept"``.
        areas : float or array-like of shape (n_proposals,)
            Area that has to be inspected for each, > 0, px or any other unit.
        total_area : float
            Area of all images, in the same unit.
        n_true : int, default=None
            Number of true ones, those that nobody proposed included; ``None`` stands for the
            number of true ones among the proposals.
        name : str, default=None
            Name of the curve.
        ax : matplotlib Axes, default=None
            Axes to draw on; ``None`` makes a new figure.
        **plot_params : dict
            Passed to :meth:`plot`.

        Returns
        -------
        display : InspectionDisplay
        """
        pyplot()
        curve = inspection_curve(scores, is_true, areas=areas, total_area=total_area, n_true=n_true)
        return cls(curve.inspected, curve.recall, name=name).plot(ax, **plot_params)

    def plot(self, ax=None, *, target_recall=None, plot_chance_level=True, **line_params):
        """Draw the curve.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; ``None`` makes a new figure.
        target_recall : float, default=None
            Recall in (0, 1] for which the share of the area to inspect is marked and told.
        plot_chance_level : bool, default=True
            Whether to draw the recall of an inspection in random order.
        **line_params : dict
            Passed to matplotlib's `plot`.

        Returns
        -------
        self : InspectionDisplay
        """
        plt = pyplot()
        if target_recall is not None:
            bounds = {"min_val": 0, "max_val": 1, "include_boundaries": "right"}
            check_scalar(target_recall, "target_recall", Real, **bounds)
        inspected, recall = self._check_curve()

        self.ax_ = single_axes(ax)
        self.figure_ = self.ax_.figure
        self.chance_level_ = None
        if plot_chance_level:
            style = {"color": "0.35", "linestyle": ":", "label": "random order"}
            (self.chance_level_,) = self.ax_.plot([0, 1], [0, 1], **style)
        params = {"drawstyle": "steps-post", "label": self.name, **line_params}
        (self.line_,) = self.ax_.plot(inspected, recall, **params)
        self.inspected_at_target_ = None
        if target_recall is not None:
            reached = np.flatnonzero(recall >= target_recall - 1e-9)
            self.inspected_at_target_ = float(inspected[reached[0]]) if len(reached) else np.nan
            self._mark_target(target_recall)
        percent = plt.matplotlib.ticker.PercentFormatter
        self.ax_.xaxis.set_major_formatter(percent(1))
        self.ax_.yaxis.set_major_formatter(percent(1))
        self.ax_.set(
            xlabel="area inspected",
            ylabel="objects found",
            xlim=(0, inspected[-1] or 1),
            ylim=(0, 1.02),
        )
        self.ax_.spines[["top", "right"]].set_visible(False)
        if self.ax_.get_legend_handles_labels()[1]:
            self.ax_.legend(loc="best", facecolor="white", edgecolor="none", framealpha=0.9)
        return self

    def _check_curve(self):
        inspected, recall = (
            check_array(
                values, dtype=np.float64, ensure_2d=False, ensure_all_finite=False, input_name=name
            )
            for name, values in (("inspected", self.inspected), ("recall", self.recall))
        )
        if inspected.ndim != 1 or inspected.shape != recall.shape:
            raise ValueError(
                "inspected and recall must both have shape (n_thresholds + 1,). Got "
                f"{inspected.shape} and {recall.shape} instead."
            )
        return inspected, recall

    def _mark_target(self, target_recall):
        at = self.inspected_at_target_
        words = f"{target_recall:.0%} found " + (
            "never" if np.isnan(at) else f"after {at:.1%} of the area"
        )
        self.ax_.plot(
            [0, at, at], [target_recall, target_recall, 0], "--", color="0.35", linewidth=1
        )
        self.ax_.plot(at, target_recall, "o", color=self.line_.get_color(), label=words)


def _column_and_truth(y, classes, pos_label, map_index):
    """Return the column of predict_proba to rank by, and whether each window holds that class."""
    if y.ndim == 2:
        if map_index is None:
            raise ValueError(
                f"y has {y.shape[1]} columns. Got map_index=None instead of the one to look for, "
                f"0 to {y.shape[1] - 1}."
            )
        check_scalar(map_index, "map_index", Integral, min_val=0, max_val=y.shape[1] - 1)
        return map_index, y[:, map_index]
    classes = list(classes)
    if pos_label is None:
        if len(classes) != 2 or not set(classes) <= {-1, 0, 1}:
            raise ValueError(
                f"pos_label must be one of {np.array(classes).tolist()}, the class to look for. "
                "Got None instead."
            )
        pos_label = classes[1]
    if pos_label not in classes:
        raise ValueError(
            f"pos_label must be one of {np.array(classes).tolist()}. Got {pos_label!r} instead."
        )
    return classes.index(pos_label), y == pos_label

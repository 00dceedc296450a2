"""DetectionPrecisionRecallDisplay: precision and recall of detections from each score up."""

import numpy as np
from sklearn.utils import check_array
from sklearn.utils.validation import check_consistent_length

from sklearn_micranet.metrics import detection_precision_recall_curve

from ._axes import pyplot, single_axes
from ._estimators import respond


class DetectionPrecisionRecallDisplay:
    r"""Precision against recall of detections, as the score from which they count rises.

    It is recommended to use :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    precision : array-like of shape (n_thresholds + 1,)
        Precision in [0, 1], from
        :func:`~sklearn_micranet.metrics.detection_precision_recall_curve`.
    recall : array-like of shape (n_thresholds + 1,)
        Recall in [0, 1], likewise: never rising, 0 at last.
    average_precision : float, default=None
        Area under the steps of the curve, for the legend.
    name : str, default=None
        Name of the curve, for the legend.
    max_distance : float, default=None
        Largest distance in px of a detection from its true position, for the axes' labels.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the curve.
    figure_ : matplotlib Figure
        Figure of these axes.
    line_ : matplotlib Line2D
        The curve.

    See Also
    --------
    sklearn.metrics.PrecisionRecallDisplay : The same for the labels of whole images.

    Notes
    -----
    The average precision is :math:`\sum_n (R_n - R_{n-1}) P_n`, without interpolation, as in
    :func:`sklearn.metrics.average_precision_score`. Objects that no detection is near are never
    recalled, so that it is at most the recall of all detections.

    Examples
    --------
    >>> from sklearn_micranet.displays import DetectionPrecisionRecallDisplay
    >>> display = DetectionPrecisionRecallDisplay.from_predictions(
    ...     [[[0, 10, 10], [0, 40, 40]]],
    ...     [[[0, 11, 10, 0.9], [0, 25, 25, 0.75], [0, 40, 41, 0.5]]],
    ...     max_distance=3,
    ... )
    >>> round(display.average_precision, 2)
    0.83
    """

    def __init__(self, precision, recall, *, average_precision=None, name=None, max_distance=None):
        self.precision = precision
        self.recall = recall
        self.average_precision = average_precision
        self.name = name
        self.max_distance = max_distance

    @classmethod
    def from_estimator(cls, estimator, X, y, *, max_distance, name=None, ax=None, **line_params):
        """Detect objects and draw how precision and recall depend on their scores.

        Parameters
        ----------
        estimator : fitted estimator or Pipeline
            From images to detections, such as a pipeline that ends with a HungarianDetector.
        X : array-like or list of n_samples ndarray
            Images.
        y : list of n_samples array-like of shape (n_objects, 3), or array-like of shape \
                (n_samples, n_maps, height, width)
            True positions, rows (map index, row, column), px; or masks or instances.
        max_distance : float
            Largest distance in px between a detection and its true position, inclusive.
        name : str, default=None
            Name of the curve; ``None`` takes the name of the estimator's class.
        ax : matplotlib Axes, default=None
            Axes to draw on; ``None`` makes a new figure.
        **line_params : dict
            Passed to matplotlib's `plot`.

        Returns
        -------
        display : DetectionPrecisionRecallDisplay
        """
        pyplot()
        check_consistent_length(X, y)
        return cls.from_predictions(
            y,
            respond(estimator, X, "predict"),
            max_distance=max_distance,
            name=type(estimator).__name__ if name is None else name,
            ax=ax,
            **line_params,
        )

    @classmethod
    def from_predictions(
        cls, points_true, points_pred, *, max_distance, name=None, ax=None, **line_params
    ):
        """Draw the curve of objects that were detected before.

        Parameters
        ----------
        points_true : list of n_samples array-like of shape (n_objects, 3), or array-like of \
                shape (n_samples, n_maps, height, width)
            True positions, rows (map index, row, column), px; or masks or instances.
        points_pred : list of n_samples array-like of shape (n_detections, 4)
            Detections, rows (map index, row, column, score), px.
        max_distance : float
            Largest distance in px between a detection and its true position, inclusive.
        name : str, default=None
            Name of the curve.
        ax : matplotlib Axes, default=None
            Axes to draw on; ``None`` makes a new figure.
        **line_params : dict
            Passed to matplotlib's `plot`.

        Returns
        -------
        display : DetectionPrecisionRecallDisplay
        """
        pyplot()
        precision, recall, _ = detection_precision_recall_curve(
            points_true, points_pred, max_distance=max_distance
        )
        display = cls(
            precision,
            recall,
            average_precision=float(np.sum((recall[:-1] - recall[1:]) * precision[:-1])),
            name=name,
            max_distance=max_distance,
        )
        return display.plot(ax, **line_params)

    def plot(self, ax=None, **line_params):
        """Draw the curve.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; ``None`` makes a new figure.
        **line_params : dict
            Passed to matplotlib's `plot`.

        Returns
        -------
        self : DetectionPrecisionRecallDisplay
        """
        pyplot()
        precision, recall = (
            check_array(values, dtype=np.float64, ensure_2d=False, input_name=name)
            for name, values in (("precision", self.precision), ("recall", self.recall))
        )
        if precision.ndim != 1 or precision.shape != recall.shape:
            raise ValueError(
                "precision and recall must both have shape (n_thresholds + 1,). Got "
                f"{precision.shape} and {recall.shape} instead."
            )
        score = f"AP = {self.average_precision:.2f}" if self.average_precision is not None else None
        label = f"{self.name} ({score})" if self.name and score else self.name or score
        self.ax_ = single_axes(ax)
        self.figure_ = self.ax_.figure
        params = {"drawstyle": "steps-post", "label": label, **line_params}
        (self.line_,) = self.ax_.plot(recall, precision, **params)
        within = f" (within {self.max_distance:g} px)" if self.max_distance is not None else ""
        self.ax_.set(
            xlabel=f"recall{within}",
            ylabel="precision",
            xlim=(-0.01, 1.01),
            ylim=(-0.01, 1.01),
            aspect="equal",
        )
        self.ax_.spines[["top", "right"]].set_visible(False)
        if label:
            self.ax_.legend(loc="best", frameon=False)
        return self

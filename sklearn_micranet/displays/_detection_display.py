"""DetectionDisplay: detections over an image."""

from numbers import Real

import numpy as np

from sklearn_micranet._stack._numbers import check_scalar
from sklearn_micranet.metrics._regions import as_points

from ._axes import FALSE_ALARM, HIT, MISS, class_style, dark_casing, pyplot
from ._estimators import check_names, map_names, respond
from ._image_display import ImageDisplay
from ._outlines import check_objects
from ._points import check_points, compare_points

_EDGE = 0.1  # share of the image along each edge where names are written inwards


class DetectionDisplay(ImageDisplay):
    """Detections over their image, and which of them are right.

    It is recommended to use :meth:`from_estimator` or :meth:`from_predictions`.

    Without true positions, a cross marks each detection, in the colour of its class. With true
    positions and `max_distance`, detections are matched one-to-one with them within each class, as
    :func:`~sklearn_micranet.metrics.detection_scores` does. A cross is then a detection, a circle
    of radius `max_distance` a true position; colours that colour-blind people can tell apart say
    which are matched, missed or false alarms. A line joins a detection with its true position.

    Parameters
    ----------
    image : array-like of shape (height, width) or (height, width, n_channels)
        One image, of any real dtype.
    detections : array-like of shape (n_detections, 4) or (n_detections, 3)
        Rows (map index, row, column, score), px; the score is not needed. ``[]`` for none.
    points_true : array-like of shape (n_objects, 3) or (n_maps, height, width), default=None
        True positions, rows (map index, row, column), px; ``[]`` for none. Or true masks or
        instances, whose objects have the positions that
        :func:`~sklearn_micranet.metrics.detection_scorer` describes.
    max_distance : float, default=None
        Largest distance in px between a detection and its true position, inclusive.
    class_names : array-like of str of shape (n_maps,), default=None
        Names for the legend. Where several classes are compared with true positions, they are
        written beside the marks, as the colours do not tell them then.
    title : str, default=None
        Title of the axes.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the image.
    figure_ : matplotlib Figure
        Figure of these axes.
    image_ : matplotlib AxesImage
        The image.
    marks_ : dict
        The PathCollection of the crosses of each class by its name or, with true positions, of
        "matched" and "false alarm".
    circles_ : dict
        The LineCollection of the circles of "matched" and "missed" true positions.

    See Also
    --------
    DetectionPrecisionRecallDisplay : Precision and recall from each score up.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_micranet.displays import DetectionDisplay
    >>> images = np.random.default_rng(0).random((1, 32, 32))
    >>> display = DetectionDisplay.from_predictions(
    ...     images,
    ...     [[[0, 10, 11, 0.9], [0, 25, 25, 0.4]]],
    ...     points_true=[[[0, 9, 9]]],
    ...     max_distance=4,
    ... )
    >>> [text.get_text() for text in display.ax_.get_legend().get_texts()]
    ['matched: 1', 'missed: 0', 'false alarm: 1']
    """

    _DRAWN, _TRUE = "detections", "points_true"

    def __init__(
        self,
        image,
        detections,
        *,
        points_true=None,
        max_distance=None,
        class_names=None,
        title=None,
    ):
        self.image = image
        self.detections = detections
        self.points_true = points_true
        self.max_distance = max_distance
        self.class_names = class_names
        self.title = title

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y=None,
        *,
        sample=0,
        max_distance=None,
        class_names=None,
        ax=None,
        **plot_params,
    ):
        """Detect the objects of one image and draw them.

        Parameters
        ----------
        estimator : fitted estimator or Pipeline
            From images to detections, such as a pipeline that ends with a HungarianDetector.
        X : array-like or list of n_samples ndarray
            Images.
        y : list of n_samples array-like of shape (n_objects, 3), or array-like of shape \
                (n_samples, n_maps, height, width), default=None
            True positions, rows (map index, row, column), px; or masks or instances.
        sample : int, default=0
            Which image is drawn; no other is computed.
        max_distance : float, default=None
            Largest distance in px between a detection and its true position; required with `y`.
        class_names : array-like of str of shape (n_maps,), default=None
            Names for the legend. ``None`` takes those of the estimator, if it has any.
        ax : matplotlib Axes, default=None
            Axes to draw on; ``None`` makes a new figure.
        **plot_params : dict
            Passed to :meth:`plot`, such as `pixel_size`.

        Returns
        -------
        display : DetectionDisplay
        """
        pyplot()
        image, _, true = cls._pick(X, y, sample)
        display = cls(
            image,
            respond(estimator, image[np.newaxis], "predict")[0],
            points_true=true,
            max_distance=max_distance,
            class_names=map_names(estimator) if class_names is None else class_names,
            title=f"image {sample}",
        )
        return display.plot(ax, **plot_params)

    @classmethod
    def from_predictions(
        cls,
        images,
        detections,
        *,
        points_true=None,
        max_distance=None,
        sample=0,
        class_names=None,
        ax=None,
        **plot_params,
    ):
        """Draw objects that were detected before.

        Parameters
        ----------
        images : array-like of shape (n_samples, height, width[, n_channels]) or list
            Images, of one size or, in a list, of several.
        detections : list of n_samples array-like of shape (n_detections, 4)
            Rows (map index, row, column, score), px, from
            :meth:`~sklearn_micranet.HungarianDetector.predict`.
        points_true : list of n_samples array-like of shape (n_objects, 3), or array-like of \
                shape (n_samples, n_maps, height, width), default=None
            True positions, rows (map index, row, column), px; or masks or instances.
        max_distance : float, default=None
            Largest distance in px between a detection and its true position; required with
            `points_true`.
        sample : int, default=0
            Which image is drawn.
        class_names : array-like of str of shape (n_maps,), default=None
            Names for the legend.
        ax : matplotlib Axes, default=None
            Axes to draw on; ``None`` makes a new figure.
        **plot_params : dict
            Passed to :meth:`plot`, such as `pixel_size`.

        Returns
        -------
        display : DetectionDisplay
        """
        pyplot()
        image, found, true = cls._pick(images, points_true, sample, detections)
        display = cls(
            image,
            found,
            points_true=true,
            max_distance=max_distance,
            class_names=class_names,
            title=f"image {sample}",
        )
        return display.plot(ax, **plot_params)

    def _prepare(self, size, map_index):
        """Return the rows drawn, by the names or classes of what they are, and class names."""
        found = check_points(self.detections, "detections", (3, 4))
        is_compared = self.points_true is not None
        true = self.points_true if is_compared else []
        if np.ndim(true) == 3:
            [true] = as_points([check_objects(true, "points_true", size)], "points_true")
        true = check_points(true, "points_true", (3,))
        if is_compared == (self.max_distance is None):
            raise ValueError(
                "points_true and max_distance are required together. Got only one of them instead."
            )
        if is_compared:
            check_scalar(self.max_distance, "max_distance", Real, min_val=0)
            if not np.isfinite(self.max_distance):
                raise ValueError(f"max_distance must be finite. Got {self.max_distance} instead.")
        n_maps = 1 + int(max(found[:, 0].max(initial=0), true[:, 0].max(initial=0)))
        names = self.class_names
        names = check_names(names, n_maps if names is None else max(n_maps, len(names)))
        if map_index is not None:
            found, true = (rows[rows[:, 0] == map_index] for rows in (found, true))
        if is_compared:
            parts = compare_points(found, true, self.max_distance)
        else:
            parts = {k: found[found[:, 0] == k] for k in np.unique(found[:, 0]).astype(int)}
        return parts, names, map_index is None

    def _draw(self, prepared):
        parts, names, is_any_class = prepared
        self.ax_.autoscale(False)  # a circle may reach beyond the image
        self.marks_, self.circles_ = {}, {}
        if self.points_true is None:
            for k, rows in parts.items():
                self.marks_[names[k]] = self._draw_crosses(rows, *class_style(k), names[k])
            is_told = len(names) > 1 or self.class_names is not None
            return [*self.marks_.values()] if is_told else []
        if len(names) > 1 and is_any_class:
            self._write_names(np.concatenate([parts["matched"], parts["false alarm"]]), names)
            # Where an object is taken for one of another class, both names can be read.
            self._write_names(parts["missed"], names, is_left=True)
        return self._draw_compared(parts)

    def _draw_compared(self, parts):
        from matplotlib.collections import LineCollection

        pairs = np.stack([parts["matched"][:, 1:3], parts["matched true"][:, 1:3]], axis=1)
        lines = LineCollection(
            pairs[..., ::-1], colors=HIT, linewidths=1.2, path_effects=dark_casing(1.2)
        )
        self.ax_.add_collection(lines, autolim=False)
        self.circles_["matched"] = self._draw_circles(parts["matched true"], HIT, "-")
        self.circles_["missed"] = self._draw_circles(parts["missed"], MISS, "--")
        n = {name: len(rows) for name, rows in parts.items()}
        missed = self._draw_missed(parts["missed"], f"missed: {n['missed']}")
        for name, colour in (("matched", HIT), ("false alarm", FALSE_ALARM)):
            self.marks_[name] = self._draw_crosses(parts[name], colour, False, f"{name}: {n[name]}")
        return [self.marks_["matched"], missed, self.marks_["false alarm"]]

    def _draw_crosses(self, rows, colour, is_upright, label):
        return self.ax_.scatter(
            rows[:, 2],
            rows[:, 1],
            s=36,
            marker="+" if is_upright else "x",
            color=colour,
            linewidths=1.8,
            path_effects=dark_casing(1.8),
            clip_on=False,
            label=label,
        )

    def _draw_missed(self, rows, label):
        """Mark the missed, too: on a large image their circles may be too small to be seen."""
        return self.ax_.scatter(
            rows[:, 2],
            rows[:, 1],
            s=30,
            marker="o",
            facecolors="none",
            edgecolors=MISS,
            linewidths=1.8,
            path_effects=dark_casing(1.8),
            clip_on=False,
            label=label,
        )

    def _draw_circles(self, rows, colour, linestyle):
        from matplotlib.collections import EllipseCollection

        diameter = np.full(len(rows), 2.0 * self.max_distance)
        circles = EllipseCollection(
            diameter,
            diameter,
            np.zeros(len(rows)),
            units="xy",
            offsets=rows[:, 2:0:-1],
            offset_transform=self.ax_.transData,
            facecolors="none",
            edgecolors=colour,
            linestyles=linestyle,
            linewidths=1.2,
            path_effects=dark_casing(1.2),
        )
        return self.ax_.add_collection(circles, autolim=False)

    def _write_names(self, rows, names, is_left=False):
        """Write the class beside each mark and inside the image, as the colour does not tell it."""
        style = {"color": "white", "size": "small", "path_effects": dark_casing(0.5)}
        height, width = np.shape(self.image)[:2]
        for k, y, x in rows:
            goes_left = x > (_EDGE if is_left else 1 - _EDGE) * width
            goes_down = y < (1 - _EDGE if is_left else _EDGE) * height
            self.ax_.annotate(
                names[int(k)],
                (x, y),
                (-4 if goes_left else 4, -3 if goes_down else 3),
                textcoords="offset points",
                ha="right" if goes_left else "left",
                va="top" if goes_down else "bottom",
                **style,
            )

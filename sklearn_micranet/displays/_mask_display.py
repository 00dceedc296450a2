"""MaskDisplay: outlines over an image."""

from collections import namedtuple
from numbers import Integral

import numpy as np

from sklearn_micranet._stack._numbers import check_scalar
from sklearn_micranet.metrics import match_instances
from sklearn_micranet.metrics._regions import as_instances

from ._axes import FALSE_ALARM, HIT, MISS, class_style, pyplot
from ._estimators import check_names, map_names, respond
from ._image import image_like
from ._image_display import ImageDisplay
from ._outlines import check_objects, draw_outlines

_COLOURS = {"found": HIT, "missed": MISS, "false alarm": FALSE_ALARM}

_FILL = 0.35  # opacity of areas, low enough that the image is seen through them
_FILL_ERROR = 0.8  # of missed pixels and false alarms, often a rim of a single pixel
_MIN_IOU = 0.5


class MaskDisplay(ImageDisplay):
    """Outlines of masks or instances over their image.

    It is recommended to use :meth:`from_estimator` or :meth:`from_predictions`.

    Outlines lie between the pixels inside and those outside, in a colour for each class. With
    true masks, one class is compared with them, in colours that colour-blind people can tell
    apart:

    - Masks (of dtype bool) are compared pixel by pixel, as the IoU does: areas are hits, misses
      or false alarms. The legend counts them as shares of the union, so that the share of the
      hits is the IoU.
    - Instances (integers) are compared object by object, as
      :func:`~sklearn_micranet.metrics.instance_scores` does: a found one has at least half of the
      union with its true object in common (IoU of 0.5). The legend counts objects. Where integers
      are 0 and 1 only, and in true masks, the objects are the connected components.

    Parameters
    ----------
    image : array-like of shape (height, width) or (height, width, n_channels)
        One image, of any real dtype.
    masks : array-like of shape (n_maps, height, width)
        Its masks, bool, or instances, integers from 1 on, 0 for background. Floats are segments:
        masks where they are not 0.
    masks_true : array-like of shape (n_maps, height, width), default=None
        Its true masks or instances.
    class_names : array-like of str of shape (n_maps,), default=None
        Names for the legend.
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
    outlines_ : dict
        The PathPatch of the outlines of each class that occurs, by its name, or, with true masks,
        of "found", "missed" and "false alarm" objects.
    overlay_ : matplotlib AxesImage or None
        The areas that are filled.

    See Also
    --------
    DetectionDisplay : Detections over an image.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_micranet.displays import MaskDisplay
    >>> images = np.random.default_rng(0).random((3, 32, 32))
    >>> masks = np.zeros((3, 1, 32, 32), dtype=bool)
    >>> masks[:, 0, 8:16, 8:20] = True
    >>> display = MaskDisplay.from_predictions(images, masks, sample=2, pixel_size=0.1)
    >>> display.figure_.savefig("masks.png")  # doctest: +SKIP
    """

    _DRAWN, _TRUE = "masks", "masks_true"

    def __init__(self, image, masks, *, masks_true=None, class_names=None, title=None):
        self.image = image
        self.masks = masks
        self.masks_true = masks_true
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
        response_method="predict",
        class_names=None,
        ax=None,
        **plot_params,
    ):
        """Predict the masks of one image and draw them.

        Parameters
        ----------
        estimator : fitted estimator or Pipeline
            From images to masks, such as a pipeline that ends with a ThresholdSegmenter.
        X : array-like or list of n_samples ndarray
            Images.
        y : array-like of shape (n_samples, n_maps, height, width) or list, default=None
            True masks or instances.
        sample : int, default=0
            Which image is drawn; no other is computed.
        response_method : str, default="predict"
            "predict" for masks, "predict_instances" for instances.
        class_names : array-like of str of shape (n_maps,), default=None
            Names for the legend. ``None`` takes those of the estimator, if it has any.
        ax : matplotlib Axes, default=None
            Axes to draw on; ``None`` makes a new figure.
        **plot_params : dict
            Passed to :meth:`plot`, such as `pixel_size`.

        Returns
        -------
        display : MaskDisplay
        """
        pyplot()
        image, _, true = cls._pick(X, y, sample)
        masks = np.asarray(respond(estimator, image[np.newaxis], response_method)[0])
        display = cls(
            image_like(image, masks.shape[-2:]),
            masks,
            masks_true=true,
            class_names=map_names(estimator, len(masks)) if class_names is None else class_names,
            title=f"image {sample}",
        )
        return display.plot(ax, **plot_params)

    @classmethod
    def from_predictions(
        cls,
        images,
        masks,
        *,
        masks_true=None,
        sample=0,
        class_names=None,
        ax=None,
        **plot_params,
    ):
        """Draw masks that were predicted before.

        Parameters
        ----------
        images : array-like of shape (n_samples, height, width[, n_channels]) or list
            Images, of one size or, in a list, of several.
        masks : array-like of shape (n_samples, n_maps, height, width) or list
            Their masks, segments or instances.
        masks_true : array-like of shape (n_samples, n_maps, height, width) or list, default=None
            True masks or instances.
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
        display : MaskDisplay
        """
        pyplot()
        image, found, true = cls._pick(images, masks_true, sample, masks)
        title = f"image {sample}"
        display = cls(image, found, masks_true=true, class_names=class_names, title=title)
        return display.plot(ax, **plot_params)

    def _prepare(self, size, map_index):
        """Return the parts to be outlined."""
        masks = check_objects(self.masks, "masks", size)
        names = check_names(self.class_names, len(masks))
        maps = _chosen_maps(map_index, len(masks), self.masks_true is not None)
        if self.masks_true is None:
            is_told = len(masks) > 1 or self.class_names is not None
            return [
                _Part(names[k], masks[k], colour, _FILL * is_set_off, True, names[k] * is_told)
                for k, (colour, is_set_off) in zip(maps, map(class_style, maps), strict=True)
                if masks[k].any()
            ]
        true = check_objects(self.masks_true, "masks_true", size)
        if len(true) != len(masks):
            raise ValueError(
                f"masks_true must have as many maps as masks, {len(masks)}. Got {len(true)} "
                "instead."
            )
        if masks.dtype == bool:
            return _compare_pixels(masks[maps[0]], true[maps[0]] != 0)
        [masks], [true] = as_instances([masks], "masks"), as_instances([true], "masks_true")
        return _compare_objects(masks[maps[0]], true[maps[0]])

    def _draw(self, parts):
        from matplotlib.colors import to_rgba
        from matplotlib.patches import Patch

        overlay = np.zeros((*np.shape(self.image)[:2], 4))
        self.outlines_, self.overlay_, handles = {}, None, []
        for part in parts:
            edge = to_rgba(part.colour, float(part.is_outlined))
            face = to_rgba(part.colour, part.opacity)
            if part.opacity:
                overlay[part.labels != 0] = face
            if part.is_outlined:
                self.outlines_[part.name] = draw_outlines(self.ax_, part.labels, part.colour)
            if part.label:
                # A light colour that the image shines through is hardly seen on white paper.
                shown = face if part.is_outlined else part.colour
                handles.append(
                    Patch(edgecolor=edge, facecolor=shown, linewidth=2, label=part.label)
                )
        if overlay.any():
            self.overlay_ = self.ax_.imshow(overlay, interpolation="nearest")
        return handles


_Part = namedtuple("_Part", "name labels colour opacity is_outlined label")


def _chosen_maps(map_index, n_maps, is_compared):
    """Return the indices of the maps to draw."""
    if map_index is not None:
        check_scalar(map_index, "map_index", Integral, min_val=0, max_val=n_maps - 1)
        return [map_index]
    if is_compared and n_maps > 1:
        raise ValueError(
            "One class at a time is compared with true masks. Got masks of "
            f"{n_maps} classes and no map_index instead: pass one of 0 to {n_maps - 1}."
        )
    return range(n_maps)


def _compare_pixels(mask, true):
    """Return the pixels found, missed and found in error; they are told as shares of the union."""
    n_union = max(1, np.count_nonzero(mask | true))
    areas = {"found": mask & true, "missed": true & ~mask, "false alarm": mask & ~true}
    labels = {name: f"{name}: {area.sum() / n_union:.0%}" for name, area in areas.items()}
    labels["found"] += " (IoU)"
    opacities = {"found": _FILL, "missed": _FILL_ERROR, "false alarm": _FILL_ERROR}
    return [
        _Part(name, area, _COLOURS[name], opacities[name], False, labels[name])
        for name, area in areas.items()
    ]


def _compare_objects(instances, true):
    """Return the objects found, missed and found in error, with their numbers."""
    true_found, pred_found, _ = match_instances(true, instances, threshold=_MIN_IOU)
    objects = {
        "found": np.where(np.isin(instances, pred_found), instances, 0),
        "missed": np.where(np.isin(true, true_found), 0, true),
        "false alarm": np.where(np.isin(instances, pred_found), 0, instances),
    }
    counts = {name: len(np.unique(labels[labels != 0])) for name, labels in objects.items()}
    return [
        _Part(name, labels, _COLOURS[name], 0, True, f"{name}: {counts[name]}")
        for name, labels in objects.items()
    ]

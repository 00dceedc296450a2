"""LocalMapsDisplay: where each layer sees a class."""

from numbers import Integral

import numpy as np
from sklearn.pipeline import Pipeline

from sklearn_micranet._stack._numbers import check_scalar

from ._axes import pyplot, several_axes
from ._estimators import check_names, map_names
from ._image import (
    check_image,
    check_percentiles,
    check_scale,
    image_like,
    pick_sample,
    show_image,
)

_N_LAYERS = 8  # of one network, L1 to L8


class LocalMapsDisplay:
    """An image, what the layers of the network see of one class in it, and the feature map.

    It is recommended to use :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    image : array-like of shape (height, width) or (height, width, n_channels)
        One image, of any real dtype.
    local_maps : array-like of shape (n_maps, n_layers, height, width)
        Its local maps.
    feature_map : array-like of shape (n_maps, height, width), default=None
        Its feature map.
    layer_names : sequence of str of length n_layers, default=None
        Names of the layers; "L1" to "L8" if there are eight.
    class_names : array-like of str of shape (n_maps,), default=None
        Names for the title of the image.
    title : str, default=None
        Title of the image, before the name of the class.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        The image, one for each layer, and the feature map.
    figure_ : matplotlib Figure
        Figure of these axes.
    images_ : list of matplotlib AxesImage
        What is drawn on each of the axes.
    colorbar_ : matplotlib Colorbar or None
        The colours of the maps.

    See Also
    --------
    MaskDisplay : Outlines over an image.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_micranet.displays import LocalMapsDisplay
    >>> rng = np.random.default_rng(0)
    >>> images, local_maps = rng.random((2, 32, 32)), rng.random((2, 3, 8, 32, 32))
    >>> display = LocalMapsDisplay.from_predictions(
    ...     images, local_maps, sample=1, map_index=2, layers=["L2", "L8"]
    ... )
    >>> [ax.get_title() for ax in display.axes_]
    ['image 1, class 2', 'L2', 'L8']
    """

    def __init__(
        self,
        image,
        local_maps,
        *,
        feature_map=None,
        layer_names=None,
        class_names=None,
        title=None,
    ):
        self.image = image
        self.local_maps = local_maps
        self.feature_map = feature_map
        self.layer_names = layer_names
        self.class_names = class_names
        self.title = title

    @classmethod
    def from_estimator(cls, estimator, X, *, sample=0, class_names=None, ax=None, **plot_params):
        """Compute the maps of one image and draw them.

        Parameters
        ----------
        estimator : fitted GradCAMFeatureTransformer, GuidedFeatureMap or Pipeline
            From images to local maps. Of a pipeline, the step after them gives the feature map. A
            GuidedFeatureMap makes no local maps: its feature map is drawn alone.
        X : array-like or list of n_samples ndarray
            Images.
        sample : int, default=0
            Which image is drawn; no other is computed.
        class_names : array-like of str of shape (n_maps,), default=None
            Names for the title of the image. ``None`` takes those of the estimator, if it has any.
        ax : matplotlib Axes or array-like of these, default=None
            One is split; ``None`` makes a new figure.
        **plot_params : dict
            Passed to :meth:`plot`, such as `map_index` and `layers`.

        Returns
        -------
        display : LocalMapsDisplay
        """
        pyplot()
        image = pick_sample(X, sample, "images")
        local_maps, feature_map = _maps_of(estimator, image[np.newaxis])
        feature_map = None if feature_map is None else np.asarray(feature_map[0])
        if local_maps is None:
            maps, layer_names = np.empty((len(feature_map), 0, *feature_map.shape[1:])), []
        else:
            maps = np.asarray(local_maps[0])
            layer_names = getattr(local_maps, "layer_names", None)
        display = cls(
            image_like(image, maps.shape[-2:]),
            maps,
            feature_map=feature_map,
            layer_names=layer_names,
            class_names=map_names(estimator, len(maps)) if class_names is None else class_names,
            title=f"image {sample}",
        )
        return display.plot(ax, **plot_params)

    @classmethod
    def from_predictions(
        cls,
        images,
        local_maps,
        *,
        feature_maps=None,
        sample=0,
        layer_names=None,
        class_names=None,
        ax=None,
        **plot_params,
    ):
        """Draw maps that were computed before, or that are computed when read.

        Parameters
        ----------
        images : array-like of shape (n_samples, height, width[, n_channels]) or list
            Images, of one size or, in a list, of several.
        local_maps : array-like of shape (n_samples, n_maps, n_layers, height, width) or list
            Their local maps. Of a lazy stack, one sample is computed.
        feature_maps : array-like of shape (n_samples, n_maps, height, width) or list, default=None
            Their feature maps.
        sample : int, default=0
            Which image is drawn.
        layer_names : sequence of str of length n_layers, default=None
            Names of the layers; ``None`` takes those of the stack, or "L1" to "L8" of eight layers.
        class_names : array-like of str of shape (n_maps,), default=None
            Names for the title of the image.
        ax : matplotlib Axes or array-like of these, default=None
            One is split; ``None`` makes a new figure.
        **plot_params : dict
            Passed to :meth:`plot`, such as `map_index` and `layers`.

        Returns
        -------
        display : LocalMapsDisplay
        """
        pyplot()
        image = pick_sample(images, sample, "images")
        maps = pick_sample(local_maps, sample, "local_maps", len(images))
        if feature_maps is not None:
            feature_maps = pick_sample(feature_maps, sample, "feature_maps", len(images))
        if layer_names is None:
            layer_names = getattr(local_maps, "layer_names", None)
        display = cls(
            image,
            maps,
            feature_map=feature_maps,
            layer_names=layer_names,
            class_names=class_names,
            title=f"image {sample}",
        )
        return display.plot(ax, **plot_params)

    def plot(
        self,
        ax=None,
        *,
        map_index=0,
        layers=None,
        n_columns=5,
        cmap="magma",
        colorbar=True,
        channel=None,
        percentiles=(0.1, 99.9),
        pixel_size=None,
        unit="um",
    ):
        """Draw the image and the maps side by side.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of these, default=None
            One is split; as many as there are panels are used; ``None`` makes a new figure.
        map_index : int, default=0
            Which class is drawn, as an index of the maps.
        layers : sequence of str, default=None
            Names of the layers to draw, such as ``["L2", "L5", "L8"]``; ``None`` draws all.
        n_columns : int, default=5
            Number of panels in a row.
        cmap : str or matplotlib Colormap, default="magma"
            Colours of the maps, from dark to bright as the values rise. Each map spans all of
            them, from its lowest to its highest value.
        colorbar : bool, default=True
            Whether to draw a colour bar. Axes that are passed have none.
        channel : int, default=None
            Channel that is shown in grey. ``None`` shows three channels as red, green and blue.
        percentiles : tuple of two floats or None, default=(0.1, 99.9)
            Percentiles of the image that are shown black and white. ``None`` shows the whole
            range of the dtype, that is 0 to 1 for floats.
        pixel_size : float, default=None
            Width of a pixel, in `unit`, for the scale bar. ``None`` draws none.
        unit : {"um", "nm", "mm"}, default="um"
            Unit of `pixel_size`.

        Returns
        -------
        self : LocalMapsDisplay
        """
        pyplot()
        check_percentiles(percentiles)
        check_scale(pixel_size, unit)
        check_scalar(n_columns, "n_columns", Integral, min_val=1)
        image = check_image(self.image, channel)
        maps, class_name = self._check_maps(image.shape[:2], map_index, layers)

        aspect = image.shape[0] / image.shape[1]
        self.axes_ = several_axes(ax, 1 + len(maps), n_columns=n_columns, aspect=aspect)
        self.figure_ = self.axes_[0].figure
        scale = {"pixel_size": pixel_size, "unit": unit}
        self.images_ = [show_image(self.axes_[0], image, percentiles=percentiles, **scale)]
        self.axes_[0].set_title(", ".join(filter(None, [self.title, class_name])))
        for axes, (name, one) in zip(self.axes_[1:], maps.items(), strict=True):
            self.images_.append(axes.imshow(one, cmap=cmap, interpolation="nearest"))
            axes.set(xticks=[], yticks=[], title=name if np.any(one) else f"{name} (zero)")
        self.colorbar_ = self._draw_colorbar() if colorbar and ax is None and maps else None
        return self

    def _check_maps(self, size, map_index, layers):
        """Return the maps to draw by the names of their panels, and the name of the class."""
        maps = np.asarray(self.local_maps)
        is_empty = 0 in maps.shape and self.feature_map is None
        if maps.ndim != 4 or maps.shape[2:] != size or is_empty:
            raise ValueError(
                "Local maps of an image must have shape (n_maps, n_layers, height, width), here "
                f"(n_maps, n_layers, {size[0]}, {size[1]}). Got {maps.shape} instead. Pass images "
                "and maps as stacks or lists of the same samples."
            )
        check_scalar(map_index, "map_index", Integral, min_val=0, max_val=len(maps) - 1)
        all_names = self._check_layer_names(maps.shape[1])
        chosen = all_names if layers is None else list(layers)
        if unknown := [name for name in chosen if name not in all_names]:
            raise ValueError(f"layers must be some of {all_names}. Got {unknown} instead.")
        panels = {name: maps[map_index, all_names.index(name)] for name in chosen}
        if self.feature_map is not None:
            feature_map = np.asarray(self.feature_map)
            if feature_map.shape != (len(maps), *size):
                raise ValueError(
                    "The feature map of an image must have shape (n_maps, height, width), here "
                    f"{(len(maps), *size)}. Got {feature_map.shape} instead."
                )
            panels["feature map"] = feature_map[map_index]
        name = check_names(self.class_names, len(maps))[map_index]
        if self.class_names is not None:
            return panels, f"class {name}"
        return panels, name if len(maps) > 1 else None  # "class 0" would be no news

    def _check_layer_names(self, n_layers):
        if self.layer_names is None and n_layers == _N_LAYERS:
            return [f"L{i}" for i in range(1, n_layers + 1)]
        if self.layer_names is None or len(self.layer_names) != n_layers:
            raise ValueError(
                f"layer_names must hold one name for each of the {n_layers} layers. "
                f"Got {self.layer_names} instead."
            )
        return list(self.layer_names)

    def _draw_colorbar(self):
        bar = self.figure_.colorbar(self.images_[-1], ax=list(self.axes_), shrink=0.8, aspect=30)
        bar.set_ticks(self.images_[-1].get_clim(), labels=["lowest\nof a map", "highest\nof a map"])
        return bar


def _maps_of(estimator, X):
    """Return the local maps and the feature map, of which one may be None."""
    steps = iter(
        [s for _, s in estimator.steps] if isinstance(estimator, Pipeline) else [estimator]
    )
    output = X
    for step in steps:
        if not hasattr(step, "transform"):
            break
        output = step.transform(output)
        if np.ndim(output) == 5:
            following = next(steps, None)
            has_map = hasattr(following, "transform")
            return output, following.transform(output) if has_map else None
        if np.ndim(output) == 4 and hasattr(step, "map_classes_"):  # no image of several channels
            return None, output
    raise TypeError(
        "estimator must make local maps: a GradCAMFeatureTransformer or a GuidedFeatureMap, or a "
        f"pipeline with one. Got {type(estimator).__name__} without one instead."
    )

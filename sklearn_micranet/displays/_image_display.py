"""What displays of one image have in common."""

from numbers import Integral

from sklearn_micranet._stack._numbers import check_scalar

from ._axes import legend_below, pyplot, single_axes
from ._image import check_image, check_percentiles, check_scale, pick_sample, show_image

_PX_PER_INCH = 150  # of a large image, so that its objects are larger than the lines


class ImageDisplay:
    """An image with something drawn over it.

    A subclass has the attributes `image` and `title`, and two methods: ``_prepare(size,
    map_index)`` checks the rest against the image's (height, width) and returns what
    ``_draw(prepared)`` draws on `ax_`. The latter returns the handles of the legend. ``_DRAWN`` and
    ``_TRUE`` are the names of what is drawn and of what it is compared with.
    """

    @classmethod
    def _pick(cls, images, truth, sample, drawn=None):
        """Return one sample: its image, what is drawn and what that is compared with."""
        image = pick_sample(images, sample, "images")
        if drawn is not None:
            drawn = pick_sample(drawn, sample, cls._DRAWN, len(images))
        if truth is not None:
            truth = pick_sample(truth, sample, cls._TRUE, len(images))
        return image, drawn, truth

    def plot(
        self,
        ax=None,
        *,
        map_index=None,
        channel=None,
        percentiles=(0.1, 99.9),
        pixel_size=None,
        unit="um",
        legend=True,
    ):
        """Draw the image and what was found in it.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; ``None`` makes a new figure.
        map_index : int, default=None
            Which class is drawn, as an index of the maps; ``None`` draws all.
        channel : int, default=None
            Channel that is shown in grey. ``None`` shows three channels as red, green and blue.
        percentiles : tuple of two floats or None, default=(0.1, 99.9)
            Percentiles of the image that are shown black and white. ``None`` shows the whole
            range of the dtype, that is 0 to 1 for floats.
        pixel_size : float, default=None
            Width of a pixel, in `unit`, for the scale bar. ``None`` draws none.
        unit : {"um", "nm", "mm"}, default="um"
            Unit of `pixel_size`.
        legend : bool, default=True
            Whether to draw a legend below the image.

        Returns
        -------
        self : display
        """
        pyplot()
        check_percentiles(percentiles)
        check_scale(pixel_size, unit)
        if map_index is not None:
            check_scalar(map_index, "map_index", Integral, min_val=0)
        image = check_image(self.image, channel)
        prepared = self._prepare(image.shape[:2], map_index)

        height, width = image.shape[:2]
        inches = min(max(5.0, width / _PX_PER_INCH), 10.0)
        self.ax_ = single_axes(ax, height / width, inches)
        self.figure_ = self.ax_.figure
        self.image_ = show_image(
            self.ax_, image, percentiles=percentiles, pixel_size=pixel_size, unit=unit
        )
        handles = self._draw(prepared)
        if legend and handles:
            legend_below(self.ax_, handles)
        if self.title is not None:
            self.ax_.set_title(self.title)
        return self

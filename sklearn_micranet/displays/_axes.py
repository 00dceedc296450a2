"""Axes to draw on, and the colours of all displays."""

from math import ceil

import numpy as np

from sklearn_micranet._stack._extras import import_extra

# Okabe and Ito's colours, which colour-blind people can tell apart, without black, which vanishes
# on dark images. The brightest come first.
CLASS_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#D55E00", "#CC79A7", "#0072B2")
# Three of them that differ most, for every kind of colour blindness; a test measures it.
HIT, MISS, FALSE_ALARM = "#56B4E9", "#F0E442", "#D55E00"


_LEGEND_COLUMN = 1.2  # inches


def pyplot():
    """Import matplotlib.pyplot, or say how to install it."""
    return import_extra("matplotlib.pyplot", "plot")


def class_style(k):
    """Return the colour of class number `k`, and whether it has to be set off from another one.

    So fourteen classes look different.
    """
    n_rounds, i = divmod(k, len(CLASS_COLOURS))
    return CLASS_COLOURS[i], n_rounds % 2 == 1


def dark_casing(linewidth):
    """Return path effects that make a line of so many points visible on bright images."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=linewidth + 1.6, foreground="black", alpha=0.6)]


def single_axes(ax, aspect=0.8, width=5.0):
    """Return `ax`, or the axes of a new figure so many inches wide, `aspect` times as high."""
    plt = pyplot()
    if ax is None:
        _, ax = plt.subplots(figsize=(width, width * aspect), layout="constrained")
    elif not isinstance(ax, plt.Axes):
        raise TypeError(f"ax must be one Axes of matplotlib. Got {type(ax).__name__} instead.")
    return ax


def several_axes(ax, n_axes, *, n_columns, aspect=1.0, width=2.0, height_ratios=None):
    """Return an array of `n_axes` Axes, in rows of `n_columns`.

    Parameters
    ----------
    ax : matplotlib Axes, array-like of these, or None
        One Axes is split, as many as are needed are used, ``None`` makes a new figure.
    n_axes, n_columns : int
    aspect : float, default=1.0
        Height of one of the new axes, as a multiple of its width.
    width : float, default=2.0
        Width of one of the new axes, in inches.
    height_ratios : tuple of float, default=None
        Heights of the rows; equal if ``None``.
    """
    plt = pyplot()
    n_columns = min(n_columns, n_axes)
    n_rows = ceil(n_axes / n_columns)
    ratios = {"height_ratios": height_ratios}
    if ax is None:
        size = (width * n_columns, (width * aspect + 0.3) * n_rows)
        figure = plt.figure(figsize=size, layout="constrained")
        axes = figure.subplots(n_rows, n_columns, squeeze=False, **ratios).ravel()
    elif isinstance(ax, plt.Axes):
        if ax.get_subplotspec() is None:
            raise ValueError(
                f"One ax that is split into {n_axes} must be part of a grid. Got one placed by "
                f"hand instead. Make it with plt.subplots, or pass {n_axes} axes."
            )
        ax.set_axis_off()
        grid = ax.get_subplotspec().subgridspec(n_rows, n_columns, **ratios)
        axes = grid.subplots(squeeze=False).ravel()
    else:
        axes = np.ravel(np.asarray(ax, dtype=object))
        if len(axes) != n_axes or not all(isinstance(one, plt.Axes) for one in axes):
            raise ValueError(
                f"ax must be one Axes or {n_axes} of them, one for each panel. "
                f"Got {len(axes)} of type {type(axes[0]).__name__ if len(axes) else None} instead."
            )
        return axes
    for unused in axes[n_axes:]:
        unused.remove()
    return axes[:n_axes]


def legend_below(ax, handles):
    """Put a legend below an image, where it covers nothing, in as many columns as there is room."""
    width = ax.get_window_extent().width / ax.figure.dpi
    n_columns = max(1, int(width / _LEGEND_COLUMN))
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.0), "borderaxespad": 0.3}
    columns = min(len(handles), n_columns)
    return ax.legend(handles=handles, ncols=columns, frameon=False, fontsize="small", **place)

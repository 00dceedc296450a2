from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from skimage.color import deltaE_ciede2000, rgb2lab

from sklearn_micranet.displays._axes import (
    CLASS_COLOURS,
    FALSE_ALARM,
    HIT,
    MISS,
    class_style,
    several_axes,
    single_axes,
)

# What people without one kind of cones see, in linear RGB: Machado et al., "A physiologically-based
# model for simulation of color vision deficiency", IEEE TVCG 15, 2009, doi:10.1109/TVCG.2009.113.
VISION = [
    np.eye(3),
    np.reshape(
        [
            0.152286,
            1.052583,
            -0.204868,
            0.114503,
            0.786281,
            0.099216,
            -0.003882,
            -0.048116,
            1.051998,
        ],
        (3, 3),
    ),
    np.reshape(
        [
            0.367322,
            0.860646,
            -0.227968,
            0.280085,
            0.672501,
            0.047413,
            -0.011820,
            0.042940,
            0.968881,
        ],
        (3, 3),
    ),
    np.reshape(
        [
            1.255528,
            -0.076749,
            -0.178779,
            -0.078411,
            0.930809,
            0.147602,
            0.004733,
            0.691367,
            0.303900,
        ],
        (3, 3),
    ),
]


def seen(colour, vision):
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(vision @ linear, 0, 1)
    return rgb2lab(
        np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    )


def smallest_difference(colours):
    return min(
        deltaE_ciede2000(seen(one, vision), seen(other, vision))
        for one, other in combinations(colours, 2)
        for vision in VISION
    )


def test_hits_misses_and_false_alarms_differ_for_everybody():
    assert smallest_difference(["#FF0000", "#808000"]) < 12  # the usual red and green do not
    best = max(map(smallest_difference, combinations(CLASS_COLOURS, 3)))
    assert smallest_difference([HIT, MISS, FALSE_ALARM]) == pytest.approx(best)
    assert best > 20


def test_classes_differ_for_everybody():
    assert smallest_difference(CLASS_COLOURS) > 10
    assert len({class_style(k) for k in range(14)}) == 14


def test_axes_that_are_passed_are_used():
    figure, axes = plt.subplots(2, 2)
    assert single_axes(axes[0, 1]) is axes[0, 1]
    assert several_axes(axes, 4, n_columns=1).tolist() == axes.ravel().tolist()
    assert plt.get_fignums() == [figure.number]


def test_one_of_several_axes_is_split_in_its_place():
    figure, axes = plt.subplots(1, 2)
    split = several_axes(axes[1], 5, n_columns=3)
    assert len(split) == 5
    assert all(ax.figure is figure for ax in split)
    assert len(figure.axes) == 7
    assert not axes[1].axison
    outer = axes[1].get_position()
    assert all(outer.x0 - 1e-9 <= ax.get_position().x0 for ax in split)
    assert all(ax.get_position().x1 <= outer.x1 + 1e-9 for ax in split)


def test_new_axes_have_the_shape_of_the_image():
    ax = single_axes(None, aspect=0.5, width=6)
    assert ax.figure.get_size_inches().tolist() == [6, 3]
    axes = several_axes(None, 7, n_columns=4)
    assert len(axes) == len(axes[0].figure.axes) == 7
    assert [ax.get_subplotspec().rowspan.start for ax in axes] == [0, 0, 0, 0, 1, 1, 1]


def test_wrong_axes_are_refused():
    figure, axes = plt.subplots(1, 3)
    with pytest.raises(TypeError, match=r"ax must be one Axes of matplotlib. Got ndarray instead"):
        single_axes(axes)
    with pytest.raises(
        ValueError, match=r"ax must be one Axes or 2 of them, .* Got 3 of type Axes"
    ):
        several_axes(axes, 2, n_columns=2)
    with pytest.raises(ValueError, match="Got 2 of type str instead"):
        several_axes(["a", "b"], 2, n_columns=2)
    with pytest.raises(ValueError, match=r"must be part of a grid. Got one placed by hand"):
        several_axes(figure.add_axes([0, 0, 1, 1]), 2, n_columns=2)

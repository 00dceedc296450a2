"""What is learned from images and labels, and the maps that follow from it."""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from sklearn_micranet._stack._large_arrays import (
    blocks_of_rows,
    by_rows,
    extremes,
    let_go,
    zeros,
)

from ._ceiling import ceiling_of, height_below
from ._choice import (
    best_view,
    cell_means,
    inside_and_outside,
    mode_of,
    tops_of_objects,
)
from ._gate import DENSE_FROM, SEEN, cell_gates, filled_area, gates, prior
from ._intensity import (
    HALO,
    as_map,
    equalise_noise,
    halfway_height,
    noise_curve,
    noise_samples,
    share_out,
)
from ._texture import FINE, WIDE, PixelModel, pixel_features

_N_PIXELS = 120  # of an image, for the pixel classifier
_PATCH = 128  # px: the part of an image that the noise is looked at
_MAX_NOISE_SAMPLES = 500_000
_IS_BLURRED = True  # what brightness alone tells apart
# px: of the Gaussian that calms noise where no smallest contrast does; chosen on training images of
# fibres.
_CALM = 0.6
_MIN_CONTRAST = 4.0  # standard deviations of the noise, if typical objects have twice as much


class Survey(NamedTuple):
    """What is kept of a training image."""

    means: np.ndarray  # (n_cells, n_channels)
    inside: np.ndarray  # (n_classes, n_cells)
    outside: np.ndarray  # (n_cells,)
    area: np.ndarray  # (n_classes,), NaN where absent
    patch: np.ndarray  # (height, width, n_channels)
    features: dict  # of each scale, (n_features, n_pixels)
    gate: np.ndarray  # (n_pixels, n_classes)
    present: np.ndarray  # (n_classes,)
    tops: list  # for each class (n_objects, 2 * n_views)


class Recipe(NamedTuple):
    """What is learned about each class."""

    modes: list  # "intensity", "both" or "texture", of each class
    separation: np.ndarray  # (n_classes,)
    views: np.ndarray  # signed weights of the channels, (n_classes, n_channels)
    noise: list  # a NoiseCurve of each class
    contrast: np.ndarray  # smallest of an object, in standard deviations of the noise
    ceiling: np.ndarray  # contrast of objects that are equally bright, else NaN; (n_classes,)
    area: np.ndarray  # (n_classes,)
    pixels: PixelModel | None


def survey(image, reading, rng):
    """Keep of a training image what :func:`learn` needs.

    Parameters
    ----------
    image : float32 ndarray of shape (height, width, n_channels)
    reading : Reading
        Its `present` are the labels.
    rng : numpy.random.Generator

    Returns
    -------
    survey : Survey
    """
    size, present = image.shape[:2], reading.present
    means = cell_means(image)
    cells = cell_gates(reading.scores)
    used = cells[:, : means.shape[0], : means.shape[1]].reshape(len(cells), -1)
    inside, outside = inside_and_outside(used, present)
    area = [filled_area(c) if p else np.nan for c, p in zip(cells, present, strict=True)]
    pixels = rng.permutation(size[0] * size[1])[:_N_PIXELS]
    features = _features_at(reading.parts, pixels // size[1], pixels % size[1])
    gate = gates(reading.scores, size).reshape(len(cells), -1)[:, pixels].T
    first = [rng.integers(max(1, n - _PATCH + 1)) for n in size]
    patch = image[first[0] : first[0] + _PATCH, first[1] : first[1] + _PATCH].copy()
    tops = tops_of_objects(image, inside.reshape(len(cells), *means.shape[:2]))
    means = means.reshape(-1, image.shape[2])
    return Survey(means, inside, outside, np.array(area), patch, features, gate, present, tops)


def _features_at(parts, rows, columns):
    """Return the features of some pixels, (n_features, n_pixels), of each scale."""
    features = {FINE: None, WIDE: None}
    for part in parts:
        inside = [
            (s.start <= at) & (at < s.stop)
            for s, at in zip(part.tile.inside, (rows, columns), strict=True)
        ]
        mine = np.flatnonzero(inside[0] & inside[1])
        top, left = (s.start for s in part.tile.read)
        for scale, found in features.items():
            of_part = pixel_features(part.activations, part.size, scale)
            if found is None:
                found = np.empty((len(of_part), len(rows)), dtype=of_part.dtype)
                features[scale] = found
            found[:, mine] = of_part[:, rows[mine] - top, columns[mine] - left]
    return features


def learn(surveys, classifier, *, features="auto"):
    """Learn from training images what the outlines of each class are to be taken from.

    Parameters
    ----------
    surveys : list of Survey
    classifier : estimator
        Of pixels; a clone is fitted if a class needs it.
    features : {"auto", "intensity", "both", "texture"}, default="auto"

    Returns
    -------
    recipe : Recipe
    """
    means = np.concatenate([s.means for s in surveys])
    inside = np.concatenate([s.inside for s in surveys], axis=1)
    outside = np.concatenate([s.outside for s in surveys])
    image = np.repeat(np.arange(len(surveys)), [len(s.means) for s in surveys])
    found = [best_view(means, of_class, outside, image) for of_class in inside]
    views, auc = zip(*found, strict=True)
    modes = [
        mode_of(a, view) if features == "auto" else features
        for a, view in zip(auc, views, strict=True)
    ]
    all_areas = np.array([s.area for s in surveys])
    known = ~np.isnan(all_areas)
    area = np.where(known, all_areas, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    pixels = None
    if set(modes) != {"intensity"}:
        # Wide features leave no holes in what is large, but blur the outlines of what is small.
        scale = WIDE if area.mean() >= DENSE_FROM else FINE
        pixels = PixelModel(classifier, scale).fit(
            np.concatenate([s.features[scale].T for s in surveys]),
            np.concatenate([s.gate for s in surveys]),
            np.concatenate([np.tile(s.present, (len(s.gate), 1)) for s in surveys]),
            area,
        )
    distinct = {tuple(view): view for view in views}
    curves = {key: _noise_of(surveys, view) for key, view in distinct.items()}
    noise = [curves[tuple(view)] for view in views]
    contrast = [
        _smallest_contrast(equalise_noise(means @ view, curve), of_class, outside)
        for view, curve, of_class in zip(views, noise, inside, strict=True)
    ]
    by_brightness = [
        tuple(v) if m == "intensity" else None for v, m in zip(views, modes, strict=True)
    ]
    ceilings = {
        key: ceiling_of(surveys, np.array(key), curves[key], [key == of for of in by_brightness])
        for key in set(by_brightness) - {None}
    }
    ceiling = np.array([ceilings.get(key, np.nan) for key in by_brightness])
    auc, views, contrast = map(np.array, (auc, views, contrast))
    return Recipe(modes, auc, views, noise, contrast, ceiling, area, pixels)


def _smallest_contrast(values, is_inside, is_outside):
    if not is_inside.any() or not is_outside.any():
        return _MIN_CONTRAST
    typical = np.median(values[is_inside]) - np.median(values[is_outside])
    return float(np.clip(typical / 2, 0, _MIN_CONTRAST))


def _noise_of(surveys, view):
    samples = np.concatenate([noise_samples(s.patch @ view) for s in surveys], axis=1)
    return noise_curve(samples[:, :: max(1, samples.shape[1] // _MAX_NOISE_SAMPLES)])


def guided_maps(image, reading, recipe, *, level):
    """Return the guided feature maps of one image.

    Parameters
    ----------
    image : float32 ndarray of shape (height, width, n_channels)
    reading : Reading
    recipe : Recipe
    level : float
        In (0, 1), see :func:`halfway_height`.

    Returns
    -------
    maps : float32 ndarray of shape (n_classes, height, width)
        In [0, 1], 0.5 is the outline; zero for absent classes.
    """
    size, present = image.shape[:2], np.flatnonzero(reading.present)
    maps = zeros((len(reading.present), *size))
    if not len(present):
        return maps
    opened = gates(reading.scores[present], size)
    if recipe.pixels is not None:
        filled = filled_area(opened)
        for part in reading.parts:
            gate = opened[:, *part.tile.read]
            posterior = recipe.pixels.posterior(part.activations, gate, present, filled)
            maps[present, *part.tile.inside] = posterior[:, *part.tile.within()]
            let_go(maps, opened)
    if any(recipe.modes[k] != "texture" for k in present):
        _cut(maps, image, opened, present, recipe, level)
    return maps


def _cut(maps, image, opened, present, recipe, level):
    """Cut what differs in brightness, and give each pixel of it to one class."""
    everywhere = np.ones(len(opened), bool)
    belief = by_rows(
        lambda rows: prior(opened[:, rows], everywhere, top=0.3, floor=0.01), opened.shape, opened
    )
    groups = {}
    for i, k in enumerate(present):
        if recipe.modes[k] != "texture":
            groups.setdefault((recipe.modes[k], tuple(recipe.views[k])), []).append(i)
    for members in groups.values():
        classes = present[members]
        height = _height(maps, image, opened, belief, members, classes, recipe)
        for rows in blocks_of_rows(maps, height):
            maps[classes, rows] = as_map(height[rows], level)
    if len(present) > 1:  # what is bright may belong to any class
        cut = np.array([k for k in present if recipe.modes[k] != "texture"])
        found = by_rows(lambda rows: maps[cut, rows].max(axis=0) > 0.5, maps.shape, maps)
        winner = share_out(belief, found)
        for i, k in enumerate(present):
            if recipe.modes[k] != "texture":
                for rows in blocks_of_rows(maps):
                    maps[k, rows] *= winner[rows] == i


def _height(maps, image, opened, belief, members, classes, recipe):
    """Return the height of each pixel in the view that some of the present classes share."""
    first, size = classes[0], image.shape[:2]
    if recipe.modes[first] == "both":
        within = by_rows(lambda rows: maps[classes, rows].sum(axis=0) > 0.5, maps.shape, maps)
        contrast, is_blurred, sigma = 0.0, False, _CALM
    else:
        within = by_rows(lambda rows: opened[:, rows].max(axis=0) > SEEN, opened.shape, opened)
        contrast, is_blurred, sigma = recipe.contrast[first], _IS_BLURRED, 0.0
    weights, noise = recipe.views[first].astype(np.float32), recipe.noise[first]
    ceiling = recipe.ceiling[first]
    seen = by_rows(lambda rows: belief[members, rows].sum(axis=0), belief.shape, belief)
    half = extremes(seen)[1] / 2
    start = by_rows(lambda rows: seen[rows] > half, size, seen)
    if np.isfinite(ceiling):
        bright = by_rows(lambda rows: image[rows] @ weights, size)
        return height_below(ceiling, bright, start, within=within)

    def view_of(rows):
        view = equalise_noise(image[rows] @ weights, noise).astype(np.float32)
        return ndimage.gaussian_filter(view, sigma) if sigma else view

    view = by_rows(view_of, size, halo=HALO)
    return halfway_height(view, start, within=within, min_contrast=contrast, is_blurred=is_blurred)

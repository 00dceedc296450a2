"""Points, masks and instances: what each is recognised by, and one made from another.

Of a sample, points have the shape (n_objects, 3), masks and instances (n_maps, height, width).
Masks are bool, or hold 0 and 1 only in all samples; other integers are instances.
"""

import numpy as np
from scipy import ndimage
from sklearn.utils.validation import check_consistent_length

from sklearn_micranet._labels._hints import refuse_flat_masks

_NEIGHBOURS = np.ones((3, 3), dtype=bool)


def as_points(y, name="y"):
    """Return one array of rows (class index, row, column) for each sample.

    Points are returned as they are. An object of masks is a connected component (pixels share an
    edge or a corner), one of instances a number; its position is its `centres`.
    """
    refuse_flat_masks(name, y, allow_instances=True)
    samples = [_as_sample(name, sample) for sample in y]
    if not any(sample.ndim == 3 for sample in samples):
        return samples
    return [
        np.concatenate(
            [np.insert(centres(labels), 0, k, axis=1) for k, labels in enumerate(sample)]
        )
        for sample in as_instances(samples, name)
    ]


def as_masks(y, name="y"):
    """Return bool masks of shape (n_maps, height, width) for each sample of masks or instances."""
    return [s if s.dtype == bool else s != 0 for s in _check_regions(y, name)]


def as_instances(y, name="y"):
    """Return numbered objects for each sample: those of masks are their connected components."""
    samples = _check_regions(y, name)
    if any(sample.dtype != bool and sample.max(initial=0) > 1 for sample in samples):
        _refuse_grey_masks(samples, f"{name} must hold masks, or instances with", f"{name} > 0")
        return samples
    return [
        np.stack([ndimage.label(mask != 0, structure=_NEIGHBOURS)[0] for mask in sample])
        for sample in samples
    ]


def _refuse_grey_masks(samples, must, pass_):
    """Raise a ValueError if all instances are 0 or 255, the grey levels of masks in files."""
    if any(s.max(initial=0) == 255 for s in samples) and all(
        np.isin(sample, (0, 255)).all() for sample in samples
    ):
        raise ValueError(
            f"{must} a number for each object. Got 0 and 255 only instead, which looks like "
            f"masks: pass `{pass_}`."
        )


def check_fit(y, stack, name="y"):
    """Return samples of masks or instances, after a check that they fit a stack of maps.

    Nothing of the stack is read: samples of a lazy one that differ in size are not compared.
    """
    samples = _check_regions(y, name)
    check_consistent_length(stack, samples)
    for i, (sample, shape) in enumerate(zip(samples, _known_shapes(stack), strict=False)):
        if sample.shape[1:] != shape[1:]:
            raise ValueError(
                f"{name} must have the height and width of the images, {shape[1:]} for sample {i}. "
                f"Got {sample.shape[1:]} instead."
            )
        if len(sample) != shape[0]:
            raise ValueError(
                f"{name} must have one channel per class, {shape[0]} in all; a binary problem has "
                f"one, that of the positive class. Got {len(sample)} for sample {i} instead."
            )
    return samples


def _known_shapes(stack):
    if not stack.is_ragged:
        return [stack.item_shape] * len(stack)
    return [sample.shape for sample in stack.source] if isinstance(stack.source, list) else []


def centres(labels):
    """Return the centre (row, column) of each object of (height, width), by ascending number.

    It is the centroid, unless that lies outside the object, as in a ring: then it is the pixel of
    the object nearest to the centroid.
    """
    rows, columns = np.nonzero(labels)
    _, index, n_pixels = np.unique(labels[rows, columns], return_inverse=True, return_counts=True)
    sums = [np.bincount(index, weights=x, minlength=len(n_pixels)) for x in (rows, columns)]
    points = np.column_stack(sums) / n_pixels[:, np.newaxis]
    distances = np.hypot(*(np.column_stack([rows, columns]) - points[index]).T)
    order = np.lexsort([distances, index])
    nearest = order[np.searchsorted(index[order], np.arange(len(n_pixels)))]
    pixels = np.column_stack([rows[nearest], columns[nearest]])
    # The pixel that a point lies in is less than half a diagonal away, any other one farther.
    outside = np.abs(pixels - points).max(axis=1, initial=0) > 0.5
    points[outside] = pixels[outside]
    return points


def check_instances(instances, name, ndim=None):
    """Return an array of numbered objects with `ndim` dimensions, or with at least two."""
    instances = np.asarray(instances)
    if instances.dtype.kind not in "iu":
        hint = (
            f" Number the objects first: `skimage.measure.label({name})`."
            if instances.dtype == bool
            else ""
        )
        raise TypeError(
            f"{name} must hold integers, 0 for background and a number for each object. "
            f"Got {instances.dtype} instead.{hint}"
        )
    if instances.ndim < 2 or (ndim is not None and instances.ndim != ndim):
        axes = {None: "(..., height, width)", 2: "(height, width)"}[ndim]
        raise ValueError(f"{name} must have shape {axes}. Got shape {instances.shape} instead.")
    if instances.min(initial=0) < 0:
        raise ValueError(
            f"{name} must not hold negative numbers; 0 is background. "
            f"Got {instances.min()} instead."
        )
    return instances


def check_instance_pairs(instances_true, instances_pred):
    """Return (true, predicted) of each image, of the same shape (..., height, width)."""
    samples_true, samples_pred = map(_images, (instances_true, instances_pred))
    if len(samples_pred) != len(samples_true):
        raise ValueError(
            "instances_pred must hold as many images as instances_true, "
            f"{len(samples_true)}. Got {len(samples_pred)} instead."
        )
    pairs = []
    for i, (true, pred) in enumerate(zip(samples_true, samples_pred, strict=True)):
        true = check_instances(true, f"instances_true[{i}]")
        pred = check_instances(pred, f"instances_pred[{i}]")
        if pred.shape != true.shape:
            raise ValueError(
                f"instances_pred[{i}] must have the shape of instances_true[{i}], {true.shape}. "
                f"Got {pred.shape} instead."
            )
        pairs.append((true, pred))
    for name, samples in zip(("true", "pred"), zip(*pairs, strict=True), strict=False):
        name = f"instances_{name}"
        _refuse_grey_masks(samples, f"{name} must hold", f"skimage.measure.label({name} > 0)")
    return pairs


def _images(instances):
    """Return a sequence of the images; a single one, also as a list of rows, is a list of one."""
    if getattr(instances, "ndim", None) is None:
        instances = [np.asarray(image) for image in instances]
        if instances and all(image.ndim == 1 for image in instances):
            return [np.stack(instances)]
        return instances
    return [instances] if instances.ndim == 2 else instances


def _as_sample(name, sample):
    sample = np.asarray(sample)
    if sample.dtype.kind not in "buif" and sample.size:
        raise TypeError(
            f"{name} must hold numbers; a class is the index of its map, counted from 0. Got "
            f"{str(sample.ravel()[0])!r:.60} instead: read files with images.read_images, and pass "
            "names.index(name) for a name."
        )
    return sample


def _check_regions(y, name):
    if not np.iterable(y):
        raise ValueError(f"{name} must hold masks or instances. Got {y!r} instead.")
    refuse_flat_masks(name, y, allow_instances=True)
    samples = [_as_sample(name, sample) for sample in y]
    for i, sample in enumerate(samples):
        if sample.ndim != 3:
            looks = {0: "a label", 1: "a row of labels", 2: "positions"}.get(sample.ndim, "a stack")
            raise ValueError(
                f"{name} must hold masks or instances of shape (n_maps, height, width) for each "
                f"sample. Got {looks}, of shape {sample.shape}, for sample {i} instead."
            )
        if sample.dtype.kind == "f" and np.isin(sample, (0, 1)).all():
            samples[i] = sample != 0
        elif sample.dtype.kind == "f":
            raise ValueError(
                f"{name} must hold masks, of dtype bool or of 0 and 1 only, or instances, integers "
                f"with a number for each object. Got other values of {sample.dtype} instead."
            )
        elif sample.dtype != bool:
            check_instances(sample, f"{name}[{i}]")
    return samples

"""What labels cost an expert."""

from numbers import Integral, Real

import numpy as np

from sklearn_micranet._stack._numbers import check_scalar

from ._regions import as_instances
from ._tables import as_table


def annotation_effort(
    regions,
    *,
    crop_size,
    step=None,
    seconds_per_edge_pixel=0.25,
    seconds_per_box=7.0,
    seconds_per_crop=2.0,
):
    """Decisions and hours to annotate a data set with outlines, with boxes, or with crop labels.

    Three ways to annotate the same objects are compared, as in the paper of MICRA-Net [1]_. An
    *outline* takes one decision for each of its pixels, a *box* four, one for each side, and the
    label of a *crop* one for each map: whether the structure is there.

    Parameters
    ----------
    regions : sequence of n_samples array-like of shape (n_maps, height, width)
        Instances (int, a number for each object) or masks (bool, or integers of which none is
        above 1), whose connected components are the objects. Images may differ in size.
    crop_size : int
        Side of the square crops that would be labelled, px.
    step : int, default=None
        Distance from crop to crop, px, at most `crop_size`. None stands for `crop_size`: no
        overlap. A crop that reaches beyond the border counts as one, as in
        :func:`sklearn_micranet.images.extract_crops`.
    seconds_per_edge_pixel : float, default=0.25
        Seconds for each pixel of an outline. The default is an assumption: with it, an outline of
        316 px takes the 79 s that were measured for an object in photographs [3]_.
    seconds_per_box : float, default=7.0
        Seconds for each box. The default was measured for clicks on the extreme points of objects
        in photographs [2]_; boxes drawn by their corners took 35 s.
    seconds_per_crop : float, default=2.0
        Seconds for each crop and map. The default is that of [1]_.

    Returns
    -------
    effort : DataFrame, or dict of arrays without pandas
        Three rows, with the columns `annotation` ("outlines", "boxes", "crops"), `n_items` (for the
        first two the objects, then crops times maps), `decisions` and `hours`.

    Raises
    ------
    TypeError
        If regions are neither bool nor integers, or a parameter is not a number.
    ValueError
        If samples have another number of dimensions, numbers of objects are negative, or a
        parameter is out of range.

    Notes
    -----
    The outline of an object is the pixels that share an edge with a pixel that is not part of it;
    whatever lies beyond the image is not. Where two objects touch, both have their outline.

    References
    ----------
    .. [1] A. Bilodeau et al., "Microscopy analysis neural network to solve detection, enumeration
       and segmentation from image-level annotations", Nature Machine Intelligence 4, 2022.
       https://doi.org/10.1038/s42256-022-00472-w
    .. [2] D. P. Papadopoulos et al., "Extreme clicking for efficient object annotation", ICCV 2017.
       https://doi.org/10.1109/ICCV.2017.528
    .. [3] T.-Y. Lin et al., "Microsoft COCO: common objects in context", ECCV 2014.
       https://doi.org/10.1007/978-3-319-10602-1_48

    Examples
    --------
    A square of 10 px has an outline of 36 pixels. Four crops cover the image:

    >>> import numpy as np
    >>> from sklearn_micranet.metrics import annotation_effort
    >>> masks = np.zeros((1, 1, 64, 64), dtype=bool)
    >>> masks[0, 0, 20:30, 20:30] = True
    >>> effort = annotation_effort(masks, crop_size=32)
    >>> [int(decisions) for decisions in effort["decisions"]]
    [36, 4, 4]
    """
    crop_size = check_scalar(crop_size, "crop_size", Integral, min_val=1)
    step = check_scalar(
        crop_size if step is None else step, "step", Integral, min_val=1, max_val=crop_size
    )
    seconds = (seconds_per_edge_pixel, seconds_per_box, seconds_per_crop)
    names = ("seconds_per_edge_pixel", "seconds_per_box", "seconds_per_crop")
    for name, value in zip(names, seconds, strict=True):
        check_scalar(value, name, Real, min_val=0)
    n_edge_pixels = n_objects = n_crops = 0
    for sample in as_instances(regions, "regions"):
        for labels in sample:
            n_edge_pixels += np.count_nonzero(_edges(labels))
            n_objects += len(np.unique(labels[labels != 0]))
        sides = np.array(sample.shape[1:])
        n_crops += len(sample) * np.prod(-(np.minimum(crop_size - sides, 0) // step) + 1)
    n_items = np.array([n_objects, n_objects, n_crops])
    return as_table(
        annotation=["outlines", "boxes", "crops"],
        n_items=n_items,
        decisions=[n_edge_pixels, 4 * n_objects, n_crops],
        hours=np.array([n_edge_pixels, n_objects, n_crops]) * seconds / 3600,
    )


def _edges(labels):
    """Return the pixels of objects that share an edge with a pixel of another number."""
    padded = np.pad(labels, 1)
    shifts = [(axis, step) for axis in (0, 1) for step in (-1, 1)]
    differs = [np.roll(padded, step, axis)[1:-1, 1:-1] != labels for axis, step in shifts]
    return (labels != 0) & np.any(differs, axis=0)

"""How much is found by an expert who looks at the most suspicious places only."""

from numbers import Integral, Real

import numpy as np
from sklearn.utils import Bunch, check_array
from sklearn.utils._param_validation import validate_params

from sklearn_micranet._stack._numbers import Interval


@validate_params(
    {
        "scores": ["array-like"],
        "is_true": ["array-like"],
        "areas": ["array-like", Interval(Real, 0, None, closed="neither")],
        "total_area": [Interval(Real, 0, None, closed="neither")],
        "n_true": [Interval(Integral, 0, None, closed="left"), None],
    },
    prefer_skip_nested_validation=True,
)
def inspection_curve(scores, is_true, *, areas, total_area, n_true=None):
    r"""Share of the objects found against the share of the area that an expert inspects.

    The expert inspects windows or objects in the order of their scores, the highest first, and
    rejects what is wrong, so that what counts is the share of the true ones among those inspected
    and the work it takes [1]_. With :math:`a_i` the areas, :math:`A` the total area,
    :math:`t_i` 1 for a true one and 0 otherwise, and :math:`N` the number of true ones:

    .. math::

        \text{inspected}(s) = \frac{1}{A} \sum_{s_i \ge s} a_i, \qquad
        \text{recall}(s) = \frac{1}{N} \sum_{s_i \ge s} t_i

    Parameters
    ----------
    scores : array-like of shape (n_proposals,)
        Scores of the windows or objects; the higher, the earlier it is inspected.
    is_true : array-like of shape (n_proposals,), bool or 0/1
        Whether a window holds an object, or whether an object is a true one.
    areas : float or array-like of shape (n_proposals,)
        Area that has to be inspected for each, > 0, px or any other unit.
    total_area : float
        Area of all images, in the same unit. What is proposed must not be larger: windows that
        overlap would count twice.
    n_true : int, default=None
        Number of true ones, those that nobody proposed included: recall then ends below 1.
        ``None`` stands for the number of true ones among the proposals.

    Returns
    -------
    curve : :class:`~sklearn.utils.Bunch`
        Dictionary-like, with attributes:

        inspected : float ndarray of shape (n_thresholds + 1,)
            Share of the area inspected, in [0, 1]; rising from 0.
        recall : float ndarray of shape (n_thresholds + 1,)
            Share of the true ones found, in [0, 1]; never falling, from 0. NaN if there are none.
        thresholds : float ndarray of shape (n_thresholds + 1,)
            Element i is the lowest score that is inspected; ``inf`` at first, where nothing is.
            Those with the same score are inspected together.

    Raises
    ------
    ValueError
        If lengths differ, values are not finite, `is_true` holds anything but true and false, an
        area is not positive, the areas are larger than `total_area`, or `n_true` is smaller than
        the number of true ones proposed.

    See Also
    --------
    sklearn_micranet.displays.InspectionDisplay : Draws the curve.
    detection_precision_recall_curve : Where false alarms count, and not the area.

    References
    ----------
    .. [1] Bilodeau et al., "Microscopy analysis neural network to solve detection, enumeration
       and segmentation from image-level annotations", Nature Machine Intelligence 4, 2022.
       :doi:`10.1038/s42256-022-00472-w`

    Examples
    --------
    Three windows of ten hold an object. The third best has none, the fourth best has:

    >>> from sklearn_micranet.metrics import inspection_curve
    >>> curve = inspection_curve(
    ...     [0.9, 0.8, 0.7, 0.6], [1, 1, 0, 1], areas=100, total_area=1000
    ... )
    >>> curve.inspected.tolist()
    [0.0, 0.1, 0.2, 0.3, 0.4]
    >>> curve.recall.round(2).tolist()
    [0.0, 0.33, 0.67, 0.67, 1.0]
    """
    scores, is_true, areas = _check_proposals(scores, is_true, areas)
    n_proposed = np.count_nonzero(is_true)
    n_true = n_proposed if n_true is None else n_true
    if n_true < n_proposed:
        raise ValueError(
            f"n_true must be at least the {n_proposed} true ones of is_true. Got {n_true} instead."
        )
    if areas.sum() > total_area * (1 + _ROUNDING):
        raise ValueError(
            f"total_area must be at least the sum of areas, {areas.sum():g}. Got {total_area:g} "
            "instead. Windows that overlap count twice: cut them with a step of their size."
        )
    thresholds, group = np.unique(-scores, return_inverse=True)
    inspected = np.cumsum(np.bincount(group, weights=areas)) / total_area
    n_found = np.cumsum(np.bincount(group, weights=is_true))
    recall = np.append(0, n_found) / n_true if n_true else np.full(1 + len(n_found), np.nan)
    return Bunch(
        inspected=np.append(0, np.minimum(inspected, 1)),
        recall=recall,
        thresholds=np.append(np.inf, -thresholds),
    )


_ROUNDING = 1e-9  # of the sum of areas


def _check_proposals(scores, is_true, areas):
    """Return scores, truth and areas as arrays of one length."""
    scores = _check_column(scores, "scores")
    is_true = _check_column(is_true, "is_true")
    areas = np.broadcast_to(areas, scores.shape) if np.ndim(areas) == 0 else areas
    areas = _check_column(areas, "areas")
    if not len(scores) == len(is_true) == len(areas):
        raise ValueError(
            "scores, is_true and areas must have the same length. Got "
            f"{len(scores)}, {len(is_true)} and {len(areas)} instead."
        )
    if not np.isin(is_true, (0, 1)).all():
        raise ValueError(
            f"is_true must hold true and false only. Got {np.unique(is_true)} instead."
        )
    if np.any(areas <= 0):
        raise ValueError(f"areas must be positive. Got {areas.min():g} instead.")
    return scores, is_true, areas


def _check_column(values, name):
    if np.ndim(values) != 1:
        raise ValueError(
            f"{name} must have shape (n_proposals,). Got shape {np.shape(values)} instead."
        )
    return check_array(
        values, dtype=np.float64, ensure_2d=False, ensure_min_samples=0, input_name=name
    )

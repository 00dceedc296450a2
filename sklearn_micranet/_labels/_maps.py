"""Stacks of maps and segments: what the steps that follow the network accept."""

from functools import partial

from sklearn.utils.validation import check_array

from sklearn_micranet._stack._lazy_stack import as_stack
from sklearn_micranet._stack._sources import is_lazy, is_ragged, unpacked

from ._hints import refuse_paths


def read_maps(X, *, ndim, axes):
    """Read the input of a step that follows the network.

    Parameters
    ----------
    X : array-like, lazily read array, or list of ndarray
    ndim : int
        Number of dimensions of the whole stack.
    axes : str
        Names of the axes, for the error.

    Returns
    -------
    stack : LazyStack
        The samples of a lazy stack that differ in size are checked when they are read, those of
        others now.
    """
    refuse_paths("X", X, how="what the steps before return")
    X = unpacked(X)
    if is_lazy(X):
        stack = as_stack(X)
        if is_ragged(stack):
            check = partial(_checked, ndim=ndim, axes=axes)
            names = stack.layer_names
            return stack.map(check, item_shape=None, dtype=stack.dtype, layer_names=names)
        got = stack.ndim
    elif is_ragged(X):
        samples = [check_array(x, allow_nd=True, ensure_2d=False, input_name="X") for x in X]
        stack, got = as_stack(samples), samples[0].ndim + 1
        if len({x.shape[:-2] for x in samples}) > 1:
            raise ValueError(
                f"X must have the shape {axes}; samples may differ in height and width only. Got "
                f"the shapes {sorted({x.shape for x in samples})} instead."
            )
    else:
        X = check_array(X, allow_nd=True, ensure_2d=False, ensure_min_samples=0, input_name="X")
        _check_ndim(X.ndim, ndim, axes)
        stack, got = as_stack(X), X.ndim
    _check_ndim(got, ndim, axes)
    if 0 in stack.shape:
        raise ValueError(
            "X must hold at least one sample of at least one pixel. Got the shape "
            f"{stack.shape} instead."
        )
    return stack


def _checked(sample, *, ndim, axes):
    _check_ndim(sample.ndim + 1, ndim, axes)
    return sample


def _check_ndim(got, ndim, axes):
    if got != ndim:
        raise ValueError(f"X must have the shape {axes}. Got {got} dimensions instead.")

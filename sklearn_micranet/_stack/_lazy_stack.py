"""A sequence of arrays that are computed, batch by batch, when somebody reads them."""

from collections.abc import Sequence
from copy import copy
from numbers import Integral
from types import EllipsisType

import numpy as np
from sklearn.utils._array_api import get_namespace


class LazyStack(Sequence):
    """Stack of equally treated samples, computed when read and never kept.

    ``Pipeline.fit`` passes its training images through every transformer whether a later step
    reads the result or not. A transformer that returns a `LazyStack` makes that free: a sample
    is computed when it is indexed, iterated over, or turned into an array, and forgotten again.

    Parameters
    ----------
    source : sequence of length n_samples
        What the samples are computed from: an array, another stack, or a list.
    function : callable
        Maps a batch, ``source[start:stop]`` as an array (a list when the samples differ in
        size), to a sequence with one array per sample. It must be picklable if the stack is to be.
    item_shape : tuple of int or None
        Shape of one sample. ``None`` when samples differ in size: such a stack is a sequence of
        arrays and cannot be turned into one array.
    dtype : numpy dtype, default=float32
        Data type of the samples.
    batch_size : int, default=1
        Number of samples computed at a time. Memory grows with it.
    layer_names : tuple of str, default=None
        Names along the third axis of a stack of local maps, for :meth:`layer`.
    """

    def __init__(
        self, source, function, *, item_shape, dtype=np.float32, batch_size=1, layer_names=None
    ):
        self.source = source
        self.function = function
        self.item_shape = item_shape
        self.dtype = np.dtype(dtype)
        self.batch_size = batch_size
        self.layer_names = layer_names
        self._indices = np.arange(n_samples(source))

    @property
    def shape(self):
        return (len(self), *(self.item_shape or ()))

    @property
    def ndim(self):
        return len(self.shape)

    @property
    def is_ragged(self):
        """Whether the samples differ in size."""
        return self.item_shape is None

    def __len__(self):
        return len(self._indices)

    def __repr__(self):
        return f"LazyStack(shape={self.shape}, dtype={self.dtype})"

    def __getitem__(self, key):
        """Return one computed sample for an integer, a lazy stack for anything longer.

        A tuple indexes the samples first; the integers, slices or ellipsis that follow apply to
        each computed sample.
        """
        samples, *rest = key if isinstance(key, tuple) and key else (key,)
        if samples is Ellipsis:
            rest = [Ellipsis, *rest]
        if not all(isinstance(part, (Integral, slice, EllipsisType)) for part in rest):
            raise IndexError(
                "Within the samples of a lazy stack, indices must be integers, slices or an "
                f"ellipsis. Got {key} instead. Index np.asarray(stack)."
            )
        indices = self._indices[samples]
        if indices.ndim > 1:
            raise IndexError(
                "The samples of a lazy stack must be indexed by an integer, a slice, or a "
                f"1-dimensional list or mask. Got {samples} instead."
            )
        if indices.ndim == 0:
            return self._compute(indices[np.newaxis])[0][tuple(rest)]
        selected = copy(self)
        selected._indices = indices
        if all(part in (Ellipsis, slice(None)) for part in rest):
            return selected
        part = _Part(rest)
        item_shape = self.item_shape and part(np.broadcast_to(0, (1, *self.item_shape))).shape[1:]
        return LazyStack(
            selected,
            part,
            item_shape=item_shape,
            dtype=self.dtype,
            batch_size=self.batch_size,
            layer_names=self.layer_names and _names_of_part(self.layer_names, rest),
        )

    def __iter__(self):
        for batch in self.batches():
            yield from batch

    def batches(self):
        """Yield the samples in order, `batch_size` at a time.

        Yields
        ------
        batch : ndarray of shape (n_batch, ...) or list of ndarray
            A list when the samples differ in size.
        """
        for start in range(0, len(self), self.batch_size):
            yield self._compute(self._indices[start : start + self.batch_size])

    def layer(self, name):
        """Return the lazy stack of one layer of a stack of local maps.

        Parameters
        ----------
        name : str
            One of `layer_names`, such as ``"L8"``.

        Returns
        -------
        stack : LazyStack of shape (n_samples, n_classes, height, width)
        """
        if not self.layer_names or name not in self.layer_names:
            raise ValueError(f"name must be one of {self.layer_names}. Got {name!r} instead.")
        return self[:, :, self.layer_names.index(name)]

    def then(self, function, *, item_shape):
        """Return the stack of what `function` makes of this one's source.

        Parameters
        ----------
        function : callable
            Takes the place of this stack's own, which it may call.
        item_shape : tuple of int or None
            Shape of its samples.
        """
        stack = LazyStack(self.source, function, item_shape=item_shape, batch_size=self.batch_size)
        stack._indices = self._indices
        return stack

    def __array__(self, dtype=None, copy=None):
        if copy is False:
            raise ValueError("A lazy stack is computed when read: copy must not be False.")
        if self.is_ragged:
            raise ValueError(
                "The samples of this stack differ in size, so they do not form one array. "
                "Iterate over the stack instead."
            )
        if 0 < len(self) <= self.batch_size:  # it is one array already, unless it is the source
            part = take(self.source, self._indices)
            batch = self.function(part)
            arrays = isinstance(part, np.ndarray) and isinstance(batch, np.ndarray)
            is_view = arrays and np.may_share_memory(batch, part)  # `part` may be the user's
            return np.array(batch, dtype=dtype or self.dtype, copy=is_view or None)
        dense = np.empty(self.shape, dtype=dtype or self.dtype)
        start = 0
        for batch in self.batches():
            dense[start : start + len(batch)] = batch
            start += len(batch)
        return dense

    def __array_namespace__(self, *, api_version=None):
        """Be what the dense array is to scikit-learn when its array API dispatch is on."""
        return get_namespace(np.empty(0))[0]

    def _compute(self, indices):
        return self.function(take(self.source, indices))


def _names_of_part(names, key):
    """Return the layer names of a part of samples of (n_classes, n_layers, height, width).

    ``None`` if the part lacks one of these axes.
    """
    if any(isinstance(part, Integral) for part in key):
        return None
    if Ellipsis in key:  # it stands for so many whole axes
        at = key.index(Ellipsis)
        key = [*key[:at], *[slice(None)] * (5 - len(key)), *key[at + 1 :]]
    return names[key[1]] if len(key) > 1 else names


class _Part:
    """Pick a part of each sample of a batch (a class, so that a stack can be pickled)."""

    def __init__(self, key):
        self.key = tuple(key)

    def __call__(self, batch):
        if isinstance(batch, list):
            return [sample[self.key] for sample in batch]
        return batch[(slice(None), *self.key)]


def n_samples(source):
    """Return the length of a list or an array; Zarr arrays have a shape only."""
    return source.shape[0] if hasattr(source, "shape") else len(source)


def as_stack(array):
    """Wrap an array that is read piecewise, such as one on disk, as a lazy stack."""
    if isinstance(array, LazyStack):
        return array
    return LazyStack(
        array, _same, item_shape=array.shape[1:], dtype=array.dtype, batch_size=_N_READ_AT_ONCE
    )


_N_READ_AT_ONCE = 32


def _same(batch):
    return batch


def take(source, indices):
    """Read the samples `indices` of `source`: an array, or a list when they differ in size."""
    if isinstance(source, (list, tuple)):
        return [source[i] for i in indices]
    if len(indices) and np.array_equal(indices, np.arange(indices[0], indices[0] + len(indices))):
        part = source[int(indices[0]) : int(indices[0]) + len(indices)]  # a view where possible
    elif isinstance(source, (np.ndarray, LazyStack)):
        part = source[indices]
    else:  # HDF5 reads increasing indices only, and Zarr has an indexer of its own
        unique, inverse = np.unique(indices, return_inverse=True)
        part = np.asarray(getattr(source, "oindex", source)[unique])[inverse]
    if isinstance(part, LazyStack) and part.is_ragged:
        return list(part)
    return np.asarray(part)

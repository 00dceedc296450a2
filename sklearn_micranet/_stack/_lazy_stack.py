"""A sequence of arrays that are computed, batch by batch, when somebody reads them."""

from collections.abc import Sequence
from copy import copy
from numbers import Integral
from types import EllipsisType

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from ._kept import is_kept, kept
from ._keys import key_of, key_of_array
from ._sources import is_lazy, n_samples, take

MAX_BYTES_OF_OPERAND = 2**30
_N_READ_AT_ONCE, _N_VALUES_READ_AT_ONCE = 32, 2**24


class LazyStack(NDArrayOperatorsMixin, Sequence):
    """Stack of equally treated samples, computed when read.

    ``Pipeline.fit`` passes its training images through every transformer whether a later step
    reads the result or not. A transformer that returns a `LazyStack` makes that free: a sample
    is computed when it is indexed, iterated over, or turned into an array. The samples that were
    computed last are kept until others are.

    Parameters
    ----------
    source : sequence of length n_samples
        What the samples are computed from: an array, another stack, or a list.
    function : callable
        Maps a batch, ``source[start:stop]`` as an array (a list when the samples differ in
        size), to a sequence with one array per sample. It must be picklable if the stack is to be.
        An attribute `key` of it tells what its results depend on besides the batch.
    item_shape : tuple of int or None
        Shape of one sample. ``None`` when samples differ in size: such a stack is a sequence of
        arrays and cannot be turned into one array.
    dtype : numpy dtype, default=float32
        Data type of the samples.
    batch_size : int, default=1
        Number of samples computed at a time. Memory grows with it.
    layer_names : tuple, default=None
        What the layers, the third axis of a stack of local maps, are called: each by a name such as
        "L8" or, of several networks, a pair of that and the number of the network.
    memory : str or object with the joblib.Memory interface, default=None
        Where samples are kept, and found by their key, instead of being computed again.

    Attributes
    ----------
    class_names : tuple or None
        Labels of the classes along the second axis, if they are known. They travel on.
    """

    def __init__(
        self,
        source,
        function,
        *,
        item_shape,
        dtype=np.float32,
        batch_size=1,
        layer_names=None,
        memory=None,
    ):
        self.source = source
        self.function = function
        self.item_shape = item_shape
        self.dtype = np.dtype(dtype)
        self.batch_size = batch_size
        self.layer_names = layer_names
        self.memory = memory
        self.class_names = getattr(source, "class_names", None)
        self._indices = np.arange(n_samples(source))
        self._last = {}  # index: sample, of the last batch, shared by all selections of this stack

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
            sample = self._read(indices[np.newaxis])[0]
            return _copied(sample[tuple(rest)] if rest else sample)
        selected = copy(self)
        selected._indices, selected._last = indices, self._last
        if all(part in (Ellipsis, slice(None)) for part in rest):
            return selected
        part = _Part(tuple(rest))
        item_shape = self.item_shape and part(np.broadcast_to(0, self.item_shape)).shape
        stack = LazyStack(
            selected,
            _Each(part),
            item_shape=item_shape,
            dtype=self.dtype,
            batch_size=self.batch_size,
            layer_names=self.layer_names and _names_of_part(self.layer_names, rest),
        )
        if self.class_names and isinstance(rest[0], Integral | slice):
            is_slice = isinstance(rest[0], slice)
            stack.class_names = self.class_names[rest[0]] if is_slice else None
        return stack

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
            batch = self._read(self._indices[start : start + self.batch_size])
            yield list(map(_copied, batch)) if self.is_ragged else np.array(batch)

    def layer(self, name):
        """Return the lazy stack of one layer of a stack of local maps.

        Parameters
        ----------
        name : str or tuple
            One of `layer_names`: ``"L8"``, or ``("L8", 2)`` of the third of several networks.

        Returns
        -------
        stack : LazyStack of shape (n_samples, n_classes, height, width)
        """
        if not self.layer_names or name not in self.layer_names:
            raise ValueError(f"name must be one of {self.layer_names}. Got {name!r} instead.")
        return self[:, :, self.layer_names.index(name)]

    def map(self, function, *, item_shape, dtype=np.float32, layer_names=None, memory=None):
        """Return the stack of what a function makes of each sample.

        Parameters
        ----------
        function : callable
            Maps one sample to one array; a :func:`functools.partial` holds its parameters as they
            are now. It must not change the sample.
        item_shape : tuple of int or None
            Shape of the results; ``None`` if they differ in size.
        dtype : numpy dtype, default=float32
            Data type of the results.
        layer_names : tuple, default=None
            As of a stack.
        memory : str or object with the joblib.Memory interface, default=None
            Where the results are kept. They are found by the function and the key of the sample.

        Returns
        -------
        stack : LazyStack
        """
        return LazyStack(
            self,
            _Each(function),
            item_shape=item_shape,
            dtype=dtype,
            batch_size=self.batch_size,
            layer_names=layer_names,
            memory=memory,
        )

    def computed(self):
        """Return all samples: an array, or a list if they differ in size."""
        return list(self) if self.is_ragged else np.asarray(self)

    def keys(self):
        """Return a key of each sample: equal where the samples are.

        It follows from the keys of the source and of the function. Samples whose function has no
        key, such as one that reads files, are read.
        """
        return self._keys_of(self._indices)

    def __array__(self, dtype=None, copy=None):
        if copy is False:
            raise ValueError("A lazy stack is computed when read: copy must not be False.")
        if self.is_ragged:
            raise ValueError(
                "The samples of this stack differ in size, so they do not form one array. "
                "Iterate over the stack instead."
            )
        if 0 < len(self) <= self.batch_size and not self._last and self.memory is None:
            part = take(self.source, self._indices)  # the batch is the array, unless it is a view
            batch = self.function(part)
            if len(batch) == 1 and isinstance(batch[0], np.ndarray):
                batch = batch[0][np.newaxis]  # a list of several is copied into one array
            read = part if isinstance(part, list) else [part]
            is_view = isinstance(batch, np.ndarray) and any(  # what was read may be the user's
                isinstance(x, np.ndarray) and np.may_share_memory(batch, x) for x in read
            )
            return np.array(batch, dtype=dtype or self.dtype, copy=is_view or None)
        dense = np.empty(self.shape, dtype=dtype or self.dtype)
        for start in range(0, len(self), self.batch_size):
            batch = self._read(self._indices[start : start + self.batch_size], keep=False)
            dense[start : start + len(batch)] = batch
        return dense

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        """Compute NumPy arithmetic on the dense array, unless that is large."""
        operands = [_dense_operand(x) if isinstance(x, LazyStack) else x for x in inputs]
        return getattr(ufunc, method)(*operands, **kwargs)

    def read(self, positions):
        """Return some samples, in an array or a list, for somebody who does not change them."""
        return self._read(self._indices[positions])

    def _read(self, indices, keep=True):
        """Return samples by their place in the source; those read last are not computed again."""
        found = [self._last.get(int(i)) for i in indices]
        if len(found) and all(sample is not None for sample in found):
            return found
        self._last.clear()  # before the next batch is computed, so that there is one at a time
        batch = self._compute(indices) if self.memory is None else self._look_up(indices)
        if keep:
            self._last.update(zip(indices.tolist(), batch, strict=True))
        return batch

    def _compute(self, indices):
        return self.function(take(self.source, indices))

    def _look_up(self, indices):
        keys = self._keys_of(indices)
        missing = [i for i, key in zip(indices, keys, strict=True) if not is_kept(self.memory, key)]
        # As one batch, which takes less time than its samples one by one.
        made = dict(zip(missing, self._compute(np.array(missing)), strict=True)) if missing else {}
        return [
            kept(self.memory, key, lambda i=i: made[i] if i in made else self._one(i))
            for i, key in zip(indices, keys, strict=True)
        ]

    def _one(self, index):
        return self._compute(np.array([index]))[0]

    def _keys_of(self, indices):
        key = getattr(self.function, "key", None)
        if key is None:
            return [key_of_array(sample) for sample in self._read(indices)]
        if isinstance(self.source, LazyStack):
            keys = self.source._keys_of(self.source._indices[indices])
        else:
            keys = [key_of_array(sample) for sample in take(self.source, indices)]
        return [key_of(key, source_key) for source_key in keys]

    def __getstate__(self):
        return vars(self) | {"_last": {}}


def _copied(sample):
    # What was computed last is kept: it must not change when its reader changes the sample.
    return sample.copy() if isinstance(sample, np.ndarray) else sample


def _dense_operand(stack):
    n_bytes = stack.dtype.itemsize * np.prod(stack.shape, dtype=float)
    if not stack.is_ragged and n_bytes > MAX_BYTES_OF_OPERAND:
        raise ValueError(
            "Arithmetic on a lazy stack must take at most "
            f"{MAX_BYTES_OF_OPERAND / 2**30:g} GiB, as all its samples are computed. Got "
            f"{n_bytes / 2**30:.1f} GiB instead. Calculate with a part such as stack[:100], or "
            "with np.asarray(stack)."
        )
    return np.asarray(stack)


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


class _Each:
    """Apply a function to each sample of a batch (a class, so that a stack can be pickled)."""

    def __init__(self, function):
        self.function = function

    @property
    def key(self):
        return key_of(self.function)

    def __call__(self, batch):
        return [self.function(sample) for sample in batch]


class _Part:
    """Pick a part of a sample."""

    def __init__(self, index):
        self.index = index

    def __call__(self, sample):
        return sample[self.index]


def as_stack(array):
    """Wrap an array, or a list of arrays, that is read piecewise as a lazy stack."""
    if isinstance(array, LazyStack):
        return array
    if isinstance(array, list):
        dtype = np.result_type(*(sample.dtype for sample in array))
        return LazyStack(array, _same, item_shape=None, dtype=dtype)
    n_values = max(1, int(np.prod(array.shape[1:], dtype=float)))
    return LazyStack(
        array,
        _same,
        item_shape=array.shape[1:],
        dtype=array.dtype,
        batch_size=max(1, min(_N_READ_AT_ONCE, _N_VALUES_READ_AT_ONCE // n_values)),
    )


def read_piecewise(X):
    """Wrap an array that is not in memory as a lazy stack, so that its folds are read piecewise."""
    on_disk = is_lazy(X) or (isinstance(X, np.memmap) and X.ndim > 2)
    return as_stack(X) if on_disk else X


def _same(batch):
    return batch

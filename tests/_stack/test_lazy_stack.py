import pickle
from functools import partial

import joblib
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.model_selection import KFold, train_test_split
from sklearn.utils import _safe_indexing, indexable
from sklearn.utils.validation import _num_samples

from sklearn_micranet._stack._lazy_stack import LazyStack, as_stack
from sklearn_micranet._stack._sources import take


def double(batch):
    return [2 * sample for sample in batch] if isinstance(batch, list) else 2 * batch


class Counting:
    """Double a batch, and remember which samples were computed."""

    def __init__(self):
        self.batches = []

    def __call__(self, batch):
        self.batches.append([int(np.ravel(sample)[0]) // 24 for sample in batch])
        return double(batch)

    @property
    def samples(self):
        return [sample for batch in self.batches for sample in batch]


@pytest.fixture
def source():
    # The first value of sample i is 24 i.
    return np.arange(7 * 24, dtype=np.float32).reshape(7, 2, 3, 4)


@pytest.fixture
def stack(source):
    return LazyStack(source, Counting(), item_shape=(2, 3, 4), batch_size=3)


@pytest.fixture
def ragged():
    samples = [np.full((2, 8, 2 + i, 3), i, dtype=np.float32) for i in range(4)]
    names = tuple(f"L{i}" for i in range(1, 9))
    return LazyStack(samples, double, item_shape=None, batch_size=3, layer_names=names)


def test_describes_itself_without_computing(stack):
    assert (stack.shape, stack.ndim, len(stack)) == ((7, 2, 3, 4), 4, 7)
    assert stack.dtype == np.float32
    assert not stack.is_ragged
    assert repr(stack) == "LazyStack(shape=(7, 2, 3, 4), dtype=float32)"
    assert stack.function.batches == []


def test_dense_array_is_computed_in_batches(stack, source):
    assert_array_equal(np.asarray(stack), 2 * source)
    assert stack.function.batches == [[0, 1, 2], [3, 4, 5], [6]]


def test_the_dense_array_is_not_kept(stack):
    np.asarray(stack[:1])
    np.asarray(stack[:1])
    assert stack.function.batches == [[0], [0]]


SAMPLES = {
    "slice": slice(2, 5),
    "open slice": slice(None, -2),
    "stepped slice": slice(None, None, 3),
    "reversed slice": slice(None, None, -1),
    "empty slice": slice(3, 3),
    "list": [4, 0, 4],
    "negative list": [-1, -7],
    "range": range(1, 6, 2),
    "empty list": [],
    "array": np.array([5, 6]),
    "mask": np.array([1, 0, 0, 1, 1, 0, 0], dtype=bool),
    "mask as list": [False, True, False, False, False, False, True],
    "nothing selected": np.zeros(7, dtype=bool),
    "ellipsis": ...,
    "empty tuple": (),
}


@pytest.mark.parametrize("key", SAMPLES.values(), ids=SAMPLES)
def test_several_samples_are_a_lazy_stack(stack, source, key):
    expected = 2 * source[key]

    part = stack[key]

    assert isinstance(part, LazyStack)
    assert stack.function.batches == []
    assert part.shape == expected.shape
    assert_array_equal(np.asarray(part), expected, strict=True)
    assert stack.function.samples == np.arange(7)[key].tolist()


@pytest.mark.parametrize("key", [0, 6, -1, -7, np.int64(3), np.array(2), (4,), (4, ...)])
def test_one_sample_is_an_array(stack, source, key):
    sample = stack[key]
    assert isinstance(sample, np.ndarray)
    assert_array_equal(sample, 2 * source[key], strict=True)
    assert len(stack.function.samples) == 1


PARTS = {
    "of one sample": (1, slice(None), 0),
    "one value": (-1, 1, 2, 3),
    "of all": (slice(None), 1),
    "last axis": (..., -1),
    "ellipsis before samples": (..., slice(1, 3), 0),
    "ellipsis between": (slice(2, 6), ..., 0),
    "of a list": ([5, 0], 0, slice(None, None, -1)),
    "of a mask": (np.arange(7) > 4, slice(None), slice(1, 1)),
    "of none": (slice(0, 0), 0),
    "of samples in reverse": (slice(None, None, -2), slice(0, 1)),
    "all of it": (slice(None), slice(None), ...),
}


@pytest.mark.parametrize("key", PARTS.values(), ids=PARTS)
def test_tuples_index_as_in_numpy(stack, source, key):
    expected = 2 * source[key]
    part = stack[key]
    assert part.shape == expected.shape
    assert_array_equal(np.asarray(part), expected)


def test_tuples_compute_only_the_samples_they_name(stack):
    part = stack[2:4, 0]
    assert isinstance(part, LazyStack)
    assert stack.function.batches == []
    assert np.asarray(part).shape == (2, 3, 4)
    assert stack.function.batches == [[2, 3]]


def test_selections_are_selected_from(stack, source):
    nested = stack[1:][[4, 2, 0]][::-1][:2, ..., 0]
    assert_array_equal(np.asarray(nested), 2 * source[[1, 3]][..., 0])
    assert stack.function.samples == [1, 3]


@pytest.mark.parametrize(
    ("key", "match"),
    [
        (7, "index 7 is out of bounds for axis 0 with size 7"),
        (-8, "out of bounds"),
        ([0, 9], "out of bounds"),
        (np.ones(6, dtype=bool), "boolean index did not match"),
        (None, "1-dimensional list or mask. Got None instead"),
        ([[0, 1], [2, 3]], "1-dimensional list or mask"),
        ("L8", "only integers, slices"),
        (1.0, "only integers, slices"),
        # NumPy would pair the two lists.
        (([0, 1], [0, 1]), "must be integers, slices or an ellipsis"),
        ((slice(None), [0, 1]), "must be integers, slices or an ellipsis"),
        ((slice(None), None), "must be integers, slices or an ellipsis"),
        ((slice(None), 2), "out of bounds"),
        ((..., 0, 0, 0, 0), "too many indices"),
    ],
)
def test_other_indices_are_refused(stack, key, match):
    with pytest.raises(IndexError, match=match):
        stack[key]
    assert stack.function.batches == []


def test_iteration(stack, source):
    samples = iter(stack)
    assert_array_equal(next(samples), 2 * source[0])
    assert stack.function.batches == [[0, 1, 2]]
    assert len(list(samples)) == 6
    assert [int(sample[0, 0, 0]) for sample in reversed(stack)] == [48 * i for i in range(7)][::-1]


def test_batches(stack, source):
    batches = list(stack[::2].batches())
    assert [len(batch) for batch in batches] == [3, 1]
    assert_array_equal(np.concatenate(batches), 2 * source[::2])


def test_dtype_and_copy_arguments(stack, source):
    assert np.asarray(stack).dtype == np.float32
    assert_array_equal(np.asarray(stack, dtype=int), (2 * source).astype(int), strict=True)
    assert_array_equal(np.array(stack, dtype=np.float64), 2.0 * source.astype(float), strict=True)
    assert_array_equal(np.asarray(stack, copy=True), 2 * source, strict=True)
    with pytest.raises(ValueError, match="copy must not be False"):
        np.asarray(stack, copy=False)


def test_dtype_of_the_samples():
    stack = LazyStack(np.eye(3), lambda batch: batch > 0, item_shape=(3,), dtype=bool)
    assert stack.dtype == bool
    assert_array_equal(np.asarray(stack), np.eye(3, dtype=bool), strict=True)


def test_works_in_numpy_functions(stack, source):
    assert_array_equal(np.add(stack, 1), 2 * source + 1)
    assert np.mean(stack) == np.mean(2 * source)


def test_reading_changes_nothing(stack, source):
    before = source.copy()
    np.asarray(stack)[:] = -1
    stack[0][:] = -1
    assert_array_equal(source, before)
    assert_array_equal(np.asarray(stack), 2 * before)


def same(batch):
    return batch


def reverse_rows(batch):
    return [sample[::-1] for sample in batch] if isinstance(batch, list) else batch[:, ::-1]


class Wrapped:
    """An array that is not one of NumPy's, and hands out views of its memory."""

    def __init__(self, array):
        self.array = array
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __getitem__(self, key):
        return self.array[key]


@pytest.mark.parametrize("function", [same, reverse_rows, list])
@pytest.mark.parametrize("wrap", [np.asarray, Wrapped, as_stack, list])
@pytest.mark.parametrize("key", [slice(None), slice(2, 4), (slice(None), 0)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_are_never_views_of_the_source(source, function, wrap, key, dtype):
    before = source.copy()
    stack = LazyStack(wrap(source), function, item_shape=(2, 3, 4), batch_size=7)[key]
    for dense in (
        np.asarray(stack, dtype=dtype),
        np.array(stack, dtype=dtype),
        stack.__array__(dtype),
    ):
        expected = before[:, ::-1] if function is reverse_rows else before
        assert_array_equal(dense, expected[key].astype(dtype), strict=True)
        assert dense.flags.writeable
        dense[:] = -1
        assert_array_equal(source, before)


def test_a_read_only_source_becomes_a_writeable_array(source):
    source.flags.writeable = False
    dense = np.asarray(as_stack(source))
    dense += 1
    assert_array_equal(dense, source + 1)


def test_one_batch_is_not_copied(source):
    computed = []

    def double_and_keep(batch):
        computed.append(2 * batch)
        return computed[-1]

    stack = LazyStack(source, double_and_keep, item_shape=(2, 3, 4), batch_size=7)
    assert np.shares_memory(np.asarray(stack), computed[-1])
    assert np.shares_memory(np.asarray(stack[1:3]), computed[-1])
    assert not np.shares_memory(np.asarray(stack, dtype=int), computed[-1])
    whole = LazyStack(source, double_and_keep, item_shape=(2, 3, 4), batch_size=3)
    assert_array_equal(np.asarray(whole), 2 * source, strict=True)


def test_an_empty_stack_computes_nothing(stack):
    assert np.asarray(stack[:0]).shape == (0, 2, 3, 4)
    assert stack.function.batches == []


def first_row_tripled(sample):
    return 3 * sample[0]


def test_map_computes_from_each_sample(stack, source):
    tripled = stack.map(first_row_tripled, item_shape=(3, 4))
    assert (tripled.shape, tripled.batch_size, tripled.layer_names) == ((7, 3, 4), 3, None)
    assert stack.function.batches == []
    assert_array_equal(np.asarray(tripled), 6 * source[:, 0], strict=True)
    assert stack.function.batches == [[0, 1, 2], [3, 4, 5], [6]]


@pytest.mark.parametrize("key", [slice(2, 5), [4, 0, 4], np.arange(7) > 4, slice(None, None, -2)])
def test_map_keeps_the_selection(stack, source, key):
    tripled = stack[key].map(first_row_tripled, item_shape=(3, 4))
    assert_array_equal(np.asarray(tripled), 6 * source[key, 0], strict=True)
    assert_array_equal(np.asarray(tripled[::-1]), 6 * source[key, 0][::-1])
    restored = pickle.loads(pickle.dumps(tripled))
    assert_array_equal(np.asarray(restored), 6 * source[key, 0])


def test_map_of_a_ragged_stack(ragged):
    sums = ragged[[3, 1]].map(lambda sample: sample + 1, item_shape=None)
    assert sums.is_ragged
    assert [sample.shape for sample in sums] == [(2, 8, 5, 3), (2, 8, 3, 3)]
    assert [sample[0, 0, 0, 0] for sample in sums] == [7, 3]
    first = ragged.map(lambda sample: sample[0, :2, 0], item_shape=(2, 3))
    assert_array_equal(first, np.stack([sample[0, :2, 0] for sample in ragged]))


def test_computed_is_an_array_or_a_list(stack, ragged, source):
    assert_array_equal(stack.computed(), 2 * source, strict=True)
    samples = ragged.computed()
    assert isinstance(samples, list)
    assert [sample.shape for sample in samples] == [sample.shape for sample in ragged]


# --- what was computed last --------------------------------------------------------------------


def test_a_sample_is_not_computed_again_at_once(stack, source):
    for _ in range(3):
        assert_array_equal(stack[2], 2 * source[2])
    assert stack.function.samples == [2]
    assert_array_equal(stack[1:][1], 2 * source[2])  # selections share it
    assert stack.function.samples == [2]
    assert_array_equal(stack[3], 2 * source[3])
    assert_array_equal(stack[2], 2 * source[2])
    assert stack.function.samples == [2, 3, 2]


def test_all_layers_of_a_sample_are_computed_at_once(source):
    counting = Counting()
    stack = LazyStack(source, counting, item_shape=(2, 3, 4), layer_names=("L1", "L2", "L3"))
    layers = [stack.layer(name)[5] for name in stack.layer_names]
    assert counting.samples == [5]
    assert_array_equal(np.stack(layers, axis=1), 2 * source[5])


def test_what_was_computed_last_cannot_be_changed(stack, source):
    stack[2][:] = 0
    assert_array_equal(stack[2], 2 * source[2])
    for sample in stack:
        sample[:] = 0
    assert_array_equal(stack[6], 2 * source[6])
    assert stack.function.samples == [2, *range(7)]


def test_what_was_computed_last_is_not_pickled(stack):
    stack[2]
    assert len(stack._last) == 1
    assert pickle.loads(pickle.dumps(stack))._last == {}


# --- arithmetic --------------------------------------------------------------------------------


def test_numpy_arithmetic(stack, source):
    assert_array_equal(stack + 1, 2 * source + 1)
    assert_array_equal(1 - stack, 1 - 2 * source)
    assert_array_equal(stack * stack, 4 * source**2)
    assert_array_equal(np.sqrt(stack), np.sqrt(2 * source))
    assert_array_equal(stack > 3, 2 * source > 3)
    assert_array_equal(np.maximum(source, stack), np.maximum(source, 2 * source))


def test_arithmetic_on_large_stacks_is_refused(stack):
    large = LazyStack(range(300), stack.function, item_shape=(1024, 1024))
    with pytest.raises(ValueError, match=r"at most 1 GiB.* Got 1.2 GiB instead.*stack\[:100\]"):
        large + 1
    assert stack.function.batches == []


# --- keys and keeping ----------------------------------------------------------------------------


class Calls:
    n = 0


CALLS = Calls()


def times(sample, *, factor):
    CALLS.n += 1
    return factor * sample


def test_keys_tell_samples_and_functions_apart(source):
    def keys(source, factor=2):
        function = partial(times, factor=factor)
        return as_stack(source).map(function, item_shape=source.shape[1:]).keys()

    assert len(set(keys(source))) == 7
    assert keys(source) == keys(source.copy())
    assert not {*keys(source)} & {*keys(source, factor=3)}
    assert keys(source)[::2] == keys(source[::2])
    changed = source.copy()
    changed[3] += 1
    assert [a == b for a, b in zip(keys(source), keys(changed), strict=True)] == [
        i != 3 for i in range(7)
    ]


def test_keys_of_a_chain_compute_nothing(stack, source):
    chain = as_stack(source).map(fail, item_shape=(2, 3, 4)).map(fail, item_shape=(2, 3, 4))
    assert len(set(chain.keys())) == 7
    assert len(set(stack.keys())) == 7  # without a key of its function it has to be read
    assert stack.function.samples == list(range(7))


def fail(sample):
    raise AssertionError("A sample was computed.")


@pytest.mark.parametrize("is_ragged", [False, True])
def test_memory_keeps_samples(source, ragged, tmp_path, is_ragged):
    samples, item_shape = (ragged, None) if is_ragged else (as_stack(source), (2, 3, 4))

    def kept(samples, factor=2):
        function = partial(times, factor=factor)
        return samples.map(function, item_shape=item_shape, memory=str(tmp_path))

    CALLS.n = 0
    for part, n_calls in ((slice(None), len(samples)), (slice(None, None, -1), 0), ([1, 1], 0)):
        for actual, sample in zip(kept(samples[part]), samples[part], strict=True):
            assert_array_equal(actual, 2 * sample)
        assert CALLS.n == n_calls
        CALLS.n = 0
    assert_array_equal(kept(samples, factor=3)[1], 3 * samples[1])
    assert CALLS.n == 1


def test_what_memory_lacks_is_computed_as_one_batch(source, tmp_path):
    sizes = []

    class Double:
        key = "double"

        def __call__(self, batch):
            sizes.append(len(batch))
            return 2 * batch

    def read(samples):
        settings = {"item_shape": (2, 3, 4), "dtype": source.dtype, "batch_size": 7}
        return np.asarray(LazyStack(samples, Double(), memory=str(tmp_path), **settings))

    read(source[[1, 4]])
    assert_array_equal(read(source), 2 * source)
    assert_array_equal(read(source), 2 * source)
    assert sizes == [2, 5]


def test_stack_on_a_stack(stack, source):
    outer = LazyStack(stack, double, item_shape=(2, 3, 4), batch_size=2)
    assert_array_equal(np.asarray(outer[[3, 1, 0, 0]]), 4 * source[[3, 1, 0, 0]])
    assert stack.function.samples == [3, 1, 0, 0]


@pytest.mark.parametrize("copy", ["pickle", "joblib"])
@pytest.mark.parametrize("key", [slice(None), [3, 1], (slice(1, 4), 0)])
def test_round_trip(stack, source, tmp_path, copy, key):
    if copy == "pickle":
        restored = pickle.loads(pickle.dumps(stack[key]))
    else:
        joblib.dump(stack[key], tmp_path / "stack")
        restored = joblib.load(tmp_path / "stack")
    assert stack.function.batches == []
    assert restored.shape == source[key].shape
    assert_array_equal(np.asarray(restored), 2 * source[key], strict=True)


@pytest.mark.parametrize("key", [[4, 0], np.array([2]), slice(1, 3), np.arange(7) > 3])
def test_sklearn_indexes_lazily(stack, source, key):
    part = _safe_indexing(stack, key)
    assert isinstance(part, LazyStack)
    assert stack.function.batches == []
    assert_array_equal(np.asarray(part), 2 * source[key])


def test_sklearn_splits_lazily(stack, source):
    (same, _) = indexable(stack, np.arange(7))
    assert same is stack
    assert _num_samples(stack) == 7
    splits = list(KFold(3, shuffle=True, random_state=0).split(stack))
    train, test = train_test_split(stack, shuffle=True, random_state=0, test_size=2)
    assert stack.function.batches == []
    assert len(train) == 5
    assert len(test) == 2
    for train, test in splits:
        assert_array_equal(np.asarray(stack[test]), 2 * source[test])
        assert_array_equal(np.asarray(stack[train]), 2 * source[train])


def test_layer():
    maps = np.random.default_rng(0).random((5, 2, 3, 4, 6), dtype=np.float32)
    stack = LazyStack(
        maps, double, item_shape=(2, 3, 4, 6), batch_size=2, layer_names=("image", "L1", "L8")
    )
    layer = stack.layer("L8")
    assert layer.shape == (5, 2, 4, 6)
    assert_array_equal(np.asarray(layer), 2 * maps[:, :, 2], strict=True)
    assert_array_equal(layer[-1], 2 * maps[-1, :, 2], strict=True)
    assert_array_equal(np.asarray(stack[[3, 0]].layer("L1")), 2 * maps[[3, 0], :, 1])
    with pytest.raises(ValueError, match=r"one of \('image', 'L1', 'L8'\). Got 'L2' instead"):
        stack.layer("L2")


@pytest.mark.parametrize("is_ragged", [False, True])
@pytest.mark.parametrize(
    ("part", "names"),
    [
        (np.s_[:, :1], ("image", "L1", "L8")),
        (np.s_[:, :, 1:], ("L1", "L8")),
        (np.s_[:, :, ::-1, :2], ("L8", "L1", "image")),
        (np.s_[:, :, :, :, 0], None),
        (np.s_[..., 1:, :, :], ("L1", "L8")),
        (np.s_[:, 1:, ..., :2], ("image", "L1", "L8")),
        (np.s_[:, 0], None),
        (np.s_[..., 0, :, :], None),
    ],
)
def test_parts_keep_the_names_of_their_layers(is_ragged, part, names):
    maps = np.random.default_rng(0).random((5, 2, 3, 4, 6), dtype=np.float32)
    stack = LazyStack(
        list(maps) if is_ragged else maps,
        double,
        item_shape=None if is_ragged else maps.shape[1:],
        layer_names=("image", "L1", "L8"),
    )
    assert stack[part].layer_names == names
    if names:
        for one, other in zip(stack[part].layer("L8"), 2 * maps[part], strict=True):
            assert_array_equal(one, other[:, names.index("L8")])


def test_layer_without_names(stack):
    with pytest.raises(ValueError, match=r"one of None\. Got 'L1' instead"):
        stack.layer("L1")


def test_ragged_stack(ragged):
    assert ragged.is_ragged
    assert (ragged.shape, ragged.ndim, len(ragged)) == ((4,), 1, 4)
    assert [sample.shape for sample in ragged] == [(2, 8, 2 + i, 3) for i in range(4)]
    assert_array_equal(ragged[-1], np.full((2, 8, 5, 3), 6, dtype=np.float32), strict=True)
    assert [sample[0, 0, 0, 0] for sample in ragged[[2, 0]]] == [4, 0]
    assert [len(batch) for batch in ragged.batches()] == [3, 1]
    with pytest.raises(ValueError, match="differ in size"):
        np.asarray(ragged)


def test_ragged_stack_in_sklearn_and_pickle(ragged):
    part = pickle.loads(pickle.dumps(_safe_indexing(ragged, [3, 1])))
    assert part.is_ragged
    assert [sample.shape[2] for sample in part] == [5, 3]
    assert [len(test) for _, test in KFold(2).split(ragged)] == [2, 2]


def test_parts_of_a_ragged_stack(ragged):
    layer = ragged[1:].layer("L3")
    assert layer.is_ragged
    assert [sample.shape for sample in layer] == [(2, 3, 3), (2, 4, 3), (2, 5, 3)]
    assert ragged[1, 0, 0].shape == (3, 3)
    assert [sample.shape for sample in ragged[:2, 0, :, :2]] == [(8, 2, 3), (8, 2, 3)]


def test_stack_on_a_ragged_stack(ragged):
    outer = LazyStack(ragged, double, item_shape=None, batch_size=2)
    assert [sample[0, 0, 0, 0] for sample in outer[[3, 1, 2]]] == [12, 4, 8]


@pytest.mark.parametrize("indices", [[0, 1, 2], [1, 3], [3, 1], [2, 2, 0], [6, 5, 4], [], [4]])
@pytest.mark.parametrize("kind", ["array", "memmap", "hdf5", "stack"])
def test_take(source, tmp_path, kind, indices):
    indices = np.array(indices, dtype=int)
    expected = source[indices]
    if kind == "memmap":
        np.save(tmp_path / "x.npy", source)
        source = np.load(tmp_path / "x.npy", mmap_mode="r")
    elif kind == "hdf5":
        h5py = pytest.importorskip("h5py")
        source = h5py.File(tmp_path / "x.h5", "w").create_dataset("x", data=source)
    elif kind == "stack":
        source = LazyStack(source / 2, double, item_shape=(2, 3, 4), batch_size=2)
    assert_array_equal(take(source, indices), expected, strict=True)


def test_take_of_a_list():
    assert take(["a", "b", "c"], np.array([2, 0])) == ["c", "a"]

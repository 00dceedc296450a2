"""Arrays on disk are legal images, and are read piecewise."""

import dask.array as dask_array
import h5py
import numpy as np
import pytest
import zarr
from numpy.testing import assert_array_equal
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline

from sklearn_micranet import (
    GradCAMFeatureTransformer,
    IntensityScaler,
    MicraNetClassifier,
    MicraNetEnsemble,
    PCAFeatureMap,
    ThresholdSegmenter,
)
from sklearn_micranet._stack._lazy_stack import LazyStack
from sklearn_micranet._tuned_thresholds_classifier import TunedThresholdsClassifierCV
from sklearn_micranet.images import as_stack, extract_crops

N_IMAGES = 40


class OnDisk:
    """As little of an array as Zarr offers: no length, and an indexer of its own for lists."""

    def __init__(self, array):
        self._array = array
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim
        self.n_read_at_once = []

    def __getitem__(self, key):
        if isinstance(key, np.ndarray):
            raise IndexError("Zarr takes lists of samples through oindex only")
        part = self._array[key]
        self.n_read_at_once.append(part.shape[0] if part.ndim == self.ndim else 1)
        return part

    @property
    def oindex(self):
        read = self

        class Indexer:
            def __getitem__(self, indices):
                assert_array_equal(indices, np.unique(indices))
                read.n_read_at_once.append(len(indices))
                return read._array[indices]

        return Indexer()

    def __array__(self, dtype=None, copy=None):
        raise AssertionError("the whole array was read")


def images_and_labels():
    images = np.random.default_rng(0).integers(0, 200, (N_IMAGES, 16, 16), dtype=np.uint8)
    labels = np.arange(N_IMAGES) % 2
    images[labels == 1, 4:10, 4:10] = 255
    return images, labels


def library_array(name, images, folder):
    if name == "zarr":
        array = zarr.create_array(
            store=folder / "images.zarr", shape=images.shape, chunks=(4, 16, 16), dtype="u1"
        )
        array[:] = images
        return array
    if name == "sliced":
        return Sliced(images)
    if name == "dask":
        return dask_array.from_array(images, chunks=(4, 16, 16))
    with h5py.File(folder / "images.h5", "w") as file:
        file["images"] = images
    return h5py.File(folder / "images.h5")["images"]


class Sliced:
    """An array that knows slices only, as h5py's would without its own indexing of lists."""

    def __init__(self, array):
        self._array = array
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, key):
        if not isinstance(key, slice):
            raise TypeError(f"Only slices are legal. Got {type(key).__name__} instead.")
        return self._array[key]


def pipeline(*before):
    classifier = MicraNetClassifier(n_filters=2, max_epochs=2, batch_size=8, random_state=0)
    cam = GradCAMFeatureTransformer(classifier, batch_size=8)
    return make_pipeline(*before, cam, PCAFeatureMap(), ThresholdSegmenter())


@pytest.mark.parametrize("before", [(), (IntensityScaler(),)], ids=["plain", "scaled"])
def test_images_are_read_batch_by_batch(before):
    images, labels = images_and_labels()
    on_disk = OnDisk(images)
    fitted = pipeline(*before).fit(on_disk, labels)
    masks = fitted.predict(on_disk)
    assert len(on_disk.n_read_at_once) > 0
    assert max(on_disk.n_read_at_once) <= 32 < N_IMAGES
    assert_array_equal(masks, pipeline(*before).fit(images, labels).predict(images))


def test_images_of_different_sizes_are_read_once_and_only_when_needed():
    images, labels = images_and_labels()
    read = []

    def load(numbers):
        read.extend(numbers)
        return [images[i, : 16 - i] for i in numbers]

    def ragged():
        return LazyStack([0, 1, 2], load, item_shape=None, dtype=np.uint8)

    fitted = pipeline(IntensityScaler()).fit(images, labels)
    stack = fitted.transform(ragged())
    assert read == []
    classifier = fitted[1].estimator_
    for use in (
        lambda: list(stack),
        lambda: fitted.predict(ragged()),
        lambda: classifier.predict_proba(ragged()),
    ):
        use()
        assert read == [0, 1, 2]
        read.clear()
    IntensityScaler().fit(ragged()).transform(ragged())
    assert read == [0]  # for its channels


def test_crops_are_cut_without_reading_the_rest():
    images, _ = images_and_labels()
    crops = extract_crops(OnDisk(images), size=8, masks=OnDisk(images > 250))
    expected = extract_crops(images, size=8, masks=images > 250)
    assert_array_equal(crops.images, expected.images)
    assert_array_equal(crops.labels, expected.labels)


@pytest.mark.parametrize("name", ["zarr", "dask", "h5py"])
def test_arrays_of_other_libraries(name, tmp_path):
    images, labels = images_and_labels()
    array = library_array(name, images, tmp_path)
    masks = pipeline().fit(array, labels).predict(array)
    assert_array_equal(masks, pipeline().fit(images, labels).predict(images))
    crops = extract_crops(array, size=8, masks=array)
    assert_array_equal(crops.images, extract_crops(images, size=8).images)


def network():
    return MicraNetClassifier(n_filters=2, max_epochs=2, batch_size=8, random_state=0)


@pytest.mark.parametrize("name", ["zarr", "dask", "h5py", "sliced"])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_rows_of_arrays_of_other_libraries(name, tmp_path):
    images, labels = images_and_labels()
    array = library_array(name, images, tmp_path)
    for fit in (
        network().fit,
        MicraNetEnsemble(network(), cv=2, random_state=0).fit,
        TunedThresholdsClassifierCV(network(), cv=2, random_state=0).fit,
    ):
        expected = fit(images, labels).predict_proba(images)
        assert_array_equal(fit(array, labels).predict_proba(array), expected)


@pytest.mark.parametrize("name", ["zarr", "dask", "h5py", "sliced"])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_scikit_learn_splits_arrays_of_other_libraries(name, tmp_path):
    images, labels = images_and_labels()
    array = library_array(name, images, tmp_path)
    stack = as_stack(array)
    search = GridSearchCV(network(), {"lr": [1e-3, 1e-1]}, cv=2, error_score="raise")
    scores = search.fit(images, labels).cv_results_["mean_test_score"]
    assert_array_equal(search.fit(stack, labels).cv_results_["mean_test_score"], scores)
    expected = cross_val_predict(network(), images, labels, cv=2, method="predict_proba")
    found = cross_val_predict(network(), stack, labels, cv=2, method="predict_proba")
    assert_array_equal(found, expected)
    if name in ("dask", "h5py"):  # scikit-learn can take their rows itself
        assert_array_equal(search.fit(array, labels).cv_results_["mean_test_score"], scores)


def test_what_is_no_array_of_images_is_refused():
    for images in ("folder", [np.zeros((8, 8))], np.zeros((3, 64))):
        with pytest.raises(TypeError, match="images must be an array of shape"):
            as_stack(images)


def test_the_array_of_one_sample_is_no_copy_but_never_memory_that_was_read():
    made, source = [], np.arange(12.0).reshape(1, 3, 4)

    def double(batch):
        made.append(2 * batch[0])
        return made

    assert np.shares_memory(
        np.asarray(LazyStack(source, double, item_shape=(3, 4), dtype=float)), made[0]
    )
    same = LazyStack(source, list, item_shape=(3, 4), dtype=float)
    assert not np.shares_memory(np.asarray(same), source)
    of_list = LazyStack([source[0]], list, item_shape=(3, 4), dtype=float)
    assert not np.shares_memory(np.asarray(of_list), source)

import pickle
import subprocess
import sys

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_micranet._intensity_scaler import IntensityScaler
from sklearn_micranet._stack._lazy_stack import LazyStack

METHODS = ["minmax", "standard", "dtype", "percentile", "training_range"]


@parametrize_with_checks(
    [
        IntensityScaler(method=method, bit_depth=12 if method == "dtype" else None)
        for method in METHODS
    ]
    + [IntensityScaler(invert=True)],
    expected_failed_checks=lambda estimator: {
        "check_array_api_input": "A lazy stack is no array of a namespace: np.asarray makes one."
    },
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def scaled(images, **parameters):
    return np.asarray(IntensityScaler(**parameters).fit_transform(images))


CHANNELS = np.array([[[[10, 20], [30, 50]]], [[[0, 1], [2, 4]]]], dtype=np.uint16)


def test_minmax_uses_the_range_of_each_channel_of_each_image():
    result = scaled(CHANNELS)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, [[[[0, 0], [1, 1]]], [[[0, 0], [1, 1]]]])


def test_minmax_uses_the_range_of_all_channels_on_request():
    expected = [[[[0, 0.25], [0.5, 1]]], [[[0, 0.25], [0.5, 1]]]]
    np.testing.assert_allclose(scaled(CHANNELS, per_channel=False), expected)


def test_standard_treats_each_channel_by_itself():
    channels = [[1, 3], [10, 10]]  # mean 2, standard deviation 1; constant
    image = np.moveaxis(np.array([channels]), 1, -1)[:, np.newaxis]
    np.testing.assert_allclose(scaled(image, method="standard"), [[[[-1, 0], [1, 0]]]])
    together = (np.array([[[[1, 10], [3, 10]]]]) - 6) / 16.5**0.5
    result = scaled(image, method="standard", per_channel=False)
    np.testing.assert_allclose(result, together, rtol=1e-6)


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.int16, np.float16, ">u2", ">f8"])
@pytest.mark.parametrize("method", METHODS)
def test_channels_are_scaled_as_images_of_their_own(method, dtype, invert):
    rng = np.random.default_rng(0)
    strength = np.array([1, 0.01, 0]) * (1 if np.dtype(dtype).kind in "bf" else 100)
    images = (rng.random((4, 5, 6, 3)) * strength).astype(dtype)  # the last is constant
    expected = [scaled(images[..., c], method=method, invert=invert) for c in range(3)]
    result = scaled(images, method=method, invert=invert)
    np.testing.assert_array_equal(result, np.stack(expected, axis=-1))


@pytest.mark.parametrize("method", ["minmax", "percentile", "training_range"])
def test_a_weak_channel_has_the_range_of_a_strong_one(method):
    rng = np.random.default_rng(0)
    images = rng.integers(0, [60_000, 500], (5, 64, 64, 2)).astype(np.uint16)
    strong, weak = np.moveaxis(scaled(images, method=method), -1, 0)
    assert np.ptp(strong) == pytest.approx(np.ptp(weak), rel=0.1)
    strong, weak = np.moveaxis(scaled(images, method=method, per_channel=False), -1, 0)
    assert np.ptp(weak) == pytest.approx(np.ptp(strong) / 120, rel=0.1)


@pytest.mark.parametrize(
    ("dtype", "bit_depth", "largest"),
    [(np.uint8, None, 255), (np.uint16, None, 65535), (np.uint16, 12, 4095), (float, 8, 255)],
)
def test_dtype_divides_by_the_largest_intensity(dtype, bit_depth, largest):
    images = np.array([[[0, 51, 255]]], dtype=dtype)
    result = scaled(images, method="dtype", bit_depth=bit_depth)
    np.testing.assert_allclose(result, [[[0, 51 / largest, 255 / largest]]], rtol=1e-6)


def test_dtype_leaves_float_images_as_they_are():
    np.testing.assert_allclose(scaled([[[0.25, 0.5]]], method="dtype"), [[[0.25, 0.5]]])


@pytest.mark.parametrize("image", [[[0.0, 1.01]], [[-0.01, 0.5]], [[0.0, 60_000.0]]])
def test_dtype_refuses_floats_beyond_their_range(image):
    message = (
        r'method="dtype" requires float64 images to hold intensities in \[0, 1\]\. Got .*bit_d'
    )
    with pytest.raises(ValueError, match=message):
        scaled([image], method="dtype")


def test_dtype_tolerates_rounding():
    np.testing.assert_allclose(scaled([[[-1e-4, 1.0005]]], method="dtype"), [[[-1e-4, 1.0005]]])


def test_dtype_refuses_more_than_the_bit_depth_holds():
    images = np.array([[[0, 4095]]], np.uint16)
    np.testing.assert_array_equal(scaled(images, method="dtype", bit_depth=12), [[[0, 1]]])
    with pytest.raises(
        ValueError, match=r"uint16 images to hold intensities of at most 255\. Got 0"
    ):
        scaled(images, method="dtype", bit_depth=8)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint16, np.int32, np.int64])
def test_the_full_range_of_a_dtype_does_not_overflow(dtype):
    limits = np.iinfo(dtype)
    images = np.array([[[[limits.min, 3], [limits.max, 3]]]], dtype)
    for method in ("minmax", "percentile"):
        result = scaled(images, method=method, percentiles=(0, 100))
        np.testing.assert_array_equal(result, [[[[0, 0], [1, 0]]]])


MIXED = [np.full((3, 4), 255, np.uint8), np.full((3, 4), 255, np.uint16)]


def objects(arrays):
    packed = np.empty(len(arrays), dtype=object)
    packed[:] = arrays
    return packed


def ragged_stack(arrays):
    def load(indices):
        return [arrays[i] for i in indices]

    dtype = np.result_type(*arrays)
    return LazyStack(list(range(len(arrays))), load, item_shape=None, dtype=dtype)


@pytest.mark.parametrize("rows", [3, 2])
@pytest.mark.parametrize("pack", [list, tuple, objects, ragged_stack])
def test_dtype_refuses_mixed_dtypes(pack, rows):
    images = pack([MIXED[1], MIXED[0][:rows]])
    message = r"requires images of one dtype\. Got uint16, uint8 instead: set bit_depth"
    with pytest.raises(ValueError, match=message):
        list(IntensityScaler(method="dtype").fit_transform(images))
    result = list(IntensityScaler(method="dtype", bit_depth=8).fit_transform(images))
    np.testing.assert_array_equal(result[0], np.ones((3, 4)))
    np.testing.assert_array_equal(result[1], np.ones((rows, 4)))


@pytest.mark.parametrize("pack", [list, ragged_stack])
def test_dtype_takes_images_of_either_byte_order(pack):
    images = pack([MIXED[1], MIXED[1][:2].astype(">u2")])
    for image in IntensityScaler(method="dtype").fit_transform(images):
        np.testing.assert_allclose(image, 255 / 65535)


def test_dtype_refuses_wide_integers():
    with pytest.raises(ValueError, match=r"at most 16 bits\. Got int64 instead.*set bit_depth"):
        scaled(np.ones((1, 2, 2), dtype=np.int64), method="dtype")


def test_percentile_ignores_and_clips_outliers():
    image = np.arange(101.0).reshape(1, 1, 101)
    image[0, 0, 100] = 1e6
    result = scaled(image, method="percentile", percentiles=(10, 90))[0, 0]
    np.testing.assert_allclose(result[[0, 10, 50, 90, 100]], [0, 0, 0.5, 1, 1], atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_bool_images_are_images_of_0_and_1(method):
    images = np.random.default_rng(0).random((3, 5, 6)) > 0.7
    expected = scaled(images.astype(float), method=method)
    np.testing.assert_allclose(scaled(images, method=method), expected, rtol=1e-6)


def test_percentile_uses_the_range_of_a_nearly_empty_image():
    image = np.zeros((1, 100, 100))
    image[0, 3, 4] = 8
    assert np.percentile(image, 1) == np.percentile(image, 99.8)
    result = scaled(image, method="percentile")
    assert result[0, 3, 4] == 1
    assert result.sum() == 1


def test_training_range_follows_the_rule_of_the_f_actin_images():
    # Minima 0, 2, 10: median 2. Maxima 10, 20, 30: median 20, standard deviation sqrt(200 / 3).
    training = np.array([[[0, 10]], [[2, 20]], [[10, 30]]])
    scaler = IntensityScaler(method="training_range").fit(training)
    largest = 20 + 3 * (200 / 3) ** 0.5
    np.testing.assert_array_equal(scaler.data_min_, [2])
    np.testing.assert_allclose(scaler.data_max_, [largest])
    new = np.array([[[2, 7, 100]]])
    expected = np.array([[[0, 5, 98]]]) / (0.8 * (largest - 2))
    np.testing.assert_allclose(scaler.transform(new), expected, rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_invert_turns_the_result_over(method):
    images = np.random.default_rng(0).integers(0, 200, (3, 5, 6)).astype(np.uint8)
    plain = scaled(images, method=method)
    expected = -plain if method == "standard" else 1 - plain
    np.testing.assert_allclose(scaled(images, method=method, invert=True), expected, atol=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0.1, 200])
@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("method", ["minmax", "standard", "percentile", "training_range"])
def test_constant_images_become_zeros(method, invert, value):
    images = np.full((2, 7, 7, 3), value)
    np.testing.assert_array_equal(scaled(images, method=method, invert=invert), 0)


@pytest.mark.parametrize("method", METHODS)
def test_flattened_images_are_scaled_as_their_images(method):
    images = np.random.default_rng(0).integers(0, 200, (3, 4, 5, 2)).astype(np.uint8)
    expected = scaled(images, method=method).reshape(3, -1)
    result = scaled(images.reshape(3, -1), method=method, image_shape=(4, 5, 2))
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("method", METHODS)
def test_images_of_different_sizes(method):
    images = [np.arange(12.0).reshape(3, 4) / 20, np.arange(10, 16.0).reshape(2, 3) / 20]
    scaler = IntensityScaler(method=method).fit(images)
    result = scaler.transform(images)
    assert [image.shape for image in result] == [(3, 4), (2, 3)]
    for image, alone in zip(images, result, strict=True):
        np.testing.assert_array_equal(np.asarray(scaler.transform(image[np.newaxis]))[0], alone)


def test_images_are_scaled_only_when_they_are_read():
    read = []

    def load(indices):
        read.extend(indices)
        return np.stack([np.full((2, 2), i) for i in indices])

    images = LazyStack(list(range(100)), load, item_shape=(2, 2), dtype=np.uint8, batch_size=10)
    result = IntensityScaler().fit_transform(images)
    assert result.shape == (100, 2, 2)
    assert read == []
    np.testing.assert_array_equal(np.asarray(result[50:60]), 0)
    assert read == list(range(50, 60))


def test_later_changes_of_the_estimator_leave_earlier_results_alone():
    scaler = IntensityScaler(method="training_range").fit(np.array([[[0, 10]]]))
    result = scaler.transform(np.array([[[0, 4]]]))
    scaler.fit(np.array([[[0, 1000]]]))
    np.testing.assert_allclose(result, [[[0, 0.5]]])


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"method": "bogus"}, "'method' parameter"),
        ({"bit_depth": 0}, "'bit_depth' parameter"),
        ({"percentiles": (99, 1)}, r"two increasing numbers.*\(99, 1\)"),
    ],
)
def test_wrong_parameters_set_after_fit_are_refused(parameters, match):
    images = np.zeros((2, 3, 3))
    scaler = IntensityScaler().fit(images).set_params(**parameters)
    with pytest.raises(ValueError, match=match):
        scaler.transform(images)


def test_the_training_range_is_that_of_the_last_fit():
    images = np.arange(18).reshape(2, 3, 3)
    scaler = IntensityScaler(method="training_range").fit(images)
    scaler.set_params(method="minmax").fit(images)
    assert set(vars(scaler)) == {*scaler.get_params(), "n_channels_in_", "image_shape_"}
    with pytest.raises(NotFittedError, match=r"range that fit learns.*call fit again"):
        scaler.set_params(method="training_range").transform(images)


def test_the_training_range_is_learned_with_the_same_channels():
    images = np.arange(36).reshape(2, 3, 3, 2)
    scaler = IntensityScaler(method="training_range").fit(images)
    assert scaler.data_min_.shape == scaler.data_max_.shape == (2,)
    with pytest.raises(NotFittedError, match=r"per_channel=False requires the range.*fit again"):
        scaler.set_params(per_channel=False).transform(images)
    assert scaler.fit(images).data_min_.shape == (1,)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("method", METHODS)
def test_intensities_read_from_disk_must_be_finite(method, value):
    images = np.random.default_rng(0).random((3, 5, 6, 2)).astype(np.float32)
    images[1, 2, 3, 0] = value
    stack = ragged_stack(list(images))
    with pytest.raises(ValueError, match=r"X must hold finite intensities.*leave the image out"):
        list(IntensityScaler(method=method).fit_transform(stack))


@pytest.mark.parametrize("pack", [np.asarray, list, ragged_stack])
@pytest.mark.parametrize("n_channels", [2, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_opaque_alpha_is_refused(dtype, n_channels, pack):
    images = np.zeros((3, 5, 6, n_channels), dtype)
    IntensityScaler().fit(pack(images))
    opaque = 1 if dtype is np.float32 else np.iinfo(dtype).max
    images[..., -1] = opaque
    message = (
        rf"no alpha channel.*Got {n_channels} channels, the last.*X\[\.\.\., :{n_channels - 1}"
    )
    with pytest.raises(ValueError, match=message):
        IntensityScaler().fit(pack(images))
    with pytest.raises(ValueError, match=message):
        IntensityScaler(image_shape=images.shape[1:]).fit(images.reshape(3, -1))


def test_result_can_be_pickled():
    result = IntensityScaler().fit_transform(np.arange(8).reshape(2, 2, 2))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(result)), result)


def test_errors():
    images = np.zeros((2, 3, 3))
    with pytest.raises(ValueError, match=r"percentiles must be two increasing.*\(99, 1\)"):
        IntensityScaler(percentiles=(99, 1)).fit(images)
    with pytest.raises(NotFittedError, match="not fitted yet"):
        IntensityScaler().transform(images)
    with pytest.raises(ValueError, match=r"must have 1 channel\(s\).*Got 3 instead"):
        IntensityScaler().fit(images).transform(np.zeros((2, 3, 3, 3)))


def test_import_needs_neither_torch_nor_scikit_image():
    code = (
        "import sys, sklearn_micranet._intensity_scaler;"
        "sys.exit(bool({'torch', 'skimage'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

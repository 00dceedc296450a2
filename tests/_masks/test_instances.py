import numpy as np
import pytest
from cases import instances, mask
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_array_equal
from scipy import ndimage
from skimage.feature import peak_local_max

from sklearn_micranet import ThresholdSegmenter
from sklearn_micranet._masks._instances import _peaks, number_objects

EIGHT = np.ones((3, 3))


def scattered_markers(drawing, feature_map):
    """Mark some pixels, of which some share a number and some lie outside the mask."""
    return (feature_map.astype(int) % 5) * (np.arange(feature_map.size) % 3 == 0).reshape(
        feature_map.shape
    )


SPLITS = [
    {"split": "shape", "min_distance": None},
    {"split": "shape", "min_distance": 1},
    {"split": "shape", "min_distance": 4},
    {"split": "peaks", "min_distance": None},
    {"split": "peaks", "min_distance": 1},
    {"split": "peaks", "min_distance": 3},
    {"split": scattered_markers, "min_distance": None},
]
shapes = st.tuples(st.integers(1, 12), st.integers(1, 12))
maps = shapes.flatmap(lambda shape: arrays(np.float32, shape, elements=st.integers(0, 9)))
splits = st.sampled_from(SPLITS)


def components(drawing):
    return ndimage.label(drawing, structure=EIGHT)[0]


@given(maps, splits, st.integers(-1, 9))
@settings(deadline=None, max_examples=200)
def test_instances_cover_the_mask_with_connected_objects_numbered_without_gaps(
    feature_map, parameters, threshold
):
    drawing = feature_map > threshold
    labels = number_objects(drawing, feature_map, **parameters)
    assert_array_equal(labels > 0, drawing)
    numbers, first = np.unique(labels[drawing], return_index=True)
    assert numbers.tolist() == list(range(1, len(numbers) + 1))
    assert first.tolist() == sorted(first)
    of_component = components(drawing)
    for number in numbers:
        assert components(labels == number).max() == 1
        assert len(np.unique(of_component[labels == number])) == 1


@given(maps, splits, st.tuples(*[st.integers(0, 3)] * 4), st.integers(-3, 3))
@settings(deadline=None, max_examples=100)
def test_background_around_and_the_unit_of_the_map_change_nothing(
    feature_map, parameters, border, exponent
):
    if callable(parameters["split"]):
        return
    feature_map = np.pad(feature_map, 1)  # beyond the image lies neither object nor background
    drawing = feature_map > 4
    labels = number_objects(drawing, feature_map, **parameters)
    width = [border[:2], border[2:]]
    around = number_objects(
        np.pad(drawing, width), np.pad(feature_map, width) * 2.0**exponent, **parameters
    )
    assert_array_equal(around, np.pad(labels, width))


@given(
    arrays(np.float32, (3, 2, 9, 10), elements=st.floats(-2, 2, width=16)),
    splits,
    st.sampled_from([{}, {"sigma": 1}, {"keep": "peak", "max_hole_size": 3}, {"min_size": 4}]),
)
@settings(deadline=None, max_examples=60)
def test_predict_and_transform_are_where_instances_are(X, split, parameters):
    segmenter = ThresholdSegmenter(method="fixed", **split, **parameters)
    numbered, masks = segmenter.predict_instances(X), segmenter.predict(X)
    assert (numbered.dtype, numbered.shape) == (np.int32, X.shape)
    assert_array_equal(masks, numbered > 0)
    unsplit = ThresholdSegmenter(method="fixed", **parameters)
    assert_array_equal(unsplit.predict(X), masks)
    segments = segmenter.transform(X)
    assert_array_equal(np.asarray(segments) != 0, masks)
    assert_array_equal(segments.instances, numbered)


def test_components_are_the_objects_where_nothing_is_split():
    drawing = mask("#..##", ".#...", "....#")
    for parameters in SPLITS:
        if parameters["min_distance"] is None and not callable(parameters["split"]):
            found = number_objects(drawing, drawing.astype(float), **parameters)
            assert_array_equal(found, instances("1..22", ".1...", "....3"))


def test_two_peaks_part_where_the_map_is_lowest_between_them():
    feature_map = np.array([[0, 5, 9, 6, 4, 7, 8, 3, 0, 2]] * 3, dtype=float)
    found = number_objects(feature_map > 0, feature_map, split="peaks", min_distance=2)
    assert_array_equal(found[:, [0, 8]], 0)
    assert_array_equal(found[:, [1, 2, 3]], 1)
    assert_array_equal(found[:, [5, 6, 7]], 2)
    assert_array_equal(found[:, 9], 3)
    one = number_objects(feature_map > 0, feature_map, split="peaks", min_distance=5)
    assert one.max() == 2


def test_a_plateau_is_one_peak():
    feature_map = np.full((5, 30), 7.0)
    feature_map[:, 20:] = 5
    feature_map[:, 25:] = 6
    found = number_objects(feature_map > 0, feature_map, split="peaks", min_distance=1)
    assert found.max() == 2
    assert len(np.unique(found[:, :20])) == len(np.unique(found[:, 25:])) == 1


def test_what_lies_outside_the_mask_is_no_peak():
    feature_map = np.array([[1, 2, 1, 9, 1, 3, 1]], dtype=float)
    drawing = mask("###.###")  # of a threshold that differs from pixel to pixel
    found = number_objects(drawing, feature_map, split="peaks", min_distance=3)
    assert_array_equal(found, instances("111.222"))


@given(maps, st.integers(1, 5), st.integers(1, 9))
@settings(deadline=None, max_examples=200)
def test_peaks_are_thinned_out_as_by_scikit_image(feature_map, min_distance, threshold):
    feature_map = np.tile(feature_map, (2, 3))
    drawing = feature_map > threshold
    expected = peak_local_max(
        feature_map, min_distance=min_distance, labels=components(drawing), exclude_border=False
    )
    found = _peaks(feature_map, components(drawing), min_distance)
    assert_array_equal(found, expected)


# --- markers of a callable ------------------------------------------------------------------

BARS = mask("########", "........", "####....")
RISING = np.tile(np.arange(8.0), (3, 1))


def split_by(*rows):
    return number_objects(BARS, RISING, split=lambda m, f: instances(*rows), min_distance=None)


def test_markers_are_numbered_anew_and_components_without_one_stay_whole():
    found = split_by("7......3", "........", "........")
    assert_array_equal(found[0], [1] + [2] * 7)  # the ramp is flooded from its top
    assert_array_equal(found[2], [3] * 4 + [0] * 4)


def test_finished_objects_stay_as_they_are():
    found = split_by("99998877", "........", "2233....")
    assert_array_equal(found, instances("11112233", "........", "4455...."))


def test_a_number_in_two_places_is_one_object_only_where_these_meet():
    assert_array_equal(split_by("11111111", "........", "1111....")[2], [2] * 4 + [0] * 4)
    assert_array_equal(split_by("11122111", "........", "1111....")[0], [1, 1, 1, 2, 2, 3, 3, 3])


def test_markers_outside_the_mask_and_no_markers_change_nothing():
    expected = instances("11111111", "........", "2222....")
    assert_array_equal(split_by("........", "12345678", "....1234"), expected)
    assert_array_equal(split_by("........", "........", "........"), expected)


def test_a_callable_gets_copies_of_the_mask_and_of_the_smoothed_map():
    seen = []

    def split(drawing, feature_map):
        seen.append((drawing.copy(), feature_map.copy()))
        drawing[:] = False
        feature_map[:] = 0
        return drawing.astype(int)

    X = np.random.default_rng(0).random((1, 1, 12, 12))
    before = X.copy()
    segmenter = ThresholdSegmenter(split=split, sigma=1)
    found = segmenter.predict_instances(X)
    segmenter.set_params(sigma=None).predict_instances(X)
    assert_array_equal(X, before)
    [(drawing, feature_map), (_, unsmoothed)] = seen
    assert_array_equal(drawing, found[0, 0] > 0)
    assert_array_equal(feature_map, ndimage.gaussian_filter(X[0, 0], 1))
    assert_array_equal(unsmoothed, X[0, 0])


@pytest.mark.parametrize(
    ("markers", "match"),
    [
        (BARS, r"must return markers.*Got bool of shape \(3, 8\).*skimage\.measure\.label"),
        (BARS.astype(float), "integers of the shape of the mask.*Got float64"),
        (np.zeros((8, 3), dtype=int), r"shape of the mask, \(3, 8\).*Got int64 of shape \(8, 3\)"),
        (BARS * -1, "not negative. Got -1"),
        (None, "Got object of shape"),
    ],
)
def test_what_is_no_marker_image_is_refused(markers, match):
    segmenter = ThresholdSegmenter(method="fixed", split=lambda m, f: markers)
    with pytest.raises(ValueError, match=match):
        segmenter.predict_instances(BARS[np.newaxis, np.newaxis])


def test_a_callable_is_not_called_for_an_empty_mask():
    def refuse(drawing, feature_map):
        raise AssertionError("called")

    segmenter = ThresholdSegmenter(method="fixed", threshold=9, split=refuse)
    assert not segmenter.predict_instances(np.random.default_rng(0).random((1, 1, 5, 5))).any()

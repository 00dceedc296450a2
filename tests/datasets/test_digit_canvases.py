import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import distance_transform_edt
from scipy.spatial.distance import pdist
from sklearn.datasets import load_digits

from sklearn_micranet.datasets import make_digit_canvases


def disc(radius, side=28, brightness=1.0):
    """A digit that looks the same from all sides: its centroid is where it was placed."""
    axis = np.arange(side) - (side - 1) / 2
    return brightness * (np.hypot(axis[:, np.newaxis], axis) <= radius)


@pytest.fixture(scope="module")
def canvases():
    return make_digit_canvases(12, image_size=128, n_digits=(1, 2, 5, None), random_state=0)


def test_shapes_dtypes_and_ranges(canvases):
    assert canvases.images.shape == (12, 128, 128)
    assert canvases.images.dtype == np.float32
    assert 0 <= canvases.images.min() < 0.05
    assert 0.9 < canvases.images.max() <= 1
    assert canvases.labels.shape == (12, 10)
    assert canvases.labels.dtype == int
    assert canvases.masks.shape == (12, 10, 128, 128)
    assert canvases.masks.dtype == bool
    assert len(canvases.points) == 12
    for points in canvases.points:
        assert points.shape[1:] == (3,)
        assert points.dtype == float
        assert points[:, 1:].min() >= 0
        assert points[:, 1:].max() <= 127


def test_labels_masks_and_points_agree(canvases):
    assert_array_equal(canvases.labels, canvases.masks.any(axis=(2, 3)))
    for labels, points in zip(canvases.labels, canvases.points, strict=True):
        assert_array_equal(np.flatnonzero(labels), np.unique(points[:, 0]))


def test_masks_are_the_bright_strokes(canvases):
    ink = canvases.masks.any(axis=1)
    assert canvases.images[ink].mean() > 0.6
    far = np.array([distance_transform_edt(~mask) > 8 for mask in ink])
    assert canvases.images[far].max() < 0.15


def test_mask_and_point_of_a_known_digit():
    canvases = make_digit_canvases(
        20, image_size=48, n_digits=1, digits=([disc(8)], [7]), random_state=0
    )
    assert_array_equal(canvases.labels, np.tile(np.arange(10) == 7, (20, 1)))
    masks = canvases.masks[:, 7]
    assert_allclose(masks.sum(axis=(1, 2)), np.pi * 8**2, rtol=0.05)
    # Blur keeps an edge where it is at half height, so that the image tells the mask, too.
    bright = canvases.images > 0.5
    iou = (bright & masks).sum(axis=(1, 2)) / (bright | masks).sum(axis=(1, 2))
    assert iou.min() > 0.85
    for points, image in zip(canvases.points, canvases.images, strict=True):
        signal = np.where(image > 0.2, image, 0)
        centroid = [(signal * axis).sum() / signal.sum() for axis in np.mgrid[:48, :48]]
        assert_allclose(points, [[7, *centroid]], atol=0.5)


def test_a_point_is_the_centroid_of_its_mask():
    canvases = make_digit_canvases(5, image_size=64, n_digits=1, random_state=0)
    for labels, masks, points in zip(canvases.labels, canvases.masks, canvases.points, strict=True):
        digit = labels.argmax()
        assert_allclose(points, [[digit, *np.argwhere(masks[digit]).mean(axis=0)]])


def test_positions_are_25_px_apart_and_keep_digits_inside():
    canvases = make_digit_canvases(
        4, image_size=160, n_digits=None, digits=([disc(8)], [0]), random_state=0
    )
    for points in canvases.points:
        positions = points[:, 1:]
        # The centroid of a disc of whole pixels is up to a quarter of a pixel off its middle.
        assert pdist(positions).min() > 25 - 0.5
        assert positions.min() > 13.5 - 0.25
        assert positions.max() < 160 - 14.5 + 0.25


def test_none_places_as_many_as_fit():
    canvases = make_digit_canvases(4, image_size=160, n_digits=None, random_state=0)
    more = make_digit_canvases(4, image_size=160, n_digits=1000, random_state=0)
    extent = 160 - 28
    for points, same in zip(canvases.points, more.points, strict=True):
        # A full sample covers the extent with circles of 25 px around its points, and circles of
        # half that radius cannot be packed denser than hexagonally.
        assert len(points) >= extent**2 / (np.pi * 25**2)
        assert len(points) <= np.pi / np.sqrt(12) * (extent + 25) ** 2 / (np.pi * 12.5**2)
        assert_array_equal(points, same)


def test_few_digits_are_spread_over_the_canvas():
    canvases = make_digit_canvases(
        25, image_size=200, n_digits=2, digits=([disc(8)], [0]), random_state=0
    )
    distances = [pdist(points[:, 1:]).item() for points in canvases.points]
    pairs = np.random.default_rng(0).uniform(0, 200 - 28, (10_000, 2, 2))
    uniform = np.linalg.norm(pairs[:, 0] - pairs[:, 1], axis=1)
    uniform = uniform[uniform >= 25]
    tolerance = 4 * uniform.std() / np.sqrt(25)  # four standard errors
    # A sample that stops at its second point has it within two radii of the first.
    assert uniform.mean() - tolerance > 2 * 25
    assert_allclose(np.mean(distances), uniform.mean(), atol=tolerance)


@pytest.mark.parametrize("n_digits", [3, (3,), np.array([3])])
def test_n_digits_fixed(n_digits):
    canvases = make_digit_canvases(3, image_size=160, n_digits=n_digits, random_state=0)
    assert [len(points) for points in canvases.points] == [3, 3, 3]


def test_n_digits_is_drawn_uniformly():
    canvases = make_digit_canvases(60, image_size=100, n_digits=(1, 2), random_state=0)
    counts = np.bincount([len(points) for points in canvases.points], minlength=3)
    assert counts.sum() == counts[1] + counts[2]
    assert abs(counts[1] - 30) <= 3 * np.sqrt(60 / 4)  # three standard deviations


def test_small_canvases_show_what_fits():
    canvases = make_digit_canvases(40, image_size=64, n_digits=(1, 2, 3, 4), random_state=0)
    counts = {len(points) for points in canvases.points}
    assert {1, 2, 3} <= counts <= {1, 2, 3, 4}


def test_smallest_canvas_shows_one_digit():
    canvases = make_digit_canvases(
        3, image_size=28, n_digits=None, digits=([disc(8)], [4]), random_state=0
    )
    assert_allclose(canvases.points, [[[4, 13.5, 13.5]]] * 3, atol=0.25)


def test_overlapping_classes_keep_their_own_pixels():
    # Discs of 27 px diameter, whose middles are 25 px apart or more.
    canvases = make_digit_canvases(
        60, image_size=64, n_digits=2, digits=([disc(13.5)] * 2, [0, 1]), random_state=0
    )
    masks = canvases.masks[canvases.labels.sum(axis=1) == 2]
    assert (masks[:, 0] & masks[:, 1]).any()
    assert_allclose(masks[:, :2].sum(axis=(2, 3)), np.pi * 13.5**2, rtol=0.05)


@pytest.mark.parametrize("image", [np.ones((28, 28)), disc(13.5)], ids=["square", "disc"])
def test_digits_are_no_brighter_than_the_handwriting(image):
    # The corners of squares overlap widely; the edge of a disc makes a cubic spline overshoot.
    faint = ([0.4 * image] * 2, [0, 1])
    canvases = make_digit_canvases(10, image_size=64, n_digits=2, digits=faint, random_state=0)
    assert (canvases.masks[:, 0] & canvases.masks[:, 1]).any()
    # Fewer than one pixel in 800,000 has more than 24 grey levels of noise.
    assert 0.4 < canvases.images.max() < 0.4 + 24 / 255


def test_digits_are_turned_by_up_to_30_degrees():
    bar = np.zeros((28, 28))
    bar[3:25, 12:16] = 1
    canvases = make_digit_canvases(
        60, image_size=40, n_digits=1, digits=([bar], [1]), random_state=0
    )
    angles = []
    for mask in canvases.masks[:, 1]:
        row, column = np.linalg.eigh(np.cov(np.argwhere(mask).T))[1][:, 1]
        angles.append(np.rad2deg(np.arctan(column / row)))
    assert np.abs(angles).max() < 31
    assert_allclose(np.mean(angles), 0, atol=3 * 17.3 / np.sqrt(60))
    assert_allclose(np.std(angles), 60 / np.sqrt(12), rtol=0.2)


def test_noise_and_blur_come_in_random_order():
    canvases = make_digit_canvases(
        60, image_size=64, n_digits=1, digits=([disc(3)], [0]), random_state=0
    )
    rate = np.sqrt(255) / 2
    means, stds = [], []
    for image, mask in zip(canvases.images, canvases.masks[:, 0], strict=True):
        background = image[distance_transform_edt(~mask) > 12]
        means.append(background.mean())
        stds.append(background.std() / (np.sqrt(rate) / 255))
    assert_allclose(means, rate / 255, rtol=0.03)
    # A blur after the noise shrinks its standard deviation to 1 / (2 sqrt(pi) sigma), a blur
    # before it leaves it as it is. Half the canvases have each, and few a sigma too small to tell.
    unblurred = np.sum(np.array(stds) > 0.95)
    assert 20 <= unblurred <= 45
    assert 1 / (4 * np.sqrt(np.pi)) * 0.9 < min(stds) < 0.3
    assert max(stds) < 1.05


def test_blur_varies_from_canvas_to_canvas():
    canvases = make_digit_canvases(
        60, image_size=40, n_digits=1, digits=([disc(1.5)], [0]), random_state=0
    )
    peaks = canvases.images.max(axis=(1, 2))
    # Four pixels of 1 make a peak of 4 / (2 pi sigma^2), 0.16 for sigma = 2, or stay as they are.
    assert peaks.min() < 0.3
    assert peaks.max() > 0.9


def test_same_seed_same_canvases():
    first, second, other = (
        make_digit_canvases(3, image_size=64, random_state=seed) for seed in (0, 0, 1)
    )
    assert_array_equal(first.images, second.images)
    assert_array_equal(first.masks, second.masks)
    for points, same in zip(first.points, second.points, strict=True):
        assert_array_equal(points, same)
    assert not np.array_equal(first.images, other.images)
    assert not np.array_equal(first.images[0], first.images[1])


def test_first_canvases_do_not_depend_on_n_samples():
    few, many = (make_digit_canvases(n, image_size=64, random_state=0) for n in (2, 5))
    assert_array_equal(few.images, many.images[:2])
    assert_array_equal(few.masks, many.masks[:2])


def test_random_state_instance_is_advanced():
    random_state = np.random.RandomState(0)
    first, second = (
        make_digit_canvases(1, image_size=64, random_state=random_state) for _ in range(2)
    )
    assert not np.array_equal(first.images, second.images)


def test_global_random_state_is_left_alone():
    before = np.random.get_state()
    make_digit_canvases(1, image_size=64, random_state=0)
    assert_array_equal(np.random.get_state()[1], before[1])
    assert np.random.get_state()[2] == before[2]


def test_only_the_given_handwriting_is_drawn():
    images, labels = load_digits().images / 16, load_digits().target
    threes = (images[labels == 3], labels[labels == 3])
    canvases = make_digit_canvases(5, image_size=128, digits=threes, random_state=0)
    assert_array_equal(canvases.labels, np.tile(np.arange(10) == 3, (5, 1)))


def test_default_handwriting_is_that_of_load_digits():
    digits = (load_digits().images / 16, load_digits().target)
    default, given = (
        make_digit_canvases(3, image_size=64, digits=d, random_state=0) for d in (None, digits)
    )
    assert_array_equal(default.images, given.images)


@pytest.mark.parametrize(
    "scaled",
    [
        disc(8).astype(bool),
        disc(8).astype(np.int64),
        disc(8).astype(np.float16),
        (disc(8) * 255).astype(np.uint8),
        (disc(8) * 65535).astype(np.uint16),
    ],
    ids=lambda image: image.dtype.name,
)
def test_dtypes_of_handwriting(scaled):
    expected, canvases = (
        make_digit_canvases(1, image_size=64, digits=([image], [2]), random_state=0)
        for image in (disc(8), scaled)
    )
    assert_allclose(canvases.images, expected.images, atol=1e-6)
    assert_array_equal(canvases.masks, expected.masks)


@pytest.mark.parametrize(
    "image",
    [disc(2.4, side=8), disc(16, side=56), np.ones((8, 4)), np.ones((28, 70))],
    ids=["enlarged", "reduced", "upright", "wide"],
)
def test_longer_side_is_resized_to_28_px(image):
    canvases = make_digit_canvases(
        5, image_size=48, n_digits=1, digits=([image], [0]), random_state=0
    )
    area = image.sum() * (28 / max(image.shape)) ** 2
    assert_allclose(canvases.masks.sum(axis=(1, 2, 3)), area, rtol=0.05)


def test_reducing_does_not_alias():
    fine = np.indices((112, 112)).sum(axis=0) % 2  # a chessboard of squares of a quarter pixel
    canvases = make_digit_canvases(8, image_size=28, digits=([fine], [0]), random_state=0)
    middle = canvases.images[:, 9:19, 9:19]
    noise = np.sqrt(255) / 2 / 255
    assert_allclose(middle, 0.5 + noise, atol=0.1)


def test_given_handwriting_is_not_changed():
    images = (disc(8) * 255).astype(np.uint8)[np.newaxis]
    before = images.copy()
    make_digit_canvases(1, image_size=64, digits=(images, [0]), random_state=0)
    assert_array_equal(images, before)


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"n_samples": 0}, "'n_samples' parameter .* range \\[1, inf\\). Got 0"),
        ({"n_samples": 1.5}, "'n_samples' parameter .* Got 1.5"),
        ({"image_size": 27}, "'image_size' parameter .* range \\[28, inf\\). Got 27"),
        ({"n_digits": 0}, "'n_digits' parameter .* Got 0"),
        ({"n_digits": "many"}, "'n_digits' parameter .* Got 'many'"),
        ({"n_digits": ()}, "n_digits must be a positive int.*Got \\(\\)"),
        ({"n_digits": (1, 0)}, "n_digits must be a positive int.*Got \\(1, 0\\)"),
        ({"n_digits": (1, 2.5)}, "n_digits must be a positive int.*Got \\(1, 2.5\\)"),
        ({"random_state": "a"}, "'random_state' parameter"),
        ({"digits": np.ones((2, 28, 28))}, "'digits' parameter"),
    ],
)
def test_wrong_parameters(parameters, match):
    with pytest.raises(ValueError, match=match):
        make_digit_canvases(**parameters)


@pytest.mark.parametrize(
    ("digits", "match"),
    [
        (([disc(8)],), "tuple \\(images, labels\\). Got 1 elements"),
        (([disc(8).ravel()], [0]), "\\(n_images, height, width\\). Got \\(1, 784\\).*reshape"),
        ((np.ones((1, 28, 0)), [0]), "\\(n_images, height, width\\). Got \\(1, 28, 0\\)"),
        ((np.ones((0, 28, 28)), []), "0 sample"),
        (([disc(8, brightness=np.nan)], [0]), "digits contains NaN"),
        (
            ([disc(8, brightness=255.0)], [0]),
            "lie in \\[0, 1\\]. Got float64 from 0 to 255.*Divide",
        ),
        (([disc(8) - 0.5], [0]), "lie in \\[0, 1\\]. Got float64 from -0.5 to 0.5"),
        (([disc(8), disc(0)], [0, 1]), "blank images instead, the first at index 1. Leave"),
        (([disc(8), disc(8)], [0]), "inconsistent numbers of samples: \\[2, 1\\]"),
        (([disc(8)], [10]), "between 0 and 9. Got 10 to 10"),
        (([disc(8), disc(8)], [3, -1]), "between 0 and 9. Got -1 to 3"),
        (([disc(8)], ["3"]), "labels of digits must be ints.*astype\\(int\\)"),
        (([disc(8)], [np.nan]), "labels of digits must be ints.*Got float64"),
        (([disc(8)], [[0, 1]]), "labels of digits must be ints.*shape \\(1, 2\\)"),
    ],
)
def test_wrong_handwriting(digits, match):
    with pytest.raises(ValueError, match=match):
        make_digit_canvases(1, image_size=64, digits=digits)

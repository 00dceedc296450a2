import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import binary_dilation, binary_erosion, label
from scipy.signal import periodogram
from sklearn.metrics import roc_auc_score

from sklearn_micranet.datasets import make_texture_canvases
from sklearn_micranet.datasets._texture_canvases import (
    _blend,
    _draw_drift,
    _draw_spots,
    _draw_textures,
)

BACKGROUND, STRIPES, FINE_GRAIN = range(3)
N_CANVASES = 240


@pytest.fixture(scope="module")
def canvases():
    return make_texture_canvases(N_CANVASES, random_state=0)


@pytest.fixture(scope="module")
def textures():
    """Sixty drawings of each texture, as they are before blending."""
    rng = np.random.default_rng(0)
    return np.stack([_draw_textures(rng, 96) for _ in range(60)], axis=1)


def inverted(images):
    """Return images in standard deviations of a texture."""
    return images * 9 - 4


def test_shapes_dtypes_and_ranges(canvases):
    assert canvases.images.shape == (N_CANVASES, 96, 96)
    assert canvases.images.dtype == np.float32
    assert canvases.images.min() >= 0
    assert canvases.images.max() <= 1
    assert canvases.labels.shape == (N_CANVASES, 2)
    assert canvases.labels.dtype == int
    assert canvases.masks.shape == (N_CANVASES, 2, 96, 96)
    assert canvases.masks.dtype == bool
    assert canvases.target_names == ["stripes", "fine grain"]
    assert canvases.DESCR.startswith("Texture canvases")


def test_hardly_a_pixel_is_clipped(canvases):
    assert np.mean((canvases.images == 0) | (canvases.images == 1)) < 1e-3


def test_labels_and_masks_agree(canvases):
    assert_array_equal(canvases.labels, canvases.masks.any(axis=(2, 3)))


def test_return_x_y(canvases):
    images, labels = make_texture_canvases(3, return_X_y=True, random_state=0)
    assert_array_equal(images, canvases.images[:3])
    assert_array_equal(labels, canvases.labels[:3])


# --- what the canvases are made of --------------------------------------------------------------


def test_textures_have_zero_mean_and_unit_variance_each(textures):
    assert_allclose(textures.mean(axis=(2, 3)), 0, atol=1e-12)
    assert_allclose(textures.var(axis=(2, 3)), 1, rtol=1e-12)


def mean_power(textures):
    """Return frequencies (cycles per px) of rows and columns, and the mean power at each."""
    size = textures.shape[-1]
    power = np.mean([np.abs(np.fft.fft2(texture)) ** 2 for texture in textures], axis=0)
    return *np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size), indexing="ij"), power


@pytest.mark.parametrize(
    ("texture", "peak"), [(BACKGROUND, 0.14), (STRIPES, 0.14), (FINE_GRAIN, 0.30)]
)
def test_power_peaks_at_the_frequency_of_the_texture(textures, texture, peak):
    rows, columns, power = mean_power(textures[texture])
    radius = np.hypot(rows, columns)
    edges = np.arange(0, 0.5, 0.01)
    ring = np.digitize(radius, edges)
    profile = np.array([power[ring == i].mean() for i in range(1, len(edges) + 1)])
    assert_allclose(edges[profile.argmax()] + 0.005, peak, atol=0.015)
    # The power is the square of the transfer function: exp(-1/2) of the peak at half the width.
    at_half_width = profile[np.digitize(peak + 0.025, edges) - 1]
    assert_allclose(at_half_width / profile.max(), np.exp(-0.5), atol=0.15)


def test_periods_in_pixels_by_rows_alone(textures):
    # A scan along rows sees the peak of an isotropic ring at its radius.
    for texture, peak in [(BACKGROUND, 0.14), (FINE_GRAIN, 0.30)]:
        frequency, power = periodogram(textures[texture], axis=-1)
        assert_allclose(frequency[power.mean(axis=(0, 1)).argmax()], peak, atol=0.03)


def directions(texture):
    """Return the direction of waves in degrees, and how much it prevails, by the gradients."""
    row, column = np.gradient(texture)
    doubled = ((column + 1j * row) ** 2).mean()
    return np.rad2deg(np.angle(doubled)) / 2, np.abs(doubled) / (column**2 + row**2).mean()


def test_stripes_run_in_one_direction_the_others_in_none(textures):
    measured = np.array([[directions(drawn) for drawn in texture] for texture in textures])
    angle, coherence = np.moveaxis(measured, -1, 0)
    assert coherence[STRIPES].min() > 0.8
    assert coherence[[BACKGROUND, FINE_GRAIN]].max() < 0.2
    assert angle[STRIPES].min() > 25 - 3
    assert angle[STRIPES].max() < 65 + 3
    assert_allclose(angle[STRIPES].mean(), 45, atol=3 * 40 / np.sqrt(12 * 60))
    assert_allclose(angle[STRIPES].std(), 40 / np.sqrt(12), rtol=0.25)


def test_blending_keeps_the_variance():
    rng = np.random.default_rng(0)
    masks = np.zeros((2, 40, 40), dtype=bool)
    masks[0, 10:30, 5:18] = True
    masks[1, 10:30, 23:35] = True
    blended = np.stack([_blend(rng.standard_normal((3, 40, 40)), masks) for _ in range(2000)])
    assert_allclose(blended.mean(axis=0), 0, atol=5 / np.sqrt(2000))
    assert_allclose(blended.var(axis=0), 1, atol=5 * np.sqrt(2 / 2000))


def test_blending_is_soft_at_the_edge_only():
    textures = np.zeros((3, 40, 40))
    textures[STRIPES] = 1
    masks = np.zeros((2, 40, 40), dtype=bool)
    masks[0, :, 20:] = True
    profile = _blend(textures, masks)[20]
    assert_allclose(profile[:15], 0, atol=1e-4)
    assert_allclose(profile[25:], 1, atol=1e-4)
    # Half a pixel inside an edge of sigma 1 the weight is Phi(0.5) = 0.69.
    assert_allclose(profile[20], 0.69 / np.hypot(0.69, 0.31), atol=0.02)


def test_drift_is_slow_and_of_unit_variance():
    rng = np.random.default_rng(0)
    drifts = np.stack([_draw_drift(rng, 96) for _ in range(20)])
    assert_allclose(drifts.mean(axis=(1, 2)), 0, atol=1e-12)
    assert_allclose(drifts.std(axis=(1, 2)), 1, rtol=1e-12)
    assert np.abs(np.diff(drifts, axis=1)).max() < 0.25


def test_up_to_two_bright_spots():
    rng = np.random.default_rng(0)
    drawn = [_draw_spots(rng, 96) for _ in range(300)]
    heights = np.array([spots.max() for spots in drawn if spots.max() > 0])
    assert_allclose(len(heights) / 300, 2 / 3, atol=3 * np.sqrt(2 / 9 / 300))
    assert min(spots.min() for spots in drawn) >= 0
    assert heights.min() > 0.5 * 0.95  # the middle may lie between pixels
    assert np.quantile(heights, 0.9) < 1.25  # few overlap


# --- what they look like in the end ---------------------------------------------------------------


def test_classes_are_present_with_probability_045_and_independent(canvases):
    presence = canvases.labels.mean(axis=0)
    assert_allclose(presence, 0.45, atol=3 * np.sqrt(0.45 * 0.55 / N_CANVASES))
    both = canvases.labels.all(axis=1).mean()
    assert_allclose(both, 0.45**2, atol=3 * np.sqrt(0.2 * 0.8 / N_CANVASES))


def test_one_or_two_blobs_apart_from_each_other(canvases):
    counts = [label(mask)[1] for mask in canvases.masks.reshape(-1, 96, 96) if mask.any()]
    assert set(counts) == {1, 2}
    assert_allclose(np.mean(counts), 1.5, atol=0.12)
    for stripes, grain in canvases.masks:
        assert not (binary_dilation(stripes, iterations=2) & grain).any()


def test_blobs_are_of_the_stated_size(canvases):
    areas = []
    for mask in canvases.masks.reshape(-1, 96, 96):
        blobs, n_blobs = label(mask)
        areas += np.bincount(blobs.ravel())[1 : n_blobs + 1].tolist()
    # Three harmonics of up to 18 % add up to 3 * 0.18^2 / 2 = 4.9 % of area; borders may cut some.
    assert min(areas) > 0.85 * np.pi * 11**2
    assert max(areas) < 1.07 * np.pi * 20**2
    assert_allclose(np.mean(areas), np.pi * (20**3 - 11**3) / (3 * 9), rtol=0.1)


def test_brightness_says_nothing_about_the_classes(canvases):
    for index in range(2):
        shown = canvases.labels[:, index] == 1
        inside = canvases.masks[shown, index]
        outside = ~canvases.masks[shown].any(axis=1)
        images = canvases.images[shown]
        values = np.concatenate([images[inside][::3], images[outside][::9]])
        truth = np.repeat([1, 0], [-(-inside.sum() // 3), -(-outside.sum() // 9)])
        assert_allclose(roc_auc_score(truth, values), 0.5, atol=0.02)
        assert_allclose(roc_auc_score(truth, np.abs(values - np.median(values))), 0.5, atol=0.02)


def test_mean_brightness_of_a_canvas_says_nothing_about_its_labels(canvases):
    means = canvases.images.mean(axis=(1, 2))
    for labels in canvases.labels.T:
        assert_allclose(roc_auc_score(labels, means), 0.5, atol=0.1)


def test_textures_lie_where_the_masks_are(canvases):
    """Count how often neighbours lie on different sides of the local mean."""
    images = inverted(canvases.images)
    changes = np.abs(np.diff(np.sign(images - np.median(images)), axis=2))[:, :-1] / 2
    inside = np.zeros((2, N_CANVASES, 95, 95), dtype=bool)
    for i, masks in enumerate(canvases.masks):
        for j, mask in enumerate(masks):
            inside[j, i] = binary_erosion(mask, iterations=4)[:-1, :-1]
    far = np.stack([~binary_dilation(m.any(axis=0), iterations=4) for m in canvases.masks])
    stripes, grain = (changes[mask].mean() for mask in inside)
    background = changes[far[:, :-1, :-1]].mean()
    # Fine grain turns twice as often as the coarse background does.
    assert grain > 1.5 * background
    assert 0.5 * background < stripes < 1.1 * background


# --- randomness -----------------------------------------------------------------------------------


def test_same_seed_same_canvases():
    first, second, other = (make_texture_canvases(3, random_state=seed) for seed in (0, 0, 1))
    assert_array_equal(first.images, second.images)
    assert_array_equal(first.masks, second.masks)
    assert not np.array_equal(first.images, other.images)
    assert not np.array_equal(first.images[0], first.images[1])


def test_first_canvases_do_not_depend_on_n_samples(canvases):
    few = make_texture_canvases(4, random_state=0)
    assert_array_equal(few.images, canvases.images[:4])
    assert_array_equal(few.masks, canvases.masks[:4])


def test_random_state_instance_is_advanced_and_the_global_one_left_alone():
    random_state = np.random.RandomState(0)
    before = np.random.get_state()
    first, second = (make_texture_canvases(1, random_state=random_state) for _ in range(2))
    assert not np.array_equal(first.images, second.images)
    assert_array_equal(np.random.get_state()[1], before[1])


@pytest.mark.parametrize("image_size", [64, 101])
def test_other_sizes(image_size):
    canvases = make_texture_canvases(40, image_size=image_size, random_state=0)
    assert canvases.images.shape == (40, image_size, image_size)
    assert canvases.labels.all(axis=1).any()


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"n_samples": 0}, "'n_samples' parameter .* range \\[1, inf\\). Got 0"),
        ({"image_size": 63}, "'image_size' parameter .* range \\[64, inf\\). Got 63"),
        ({"return_X_y": "yes"}, "'return_X_y' parameter .* Got 'yes'"),
        ({"random_state": "a"}, "'random_state' parameter"),
    ],
)
def test_wrong_parameters(parameters, match):
    with pytest.raises(ValueError, match=match):
        make_texture_canvases(**parameters)

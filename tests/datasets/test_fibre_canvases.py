import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import binary_dilation, distance_transform_edt, label
from skimage.morphology import skeletonize
from sklearn.metrics import roc_auc_score

from sklearn_micranet.datasets import make_fibre_canvases
from sklearn_micranet.datasets._fibre_canvases import _draw_line, _expose


@pytest.fixture(scope="module")
def canvases():
    return make_fibre_canvases(120, random_state=0)


def test_shapes_dtypes_and_ranges(canvases):
    assert canvases.images.shape == (120, 96, 96)
    assert canvases.images.dtype == np.float32
    assert 0 <= canvases.images.min() < 0.05
    assert 0.7 < canvases.images.max() <= 1
    assert canvases.labels.shape == (120,)
    assert canvases.labels.dtype == int
    assert canvases.masks.shape == (120, 1, 96, 96)
    assert canvases.masks.dtype == bool
    assert canvases.distractors.shape == (120, 96, 96)
    assert canvases.distractors.dtype == bool
    assert canvases.target_names == ["fibre"]
    assert canvases.DESCR.startswith("Fibre canvases")


def test_labels_and_masks_agree(canvases):
    assert_array_equal(canvases.labels, canvases.masks.any(axis=(1, 2, 3)))
    assert_allclose(canvases.labels.mean(), 0.5, atol=3 * np.sqrt(0.25 / 120))


def test_return_x_y(canvases):
    images, labels = make_fibre_canvases(3, return_X_y=True, random_state=0)
    assert_array_equal(images, canvases.images[:3])
    assert_array_equal(labels, canvases.labels[:3])


def line_length(skeleton):
    """Return the length of lines one pixel wide: 1 for each step, the root of 2 for a diagonal."""
    down, right = skeleton[1:] & skeleton[:-1], skeleton[:, 1:] & skeleton[:, :-1]
    corner = skeleton[1:, :-1] | skeleton[:-1, 1:]
    falling = skeleton[:-1, :-1] & skeleton[1:, 1:] & ~corner
    corner = skeleton[:-1, :-1] | skeleton[1:, 1:]
    rising = skeleton[1:, :-1] & skeleton[:-1, 1:] & ~corner
    return down.sum() + right.sum() + np.sqrt(2) * (falling.sum() + rising.sum())


def test_fibres_are_2_to_4_px_wide(canvases):
    masks = canvases.masks[canvases.labels == 1, 0]
    widths = np.array([mask.sum() / line_length(skeletonize(mask)) for mask in masks])
    assert widths.min() > 2 * 0.95
    assert widths.max() < 4 * 1.05
    assert_allclose(widths.mean(), 3, rtol=0.1)
    # Nothing is wider than a fibre, but where some cross: a pixel on the middle line of one is up
    # to 2 px from its edge, and the centre of the next pixel outside up to one px further away.
    depths = np.concatenate([distance_transform_edt(mask)[skeletonize(mask)] for mask in masks])
    assert 1.4 < np.median(depths) < 2.1
    assert np.quantile(depths, 0.95) <= 3


def test_fibres_are_long_and_thin(canvases):
    for mask in canvases.masks[canvases.labels == 1, 0]:
        assert label(mask, np.ones((3, 3)))[1] <= 3
        assert skeletonize(mask).sum() >= 0.2 * 96
        assert distance_transform_edt(mask).max() < 6  # where two cross


def test_a_line_is_a_smooth_curve_of_the_stated_length():
    rng = np.random.default_rng(0)
    bends = []
    for _ in range(50):
        line = _draw_line(rng, 96)
        steps = np.diff(line, axis=0)
        assert_allclose(np.linalg.norm(steps, axis=1), 0.5)
        assert 0.5 * 96 - 1 <= len(line) * 0.5 <= 1.1 * 96
        assert (line[len(line) // 2] >= 24).all()
        assert (line[len(line) // 2] <= 72).all()
        headings = np.unwrap(np.arctan2(steps[:, 0], steps[:, 1]))
        bends.append(np.std(np.diff(headings) / 0.5))
    assert_allclose(bends, 1 / 30, rtol=0.05)


def test_blobs_are_several_times_as_bright_as_fibres(canvases):
    for image, (mask,), blobs in zip(
        canvases.images, canvases.masks, canvases.distractors, strict=True
    ):
        background = np.median(image[~binary_dilation(mask | blobs, iterations=4)])
        if mask.any() and blobs.any():
            fibre = image[mask].mean() - background
            assert 0.05 < fibre < 0.25
            assert image[blobs].mean() - background > 1.5 * fibre
    dim = canvases.images[canvases.masks[:, 0]]
    bright = canvases.images[canvases.distractors]
    assert bright.mean() > 2 * dim.mean()
    assert np.quantile(bright, 0.05) > np.quantile(dim, 0.8)


def test_fibres_stand_out_from_the_noise_without_being_obvious(canvases):
    inside = canvases.images[canvases.masks[:, 0]]
    everything = canvases.masks[:, 0] | canvases.distractors
    empty = np.stack([~binary_dilation(drawn, iterations=4) for drawn in everything])
    outside = canvases.images[empty]
    truth = np.repeat([1, 0], [len(inside), len(outside)])
    assert 0.9 < roc_auc_score(truth, np.concatenate([inside, outside])) < 0.999


def test_blobs_say_nothing_about_the_label(canvases):
    areas = canvases.distractors.sum(axis=(1, 2))
    counts = [label(mask)[1] for mask in canvases.distractors]
    assert min(counts) >= 1
    for value in (areas, counts):
        assert_allclose(roc_auc_score(canvases.labels, value), 0.5, atol=0.14)


def test_blobs_and_fibres_do_not_overlap(canvases):
    assert not (canvases.masks[:, 0] & canvases.distractors).any()


def test_noise_is_that_of_photons_and_camera():
    rng = np.random.default_rng(0)
    for level in (0.1, 0.3, 0.5):
        exposed = _expose(rng, np.full((400, 400), level))
        assert_allclose(exposed.mean(), level, rtol=0.005)
        assert_allclose(exposed.var(), level / 200 + 0.01**2, rtol=0.02)


def test_same_seed_same_canvases():
    first, second, other = (make_fibre_canvases(3, random_state=seed) for seed in (0, 0, 1))
    assert_array_equal(first.images, second.images)
    assert_array_equal(first.masks, second.masks)
    assert_array_equal(first.distractors, second.distractors)
    assert not np.array_equal(first.images, other.images)
    assert not np.array_equal(first.images[0], first.images[1])


def test_first_canvases_do_not_depend_on_n_samples(canvases):
    few = make_fibre_canvases(4, random_state=0)
    assert_array_equal(few.images, canvases.images[:4])
    assert_array_equal(few.masks, canvases.masks[:4])


def test_random_state_instance_is_advanced_and_the_global_one_left_alone():
    random_state = np.random.RandomState(0)
    before = np.random.get_state()
    first, second = (make_fibre_canvases(1, random_state=random_state) for _ in range(2))
    assert not np.array_equal(first.images, second.images)
    assert_array_equal(np.random.get_state()[1], before[1])


@pytest.mark.parametrize("image_size", [64, 129])
def test_fibres_grow_with_the_canvas(image_size):
    canvases = make_fibre_canvases(20, image_size=image_size, random_state=0)
    assert canvases.images.shape == (20, image_size, image_size)
    lengths = [skeletonize(mask).sum() for (mask,) in canvases.masks if mask.any()]
    assert max(lengths) > image_size


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
        make_fibre_canvases(**parameters)

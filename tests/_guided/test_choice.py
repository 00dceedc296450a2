import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import roc_auc_score

from sklearn_micranet._guided._choice import (
    best_view,
    cell_means,
    inside_and_outside,
    mode_of,
    separation,
    separation_anywhere,
    signed_views,
    tops_of_objects,
)

ONE_IMAGE = np.zeros(100, dtype=int)


def test_separation_is_the_area_under_the_roc_curve():
    rng = np.random.default_rng(0)
    values, inside = rng.integers(0, 5, (3, 40)), rng.random(40) < 0.3
    assert_allclose(separation(values, inside), [roc_auc_score(inside, v) for v in values])


def test_separation_of_nothing_says_nothing():
    assert separation(np.arange(3.0), np.zeros(3, bool)) == 0.5
    assert separation(np.arange(3.0), np.ones(3, bool)) == 0.5


def test_separation_within_images_counts_where_they_are_scaled_each_by_itself():
    """A structure is brighter than its surroundings by 1, one image than the next by 10."""
    rng = np.random.default_rng(0)
    image, inside = np.repeat(np.arange(30), 5), rng.random(150) < 0.5
    inside[image == 3], inside[image == 4] = True, False  # they tell nothing within themselves
    values = inside + rng.normal(0, 0.5, 150) + 10 * image
    within = [
        roc_auc_score(inside[image == i], values[image == i])
        for i in range(30)
        if 0 < inside[image == i].sum() < 5
    ]
    both = np.array([values, -values, inside + 0.1 * rng.random(150)])
    found = separation_anywhere(both, inside, image)
    assert_allclose(found, [np.mean(within), 1 - np.mean(within), 1])
    assert abs(separation(values, inside) - 0.5) < 0.2 < abs(found[0] - 0.5)


def test_separation_within_few_images_is_left_to_chance():
    """One of 19 images is as good as any by chance; of 100, all are about as good as noise."""
    rng = np.random.default_rng(0)
    image, inside = np.repeat(np.arange(100), 12), np.arange(1200) % 12 < 2
    values = rng.normal(0, 1, (1, 1200))
    assert abs(separation_anywhere(values, inside, image)[0] - 0.5) < 0.1
    few = inside & (image < 19)
    values[0, few] += 10 * (1 - image[few])  # pooled it is low
    assert separation_anywhere(values, few, image) == separation(values, few)


def test_separation_of_all_images_counts_where_single_ones_tell_nothing():
    values, inside = np.arange(4.0), np.array([False, False, True, True])
    assert separation_anywhere(values[np.newaxis], inside, inside.astype(int)) == [1]
    assert separation_anywhere(values[np.newaxis], inside, np.zeros(4, int)) == [1]


def test_cell_means_leave_out_cells_that_are_not_full():
    image = np.zeros((17, 10, 2))
    image[:8, :8, 1] = np.arange(64).reshape(8, 8)
    image[16:] = 9
    means = cell_means(image)
    assert_allclose(means, [[[0, 31.5]], [[0, 0]]])


def test_texture_of_zero_mean_does_not_pass_for_brightness():
    rng = np.random.default_rng(0)
    cells = np.concatenate([rng.normal(0, 1, (200, 64)), rng.normal(0, 0.1, (200, 64))])
    inside = np.arange(400) < 200
    assert separation(np.quantile(cells, 0.9, axis=1), inside) > 0.99
    assert abs(separation(cells.mean(axis=1), inside) - 0.5) < 0.1


def test_inside_and_outside_follow_the_labels():
    cells = np.array([[0.8, 0.01, 0.8], [0.01, 0.01, 0.9]])
    inside, outside = inside_and_outside(cells, np.array([True, False]))
    assert inside.tolist() == [[True, False, True], [False, False, False]]
    assert outside.tolist() == [False, True, False]


@pytest.mark.parametrize("sign", [1, -1])
def test_polarity_is_that_of_the_structure(sign):
    means = sign * np.array([[1.0], [2], [3], [4]])
    weights, auc = best_view(
        means, np.array([0, 0, 1, 1], bool), np.array([1, 1, 0, 0], bool), ONE_IMAGE[:4]
    )
    assert weights == [sign]
    assert auc == 1


def test_a_difference_of_channels_is_taken_where_it_is_better_only():
    rng = np.random.default_rng(0)
    inside = np.arange(100) < 50
    common, colour = rng.normal(0, 5, 100), np.where(inside, 1.0, 0.0)
    weights, auc = best_view(np.column_stack([common + colour, common]), inside, ~inside, ONE_IMAGE)
    assert weights.tolist() == [1, -1]
    assert auc == 1
    bright = np.column_stack([10 * colour, np.zeros(100)])
    weights, _ = best_view(bright, inside, ~inside, ONE_IMAGE)
    assert weights.sum() > 0


def test_modes():
    single = np.array([1.0])
    assert [mode_of(a, single) for a in (0.6, 0.8, 0.95)] == ["texture", "both", "intensity"]
    assert mode_of(0.99, np.array([1.0, -1.0])) == "texture"


@pytest.mark.parametrize("size", [(1, 10), (7, 7)])
def test_an_image_smaller_than_a_cell_fills_none(size):
    assert cell_means(np.ones((*size, 2))).size == 0


def test_tops_of_objects_are_their_brightest_and_darkest_pixels():
    image = np.zeros((24, 40, 2), np.float32)
    image[3, 3] = 4, 0  # beside the cell of the first object
    image[12, 12] = -2, 6
    image[20, 36] = 10, 2  # in the second, of two cells
    inside = np.zeros((2, 3, 5), bool)
    inside[0, 1, 1] = inside[0, 2, 4] = inside[0, 1, 3] = True
    tops = tops_of_objects(image, inside)
    assert_array_equal(
        signed_views(2), [[0.5, 0.5], [-0.5, -0.5], [1, 0], [-1, 0], [0, 1], [0, -1]]
    )
    assert_array_equal(tops[0], [[2, 0, 4, 2, 6, 0], [6, 0, 10, 0, 2, 0]])
    assert tops[1].shape == (0, 6)

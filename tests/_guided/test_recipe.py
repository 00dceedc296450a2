import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage
from sklearn.linear_model import LogisticRegression

from sklearn_micranet._guided._gate import Part, Reading
from sklearn_micranet._guided._recipe import guided_maps, learn, survey
from sklearn_micranet._network._tiles import tiles_of

SIZE = (64, 64)
CELLS = np.array([[2, 2], [5, 5]])  # where the two squares lie


def squares(labels, sign=1.0, seed=0):
    """A bright or dark square of 12 px in each cell that a label names, on noise."""
    rng = np.random.default_rng(seed)
    image = 5 + rng.normal(0, 0.05, SIZE)
    masks = np.zeros((2, *SIZE), bool)
    for k, (row, column) in enumerate(CELLS * 8 - 2):
        if labels[k]:
            masks[k, row : row + 12, column : column + 12] = True
    image += sign * masks.any(axis=0)
    return image[..., None].astype(np.float32), masks


def reading_of(labels, image):
    """A network that sees each square in its cell, and a little around it."""
    scores = np.full((2, 8, 8), -1.0)
    for k, (row, column) in enumerate(CELLS):
        if labels[k]:
            scores[k, row - 1 : row + 2, column - 1 : column + 2] = 0.3
            scores[k, row, column] = 1
    flat = image[..., 0]
    activations = [np.stack([flat, flat**2])[:, ::f, ::f].astype(np.float32) for f in (1, 2, 4)]
    (tile,) = tiles_of(image.shape[:2], image.size)
    return Reading(scores, np.array(labels, bool), [Part(tile, activations)])


def learned(features="auto", sign=1.0, order=1, offset=0.0, n=16):
    """What is learned of n images; one is brighter than the next by `offset`."""
    labels = [(i % 2, i // 2 % 2) for i in range(n)]
    surveys = []
    for i, label in list(enumerate(labels))[::order]:
        image, _ = squares(label, sign, seed=i)
        image += np.float32(i * offset)
        surveys.append(survey(image, reading_of(label, image), np.random.default_rng(i)))
    return learn(surveys, LogisticRegression(max_iter=200), features=features)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("features", ["auto", "intensity", "both", "texture"])
def test_masks_are_the_squares(features, sign):
    recipe = learned(features, sign)
    image, masks = squares((1, 1), sign, seed=99)
    maps = guided_maps(image, reading_of((1, 1), image), recipe, level=0.5)
    assert maps.dtype == np.float32
    assert maps.min() >= 0
    assert maps.max() <= 1
    found = maps > 0.5
    iou = (found & masks).sum(axis=(1, 2)) / (found | masks).sum(axis=(1, 2))
    assert (iou > (0.75 if features in ("texture", "both") else 0.95)).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_what_is_learned_of_squares(sign):
    recipe = learned(sign=sign)
    assert recipe.modes == ["intensity", "intensity"]
    assert_array_equal(recipe.views, [[sign], [sign]])
    assert (recipe.separation > 0.99).all()
    assert recipe.pixels is None
    variance = [curve.gain * 5 * sign + curve.offset for curve in recipe.noise]
    assert_allclose(variance, 0.0025, rtol=0.2)


@pytest.mark.parametrize("sign", [1, -1])
def test_brightness_may_tell_structures_apart_within_images_only(sign):
    recipe = learned(sign=sign, offset=-3 * sign, n=48)
    assert recipe.modes == ["intensity", "intensity"]
    assert_array_equal(recipe.views, [[sign], [sign]])
    image, masks = squares((1, 1), sign, seed=99)
    maps = guided_maps(image, reading_of((1, 1), image), recipe, level=0.5)
    assert_array_equal(maps > 0.5, masks)


@pytest.mark.parametrize("sign", [1, -1])
def test_objects_that_are_equally_bright_have_a_ceiling(sign):
    recipe = learned(sign=sign, n=100)
    assert_allclose(recipe.ceiling, [1, 1], atol=0.1)  # 144 pixels of noise, of which 0.05
    assert np.isnan(learned(sign=sign, n=40).ceiling).all()  # 10 images of two: too few to say


def test_the_ceiling_is_that_of_classes_told_apart_by_brightness_alone():
    surveys = []
    for i in range(60):
        both = (1 - i % 2,) * 2
        image, _ = squares(both, seed=i)
        reading = reading_of(both, image)
        scores = np.stack([reading.scores.max(axis=0), reading.scores.min(axis=0)])
        reading = reading._replace(scores=scores, present=np.array([both[0], 0], bool))
        surveys.append(survey(image, reading, np.random.default_rng(i)))
    recipe = learn(surveys, LogisticRegression(max_iter=200))
    assert recipe.modes == ["intensity", "texture"]
    assert_array_equal(recipe.views[0], recipe.views[1])
    assert recipe.ceiling[0] == pytest.approx(1, abs=0.1)
    assert np.isnan(recipe.ceiling[1])


def test_objects_of_different_brightness_have_none():
    surveys = []
    for i in range(100):
        image, masks = squares((1, 1), seed=i)
        image[masks[i % 2]] += 0.3 + i / 100  # and each image scaled by itself
        image = (image - image.min()) / np.ptp(image)
        surveys.append(survey(image, reading_of((1, 1), image), np.random.default_rng(i)))
    assert np.isnan(learn(surveys, LogisticRegression()).ceiling).all()


@pytest.mark.parametrize("seed", range(3))
def test_noise_leaves_few_specks_around_what_is_dim(seed):
    """Without a Gaussian there are at least 15 objects, and the IoU is 0.71 at most."""
    recipe = learned("both")
    image, masks = squares((1, 0), seed=99)
    image += np.random.default_rng(seed).normal(0, 0.4, image.shape).astype(np.float32)
    found = guided_maps(image, reading_of((1, 0), image), recipe, level=0.6)[0] > 0.5
    assert ndimage.label(found, np.ones((3, 3)))[1] <= 5
    assert (found & masks[0]).sum() > 0.8 * (found | masks[0]).sum()


def test_absent_classes_are_zero():
    recipe = learned()
    image, masks = squares((0, 1), seed=99)
    maps = guided_maps(image, reading_of((0, 1), image), recipe, level=0.6)
    assert not maps[0].any()
    assert (maps[1] > 0.5)[masks[1]].mean() > 0.9
    assert not guided_maps(image, reading_of((0, 0), image), recipe, level=0.6).any()


@pytest.mark.parametrize("features", ["auto", "texture"])
def test_the_order_of_images_plays_no_part(features):
    image, _ = squares((1, 1), seed=99)
    one, other = (
        guided_maps(image, reading_of((1, 1), image), learned(features, order=order), level=0.6)
        for order in (1, -1)
    )
    assert_allclose(one, other, atol=1e-2 if features == "texture" else 1e-5)


def test_a_higher_level_draws_smaller_objects():
    recipe = learned()
    image, _ = squares((1, 1), seed=99)
    reading = reading_of((1, 1), image)
    areas = [(guided_maps(image, reading, recipe, level=x) > 0.5).sum() for x in (0.1, 0.5, 0.99)]
    assert areas == sorted(areas, reverse=True)
    assert areas[0] > areas[-1]


def test_colour_is_looked_for():
    rng = np.random.default_rng(0)
    surveys = []
    for i in range(16):
        label = (i % 2, i // 2 % 2)
        image, _ = squares(label, seed=i)
        reading = reading_of(label, image)
        other = rng.normal(0, 1, (*SIZE, 1))
        image = np.concatenate([other, image, other], axis=2).astype(np.float32)
        surveys.append(survey(image, reading, np.random.default_rng(i)))
    recipe = learn(surveys, LogisticRegression())
    assert_array_equal(recipe.views, [[0, 1, 0], [0, 1, 0]])


def test_classes_of_different_modes_stand_side_by_side():
    recipe = learned("both")._replace(modes=["intensity", "texture"])
    image, masks = squares((1, 1), seed=99)
    maps = guided_maps(image, reading_of((1, 1), image), recipe, level=0.6)
    for found, mask in zip(maps > 0.5, masks, strict=True):
        assert (found & mask).sum() / (found | mask).sum() > 0.7

import pickle
import re

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter
from scipy.special import expit
from skimage.morphology import disk
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks, get_tags
from skorch.callbacks import Callback
from watched import Watched

from sklearn_micranet import IntensityScaler, ThresholdSegmenter, UNetSegmenter
from sklearn_micranet._stack._lazy_stack import LazyStack


def scenes(n=30, size=(20, 28), seed=0):
    """Return noisy images of three channels with two kinds of blobs, which overlap."""
    rng = np.random.default_rng(seed)
    masks = gaussian_filter(rng.normal(size=(n, 2, *size)), (0, 0, 2.5, 2.5)) > 0.07
    noise = rng.normal(scale=0.4, size=(n, *size, 3))
    images = np.stack([masks[:, 0], masks.any(axis=1), masks[:, 1]], axis=-1) + noise
    return images.astype(np.float32), masks


IMAGES, MASKS = scenes()
SMALL = UNetSegmenter(
    n_filters=4, n_poolings=2, lr=0.03, max_epochs=2, batch_size=8, random_state=0
)


@pytest.fixture(scope="module")
def fitted():
    return clone(SMALL).set_params(batch_size=4, max_epochs=10).fit(IMAGES, MASKS)


def maps_of(segmenter, images=IMAGES):
    return np.asarray(segmenter.transform(images))


# --- training -------------------------------------------------------------------------------


def test_learns_several_kinds_of_structure_that_overlap(fitted):
    images, masks = scenes(seed=1)
    assert (fitted.n_maps_, fitted.n_channels_in_) == (2, 3)
    assert fitted.score(images, masks) > 0.8
    assert fitted.score(images, masks[:, ::-1]) < 0.4
    losses = fitted.history_[:, "valid_loss"]
    assert min(losses) < 0.5 * losses[0]


def test_is_reproducible_and_leaves_global_random_states():
    before = torch.get_rng_state(), pickle.dumps(np.random.get_state())
    segmenter = clone(SMALL).fit(IMAGES, MASKS)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert pickle.dumps(np.random.get_state()) == before[1]
    expected = maps_of(segmenter)
    torch.rand(3)  # the state of the global generator must not matter
    assert_array_equal(maps_of(clone(segmenter).fit(IMAGES, MASKS)), expected)
    assert_array_equal(maps_of(segmenter.fit(IMAGES, MASKS)), expected)
    other = clone(SMALL).set_params(random_state=1).fit(IMAGES, MASKS)
    assert np.abs(maps_of(other) - expected).max() > 1e-3


@pytest.mark.parametrize("n_dimensions", [3, 4])
def test_instances_and_masks_are_the_same_to_learn_from(n_dimensions):
    numbers = np.random.default_rng(0).integers(1, 900, MASKS.shape) * MASKS
    of_masks, instances = MASKS[:, :1], numbers[:, :1]
    if n_dimensions == 3:
        instances = instances[:, 0]
    expected = clone(SMALL).fit(IMAGES, of_masks)
    assert expected.n_maps_ == 1
    segmenter = clone(SMALL).fit(IMAGES, instances)
    assert_array_equal(maps_of(segmenter), maps_of(expected))
    assert segmenter.score(IMAGES, instances) == segmenter.score(IMAGES, of_masks)


def test_contours_are_dilated_by_a_disc():
    dots = np.zeros_like(MASKS[:, :1])
    dots[:, :, 8::40, 8::40] = True
    discs = np.zeros_like(dots)
    discs[:, :, 5:12, 5:12] = disk(3)
    loose = clone(SMALL).set_params(contour_dilation=3)
    expected = clone(SMALL).fit(IMAGES, discs, X_val=IMAGES[:5], y_val=discs[:5])
    loose.fit(IMAGES, dots, X_val=IMAGES[:5], y_val=dots[:5])
    assert_array_equal(maps_of(loose), maps_of(expected))
    assert loose.history_[:, "valid_loss"] == expected.history_[:, "valid_loss"]
    assert loose.score(IMAGES, discs) == expected.score(IMAGES, discs)  # not dilated


def test_augmentation_varies_the_images():
    varied = clone(SMALL).set_params(augmentation=["flip", "turn", "gamma"]).fit(IMAGES, MASKS)
    assert np.abs(maps_of(varied) - maps_of(clone(SMALL).fit(IMAGES, MASKS))).max() > 1e-3


def test_augmentation_keeps_images_and_masks_together():
    # Each mask is the left half of its image; where that is now shows in the image alone.
    images = np.zeros((24, 16, 16), dtype=np.float32)
    images[:, :, :8] = np.random.default_rng(0).random((24, 16, 8)) + 0.5
    segmenter = UNetSegmenter(
        n_filters=2,
        n_poolings=1,
        lr=0.05,
        batch_size=8,
        max_epochs=15,
        augmentation=["flip", "turn"],
        random_state=0,
    )
    turned = np.rot90(images, axes=(1, 2))
    assert segmenter.fit(images, images > 0).score(turned, turned > 0) > 0.95


class Seen(Watched):
    """Remember the images of the last epoch, by their mean."""

    def on_epoch_begin(self, net, dataset_train, dataset_valid, **kwargs):
        self.train, self.valid = dataset_train.indices, dataset_valid.indices


def test_images_of_one_group_are_trained_on_or_monitored_together():
    seen, groups = Seen(), np.arange(30) // 3
    segmenter = clone(SMALL).set_params(callbacks=[seen], validation_fraction=0.2)
    segmenter.fit(IMAGES, MASKS, groups=groups)
    assert len(seen.valid) == 6
    assert not set(groups[seen.train]) & set(groups[seen.valid])


def test_given_validation_images_are_monitored():
    seen = Seen()
    segmenter = clone(SMALL).set_params(callbacks=[seen])
    segmenter.fit(IMAGES[:20], MASKS[:20], X_val=IMAGES[20:], y_val=MASKS[20:])
    assert (len(seen.train), len(seen.valid)) == (20, 10)


def test_early_stopping_returns_to_the_best_epoch():
    segmenter = clone(SMALL).set_params(lr=1.0, max_epochs=20, n_iter_no_change=3)
    segmenter.fit(IMAGES, MASKS)
    losses = segmenter.history_[:, "valid_loss"]
    assert len(losses) < 20
    assert len(losses) - 1 - int(np.argmin(losses)) >= 2


class Killed(Exception):
    pass


class Kill(Callback):
    """End the training at the start of an epoch, as a power cut does."""

    def __init__(self, epoch=None):
        self.epoch = epoch

    def get_params(self, deep=True):
        return {}  # another epoch is no other training

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == self.epoch:
            raise Killed


def test_a_killed_training_goes_on(tmp_path):
    expected = clone(SMALL).set_params(max_epochs=4).fit(IMAGES, MASKS)
    parameters = {"max_epochs": 4, "checkpoint_dir": tmp_path}
    segmenter = clone(SMALL).set_params(**parameters, callbacks=[Kill(epoch=3)])
    with pytest.raises(Killed):
        segmenter.fit(IMAGES, MASKS)
    segmenter.set_params(callbacks=[Kill()]).fit(IMAGES, MASKS)
    assert_array_equal(maps_of(segmenter), maps_of(expected))
    assert [row["epoch"] for row in segmenter.history_] == [1, 2, 3, 4]
    assert len(list(tmp_path.iterdir())) == 1
    segmenter.set_params(contour_dilation=1).fit(IMAGES, MASKS)
    segmenter.fit(IMAGES, MASKS, groups=np.arange(30) // 2)
    assert len(list(tmp_path.iterdir())) == 3  # other trainings


def test_training_starts_from_pretrained_weights(fitted):
    copy = clone(SMALL).set_params(pretrained=FrozenEstimator(fitted), lr=1e-12, max_epochs=1)
    x = torch.rand(4, 3, 16, 16)
    weights = clone(copy).fit(IMAGES, MASKS).module_.state_dict()
    expected = fitted.module_.state_dict()
    learned = [name for name, _ in fitted.module_.named_parameters()]
    assert all(torch.allclose(weights[name], expected[name], atol=1e-9) for name in learned)
    other = copy.fit(IMAGES, MASKS[:, :1])
    assert other.module_(x).shape == (4, 1, 16, 16)
    assert torch.allclose(other.module_.state_dict()["up.0.weight"], expected["up.0.weight"])


# From the output: parts of the network that are updated besides its last convolution.
SIZES = ["up.1.|merge.1.", "up.0.|merge.0.", "down.2.", "down.1.", "down.0."]


@pytest.mark.parametrize("fine_tune_depth", [0, 1, 3, 5, None])
def test_exactly_the_last_sizes_are_fine_tuned(fitted, fine_tune_depth):
    n_updated = 5 if fine_tune_depth is None else fine_tune_depth
    updated = re.compile("|".join(["head.", *SIZES[:n_updated]]))
    tuned = clone(SMALL).set_params(
        pretrained=FrozenEstimator(fitted), fine_tune_depth=fine_tune_depth
    )
    weights = tuned.fit(IMAGES[::-1], MASKS[::-1]).module_.state_dict()
    before = fitted.module_.state_dict()
    changed = {name for name in weights if not torch.equal(weights[name], before[name])}
    assert changed == {name for name in weights if updated.match(name)}
    names = [name for name, _ in fitted.module_.named_parameters()]
    assert tuned.updated_parameters_ == [name for name in names if updated.match(name)]


def test_more_sizes_than_there_are_cannot_be_fine_tuned(fitted):
    tuned = clone(SMALL).set_params(pretrained=FrozenEstimator(fitted), fine_tune_depth=6)
    with pytest.raises(ValueError, match=r"at most 2 \* n_poolings \+ 1, 5: .* Got 6 instead"):
        tuned.fit(IMAGES, MASKS)


# --- prediction -----------------------------------------------------------------------------


def test_maps_are_a_lazy_stack_of_probabilities(fitted):
    maps = fitted.transform(IMAGES)
    assert isinstance(maps, LazyStack)
    assert (maps.shape, maps.dtype) == ((30, 2, 20, 28), np.float32)
    with torch.no_grad():
        logits = fitted.module_(torch.from_numpy(IMAGES[:3].transpose(0, 3, 1, 2))).numpy()
    assert_allclose(np.asarray(maps)[:3], expit(logits), atol=1e-6)
    assert_array_equal(np.asarray(pickle.loads(pickle.dumps(maps))), np.asarray(maps))


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.8, 1.0])
def test_masks_are_where_the_probability_is_above_the_threshold(fitted, threshold):
    segmenter = pickle.loads(pickle.dumps(fitted)).set_params(threshold=threshold)
    masks = segmenter.predict(IMAGES)
    assert masks.dtype == bool
    assert_array_equal(masks, maps_of(fitted) > threshold)
    assert masks.all() == (threshold == 0)
    assert masks.any() == (threshold < 1)


def test_a_map_of_certain_pixels_only_is_full(fitted):
    certain = pickle.loads(pickle.dumps(fitted))
    with torch.no_grad():
        certain.module_.head.bias += 1000
    assert (maps_of(certain) == 1).all()
    assert certain.predict(IMAGES).all()


def test_predictions_depend_neither_on_the_batch_nor_on_the_order(fitted):
    expected = maps_of(fitted)
    order = np.random.default_rng(0).permutation(30)
    assert_allclose(maps_of(fitted, IMAGES[order]), expected[order], atol=1e-6)
    one_by_one = np.concatenate([maps_of(fitted, image[np.newaxis]) for image in IMAGES])
    assert_allclose(one_by_one, expected, atol=1e-6)
    copy = pickle.loads(pickle.dumps(fitted))
    for batch_size in (2, 7, 100):
        assert_allclose(maps_of(copy.set_params(batch_size=batch_size)), expected, atol=1e-6)


def test_maps_are_those_of_the_network_as_it_was(fitted):
    copy = pickle.loads(pickle.dumps(fitted))
    maps = copy.transform(IMAGES)
    with torch.no_grad():
        copy.module_.head.bias += 1
    assert_array_equal(np.asarray(maps), maps_of(fitted))


def test_the_key_of_the_maps_depends_on_image_and_weights(fitted):
    copy = pickle.loads(pickle.dumps(fitted))
    keys = fitted.transform(IMAGES).keys()
    assert copy.transform(IMAGES[:2]).keys() == keys[:2]
    assert len(set(keys)) == 30
    with torch.no_grad():
        copy.module_.head.bias += 1
    assert copy.transform(IMAGES[:1]).keys()[0] not in keys


@pytest.mark.parametrize("added", [(0, 40), (24, 0), (13, 19)])
def test_padding_below_and_right_moves_nothing_far_from_it(fitted, added):
    images, _ = scenes(n=3, size=(64, 72), seed=2)
    padded = np.pad(images, [(0, 0), (0, added[0]), (0, added[1]), (0, 0)], mode="edge")
    masks, of_padded = fitted.predict(images), fitted.predict(padded)
    assert of_padded.shape[2:] == (64 + added[0], 72 + added[1])
    field = 27  # px, see test_unet.py
    common = np.s_[:, :, : 64 - field, : 72 - field]
    assert masks[common].any()
    assert_array_equal(masks[common], of_padded[common])


def test_images_may_differ_in_size(fitted):
    images = [IMAGES[0], IMAGES[1, :13, :9], IMAGES[2], IMAGES[3, :8, :11]]
    maps, masks = fitted.transform(images), fitted.predict(images)
    assert isinstance(masks, list)
    for image, one_map, mask in zip(images, maps, masks, strict=True):
        assert one_map.shape == mask.shape == (2, *image.shape[:2])
        assert_allclose(one_map, maps_of(fitted, image[np.newaxis])[0], atol=1e-6)
        assert_array_equal(mask, one_map > 0.5)
    true = [MASKS[0], MASKS[1, :, :13, :9]]
    ious = [
        fitted.score(image[None], mask[None]) for image, mask in zip(images, true, strict=False)
    ]
    assert fitted.score(images[:2], true) == pytest.approx(np.mean(ious))


def test_score_is_the_mean_iou(fitted):
    found = fitted.predict(IMAGES)
    ious = [(p & t).sum() / (p | t).sum() for p, t in zip(*map(flat, (found, MASKS)), strict=True)]
    assert fitted.score(IMAGES, MASKS) == pytest.approx(np.mean(ious))


def flat(masks):
    return masks.reshape(-1, *masks.shape[2:])


def test_small_components_are_removed(fitted):
    segmenter = pickle.loads(pickle.dumps(fitted)).set_params(min_size=30)
    expected = ThresholdSegmenter(method="fixed", min_size=30).predict(fitted.transform(IMAGES))
    assert (expected != fitted.predict(IMAGES)).any()
    assert_array_equal(segmenter.predict(IMAGES), expected)


@pytest.mark.parametrize("min_distance", [None, 4])
def test_instances_are_split_as_by_the_threshold_segmenter(fitted, min_distance):
    segmenter = pickle.loads(pickle.dumps(fitted)).set_params(min_distance=min_distance)
    split = ThresholdSegmenter(method="fixed", min_distance=min_distance)
    expected = split.predict_instances(maps_of(fitted))
    assert expected.max() > 1
    assert_array_equal(segmenter.predict_instances(IMAGES), expected)


# --- with scikit-learn ----------------------------------------------------------------------


def test_inputs_are_left_as_they_are():
    images, masks = (IMAGES * 50).astype(np.int16), MASKS.astype(np.uint8)
    before = images.copy(), masks.copy()
    images.flags.writeable = masks.flags.writeable = False
    segmenter = clone(SMALL).set_params(contour_dilation=2).fit(images, masks)
    segmenter.predict(images)
    assert_array_equal(images, before[0])
    assert_array_equal(masks, before[1])


def test_in_a_pipeline_and_a_search():
    pipeline = make_pipeline(IntensityScaler(), clone(SMALL))
    pipeline.set_params(unetsegmenter__batch_size=4)
    search = GridSearchCV(pipeline, {"unetsegmenter__max_epochs": [1, 8]}, cv=2, refit=False)
    search.fit(IMAGES, MASKS)
    assert search.best_params_ == {"unetsegmenter__max_epochs": 8}
    assert search.best_score_ > search.cv_results_["mean_test_score"][0] + 0.1
    pipeline.fit(IMAGES, MASKS)
    assert_array_equal(pipeline.predict(IMAGES), np.asarray(pipeline.transform(IMAGES)) > 0.5)


def test_a_threshold_segmenter_may_follow(fitted):
    pipeline = make_pipeline(FrozenEstimator(fitted), ThresholdSegmenter(method="fixed"))
    assert_array_equal(pipeline.fit(IMAGES, MASKS).predict(IMAGES), fitted.predict(IMAGES))


def test_weights_return_from_a_file(fitted, tmp_path):
    fitted.save_weights(tmp_path / "unet.pt")
    copy = clone(fitted).load_weights(tmp_path / "unet.pt")
    assert_array_equal(maps_of(copy), maps_of(fitted))
    assert (copy.n_maps_, copy.n_channels_in_) == (2, 3)
    with pytest.raises(ValueError, match=r"n_filters must be 4, as in .*unet.pt. Got 2 instead"):
        clone(fitted).set_params(n_filters=2).load_weights(tmp_path / "unet.pt")
    with pytest.raises(ValueError, match="n_poolings must be 2"):
        clone(fitted).set_params(n_poolings=3).load_weights(tmp_path / "unet.pt")


def test_a_clone_is_unfitted(fitted):
    for method in ("transform", "predict", "predict_instances"):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            getattr(clone(fitted), method)(IMAGES)
    with pytest.raises(NotFittedError, match="not fitted yet"):
        clone(fitted).score(IMAGES, MASKS)
    with pytest.raises(NotFittedError, match="not fitted yet"):
        clone(fitted).save_weights("unet.pt")


def test_tags():
    tags = get_tags(UNetSegmenter())
    assert tags.target_tags.required
    assert tags.input_tags.three_d_array
    assert not tags.input_tags.two_d_array


@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_estimator_cloneable,
        estimator_checks.check_estimator_repr,
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_do_not_raise_errors_in_init_or_set_params,
        estimator_checks.check_parameters_default_constructible,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_set_params,
        estimator_checks.check_mixin_order,
        estimator_checks.check_param_validation,
        estimator_checks.check_estimator_tags_renamed,
        estimator_checks.check_valid_tag_types,
        estimator_checks.check_requires_y_none,
    ],
    ids=lambda check: check.__name__,
)
def test_sklearn_checks(check):
    check("UNetSegmenter", UNetSegmenter())


# --- errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("X", "y", "match"),
    [
        (IMAGES.reshape(30, -1), MASKS, r"Got 2 dimensions instead: reshape"),
        (IMAGES[:, :10], MASKS, r"of \(10, 28\) px.*Got the shapes \(2, 20, 28\) instead"),
        (IMAGES[:20], MASKS, "each of the 20 images. Got 30 instead"),
        (IMAGES, np.arange(30) % 2, r"Got a label, of shape \(\), for sample 0"),
        (IMAGES, MASKS & False, "at least one pixel of a structure. Got empty masks only"),
        ([IMAGES[0], IMAGES[1, :9]], MASKS[:2], "Training images must all have one shape"),
        (IMAGES[:1, :8, :8], MASKS[:1, :, :8, :8] | True, r"Got one image of \(8, 8\) px instead"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(fitted, X, y, match):
    segmenter = pickle.loads(pickle.dumps(fitted)).set_params(n_poolings=3)
    with pytest.raises(ValueError, match=match):
        segmenter.fit(X, y)
    assert not hasattr(segmenter, "net_")


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"groups": np.arange(29)}, r"groups must hold one entry for each of the 30.*\(29,\)"),
        ({"X_val": IMAGES}, "must be passed together. Got no y_val"),
        ({"X_val": IMAGES, "y_val": MASKS[:, :1]}, r"2 map\(s\) of .*Got the shapes \(1, 20, 28\)"),
        ({"X_val": IMAGES[..., :2], "y_val": MASKS}, r"3 channel\(s\).*Got 2 instead"),
    ],
)
def test_wrong_arguments_of_fit_are_refused(parameters, match):
    with pytest.raises(ValueError, match=match):
        clone(SMALL).fit(IMAGES, MASKS, **parameters)


def test_what_cannot_be_predicted_or_scored_is_refused(fitted):
    with pytest.raises(ValueError, match=r"must have 3 channel\(s\).*Got 1 instead"):
        fitted.predict(IMAGES[..., 0])
    with pytest.raises(ValueError, match="Got a 2-dimensional X instead"):
        fitted.predict(IMAGES.reshape(30, -1))
    with pytest.raises(ValueError, match="one channel per class, 2 in all"):
        fitted.score(IMAGES, MASKS[:, :1])
    with pytest.raises(ValueError, match=r"shapes of y, \(2, 20, 28\) for sample 1"):
        fitted.score([IMAGES[0], IMAGES[1, :9]], MASKS[:2])


def test_a_training_that_diverges_leaves_it_unfitted():
    segmenter = clone(SMALL).set_params(lr=1e30, early_stopping=False)
    with pytest.raises(ValueError, match="Training diverged"):
        segmenter.fit(IMAGES, MASKS)
    assert not hasattr(segmenter, "net_")

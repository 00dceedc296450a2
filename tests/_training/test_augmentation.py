import pickle
from itertools import permutations

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from torch import nn
from torch.testing import assert_close

from sklearn_micranet._training._augmentation import (
    BLUR_MAX,
    BLUR_RADIUS,
    GAMMA_SIGMA,
    INTENSITY_SIGMA,
    NOISE_MAX,
    add_noise,
    blur,
    change_gamma,
    make_augmenter,
    scale_intensity,
)

NAMES = ["flip", "turn", "intensity", "gamma", "noise", "blur"]


def rows(*images):
    """Return float64 images of one row and one channel."""
    return torch.tensor(images, dtype=torch.float64)[:, None, None, :]


def one_each(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None, None, None]


def impulses(n):
    """Return float64 images of a single bright pixel, which every transformation changes."""
    images = torch.zeros(n, 1, 5, 5, dtype=torch.float64)
    images[:, :, 1, 0] = 0.5
    return images


def changed(varied, batch):
    return (varied != batch).flatten(1).any(dim=1)


def variants(name, image, n=1200):
    """Count the different images that an augmentation makes of one."""
    varied = make_augmenter(name)(image.expand(n, *image.shape).contiguous())
    counts = torch.unique(varied.flatten(1), dim=0, return_counts=True)
    return {tuple(row): count for row, count in zip(*(c.tolist() for c in counts), strict=True)}


def assert_shares(counts, expected):
    """Compare counts of images with their probabilities, within 5 binomial standard deviations."""
    n = sum(counts.values())
    assert set(counts) == {tuple(image.ravel()) for image, _ in expected}
    for image, p in expected:
        assert abs(counts[tuple(image.ravel())] - n * p) < 5 * np.sqrt(n * p * (1 - p))


# --- the transformations ---------------------------------------------------------------------


def test_flip_makes_four_variants_equally_often():
    image = torch.arange(12.0).reshape(1, 3, 4)
    array = image[0].numpy()
    expected = [(array, 1 / 4), (array[:, ::-1], 1 / 4), (array[::-1], 1 / 4)]
    assert_shares(variants("flip", image), [*expected, (array[::-1, ::-1], 1 / 4)])


def test_turn_makes_each_quarter_turn_equally_often():
    image = torch.arange(16.0).reshape(1, 4, 4)
    shares = [1 / 2, 1 / 6, 1 / 6, 1 / 6]
    turned = [np.rot90(image[0].numpy(), k) for k in range(4)]
    assert_shares(variants("turn", image), list(zip(turned, shares, strict=True)))


def test_turn_is_by_half_turns_unless_images_are_square():
    image = torch.arange(12.0).reshape(1, 3, 4)
    array = image[0].numpy()
    assert_shares(variants("turn", image), [(array, 1 / 2), (array[::-1, ::-1], 1 / 2)])


def test_channels_stay_together_when_moved():
    batch = torch.rand(50, 1, 6, 6)
    varied = make_augmenter(["flip", "turn"])(torch.cat([batch, batch + 1], dim=1))
    assert changed(varied[:, :1], batch).any()
    assert torch.equal(varied[:, 1], varied[:, 0] + 1)


def test_scale_intensity_is_clipped_at_1():
    images = rows([0, 0.25, 0.5, 1], [0.2, 0.4, 0.4, 0.4])
    expected = rows([0, 0.375, 0.75, 1], [0.1, 0.2, 0.2, 0.2])
    assert_close(scale_intensity(images, one_each(1.5, 0.5)), expected)


def test_scale_intensity_outside_0_to_1_refers_to_the_extremes():
    images = rows([-2, 0, 3], [0, 50, 200], [5, 6, 8], [-3, -1, 0.5])
    expected = rows([-2, 1, 3], [0, 100, 200], [2.5, 3, 4], [-3, 1, 1])
    assert_close(scale_intensity(images, one_each(1.5, 2, 0.5, 2)), expected)


def test_change_gamma_is_a_power():
    images = rows([0, 0.25, 0.5, 1], [0, 0.25, 0.5, 1])
    expected = rows([0, 1 / 16, 1 / 4, 1], [0, 0.5, 0.5**0.5, 1])
    assert_close(change_gamma(images, one_each(2, 0.5)), expected)


def test_change_gamma_outside_0_to_1_refers_to_the_extremes():
    images = rows([-2, 0, 3], [0, 50, 200], [-3, -2, 0.5])
    # ((0 + 2) / 5)^2 5 - 2 = -1.2;  (50 / 200)^0.5 200 = 100;  (1 / 4)^2 4 - 3 = -2.75
    # and, as the frame ends at 1 at least, (3.5 / 4)^2 4 - 3 = 0.0625
    expected = rows([-2, -1.2, 3], [0, 100, 200], [-3, -2.75, 0.0625])
    assert_close(change_gamma(images, one_each(2, 0.5, 2)), expected)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.2, 0.4), (-3, 5), (0, 4000)])
def test_noise_is_gaussian_relative_to_the_range(low, high):
    images = torch.full((2, 1, 60, 60), (low + high) / 2, dtype=torch.float64)
    images[..., 0], images[..., -1] = low, high
    noise = (add_noise(images, one_each(0.05, 0.01)) - images)[..., 1:-1].flatten(1).numpy()
    for values, share in zip(noise, [0.05, 0.01], strict=True):
        assert stats.kstest(values, stats.norm(scale=share * (high - low)).cdf).pvalue > 0.001


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3, 5)])
def test_noise_is_clipped(low, high):
    images = torch.full((1, 1, 9, 9), low, dtype=torch.float64)
    images[..., 5:] = high
    noisy = add_noise(images, one_each(0.2))
    assert noisy.min() == low
    assert noisy.max() == high
    assert ((noisy > low) & (noisy < high)).any()


@pytest.mark.parametrize("size", [(24, 31), (5, 40), (8, 8), (1, 3)])
@pytest.mark.parametrize("n_channels", [1, 3])
def test_blur_equals_scipy(size, n_channels):
    sigmas = [0.3, 1, 1.99]
    images = torch.randn(3, n_channels, *size, dtype=torch.float64)
    expected = [
        [ndimage.gaussian_filter(c, sigma, mode="nearest", radius=BLUR_RADIUS) for c in image]
        for image, sigma in zip(images.numpy(), sigmas, strict=True)
    ]
    assert_close(blur(images, one_each(*sigmas)), torch.tensor(np.array(expected)))


def test_blur_reaches_far_enough():
    image = torch.rand(1, 1, 40, 40, dtype=torch.float64)
    expected = ndimage.gaussian_filter(image[0, 0].numpy(), BLUR_MAX, mode="nearest", truncate=10)
    blurred = blur(image, one_each(BLUR_MAX))[0, 0]
    assert_close(blurred, torch.tensor(expected), rtol=0, atol=1e-3)


def test_blur_of_width_0_changes_nothing():
    images = torch.rand(2, 1, 9, 9)
    assert torch.equal(blur(images, torch.zeros(2, 1, 1, 1)), images)


# --- what is drawn ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_half_of_the_images_are_changed(name):
    n = 2000
    batch = impulses(n)
    probability = 3 / 4 if name == "flip" else 1 / 2  # of the two flips, at least one
    share = changed(make_augmenter(name)(batch), batch).double().mean().item()
    assert abs(share - probability) < 4 * np.sqrt(probability * (1 - probability) / n)


def test_factor_is_log_normal_around_1():
    batch = torch.full((4000, 2, 2, 2), 0.3, dtype=torch.float64)
    varied = make_augmenter("intensity")(batch)
    assert torch.equal(varied.amin((1, 2, 3)), varied.amax((1, 2, 3)))  # one factor per image
    logs = torch.log(varied / batch)[changed(varied, batch), 0, 0, 0]
    logs = logs[logs < np.log(2)].numpy()  # far from the clipping, which begins at a factor of 3.3
    assert stats.kstest(logs, stats.norm(scale=INTENSITY_SIGMA).cdf).pvalue > 0.001


def test_exponent_is_log_normal_around_1():
    batch = torch.full((4000, 2, 2, 2), 0.5, dtype=torch.float64)
    varied = make_augmenter("gamma")(batch)
    assert torch.equal(varied.amin((1, 2, 3)), varied.amax((1, 2, 3)))
    logs = torch.log(torch.log(varied) / np.log(0.5))[changed(varied, batch), 0, 0, 0]
    assert stats.kstest(logs.numpy(), stats.norm(scale=GAMMA_SIGMA).cdf).pvalue > 0.001


def test_noise_level_is_uniform():
    batch = torch.full((600, 1, 50, 50), 0.5, dtype=torch.float64)
    batch[..., 0], batch[..., -1] = 0, 1
    varied = make_augmenter("noise")(batch)
    # Of 2400 values, the standard deviation is known to 1.4 %.
    levels = (varied - batch)[changed(varied, batch), :, :, 1:-1].flatten(1).std(dim=1).numpy()
    assert levels.max() < 1.05 * NOISE_MAX
    assert stats.kstest(levels, stats.uniform(scale=NOISE_MAX).cdf).pvalue > 0.001


def test_blur_width_is_uniform():
    batch = torch.zeros(800, 1, 1, 41, dtype=torch.float64)
    batch[..., 20] = 1
    profile = make_augmenter("blur")(batch)[:, 0, 0]
    ratio = profile[:, 21] / profile[:, 20]  # exp(-1 / (2 sigma^2)), whatever the kernel's sum
    widths = torch.sqrt(-0.5 / torch.log(ratio[ratio > 0])).numpy()
    assert widths.max() < BLUR_MAX
    narrowest = 0.03  # below, the ratio underflows
    uniform = stats.uniform(narrowest, BLUR_MAX - narrowest)
    assert stats.kstest(widths[widths > narrowest], uniform.cdf).pvalue > 0.001


def test_steps_come_in_every_order():
    order = []

    def recorder(k):
        return lambda batch: order.append(k) or batch

    augment = make_augmenter([recorder(k) for k in range(3)])
    for _ in range(600):
        augment(impulses(1))
    orders = [tuple(order[i : i + 3]) for i in range(0, len(order), 3)]
    counts = {p: orders.count(p) for p in permutations(range(3))}
    assert sum(counts.values()) == 600
    # 100 expected, with a standard deviation of 9.1
    assert all(55 < count < 145 for count in counts.values())


def test_names_and_callables_are_mixed_in_random_order():
    batch = impulses(8)
    seen = []

    def record(images):
        seen.append(changed(images, batch).any().item())
        return images

    augment = make_augmenter(["noise", record])
    for _ in range(200):
        augment(batch)
    assert 65 < sum(seen) < 135


def test_microscopy_is_all_six():
    assert make_augmenter("microscopy").steps == NAMES
    assert make_augmenter(["microscopy", torch.square]).steps == [*NAMES, torch.square]


@pytest.mark.parametrize("augmentation", [*NAMES, "microscopy"])
def test_seed_determines_the_batch(augmentation):
    batch = torch.rand(32, 1, 12, 12)
    augment = make_augmenter(augmentation)
    varied = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        varied.append(augment(batch))
    assert torch.equal(varied[0], varied[1])
    assert not torch.equal(varied[0], varied[2])


# --- what stays ------------------------------------------------------------------------------


@pytest.mark.parametrize("n_channels", [1, 3])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("augmentation", [*NAMES, "microscopy", nn.AvgPool2d(3, 1, 1)])
def test_form_is_kept_and_the_input_untouched(augmentation, memory_format, n_channels):
    batch = torch.rand(16, n_channels, 10, 14).to(memory_format=memory_format)
    before = batch.clone()

    varied = make_augmenter(augmentation)(batch)

    assert torch.equal(batch, before)
    assert not torch.equal(varied, batch)  # premise: something has been done
    assert varied.dtype == torch.float32
    assert varied.shape == batch.shape
    assert varied.stride() == batch.stride()


def test_callables_working_in_place_do_not_reach_the_input():
    batch = torch.rand(4, 1, 8, 8)
    before = batch.clone()
    varied = make_augmenter(torch.Tensor.neg_)(batch)
    assert torch.equal(varied, -before)
    assert torch.equal(batch, before)


def test_images_in_0_to_1_stay_there():
    augment = make_augmenter("microscopy")
    batch = torch.rand(50, 1, 9, 9)
    for _ in range(10):  # orders
        varied = augment(batch)
        assert varied.min() >= 0
        assert varied.max() <= 1 + 1e-6  # the blur rounds


@pytest.mark.parametrize("level", [-1000, -0.5, 0, 0.5, 1, 60000])
@pytest.mark.parametrize("name", [*NAMES, "microscopy"])
def test_constant_images_stay_constant(name, level):
    varied = make_augmenter(name)(torch.full((64, 1, 8, 11), float(level)))
    assert varied.isfinite().all()
    assert_close(varied.amin((1, 2, 3)), varied.amax((1, 2, 3)))


def test_standardised_images_keep_their_extent():
    augment = make_augmenter("microscopy")
    batch = torch.randn(50, 3, 16, 12)
    for _ in range(10):  # orders
        varied = augment(batch)
        assert (varied.amin((1, 2, 3)) >= batch.amin((1, 2, 3)) - 1e-5).all()
        assert (varied.amax((1, 2, 3)) <= batch.amax((1, 2, 3)) + 1e-5).all()


@pytest.mark.parametrize("name", ["intensity", "gamma", "noise", "blur"])
def test_neighbours_in_the_batch_have_no_influence(name):
    batch = torch.rand(16, 2, 8, 8)
    others = batch.clone()
    others[1::2] = 100 * torch.randn(8, 2, 8, 8)
    varied = []
    for images in (batch, others):
        torch.manual_seed(0)
        varied.append(make_augmenter(name)(images)[::2])
    assert_close(*varied)


def test_nothing_travels_to_the_host():
    # Tensors of this device have no values: reading one raises an error.
    batch = torch.empty(4, 3, 16, 16, device="meta")
    varied = make_augmenter("microscopy")(batch)
    assert (varied.device.type, varied.shape) == ("meta", batch.shape)


# --- parameter -------------------------------------------------------------------------------


def test_modules_are_callables_and_leave_no_graph():
    module = nn.Conv2d(1, 1, 1)
    batch = torch.rand(4, 1, 8, 8)
    varied = make_augmenter(module)(batch)
    assert not varied.requires_grad
    assert torch.equal(varied, module(batch).detach())


@pytest.mark.parametrize("augmentation", [None, []])
def test_nothing_to_do(augmentation):
    assert make_augmenter(augmentation) is None


def test_augmenter_is_picklable():
    augment = make_augmenter(["microscopy", nn.AvgPool2d(3, 1, 1)])
    batch = torch.rand(8, 1, 8, 8)
    varied = []
    for each in (augment, pickle.loads(pickle.dumps(augment))):
        torch.manual_seed(0)
        varied.append(each(batch))
    assert torch.equal(*varied)


@pytest.mark.parametrize("augmentation", ["flop", ["flip", "flop"]])
def test_unknown_names(augmentation):
    with pytest.raises(ValueError, match=r"The names are \['flip', .*'microscopy'\]. Got 'flop'"):
        make_augmenter(augmentation)


@pytest.mark.parametrize("augmentation", [3, True, ["flip", None], {"flip": 0.5}, np.zeros(2)])
def test_unknown_types(augmentation):
    with pytest.raises(TypeError, match=r"augmentation must be None, a name, a callable.* Got "):
        make_augmenter(augmentation)


def test_callables_must_return_a_tensor():
    with pytest.raises(TypeError, match=r"must return a Tensor\. Got ndarray from numpy instead"):
        make_augmenter(torch.Tensor.numpy)(torch.rand(2, 1, 8, 8))


@pytest.mark.parametrize(
    ("function", "got"),
    [
        (nn.MaxPool2d(2), r"\(2, 1, 4, 4\), torch.float32, cpu from MaxPool2d instead"),
        (torch.Tensor.double, r"\(2, 1, 8, 8\), torch.float64, cpu from double instead"),
        (torch.sum, r"\(\), torch.float32, cpu from sum instead"),
    ],
)
def test_callables_must_keep_the_form(function, got):
    required = r"of the batch, \(2, 1, 8, 8\), torch.float32, cpu. Got "
    with pytest.raises(ValueError, match=required + got):
        make_augmenter(function)(torch.rand(2, 1, 8, 8))


@pytest.mark.parametrize("size", [(12, 12), (8, 14)])
def test_masks_are_moved_with_their_images(size):
    images = torch.rand(40, 2, *size)
    masks = images > 0.5
    before = images.clone()
    varied, moved = make_augmenter(["flip", "turn"])(images, masks)
    assert moved.dtype is torch.bool
    assert torch.equal(moved, varied > 0.5)
    assert 20 < (varied != images).flatten(1).any(dim=1).sum() <= 40
    assert torch.equal(images, before)
    assert torch.equal(masks, images > 0.5)


@pytest.mark.parametrize("step", ["intensity", "gamma", "noise", "blur", torch.square])
def test_other_steps_leave_masks_alone(step):
    images = torch.rand(40, 1, 12, 12)
    masks = images > 0.5
    varied, same = make_augmenter(step)(images, masks)
    assert not torch.equal(varied, images)
    assert torch.equal(same, masks)


def test_masks_change_nothing_about_the_images():
    augment, images = make_augmenter("microscopy"), torch.rand(20, 1, 12, 12)
    torch.manual_seed(0)
    alone = augment(images)
    torch.manual_seed(0)
    together, _ = augment(images, torch.zeros(20, 3, 12, 12, dtype=torch.bool))
    assert torch.equal(alone, together)

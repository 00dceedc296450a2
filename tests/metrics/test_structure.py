import numpy as np
import pytest

from sklearn_micranet.metrics import bright_share, bright_threshold, spectrum_change

ROWS, COLUMNS = np.indices((256, 256))
LEFT = COLUMNS < 128
EVERYWHERE = np.ones_like(LEFT)
PIXEL_SIZE = 20  # nm


def rings(period, row=128, column=64):
    """Draw concentric rings with a period in nm around a pixel."""
    distance = np.hypot(ROWS - row, COLUMNS - column) * PIXEL_SIZE
    return np.cos(2 * np.pi * distance / period)


def change(image, mask, **kwargs):
    return spectrum_change(image, mask, pixel_size=PIXEL_SIZE, **kwargs)


def test_a_mask_of_everything_changes_nothing():
    assert change(3 + rings(185), EVERYWHERE) == 0


@pytest.mark.parametrize("brightness", [0, 1, 100])
def test_rings_on_one_side(brightness):
    image = brightness + rings(185) * LEFT
    assert change(image, LEFT) == pytest.approx(0, abs=1e-3)
    assert change(image, ~LEFT) == pytest.approx(-1, abs=1e-3)
    assert change(image, EVERYWHERE * 0) == -1


def test_only_rings_of_the_periods_count():
    image = np.where(LEFT, rings(185), rings(400, column=192))
    assert change(image, LEFT) == pytest.approx(0, abs=0.05)
    assert change(image, ~LEFT) == pytest.approx(-1, abs=0.05)
    assert change(image, LEFT, periods=(380, 420)) == pytest.approx(-1, abs=0.05)
    assert change(image, ~LEFT, periods=(380, 420)) == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_power_lost_is_that_of_the_area_left_out(share):
    image = np.cos(2 * np.pi * COLUMNS * PIXEL_SIZE / 185)
    assert change(image, share * 256 > ROWS) == pytest.approx(share - 1, abs=0.05)


def test_equals_the_energy_of_the_filtered_image():
    rng = np.random.default_rng(0)
    image, mask = rng.normal(5, 1, (60, 81)), rng.random((60, 81)) < 0.6

    def energy(image):  # by Parseval's theorem, in the image instead of its spectrum
        row, column = np.fft.fftfreq(60, 30)[:, np.newaxis], np.fft.fftfreq(81, 30)
        with np.errstate(divide="ignore"):
            period = 1 / np.sqrt(row**2 + column**2)
        kept = (period >= 100) & (period < 300)
        return np.sum(np.abs(np.fft.ifft2(np.fft.fft2(image) * kept)) ** 2)

    image -= image.mean()
    expected = energy(image * mask) / energy(image) - 1
    assert spectrum_change(image, mask, pixel_size=30, periods=(100, 300)) == pytest.approx(
        expected
    )


@pytest.mark.parametrize("n_periods", range(3, 20, 2))
def test_the_first_period_counts_and_the_last_does_not(n_periods):
    image = np.tile(np.cos(2 * np.pi * np.arange(n_periods * 17) / 17), (30, 1))
    mask = np.ones(image.shape, dtype=bool)
    score = [
        spectrum_change(image, mask, pixel_size=0.1, periods=periods)
        for periods in [(1.7, 2.5), (0.8, 1.7)]
    ]
    assert score == [0, pytest.approx(np.nan, nan_ok=True)]


def test_the_unit_and_the_scale_of_intensities_change_nothing():
    image = rings(185) + rings(300)
    mask = LEFT & (ROWS > 100)
    expected = change(image, mask)
    assert spectrum_change(image, mask, pixel_size=0.02, periods=(0.17, 0.2)) == pytest.approx(
        expected
    )
    assert change(1000 * image, mask.astype(np.uint8)) == pytest.approx(expected)


@pytest.mark.parametrize("image", [np.zeros((256, 256)), np.full((256, 256), 1e6 + 0.1)])
def test_an_image_without_any_structure_has_no_score(image):
    assert np.isnan(change(image, LEFT))


def test_wrong_input_of_the_spectrum_raises():
    image = rings(185)
    with pytest.raises(ValueError, match=r"shape of its image, \(256, 256\)\. Got \(256, 255\)"):
        change(image, LEFT[:, 1:])
    with pytest.raises(TypeError, match=r"mask must be bool, or integers 0 and 1\. Got float64"):
        change(image, LEFT.astype(float))
    with pytest.raises(ValueError, match="Input image contains NaN"):
        change(np.where(LEFT, np.nan, image), LEFT)
    with pytest.raises(ValueError, match=r"No frequency of an image .* in the same unit\?"):
        spectrum_change(image, LEFT, pixel_size=0.02)
    with pytest.raises(ValueError, match="pixel_size == 0, must be > 0"):
        spectrum_change(image, LEFT, pixel_size=0)
    with pytest.raises(ValueError, match=r"positive and ascending\. Got \(200, 170\)"):
        change(image, LEFT, periods=(200, 170))
    with pytest.raises(TypeError, match=r"periods must be two numbers\. Got \(170,\)"):
        change(image, LEFT, periods=(170,))


# --- bright pixels --------------------------------------------------------------------------


def lines(brightness, background, seed):
    """Draw a line of 4 px on noise between 0 and `background`; return the image and the line."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((100, 100), dtype=bool)
    mask[48:52] = True
    return np.where(mask, brightness, rng.uniform(0, background, mask.shape)), mask


def test_threshold_of_known_backgrounds():
    # The 25th percentiles of 0..4 and 0..8 are 1 and 2; 90 % of the way between them.
    images = [[[0, 1, 2, 3, 4, 99]], [[99, 99, 0, 2, 4, 6, 8]]]
    masks = [[[0, 0, 0, 0, 0, 1]], [[1, 1, 0, 0, 0, 0, 0]]]
    assert bright_threshold(images, masks) == pytest.approx(1.9)
    assert bright_threshold(images, masks, pixel_percentile=100, image_percentile=0) == 4


def test_images_that_their_masks_cover_teach_nothing():
    covered, one = ([[5.0, 6.0]], [[1, 1]]), ([[1.0, 6.0]], [[0, 1]])
    assert bright_threshold(*zip(covered, one, strict=True)) == 1
    with pytest.raises(ValueError, match="must have pixels outside its mask"):
        bright_threshold([covered[0]], [covered[1]])
    with pytest.raises(ValueError, match="must have pixels outside its mask"):
        bright_threshold([], [])


def test_share_on_lines():
    images, masks = zip(*(lines(10, 4, seed) for seed in range(5)), strict=True)
    threshold = bright_threshold(images, masks)
    assert threshold == pytest.approx(1, abs=0.05)
    image, line = images[0], masks[0]
    assert bright_share(image, line, threshold=threshold) == 1
    # A mask twice as wide: half its pixels are noise, three quarters of which exceed 1 of 4.
    wide = np.zeros_like(line)
    wide[46:54] = True
    assert bright_share(image, wide, threshold=threshold) == pytest.approx(
        0.5 + 0.5 * 0.75, abs=0.03
    )
    assert bright_share(image, wide, threshold=4) == 0.5


def test_share_at_the_threshold_and_of_an_empty_mask():
    assert bright_share([[1, 2, 3, 4]], [[1, 1, 1, 0]], threshold=2) == pytest.approx(1 / 3)
    assert np.isnan(bright_share([[1, 2]], [[0, 0]], threshold=2))


def test_wrong_input_of_the_share_raises():
    with pytest.raises(ValueError, match=r"shape of its image, \(1, 2\)\. Got \(1, 1\)"):
        bright_share([[1, 2]], [[1]], threshold=2)
    with pytest.raises(TypeError, match="threshold must be an instance of"):
        bright_share([[1, 2]], [[1, 0]], threshold="2")
    with pytest.raises(ValueError, match=r"one mask for each of the images, 1\. Got 2"):
        bright_threshold([[[1, 2]]], [[[1, 0]], [[1, 0]]])
    with pytest.raises(ValueError, match="image_percentile == 101, must be <= 100"):
        bright_threshold([[[1, 2]]], [[[1, 0]]], image_percentile=101)

import numpy as np
import pytest
from cases import width_at_a_half
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from sklearn_micranet._guided._ceiling import EDGES, MEANS, WIDTHS, height_below
from sklearn_micranet._guided._intensity import OUTLINE, as_map


def test_mean_and_edge_of_a_blurred_stripe():
    """Against a step of 1 px / 1000, blurred by a sum over a Gaussian in float64."""
    x = np.linspace(-40, 40, 80_001)
    for blur, width in [(0.6, 8.0), (1.5, 3.0), (2.0, 2.0), (3.0, 1.0)]:
        stripe = (np.abs(x) < width / 2).astype(float)
        stripe[np.isclose(np.abs(x), width / 2)] = 0.5
        blurred = ndimage.gaussian_filter1d(stripe, blur * 1000, truncate=8)
        edge = np.interp(width / 2, x, blurred)
        mean = blurred[np.abs(x) < width / 2].mean()
        at = width / (np.sqrt(2) * blur)
        assert np.interp(at, WIDTHS, MEANS) == pytest.approx(mean, abs=1e-3)
        assert np.interp(at, WIDTHS, EDGES) == pytest.approx(edge / mean, abs=2e-3)


@settings(deadline=None, max_examples=25)
@given(
    width=st.integers(2, 6),
    blur_of_width=st.floats(0.2, 0.5),
    contrast=st.floats(0.1, 100),
    offset=st.floats(-50, 50),
)
def test_the_outline_of_a_line_of_known_brightness_is_the_true_one(
    width, blur_of_width, contrast, offset
):
    blur = min(blur_of_width * width, 2)
    line = np.zeros((64, 64))
    line[:, 30 : 30 + width] = 1
    view = offset + contrast * ndimage.gaussian_filter(line, blur)
    start = ndimage.binary_dilation(line > 0, iterations=3)
    height = height_below(contrast, view, start, within=np.ones((64, 64), bool))
    assert width_at_a_half(as_map(height, OUTLINE)[32]) == pytest.approx(width, abs=0.5)


@pytest.mark.parametrize("blur", [0, 1, 2])
@pytest.mark.parametrize(("radius", "dimmed"), [(6, 1), (10, 1), (20, 1), (10, 0.6), (20, 0.6)])
def test_the_outline_of_a_disc_below_the_ceiling_is_the_true_one(radius, blur, dimmed):
    """Also of a dim one, if it is so large that no blur explains that."""
    rows, columns = np.mgrid[:96, :96] - 47.3
    disc = np.clip(radius + 0.5 - np.hypot(rows, columns), 0, 1)
    view = ndimage.gaussian_filter(dimmed * disc, blur)
    start = np.hypot(rows, columns) < 1.5 * radius
    height = height_below(1.0, view, start, within=np.ones(view.shape, bool))
    assert abs(np.sqrt((height > OUTLINE).sum() / np.pi) - radius) < 0.5

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_micranet import IntensityScaler
from sklearn_micranet._fields import _scaling
from sklearn_micranet._fields._scaling import ScaledField, range_of_field


@given(
    method=st.sampled_from(["minmax", "standard", "percentile"]),
    per_channel=st.booleans(),
    invert=st.booleans(),
    channels=st.sampled_from([(), (2,)]),
    dtype=st.sampled_from([np.uint8, np.int16, np.uint16]),
    percentiles=st.sampled_from([(1, 99.8), (0, 50), (33.3, 66.6)]),
)
@settings(deadline=None, max_examples=40)
def test_fields_are_scaled_as_intensity_scaler_scales_images(
    method, per_channel, invert, channels, dtype, percentiles
):
    parameters = {"method": method, "per_channel": per_channel, "invert": invert}
    parameters["percentiles"] = percentiles
    field = np.random.default_rng(0).integers(0, 200, (30, 23, *channels)).astype(dtype)
    if channels:
        field[..., 1] //= 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_scaling, "_SIDE", 8)  # so that there are several squares
        scaled = ScaledField(field, range_of_field(field, **parameters))
    expected = np.asarray(IntensityScaler(**parameters).fit_transform(field[np.newaxis]))[0]
    assert scaled.shape == field.shape
    assert_allclose(scaled[3:20, 5:11], expected[3:20, 5:11], atol=1e-5)


def test_a_constant_field_becomes_zero():
    for method in ("minmax", "standard", "percentile"):
        parameters = {"per_channel": True, "percentiles": (1, 99), "invert": False}
        field = np.full((10, 10), 7, dtype=np.uint8)
        scale = range_of_field(field, method=method, **parameters)
        assert_array_equal(scale(field), 0)


def test_what_cannot_be_scaled():
    parameters = {"per_channel": True, "percentiles": (1, 99), "invert": False}
    with pytest.raises(ValueError, match=r"requires integers of at most 16 bits.* Got float32"):
        range_of_field(np.zeros((9, 9), np.float32), method="percentile", **parameters)
    with pytest.raises(ValueError, match=r"Fields must be finite. Got NaN or infinity"):
        range_of_field(np.full((9, 9), np.nan), method="minmax", **parameters)

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sklearn_micranet._guided._gate import (
    cell_gates,
    enlarge,
    exponents,
    filled_area,
    gates,
    prior,
)


@pytest.mark.parametrize("size", [(16, 24), (15, 17), (8, 8)])
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_enlarging_is_that_of_torch_without_aligned_corners(size, factor):
    shape = [-(-n // factor) for n in size]
    maps = np.random.default_rng(0).random((2, *shape), dtype=np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(maps)[None], scale_factor=factor, mode="bilinear", align_corners=False
    )[0, :, : size[0], : size[1]]
    assert_allclose(enlarge(maps, factor, size), expected, atol=1e-6)


def test_gates_are_shares_of_the_maximum_and_zero_for_a_class_that_is_nowhere_positive():
    scores = np.array([[[-3.0, 1.0], [4.0, 2.0]], [[-1.0, -2.0], [-3.0, -4.0]]])
    assert_allclose(cell_gates(scores), [[[0, 0.25], [1, 0.5]], [[0, 0], [0, 0]]])
    full = gates(scores, (16, 16))
    assert full.shape == (2, 16, 16)
    assert full.dtype == np.float32
    assert full[0, 15, 0] == 1  # beyond the centre of the last cell nothing changes
    assert not full[1].any()


def test_prior_is_zero_for_absent_classes_and_leaves_a_tenth_to_background():
    full = np.full((3, 2, 2), 0.5)
    result = prior(full, np.array([True, True, False]), top=0.9, floor=0.1)
    # 0.9 * 0.5 + 0.1 = 0.55 each, 1.1 together, scaled down to 0.9
    assert_allclose(result[:2], 0.45, rtol=1e-6)
    assert not result[2].any()


def test_prior_with_an_exponent_for_each_class():
    full = np.full((2, 1, 1), 0.25)
    result = prior(full, np.ones(2, bool), top=0.4, floor=0.01, gamma=[2, 0.5])
    assert_allclose(result[:, 0, 0], [0.4 * 0.0625 + 0.01, 0.4 * 0.5 + 0.01], rtol=1e-6)


def test_area_and_exponents():
    assert filled_area(np.array([[0, 0.05], [0.2, 1]])) == 0.5
    assert_allclose(exponents(np.array([0.1, 0.6])), [[2, 0.4], [0.875, 0.25]])
    assert exponents(0.1) == pytest.approx((2, 0.875))
    assert exponents(0.6) == pytest.approx((0.4, 0.25))
    assert exponents(1.0) == pytest.approx((0.15, 0.15))

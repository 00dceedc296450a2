import numpy as np
import pytest

from sklearn_micranet._training._negatives import draw_negatives


@pytest.mark.parametrize(("ratio", "n_drawn"), [(0.5, 2), (1, 3), (2.4, 7), (5, 9), (0.1, 1)])
def test_negatives_are_drawn_for_the_positives(ratio, n_drawn):
    is_positive = np.zeros(12, dtype=bool)
    is_positive[[2, 5, 11]] = True
    draws = []
    for seed in (0, 0, 1):
        positions = draw_negatives(is_positive, ratio, np.random.RandomState(seed).permutation)
        assert (np.diff(positions) > 0).all()
        assert len(positions) == 3 + n_drawn
        assert is_positive[positions].sum() == 3
        draws.append(positions.tolist())
    assert draws[0] == draws[1]
    assert (draws[0] != draws[2]) == (n_drawn < 9)


def test_nothing_is_drawn_where_there_is_no_negative():
    positions = draw_negatives(np.ones(3, dtype=bool), 2, np.random.RandomState(0).permutation)
    assert positions.tolist() == [0, 1, 2]

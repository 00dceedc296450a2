import numpy as np
import pytest
from cases import INSTANCE_CASES, instances

from sklearn_micranet.metrics import count_errors


def test_known_errors():
    # Errors -1, +1, -2 and +1 of 2, 1, 2 and 0 objects.
    cases = [INSTANCE_CASES[name] for name in ("merged", "in parts", "missed", "invented")]
    errors = count_errors([case.true for case in cases], [case.pred for case in cases])
    assert errors.mean_error == pytest.approx(-1 / 4)
    assert errors.mean_absolute_error == pytest.approx(5 / 4)
    assert errors.relative_error == pytest.approx(-1 / 5)
    assert errors.relative_absolute_error == pytest.approx(5 / 5)


def test_maps_do_not_cancel():
    true = np.array([[instances("1.2"), instances("...")]])
    assert true.shape == (1, 2, 1, 3)
    errors = count_errors(true, true[:, ::-1])
    assert errors == (0, 2, 0, 2)


def test_numbers_need_not_be_consecutive():
    assert count_errors([[5, 0, 9]], [[70000, 0, 3]]) == (0, 0, 0, 0)


@pytest.mark.parametrize("nothing", [[], np.zeros((0, 3, 4), int), np.zeros((2, 3, 4), int)])
def test_nothing_to_count(nothing):
    assert count_errors(nothing, nothing) == (0, 0, 0, 0)


def test_nothing_but_invented_objects():
    assert count_errors([[0, 0, 0]], [[1, 0, 2]]) == (2, 2, np.inf, np.inf)


def test_wrong_arrays_raise():
    with pytest.raises(TypeError, match=r"instances_true\[0\] must hold integers.*Got float64"):
        count_errors([[0.5]], [[0]])
    with pytest.raises(ValueError, match=r"as many images as instances_true, 2\. Got 1"):
        count_errors(np.zeros((2, 3, 3), int), np.zeros((1, 3, 3), int))

import sys
from itertools import combinations, permutations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from sklearn_micranet.metrics import bootstrap_mean, compare_groups, randomization_test

THREE_GROUPS = {"a": [1, 2, 3], "b": [2, 3, 4], "c": [5, 6, 7]}


# --- bootstrapped mean ----------------------------------------------------------------------


def test_interval_of_all_possible_draws():
    # Of the 27 draws of 0, 1, 10, one has the sum 0, three 1, ... three 21, one 30: the sums 0 and
    # 1 are the lowest 15 % of them, the sum 0 alone the lowest 4 %.
    mean, low, high = bootstrap_mean([0, 1, 10], confidence_level=0.8, random_state=0)
    assert mean == pytest.approx(11 / 3)
    assert (low, high) == (pytest.approx(1 / 3), pytest.approx(21 / 3))
    _, low, high = bootstrap_mean([0, 1, 10], confidence_level=0.95, random_state=0)
    assert (low, high) == (0, 10)


def test_interval_of_many_scores_is_that_of_the_normal_distribution():
    scores = np.random.default_rng(0).normal(0.8, 0.1, 2000)
    mean, low, high = bootstrap_mean(scores, random_state=0)
    error = scores.std() / np.sqrt(2000)
    assert mean == pytest.approx(scores.mean())
    assert_allclose([low, high], mean + error * np.array([-1.96, 1.96]), atol=0.1 * error)


def test_interval_of_equal_scores_is_the_score():
    assert bootstrap_mean([0.5, 0.5, 0.5], n_resamples=10) == (0.5, 0.5, 0.5)


def test_random_state_decides():
    scores = [0.80, 0.82, 0.81, 0.85, 0.83, 0.7, 0.9]
    results = [bootstrap_mean(scores, n_resamples=50, random_state=seed) for seed in (0, 0, 1)]
    assert results[0] == results[1]
    assert results[0] != results[2]


# --- randomisation test ---------------------------------------------------------------------


def test_known_p_values():
    # Only the groups as they are and swapped differ as much, of 20 splits.
    assert randomization_test([1, 2, 3], [4, 5, 6]) == (-3, pytest.approx(2 / 20))
    # The difference is 0, which every split reaches.
    assert randomization_test([1, 4], [2, 3]) == (0, 1)
    # Also where sums of 1.9 differ by rounding.
    difference, pvalue = randomization_test([0.9, 0.1, 0.9], [0.2, 0.8, 0.9])
    assert (difference, pvalue) == (pytest.approx(0), 1)
    # Of all ten pairs, 8 and 9 have the mean farthest from that of the others.
    assert randomization_test([8, 9], [1, 2, 3]) == (6.5, pytest.approx(1 / 10))
    assert randomization_test([0.3, 0.3], [0.3, 0.3, 0.3]) == (0, 1)


@pytest.mark.parametrize(("n_a", "n_b"), [(2, 5), (4, 4), (3, 2)])
def test_p_value_is_the_share_of_all_splits(n_a, n_b):
    scores = np.random.default_rng(0).normal(size=n_a + n_b)
    difference = scores[:n_a].mean() - scores[n_a:].mean()
    as_extreme = []
    for chosen in combinations(range(n_a + n_b), n_a):
        a, b = scores[list(chosen)], np.delete(scores, chosen)
        as_extreme.append(abs(a.mean() - b.mean()) >= abs(difference) - 1e-12)
    test = randomization_test(scores[:n_a], scores[n_a:])
    assert test == (pytest.approx(difference), pytest.approx(np.mean(as_extreme)))


def test_p_value_of_random_splits_is_that_of_scipy():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0, 1, 15), rng.normal(0.6, 1, 12)
    expected = stats.permutation_test(
        (a, b),
        lambda a, b: abs(a.mean() - b.mean()),
        alternative="greater",
        n_resamples=2000,
        rng=5,
    )
    # Two shares of 2,000 and 10,000 random splits: five standard errors apart at most.
    error = 5 * np.sqrt(expected.pvalue / 2000)
    assert randomization_test(a, b, random_state=0).pvalue == pytest.approx(
        expected.pvalue, abs=error
    )
    assert randomization_test(b, a, random_state=0).pvalue == pytest.approx(
        expected.pvalue, abs=error
    )


def test_p_values_are_uniform_if_nothing_differs():
    rng = np.random.default_rng(0)
    pvalues = [
        randomization_test(*rng.normal(size=(2, 8)), n_resamples=199, random_state=i).pvalue
        for i in range(300)
    ]
    assert stats.kstest(pvalues, "uniform").pvalue > 0.05
    assert np.mean(np.array(pvalues) <= 0.05) < 0.1


# --- several groups -------------------------------------------------------------------------


def test_known_comparison():
    # Means 2, 3, 6 around 11 / 3: 3 (25 + 4 + 49) / 9 / 2 = 13 between groups, 6 / 6 within.
    comparison = compare_groups(THREE_GROUPS, random_state=0)
    assert comparison.f_statistic == pytest.approx(13)
    assert comparison.f_statistic == pytest.approx(stats.f_oneway(*THREE_GROUPS.values()).statistic)
    assert comparison.groups["group"].tolist() == ["a", "b", "c"]
    assert comparison.groups["n_scores"].tolist() == [3, 3, 3]
    assert_allclose(comparison.groups["mean"], [2, 3, 6])
    assert_allclose(comparison.groups["low"], [1, 2, 5], atol=1 / 3)
    assert comparison.pairs["group_a"].tolist() == ["a", "a", "b"]
    assert comparison.pairs["group_b"].tolist() == ["b", "c", "c"]
    assert_allclose(comparison.pairs["difference"], [-1, -4, -3])
    expected = [
        randomization_test(THREE_GROUPS[a], THREE_GROUPS[b]).pvalue
        for a, b in [("a", "b"), ("a", "c"), ("b", "c")]
    ]
    assert_allclose(comparison.pairs["pvalue"], expected)


def test_exact_p_value_of_three_groups():
    # Of the 90 splits into pairs, only the six orders of these have means as far apart.
    assert compare_groups({"a": [0, 1], "b": [10, 11], "c": [20, 21]}).pvalue == pytest.approx(
        6 / 90
    )


def test_p_value_of_f_is_the_share_of_all_splits():
    scores = np.random.default_rng(3).normal(size=7)
    sizes = [2, 2, 3]

    def f(order):
        return stats.f_oneway(*np.split(scores[list(order)], np.cumsum(sizes)[:-1])).statistic

    observed = f(range(7))
    orders = {
        tuple(map(frozenset, (order[:2], order[2:4], order[4:]))): order
        for order in permutations(range(7))
    }
    expected = np.mean([f(order) >= observed * (1 - 1e-9) for order in orders.values()])
    comparison = compare_groups(dict(enumerate(np.split(scores, [2, 4]))))
    assert 0.05 < expected < 0.95  # premise
    assert comparison.pvalue == pytest.approx(expected)
    assert comparison.f_statistic == pytest.approx(observed)


def test_two_groups_are_compared_as_by_the_difference_of_their_means():
    groups = {"a": [0.1, 0.5, 0.4, 0.3], "b": [0.4, 0.7, 0.6, 0.35, 0.8]}
    comparison = compare_groups(groups, n_resamples=1000)
    assert comparison.pvalue == pytest.approx(comparison.pairs["pvalue"][0])
    assert comparison.pvalue == pytest.approx(randomization_test(groups["a"], groups["b"]).pvalue)


def test_p_values_of_f_are_uniform_if_nothing_differs():
    rng = np.random.default_rng(0)
    pvalues = [
        compare_groups(
            dict(enumerate(rng.normal(size=(3, 5)))), n_resamples=199, random_state=i
        ).pvalue
        for i in range(150)
    ]
    assert stats.kstest(pvalues, "uniform").pvalue > 0.05


def test_a_difference_is_found():
    rng = np.random.default_rng(0)
    groups = {"a": rng.normal(0, 1, 10), "b": rng.normal(0, 1, 10), "c": rng.normal(3, 1, 10)}
    comparison = compare_groups(groups, random_state=0)
    assert comparison.pvalue == pytest.approx(1 / 10_001)  # no random split is as extreme
    assert_array_equal(comparison.pairs["pvalue"] < 0.01, [False, True, True])


def test_groups_without_any_difference():
    comparison = compare_groups({"a": [0.1, 0.1, 0.1], "b": [0.1, 0.1]})
    assert np.isnan(comparison.f_statistic)
    assert comparison.pvalue == 1
    comparison = compare_groups({"a": [0.1, 0.1, 0.1], "b": [0.3, 0.3]})
    assert comparison.f_statistic == np.inf
    assert comparison.pvalue == pytest.approx(1 / 10)


def test_a_table_is_a_dict_of_its_columns():
    table = pd.DataFrame(THREE_GROUPS)
    expected = compare_groups(THREE_GROUPS, n_resamples=100, random_state=0)
    comparison = compare_groups(table, n_resamples=100, random_state=0)
    pd.testing.assert_frame_equal(comparison.groups, expected.groups)
    pd.testing.assert_frame_equal(comparison.pairs, expected.pairs)
    assert comparison.pvalue == expected.pvalue


def test_without_pandas_tables_are_dicts_of_arrays(monkeypatch):
    expected = compare_groups(THREE_GROUPS, n_resamples=100, random_state=0)
    monkeypatch.setitem(sys.modules, "pandas", None)
    comparison = compare_groups(THREE_GROUPS, n_resamples=100, random_state=0)
    assert isinstance(comparison.pairs, dict)
    assert list(comparison.pairs) == list(expected.pairs.columns)
    for name, values in comparison.groups.items():
        assert_array_equal(values, expected.groups[name])


# --- errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize("scores", [[], [0.5], [[0.5, 0.6]]])
def test_too_few_scores_raise(scores):
    with pytest.raises(ValueError, match=r"at least two scores\. Got the shape"):
        bootstrap_mean(scores)
    with pytest.raises(ValueError, match=r"scores\['b'\] must be a sequence of at least two"):
        compare_groups({"a": [1, 2], "b": scores})


def test_groups_that_cannot_be_split_raise():
    with pytest.raises(ValueError, match=r"scores_b must be a sequence of at least two scores"):
        randomization_test([1, 2], [3])
    with pytest.raises(ValueError, match=r"at least two groups\. Got 1"):
        compare_groups({"a": [1, 2]})
    with pytest.raises(TypeError, match=r"dict of .*Got list instead"):
        compare_groups([[1, 2], [3, 4]])


def test_scores_that_are_not_finite_raise():
    with pytest.raises(ValueError, match="Input scores_a contains NaN"):
        randomization_test([np.nan, 1], [1, 2])
    with pytest.raises(ValueError, match=r"Input scores\['b'\] contains NaN"):
        compare_groups(pd.DataFrame({"a": [1, 2, 3], "b": [1, 2, np.nan]}))
    with pytest.raises(ValueError, match="Input scores contains infinity"):
        bootstrap_mean([1, np.inf])


def test_wrong_parameters_raise():
    with pytest.raises(ValueError, match=r"confidence_level == 1\.0, must be < 1"):
        bootstrap_mean([1, 2], confidence_level=1.0)
    with pytest.raises(ValueError, match="n_resamples == 0, must be >= 1"):
        randomization_test([1, 2], [1, 2], n_resamples=0)
    with pytest.raises(TypeError, match="n_resamples must be an instance of int"):
        compare_groups(THREE_GROUPS, n_resamples=10.5)

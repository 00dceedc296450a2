import numpy as np
import pytest

from sklearn_micranet._labels._splits import check_groups, split_off_validation


def split(indicator, fraction, seed=0):
    indicator = np.asarray(indicator, dtype=bool)
    train, valid = split_off_validation(indicator, fraction, np.random.RandomState(seed))
    np.testing.assert_array_equal(np.sort(np.r_[train, valid]), np.arange(len(indicator)))
    assert (np.diff(train) > 0).all()
    assert (np.diff(valid) > 0).all()
    return train, valid


def one_of(*counts):
    """Indicator of mutually exclusive classes with so many samples each."""
    return np.eye(len(counts), dtype=bool).repeat(counts, axis=0)


@pytest.mark.parametrize(
    ("counts", "fraction", "expected"),
    [
        ([10, 90], 0.1, [1, 9]),
        ([200, 30, 20], 0.2, [40, 6, 4]),
        ([4, 4], 0.5, [2, 2]),
        ([100, 1], 0.1, [10, 0]),  # a single sample is for training
        ([100, 1], 0.6, [60, 0]),
        ([3, 30], 0.9, [2, 28]),
    ],
)
def test_each_class_gives_its_share(counts, fraction, expected):
    indicator = one_of(*counts)
    for seed in range(5):
        _, valid = split(indicator, fraction, seed)
        assert indicator[valid].sum(axis=0).tolist() == expected


@pytest.mark.parametrize(("n_classes", "n_each"), [(20, 5), (16, 6), (50, 2)])
def test_shares_of_many_small_classes_add_up(n_classes, n_each):
    indicator = one_of(*[n_each] * n_classes)
    _, valid = split(indicator, 0.1)
    assert len(valid) == pytest.approx(0.1 * n_classes * n_each, abs=1)
    assert indicator[valid].sum(axis=0).max() == 1


def test_rare_labels_of_multilabel_images_are_in_both_parts():
    rng = np.random.default_rng(0)
    for seed in range(20):
        indicator = rng.random((300, 4)) < [0.02, 0.05, 0.4, 0.9]
        indicator[:5, 0] = True
        train, valid = split(indicator, 0.2, seed)
        assert len(valid) == pytest.approx(60, abs=6)
        shares = indicator[valid].sum(axis=0) / indicator.sum(axis=0)
        assert abs(shares[2:] - 0.2).max() < 0.05
        assert indicator[valid].any(axis=0).all()
        assert indicator[train].any(axis=0).all()


def test_images_without_any_label_give_their_share():
    indicator = np.zeros((100, 2), dtype=bool)
    indicator[:10, 0] = indicator[10:30, 1] = True
    _, valid = split(indicator, 0.1)
    assert len(valid) == 10
    assert indicator[valid].sum(axis=0).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("counts", "fraction"), [([50, 50], 0.0), ([2, 2], 0.1), ([1, 1], 0.5), ([2, 1], 0.8)]
)
def test_no_validation_images_where_there_are_too_few(counts, fraction):
    _, valid = split(one_of(*counts), fraction)
    assert len(valid) == 0


def test_the_random_state_decides_which_images():
    indicator = one_of(30, 30)
    first, again, other = (split(indicator, 0.2, seed)[1] for seed in (0, 0, 1))
    assert first.tolist() == again.tolist() != other.tolist()


@pytest.mark.parametrize("n_groups", [4, 20])
def test_groups_stay_together(n_groups):
    indicator = one_of(100, 100)
    groups = np.random.default_rng(0).permutation(200) % n_groups
    train, valid = split_off_validation(indicator, 0.25, np.random.RandomState(0), groups)
    assert not set(groups[train]) & set(groups[valid])
    assert len(set(groups[valid])) == n_groups // 4
    assert sorted([*train, *valid]) == list(range(200))


def test_groups_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"each of the 3 images. Got the shape \(2,\)"):
        check_groups([0, 1], 3)
    assert check_groups(None, 3) is None


@pytest.mark.parametrize("missing", [None, np.nan])
def test_groups_must_be_known(missing):
    with pytest.raises(ValueError, match="Got None, NaN or NA instead: give images"):
        check_groups(np.array(["a", "b", missing], dtype=object), 3)

import numpy as np
import pytest
import torch
from scipy.special import log_expit, log_softmax
from sklearn.model_selection import KFold, cross_validate
from sklearn.utils import compute_class_weight
from torch.nn import functional as F

from sklearn_micranet import MicraNetClassifier
from sklearn_micranet._labels._targets import Targets
from sklearn_micranet._training._loss import WeightedLoss, class_weights

LABELS = {
    "binary": np.array(["no", "no", "no", "yes"]),
    "multiclass": np.array([30, 10, 10, 20, 10, 20]),
    "multilabel": np.array([[1, 0, 0], [1, 0, 1], [1, 0, 0], [1, 0, 0]]),
}
# "balanced" is n / (number of labels * images with the label), here written out.
WEIGHTS = [
    ("binary", None, [[1], [1]]),
    ("binary", {}, [[1], [1]]),
    ("binary", {"yes": 7}, [[1], [7]]),
    ("binary", {"no": 0.5, "yes": 0}, [[0.5], [0]]),
    ("binary", "balanced", [[4 / (2 * 3)], [4 / (2 * 1)]]),
    ("multiclass", None, [1, 1, 1]),
    ("multiclass", {20: 7, 10: 3}, [3, 7, 1]),
    ("multiclass", "balanced", [6 / (3 * 3), 6 / (3 * 2), 6 / (3 * 1)]),
    ("multilabel", None, [[1, 1, 1], [1, 1, 1]]),
    ("multilabel", {0: 3, 2: 7}, [[1, 1, 1], [3, 1, 7]]),  # a dict is for where they are present
    ("multilabel", [{0: 2, 1: 3}, {}, {0: 5}], [[2, 1, 5], [3, 1, 1]]),
    # A class in all images, or in none, has nothing to be balanced with.
    ("multilabel", "balanced", [[1, 1, 4 / (2 * 3)], [1, 1, 4 / (2 * 1)]]),
    ("multilabel", [{1: 9}, {}, "balanced"], [[1, 1, 4 / (2 * 3)], [9, 1, 4 / (2 * 1)]]),
]


@pytest.mark.parametrize(("kind", "class_weight", "expected"), WEIGHTS)
def test_class_weights_by_hand(kind, class_weight, expected):
    y = LABELS[kind]
    weights = class_weights(class_weight, Targets.of(y), y)
    assert weights.dtype == np.float64
    np.testing.assert_allclose(weights, expected)


@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_balanced_weights_are_scikit_learn_s(n_classes):
    y = np.repeat(np.arange(n_classes) * 10, np.arange(n_classes) + 3)
    expected = compute_class_weight("balanced", classes=np.unique(y), y=y)
    assert len(set(expected)) == n_classes  # otherwise their order would not be tested
    np.testing.assert_array_equal(class_weights("balanced", Targets.of(y), y).ravel(), expected)


def test_balanced_weights_of_each_label_are_scikit_learn_s():
    y = np.random.default_rng(0).random((40, 3)) < [0.1, 0.4, 0.8]
    weights = class_weights("balanced", Targets.of(y), y)
    for column, of_column in zip(weights.T, y.T, strict=True):
        expected = compute_class_weight("balanced", classes=np.array([0, 1]), y=of_column)
        np.testing.assert_array_equal(column, expected)


def test_a_class_without_images_keeps_weight_1():
    targets = Targets.of(LABELS["multiclass"])
    np.testing.assert_allclose(
        class_weights("balanced", targets, np.array([10, 30, 10])), [3 / 4, 1, 3 / 2]
    )


@pytest.mark.parametrize(
    ("kind", "class_weight", "match"),
    [
        ("binary", [{0: 1, 1: 2}], r"classes are \['no', 'yes'\]. Got \[\{0: 1, 1: 2\}\] instead"),
        ("multiclass", [1, 2, 3], r"must be a dict .* Got \[1, 2, 3\] instead"),
        ("multilabel", {3: 2}, r"keys among \[0, 1, 2\]. Got \[3\] instead"),
        ("multilabel", [{1: 2}], r"one dict per class, 3. Got 1 instead"),
        ("multilabel", [{1: 2}] * 4, r"one dict per class, 3. Got 4 instead"),
        ("multilabel", [{}, {2: 1}, {}], r"keys among \[0, 1\]. Got \[2\] instead"),
        ("multilabel", [1.0, 2.0, 3.0], r"one dict per class.* Got 1.0 instead"),
        ("multilabel", ["balanced", "equal", {}], r"one dict per class.* Got 'equal' instead"),
        ("binary", {"no": -1}, r"finite weights >= 0. Got \{'no': -1\} instead"),
        ("multiclass", {10: np.nan}, r"finite weights >= 0. Got \{10: nan\} instead"),
        ("multilabel", {0: np.inf}, r"finite weights >= 0. Got \{0: inf\} instead"),
        ("multilabel", [{}, {1: -2}, {}], r"finite weights >= 0. Got \{1: -2\} instead"),
        ("binary", {"no": "two"}, r"finite weights >= 0. Got \{'no': 'two'\} instead"),
    ],
)
def test_class_weights_that_do_not_fit_are_refused(kind, class_weight, match):
    y = LABELS[kind]
    with pytest.raises(ValueError, match=match):
        class_weights(class_weight, Targets.of(y), y)


@pytest.mark.parametrize("class_weight", [{10: 1, 20: 3, 30: 5}, {30: 5, 20: 3, 10: 1, 40: 7}])
def test_a_fold_may_lack_a_class_that_has_a_weight(class_weight, recwarn):
    y = np.array([10, 20, 10, 20])
    assert 40 not in y
    assert class_weights(class_weight, Targets.of(y), y).tolist() == [[1], [3]]
    assert not recwarn.list  # as in scikit-learn


def test_a_label_that_may_be_misspelt_is_named_in_a_warning():
    y = LABELS["binary"]
    with pytest.warns(UserWarning, match=r"\['maybe'\].* no image has, and leaves \['no'\] at 1"):
        weights = class_weights({"maybe": 2, "yes": 3}, Targets.of(y), y)
    assert weights.tolist() == [[1], [3]]


@pytest.mark.parametrize("class_weight", [{"a": 1, "b": 2, "rare": 3}, {"rare": 3}])
@pytest.mark.filterwarnings("ignore:class_weight names", "ignore:The network predicts hardly")
def test_cross_validation_with_a_rare_class(class_weight):
    X, _ = images_and_labels("binary")
    y = np.array(["a", "b"])[np.arange(len(X)) % 2].astype(object)
    y[-2:] = "rare"  # all in the last fold
    classifier = MicraNetClassifier(
        n_filters=1, max_epochs=1, class_weight=class_weight, random_state=0
    )
    fitted = cross_validate(
        classifier, X, y, cv=KFold(2), return_estimator=True, error_score="raise"
    )["estimator"]
    assert [len(of_fold.classes_) for of_fold in fitted] == [3, 2]
    assert fitted[0].loss_weights_[2] == 3


# --- weights of images -----------------------------------------------------------------------


# --- the loss --------------------------------------------------------------------------------

LOGITS = np.array([[0.3, -2, 5], [1, 0, -0.5], [-30, 40, 0.1], [2, -1, 1]])
PRESENT = np.array([[1, 0, 1], [0, 0, 1], [1, 1, 0], [0, 1, 0]])
CLASSES = np.array([2, 0, 1, 1])
PER_OUTPUT = np.array([[0.5, 1, 2], [4, 1, 0.25]])  # absent, present
PER_CLASS = np.array([0.5, 1, 4])
OF_IMAGES = np.array([0.4, 2, 1.1, 0.5])


def float32(array):
    return torch.tensor(array, dtype=torch.float32)


@pytest.mark.parametrize("of_images", [None, OF_IMAGES])
def test_binary_cross_entropy_by_hand(of_images):
    # In float64: -log p where present, -log(1 - p) where absent.
    losses = np.where(
        PRESENT, -PER_OUTPUT[1] * log_expit(LOGITS), -PER_OUTPUT[0] * log_expit(-LOGITS)
    )
    expected = np.mean(losses * (1 if of_images is None else of_images[:, None]))
    y = float32(PRESENT) if of_images is None else [float32(PRESENT), float32(of_images)]
    loss = WeightedLoss(False, PER_OUTPUT)(float32(LOGITS), y)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("of_images", [None, OF_IMAGES])
def test_categorical_cross_entropy_by_hand(of_images):
    losses = -log_softmax(LOGITS, axis=1)[range(4), CLASSES] * PER_CLASS[CLASSES]
    expected = np.mean(losses * (1 if of_images is None else of_images))
    classes = torch.from_numpy(CLASSES)
    y = classes if of_images is None else (classes, float32(of_images))
    loss = WeightedLoss(True, PER_CLASS)(float32(LOGITS), y)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("weights", [PER_OUTPUT, np.ones((2, 3))])
def test_binary_cross_entropy_is_torch_s(weights):
    # torch has one weight for both, and a factor for where a class is present.
    absent, present = float32(weights)
    expected = F.binary_cross_entropy_with_logits(
        float32(LOGITS), float32(PRESENT), weight=absent, pos_weight=present / absent
    )
    loss = WeightedLoss(False, weights)(float32(LOGITS), float32(PRESENT))
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("weights", [PER_CLASS, np.ones(3)])
def test_categorical_cross_entropy_is_torch_s(weights):
    # torch's own mean would divide by the weights of the batch.
    logits, classes = float32(LOGITS), torch.from_numpy(CLASSES)
    expected = F.cross_entropy(logits, classes, weight=float32(weights), reduction="sum") / 4
    torch.testing.assert_close(WeightedLoss(True, weights)(logits, classes), expected)


@pytest.mark.parametrize(("exclusive", "weights"), [(False, PER_OUTPUT), (True, PER_CLASS)])
def test_extreme_logits_have_finite_losses_and_gradients(exclusive, weights):
    logits = torch.tensor([[1e4, -1e4, 0], [-1e4, 1e4, 1e4]], requires_grad=True)
    y = torch.tensor([1, 0]) if exclusive else torch.tensor([[0.0, 1, 0], [1, 0, 1]])
    loss = WeightedLoss(exclusive, weights)(logits, y)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


# --- class_weight in the classifier ----------------------------------------------------------


def images_and_labels(kind):
    """Make images whose brightness tells the labels with errors; the second is the rarest."""
    rng = np.random.default_rng(0)
    indicator = rng.random((60, 2)) < [0.5, 0.25]
    signal = indicator @ [1.0, 0.5]
    X = rng.normal(0, 0.3, (60, 8, 8)) + (signal + rng.normal(0, 0.5, 60))[:, None, None]
    if kind == "multilabel":
        return X, indicator.astype(int)
    return X, indicator[:, 1].astype(int) if kind == "binary" else indicator @ [1, 1]


def predict(kind, class_weight):
    X, y = images_and_labels(kind)
    classifier = MicraNetClassifier(
        n_filters=2,
        lr=1e-2,
        batch_size=16,
        max_epochs=12,
        validation_fraction=0,
        class_weight=class_weight,
        random_state=0,
    )
    return classifier.fit(X, y).predict(X)


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_a_heavy_class_is_predicted_more_often(kind):
    _, y = images_and_labels(kind)
    light, heavy = ((predict(kind, {1: w})[y == 1] == 1).mean() for w in (1 / 30, 30))
    assert light < 0.2 < 0.8 < heavy  # recalls


def test_each_label_has_its_own_weight():
    first = predict("multilabel", {0: 30, 1: 1 / 30}).mean(axis=0)
    second = predict("multilabel", [{1: 1 / 30}, {0: 1 / 30}]).mean(axis=0)
    assert first[0] > 0.8 > 0.2 > second[0]
    assert first[1] < 0.2 < 0.8 < second[1]


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
def test_balanced_is_the_dict_of_balanced_weights(kind):
    def logits(class_weight):
        classifier = MicraNetClassifier(
            n_filters=2, max_epochs=2, class_weight=class_weight, random_state=0
        )
        return classifier.fit(X, y).decision_function(X)

    X, y = images_and_labels(kind)
    columns = y.T if kind == "multilabel" else [y]
    balanced = [
        dict(enumerate(compute_class_weight("balanced", classes=np.unique(column), y=column)))
        for column in columns
    ]
    expected = logits(balanced if kind == "multilabel" else balanced[0])
    np.testing.assert_array_equal(logits("balanced"), expected)
    assert (logits(None) != expected).any()


def test_wrong_class_weights_are_refused_by_the_classifier():
    X, y = images_and_labels("binary")
    for method in ("fit", "partial_fit"):
        classifier = MicraNetClassifier(class_weight={1: -1})
        with pytest.raises(ValueError, match=r"finite weights >= 0. Got \{1: -1\}"):
            getattr(classifier, method)(X, y, **({"classes": [0, 1]} if "_" in method else {}))
    with pytest.raises(ValueError, match=r"in partial_fit. Got \"balanced\" instead"):
        MicraNetClassifier(class_weight="balanced").partial_fit(X, y, classes=[0, 1])


def test_partial_fit_weighs_the_classes():
    def logits(class_weight):
        classifier = MicraNetClassifier(n_filters=1, class_weight=class_weight, random_state=0)
        return classifier.partial_fit(X, y, classes=[0, 1]).decision_function(X)

    X, y = images_and_labels("binary")
    np.testing.assert_array_equal(logits({1: 1.0}), logits(None))
    assert (logits({1: 9.0}) != logits(None)).any()

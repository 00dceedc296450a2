"""What runs on a GPU gives what the CPU gives. Convolutions there round to 10 bits (TF32)."""

import os
import pickle
import subprocess
import sys

import joblib
import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from skorch.callbacks import Callback

from sklearn_micranet import GradCAMFeatureTransformer, MicraNetClassifier
from sklearn_micranet._training._batches import BatchIterator
from sklearn_micranet._training._data import LabelledImages

pytestmark = pytest.mark.gpu

N = 48
RNG = np.random.default_rng(0)
Y = np.arange(N) % 2
X = RNG.normal(0, 0.3, (N, 24, 20)).astype(np.float32)
X[Y == 1, 6:12, 5:11] += 2


def small(**parameters):
    defaults = {"n_filters": 4, "batch_size": 8, "max_epochs": 3, "dropout": 0, "random_state": 0}
    return MicraNetClassifier(**(defaults | parameters))


def on_each_device(tmp_path, **parameters):
    """Return the same trained network on the CPU and on the GPU."""
    trained = small(device="cpu", max_epochs=10, lr=1e-2).fit(X, Y)
    trained.save_weights(tmp_path / "weights.pt")
    return [
        small(device=device, **parameters).load_weights(tmp_path / "weights.pt")
        for device in ("cpu", "auto")
    ]


def local_maps(classifier, **parameters):
    transformer = GradCAMFeatureTransformer(FrozenEstimator(classifier), **parameters)
    return np.asarray(transformer.fit(X).transform(X))


def test_auto_is_the_gpu():
    classifier = small().fit(X, Y)
    assert {parameter.device.type for parameter in classifier.module_.parameters()} == {"cuda"}
    classifier.partial_fit(X, Y)
    assert {parameter.device.type for parameter in classifier.module_.parameters()} == {"cuda"}


def test_training_is_close_to_that_of_the_cpu():
    cpu, gpu = (small(device=d, precision="float32").fit(X, Y) for d in ("cpu", "cuda"))
    np.testing.assert_allclose(gpu.predict_proba(X), cpu.predict_proba(X), atol=0.1)
    np.testing.assert_allclose(
        gpu.history_[:, "train_loss"], cpu.history_[:, "train_loss"], atol=0.05
    )


def test_prediction_is_close_to_that_of_the_cpu(tmp_path):
    cpu, gpu = on_each_device(tmp_path, precision="float32")
    expected = cpu.decision_function(X)
    logits = gpu.decision_function(X)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, atol=0.01 * abs(expected).max())


def test_auto_is_bfloat16_where_it_is_supported(tmp_path):
    _, gpu = on_each_device(tmp_path)
    logits = {}
    for precision in ("auto", "bfloat16", "float32"):
        gpu.module_.precision = precision
        logits[precision] = gpu.decision_function(X)
        assert logits[precision].dtype == np.float32
    same = "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    np.testing.assert_array_equal(logits["auto"], logits[same])
    assert (logits["bfloat16"] != logits["float32"]).any()
    scale = abs(logits["float32"]).max()
    np.testing.assert_allclose(logits["bfloat16"], logits["float32"], atol=0.1 * scale)


def test_training_in_bfloat16_learns_the_same():
    classifier = small(precision="bfloat16", max_epochs=15, lr=1e-2).fit(X, Y)
    assert {parameter.dtype for parameter in classifier.module_.parameters()} == {torch.float32}
    assert classifier.score(X, Y) > 0.9


def test_training_does_not_change_the_generator_of_the_gpu():
    before = torch.cuda.get_rng_state()
    small(dropout=0.5, augmentation="microscopy").fit(X, Y)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_weights_classes_and_augmentation_work_together():
    classifier = small(class_weight="balanced", augmentation="microscopy", dropout=0.5)
    classifier.fit(X, Y, sample_weight=1 + np.arange(N) % 3, X_val=X[:8], y_val=Y[:8])
    assert np.isfinite(classifier.history_[:, "valid_loss"]).all()


@pytest.mark.parametrize("weights", [None, torch.arange(N) / N])
def test_prefetched_batches_are_those_of_the_cpu(weights):
    data = LabelledImages(X, torch.from_numpy(Y), None, weights)
    batches = {}
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        iterator = BatchIterator(data, 10, shuffle=True, device=torch.device(device))
        batches[device] = list(iterator)
    assert len(batches["cuda"]) == len(batches["cpu"]) == 5
    for (images, y), (other, others) in zip(batches["cuda"], batches["cpu"], strict=True):
        assert images.is_cuda
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(images.cpu(), other)
        if weights is None:
            assert torch.equal(y.cpu(), others)
        else:
            assert all(torch.equal(a.cpu(), b) for a, b in zip(y, others, strict=True))


def test_wrong_values_in_a_prefetched_batch_are_an_error():
    data = LabelledImages(
        np.where(np.arange(N)[:, None, None] == 40, np.inf, X), torch.zeros(N), None
    )
    batches = iter(BatchIterator(data, 8, device=torch.device("cuda")))
    for _ in range(5):
        next(batches)
    with pytest.raises(ValueError, match="Images must be finite"):
        next(batches)


def test_augmentation_runs_on_the_gpu():
    devices = set()

    def note(images):
        devices.add(images.device.type)
        return images

    small(augmentation=note).fit(X, Y)
    assert devices == {"cuda"}


def test_ctrl_c_ends_the_prefetching():
    class CtrlC(Callback):
        def on_batch_end(self, net, **kwargs):
            raise KeyboardInterrupt("Ctrl-C")

    classifier = small(callbacks=[CtrlC()])
    with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
        classifier.fit(X, Y)
    assert np.isfinite(classifier.predict_proba(X)).all()


def test_local_maps_are_close_to_those_of_the_cpu(tmp_path):
    cpu, gpu = (local_maps(c) for c in on_each_device(tmp_path, threshold=0))
    assert gpu.dtype == np.float32
    for layer in range(8):
        expected = cpu[:, :, layer]
        assert expected.any()
        difference = abs(gpu[:, :, layer] - expected)
        # A maximum that is nearly a tie may move by a pixel: that is for the maximum to allow.
        assert np.median(difference) < 0.01 * abs(expected).max()
        assert difference.max() < 0.1 * abs(expected).max()


@pytest.mark.parametrize("first", ["cpu", "gpu"])
def test_kept_local_maps_are_read_on_another_device(first, tmp_path):
    classifiers = on_each_device(tmp_path, threshold=0)
    writer, reader = classifiers if first == "cpu" else classifiers[::-1]
    memory = str(tmp_path / "maps")
    expected = local_maps(writer, memory=memory)
    assert expected.any()
    np.testing.assert_allclose(local_maps(reader, memory=memory), expected, atol=1e-6)
    kept = [joblib.load(path) for path in (tmp_path / "maps").rglob("output.pkl")]
    assert len(kept) == N
    assert {t.device.type for pairs, maps in kept for t in (pairs, *maps)} == {"cpu"}


UNPICKLE = """
import pickle, sys
import numpy as np
import torch

assert not torch.cuda.is_available()
folder = sys.argv[1]
X, y = np.load(folder + "/X.npy"), np.load(folder + "/y.npy")
with open(folder + "/classifier.pkl", "rb") as file:
    classifier = pickle.load(file)
np.save(folder + "/probabilities.npy", classifier.predict_proba(X))
classifier.partial_fit(X, y)
assert {p.device.type for p in classifier.module_.parameters()} == {"cpu"}
assert np.isfinite(classifier.predict_proba(X)).all()
"""


def test_what_a_gpu_trained_is_unpickled_without_one(tmp_path):
    classifier = small(precision="float32", augmentation="flip").fit(X, Y)
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", Y)
    (tmp_path / "classifier.pkl").write_bytes(pickle.dumps(classifier))
    subprocess.run(
        [sys.executable, "-c", UNPICKLE, str(tmp_path)],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        check=True,
    )
    probabilities = np.load(tmp_path / "probabilities.npy")
    np.testing.assert_allclose(probabilities, classifier.predict_proba(X), atol=0.01)

import io
import os

import numpy as np
import pytest

from sklearn_micranet._stack._lazy_stack import LazyStack
from sklearn_micranet.datasets import _fetch_mnist, _registry
from sklearn_micranet.datasets._fetch_mnist import fetch_mnist, fetch_modified_mnist


def bars(n_samples, n_rows):
    """Return images of a bright bar of `n_rows` rows, each image a little different."""
    images = np.zeros((n_samples, 28, 28), np.uint8)
    images[:, 6 : 6 + n_rows, 4:24] = 200 + np.arange(n_samples)[:, None, None]
    return images


# Training digits are 1, those of the last sixth 2, test digits 3: a canvas tells its source.
ARRAYS = {
    "x_train": bars(12, 8),
    "y_train": np.repeat([1, 2], [10, 2]).astype(np.uint8),
    "x_test": bars(3, 16),
    "y_test": np.full(3, 3, np.uint8),
}
DIGITS = {"train": 1, "validation": 2, "test": 3}


@pytest.fixture(autouse=True)
def published(server, monkeypatch):
    buffer = io.BytesIO()
    np.savez(buffer, **ARRAYS)
    remote = server.publish(_registry.MNIST, buffer.getvalue())
    monkeypatch.setattr(_registry, "MNIST", remote)
    n_canvases = {"train": 4, "validation": 3, "test": 2}
    monkeypatch.setattr(_fetch_mnist, "_N_CANVASES", n_canvases)
    return remote


@pytest.mark.parametrize("subset", ["train", "test"])
def test_mnist(data_home, subset):
    bunch = fetch_mnist(subset=subset, data_home=data_home)
    np.testing.assert_array_equal(bunch.images, ARRAYS[f"x_{subset}"], strict=True)
    np.testing.assert_array_equal(bunch.target, ARRAYS[f"y_{subset}"].astype(np.int64), strict=True)
    assert "CC BY-SA 3.0" in bunch.DESCR
    images, target = fetch_mnist(subset=subset, data_home=data_home, return_X_y=True)
    np.testing.assert_array_equal(images, bunch.images)
    np.testing.assert_array_equal(target, bunch.target)


def test_mnist_is_downloaded_once(data_home, server):
    fetch_mnist(data_home=data_home)
    fetch_mnist(subset="test", data_home=data_home, download_if_missing=False)
    assert server.n_requests == 1


def test_illegal_subset():
    with pytest.raises(ValueError, match="'subset' parameter of fetch_mnist must be a str among"):
        fetch_mnist(subset="validation")


@pytest.mark.parametrize(("subset", "n_canvases"), [("train", 4), ("validation", 3), ("test", 2)])
def test_modified_mnist_draws_from_its_own_digits(data_home, subset, n_canvases):
    bunch = fetch_modified_mnist(subset=subset, data_home=data_home)
    digit = DIGITS[subset]
    assert bunch.images.shape == (n_canvases, 256, 256)
    assert bunch.images.dtype == np.float32
    np.testing.assert_array_equal(bunch.labels, np.tile(np.eye(10)[digit], (n_canvases, 1)))
    assert len(bunch.points) == n_canvases
    assert all((points[:, 0] == digit).all() for points in bunch.points)
    assert "MNIST" in bunch.DESCR


def test_modified_mnist_keeps_what_was_generated(data_home, monkeypatch):
    generated = []
    make = _fetch_mnist.make_digit_canvases

    def remember(*args, **parameters):
        generated.append(make(*args, **parameters))
        return generated[0]

    monkeypatch.setattr(_fetch_mnist, "make_digit_canvases", remember)
    fetch_modified_mnist(data_home=data_home)
    bunch = fetch_modified_mnist(data_home=data_home)
    assert len(generated) == 1
    np.testing.assert_array_equal(bunch.images, generated[0].images, strict=True)
    np.testing.assert_array_equal(bunch.labels, generated[0].labels)
    np.testing.assert_array_equal(np.asarray(bunch.masks), generated[0].masks, strict=True)
    for points, expected in zip(bunch.points, generated[0].points, strict=True):
        np.testing.assert_array_equal(points, expected)


def test_modified_mnist_masks_are_lazy(data_home):
    masks = fetch_modified_mnist(data_home=data_home).masks
    assert isinstance(masks, LazyStack)
    assert masks.shape == (4, 10, 256, 256)
    assert masks[1:3].shape == (2, 10, 256, 256)
    assert masks[1, 1].any()
    assert not masks[1, 0].any()


def test_modified_mnist_needs_neither_mnist_nor_server_again(data_home, server, published):
    images, labels = fetch_modified_mnist(data_home=data_home, return_X_y=True)
    (data_home / published.path).unlink()
    again = fetch_modified_mnist(data_home=data_home, download_if_missing=False)
    np.testing.assert_array_equal(again.images, images)
    np.testing.assert_array_equal(again.labels, labels)
    assert server.n_requests == 1


@pytest.mark.parametrize("n_bytes", [0, 1000, -1000])
def test_modified_mnist_is_generated_again_when_damaged(data_home, n_bytes):
    generated = fetch_modified_mnist(subset="test", data_home=data_home)
    path = data_home / "mnist" / f"modified_test_{_fetch_mnist._RECIPE}.npz"
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.warns(match=r"modified_test_1\.npz is generated again: it is damaged") as caught:
        again = fetch_modified_mnist(subset="test", data_home=data_home)
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(again.images, generated.images, strict=True)
    images, _ = fetch_modified_mnist(subset="test", data_home=data_home, return_X_y=True)
    np.testing.assert_array_equal(images, generated.images)


def test_what_killed_generation_left_is_removed(data_home):
    part = data_home / "mnist" / f"modified_train_{_fetch_mnist._RECIPE}.npz.stale.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"half")
    os.utime(part, (0, 0))
    fetch_modified_mnist(data_home=data_home)
    assert not part.exists()


def test_modified_mnist_on_a_full_disk(data_home, monkeypatch):
    def fill_disk(file, **arrays):
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez_compressed", fill_disk)
    with pytest.raises(OSError, match=r"No space left on device\. Free some space"):
        fetch_modified_mnist(data_home=data_home)
    assert [path.name for path in data_home.rglob("*") if path.is_file()] == ["mnist.npz"]

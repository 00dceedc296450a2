import io
import pickle
import sys

import numpy as np
import pytest
from server import tar_bytes

from sklearn_micranet.datasets import _registry
from sklearn_micranet.datasets._fetch_f_actin import fetch_f_actin

h5py = pytest.importorskip("h5py")

SHAPES = {"block": [(8, 10), (6, 12)], "control": [(9, 9)]}
SUBSETS = {"train": "training", "validation": "validation", "test": "testing"}


def images_and_labels(subset):
    """Return the images and labels of each group, without padding."""
    random = np.random.default_rng(list(SUBSETS).index(subset))
    return {
        group: [
            (random.integers(0, 256, shape, np.uint8), random.integers(0, 2, (3, *shape), np.uint8))
            for shape in shapes
        ]
        for group, shapes in SHAPES.items()
    }


def hdf5_bytes(subset):
    """Pad every group to its largest image, with values that nobody may see."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for group, pairs in images_and_labels(subset).items():
            rows, columns = np.max(SHAPES[group], axis=0)
            data = np.full((len(pairs), rows, columns), 99, np.uint8)
            label = np.ones((len(pairs), 3, rows, columns), np.uint8)
            for index, (image, labels) in enumerate(pairs):
                data[index, : image.shape[0], : image.shape[1]] = image
                label[index, :, : image.shape[0], : image.shape[1]] = labels
            file[f"{group}/data"] = data
            file[f"{group}/label"] = label
            file[f"{group}/label"].attrs["shapes"] = SHAPES[group]
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def published(server, monkeypatch):
    files = {
        f"datasets/{name}_01-04-19.hdf5": hdf5_bytes(subset) for subset, name in SUBSETS.items()
    }
    files["../escaped.hdf5"] = b"evil"
    files["pretrained/params.net"] = b"weights"
    content = tar_bytes(files, links=[("datasets/link.hdf5", "/etc/passwd")])
    remote = server.publish(_registry.F_ACTIN, content, digest=False)
    monkeypatch.setattr(_registry, "F_ACTIN", remote)
    return remote


@pytest.fixture
def downloaded(data_home):
    with pytest.warns(match=r"No digest of MICRA-Net\.tar\.gz is published"):
        fetch_f_actin(data_home=data_home)
    return data_home


@pytest.mark.parametrize("subset", SUBSETS)
def test_images_and_masks_without_padding(downloaded, subset):
    bunch = fetch_f_actin(data_home=downloaded, subset=subset)
    pairs = [pair for group in images_and_labels(subset).values() for pair in group]
    assert bunch.groups.tolist() == ["block", "block", "control"]
    assert bunch.target_names == ["rings", "fibres"]
    for index, (image, labels) in enumerate(pairs):
        np.testing.assert_array_equal(bunch.images[index], image, strict=True)
        np.testing.assert_array_equal(bunch.masks[index], labels[:2] == 1, strict=True)
        np.testing.assert_array_equal(bunch.dendrites[index], labels[2] == 1, strict=True)
    assert "non-commercial" in bunch.DESCR


def test_return_x_y_is_lazy_and_picklable(downloaded):
    images, masks = fetch_f_actin(data_home=downloaded, return_X_y=True)
    images, masks = pickle.loads(pickle.dumps((images[1:], masks[1:])))
    assert [image.shape for image in images] == [(6, 12), (9, 9)]
    assert [mask.shape for mask in masks] == [(2, 6, 12), (2, 9, 9)]


def test_unpacked_files_need_neither_archive_nor_server(downloaded, server, published, tmp_path):
    (downloaded / published.path).unlink()
    fetch_f_actin(data_home=downloaded, download_if_missing=False)
    assert server.n_requests == 1
    files = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    unpacked = {f"{name}_01-04-19.hdf5" for name in SUBSETS.values()}
    assert files == {"MICRA-Net.tar.gz.sha256", *unpacked}


def test_a_subset_needs_its_own_file_only(downloaded, server, published):
    (downloaded / published.path).unlink()
    (downloaded / "f_actin" / "training_01-04-19.hdf5").unlink()
    assert len(fetch_f_actin(data_home=downloaded, subset="test").images) == 3
    assert server.n_requests == 1
    with pytest.raises(OSError, match="download_if_missing is False"):
        fetch_f_actin(data_home=downloaded, download_if_missing=False)


def test_missing_h5py_is_noticed_before_the_download(data_home, server, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r'pip install "sklearn-micranet\[hdf5\]"'):
        fetch_f_actin(data_home=data_home)
    assert server.n_requests == 0

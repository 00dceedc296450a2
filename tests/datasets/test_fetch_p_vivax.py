import json
import pickle

import numpy as np
import pytest
from server import image_bytes, zip_bytes

from sklearn_micranet.datasets import _registry
from sklearn_micranet.datasets._fetch_p_vivax import fetch_p_vivax

RANDOM = np.random.default_rng(0)
IMAGES = {
    "a.png": RANDOM.integers(0, 256, (12, 16, 3), np.uint8),
    "b.png": RANDOM.integers(0, 256, (10, 14, 3), np.uint8),
    "c.jpg": np.full((12, 16, 3), (200, 100, 50), np.uint8),
}


def published_object(category, first_row, first_column, last_row, last_column):
    return {
        "category": category,
        "bounding_box": {
            "minimum": {"r": first_row, "c": first_column},
            "maximum": {"r": last_row, "c": last_column},
        },
    }


def published_image(name, *objects):
    rows, columns, channels = IMAGES[name].shape
    image = {
        "pathname": f"/images/{name}",
        "shape": {"r": rows, "c": columns, "channels": channels},
        "checksum": "unused",
    }
    return {"image": image, "objects": list(objects)}


TRAINING = [
    published_image(
        "b.png",
        published_object("red blood cell", 0, 1, 3, 5),
        published_object("ring", 2, 3, 8, 9),
        published_object("difficult", 1, 1, 2, 2),
        published_object("trophozoite", 4, 0, 9, 7),
        published_object("leukocyte", 5, 5, 9, 9),
    ),
    published_image("a.png"),
]
TEST = [published_image("c.jpg", published_object("schizont", 1, 2, 3, 4))]


@pytest.fixture(autouse=True)
def published(server, monkeypatch):
    files = {f"malaria/images/{name}": image_bytes(IMAGES[name], name[-4:]) for name in IMAGES}
    files["malaria/training.json"] = json.dumps(TRAINING)
    files["malaria/test.json"] = json.dumps(TEST)
    files["../escaped.png"] = b"evil"
    remote = server.publish(_registry.P_VIVAX, zip_bytes(files), digest=False)
    monkeypatch.setattr(_registry, "P_VIVAX", remote)
    return remote


@pytest.fixture
def downloaded(data_home):
    with pytest.warns(match=r"No digest of malaria\.zip is published"):
        fetch_p_vivax(data_home=data_home)
    return data_home


def test_training_images_and_boxes(downloaded):
    bunch = fetch_p_vivax(data_home=downloaded)
    assert bunch.filenames == ["malaria/images/b.png", "malaria/images/a.png"]
    assert len(bunch.images) == 2
    np.testing.assert_array_equal(bunch.images[0], IMAGES["b.png"], strict=True)
    np.testing.assert_array_equal(bunch.images[1], IMAGES["a.png"], strict=True)
    names = [bunch.target_names[category] for category in bunch.boxes[0][:, 0]]
    assert names == ["red blood cell", "ring", "difficult", "trophozoite", "leukocyte"]
    assert bunch.boxes[0][1, 1:].tolist() == [2, 3, 8, 9]
    assert bunch.infected_boxes[0].tolist() == [[2, 3, 8, 9], [4, 0, 9, 7]]
    assert bunch.boxes[1].shape == (0, 5)
    assert bunch.infected_boxes[1].shape == (0, 4)
    assert "CC BY-NC-SA 3.0" in bunch.DESCR


def test_test_images_and_boxes(downloaded):
    images, infected_boxes = fetch_p_vivax(data_home=downloaded, subset="test", return_X_y=True)
    np.testing.assert_allclose(images[0], IMAGES["c.jpg"], atol=2)  # JPEG is not exact
    assert [box.tolist() for box in infected_boxes] == [[[1, 2, 3, 4]]]


def test_images_are_lazy_and_archive_stays_packed(downloaded, server, tmp_path):
    images = fetch_p_vivax(data_home=downloaded).images
    chosen = pickle.loads(pickle.dumps(images[[1]]))
    np.testing.assert_array_equal(chosen[0], IMAGES["a.png"])
    files = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"malaria.zip", "malaria.zip.sha256"}
    assert server.n_requests == 1


def test_changed_archive_is_refused(downloaded, server, published):
    (downloaded / published.path).unlink()
    server.files["/" + published.path] = zip_bytes({"malaria/training.json": "[]"})
    with pytest.raises(OSError, match="instead of the first seen"):
        fetch_p_vivax(data_home=downloaded)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"other.txt": b""}, "no item named 'malaria/training.json'"),
        ({"malaria/training.json": "<html>"}, "Expecting value"),
        ({"malaria/training.json": "[]"}, "does not hold the images"),
        ({"malaria/training.json": json.dumps(TRAINING)}, "does not hold the images"),
    ],
)
def test_wrong_archive_is_explained_and_not_remembered(data_home, server, files, message):
    place = data_home / _registry.P_VIVAX.path
    place.parent.mkdir(parents=True)
    place.write_bytes(zip_bytes(files))
    no_digest = r"No digest of malaria\.zip is published"
    with (
        pytest.warns(match=no_digest),
        pytest.raises(OSError, match=rf"malaria\.zip could not be fetched.*{message}.*delete it"),
    ):
        fetch_p_vivax(data_home=data_home)
    place.unlink()
    with pytest.warns(match=no_digest):
        fetch_p_vivax(data_home=data_home)

import imageio.v3 as imageio
import numpy as np
import pytest


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 65536, (3, 8, 9)).astype(np.uint16)


@pytest.fixture
def folder(tmp_path, images):
    """Three 16-bit images, two as TIFF and one as PNG, next to a file that is no image."""
    for name, image in zip(["a.tif", "b.png", "c.TIFF"], images, strict=True):
        imageio.imwrite(tmp_path / name, image, extension=name[1:].lower())
    (tmp_path / "notes.txt").write_text("ignored")
    return tmp_path

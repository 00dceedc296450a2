"""The pages from own images to scores run from top to bottom, on images unlike the examples."""

import warnings

import numpy as np
import pytest
import tifffile
from sklearn.exceptions import ConvergenceWarning
from test_docs import PAGES, code_blocks

RNG = np.random.default_rng(0)
READ = ("guide/own_images.rst", "guide/objects.rst", "guide/scores.rst")  # in this order
LOOKED_AT = ("guide/wrong_masks.rst", "guide/empty_fields.rst")


def image(kind, shape):
    """Noise of 16 bits with a disc, a bar, or nothing."""
    rows, columns = np.indices(shape)
    row, column = RNG.integers(20, np.array(shape) - 20)
    pixels = RNG.normal(4000, 300, shape)
    if kind == "disc":
        pixels[np.hypot(rows - row, columns - column) < 9] += 9000
    elif kind == "bar":
        pixels[(abs(rows - row) < 3) & (abs(columns - column) < 18)] += 9000
    return pixels.astype(np.uint16)


def write_files(folder, kinds):
    (folder / "crops").mkdir()
    (folder / "whole_images").mkdir()
    for i, kind in enumerate(kinds):
        tifffile.imwrite(folder / "crops" / f"crop {i} é.tif", image(kind, (65, 91)))
    rows = [f"crop {i} é.tif;{kind}" for i, kind in enumerate(kinds)]
    (folder / "labels.csv").write_text("\n".join(["file;label", *rows]), encoding="utf-8")
    for i, shape in enumerate([(97, 131), (83, 75), (64, 64), (140, 61)]):
        tifffile.imwrite(folder / "whole_images" / f"{i}.tif", image(kinds[i], shape))


@pytest.mark.parametrize("labels", [["disc", "empty"], ["bar", "disc", "empty"]])
def test_the_pages_run_from_top_to_bottom(labels, tmp_path, monkeypatch):
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("Agg")
    pytest.importorskip("roifile")
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path, labels * (30 // len(labels)))
    names = {}
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # of few epochs, which is what is tested
        for block in [block for page in READ for block in code_blocks(PAGES[page])]:
            exec(block.replace("n_filters=8", "n_filters=2, max_epochs=3"), names)
        crops = np.asarray(names["data"].images)
        names |= {"images": crops, "few_images": crops, "empty_images": crops, "pixel_size": 1}
        names |= {"few_masks": crops[:, np.newaxis] > 9000, "pixel_size_of_training": 2}
        for block in [block for page in LOOKED_AT for block in code_blocks(PAGES[page])]:
            exec(block, names)
    plt.close("all")
    assert names["classifier"].map_classes_.tolist() == labels[:-1]
    assert [mask.shape for mask in names["masks"]] == [
        (len(labels) - 1, *shape) for shape in [(97, 131), (83, 75), (64, 64), (140, 61)]
    ]
    assert (tmp_path / "to_inspect.csv").exists()
    assert set(names["search"].best_params_) == {"segment__threshold", "segment__min_size"}

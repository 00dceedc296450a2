"""Each script of the paper's experiments runs, goes on where it ended, and names the figures."""

import json
from importlib import import_module

import numpy as np
import pytest
from server import image_bytes, zip_bytes
from sklearn.datasets import load_digits
from sklearn.utils import Bunch
from test_package import ROOT

from sklearn_micranet import MicraNetClassifier, UNetSegmenter

pytestmark = [
    # One epoch on a handful of images teaches nothing.
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:Mean of empty slice"),
]


@pytest.fixture
def script(monkeypatch):
    """Import a script as if it was run from its folder."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    monkeypatch.syspath_prepend(ROOT / "examples" / "paper")
    return import_module


def refuse(*args, **kwargs):
    raise AssertionError("a finished training was started again")


def run(main, monkeypatch, capsys, *arguments):
    """Return what a tiny run prints, which a second one prints again without training."""
    main(["--epochs", "1", *arguments])
    printed = capsys.readouterr().out
    with monkeypatch.context() as patched:
        for estimator in (MicraNetClassifier, UNetSegmenter):
            patched.setattr(estimator, "fit", refuse)
        main(["--epochs", "1", *arguments])
    assert capsys.readouterr().out == printed
    return printed


def test_modified_mnist(script, tmp_path, monkeypatch, capsys):
    images, labels = load_digits(return_X_y=True)
    images = (images[:200] * 15.9).astype(np.uint8).reshape(-1, 8, 8)
    np.savez(tmp_path / "digits.npz", images=images, labels=labels[:200])
    module = script("modified_mnist")
    monkeypatch.setattr(module, "DILATIONS", (0, 25))
    data = ["--data", str(tmp_path / "digits.npz"), "--cache", str(tmp_path / "cache")]
    printed = run(module.main, monkeypatch, capsys, *data, "--images", "12", "--seeds", "0", "1")
    for name in ("98.9 +- 0.5 %", "coarse", "precise", "guided", "U-Net, 25 px", "p = "):
        assert name in printed
    assert "IoU by class" in printed


def frames_of_cells(n):
    """Noisy frames with three bright cells each, and their instances."""
    rng = np.random.default_rng(0)
    rows, columns = np.indices((96, 96))
    instances = np.zeros((n, 96, 96), np.uint8)
    for labels in instances:
        for number, (row, column) in enumerate([(20, 20), (20, 70), (70, 45)], start=1):
            labels[np.hypot(rows - row - rng.integers(5), columns - column) < 12] = number
    return ((instances > 0) * 90 + rng.normal(60, 10, instances.shape)).astype(np.uint8), instances


def test_cell_tracking(script, tmp_path, monkeypatch, capsys):
    frames, instances = frames_of_cells(4)
    np.savez(tmp_path / "cells.npz", images=frames, labels=instances)
    module = script("cell_tracking")
    monkeypatch.setitem(module.SCALES["small"], "cell", 24)
    monkeypatch.setitem(module.SCALES["small"], "step", 24)
    data = ["--data", str(tmp_path / "cells.npz"), "--cache", str(tmp_path / "cache")]
    printed = run(module.main, monkeypatch, capsys, *data, "--seeds", "0")
    for name in ("95.8 +- 0.4 %", "detection F1", "U-Net, no negatives", "outlines"):
        assert name in printed


def test_cell_lines_are_split_by_sequence_where_there_are_two(script, monkeypatch):
    frames, instances = frames_of_cells(5)
    line = Bunch(images=frames, masks=instances, complete=np.array([True, True, False, True, True]))
    module = script("cell_tracking")
    monkeypatch.setattr(module, "fetch_cell_tracking", lambda name: line)
    line.sequences = np.array(["01", "01", "01", "02", "02"])
    used, _, is_train = module.read_frames("DIC-C2DH-HeLa", None)
    assert is_train.tolist() == [True, True, False, False]
    np.testing.assert_array_equal(used, frames[[0, 1, 3, 4]])
    line.sequences[:] = "02"
    assert module.read_frames("DIC-C2DH-HeLa", None)[2].tolist() == [True, True, True, False]


def archive_of_smears(p_vivax):
    """The files of BBBC041, with generated smears."""
    files = {}
    for name, is_other in (("training", False), ("test", True)):
        entries = []
        pairs = zip(*p_vivax.generated(8, is_other=is_other, random_state=3), strict=True)
        for i, (image, boxes) in enumerate(pairs):
            files[f"malaria/images/{name}{i}.png"] = image_bytes(image, ".png")
            corners = [
                dict(zip(("minimum", "maximum"), b.reshape(2, 2), strict=True)) for b in boxes
            ]
            objects = [
                {
                    "category": "ring",
                    "bounding_box": {k: {"r": int(r), "c": int(c)} for k, (r, c) in b.items()},
                }
                for b in corners
            ]
            shape = dict(zip(("r", "c", "channels"), image.shape, strict=True))
            image = {"pathname": f"/images/{name}{i}.png", "shape": shape}
            entries.append({"image": image, "objects": objects})
        files[f"malaria/{name}.json"] = json.dumps(entries)
    return zip_bytes(files)


def test_p_vivax(script, tmp_path, monkeypatch, capsys):
    module = script("p_vivax")
    (tmp_path / "p_vivax").mkdir()
    (tmp_path / "p_vivax" / "malaria.zip").write_bytes(archive_of_smears(module))
    monkeypatch.setitem(module.SCALES["small"], "folds", 1)
    data = ["--data", str(tmp_path), "--cache", str(tmp_path / "cache")]
    printed = run(module.main, monkeypatch, capsys, *data, "--seeds", "0")
    for name in ("0.44 +- 0.13", "naive", "threshold only", "depth 4", "36 labelled", "at recall"):
        assert name in printed


def test_generated_smears_differ_by_microscope_alone(script):
    module = script("p_vivax")
    (first, boxes), (other, same_boxes) = (
        module.generated(3, is_other=is_other, random_state=0) for is_other in (False, True)
    )
    for a, b in zip(boxes, same_boxes, strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.mean(other) < 0.8 * np.mean(first)


def write_f_actin(path, draw):
    """Write the file of a published split, with two images of different size."""
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(0)
    drawn = [draw(rng, side) for side in (96, 80, 96)]
    data, label = np.zeros((3, 96, 96), np.float32), np.zeros((3, 3, 96, 96), np.uint8)
    for i, (image, masks, dendrite) in enumerate(drawn):
        side = len(image)
        data[i, :side, :side], label[i, :, :side, :side] = image, [*masks, dendrite]
    with h5py.File(path, "w") as file:
        file["block/data"], file["block/label"] = data, label
        file["block/label"].attrs["shapes"] = [image.shape for image, _, _ in drawn]


def test_f_actin(script, tmp_path, monkeypatch, capsys):
    module = script("f_actin")
    (tmp_path / "f_actin").mkdir()
    for subset in ("training", "testing"):
        write_f_actin(tmp_path / "f_actin" / f"{subset}_01-04-19.hdf5", module.draw_dendrite)
    data = ["--data", str(tmp_path), "--cache", str(tmp_path / "cache")]
    printed = run(module.main, monkeypatch, capsys, *data, "--seeds", "0", "1")
    for name in ("75.2 %", "83.7 %", "masks of rings", "change of spectrum", "bright share"):
        assert name in printed


def test_rings_are_told_from_fibres_by_their_spectrum(script):
    """The generated rings have power at their period, and nothing else has much of it."""
    module = script("f_actin")
    rng = np.random.default_rng(0)
    drawn = [module.draw_dendrite(rng) for _ in range(20)]
    whole = [(i, m[0]) for i, m, _ in drawn if m[0].sum() > 1000]
    assert len(whole) > 5
    for image, mask in whole:
        inside, outside = (
            module.spectrum_change(image, part, pixel_size=20) for part in (mask, ~mask)
        )
        assert inside > -0.5 > outside


@pytest.mark.slow
def test_small_scale_of_f_actin_learns_both_structures(script, tmp_path):
    module = script("f_actin")
    options = ["--cache", str(tmp_path)]
    _, settings, _ = module.read_options("", module.SCALES, options, data_help="")
    accuracy, scores, by_image = module.scores_of_seed(0, settings)
    assert accuracy.min() > 0.9  # of crops without both: about 0.75
    assert scores["precise"][1].min() > 0.25  # IoU
    assert by_image["precise"][1] > 0.8


@pytest.mark.slow
def test_small_scale_of_p_vivax_wins_back_what_the_other_microscope_costs(script, tmp_path):
    module = script("p_vivax")
    options = ["--cache", str(tmp_path)]
    _, settings, _ = module.read_options("", module.SCALES, options, data_help="")
    scores = module.scores_of_fold(0, 12, 0, settings)
    f1 = {name: values[1] for name, values in scores.items()}
    assert f1["naive"] < 0.5 * f1["depth 2"]
    assert f1["depth 2"] > 0.5

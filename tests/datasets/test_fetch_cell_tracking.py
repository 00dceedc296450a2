import io
import pickle

import numpy as np
import pytest
from PIL import Image
from server import zip_bytes

from sklearn_micranet.datasets import _registry
from sklearn_micranet.datasets._fetch_cell_tracking import fetch_cell_tracking

NAME = "PhC-C2DH-U373"

# Two sequences of different sizes: three frames, and two.
FRAMES = {
    ("01", frame): np.full((6, 8), 1000 * frame + np.arange(8), np.uint16) for frame in range(3)
}
FRAMES |= {("02", frame): np.full((5, 9), frame, np.uint16) for frame in range(2)}


def cells(shape, *labels):
    """Draw each label as a square of two pixels at its own place along the diagonal."""
    mask = np.zeros(shape, np.uint16)
    for label in labels:
        mask[2 * label - 2 : 2 * label, 2 * label - 2 : 2 * label] = label
    return mask


# Frame 1 of 01 lacks the mask of one of its two tracked cells; frame 0 of 02 has both, numbered
# otherwise than in the tracks.
GOLD = {
    ("01", 0): cells((6, 8), 1),
    ("01", 1): cells((6, 8), 1),
    ("02", 0): cells((5, 9), 1, 2) + 7 * (cells((5, 9), 1, 2) > 0).astype(np.uint16),
}
SILVER = {key: cells(frame.shape, 1, 2) for key, frame in FRAMES.items() if key[0] == "01"}
TRACKS = {key: cells(frame.shape, 1, 2) for key, frame in FRAMES.items()}
TRACKS["01", 0] = cells((6, 8), 1)


def tiff_bytes(image, compression):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="tiff", compression=compression)
    return buffer.getvalue()


def archive(*, truth=True, frames=FRAMES, tracks=TRACKS, compression=None):
    files = {"../escaped.tif": b"evil", "/absolute.tif": b"evil", f"{NAME}/01/": b""}
    kinds = {"{}/t": frames}
    if truth:
        kinds["{}_GT/SEG/man_seg"] = GOLD
        kinds["{}_ST/SEG/man_seg"] = SILVER
        kinds["{}_GT/TRA/man_track"] = tracks
        files[f"{NAME}/01_GT/TRA/man_track.txt"] = b"1 0 2 0"
    for prefix, images in kinds.items():
        for (sequence, frame), image in reversed(images.items()):
            name = f"{NAME}/{prefix.format(sequence)}{frame:03}.tif"
            files[name] = tiff_bytes(image, compression)
    return zip_bytes(files)


@pytest.fixture
def fetch(server, data_home, monkeypatch):
    lines = _registry.CELL_TRACKING
    for subset in ("train", "test"):
        remote = server.publish(lines[subset][NAME], archive(truth=subset == "train"))
        monkeypatch.setitem(lines[subset], NAME, remote)

    def fetch(**parameters):
        return fetch_cell_tracking(NAME, data_home=data_home, **parameters)

    return fetch


def test_gold_truth(fetch):
    bunch = fetch()
    keys = sorted(GOLD)
    assert [*zip(bunch.sequences, bunch.frames, strict=True)] == keys
    for key, image, mask in zip(keys, bunch.images, bunch.masks, strict=True):
        np.testing.assert_array_equal(image, FRAMES[key], strict=True)
        np.testing.assert_array_equal(mask, GOLD[key], strict=True)
    assert bunch.complete.tolist() == [True, False, True]
    assert bunch.images.dtype == bunch.masks.dtype == np.uint16
    assert "doi:10.1038/s41592-023-01879-y" in bunch.DESCR


def test_silver_truth(fetch):
    bunch = fetch(truth="silver")
    assert bunch.frames.tolist() == [0, 1, 2]
    assert set(bunch.sequences) == {"01"}
    np.testing.assert_array_equal(bunch.masks[2], SILVER["01", 2])
    assert bunch.complete.all()


def test_every_frame_without_truth(fetch):
    bunch = fetch(truth=None)
    assert [*zip(bunch.sequences, bunch.frames, strict=True)] == sorted(FRAMES)
    assert bunch.masks is None
    assert bunch.complete is None


def test_test_archive_holds_frames_only(fetch):
    images, masks = fetch(subset="test", return_X_y=True)
    assert len(images) == 5
    assert masks is None


def test_complete_frames_are_selected_lazily(fetch):
    bunch = fetch()
    images, masks = fetch(return_X_y=True)
    assert len(images) == len(masks) == 3
    chosen = pickle.loads(pickle.dumps(images[bunch.complete]))
    assert len(chosen) == 2
    np.testing.assert_array_equal(chosen[1], FRAMES["02", 0])


def test_archive_stays_packed(fetch, server, data_home, tmp_path):
    fetch()
    fetch(download_if_missing=False)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files == [data_home / "cell_tracking" / "training-datasets" / f"{NAME}.zip"]
    assert server.n_requests == 1


def test_line_without_silver_truth(fetch, monkeypatch):
    monkeypatch.setitem(_registry.CELL_TRACKING, "train", _registry.CELL_TRACKING["test"])
    with pytest.raises(ValueError, match=f"{NAME} has. Got 'silver' instead"):
        fetch(truth="silver")


def publish(server, monkeypatch, content):
    remote = server.publish(_registry.CELL_TRACKING["train"][NAME], content)
    monkeypatch.setitem(_registry.CELL_TRACKING["train"], NAME, remote)


@pytest.mark.parametrize("truth", ["gold", None])
def test_archive_without_frames(server, data_home, monkeypatch, truth):
    publish(server, monkeypatch, archive(frames={}))
    with pytest.raises(OSError, match=rf"{NAME}\.zip could not be fetched: .*no frame of {NAME}"):
        fetch_cell_tracking(NAME, truth=truth, data_home=data_home)


def test_archive_that_lacks_a_frame_of_the_tracks(server, data_home, monkeypatch):
    tracks = {key: track for key, track in TRACKS.items() if key != ("01", 1)}
    publish(server, monkeypatch, archive(tracks=tracks))
    with pytest.raises(OSError, match=rf"{NAME}\.zip could not be fetched: .*\[\('01', 1\)\]"):
        fetch_cell_tracking(NAME, data_home=data_home)


def test_masks_compressed_with_lzw_are_read(server, data_home, monkeypatch):
    publish(server, monkeypatch, archive(compression="tiff_lzw"))
    bunch = fetch_cell_tracking(NAME, data_home=data_home)
    np.testing.assert_array_equal(bunch.masks[1], GOLD["01", 1], strict=True)
    assert bunch.complete.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"name": "Fluo-N3DH-CE"}, "'name' parameter of fetch_cell_tracking must be a str among"),
        ({"name": NAME, "subset": "validation"}, "'subset' parameter"),
        ({"name": NAME, "truth": "bronze"}, "'truth' parameter"),
    ],
)
def test_illegal_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        fetch_cell_tracking(**parameters)

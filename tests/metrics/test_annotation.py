import numpy as np
import pytest
from cases import instances, mask
from numpy.testing import assert_allclose

from sklearn_micranet.images import extract_crops
from sklearn_micranet.metrics import annotation_effort


def columns(effort, *names):
    return [list(effort[name]) for name in names]


def test_known_effort():
    # A 3 x 3 square has one pixel inside. At the border of the image, all four pixels are edge.
    y = [mask("###...", "###..#", "###..#").astype(int)[np.newaxis]]
    y += [mask("##", "##").astype(int)[np.newaxis]]
    effort = annotation_effort(
        y, crop_size=2, seconds_per_edge_pixel=1, seconds_per_box=10, seconds_per_crop=2
    )
    assert list(effort["annotation"]) == ["outlines", "boxes", "crops"]
    n_items, decisions = columns(effort, "n_items", "decisions")
    # Crops: 3 across and 2 down, the last of them beyond the border; and 1.
    assert n_items == [3, 3, 7]
    assert decisions == [8 + 2 + 4, 3 * 4, 7]
    assert_allclose(effort["hours"], np.array([14, 30, 14]) / 3600)


def test_default_seconds():
    effort = annotation_effort(np.ones((1, 1, 256, 256), bool), crop_size=256)
    assert_allclose(effort["hours"] * 3600, [0.25 * 4 * 255, 7, 2])


def test_touching_objects_have_an_outline_each():
    joint = mask("......", ".####.", ".####.", ".####.", "......")[np.newaxis]
    parted = instances("......", ".1122.", ".1122.", ".1122.", "......")[np.newaxis]
    assert columns(annotation_effort([joint], crop_size=8), "decisions")[0][:2] == [10, 4]
    assert columns(annotation_effort([parted], crop_size=8), "decisions")[0][:2] == [12, 8]


def test_every_map_is_labelled():
    y = np.zeros((2, 3, 8, 8), dtype=bool)
    assert columns(annotation_effort(y, crop_size=4), "decisions")[0] == [0, 0, 2 * 3 * 4]


@pytest.mark.parametrize(("size", "step"), [(8, None), (8, 3), (5, 5), (20, 7), (13, 1)])
def test_crops_are_those_of_extract_crops(size, step):
    image = np.zeros((1, 13, 20), dtype=np.float32)
    crops = extract_crops(image, size=size, step=step or size)
    effort = annotation_effort(image.astype(bool)[:, np.newaxis], crop_size=size, step=step)
    assert list(effort["n_items"])[2] == len(crops.images)


def test_nothing_to_annotate():
    assert columns(annotation_effort([], crop_size=8), "decisions", "hours") == [[0] * 3] * 2


def test_wrong_input_raises():
    y = np.zeros((1, 1, 8, 8), dtype=bool)
    with pytest.raises(
        ValueError, match=r"regions must hold masks of shape .*pass `regions\[:, np.newaxis\]`"
    ):
        annotation_effort(y[0], crop_size=8)
    with pytest.raises(ValueError, match="regions must hold masks, of dtype bool or of 0 and 1"):
        annotation_effort(y + 0.5, crop_size=8)
    with pytest.raises(ValueError, match="crop_size == 0, must be >= 1"):
        annotation_effort(y, crop_size=0)
    with pytest.raises(ValueError, match="step == 9, must be <= 8"):
        annotation_effort(y, crop_size=8, step=9)
    with pytest.raises(ValueError, match="seconds_per_box == -1, must be >= 0"):
        annotation_effort(y, crop_size=8, seconds_per_box=-1)

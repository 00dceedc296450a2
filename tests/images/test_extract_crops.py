import pickle
import tracemalloc
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils import Bunch

from sklearn_micranet import MicraNetClassifier
from sklearn_micranet._intensity_scaler import IntensityScaler
from sklearn_micranet._stack._lazy_stack import LazyStack
from sklearn_micranet.images._extract_crops import extract_crops
from sklearn_micranet.images._stitch_crops import stitch_crops


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_cut_then_stitch_is_the_image(data):
    side = st.integers(1, 23)
    size = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    step = data.draw(st.tuples(st.integers(1, size[0]), st.integers(1, size[1])))
    channels = data.draw(st.sampled_from([(), (3,)]))
    shapes = data.draw(st.lists(st.tuples(side, side), min_size=1, max_size=3))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    images = [rng.integers(0, 65536, (*shape, *channels)).astype(np.uint16) for shape in shapes]

    crops = extract_crops(images, size=size, step=step)

    for method in ("mean", "max"):
        stitched = stitch_crops(
            crops.images,
            crops.positions,
            crops.image_shapes,
            method=method,
            channels_last=bool(channels),
        )
        for image, back in zip(images, stitched, strict=True):
            np.testing.assert_array_equal(back, image)
    beyond = [(0, size[0]), (0, size[1])] + [(0, 0)] * len(channels)
    padded = [np.pad(image, beyond, mode="reflect") for image in images]
    for crop, (index, row, column) in zip(crops.images, crops.positions, strict=True):
        expected = padded[index][row : row + size[0], column : column + size[1]]
        np.testing.assert_array_equal(crop, expected)


IMAGE = np.arange(35, dtype=np.uint8).reshape(5, 7)


def test_positions_cover_images_of_different_sizes():
    crops = extract_crops([IMAGE, IMAGE[:3, :4]], size=4, step=3)
    expected = [[0, 0, 0], [0, 0, 3], [0, 3, 0], [0, 3, 3], [1, 0, 0]]
    np.testing.assert_array_equal(crops.positions, expected)
    np.testing.assert_array_equal(crops.groups, [0, 0, 0, 0, 1])
    np.testing.assert_array_equal(crops.image_shapes, [[5, 7], [3, 4]])
    assert crops.images.shape == (5, 4, 4)
    assert crops.images.dtype == np.uint8
    assert crops.labels is None


def test_crops_mirror_the_image_beyond_its_border():
    crops = extract_crops([IMAGE[:3, :4]], size=(4, 6))
    columns = [0, 1, 2, 3, 2, 1]
    expected = IMAGE[np.ix_([0, 1, 2, 1], columns)]
    np.testing.assert_array_equal(crops.images[0], expected)


def test_crops_of_one_image_stay_on_one_side_of_a_split():
    images = np.zeros((4, 6, 6))
    crops = extract_crops(images, size=3)
    for train, test in GroupKFold(2).split(crops.images, groups=crops.groups):
        assert not set(crops.groups[train]) & set(crops.groups[test])
        assert crops.images[train].shape == (8, 3, 3)


@pytest.mark.parametrize(
    ("shape", "parameters", "expected"),
    [
        ((8, 8), {"size": 4}, False),
        ((8, 8), {"size": 4, "step": 3}, True),
        ((8, 8), {"size": (2, 6), "step": (2, 5)}, True),
        ((8, 8), {"size": (2, 8), "step": (1, 8)}, True),
        ((4, 4), {"size": 4, "step": 1}, False),  # one crop per image
        ((8, 8), {"size": 4, "points": [[(2, 2)], []], "center_on_points": True}, False),
        ((8, 8), {"size": 4, "points": [[(2, 2), (2, 5)], []], "center_on_points": True}, True),
        ((9, 9), {"size": 3, "points": [[(1, 1), (1, 4)], []], "center_on_points": True}, False),
    ],
)
def test_crops_that_overlap_are_known(shape, parameters, expected):
    crops = extract_crops(np.zeros((2, *shape)), **parameters)
    shown = np.zeros((2, *shape), int)
    size = np.broadcast_to(parameters["size"], 2)
    for index, row, column in crops.positions:
        shown[index, max(row, 0) : row + size[0], max(column, 0) : column + size[1]] += 1
    assert (shown.max() > 1) == expected
    assert crops.overlap is expected


def test_masks_label_by_their_share_of_the_crop():
    mask = np.zeros((5, 7), int)
    mask[0, 0] = 3  # 1 of 16 pixels of the first crop
    mask[3:, 3:] = 8  # instance labels; 1, 4, 2 and 8 of 16 pixels
    parameters = {"size": 4, "step": 3, "masks": [mask]}
    np.testing.assert_array_equal(extract_crops([IMAGE], **parameters).labels, [1, 1, 1, 1])
    half = extract_crops([IMAGE], **parameters, min_coverage=0.5)
    np.testing.assert_array_equal(half.labels, [0, 0, 0, 1])
    quarter = extract_crops([IMAGE], **parameters, min_coverage=0.25)
    np.testing.assert_array_equal(quarter.labels, [0, 1, 0, 1])


def test_a_class_without_a_pixel_is_never_present():
    mask = np.zeros((5, 7))
    mask[4, 6] = 1
    labels = extract_crops([IMAGE], size=4, step=3, masks=[mask], min_coverage=0).labels
    np.testing.assert_array_equal(labels, [0, 0, 0, 1])


def test_a_class_is_present_from_the_very_share():
    mask = np.zeros((1, 30, 10))
    mask[0, 0, :3] = 1  # 1 % of 300 pixels
    assert extract_crops(np.zeros((1, 30, 10)), size=(30, 10), masks=mask).labels == [1]
    mask[0, 0, 0] = 0
    assert extract_crops(np.zeros((1, 30, 10)), size=(30, 10), masks=mask).labels == [0]


def test_small_masks_are_not_lost_in_silence():
    masks = np.zeros((1, 40, 40), dtype=bool)
    masks[0, 3, 3] = masks[0, 33, 3] = masks[0, :20, 20:] = True  # 1, 1 and 400 of 400 px
    images = np.zeros((1, 40, 40))
    with pytest.warns(UserWarning, match="2 of 3 masks of class 0 .* of their crop and count") as w:
        assert extract_crops(images, size=20, masks=masks).labels.tolist() == [0, 1, 0, 0]
    assert w[0].filename == __file__
    with warnings.catch_warnings(action="error"):
        crops = extract_crops(images, size=20, masks=masks, min_coverage=0)
        assert crops.labels.tolist() == [1, 1, 1, 0]
        masks[0, 3, 3] = False
        assert extract_crops(images, size=20, masks=masks).labels.tolist() == [0, 1, 0, 0]


def test_names_of_classes_are_refused_with_advice():
    for name, row in {"points": ["cell", 1, 2], "boxes": ["cell", 1, 2, 3, 4]}.items():
        with pytest.raises(ValueError, match=f"{name} must hold numbers.*names.index"):
            extract_crops(np.zeros((1, 9, 9)), size=4, **{name: [[row]]})


def test_masks_of_several_classes_give_an_indicator():
    masks = np.zeros((1, 2, 5, 7), bool)
    masks[0, 0, 0, 0] = masks[0, 1, 4, 6] = True
    crops = extract_crops(IMAGE[np.newaxis], size=4, step=3, masks=masks)
    np.testing.assert_array_equal(crops.labels, [[1, 0], [0, 0], [0, 0], [0, 1]])


def test_boxes_label_by_the_share_inside_the_crop():
    # Rows 0-2, columns 3-5: half of it (column 3) in the left crop, all in the right one.
    boxes = [[(0, 3, 2, 5)], []]
    images = [IMAGE[:4], IMAGE[:4]]
    parameters = {"size": 4, "step": (4, 3), "boxes": boxes}
    half = extract_crops(images, **parameters, min_overlap=0.5)
    np.testing.assert_array_equal(half.labels, [1, 1, 0, 0])
    more = extract_crops(images, **parameters, min_overlap=0.51)
    np.testing.assert_array_equal(more.labels, [0, 1, 0, 0])


def test_boxes_with_a_class_index_give_an_indicator():
    boxes = [[(2, 0, 0, 1, 1), (0, 0, 6, 4, 7)]]
    crops = extract_crops([IMAGE[:4]], size=4, step=3, boxes=boxes)
    np.testing.assert_array_equal(crops.labels, [[0, 0, 1], [1, 0, 0]])
    crops = extract_crops([IMAGE[:4]], size=4, step=3, boxes=boxes, n_classes=4)
    np.testing.assert_array_equal(crops.labels, [[0, 0, 1, 0], [1, 0, 0, 0]])


def test_points_label_the_crops_that_they_lie_in():
    # A pixel reaches half a pixel to each side of its centre.
    points = [[(3.49, 0), (-0.5, 2.5)], []]
    crops = extract_crops([IMAGE[:4], IMAGE[:4]], size=(4, 3), step=(4, 2), points=points)
    np.testing.assert_array_equal(crops.positions[:3], [[0, 0, 0], [0, 0, 2], [0, 0, 4]])
    np.testing.assert_array_equal(crops.labels, [1, 1, 0, 0, 0, 0])


def test_points_with_a_class_index_give_an_indicator():
    crops = extract_crops([IMAGE[:4]], size=4, step=3, points=[[(1, 0, 6)]])
    np.testing.assert_array_equal(crops.labels, [[0, 0], [0, 1]])


def test_centered_crops_come_with_negatives_that_do_not_touch_them():
    image = np.arange(12 * 12).reshape(12, 12)
    crops = extract_crops(
        [image, image], size=4, points=[[(5.4, 6.6)], [(0, 0)]], center_on_points=True
    )
    # Around pixel (5, 7): rows 3-6, columns 5-8, so only grid crops with rows 8-11 or columns
    # 0-3 are left. Around (0, 0), rows and columns -2 to 1: all but the first.
    of_first = crops.positions[crops.groups == 0]
    np.testing.assert_array_equal(
        of_first, [[0, 3, 5], [0, 0, 0], [0, 4, 0], [0, 8, 0], [0, 8, 4], [0, 8, 8]]
    )
    np.testing.assert_array_equal(crops.labels[crops.groups == 0], [1, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(crops.images[0], image[3:7, 5:9])
    of_second = crops.positions[crops.groups == 1]
    np.testing.assert_array_equal(of_second[0], [1, -2, -2])
    assert len(of_second) == 1 + 8
    np.testing.assert_array_equal(crops.images[6], image[np.ix_([2, 1, 0, 1], [2, 1, 0, 1])])
    expected = image.copy()
    expected[:4, :4] = 0
    expected[:2, :2] = image[:2, :2]
    stitched = stitch_crops(crops.images, crops.positions, crops.image_shapes)
    np.testing.assert_array_equal(stitched[1], expected)


def test_crops_without_foreground_are_dropped():
    foreground = np.zeros((5, 7), bool)
    foreground[0, :2] = True  # 2 of 16 pixels
    foreground[4, 6] = True  # 1 of 16 pixels
    parameters = {"size": 4, "step": 3, "foreground": [foreground]}
    crops = extract_crops([IMAGE], **parameters)
    np.testing.assert_array_equal(crops.positions, [[0, 0, 0]])
    assert len(extract_crops([IMAGE], **parameters, min_foreground=0).images) == 4
    with pytest.raises(ValueError, match="No crop has a foreground share of at least"):
        extract_crops([IMAGE], **parameters, min_foreground=0.2)


def test_huge_memory_mapped_image_costs_only_its_crops(tmp_path):
    side = 10_240
    image = np.memmap(tmp_path / "image.raw", np.uint8, "w+", shape=(1, side, side))
    image[0, 8000:8003, 9000:9005] = 7
    mask = np.memmap(tmp_path / "mask.raw", bool, "w+", shape=(1, side, side))
    mask[0, 8000:8003, 9000:9005] = True
    tracemalloc.start()
    try:
        crops = extract_crops(image, size=512, step=256, masks=mask, min_coverage=1e-5)
        present = np.flatnonzero(crops.labels)
        found = np.asarray(crops.images[present])
        maxima = [crop.max() for crop in crops.images[:400]]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(crops.images) == 39 * 39
    assert len(present) == 4
    np.testing.assert_array_equal(found.sum(axis=(1, 2)), 15 * 7)
    assert max(maxima) == 0
    assert peak < 50e6


def test_hdf5_is_read_window_by_window(tmp_path):
    images = np.arange(2 * 6 * 8).reshape(2, 6, 8)
    with h5py.File(tmp_path / "images.h5", "w") as file:
        dataset = file.create_dataset("images", data=images)
        read = []

        class Recorded:
            shape, dtype, ndim = dataset.shape, dataset.dtype, dataset.ndim

            def __len__(self):
                return len(dataset)

            def __getitem__(self, key):
                block = dataset[key]
                read.append(block.shape)
                return block

        crops = extract_crops(Recorded(), size=4, masks=Recorded())
        np.testing.assert_array_equal(crops.images[3], images[0][[4, 5, 4, 3], 4:])
        assert set(read) == {(4, 4), (2, 4), (3, 4)}


def test_images_from_a_lazy_stack_are_computed_once_per_batch():
    computed = []

    def load(indices):
        computed.extend(indices)
        return [np.full((4 + i, 4), i) for i in indices]

    images = LazyStack([0, 1], load, item_shape=None, dtype=int)
    crops = extract_crops(images, size=2)
    computed.clear()
    assert [crop.max() for crop in crops.images] == [0] * 4 + [1] * 6
    assert computed == [0, 1]


def test_images_are_computed_once_per_batch_of_shuffled_crops():
    computed = []

    def load(indices):
        computed.extend(indices)
        return [np.full((4, 4), i) for i in indices]

    crops = extract_crops(LazyStack([0, 1, 2], load, item_shape=None, dtype=int), size=2)
    order = np.random.default_rng(0).permutation(len(crops.images))
    shuffled = crops.groups[order]
    assert (np.diff(shuffled) != 0).sum() > 2  # neighbours often differ
    computed.clear()
    assert [crop.max() for crop in crops.images[order]] == shuffled.tolist()
    assert computed == [0, 1, 2]


def test_crops_are_legal_images_of_a_grouped_cross_validation():
    rng = np.random.default_rng(0)
    images, masks = rng.integers(0, 9, (4, 32, 32)), np.zeros((4, 32, 32), bool)
    masks[:, :16] = True
    images[masks] += 200
    crops = extract_crops(images, size=16, masks=masks)
    classifier = MicraNetClassifier(n_filters=2, max_epochs=2, random_state=0)
    scores = cross_val_score(
        make_pipeline(IntensityScaler(method="dtype", bit_depth=8), classifier),
        crops.images,
        crops.labels,
        groups=crops.groups,
        cv=GroupKFold(2),
        error_score="raise",
    )
    assert np.isfinite(scores).all()


def test_crops_can_be_pickled():
    crops = extract_crops([IMAGE], size=4)
    back = pickle.loads(pickle.dumps(crops))
    np.testing.assert_array_equal(back.images, crops.images)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"size": 4, "step": 5}, r"step must be at most size.*step=\(5, 5\)"),
        ({"size": (4, 0)}, r"size must be a positive int.*Got \(4, 0\) instead"),
        ({"size": 4, "masks": [IMAGE], "points": [[]]}, r"Got \['masks', 'points'\] instead"),
        ({"size": 4, "center_on_points": True}, "center_on_points=True requires points"),
        ({"size": 4, "masks": [IMAGE, IMAGE]}, "masks must hold one entry per image, 1 in all"),
        ({"size": 4, "masks": [IMAGE.T]}, r"height and width of its image, \(5, 7\)"),
        ({"size": 4, "boxes": [[(0, 0, 2)]]}, "boxes must hold one table of 4 columns"),
        ({"size": 4, "boxes": [[(0, 5, 2, 3)]]}, "Got an empty box instead"),
        ({"size": 4, "points": [[(0, 7)]]}, r"points must lie inside.*\(0.0, 7.0\) instead"),
        ({"size": 4, "points": [[(0, np.nan)]]}, "points must be finite"),
        ({"size": 4, "points": [[(-1, 0, 0)]]}, "class index of points must be an integer"),
        ({"size": 4, "points": [[(2, 0, 0)]], "n_classes": 2}, "below n_classes=2. Got 2"),
    ],
)
def test_errors(parameters, message):
    with pytest.raises(ValueError, match=message):
        extract_crops([IMAGE], **parameters)


def test_a_single_image_is_refused_with_advice():
    with pytest.raises(ValueError, match=r"pass a single image as \[image\]"):
        extract_crops(IMAGE, size=4)


def test_images_of_different_dtypes_are_refused():
    with pytest.raises(ValueError, match=r"one dtype.*Got \['uint16', 'uint8'\] instead"):
        extract_crops([IMAGE, IMAGE.astype(np.uint16)], size=4)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.int64])
@pytest.mark.parametrize("orders", ["<>", "><", ">>", "<<"])
def test_byte_orders_of_one_dtype_may_be_mixed(orders, dtype):
    image = IMAGE.astype(dtype) * 1000
    arrays = [image.astype(image.dtype.newbyteorder(order)) for order in orders]
    crops = extract_crops(arrays, size=4)
    assert crops.images.dtype == np.dtype(dtype)
    assert crops.images.dtype.isnative
    for block in (crops.images[0], np.asarray(crops.images), crops.images[1:3][0]):
        assert block.dtype.isnative
    np.testing.assert_array_equal(crops.images[0], image[:4, :4])
    np.testing.assert_array_equal(crops.images[4], image[:4, :4])


@pytest.mark.parametrize("name", ["images", "masks", "foreground"])
@pytest.mark.parametrize("pack", [lambda p: p, lambda p: [p], lambda p: np.array([p])])
@pytest.mark.parametrize("path", ["a.tif", Path("a.tif")])
def test_paths_are_refused_with_advice(name, pack, path):
    arguments = {"images": [IMAGE], name: pack(path)}
    message = rf"{name} must be arrays\. Got the path 'a\.tif' instead: pass read_images\(path\)"
    with pytest.raises(TypeError, match=message):
        extract_crops(arguments.pop("images"), size=4, **arguments)


@pytest.mark.parametrize("name", ["boxes", "points"])
@pytest.mark.parametrize("value", ["a.csv", ["a.csv"], [Path("a.csv")]])
def test_paths_of_tables_are_refused_with_advice(name, value):
    with pytest.raises(
        TypeError, match=rf"{name} must be arrays.*pass one table of numbers per im"
    ):
        extract_crops([IMAGE], size=4, **{name: value})


def test_what_read_images_returns_is_refused_with_advice():
    data = Bunch(images=[IMAGE], labels=None)
    with pytest.raises(
        TypeError, match=r"images must be arrays\. Got a Bunch instead: pass its im"
    ):
        extract_crops(data, size=4)
    with pytest.raises(TypeError, match=r"masks must be arrays\. Got a Bunch instead"):
        extract_crops([IMAGE], size=4, masks=data)
    with pytest.raises(TypeError, match=r"crops must be arrays\. Got a Bunch instead"):
        stitch_crops(data, [[0, 0, 0]], [(5, 7)])


def test_channels_on_the_first_axis_are_refused():
    with pytest.raises(
        ValueError, match=r"channels, at most 16, on the last.*\(3, 32, 40\) instead"
    ):
        extract_crops(np.zeros((2, 3, 32, 40)), size=4)
    assert extract_crops(np.zeros((1, 5, 7, 16)), size=4).images.shape == (4, 4, 4, 16)


@pytest.mark.parametrize("name", ["masks", "foreground"])
def test_masks_must_not_hold_nan(name):
    mask = np.zeros((5, 7))
    mask[4, 6] = np.nan
    with pytest.raises(ValueError, match=f"The {name} must hold no NaN"):
        extract_crops([IMAGE], size=4, **{name: [mask]})


def test_masks_of_different_numbers_of_classes_are_refused():
    masks = [np.ones((2, 5, 7)), np.ones((3, 5, 7))]
    with pytest.raises(ValueError, match="same number of classes"):
        extract_crops([IMAGE, IMAGE], size=4, masks=masks)

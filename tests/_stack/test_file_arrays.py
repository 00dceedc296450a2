import pickle

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from sklearn_micranet._stack._file_arrays import FileArray, by_name
from sklearn_micranet.images import extract_crops

IMAGE = np.random.default_rng(0).integers(0, 10**6, (50, 70))


@pytest.fixture
def mapped(tmp_path):
    np.save(tmp_path / "a.npy", IMAGE)
    return np.load(tmp_path / "a.npy", mmap_mode="r")


PARTS = {
    "all": lambda a: a,
    "part": lambda a: a[5:40:2, 7:60],
    "turned": lambda a: a[::-1, ::-3].T,
    "plain array": lambda a: np.asarray(a)[3:],
}


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_of_a_memory_map_the_name_travels(mapped, part):
    array = by_name(part(mapped))
    assert isinstance(array, FileArray)
    assert array.shape == part(IMAGE).shape
    sent = pickle.dumps(array)
    assert len(sent) < 1000
    assert_array_equal(pickle.loads(sent)[:], part(IMAGE))


def test_of_a_data_set_of_hdf5_the_name_travels(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x/y"] = IMAGE
    with h5py.File(tmp_path / "a.h5", "r") as file:
        array = by_name(file["x/y"])
        assert_array_equal(array[3:9, 5:7], IMAGE[3:9, 5:7])
        copy = pickle.loads(pickle.dumps(array))
    assert_array_equal(copy[3:9, 5:7], IMAGE[3:9, 5:7])


def test_what_is_in_no_file_stays_as_it_is(mapped, tmp_path):
    changed = np.load(tmp_path / "a.npy", mmap_mode="c")
    changed[0, 0] = -1
    for array in (IMAGE, IMAGE[3:], changed, IMAGE.tolist()):
        assert by_name(array) is array
    (tmp_path / "a.npy").rename(tmp_path / "b.npy")
    assert by_name(mapped) is mapped


def test_crops_of_a_memory_map_travel_with_its_name(mapped):
    crops = extract_crops([mapped], size=20, step=10).images
    assert len(pickle.dumps(crops)) < IMAGE.nbytes / 4
    assert_array_equal(pickle.loads(pickle.dumps(crops))[:], crops[:])

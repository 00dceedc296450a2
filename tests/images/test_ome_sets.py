import re

import numpy as np
import pytest
import tifffile

from sklearn_micranet.images._read_images import read_images

STACK = np.random.default_rng(0).integers(0, 65536, (3, 2, 2, 5, 6)).astype(np.uint16)  # TCZYX


def write_set(folder, files, has_root=True):
    """Write a set of OME-TIFF files.

    Parameters
    ----------
    files : dict of str to list of (int, int, int)
        Indices along T, C and Z of the pages of each file.
    has_root : bool
        Whether the metadata says which of the files it is in.
    """
    uuids = {
        name: f"urn:uuid:0000000{i}-0000-0000-0000-000000000000" for i, name in enumerate(files)
    }
    places = [(name, i, *place) for name, pages in files.items() for i, place in enumerate(pages)]
    sizes = np.max([place[2:] for place in places], axis=0) + 1
    pixels = "".join(
        f'<TiffData IFD="{i}" FirstT="{t}" FirstC="{c}" FirstZ="{z}" PlaneCount="1">'
        f'<UUID FileName="{name}">{uuids[name]}</UUID></TiffData>'
        for name, i, t, c, z in places
    )
    for name, pages in files.items():
        root = f'UUID="{uuids[name]}"' if has_root else ""
        metadata = (
            f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" {root}>'
            '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" '
            'SizeX="6" SizeY="5" SizeT="{}" SizeC="{}" SizeZ="{}">'.format(*sizes)
            + f"{pixels}</Pixels></Image></OME>"
        )
        with tifffile.TiffWriter(folder / name) as tif:
            for i, place in enumerate(pages):
                text = metadata if i == 0 else None
                tif.write(STACK[place], description=text, metadata=None, contiguous=False)


TIMES = {f"t{t}.ome.tif": [(t, 0, 0)] for t in range(3)}
BLOCKS = {f"t{t}.ome.tif": [(t, c, z) for c in range(2) for z in range(2)] for t in range(3)}


@pytest.fixture(params=[True, False], ids=["with root", "without root"])
def has_root(request):
    return request.param


def test_the_test_files_are_a_set(tmp_path, has_root):
    write_set(tmp_path, TIMES, has_root)
    for name in TIMES:
        np.testing.assert_array_equal(tifffile.imread(tmp_path / name), STACK[:, 0, 0])


@pytest.mark.parametrize("plane", [None, 0])
@pytest.mark.parametrize("missing", [(), ("t0.ome.tif",), ("t1.ome.tif", "t2.ome.tif")])
def test_files_of_one_plane_are_read_as_their_own(tmp_path, has_root, missing, plane):
    write_set(tmp_path, TIMES, has_root)
    for name in missing:
        (tmp_path / name).unlink()
    left = [int(name[1]) for name in TIMES if name not in missing]
    np.testing.assert_array_equal(read_images(tmp_path, plane=plane).images, STACK[left, 0, 0])


def test_a_plane_is_read_from_the_file_that_holds_it(tmp_path, has_root):
    write_set(tmp_path, TIMES, has_root)
    message = (
        r"t0\.ome\.tif cannot be read: it is one of a set .* T 0 to 0, C 0 to 0, Z 0 to 0, by ax"
    )
    with pytest.raises(ValueError, match=message):
        read_images(tmp_path, plane={"T": 1})
    with pytest.warns(UserWarning, match=r"2 file\(s\) skipped"):
        data = read_images(tmp_path, plane={"T": 1}, on_error="skip")
    assert data.filenames == [str(tmp_path / "t1.ome.tif")]
    np.testing.assert_array_equal(data.images, STACK[1:2, 0, 0])


def test_planes_of_each_file_are_chosen_by_axis_or_number(tmp_path, has_root):
    write_set(tmp_path, BLOCKS, has_root)
    (tmp_path / "t0.ome.tif").unlink()
    one = read_images(tmp_path, plane={"C": 1, "Z": 0}).images
    np.testing.assert_array_equal(one, STACK[1:, 1, 0])
    channels = read_images(tmp_path, plane={"Z": 1}).images
    np.testing.assert_array_equal(channels, np.moveaxis(STACK[1:, :, 1], 1, -1))
    np.testing.assert_array_equal(read_images(tmp_path, plane=1).images, STACK[1:, 0, 1])
    for plane in (None, {"C": 0}, {"Z": 2}, {"Q": 0}):
        with pytest.raises(
            ValueError, match=r"Choose one of its 4 page\(s\) by number, or of its pl"
        ):
            read_images(tmp_path, plane=plane)


def test_pages_that_fill_no_grid_are_chosen_by_number(tmp_path):
    write_set(tmp_path, {"a.ome.tif": [(0, 0, 0), (1, 1, 0)], "b.ome.tif": [(0, 1, 0), (1, 0, 0)]})
    with pytest.raises(
        ValueError, match=r"one of its 2 page\(s\) by number\. Got plane=\{'T': 0\}"
    ):
        read_images(tmp_path, plane={"T": 0})
    np.testing.assert_array_equal(read_images(tmp_path, plane=1).images, STACK[1, [1, 0], 0])


def test_renamed_files_are_known_by_their_identifier(tmp_path):
    write_set(tmp_path, {"a.ome.tif": BLOCKS["t0.ome.tif"]})
    (tmp_path / "a.ome.tif").rename(tmp_path / "b.tif")
    images = read_images(tmp_path, plane={"Z": 1, "C": 0}).images
    np.testing.assert_array_equal(images, STACK[:1, 0, 1])


def test_a_renamed_file_without_identifier_is_read_by_number(tmp_path):
    write_set(tmp_path, {"a.ome.tif": BLOCKS["t0.ome.tif"]}, has_root=False)
    (tmp_path / "a.ome.tif").rename(tmp_path / "b.tif")
    with pytest.raises(
        ValueError, match=r"b\.tif cannot be read.*Choose one of its 4 page\(s\) by n"
    ):
        read_images(tmp_path, plane={"Z": 1, "C": 0})
    np.testing.assert_array_equal(read_images(tmp_path, plane=1).images, STACK[:1, 0, 1])


def test_metadata_in_another_file_is_not_looked_for(tmp_path):
    text = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
    text += '<BinaryOnly MetadataFile="a.companion.ome" UUID="urn:uuid:0"/></OME>'
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK[0, 0, 0], description=text, metadata=None)
    np.testing.assert_array_equal(read_images(tmp_path).images, STACK[:1, 0, 0])


def test_metadata_that_names_missing_pages_is_an_error(tmp_path):
    write_set(tmp_path, {"a.ome.tif": BLOCKS["t0.ome.tif"]})
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tif:
        text = tif.ome_metadata
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK[0, 0, 0], description=text, metadata=None)
    with pytest.raises(
        ValueError, match=r"a\.ome\.tif cannot be read: it lacks planes that its meta"
    ):
        read_images(tmp_path, plane={"C": 1, "Z": 0})


def test_all_pages_may_be_declared_at_once(tmp_path):
    write_set(tmp_path, BLOCKS)
    for path in tmp_path.iterdir():
        with tifffile.TiffFile(path) as tif:
            text = tif.ome_metadata
        kept = [part for part in text.split("<TiffData") if 'IFD="0"' in part or "<OME" in part]
        kept = "<TiffData".join(kept).replace(' IFD="0"', "").replace(' PlaneCount="1"', "")
        text = kept if "</OME>" in kept else kept + "</Pixels></Image></OME>"
        time = int(path.name[1])
        with tifffile.TiffWriter(path) as tif:
            for i, page in enumerate(STACK[time].reshape(4, 5, 6)):
                description = text if i == 0 else None
                tif.write(page, description=description, metadata=None, contiguous=False)
    images = read_images(tmp_path, plane={"C": 1, "Z": 0}).images
    np.testing.assert_array_equal(images, STACK[:, 1, 0])


def test_identifiers_without_a_name_are_of_other_files(tmp_path):
    text = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="6" '
        'SizeY="5" SizeT="2" SizeC="1" SizeZ="1"><TiffData FirstT="0" IFD="0"><UUID>urn:uuid:0'
        '</UUID></TiffData><TiffData FirstT="1" IFD="0"><UUID>urn:uuid:1</UUID></TiffData></Pixels>'
        "</Image></OME>"
    )
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK[1, 0, 0], description=text, metadata=None)
    np.testing.assert_array_equal(read_images(tmp_path, plane={"T": 1}).images, STACK[1:2, 0, 0])
    np.testing.assert_array_equal(read_images(tmp_path).images, STACK[1:2, 0, 0])


@pytest.mark.parametrize("wrong", ['FirstT="3"', 'FirstT="x"', 'SizeT="x"'])
def test_sets_with_wrong_indices_are_read_by_number(tmp_path, wrong):
    write_set(tmp_path, BLOCKS)
    path, name = tmp_path / "t1.ome.tif", wrong.partition("=")[0]
    with tifffile.TiffFile(path, mode="r+") as tif:
        text = re.sub(rf'{name}="."', wrong, tif.ome_metadata)
        assert wrong in text
        tif.pages[0].tags["ImageDescription"].overwrite(text)
    with pytest.raises(
        ValueError, match=r"Choose one of its 4 page\(s\) by number\. Got plane=\{'C'"
    ):
        read_images(path, plane={"C": 1, "Z": 0})
    np.testing.assert_array_equal(read_images(path, plane=2).images, STACK[1:2, 1, 0])


def test_broken_metadata_is_ignored(tmp_path):
    text = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image></OME>'
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK[1, 0, 0], description=text, metadata=None)
    np.testing.assert_array_equal(read_images(tmp_path).images, STACK[1:2, 0, 0])

from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
import tifffile

from sklearn_micranet.images._read_images import read_images


def write(path, *lines):
    path.write_text("\n".join(lines))
    return path


def test_class_labels(folder):
    rows = ["b.png,empty", "", "sub/c.TIFF, cells", "a.tif,cells"]
    data = read_images(folder, labels=write(folder / "y.csv", "file,label", *rows))
    assert data.labels.tolist() == ["cells", "empty", "cells"]
    assert data.target_names == ["cells", "empty"]


def test_numeric_class_labels_become_integers(folder):
    csv = write(folder / "y.csv", "\ufefffile,label", "a.tif,1", "b.png,0", "c.TIFF,10")
    data = read_images(folder, labels=csv)
    np.testing.assert_array_equal(data.labels, [1, 0, 10])
    assert data.target_names == ["0", "1", "10"]


def test_negative_class_labels_become_integers(folder):
    csv = write(folder / "y.csv", "file,label", "a.tif,1", "b.png,-1", "c.TIFF,1")
    data = read_images(folder, labels=csv)
    np.testing.assert_array_equal(data.labels, [1, -1, 1])
    assert data.labels.dtype == np.int64
    assert data.target_names == ["-1", "1"]


def test_numbers_too_long_for_int64_stay_strings(folder):
    csv = write(folder / "y.csv", "file,label", "a.tif,1", "b.png,9223372036854775808", "c.TIFF,1")
    assert read_images(folder, labels=csv).labels.tolist() == ["1", "9223372036854775808", "1"]


@pytest.mark.parametrize("header", ["file,label", "file,rings,fibres"])
def test_empty_cells_are_missing_labels(folder, header):
    cells = ",1" * header.count(",")
    rows = [f"a.tif{cells}", f"b.png{cells}", f"c.TIFF{cells[:-1]} "]
    csv = write(folder / "y.csv", header, *rows)
    with pytest.raises(ValueError, match=r"c\.TIFF has no label in .*y\.csv: .*an empty cell"):
        read_images(folder, labels=csv)
    with pytest.warns(UserWarning, match=r"1 file\(s\) skipped:\n.*c\.TIFF has no label"):
        data = read_images(folder, labels=csv, on_error="skip")
    assert data.labels.all()
    assert [name for name, _ in data.skipped] == [str(folder / "c.TIFF")]


def test_indicator_labels(folder):
    csv = write(folder / "y.csv", "file,rings,fibres", "a.tif,1,0", "b.png,1,1", "c.TIFF,0,0")
    data = read_images(folder, labels=csv)
    np.testing.assert_array_equal(data.labels, [[1, 0], [1, 1], [0, 0]])
    assert data.target_names == ["rings", "fibres"]


def test_one_indicator_column(folder):
    csv = write(folder / "y.csv", "file,rings", "a.tif,1", "b.png,0", "c.TIFF,1")
    data = read_images(folder, labels=csv)
    np.testing.assert_array_equal(data.labels, [1, 0, 1])
    assert data.target_names == ["rings"]


def test_rows_of_files_that_are_not_read_are_ignored(folder):
    csv = write(folder / "y.csv", "file,label", "a.tif,x", "b.png,y", "c.TIFF,x")
    assert read_images(folder / "*.png", labels=csv).labels.tolist() == ["y"]


def test_files_and_rows_must_fit(folder):
    rows = ["a.tif,x", "b.png,x"]
    with pytest.raises(ValueError, match=r"c\.TIFF has no label in .*y\.csv"):
        read_images(folder, labels=write(folder / "y.csv", "file,label", *rows))
    rows += ["c.TIFF,x", "gone.tif,x"]
    with pytest.raises(ValueError, match=r"gone\.tif cannot be read"):
        read_images(folder, labels=write(folder / "y.csv", "file,label", *rows))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["file|label", "a.tif|x"], "separated by commas"),
        (["file,label;sure", "a.tif,x;1"], "separated by commas"),
        (["file,a,a", "a.tif,0,1"], r"name each column once. Got \['a', 'a'\] instead"),
        (["file,rings", "a.tif,yes"], "rings must hold 0 or 1. Got 'yes' instead"),
        (["a.tif,x", "b.png,y"], "must have a header. Got 'a.tif' instead"),
        (["file,label", 'a.tif,"x', "b.png,x" * 30_000], "must have a header and rows of the same"),
        (["PK\3\4\0\0"], "must be a CSV file in UTF-8"),
        ([""], "must have a header"),
        (["file,label", "a.tif,x,y"], "rows of the same length"),
        (["file,label", "a.tif,x", "a.tif,y"], "Got a name twice instead"),
        (["file,class", "a.tif,x"], "class must hold 0 or 1.*must be named label"),
    ],
)
def test_csv_errors(folder, lines, message):
    with pytest.raises(ValueError, match=message):
        read_images(folder / "a.tif", labels=write(folder / "y.csv", *lines))


def test_files_of_the_same_name_cannot_share_a_label(folder, images):
    (folder / "sub").mkdir()
    tifffile.imwrite(folder / "sub" / "a.tif", images[0])
    csv = write(folder / "y.csv", "file,label", "a.tif,x")
    with pytest.raises(ValueError, match="Files must differ in name"):
        read_images(folder / "**" / "a.tif", labels=csv)


ROWS = ["a.tif,cells", "b.png,empty", "c.TIFF,cells"]


def write_bytes(path, lines, encoding):
    path.write_bytes("\r\n".join(lines).encode(encoding))
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_other_delimiters(folder, delimiter):
    lines = [line.replace(",", delimiter) for line in ["file,label", *ROWS]]
    labels = read_images(folder, labels=write(folder / "y.csv", *lines)).labels
    assert labels.tolist() == ["cells", "empty", "cells"]


def test_a_delimiter_may_occur_in_a_quoted_cell(folder):
    lines = ["file;label", 'a.tif;"small; round"', "b.png;x, y", "c.TIFF;x, y"]
    labels = read_images(folder, labels=write(folder / "y.csv", *lines)).labels
    assert labels.tolist() == ["small; round", "x, y", "x, y"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252"])
def test_encodings(folder, encoding):
    (folder / "a.tif").rename(folder / "zélé.tif")
    rows = ["zélé.tif,kühl", "b.png,ça", "c.TIFF,kühl"]
    data = read_images(
        folder, labels=write_bytes(folder / "y.csv", ["file,label", *rows], encoding)
    )
    assert data.labels.tolist() == ["ça", "kühl", "kühl"]
    assert data.filenames[-1] == str(folder / "zélé.tif")


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("in_table", ["NFC", "NFD"])
def test_accents_match_in_either_form(folder, on_disk, in_table):
    (folder / "a.tif").rename(folder / normalize(on_disk, "é.tif"))
    rows = [
        normalize(in_table, "é.tif,ü"),
        normalize("NFC", "b.png,ü"),
        normalize("NFD", "c.TIFF,ü"),
    ]
    data = read_images(folder, labels=write(folder / "y.csv", "file,label", *rows))
    assert data.target_names == [normalize("NFC", "ü")]
    assert [Path(name).name for name in data.filenames][-1] == normalize(on_disk, "é.tif")


def test_folders_in_the_manner_of_windows_are_ignored(folder):
    rows = [r"C:\plate 1\a.tif,x", r"..\b.png,y", "plates/1/c.TIFF,x"]
    data = read_images(folder, labels=write(folder / "y.csv", "file,label", *rows))
    assert data.labels.tolist() == ["x", "y", "x"]


@pytest.mark.parametrize("one", ["01", "1.0", "+1", "\N{FULLWIDTH DIGIT ONE}", "-0"])
def test_labels_that_would_become_one_integer_stay_strings(folder, one):
    csv = write(folder / "y.csv", "file,label", f"a.tif,{one}", "b.png,1", "c.TIFF,0")
    data = read_images(folder, labels=csv)
    assert data.labels.tolist() == [one, "1", "0"]
    assert data.target_names == sorted([one, "1", "0"])


@pytest.mark.parametrize("missing", ["", "nan", "NaN", "NA"])
@pytest.mark.parametrize("header", ["file,label", "file,rings"])
def test_missing_labels_are_no_class(folder, header, missing):
    csv = write(folder / "y.csv", header, "a.tif,1", f"b.png,{missing}", "c.TIFF,0")
    with pytest.raises(ValueError, match=r"b\.png has no label in .*y\.csv: its row has an empty"):
        read_images(folder, labels=csv)


def test_empty_rows_and_columns_of_a_spreadsheet_are_ignored(folder):
    rows = [f"{row},," for row in ROWS]
    csv = write(folder / "y.csv", "file,label,,", rows[0], ",,,", *rows[1:], ",,,")
    assert read_images(folder, labels=csv).labels.tolist() == ["cells", "empty", "cells"]


def test_rows_of_hidden_files_are_ignored(folder):
    csv = write(folder / "y.csv", "file,label", "._a.tif,cells", *ROWS)
    assert read_images(folder, labels=csv).labels.tolist() == ["cells", "empty", "cells"]


def test_names_need_their_suffix(folder):
    csv = write(folder / "y.csv", "file,label", "a,cells")
    with pytest.raises(ValueError, match=r"a\.tif has no label.*starts with its name, suffix incl"):
        read_images(folder / "a.tif", labels=csv)

"""Blood smears with malaria parasites, and the boxes of their cells."""

import json
import zipfile

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils._param_validation import StrOptions, validate_params

from sklearn_micranet.datasets import _registry
from sklearn_micranet.datasets._download import FETCH_PARAMETERS, explained_damage, fetch_file
from sklearn_micranet.datasets._zipped_images import zipped_images

DESCR = """\
P. vivax (malaria) infected human blood smears, BBBC041v1
=========================================================

Giemsa-stained blood smears in brightfield, RGB, about 1200 x 1600 pixels, with a box and a
category for every cell. Infected: gametocyte, ring, trophozoite, schizont. Uninfected: red blood
cell, leukocyte. Cells that the experts could not tell are "difficult" and belong to neither.

Source: https://bbbc.broadinstitute.org/BBBC041
Licence: CC BY-NC-SA 3.0, https://creativecommons.org/licenses/by-nc-sa/3.0/
Citation: image set BBBC041v1, available from the Broad Bioimage Benchmark Collection (Ljosa, V.,
Sokolnicki, K. L., and Carpenter, A. E. Annotated high-throughput microscopy image sets for
validation. Nature Methods 9, 637 (2012). doi:10.1038/nmeth.2083).
The images: Hung, J., Goodman, A., Lopes, S., et al. Applying Faster R-CNN for object detection on
malaria images. arXiv:1804.09548 (2018).
"""

_ANNOTATIONS = {"train": "malaria/training.json", "test": "malaria/test.json"}
_INFECTED = ["gametocyte", "ring", "schizont", "trophozoite"]
_CATEGORIES = [*_INFECTED, "leukocyte", "red blood cell", "difficult"]


@validate_params(
    {"subset": [StrOptions(set(_ANNOTATIONS))], **FETCH_PARAMETERS},
    prefer_skip_nested_validation=True,
)
def fetch_p_vivax(
    *,
    subset="train",
    data_home=None,
    download_if_missing=True,
    return_X_y=False,
    progressbar=False,
):
    """Load the malaria blood smears BBBC041v1, downloaded (2.3 GB) if need be.

    `extract_crops` turns the images and ``infected_boxes`` into crops with image-level labels; in
    the paper a crop of 256 pixels shows an infected cell when at least 5 % of its box is inside.

    Parameters
    ----------
    subset : {"train", "test"}, default="train"
        The published split.
    data_home : str or path-like, default=None
        Folder of the data sets, see `get_data_home`.
    download_if_missing : bool, default=True
        If False, raise an OSError instead of downloading.
    return_X_y : bool, default=False
        If True, return ``(images, infected_boxes)`` instead of a Bunch.
    progressbar : bool, default=False
        Whether to show the progress of a download (needs tqdm).

    Returns
    -------
    p_vivax : :class:`~sklearn.utils.Bunch`
        Dictionary-like object with the following attributes.

        images : LazyStack of length n_samples
            Arrays of shape (height, width, 3), uint8, read from the archive when indexed. Sizes
            differ.
        boxes : list of n_samples ndarray of shape (n_boxes, 5), int64
            Every published box: category, an index into `target_names`, then first row, first
            column, last row and last column, px, as published.
        infected_boxes : list of n_samples ndarray of shape (n_boxes, 4), int64
            The boxes of infected cells, without the category.
        target_names : list of str
            The categories; the first four are infected, the last is "difficult".
        filenames : list of n_samples str
            Names of the images within the archive.
        DESCR : str
            Source, licence and citation.

    (images, infected_boxes) : tuple if `return_X_y=True`

    Raises
    ------
    OSError
        If the archive cannot be had, is damaged or lacks a file.

    Warns
    -----
    UserWarning
        At the first download, because no digest of the archive is published.

    Examples
    --------
    >>> from sklearn_micranet.datasets import fetch_p_vivax
    >>> from sklearn_micranet.images import extract_crops
    >>> images, boxes = fetch_p_vivax(return_X_y=True)  # doctest: +SKIP
    >>> crops = extract_crops(images, size=256, step=192, boxes=boxes)  # doctest: +SKIP
    """
    archive = fetch_file(
        _registry.P_VIVAX,
        data_home=data_home,
        download_if_missing=download_if_missing,
        progressbar=progressbar,
    )
    with explained_damage(_registry.P_VIVAX, archive), zipfile.ZipFile(archive) as members:
        annotations = json.loads(members.read(_ANNOTATIONS[subset]))
        filenames = ["malaria" + entry["image"]["pathname"] for entry in annotations]
        boxes = [_boxes(entry["objects"]) for entry in annotations]
        if not filenames or not set(filenames) <= set(members.namelist()):
            raise LookupError("it does not hold the images of its annotations")
    images = zipped_images(archive, filenames)
    infected_boxes = [box[box[:, 0] < len(_INFECTED), 1:] for box in boxes]
    if return_X_y:
        return images, infected_boxes
    return Bunch(
        images=images,
        boxes=boxes,
        infected_boxes=infected_boxes,
        target_names=list(_CATEGORIES),
        filenames=filenames,
        DESCR=DESCR,
    )


def _boxes(objects):
    """Return category, first row and column, last row and column of each object."""
    rows = [
        [_CATEGORIES.index(item["category"])]
        + [item["bounding_box"][corner][axis] for corner in ("minimum", "maximum") for axis in "rc"]
        for item in objects
    ]
    return np.array(rows, dtype=np.int64).reshape(-1, 5)

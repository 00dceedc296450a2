"""STED images of F-actin in neurons, with outlines of two nanostructures."""

from functools import partial
from pathlib import PurePosixPath

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils._param_validation import StrOptions, validate_params

from sklearn_micranet._stack._extras import import_extra
from sklearn_micranet._stack._lazy_stack import LazyStack
from sklearn_micranet.datasets import _registry
from sklearn_micranet.datasets._download import FETCH_PARAMETERS, fetch_file, place_of, unpack_files

DESCR = """\
F-actin nanostructures in neurons, STED nanoscopy
=================================================

Super-resolution images (20 nm pixels) of F-actin in fixed cultured hippocampal neurons, with the
outlines that experts drew around two nanostructures of the dendrites, periodical rings and
longitudinal fibres, and the foreground of the dendrites.

Source: https://s3.valeria.science/flclab-micranet/MICRA-Net.tar.gz
Licence: for non-commercial use only; read the licence inside the archive.
Citation: Bilodeau, A., Delmas, C. V. L., Parent, M., De Koninck, P., Durand, A., and
Lavoie-Cardinal, F. Microscopy analysis neural network to solve detection, enumeration and
segmentation from image-level annotations. Nature Machine Intelligence 4 (2022).
doi:10.1038/s42256-022-00472-w
The images: Lavoie-Cardinal, F., Bilodeau, A., Lemieux, M., et al. Neuronal activity remodels the
F-actin based submembrane lattice in dendrites but not axons of hippocampal neurons. Scientific
Reports 10, 11960 (2020). doi:10.1038/s41598-020-68180-2
"""

_FILES = {
    "train": "datasets/training_01-04-19.hdf5",
    "validation": "datasets/validation_01-04-19.hdf5",
    "test": "datasets/testing_01-04-19.hdf5",
}
_DENDRITE = 2  # channel of "label" after those of the two nanostructures


@validate_params(
    {"subset": [StrOptions(set(_FILES))], **FETCH_PARAMETERS}, prefer_skip_nested_validation=True
)
def fetch_f_actin(
    *,
    subset="train",
    data_home=None,
    download_if_missing=True,
    return_X_y=False,
    progressbar=False,
):
    """Load the F-actin images of the MICRA-Net paper, downloaded if need be.

    `extract_crops` turns them into crops with image-level labels; in the paper a crop of 256
    pixels every 192 pixels, dropped unless dendrite covers at least 10 % of it, shows a
    nanostructure that covers more than 5 % of it. The archive stays beside the files that are
    read; it may be deleted.

    Parameters
    ----------
    subset : {"train", "validation", "test"}, default="train"
        The published split.
    data_home : str or path-like, default=None
        Folder of the data sets, see `get_data_home`.
    download_if_missing : bool, default=True
        If False, raise an OSError instead of downloading.
    return_X_y : bool, default=False
        If True, return ``(images, masks)`` instead of a Bunch.
    progressbar : bool, default=False
        Whether to show the progress of a download (needs tqdm).

    Returns
    -------
    f_actin : :class:`~sklearn.utils.Bunch`
        Dictionary-like object with the following attributes.

        images : LazyStack of length n_samples
            Arrays of shape (height, width) with the dtype of the file, without the padding of
            the file, read when indexed. Sizes differ.
        masks : LazyStack of length n_samples
            Arrays of shape (2, height, width) of bool: where rings and fibres were outlined.
        dendrites : LazyStack of length n_samples
            Arrays of shape (height, width) of bool: the foreground.
        target_names : list of str
            ``["rings", "fibres"]``, the order of the masks.
        groups : ndarray of shape (n_samples,) of str
            The group of the file that holds each image.
        DESCR : str
            Source, licence and citation.

    (images, masks) : tuple if `return_X_y=True`

    Raises
    ------
    ImportError
        If h5py is not installed: ``pip install "sklearn-micranet[hdf5]"``.
    OSError
        If the archive cannot be had, is damaged or lacks a file.

    Examples
    --------
    >>> from sklearn_micranet.datasets import fetch_f_actin
    >>> f_actin = fetch_f_actin(subset="test")  # doctest: +SKIP
    >>> f_actin.images[0].shape == f_actin.dendrites[0].shape  # doctest: +SKIP
    True
    """
    h5py = import_extra("h5py", "hdf5")  # before gigabytes are downloaded in vain
    path = place_of(_registry.F_ACTIN, data_home).with_name(PurePosixPath(_FILES[subset]).name)
    if not path.exists():
        archive = fetch_file(
            _registry.F_ACTIN,
            data_home=data_home,
            download_if_missing=download_if_missing,
            progressbar=progressbar,
        )
        unpack_files(archive, _registry.F_ACTIN, _FILES.values())
    with h5py.File(path) as file:
        dtype = next(iter(file.values()))["data"].dtype
        places = [
            (group, index, height, width)
            for group, arrays in file.items()
            for index, (height, width) in enumerate(arrays["label"].attrs["shapes"])
        ]
    images = LazyStack(places, partial(_read_images, path), item_shape=None, dtype=dtype)
    read_masks = partial(_read_labels, path, slice(_DENDRITE))
    masks = LazyStack(places, read_masks, item_shape=None, dtype=bool)
    if return_X_y:
        return images, masks
    read_dendrites = partial(_read_labels, path, _DENDRITE)
    return Bunch(
        images=images,
        masks=masks,
        dendrites=LazyStack(places, read_dendrites, item_shape=None, dtype=bool),
        target_names=["rings", "fibres"],
        groups=np.array([group for group, *_ in places]),
        DESCR=DESCR,
    )


# The file is opened anew for every batch, so that stacks can be pickled and read by several
# processes at once.
def _read_images(path, places):
    import h5py

    with h5py.File(path) as file:
        return [
            file[group]["data"][index, :height, :width] for group, index, height, width in places
        ]


def _read_labels(path, channels, places):
    import h5py

    with h5py.File(path) as file:
        return [
            file[group]["label"][index, channels, :height, :width] > 0
            for group, index, height, width in places
        ]

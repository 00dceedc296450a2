"""Cell lines of the Cell Tracking Challenge, with masks of single cells."""

import re
import zipfile

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils._param_validation import StrOptions, validate_params

from sklearn_micranet.datasets import _registry
from sklearn_micranet.datasets._download import FETCH_PARAMETERS, explained_damage, fetch_file
from sklearn_micranet.datasets._zipped_images import zipped_images

DESCR = """\
Cell Tracking Challenge, two-dimensional cell lines
===================================================

Time-lapse sequences of one cell line, two sequences per archive. The training archives come with
masks of single cells: drawn by experts for some frames ("gold truth"), and for some lines computed
from the challenge's submissions for all frames ("silver truth"). In some of the expert's frames
only some cells are drawn.

Source: https://celltrackingchallenge.net/2d-datasets/
Conditions of use: https://celltrackingchallenge.net/datasets/. Publications must cite the paper
below and acknowledge the challenge. Scientific use outside the challenge needs the permission of
the data's providers, commercial use that of the organisers too.
Citation: Maska, M., Ulman, V., Delgado-Rodriguez, P., et al. The Cell Tracking Challenge: 10 years
of objective benchmarking. Nature Methods 20, 1010-1020 (2023). doi:10.1038/s41592-023-01879-y
"""

_TRUTH_FOLDERS = {"gold": "GT", "silver": "ST"}


@validate_params(
    {
        "name": [StrOptions(set(_registry.CELL_TRACKING["train"]))],
        "subset": [StrOptions(set(_registry.CELL_TRACKING))],
        "truth": [StrOptions(set(_TRUTH_FOLDERS)), None],
        **FETCH_PARAMETERS,
    },
    prefer_skip_nested_validation=True,
)
def fetch_cell_tracking(
    name,
    *,
    subset="train",
    truth="gold",
    data_home=None,
    download_if_missing=True,
    return_X_y=False,
    progressbar=False,
):
    """Load a cell line of the Cell Tracking Challenge, downloaded if need be.

    `extract_crops` turns the frames and masks into crops with image-level labels. Leave out the
    frames that are not `complete`: their crops may show cells that no mask covers.

    Parameters
    ----------
    name : {"DIC-C2DH-HeLa", "Fluo-C2DL-MSC", "Fluo-N2DH-GOWT1", "Fluo-N2DL-HeLa", \
            "PhC-C2DH-U373", "PhC-C2DL-PSC"}
        The cell line.
    subset : {"train", "test"}, default="train"
        The challenge's training or test archive. The latter holds frames only.
    truth : {"gold", "silver"} or None, default="gold"
        Which masks of the training archive to return, with the frames that have one: those of
        experts, or those computed from the challenge's submissions. ``None`` returns every frame,
        without masks.
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
    cells : :class:`~sklearn.utils.Bunch`
        Dictionary-like object with the following attributes.

        images : LazyStack of length n_samples
            Frames of shape (height, width), uint8 or uint16, read when indexed. The two
            sequences may differ in size.
        masks : LazyStack of length n_samples or None
            Instance masks of shape (height, width), uint16: 0 is background, every cell has its
            own positive number.
        complete : ndarray of shape (n_samples,) of bool, or None
            Whether a mask shows every cell, that is, overlaps every cell that the challenge
            tracks in that frame.
        sequences : ndarray of shape (n_samples,) of str
            Sequence of each frame, ``"01"`` or ``"02"``: groups that no split should cut.
        frames : ndarray of shape (n_samples,) of int
            Number of each frame within its sequence.
        DESCR : str
            Source, conditions of use and citation.

    (images, masks) : tuple if `return_X_y=True`

    Raises
    ------
    OSError
        If the archive cannot be had, is damaged or lacks a file.
    ValueError
        If a parameter has no legal value, or the cell line has no such masks.

    Examples
    --------
    >>> from sklearn_micranet.datasets import fetch_cell_tracking
    >>> cells = fetch_cell_tracking("PhC-C2DH-U373")  # doctest: +SKIP
    >>> images = cells.images[cells.complete]  # doctest: +SKIP
    >>> masks = cells.masks[cells.complete]  # doctest: +SKIP
    """
    remote = _registry.CELL_TRACKING[subset][name]
    archive = fetch_file(
        remote,
        data_home=data_home,
        download_if_missing=download_if_missing,
        progressbar=progressbar,
    )
    with explained_damage(remote, archive):
        images = _members(archive, rf"{name}/(\d\d)/t(\d+)\.tif")
        if not images:
            raise LookupError(f"it holds no frame of {name}")
    keys = sorted(images)
    masks = complete = None
    if subset == "train" and truth is not None:
        masks = _members(archive, rf"{name}/(\d\d)_{_TRUTH_FOLDERS[truth]}/SEG/man_seg(\d+)\.tif")
        tracks = _members(archive, rf"{name}/(\d\d)_GT/TRA/man_track(\d+)\.tif")
        keys = sorted(images.keys() & masks.keys())
        if not keys:
            raise ValueError(
                f"truth must be one that {name} has. Got {truth!r} instead, of which its archive "
                "holds no mask. Try another truth."
            )
        if lacking := [key for key in keys if key not in tracks]:
            with explained_damage(remote, archive):
                raise LookupError(f"it holds no tracks of (sequence, frame) {lacking}")
        masks = zipped_images(archive, [masks[key] for key in keys])
        tracks = zipped_images(archive, [tracks[key] for key in keys])
        complete = np.array(
            [_is_complete(mask, track) for mask, track in zip(masks, tracks, strict=True)]
        )
    images = zipped_images(archive, [images[key] for key in keys])
    if return_X_y:
        return images, masks
    return Bunch(
        images=images,
        masks=masks,
        complete=complete,
        sequences=np.array([sequence for sequence, _ in keys]),
        frames=np.array([frame for _, frame in keys]),
        DESCR=DESCR,
    )


def _members(archive, pattern):
    """Map (sequence, frame) to the archive's file whose whole name matches."""
    with zipfile.ZipFile(archive) as members:
        matches = [re.fullmatch(pattern, name) for name in members.namelist()]
    return {(match[1], int(match[2])): match[0] for match in matches if match}


def _is_complete(mask, track):
    """Whether every tracked cell overlaps a cell of the mask."""
    return np.setdiff1d(track[track > 0], track[mask > 0]).size == 0

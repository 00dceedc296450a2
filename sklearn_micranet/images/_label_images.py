"""Objects as label images: TIFF for ImageJ, OME-TIFF and OME-Zarr 0.4."""

import re
from xml.etree import ElementTree

import numpy as np

from sklearn_micranet._stack._extras import import_extra
from sklearn_micranet._stack._ome import ome_metadata

from ._ome_zarr import OmeZarrImage

_OME_UNITS = {"nm": "nm", "um": "µm", "mm": "mm"}


def write_label_tiff(path, sample):
    """Write a TIFF for ImageJ: one channel per class, whose values are the numbers."""
    import tifffile

    labels = _as_unsigned(sample.instances)
    if labels.dtype != np.uint16:  # ImageJ has no wider integers
        labels = labels.astype(np.float32)
    # With fewer axes, tifffile turns images that are 1 px wide.
    metadata = {"axes": "TZCYXS", "Labels": sample.labels, "min": 0, "max": float(labels.max())}
    resolution = None
    if sample.pixel_size is not None:
        metadata["unit"] = sample.unit
        resolution = (1 / sample.pixel_size,) * 2
    tifffile.imwrite(
        path,
        labels[np.newaxis, np.newaxis, ..., np.newaxis],
        imagej=True,
        metadata=metadata,
        resolution=resolution,
    )


def write_ome_tiff(path, sample):
    """Write an OME-TIFF: one channel per class, whose values are the numbers."""
    import tifffile

    if unwritable := [label for label in sample.labels if re.search(r"[\x00-\x1f]", label)]:
        raise ValueError(  # XML turns line breaks and tabs into spaces, and knows no other of these
            "class_names must hold no line breaks, tabs or other control characters for OME-TIFF. "
            f"Got {unwritable[0]!r} instead: rename the class, or write OME-Zarr."
        )
    metadata = {"axes": "CYX", "Channel": {"Name": sample.labels}}
    if sample.pixel_size is not None:
        for axis in "XY":
            metadata[f"PhysicalSize{axis}"] = sample.pixel_size
            metadata[f"PhysicalSize{axis}Unit"] = _OME_UNITS[sample.unit]
    tifffile.imwrite(
        path,
        _as_unsigned(sample.instances),
        ome=True,
        metadata=metadata,
        photometric="minisblack",
        compression="zlib",
    )


def write_ome_zarr(path, sample):
    """Write an OME-Zarr 0.4: the image (c, y, x), and inside it one label image (y, x) per class.

    The metadata follow https://ngff.openmicroscopy.org/0.4/ with one resolution level.
    """
    image = sample.image if sample.image.ndim == 3 else sample.image[..., np.newaxis]
    if image.shape[:2] != sample.instances.shape[1:]:
        raise ValueError(
            f"images must have the height and width of their instances, "
            f"{sample.instances.shape[1:]}. Got the shape {sample.image.shape} instead."
        )
    written = OmeZarrImage(
        path,
        shape=image.shape,
        dtype=image.dtype,
        names=sample.labels,
        pixel_size=sample.pixel_size,
        unit=sample.unit,
    )
    written.image[...] = np.moveaxis(image, -1, 0)
    for array, label_image in zip(written.labels, sample.instances, strict=True):
        array[...] = label_image.astype(np.int32)
    written.finish([np.unique(labels[labels > 0]) for labels in sample.instances])


def _as_unsigned(instances):
    """Return instances as uint16 if they fit, else as uint32."""
    highest = instances.max(initial=0)
    if highest >= 2**24:  # the first integer after which float32 has gaps
        raise ValueError(
            f"Label images hold numbers below {2**24}. Got {highest} instead: number the objects "
            "from 1, for example with skimage.segmentation.relabel_sequential."
        )
    return instances.astype(np.uint16 if highest < 2**16 else np.uint32)


def read_label_tiff(path):
    """Return the label images of a TIFF and the names of their classes, or None."""
    import tifffile

    with tifffile.TiffFile(path) as tif:
        series = tif.series[0]
        labels, axes = series.asarray(), series.axes
        names = None
        if tif.is_ome:
            names = _ome_channel_names(tif.ome_metadata)
        elif tif.is_imagej:
            names = tif.imagej_metadata.get("Labels")
            names = [names] if isinstance(names, str) else names  # of a single plane
    if axes[-2:] != "YX" or labels.ndim > 3:
        raise ValueError(f"its axes are {axes}, where a label image has YX or CYX.")
    return np.reshape(labels, (-1, *labels.shape[-2:])), names


def _ome_channel_names(xml):
    # Not tifffile.xml2dict, which turns the name 007 into the number 7.
    image = ElementTree.fromstring(xml).find("{*}Image")
    names = [channel.get("Name") for channel in image.iterfind("{*}Pixels/{*}Channel")]
    return None if None in names else names


def read_ome_zarr(path):
    """Return the label images of an OME-Zarr 0.4 or 0.5 and the names of their classes."""
    zarr = import_extra("zarr", "zarr")
    root = zarr.open_group(path, mode="r")
    if "labels" not in root:
        raise ValueError("it has no labels.")
    group = root["labels"]
    label_images, names = [], []
    for folder in ome_metadata(group)["labels"]:
        multiscale = ome_metadata(group[folder])["multiscales"][0]
        labels = np.asarray(group[folder][multiscale["datasets"][0]["path"]])
        if labels.size != np.prod(labels.shape[-2:]):
            raise ValueError(f"its label image {folder} has several planes: {labels.shape}.")
        label_images.append(labels.reshape(labels.shape[-2:]))
        names.append(str(multiscale.get("name", folder)))
    return np.stack(label_images), names

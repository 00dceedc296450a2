"""Tell which planes of a set of OME-TIFF files lie in one of its files."""

from xml.etree import ElementTree

import numpy as np


class OwnPlanes:
    """Planes of a set of files that one of the files holds.

    Parameters
    ----------
    axes : str
        Letters of the axes, such as ``"TCZ"``; empty if they do not span the pages.
    indices : list of ndarray
        Per axis, the indices in the set whose planes the file holds.
    pages : ndarray of int
        Page of the file that holds each plane, one axis per letter.
    """

    def __init__(self, axes="", indices=(), pages=None):
        self.axes, self.indices, self.pages = axes, indices, pages

    def select(self, plane, n_pages):
        """Return the page of a plane, or one per channel.

        Parameters
        ----------
        plane : dict of str to int
            One index per axis, counted in the set.
        n_pages : int
            Number of pages of the file.
        """
        if n_pages == 1 and not plane:
            return [0]
        key = [plane.get(axis) for axis in self.axes]
        missing = not set(plane) <= set(self.axes)
        left = {a for a, k, own in self._axes(key) if k is None and len(own) > 1}
        if missing or not self.axes or not left <= {"C"} or not self._holds(key):
            ranges = ", ".join(f"{a} {o[0]} to {o[-1]}" for a, _, o in self._axes(key))
            raise ValueError(
                f"it is one of a set of files, each of which is read by itself. Choose one of its "
                f"{n_pages} page(s) by number"
                + (f", or of its planes, {ranges}, by axis. " if ranges else ". ")
                + f"Got plane={plane or None} instead."
            )
        places = [own == k if k is not None else own >= 0 for _, k, own in self._axes(key)]
        return self.pages[np.ix_(*places)].ravel().tolist()

    def _axes(self, key):
        return zip(self.axes, key, self.indices, strict=True)

    def _holds(self, key):
        return all(k is None or k in own for _, k, own in self._axes(key))


def own_planes(tif):
    """Return the planes of a file that is one of a set, ``None`` for any other file.

    Parameters
    ----------
    tif : tifffile.TiffFile
    """
    if not tif.is_ome:
        # Micro-Manager's files without OME metadata; tifffile collects the pages of all.
        is_own = tif.is_mmstack and all(
            page is not None and page.parent is tif for page in tif.series[0].pages
        )
        return OwnPlanes() if tif.is_mmstack and not is_own else None
    try:
        root = ElementTree.fromstring(tif.ome_metadata)
    except ElementTree.ParseError:  # tifffile takes such a file for a plain one.
        return None
    if _find(root, "BinaryOnly"):
        return OwnPlanes()
    named = _find(root, "UUID")
    own = root.get("UUID")
    if own is None:  # A file is then known by the name that it was saved under.
        name = tif.filename.lower()
        own = next((e.text for e in named if e.get("FileName", "").lower() == name), None)
    if all(element.text == own for element in named):
        return None
    try:
        places = [_places(pixels, own, len(tif.pages)) for pixels in _find(root, "Pixels")]
    except (TypeError, ValueError):  # Attributes are missing, or planes lie beyond their axes.
        return OwnPlanes()
    places = [found for found in places if found[1]]
    return _grid(*places[0]) if len(places) == 1 else OwnPlanes()


def _find(element, name):
    return [e for e in element.iter() if e.tag.rpartition("}")[2] == name]


def _places(pixels, own, n_pages):
    """Return the axes of an image, and where on them each page of a file lies.

    Returns
    -------
    axes : str
    places : dict of tuple of int to int
        Page by the indices along the axes.
    """
    n_samples = max([int(e.get("SamplesPerPixel", 1)) for e in _find(pixels, "Channel")] or [1])
    axes = pixels.get("DimensionOrder")[:1:-1]
    sizes = [int(pixels.get(f"Size{axis}")) // (n_samples if axis == "C" else 1) for axis in axes]
    places = {}
    for data in _find(pixels, "TiffData"):
        if [element.text for element in _find(data, "UUID")] != [own]:
            continue
        first = np.ravel_multi_index([int(data.get(f"First{axis}", 0)) for axis in axes], sizes)
        default = 1 if "IFD" in data.attrib else n_pages  # by the OME standard
        n_planes = int(data.get("PlaneCount", data.get("NumPlanes", default)))
        for i in range(min(n_planes, np.prod(sizes) - first)):
            place = np.unravel_index(first + i, sizes)
            places[tuple(map(int, place))] = int(data.get("IFD", 0)) + i
    return axes, places


def _grid(axes, places):
    """Return the planes of a file along the axes of the set, if they fill a grid."""
    indices = [np.unique(values) for values in zip(*places, strict=True)]
    pages = np.full([len(values) for values in indices], -1)
    for place, page in places.items():
        pages[tuple(map(np.searchsorted, indices, place))] = page
    return OwnPlanes(axes, indices, pages) if pages.min() >= 0 else OwnPlanes()

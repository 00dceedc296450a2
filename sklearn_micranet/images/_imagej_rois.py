"""Objects as ROIs in a zip file for ImageJ's ROI Manager.

Areas are in (x, y) of pixel corners, points in those of pixel centres: ImageJ's own conventions.
An object in one piece without holes is a traced ROI, as from ImageJ's wand; any other is a
composite ROI.
"""

import re

import numpy as np

from sklearn_micranet._stack._extras import import_extra

from ._instances import each_object
from ._outline_record import COLORS, Outline
from ._outlines import trace_outlines

_MAX_CORNER = 32767  # ImageJ reads higher integer corners as negative in some places
_MOVE, _LINE, _CLOSE = 0.0, 1.0, 4.0  # segments of a composite ROI
_N_OVAL = 1024  # corners of the polygon that stands for an oval


def write_rois(path, sample):
    """Write the objects of one sample as a zip file of ROIs."""
    roifile = import_extra("roifile", "roi")
    rois = [
        _roi(roifile, sample, k, number, place, mask)
        for k, label_image in enumerate(sample.instances)
        for number, place, mask in each_object(label_image)
    ]
    roifile.roiwrite(path, rois, mode="w")


def _roi(roifile, sample, k, number, place, mask):
    label = sample.labels[k]
    offset = (place[1].start, place[0].start)
    rings = [ring + offset for polygon in trace_outlines(mask) for ring in polygon]
    roi = roifile.ImagejRoi(
        # A slash would make a folder in the zip file; roifile takes characters of 16 bits only.
        name=re.sub(r"[/\\\s]|[^\u0000-\uffff]", "_", f"{label}-{number:04d}"),
        group=k + 1,
        stroke_color=bytes((255, *COLORS[k % len(COLORS)])),
        top=place[0].start,
        left=place[1].start,
        bottom=place[0].stop,
        right=place[1].stop,
    )
    # ImageJ keeps properties when a ROI is edited.
    roi.properties = {"class": _escape(label), "class_index": k, "object": number}
    if len(rings) == 1 and max(place[0].stop, place[1].stop) <= _MAX_CORNER:
        roi.roitype = roifile.ROI_TYPE.TRACED
        roi.integer_coordinates = (rings[0] - offset).astype(np.int32)
        roi.n_coordinates = len(rings[0])
    else:
        roi.roitype = roifile.ROI_TYPE.RECT
        roi.multi_coordinates = np.concatenate([_path(ring) for ring in rings])
        roi.shape_roi_size = len(roi.multi_coordinates)
    return roi


def _escape(label):
    """Write whatever is no plain character as Java's properties files do."""
    return re.sub(r"[^ -\[\]-~]", _escape_character, label)


def _escape_character(found):
    units = found[0].encode("utf-16-be").hex("-", 2).split("-")
    return "".join(f"\\u{unit}" for unit in units)


def _unescape(label):
    label = re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), label)
    return label.encode("utf-16", "surrogatepass").decode("utf-16")


def _path(ring):
    kinds = np.full(len(ring), _LINE)
    kinds[0] = _MOVE
    segments = np.column_stack([kinds, ring])
    return np.append(segments, _CLOSE).astype(np.float32)


def read_rois(path):
    """Return the outlines and points of a zip file of ROIs, or of a single ROI file."""
    roifile = import_extra("roifile", "roi")
    rois = roifile.roiread(path)
    return [_read_roi(roifile, roi) for roi in (rois if isinstance(rois, list) else [rois])]


def _read_roi(roifile, roi):
    properties = dict(line.split(": ", 1) for line in roi.props.splitlines() if ": " in line)
    kind = roi.roitype
    rings, points = [], np.empty((0, 2))
    if kind == roifile.ROI_TYPE.POINT:
        points = np.asarray(roi.coordinates(), dtype=float)[:, ::-1]
    else:
        rings = [ring for ring in _rings(roifile, roi) if len(ring)]
    if not rings and not len(points):
        raise ValueError(f"its ROI {roi.name!r} has no coordinates. Delete it.")
    index = int(properties["class_index"]) if "class_index" in properties else None
    label = _unescape(properties["class"]) if "class" in properties else None
    if roi.group > 0 and roi.group - 1 != index:  # somebody chose another group in Fiji
        index, label = roi.group - 1, None
    return Outline(
        name=f"ROI {roi.name!r}",
        label=label,
        number=int(properties["object"]) if "object" in properties else None,
        rings=rings,
        points=points,
        class_index=index,
    )


def _rings(roifile, roi):
    types, subtypes = roifile.ROI_TYPE, roifile.ROI_SUBTYPE
    is_plain = roi.subtype not in (subtypes.TEXT, subtypes.ARROW, subtypes.IMAGE)
    is_plain &= not roi.options & roifile.ROI_OPTIONS.SPLINE_FIT and not roi.rounded_rect_arc_size
    if is_plain and roi.composite:
        try:
            return roi.coordinates(multi=True)
        except NotImplementedError:  # curves
            is_plain = False
    if is_plain and roi.roitype in (types.POLYGON, types.FREEHAND, types.TRACED):
        return [roi.coordinates()]
    if is_plain and roi.roitype in (types.RECT, types.OVAL):
        box = (roi.left, roi.top, roi.right - roi.left, roi.bottom - roi.top)
        x, y, width, height = (roi.xd, roi.yd, roi.widthd, roi.heightd) if roi.subpixelrect else box
        if roi.roitype == types.OVAL:
            angles = np.arange(_N_OVAL) * (2 * np.pi / _N_OVAL)
            corners = np.column_stack([np.cos(angles), np.sin(angles)]) / 2 + 0.5
        else:
            corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)])
        return [corners * (width, height) + (x, y)]
    raise ValueError(
        f"its ROI {roi.name!r} is a line, an angle, a text or a curve, which is no object here. "
        "Delete it, or make it a polygon in Fiji (Edit > Selection > Interpolate)."
    )

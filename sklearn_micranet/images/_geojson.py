"""Objects as GeoJSON in QuPath's convention.

A feature has a geometry, Polygon or MultiPolygon in (x, y) of pixel corners, and the properties
objectType, name, classification (a name and a colour) and measurements (a JSON object).
"""

import json

import numpy as np

from ._instances import each_object
from ._outline_record import COLORS, Outline
from ._outlines import trace_outlines

_KINDS = {"Polygon", "MultiPolygon", "Point", "MultiPoint"}  # that are read


def write_geojson(path, sample):
    """Write the objects of one sample as a collection of features."""
    if "" in sample.labels:  # in QuPath the same as no class
        raise ValueError(
            "class_names must not be empty for GeoJSON. "
            f"Got {sample.labels} instead: give the class a name."
        )
    features = [
        _feature(sample, k, number, _geometry(mask, place))
        for k, label_image in enumerate(sample.instances)
        for number, place, mask in each_object(label_image)
    ]
    # Without spaces, because coordinates are most of the file.
    text = json.dumps(
        {"type": "FeatureCollection", "features": features},
        separators=(",", ":"),
        allow_nan=False,
    )
    path.write_text(text, encoding="utf-8")


def _feature(sample, k, number, geometry):
    label = sample.labels[k]
    if (label, number) not in sample.measurements:
        raise ValueError(
            f"table must have a row for every object. Got none for object {number} of class "
            f"{label!r} instead: are sample_names and class_names those of the table?"
        )
    return {
        "type": "Feature",
        "geometry": geometry,
        "properties": {
            "objectType": sample.object_type,
            "name": str(number),
            "classification": {"name": label, "color": COLORS[k % len(COLORS)]},
            "measurements": sample.measurements[label, number],
        },
    }


def _geometry(mask, place):
    offset = (place[1].start, place[0].start)
    polygons = [
        [(np.vstack([ring, ring[:1]]) + offset).tolist() for ring in polygon]
        for polygon in trace_outlines(mask)
    ]
    if len(polygons) == 1:
        return {"type": "Polygon", "coordinates": polygons[0]}
    return {"type": "MultiPolygon", "coordinates": polygons}


def read_geojson(path):
    """Return the outlines and points of a collection, a list, or one feature."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(content, dict):
        content = content.get("features", [content])
    if not isinstance(content, list) or not all(
        isinstance(feature, dict) and "geometry" in feature for feature in content
    ):
        raise ValueError(
            "it must hold a FeatureCollection, a list of features or one feature, as from QuPath's "
            "File > Export objects as GeoJSON."
        )
    return [_read_feature(feature, i) for i, feature in enumerate(content)]


def _read_feature(feature, index):
    properties = feature.get("properties") or {}
    name = str(properties.get("name") or "")
    classification = properties.get("classification") or {}
    label = classification.get("name") or ": ".join(classification.get("names", [])) or None
    geometry = feature["geometry"] or {"type": "feature without a geometry"}  # null is legal
    kind, coordinates = geometry["type"], geometry.get("coordinates") or []
    rings, points = [], np.empty((0, 2))
    if kind == "Polygon":
        rings = [ring for ring in coordinates if ring]
    elif kind == "MultiPolygon":
        rings = [ring for polygon in coordinates for ring in polygon if ring]
    elif kind in ("Point", "MultiPoint") and coordinates:
        points = np.reshape(coordinates, (-1, np.shape(coordinates)[-1]))[:, 1::-1] - 0.5
    if not rings and not len(points):
        kind = f"{kind} without coordinates" if kind in _KINDS else kind  # legal too
        raise ValueError(
            f"its feature {index} ({name!r}) is a {kind}, which is no object. Delete it, or make "
            "it a polygon or a point."
        )
    return Outline(
        name=f"feature {index} ({name!r})",
        label=label,
        number=int(name) if name.isdecimal() else None,
        rings=[np.array(ring, dtype=float)[:, :2] for ring in rings],
        points=points,
    )

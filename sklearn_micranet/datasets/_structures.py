"""Dark structures in a field of tissue: objects, and distractors that are as dark."""

from typing import NamedTuple

import numpy as np

from sklearn_micranet.datasets._drawing import (
    beam,
    draw_texture,
    draw_waves,
    frequencies,
    irregular_disc,
    relative_radius,
    ring,
)

OBJECT = "object"
DISTRACTORS = ("striped", "smooth", "ring")
SIZE_RANGE = (0.85, 1.15)  # of object_size
WAVE = {OBJECT: 0.12, "striped": 0.12, "smooth": 0.04, "ring": 0.06}  # of the radius
REACH = 0.8  # of object_size; no structure reaches further from its centre
RING_THICKNESS = 0.3  # of the radius
N_VERTICES = 72
MAX_TRIES = 10_000

# Grey levels of 255, and px.
DARK, DARK_SPREAD, PALE, PALE_SPREAD = 75, 20, 160, 11
EDGE = 2
GRAIN, STRIPES, SMOOTH = 0.12, 0.10, 0.0  # peak frequencies, cycles per px
STRIPE_WIDTH = 0.3  # rad

PLACES, STRUCTURES = 100, 101  # parts of the seeds, beside the layers of the tissue


class Structure(NamedTuple):
    """An object or a distractor: everything that draws it."""

    kind: str
    index: int
    centre: np.ndarray  # row, column, px
    radius: float  # px
    waves: tuple


def place_structures(entropy, shape, n_objects, n_distractors, object_size):
    """Return all structures, none of which touches another or the border."""
    rng = np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(PLACES,)))
    kinds = [OBJECT] * rng.integers(*n_objects, endpoint=True)
    kinds += [DISTRACTORS[index % len(DISTRACTORS)] for index in range(n_distractors)]
    reach = REACH * object_size
    centres = np.empty((0, 2))
    structures = []
    for index, kind in enumerate(kinds):
        for _ in range(MAX_TRIES):
            centre = rng.uniform(reach, np.array(shape) - 1 - reach)
            if (np.hypot(*(centres - centre).T) >= 2 * reach).all():
                break
        else:
            raise ValueError(
                f"shape must have room for {len(kinds)} objects and distractors of "
                f"object_size={object_size} px. Got {shape} instead, where {index} found a place: "
                "enlarge it or ask for fewer."
            )
        centres = np.vstack([centres, centre])
        radius = object_size / 2 * rng.uniform(*SIZE_RANGE)
        waves = draw_waves(rng, WAVE[kind])
        # The mean square of the relative radius, so that the area is that of a circle.
        radius /= np.sqrt(1 + (waves[0] ** 2).sum() / 2)
        structures.append(Structure(kind, index, centre, radius, waves))
    return structures


def window_of(structure):
    """Return first and end (row, column) of a square that holds the whole structure."""
    reach = int(structure.radius * (1 + structure.waves[0].sum())) + EDGE + 1
    middle = np.rint(structure.centre).astype(np.int64)
    return middle - reach, middle + reach + 1


def draw_structure(entropy, structure):
    """Return grey level and opacity of the pixels of a structure's window."""
    seeds = np.random.SeedSequence(entropy, spawn_key=(STRUCTURES, structure.index))
    rng = np.random.default_rng(seeds)
    dark, whole = ((0.5 + depth / EDGE).clip(0, 1) for depth in _depth(structure))
    radius, angle = frequencies(len(dark))
    transfer = ring(radius, {"striped": STRIPES, "smooth": SMOOTH}.get(structure.kind, GRAIN))
    if structure.kind == "striped":
        transfer *= beam(angle, rng.uniform(0, np.pi), STRIPE_WIDTH)
    texture = draw_texture(rng, transfer)
    inside = texture[dark == 1]
    texture = (texture - inside.mean()) / inside.std()
    # Only a ring has a pale part.
    grey = dark * (DARK + DARK_SPREAD * texture) + (1 - dark) * (PALE + PALE_SPREAD * texture)
    return np.float32(grey), np.float32(whole)


def boxes_and_masks(structures):
    """Return first and end (row, column) of the dark parts, and their pixels within these."""
    boxes, masks = np.empty((len(structures), 4), dtype=np.int64), []
    for box, structure in zip(boxes, structures, strict=True):
        mask = _depth(structure)[0] >= 0
        pixels = np.argwhere(mask)
        first, end = pixels.min(axis=0), pixels.max(axis=0) + 1
        masks.append(mask[first[0] : end[0], first[1] : end[1]])
        box[:] = np.concatenate([first, end]) + np.tile(window_of(structure)[0], 2)
    return boxes, masks


def outline_of(structure):
    """Return vertices (row, column) along the outline of a structure, px."""
    angles = np.linspace(0, 2 * np.pi, N_VERTICES, endpoint=False)
    radius = structure.radius * relative_radius(angles, structure.waves)
    return structure.centre + radius[:, np.newaxis] * np.stack([np.sin(angles), np.cos(angles)], 1)


def _depth(structure):
    """Return by how much each pixel of the window lies inside the dark part, and inside all."""
    first, end = window_of(structure)
    depth = irregular_disc(end - first, structure.centre - first, structure.radius, structure.waves)
    if structure.kind == "ring":
        return np.minimum(depth, RING_THICKNESS * structure.radius - depth), depth
    return depth, depth

"""Which windows an expert should look at first."""

import numpy as np


def proposal_table(scores, grids, map_index, max_overlap, n_windows):
    """Return the columns of a table with the windows that are proposed, the highest score first.

    Parameters
    ----------
    scores : list of n_fields ndarray of shape (n_rows, n_columns, n_maps)
    map_index : int or None
        Map to rank by; ``None`` for the one with the largest score in each window.

    Others are those of `rank_windows`.
    """
    maps = slice(None) if map_index is None else slice(map_index, map_index + 1)
    best = [of_field[..., maps].max(axis=-1) for of_field in scores]
    ranked, areas = rank_windows(best, grids, max_overlap=max_overlap, n_windows=n_windows)
    fields, corners = ranked[:, 0], ranked[:, 1:] * grids[0].step
    shapes = np.array([grid.shape for grid in grids])
    ends = np.minimum(corners + grids[0].size, shapes[fields])
    n_maps = scores[0].shape[-1]
    of_maps = np.reshape([scores[f][i, j] for f, i, j in ranked], (-1, n_maps))
    of_map = of_maps.argmax(axis=1) if map_index is None else np.full(len(ranked), map_index)
    return {
        "field": fields,
        "first_row": corners[:, 0],
        "first_column": corners[:, 1],
        "end_row": ends[:, 0],
        "end_column": ends[:, 1],
        "map_index": of_map,
        "score": of_maps[np.arange(len(ranked)), of_map].astype(np.float64),
        "area": areas,
        "inspected": np.cumsum(areas) / shapes.prod(axis=1).sum(),
    }


def rank_windows(scores, grids, *, max_overlap, n_windows=None):
    """Rank the windows of several fields, those aside that show what was inspected before.

    Parameters
    ----------
    scores : list of n_fields ndarray of shape (n_rows, n_columns)
        The higher, the earlier a window is inspected.
    grids : list of n_fields WindowGrid
    max_overlap : float in [0, 1)
        Share of a window that may have been inspected before.
    n_windows : int, default=None
        Largest number of windows.

    Returns
    -------
    ranked : ndarray of shape (n_proposals, 3)
        Field, row and column in the grid.
    areas : ndarray of shape (n_proposals,)
        What is new in each, px.
    """
    places = np.concatenate(
        [np.insert(np.argwhere(np.ones(s.shape)), 0, i, axis=1) for i, s in enumerate(scores)]
    )
    order = np.argsort(-np.concatenate([s.ravel() for s in scores]), kind="stable")
    unseen = [_block_areas(grid) for grid in grids]
    ranked, areas = [], []
    for field, row, column in places[order].tolist():
        if len(ranked) == n_windows:
            break
        grid = grids[field]
        length, stride = grid.size // grid.block, grid.step // grid.block
        window = (
            slice(row * stride, row * stride + length),
            slice(column * stride, column * stride + length),
        )
        corner = row * grid.step, column * grid.step
        whole = np.prod(
            [min(c + grid.size, n) - c for c, n in zip(corner, grid.shape, strict=True)]
        )
        new = int(unseen[field][window].sum())
        if whole - new <= max_overlap * whole and new:
            ranked.append((field, row, column))
            areas.append(new)
            unseen[field][window] = 0
    return np.reshape(ranked, (-1, 3)).astype(np.int64), np.array(areas, dtype=np.int64)


def _block_areas(grid):
    """Return the number of px of the field in each block, int32 of shape `grid.n_blocks`."""
    rows, columns = (
        np.clip(n - np.arange(n_blocks) * grid.block, 0, grid.block)
        for n, n_blocks in zip(grid.shape, grid.n_blocks, strict=True)
    )
    return np.outer(rows, columns).astype(np.int32)

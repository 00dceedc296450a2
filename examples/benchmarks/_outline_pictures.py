"""Pictures of the images on which outlines are the worst."""

import numpy as np


def show_worst(path, images, truth, masks, terms, n=3):
    """Write the images with the lowest scores: true outlines green, found ones magenta.

    Parameters
    ----------
    path : Path
    images : ndarray of shape (n_samples, height, width) or (n_samples, height, width, 3)
    truth, masks : bool ndarray of shape (n_samples, n_maps, height, width)
    terms : ndarray of shape (n_samples, 2)
        Numerator and denominator of the score of each image.
    n : int, default=3
    """
    from matplotlib.figure import Figure

    above, below = terms.T
    scores = np.where(below > 0, above / np.maximum(below, 1), np.inf)
    worst = np.argsort(scores)[:n]
    figure = Figure(figsize=(5 * n, 10), layout="tight")
    for column, i in zip(figure.subplots(2, n).T, worst, strict=True):
        for axes in column:
            axes.imshow(images[i], cmap="gray")
            axes.set_axis_off()
        column[0].set_title(f"image {i}: {scores[i]:.2f}")
        for k in range(truth.shape[1]):
            for mask, colour in ((truth[i, k], "lime"), (masks[i, k], "magenta")):
                if mask.any():
                    column[1].contour(mask, [0.5], colors=colour, linewidths=1)
                    row, at = np.argwhere(mask)[0]
                    column[1].text(at, row, str(k), color=colour, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=60)

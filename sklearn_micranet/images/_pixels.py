"""What every kind of file has in common: how its pixels are turned, and transparency."""

import numpy as np

# By the EXIF and TIFF standards: what turns the stored pixels upright. 1 are upright ones.
_TURNS = {
    2: np.fliplr,
    3: lambda image: np.rot90(image, 2),
    4: np.flipud,
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: np.rot90(image, 2).swapaxes(0, 1),
    8: np.rot90,
}


def turn(image, orientation):
    """Return an image as its orientation, 1 to 8, says that it is looked at."""
    if orientation not in _TURNS:
        return image
    return np.ascontiguousarray(_TURNS[orientation](image))


def turn_shape(shape, orientation):
    """Return the shape of what :func:`turn` returns."""
    return (shape[1], shape[0], *shape[2:]) if orientation in (5, 6, 7, 8) else tuple(shape)


def drop_alpha(image, n_colours):
    """Return the colours of an image whose further channels are transparency.

    Parameters
    ----------
    image : ndarray of shape (height, width, n_channels)
    n_colours : int
        Number of channels that are left.

    Returns
    -------
    image : ndarray of shape (height, width) or (height, width, n_colours)

    Raises
    ------
    ValueError
        If a pixel is not opaque, as the colour under it means nothing then.
    """
    opaque = np.iinfo(image.dtype).max if image.dtype.kind in "iu" else 1
    if (image[..., n_colours:] != opaque).any():
        raise ValueError(
            "it has an alpha channel (transparency) and pixels that are not opaque. Save it "
            "without alpha; if that channel is a measurement, save grey channels (in tifffile, "
            "photometric='minisblack')."
        )
    return np.ascontiguousarray(image[..., 0] if n_colours == 1 else image[..., :n_colours])


def shape_without_alpha(shape, n_colours):
    """Return the shape of what :func:`drop_alpha` returns."""
    return shape[:2] if n_colours == 1 else (*shape[:2], n_colours)

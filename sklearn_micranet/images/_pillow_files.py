"""Decode PNG, JPEG and other files of 8-bit colours with Pillow, or only their headers."""

import numpy as np

from ._pixels import drop_alpha, turn, turn_shape

# Pillow reduces the 16-bit colours of other formats, such as PPM and JPEG 2000, to 8 bits.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")  # JPEG includes cameras' MPO
# Of each of Pillow's modes: dtype and channels without alpha.
_MODES = {
    "1": (bool, 1),
    "L": (np.uint8, 1),
    "LA": (np.uint8, 1),
    "RGB": (np.uint8, 3),
    "RGBA": (np.uint8, 3),
    "I;16": (np.uint16, 1),
    "I;16B": (np.uint16, 1),
    "I": (np.int32, 1),
    "F": (np.float32, 1),
}
_ORIENTATION = 0x0112  # the tag of EXIF
_HOLD_ORIENTATION = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}


def read_with_pillow(file, header_only):
    """Return the image in a file, or its shape and dtype."""
    with _open(file) as image:
        # The further frames of a camera's MPO are previews or other views of its first.
        if image.format != "MPO" and getattr(image, "is_animated", False):
            raise ValueError(
                f"it holds {image.n_frames} frames. Save the one that is the image on its own."
            )
        mode = _colour_mode(image)
        if mode not in _MODES:
            raise ValueError(f"its colours are stored as {mode}. Save it as grey or RGB.")
        dtype, n_colours = _MODES[mode]
        raw_mode = image.tile[0][3] if image.tile else None
        of_16_bits = isinstance(raw_mode, str) and raw_mode in _UNPACK_16_BITS
        if of_16_bits:
            dtype, n_colours = np.uint16, 1 if raw_mode == "LA;16B" else 3
        orientation = _orientation(image)
        if header_only:
            shape = (image.height, image.width, *([n_colours] if n_colours > 1 else []))
            return turn_shape(shape, orientation), np.dtype(dtype)
        pixels = _UNPACK_16_BITS[raw_mode](file) if of_16_bits else _pixels(image, mode)
        if pixels.shape[2:] in ((2,), (4,)):
            pixels = drop_alpha(pixels, n_colours)
        else:
            _check_colour_key(image, pixels)
    return turn(pixels, orientation)


def _open(file):
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(file, formats=_FORMATS)
    except UnidentifiedImageError:
        raise ValueError(f"it is no TIFF, {', '.join(_FORMATS)} file.") from None


def _colour_mode(image):
    """Return the mode of the image once its palette is looked up."""
    if image.mode != "P":
        return image.mode
    raw_mode, colours = image.palette.getdata()
    colours = np.frombuffer(colours, np.uint8).reshape(-1, len(raw_mode))[:, :3]
    return "L" if (colours == colours[:, :1]).all() else "RGB"


def _pixels(image, mode):
    image.load()
    if image.mode != "P":
        return np.asarray(image)
    if "transparency" not in image.info:
        return np.asarray(image.convert(mode))
    colours = np.asarray(image.convert("RGBA"))
    return colours if mode == "RGB" else colours[..., [0, 3]]


def _check_colour_key(image, pixels):
    """Refuse pixels of the colour that a PNG file declares transparent."""
    key = image.info.get("transparency")
    if key is not None and image.mode != "P":
        is_key = pixels == np.array(key)
        if (is_key.all(axis=2) if pixels.ndim == 3 else is_key).any():
            raise ValueError("some of its pixels are transparent. Save it without transparency.")


def _unpack_colours(file, high, low):
    """Decode 16-bit colours twice, once for either byte, as Pillow has no mode for both."""
    high, low = (np.asarray(_load_raw(file, raw_mode)) for raw_mode in (high, low))
    return high.astype(np.uint16) << 8 | low


def _unpack_grey_and_alpha(file):
    """Decode two channels of 16 bits as four of 8 bits, high bytes first."""
    channels = np.asarray(_load_raw(file, "RGBA")).astype(np.uint16)
    return channels[..., ::2] << 8 | channels[..., 1::2]


def _load_raw(file, raw_mode):
    image = _open(file)
    image.tile = [(*tile[:3], raw_mode) for tile in image.tile]
    image.load()  # closes the file
    return image


_UNPACK_16_BITS = {
    "RGB;16B": lambda file: _unpack_colours(file, "RGB;16B", "RGB;16L"),
    "RGBA;16B": lambda file: _unpack_colours(file, "RGBA;16B", "RGBA;16L"),
    "LA;16B": _unpack_grey_and_alpha,
}


def _orientation(image):
    if image.format != "PNG" or _HOLD_ORIENTATION & image.info.keys() or _has_late_chunks(image):
        return image.getexif().get(_ORIENTATION, 1)
    return 1  # Asking Pillow would decode all pixels, as EXIF may come after them.


def _has_late_chunks(image):
    """Whether chunks that may hold EXIF follow the pixels of a PNG file."""
    file = image.fp
    position = file.tell()
    file.seek(8)
    found, after_pixels = False, False
    while not found and len(head := file.read(8)) == 8:
        length, kind = int.from_bytes(head[:4]), head[4:]
        after_pixels = after_pixels or kind == b"IDAT"
        found = after_pixels and kind in (b"eXIf", b"iTXt", b"zTXt")
        file.seek(length + 4, 1)
    file.seek(position)
    return found

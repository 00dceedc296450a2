"""Your own images: read them, cut them into labelled crops, and put results back in place."""

from importlib import import_module

_MODULES = {
    "read_images": "_read_images",
    "extract_crops": "_extract_crops",
    "stitch_crops": "_stitch_crops",
}
__all__ = [*_MODULES]


def __getattr__(name):
    if name in _MODULES:
        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])

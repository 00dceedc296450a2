"""Your own images: read and cut them, put results back in place, measure and write objects."""

from importlib import import_module

_MODULES = {
    "read_images": "_read_images",
    "as_stack": "_as_stack",
    "extract_crops": "_extract_crops",
    "stitch_crops": "_stitch_crops",
    "measure_objects": "_measure_objects",
    "summarize_objects": "_summarize_objects",
    "write_objects": "_write_objects",
    "read_objects": "_read_objects",
}
__all__ = [*_MODULES]


def __getattr__(name):
    if name in _MODULES:
        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])

"""Data sets: the paper's, and synthetic ones."""

from importlib import import_module

_MODULES = {
    "clear_data_home": "_download",
    "fetch_cell_tracking": "_fetch_cell_tracking",
    "fetch_f_actin": "_fetch_f_actin",
    "fetch_mnist": "_fetch_mnist",
    "fetch_modified_mnist": "_fetch_mnist",
    "fetch_p_vivax": "_fetch_p_vivax",
    "get_data_home": "_download",
    "make_digit_canvases": "_digit_canvases",
    "make_fibre_canvases": "_fibre_canvases",
    "make_sparse_field": "_sparse_field",
    "make_texture_canvases": "_texture_canvases",
}
__all__ = [*_MODULES]


def __getattr__(name):
    if name in _MODULES:
        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])

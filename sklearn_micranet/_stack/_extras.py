"""Optional dependencies, imported when they are needed."""

from importlib import import_module


def import_extra(module, extra):
    """Import an optional dependency, or say how to install it.

    Parameters
    ----------
    module : str
        Name of the module, such as ``"h5py"`` or ``"matplotlib.pyplot"``.
    extra : str
        The extra of this package that installs it, such as ``"hdf5"``.

    Returns
    -------
    module : module

    Raises
    ------
    ImportError
        If it cannot be imported.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{module} is required here but cannot be imported. {how_to_install(extra)}"
        ) from error


def how_to_install(extra):
    """Return the words for what installs an extra of this package."""
    return f'Install it with: pip install "sklearn-micranet[{extra}]"'

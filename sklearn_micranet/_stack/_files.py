"""Files that appear at once and whole, or not at all."""

import os
import shutil
import time
import uuid
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

_STALE_AGE = 3600  # s


@contextmanager
def atomic_path(path):
    """Yield the path of a new file that becomes `path` at once, and only if nothing fails.

    The new file lies beside `path`, in a folder that is created if need be. Its name is unique, so
    that processes that write the same file do not meet. It is removed on any exception.

    Parameters
    ----------
    path : str or path-like
        The file, replaced if it exists.

    Yields
    ------
    part : pathlib.Path
        To be written and closed within the context.

    Raises
    ------
    ValueError
        If `path` is a folder or a device.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from sklearn_micranet._stack._files import atomic_path
    >>> with TemporaryDirectory() as folder:
    ...     with atomic_path(Path(folder, "new", "file.txt")) as part:
    ...         _ = part.write_text("whole")
    ...     Path(folder, "new", "file.txt").read_text()
    'whole'
    """
    path = Path(os.path.realpath(path))  # what a link leads to is replaced, not the link
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} must be a file, new or old. Got a folder or a device instead.")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())  # or a power cut could leave the new name without the content
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path):
    """Do the same for a new folder, where there is nothing of its name yet."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        yield part
        os.rename(part, path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def remove_stale_parts(path):
    """Remove what killed writers of a file have left beside it.

    Another process may be writing the same file, and its part grows all the time: a part that was
    changed within the last hour stays.

    Parameters
    ----------
    path : str or path-like
        The file, as given to `atomic_path`; neither it nor its folder need exist.
    """
    path = Path(path)
    for part in path.parent.glob(f"{escape(path.name)}.*.part"):
        with suppress(OSError):  # another process removes it too, or has it open
            if time.time() - part.stat().st_mtime > _STALE_AGE:
                part.unlink()

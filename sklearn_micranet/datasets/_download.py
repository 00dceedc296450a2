"""Data folder, digest-checked downloads and safe unpacking, shared by all fetchers."""

import gzip
import os
import shutil
import tarfile
import time
import warnings
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from sklearn_micranet._stack._extras import import_extra
from sklearn_micranet._stack._files import atomic_path, remove_stale_parts

ENVIRONMENT_VARIABLE = "SKLEARN_MICRANET_DATA"

# Seconds to wait before each attempt when a connection fails or breaks.
ATTEMPT_WAITS = (0, 1, 3)

# What reading a damaged or wrong file raises.
DAMAGE = (
    EOFError,
    LookupError,
    ValueError,
    gzip.BadGzipFile,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)

_USER = 4  # stack level: fetch_file, the fetcher, its parameter validation, the user

FETCH_PARAMETERS = {
    "data_home": [str, os.PathLike, None],
    "download_if_missing": ["boolean"],
    "return_X_y": ["boolean"],
    "progressbar": ["boolean"],
}


def get_data_home(data_home=None):
    """Return the folder that keeps the downloaded data sets, created if need be.

    Parameters
    ----------
    data_home : str or path-like, default=None
        The folder. ``None`` stands for the environment variable ``SKLEARN_MICRANET_DATA``, or for
        the user's cache folder (``~/.cache/sklearn-micranet`` on Linux) where that is not set.
        ``~`` is expanded.

    Returns
    -------
    data_home : str
        Path of the folder.

    Examples
    --------
    >>> import os, tempfile
    >>> from sklearn_micranet.datasets import get_data_home
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     data_home = get_data_home(os.path.join(folder, "data"))
    ...     os.path.isdir(data_home)
    True
    """
    path = _data_home_path(data_home)
    path.mkdir(parents=True, exist_ok=True)
    return str(path)


def clear_data_home(data_home=None):
    """Delete the folder that keeps the downloaded data sets, with everything in it.

    Parameters
    ----------
    data_home : str or path-like, default=None
        As in `get_data_home`. Whatever else lies in that folder is deleted too.

    Examples
    --------
    >>> from sklearn_micranet.datasets import clear_data_home
    >>> clear_data_home()  # doctest: +SKIP
    """
    shutil.rmtree(get_data_home(data_home))


def fetch_file(remote, *, data_home=None, download_if_missing=True, progressbar=False):
    """Return the path of a published file, downloaded unless the data folder has it.

    Parameters
    ----------
    remote : RemoteFile
        The file. Without a published digest, that of the first file seen is kept beside it, in
        ``<name>.sha256``, and a later download that differs is refused.
    data_home : str or path-like, default=None
        As in `get_data_home`.
    download_if_missing : bool, default=True
        Whether to download a file that is missing or damaged.
    progressbar : bool, default=False
        Whether to show the progress of a download (needs tqdm).

    Returns
    -------
    path : pathlib.Path
        The file, whole and with the expected digest.

    Raises
    ------
    OSError
        If the file cannot be had. The message names the address and the place for a copy
        downloaded by hand.
    ImportError
        If `progressbar` is asked for without tqdm.

    Warns
    -----
    UserWarning
        If no digest is known to check the file with, or a damaged file is downloaded again.
    """
    path = place_of(remote, data_home)
    if remote.sha256 is None and not _digest_path(path).exists():
        warnings.warn(
            f"No digest of {path.name} is published, so nothing proves that the file is the right "
            f"one. The SHA-256 of the first file is kept in {_digest_path(path)} to notice later "
            "changes.",
            stacklevel=_USER,
        )
    with explained_failure(remote, path):
        if path.exists():
            try:
                _check_digest(path, remote, path)
            except OSError as error:
                if not download_if_missing:
                    raise
                warnings.warn(f"{path} is downloaded again: {error}", stacklevel=_USER)
            else:
                return path
        if not download_if_missing:
            raise FileNotFoundError("it is missing and download_if_missing is False")
        if progressbar:
            import_extra("tqdm", "progress")
        _download(remote, path, progressbar)
    return path


def unpack_files(archive, remote, names):
    """Copy regular files of a tar archive to the folder of the archive.

    The names and links inside the archive never decide where something is written.

    Parameters
    ----------
    archive : pathlib.Path
        The archive, compressed or not.
    remote : RemoteFile
        Where the archive comes from, for error messages.
    names : list of str
        Files to copy, as ``folder/name``; folders above that one are ignored. Each becomes
        ``name``, at once and whole.

    Raises
    ------
    OSError
        If the archive is damaged, lacks a file, or the disk is full.
    """
    missing = {name: archive.parent / PurePosixPath(name).name for name in names}
    for path in missing.values():
        remove_stale_parts(path)
    with explained_damage(remote, archive):
        with tarfile.open(archive) as members:
            for member in members:
                name = "/".join(PurePosixPath(member.name).parts[-2:])
                if member.isfile() and name in missing:
                    with atomic_path(missing.pop(name)) as part, part.open("wb") as target:
                        shutil.copyfileobj(members.extractfile(member), target)
        if missing:
            raise LookupError(f"it holds no {', '.join(missing)}")


def place_of(remote, data_home):
    """Return the place of a published file in the data folder, which may not exist yet."""
    return _data_home_path(data_home) / remote.path


@contextmanager
def explained_failure(remote, path):
    """Turn any OSError into one that says where the file comes from and where it belongs."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{path.name} could not be fetched: {error}. It is required at {path}, from "
            f"{remote.url}. Check the connection, the free space and the permissions; choose "
            f"another folder with data_home or the environment variable {ENVIRONMENT_VARIABLE}; "
            "or download that address by hand, save it at that place and call again."
        ) from error


@contextmanager
def explained_damage(remote, archive):
    """Turn what a damaged or wrong archive leads its reader to into an explained OSError.

    A digest that nobody published is forgotten, so that the right archive is not refused later.
    """
    with explained_failure(remote, archive):
        try:
            yield
        except DAMAGE as error:
            if remote.sha256 is None:
                _digest_path(archive).unlink(missing_ok=True)
            raise OSError(f"it is damaged or the wrong file ({error}): delete it") from error


def _data_home_path(data_home):
    if data_home is None:
        data_home = os.environ.get(ENVIRONMENT_VARIABLE)
    if not data_home:
        import pooch

        data_home = pooch.os_cache("sklearn-micranet")
    return Path(data_home).expanduser()


def _download(remote, path, progressbar):
    import pooch
    from requests.exceptions import ChunkedEncodingError, ConnectionError, Timeout

    # By default pooch writes and flushes 1 kB at a time: slow for gigabytes.
    downloader = pooch.HTTPDownloader(progressbar=progressbar, chunk_size=2**20)
    remove_stale_parts(path)
    for attempt, wait in enumerate(ATTEMPT_WAITS, start=1):
        time.sleep(wait)
        try:
            with atomic_path(path) as part:
                downloader(remote.url, part, None)
                _check_digest(part, remote, path)
            return
        except (ChunkedEncodingError, ConnectionError, Timeout):
            if attempt == len(ATTEMPT_WAITS):
                raise


def _check_digest(file, remote, path):
    """Raise OSError unless `file` is what belongs at `path`; remember an unpublished digest."""
    import pooch

    digest = pooch.file_hash(file)
    digest_path = _digest_path(path)
    if remote.sha256:
        expected, origin = remote.sha256, "published"
    elif digest_path.exists():
        expected = digest_path.read_text().split()[0]
        origin = f"first seen (delete {digest_path} to accept a new version)"
    else:
        # Otherwise the digest of a log-in page or of half an archive would be remembered.
        if not (zipfile.is_zipfile(file) or tarfile.is_tarfile(file)):
            raise OSError("what was received is not an archive")
        with atomic_path(digest_path) as part:
            part.write_text(f"{digest}  {path.name}\n")
        return
    if digest != expected:
        raise OSError(f"its SHA-256 is {digest} instead of the {origin} {expected}")


def _digest_path(path):
    return path.with_name(f"{path.name}.sha256")

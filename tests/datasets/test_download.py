import errno
import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pooch
import pytest
from server import tar_bytes, zip_bytes

import sklearn_micranet
from sklearn_micranet.datasets import _registry
from sklearn_micranet.datasets._download import (
    clear_data_home,
    fetch_file,
    get_data_home,
    unpack_files,
)
from sklearn_micranet.datasets._registry import RemoteFile

NO_DIGEST = r"No digest of archive\.zip is published"
REMOTE = RemoteFile("set/archive.zip", "", None)
ARCHIVE = zip_bytes({"a.txt": bytes(range(256)) * 400})
OTHER_ARCHIVE = zip_bytes({"a.txt": b"changed"})


def files_below(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def run_python(code, *, environment, **streams):
    """Start a new interpreter that imports the package under test."""
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=Path(sklearn_micranet.__file__).parents[1],
        env={**os.environ, **environment},
        **streams,
    )


def test_fresh_download_is_whole_and_alone(server, data_home):
    remote = server.publish(REMOTE, ARCHIVE)
    path = fetch_file(remote, data_home=data_home)
    assert path == data_home / "set" / "archive.zip"
    assert path.read_bytes() == ARCHIVE
    assert files_below(data_home) == {"set/archive.zip"}
    assert server.n_requests == 1


def test_cached_file_needs_no_server(server, data_home):
    remote = server.publish(REMOTE, ARCHIVE)
    fetch_file(remote, data_home=data_home)
    fetch_file(remote, data_home=data_home, download_if_missing=False)
    assert server.n_requests == 1


def test_downloaded_file_obeys_the_umask(server, data_home):
    previous = os.umask(0o022)
    try:
        path = fetch_file(server.publish(REMOTE, ARCHIVE), data_home=data_home)
    finally:
        os.umask(previous)
    assert path.stat().st_mode & 0o777 == 0o644


def test_error_names_address_place_and_remedies(server, data_home):
    remote = server.publish(REMOTE, ARCHIVE)
    with pytest.raises(OSError, match="download_if_missing is False") as caught:
        fetch_file(remote, data_home=data_home, download_if_missing=False)
    message = str(caught.value)
    assert remote.url in message
    assert str(data_home / "set" / "archive.zip") in message
    assert "SKLEARN_MICRANET_DATA" in message
    assert server.n_requests == 0
    assert not data_home.exists()


def test_file_downloaded_by_hand_is_used(server, data_home):
    remote = server.publish(REMOTE, ARCHIVE)
    (data_home / "set").mkdir(parents=True)
    (data_home / "set" / "archive.zip").write_bytes(ARCHIVE)
    fetch_file(remote, data_home=data_home)
    assert server.n_requests == 0


def test_wrong_digest_is_refused_and_not_retried(server, data_home):
    remote = server.publish(REMOTE, ARCHIVE)._replace(sha256="0" * 64)
    with pytest.raises(OSError, match=r"SHA-256 is \w{64} instead of the published 0{64}"):
        fetch_file(remote, data_home=data_home)
    assert files_below(data_home) == set()
    assert server.n_requests == 1


def test_damaged_cached_file_is_downloaded_again(server, data_home):
    remote = server.publish(REMOTE, ARCHIVE)
    path = fetch_file(remote, data_home=data_home)
    path.write_bytes(ARCHIVE[:100])
    with pytest.raises(OSError, match="instead of the published"):
        fetch_file(remote, data_home=data_home, download_if_missing=False)
    assert server.n_requests == 1
    with pytest.warns(match="downloaded again"):
        fetch_file(remote, data_home=data_home)
    assert path.read_bytes() == ARCHIVE


def test_connection_cut_half_way_is_retried(server, data_home):
    remote = server.publish(REMOTE, ARCHIVE)
    server.cut["/" + remote.path] = 2
    assert fetch_file(remote, data_home=data_home).read_bytes() == ARCHIVE
    assert server.n_requests == 3
    assert files_below(data_home) == {"set/archive.zip"}


def test_connection_cut_every_time_leaves_nothing(server, data_home):
    remote = server.publish(REMOTE, ARCHIVE, digest=False)
    server.cut["/" + remote.path] = 99
    with pytest.warns(match=NO_DIGEST), pytest.raises(OSError, match=re.escape(remote.url)):
        fetch_file(remote, data_home=data_home)
    assert server.n_requests == 3
    assert files_below(data_home) == set()


def test_truncated_file_is_refused(server, data_home):
    remote = server.publish(REMOTE, ARCHIVE)
    server.truncated.add("/" + remote.path)
    with pytest.raises(OSError, match="instead of the published"):
        fetch_file(remote, data_home=data_home)
    assert files_below(data_home) == set()


@pytest.mark.parametrize("content", [ARCHIVE, b"<html>Please log in</html>"])
def test_truncated_archive_or_login_page_is_not_remembered(server, data_home, content):
    remote = server.publish(REMOTE, content, digest=False)
    server.truncated.add("/" + remote.path)
    with pytest.warns(match=NO_DIGEST), pytest.raises(OSError, match="not an archive"):
        fetch_file(remote, data_home=data_home)
    assert files_below(data_home) == set()


def test_missing_page(server, data_home):
    remote = server.publish(REMOTE, ARCHIVE)
    server.files.clear()
    with pytest.raises(OSError, match="404"):
        fetch_file(remote, data_home=data_home)
    assert server.n_requests == 1
    assert files_below(data_home) == set()


def test_unreachable_host(server, data_home):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    remote = RemoteFile("archive.zip", f"http://127.0.0.1:{port}/archive.zip", "0" * 64)
    with pytest.raises(OSError, match=rf"from {re.escape(remote.url)}\. ") as caught:
        fetch_file(remote, data_home=data_home)
    assert str(data_home / "archive.zip") in str(caught.value)
    assert files_below(data_home) == set()


def test_full_disk(server, data_home, monkeypatch):
    def fill_disk(self, url, part, cache):
        part.write_bytes(ARCHIVE[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", fill_disk)
    with pytest.raises(OSError, match=r"No space left on device.*free space"):
        fetch_file(server.publish(REMOTE, ARCHIVE), data_home=data_home)
    assert files_below(data_home) == set()


def test_folder_that_cannot_be_written(server, tmp_path):
    # A folder below a regular file: not even an administrator may create that.
    (tmp_path / "file").write_text("")
    remote = server.publish(REMOTE, ARCHIVE)
    with pytest.raises(OSError, match=r"permissions; choose another folder with data_home"):
        fetch_file(remote, data_home=tmp_path / "file" / "data")
    assert server.n_requests == 0


def test_unpublished_digest_is_remembered(server, data_home):
    remote = server.publish(REMOTE, ARCHIVE, digest=False)
    with pytest.warns(match=NO_DIGEST):
        path = fetch_file(remote, data_home=data_home)
    digest = hashlib.sha256(ARCHIVE).hexdigest()
    assert (data_home / "set" / "archive.zip.sha256").read_text() == f"{digest}  archive.zip\n"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fetch_file(remote, data_home=data_home) == path
    assert server.n_requests == 1


def test_unpublished_digest_is_warned_of_before_the_download(server, data_home):
    remote = server.publish(REMOTE, ARCHIVE, digest=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match=NO_DIGEST):
            fetch_file(remote, data_home=data_home)
    assert server.n_requests == 0


def test_later_difference_from_a_remembered_digest_is_refused(server, data_home):
    remote = server.publish(REMOTE, ARCHIVE, digest=False)
    with pytest.warns(match=NO_DIGEST):
        path = fetch_file(remote, data_home=data_home)
    path.unlink()
    server.files["/" + remote.path] = OTHER_ARCHIVE
    with pytest.raises(OSError, match=r"first seen .*to accept a new version"):
        fetch_file(remote, data_home=data_home)
    assert not path.exists()
    path.with_name("archive.zip.sha256").unlink()
    with pytest.warns(match=NO_DIGEST):
        fetch_file(remote, data_home=data_home)
    assert path.read_bytes() == OTHER_ARCHIVE


def test_two_processes_at_once(server, data_home):
    remote = server.publish(REMOTE, ARCHIVE)
    server.barrier = threading.Barrier(2, timeout=60)  # neither is answered before both ask
    code = (
        "from sklearn_micranet.datasets._download import fetch_file\n"
        "from sklearn_micranet.datasets._registry import RemoteFile\n"
        f"path = fetch_file(RemoteFile{tuple(remote)}, data_home={str(data_home)!r})\n"
        f"assert path.stat().st_size == {len(ARCHIVE)}"
    )
    process = run_python(code, environment={})
    while server.n_requests == 0 and process.poll() is None:
        time.sleep(0.01)
    fetch_file(remote, data_home=data_home)
    assert process.wait(timeout=60) == 0
    assert server.n_requests == 2
    assert files_below(data_home) == {"set/archive.zip"}
    assert (data_home / "set" / "archive.zip").read_bytes() == ARCHIVE


def test_progressbar_needs_tqdm(server, data_home, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    remote = server.publish(REMOTE, ARCHIVE)
    with pytest.raises(ImportError, match=r'pip install "sklearn-micranet\[progress\]"'):
        fetch_file(remote, data_home=data_home, progressbar=True)
    assert server.n_requests == 0


@pytest.mark.parametrize("progressbar", [True, False])
def test_progressbar_on_request_only(server, data_home, capsys, progressbar):
    pytest.importorskip("tqdm")
    fetch_file(server.publish(REMOTE, ARCHIVE), data_home=data_home, progressbar=progressbar)
    output = capsys.readouterr()
    assert ("100%" in output.err) == progressbar
    assert output.out == ""


def test_what_killed_downloads_left_is_removed(server, data_home):
    remote = server.publish(REMOTE, ARCHIVE)
    folder = data_home / "set"
    folder.mkdir(parents=True)
    for name in ("fresh", "stale"):
        (folder / f"archive.zip.{name}.part").write_bytes(ARCHIVE[:100])
    os.utime(folder / "archive.zip.stale.part", (0, 0))
    fetch_file(remote, data_home=data_home)
    assert files_below(folder) == {"archive.zip", "archive.zip.fresh.part"}


def test_what_killed_unpacking_left_is_removed(tmp_path):
    archive = tmp_path / "archive.tar.gz"
    archive.write_bytes(tar_bytes({"folder/a.txt": b"a"}))
    part = tmp_path / "a.txt.stale.part"
    part.write_bytes(b"")
    os.utime(part, (0, 0))
    unpack_files(archive, REMOTE, ["folder/a.txt"])
    assert files_below(tmp_path) == {"archive.tar.gz", "a.txt"}


def test_unpacked_names_never_decide_where_something_is_written(tmp_path):
    outside = tmp_path / "outside.txt"
    outside.write_text("untouched")
    archive = tmp_path / "home" / "archive.tar.gz"
    archive.parent.mkdir()
    archive.write_bytes(
        tar_bytes(
            {
                "../escaped.txt": b"evil",
                str(tmp_path / "absolute.txt"): b"evil",
                "folder/through": b"evil",
                "../../folder/wanted.txt": b"wanted",
            },
            links=[("folder/through", outside), ("folder/wanted.txt", outside)],
        )
    )
    unpack_files(archive, REMOTE, ["folder/wanted.txt"])
    assert (archive.parent / "wanted.txt").read_bytes() == b"wanted"
    assert outside.read_text() == "untouched"
    assert files_below(tmp_path) == {"outside.txt", "home/archive.tar.gz", "home/wanted.txt"}


def test_unpack_a_damaged_archive(tmp_path):
    archive = tmp_path / "archive.tar.gz"
    content = tar_bytes({"folder/a.bin": os.urandom(50_000), "folder/b.bin": b"b"})
    archive.write_bytes(content[:30_000])
    with pytest.raises(
        OSError, match=r"archive\.tar\.gz could not be fetched: it is damaged .*delete"
    ):
        unpack_files(archive, REMOTE, ["folder/a.bin", "folder/b.bin"])
    assert files_below(tmp_path) == {"archive.tar.gz"}


def test_damaged_archive_does_not_refuse_the_good_one(server, data_home):
    content = tar_bytes({"folder/a.bin": os.urandom(50_000), "folder/b.bin": b"b"})
    remote = server.publish(RemoteFile("set/archive.tar.gz", "", None), content, digest=False)
    server.truncated.add("/" + remote.path)
    with pytest.warns(match="No digest"):
        archive = fetch_file(remote, data_home=data_home)
    assert files_below(data_home) == {"set/archive.tar.gz", "set/archive.tar.gz.sha256"}
    with pytest.raises(OSError, match=r"it is damaged .*delete it"):
        unpack_files(archive, remote, ["folder/a.bin"])
    server.truncated.clear()
    server.cut.clear()
    archive.unlink()
    with pytest.warns(match="No digest"):
        archive = fetch_file(remote, data_home=data_home)
    unpack_files(archive, remote, ["folder/a.bin"])
    assert (data_home / "set" / "a.bin").stat().st_size == 50_000


def test_full_disk_forgets_no_digest(server, data_home, monkeypatch):
    def fill_disk(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    content = tar_bytes({"folder/a.bin": b"a"})
    remote = server.publish(RemoteFile("set/archive.tar.gz", "", None), content, digest=False)
    with pytest.warns(match="No digest"):
        archive = fetch_file(remote, data_home=data_home)
    monkeypatch.setattr(shutil, "copyfileobj", fill_disk)
    with pytest.raises(OSError, match="No space left on device"):
        unpack_files(archive, remote, ["folder/a.bin"])
    assert files_below(data_home) == {"set/archive.tar.gz", "set/archive.tar.gz.sha256"}


def test_unpack_an_archive_without_the_file(tmp_path):
    archive = tmp_path / "archive.tar.gz"
    archive.write_bytes(tar_bytes({"folder/a.txt": b"a"}, links=[("folder/b.txt", "a.txt")]))
    with pytest.raises(OSError, match=r"holds no folder/b\.txt"):
        unpack_files(archive, REMOTE, ["folder/a.txt", "folder/b.txt"])


def test_data_home_from_argument_environment_and_default(tmp_path, monkeypatch):
    monkeypatch.setenv("SKLEARN_MICRANET_DATA", str(tmp_path / "environment"))
    assert get_data_home() == str(tmp_path / "environment")
    assert get_data_home(tmp_path / "argument") == str(tmp_path / "argument")
    assert (tmp_path / "environment").is_dir()
    monkeypatch.delenv("SKLEARN_MICRANET_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Path(get_data_home()).name == "sklearn-micranet"
    assert get_data_home("~/below_home") == str(tmp_path / "below_home")


def test_fetchers_follow_the_environment(server, tmp_path, monkeypatch):
    monkeypatch.setenv("SKLEARN_MICRANET_DATA", str(tmp_path / "moved"))
    path = fetch_file(server.publish(REMOTE, ARCHIVE))
    assert path == tmp_path / "moved" / "set" / "archive.zip"


def test_clear_data_home(tmp_path):
    folder = Path(get_data_home(tmp_path / "data"))
    (folder / "file.txt").write_text("")
    clear_data_home(folder)
    assert not folder.exists()


def test_import_creates_nothing_and_stays_light(tmp_path):
    heavy = {"h5py", "pooch", "torch", "tqdm"}
    code = f"import sys, sklearn_micranet.datasets; print({heavy} & {{*sys.modules}})"
    environment = {"HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    environment["SKLEARN_MICRANET_DATA"] = str(tmp_path / "data")
    process = run_python(code, environment=environment, stdout=subprocess.PIPE, text=True)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert output == "set()\n"
    assert files_below(tmp_path) == set()


def test_registry_is_well_formed():
    lines = _registry.CELL_TRACKING
    assert lines["train"].keys() == lines["test"].keys()
    remotes = [*lines["train"].values(), *lines["test"].values(), _registry.MNIST]
    digests = {remote.sha256 for remote in remotes}
    assert len(digests) == 13
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests)
    paths = {remote.path for remote in (*remotes, _registry.P_VIVAX, _registry.F_ACTIN)}
    assert len(paths) == 15

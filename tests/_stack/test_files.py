import errno
import os
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from sklearn_micranet._stack._files import atomic_folder, atomic_path, remove_stale_parts


def names(folder):
    return {path.name for path in folder.iterdir()}


def write(path, text):
    with atomic_path(path) as part:
        part.write_text(text)


def aged(path, seconds):
    """Create a file that was last changed some seconds ago."""
    path.write_text("half")
    then = time.time() - seconds
    os.utime(path, (then, then))
    return path


@pytest.mark.parametrize("as_given", [str, lambda path: path], ids=["str", "Path"])
def test_a_file_and_the_folders_above_it_are_created(tmp_path, as_given):
    path = tmp_path / "one" / "two" / "file.txt"
    write(as_given(path), "whole")
    assert path.read_text() == "whole"
    assert names(path.parent) == {"file.txt"}


def test_the_new_file_lies_beside_the_old_one_which_stays_until_the_end(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with atomic_path(path) as part:
        part.write_text("new")
        assert part.parent == tmp_path
        assert part.name.startswith("file.txt.")
        assert part.suffix == ".part"
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == {"file.txt"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, GeneratorExit])
def test_any_exception_keeps_the_old_file_and_removes_the_part(tmp_path, error):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail_half_way():
        with atomic_path(path) as part:
            part.write_text("ne")
            raise error("stopped")

    with pytest.raises(error, match="stopped"):
        fail_half_way()
    assert path.read_text() == "old"
    assert names(tmp_path) == {"file.txt"}


def test_the_content_is_on_the_disk_before_the_name(tmp_path, monkeypatch):
    calls = []

    def fsync(descriptor):
        calls.append(("fsync", os.fstat(descriptor).st_ino, os.fstat(descriptor).st_size))

    def replace(source, target):
        calls.append(("replace", os.stat(source).st_ino, os.stat(source).st_size))

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    with atomic_path(tmp_path / "file.txt") as part:
        part.write_text("whole")
        inode = part.stat().st_ino
    assert calls == [("fsync", inode, 5), ("replace", inode, 5)]


def test_a_disk_that_is_full_when_it_is_synchronised(tmp_path, monkeypatch):
    def fill_disk(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "file.txt"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", fill_disk)
    with pytest.raises(OSError, match="No space left on device"):
        write(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == {"file.txt"}


def test_writing_nothing_replaces_nothing(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError, match=r"file\.txt\.\w{32}\.part"), atomic_path(path):
        pass
    assert path.read_text() == "old"


def test_writers_of_the_same_file_do_not_meet(tmp_path):
    path = tmp_path / "file.txt"
    barrier = Barrier(4, timeout=60)
    texts = [letter * 10_000 for letter in "abcd"]

    def write_with_the_others(text):
        with atomic_path(path) as part:
            barrier.wait()  # all parts exist at the same time
            part.write_text(text)
            return part

    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(write_with_the_others, texts))
    assert len(set(parts)) == 4
    assert path.read_text() in texts
    assert names(tmp_path) == {"file.txt"}


def test_stale_parts_of_this_file_alone_are_removed(tmp_path):
    path = tmp_path / "data[1].bin"
    kept = {
        aged(path, 10_000),
        aged(tmp_path / "data[1].bin.aa.part", 3500),
        aged(tmp_path / "data1.bin.aa.part", 10_000),  # what an unescaped pattern would match
        aged(tmp_path / "other.bin.aa.part", 10_000),
        aged(tmp_path / "data[1].bin.part", 10_000),
    }
    aged(tmp_path / "data[1].bin.bb.part", 3700)
    aged(tmp_path / "data[1].bin.cc.part", 10_000)
    remove_stale_parts(str(path))
    assert names(tmp_path) == {path.name for path in kept}


def test_what_a_killed_writer_left_is_stale_after_an_hour(tmp_path):
    path = tmp_path / "file.txt"
    writer = atomic_path(path)
    part = writer.__enter__()
    part.write_text("half")
    remove_stale_parts(path)
    assert part.exists()
    os.utime(part, (0, 0))
    remove_stale_parts(path)
    assert names(tmp_path) == set()


def test_a_part_that_cannot_be_removed_hides_no_other(tmp_path):
    path = tmp_path / "file.txt"
    for name in "ac":
        aged(tmp_path / f"file.txt.{name}.part", 10_000)
    folder = tmp_path / "file.txt.b.part"  # a folder cannot be unlinked
    folder.mkdir()
    os.utime(folder, (0, 0))
    remove_stale_parts(path)
    assert names(tmp_path) == {folder.name}


def test_no_folder_no_stale_parts(tmp_path):
    remove_stale_parts(tmp_path / "missing" / "file.txt")
    assert names(tmp_path) == set()


def fail_after(_):
    raise OSError("disk full")


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "folder"
    with pytest.raises(OSError, match="disk full"), atomic_folder(path) as part:
        fail_after(part.mkdir())
    assert not list(path.parent.iterdir())
    with atomic_folder(path) as part:
        part.mkdir()
        (part / "file.txt").write_text("first")
    assert (path / "file.txt").read_text() == "first"
    with pytest.raises(OSError, match=r"folder"), atomic_folder(path) as part:
        part.mkdir()
    assert list(path.parent.iterdir()) == [path]


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "old").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "old")
    write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "old").read_text() == "new"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes of this kind.")
def test_folders_and_devices_are_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ValueError, match="Got a folder or a device instead"):
            write(path, "new")
    assert names(tmp_path) == {"pipe"}
    assert (tmp_path / "pipe").is_fifo()

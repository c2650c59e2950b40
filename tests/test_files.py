"""Results appear whole or not at all."""

from __future__ import annotations

import errno
import os
import sys

import pytest

from pixelwise.errors import OutputError
from pixelwise.files import check_writable, sync_folder, writing


def test_a_file_appears_only_when_the_block_succeeds(tmp_path):
    path = tmp_path / "new" / "result.txt"
    with pytest.raises(ZeroDivisionError), writing(path) as temporary:
        temporary.write_text(f"half {1 / 0}")
    assert list((tmp_path / "new").iterdir()) == []
    with writing(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert [p.name for p in path.parent.iterdir()] == ["result.txt"]


def test_a_failure_leaves_the_previous_file(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")
    with pytest.raises(OutputError, match="cannot write"), writing(path) as temporary:
        (temporary / "below").write_text("a file has nothing below it: an OSError, as a full disk is")
    assert path.read_text() == "old"


def test_what_cannot_be_written_is_said_before_the_work(tmp_path):
    taken = tmp_path / "taken"
    taken.touch()
    for path, says in ((tmp_path, "folder"), (taken, "--overwrite"), (taken / "below", "is a file")):
        with pytest.raises(OutputError, match=says):
            check_writable(path, overwrite=False)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="permission"):
        check_writable(tmp_path / "x", overwrite=True)


def test_on_a_mac_the_drive_is_asked_to_keep_what_the_system_has_written(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    asked = []

    def refuses(handle, what):
        asked.append((os.fstat(handle).st_ino, what))
        raise OSError(45, "Operation not supported")  # as network drives do

    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", refuses)
    monkeypatch.setattr(sys, "platform", "darwin")
    with writing(tmp_path / "file") as temporary:
        temporary.write_text("whole")
    monkeypatch.undo()
    assert (tmp_path / "file").read_text() == "whole"
    assert asked == [((tmp_path / "file").stat().st_ino, 51), (tmp_path.stat().st_ino, 51)]


@pytest.mark.skipif(os.name != "posix", reason="modes of files")
def test_a_result_may_be_read_by_whom_the_user_lets_and_the_umask_stays(tmp_path):
    before = os.umask(0o027)
    try:
        for name in "ab":
            with writing(tmp_path / name) as temporary:
                assert temporary.stat().st_mode & 0o777 == 0o600
                temporary.write_text("whole")
            assert (tmp_path / name).stat().st_mode & 0o777 == 0o640
    finally:
        assert os.umask(before) == 0o027


@pytest.mark.skipif(os.name != "posix", reason="folders that are synced")
def test_a_folder_that_cannot_be_synced_is_passed_over_and_one_that_fails_is_not(tmp_path, monkeypatch):
    def failing(number):
        def fails(*_):
            raise OSError(number, os.strerror(number))

        return fails

    for name, passed_over in (("fsync", errno.EINVAL), ("fsync", errno.ENOTSUP), ("open", errno.EACCES)):
        with monkeypatch.context() as patched:
            patched.setattr(os, name, failing(passed_over))
            sync_folder(tmp_path)
    for name in ("fsync", "open"):
        with monkeypatch.context() as patched:
            patched.setattr(os, name, failing(errno.EIO))
            with pytest.raises(OSError, match=os.strerror(errno.EIO)):
                sync_folder(tmp_path)

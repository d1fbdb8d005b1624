"""The journal survives a death at any byte and refuses damage."""

import errno
import fcntl
import os
import zlib

import pytest

from orchestrator.journal.log import Journal, read_records
from tests.support.errors import raises

RECORDS = [{"kind": "a", "n": i, "text": "ü" * i} for i in range(5)]


def write(path, records=RECORDS):
    with Journal(path) as journal:
        for record in records:
            journal.append(record)


def test_records_come_back_in_order(tmp_path):
    path = tmp_path / "deep" / "journal.jsonl"
    write(path)
    write(path, [{"kind": "b"}])
    assert read_records(path) == [*RECORDS, {"kind": "b"}]


def test_journal_cut_at_every_byte(tmp_path):
    path = tmp_path / "journal.jsonl"
    write(path)
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        with Journal(path) as journal:
            assert journal.records == RECORDS[: sum(end <= size for end in ends)]
            journal.append({"kind": "after"})
        assert read_records(path)[-1] == {"kind": "after"}


def test_damaged_line_is_named(tmp_path):
    path = tmp_path / "journal.jsonl"
    write(path)
    damaged = bytearray(path.read_bytes())
    damaged[15] ^= 1
    path.write_bytes(damaged)
    with raises("damaged_file"):
        Journal(path)
    assert path.read_bytes() == damaged


@pytest.mark.parametrize("body", [b"{", b"[" * 100_000, b'{"kind":"\xff"}', b"[]"])
def test_line_that_is_no_record_is_damaged(tmp_path, body):
    path = tmp_path / "journal.jsonl"
    write(path)
    path.write_bytes(b"%08x %s\n" % (zlib.crc32(body), body) + path.read_bytes())
    with raises("damaged_file"):
        Journal(path)


def test_a_second_writer_is_refused(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path), raises("file_in_use"):
        Journal(path)
    Journal(path).close()


def test_a_file_system_without_locks_is_allowed(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    path = tmp_path / "journal.jsonl"
    write(path)
    os.utime(path, (0, 0))
    monkeypatch.setattr(fcntl, "flock", no_locks)
    with Journal(path) as journal:
        assert journal.records == RECORDS


class FullDisk:
    """Passes `room` bytes on to the real file, then fails as a full disk does."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, data):
        if self.room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self.file.write(bytes(data[: self.room]))
        self.room -= written
        return written

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_full_disk_keeps_earlier_records(tmp_path, monkeypatch):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.append(RECORDS[1])
        with monkeypatch.context() as patch:
            patch.setattr(journal._file, "_file", FullDisk(journal._file._file, 10))
            with raises("disk_full"):
                journal.append(RECORDS[2])
        assert read_records(path) == [RECORDS[1]]
        journal.append(RECORDS[3])
    assert read_records(path) == [RECORDS[1], RECORDS[3]]

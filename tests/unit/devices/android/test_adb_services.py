"""Shell commands and pushed files, against the phone's end played byte by byte."""

import os
import socket
import struct

import pytest

from luts.format.errors import InvalidArtifactError
from orchestrator.devices.android import shell, sync
from orchestrator.devices.android.errors import LinkLost
from orchestrator.devices.android.shell import converse
from orchestrator.wire.errors import DeviceError

STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)


@pytest.fixture
def pair():
    near, far = socket.socketpair()
    far.settimeout(60)
    with near, far:
        yield near, far


def packet(kind, data=b""):
    return struct.pack("<BI", kind, len(data)) + data


def read_exactly(sock, size):
    data = b""
    while len(data) < size:
        data += sock.recv(size - len(data)) or pytest.fail("the other end closed")
    return data


def read_packet(sock):
    kind, size = struct.unpack("<BI", read_exactly(sock, 5))
    return kind, read_exactly(sock, size)


def test_output_of_both_kinds_and_exit_code(pair):
    near, far = pair
    far.sendall(
        packet(STDOUT, b"out ") + packet(STDERR, b"err ") + packet(STDOUT, b"more\n") + packet(EXIT, b"\x07")
    )
    result = converse(near, "cmd", b"", 20, "the phone")
    assert (result.output, result.exit_code, result.text) == (b"out err more\n", 7, "out err more")
    assert read_packet(far) == (CLOSE_STDIN, b"")


def test_stdin_is_sent_then_closed(pair):
    near, far = pair
    far.sendall(packet(EXIT, b"\0"))
    converse(near, "cmd", b"secret\n", 20, "the phone")
    assert read_packet(far) == (STDIN, b"secret\n")
    assert read_packet(far) == (CLOSE_STDIN, b"")


def test_output_is_bounded(pair, monkeypatch):
    monkeypatch.setattr(shell, "MAX_OUTPUT_BYTES", 10)
    near, far = pair
    far.sendall(packet(STDOUT, b"12345678") * 3 + packet(EXIT, b"\0"))
    assert converse(near, "cmd", b"", 20, "the phone").output == b"1234567812"


def test_command_that_ended_before_its_stdin_was_sent(pair):
    near, far = pair
    far.sendall(packet(STDOUT, b"quick") + packet(EXIT, b"\0"))
    far.shutdown(socket.SHUT_RD)
    assert converse(near, "cmd", b"in", 20, "the phone").output == b"quick"


def test_packets_in_single_bytes(pair, in_thread):
    near, far = pair
    data = packet(STDOUT, b"slow") + packet(EXIT, b"\x03")
    in_thread(lambda: [far.sendall(data[n : n + 1]) for n in range(len(data))])
    assert converse(near, "cmd", b"", 20, "the phone").exit_code == 3


def test_command_that_hangs(pair):
    with pytest.raises(LinkLost, match=r"did not finish `sleep 100` within 0 s"):
        converse(pair[0], "sleep 100", b"", 0.05, "the phone")


def test_command_that_prints_forever_ends_at_its_time(pair, in_thread):
    near, far = pair

    def print_forever():
        try:
            while True:
                far.sendall(packet(STDOUT, b"x" * 1000))
        except OSError:
            pass

    in_thread(print_forever)
    with pytest.raises(LinkLost, match="did not finish"):
        converse(near, "yes", b"", 0.2, "the phone")
    near.close()


@pytest.mark.parametrize("sent", [b"", packet(STDOUT, b"half")[:7]], ids=["before", "inside"])
def test_phone_lost_in_a_command(pair, sent):
    near, far = pair
    far.sendall(sent)
    far.close()
    with pytest.raises(LinkLost, match="lost during `cmd`"):
        converse(near, "cmd", b"", 20, "the phone")


def test_oversized_shell_packet_is_not_read(pair):
    near, far = pair
    far.sendall(struct.pack("<BI", STDOUT, 0xFFFFFFFF))
    with pytest.raises(LinkLost, match="4294967295 bytes"):
        converse(near, "cmd", b"", 20, "the phone")


def test_stdin_is_bounded(pair):
    with pytest.raises(ValueError, match="at most"):
        converse(pair[0], "cmd", bytes(shell.MAX_STDIN_BYTES + 1), 20, "the phone")


class SyncPhone:
    """Receives one file, and answers `answer`."""

    def __init__(self, sock, answer):
        self.sock, self.answer = sock, answer
        self.target, self.data, self.modified_s, self.sizes = b"", b"", 0, []

    def serve(self):
        kind, size = struct.unpack("<4sI", read_exactly(self.sock, 8))
        assert kind == b"SEND"
        self.target = read_exactly(self.sock, size)
        while True:
            kind, size = struct.unpack("<4sI", read_exactly(self.sock, 8))
            if kind == b"DONE":
                self.modified_s = size
                break
            assert kind == b"DATA"
            self.sizes.append(size)
            self.data += read_exactly(self.sock, size)
        self.sock.sendall(self.answer)


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 1_000_000])
def test_file_arrives_whole(pair, in_thread, tmp_path, size):
    near, far = pair
    path = tmp_path / "model"
    path.write_bytes(os.urandom(size))
    phone = SyncPhone(far, b"OKAY" + bytes(4))
    in_thread(phone.serve)
    sync.push(near, path, "/data/local/tmp/model", "the phone")
    assert phone.data == path.read_bytes()
    assert phone.target == b"/data/local/tmp/model,33188"
    assert max(phone.sizes, default=0) <= 65536
    assert phone.modified_s == int(path.stat().st_mtime)


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (b"couldn't create file: Permission denied", "refused model at /x: couldn't create file: Permission"),
        (b"write failed: No space left on device", "storage of the phone is full: model does not fit"),
    ],
)
def test_refused_file(pair, in_thread, tmp_path, reason, said):
    near, far = pair
    path = tmp_path / "model"
    path.write_bytes(b"data")
    in_thread(SyncPhone(far, b"FAIL" + struct.pack("<I", len(reason)) + reason).serve)
    with pytest.raises(DeviceError, match=said):
        sync.push(near, path, "/x", "the phone")


def test_refusal_before_the_file_was_sent(pair, tmp_path):
    near, far = pair
    path = tmp_path / "model"
    path.write_bytes(bytes(10_000_000))
    far.sendall(b"FAIL" + struct.pack("<I", 9) + b"read-only")
    far.shutdown(socket.SHUT_RD)
    with pytest.raises(DeviceError, match="refused model at /x: read-only"):
        sync.push(near, path, "/x", "the phone")


def test_phone_lost_in_a_push(pair, tmp_path):
    near, far = pair
    path = tmp_path / "model"
    path.write_bytes(bytes(10_000_000))
    far.close()
    with pytest.raises(LinkLost, match="lost while model was sent"):
        sync.push(near, path, "/x", "the phone")


def test_file_that_is_not_there(pair, tmp_path):
    with pytest.raises(InvalidArtifactError, match="can't read"):
        sync.push(pair[0], tmp_path / "none", "/x", "the phone")

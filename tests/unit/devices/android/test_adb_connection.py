"""Streams over one connection: flow control, both ends of a stream, many at once, broken packets."""

import contextlib
import os
import socket
import threading

import pytest

from orchestrator.devices.android import packets
from orchestrator.devices.android.errors import LinkLost, ServiceRefused
from orchestrator.devices.android.stream import MAX_UNACKNOWLEDGED_BYTES

CLSE, OKAY, OPEN, WRTE = packets.CLSE, packets.OKAY, packets.OPEN, packets.WRTE


def opened(adb, peer, in_thread, service="tcp:1", remote_id=70):
    """A stream that the peer accepted: its socket and id."""
    ids = []

    def accept():
        local_id, destination = peer.expect(OPEN)
        assert destination == service.encode() + b"\0"
        ids.append(local_id)
        peer.send(OKAY, remote_id, local_id)

    in_thread(accept)
    sock = adb.open(service)
    sock.settimeout(60)
    return sock, ids[0]


def test_next_packet_waits_for_okay(connection, in_thread):
    adb, peer = connection
    sock, local_id = opened(adb, peer, in_thread)
    sock.sendall(b"a" * 1500)
    first = peer.expect(WRTE)[1]
    assert len(first) <= 1000

    peer.sock.settimeout(0.1)
    with pytest.raises(TimeoutError):
        peer.receive()
    peer.sock.settimeout(60)
    peer.send(OKAY, 70, local_id)
    assert first + peer.expect(WRTE)[1] == b"a" * 1500
    sock.close()


def test_what_arrives_is_acknowledged_once_it_is_in_the_socket(connection, in_thread):
    adb, peer = connection
    sock, local_id = opened(adb, peer, in_thread)
    data = os.urandom(100_000)
    peer.send(WRTE, 70, local_id, data)
    assert sock.recv(10) == data[:10]
    assert peer.receive()[:3] == (OKAY, local_id, 70)
    sock.close()


def test_a_reader_that_stops_stops_the_phone_and_no_other_stream(connection, in_thread):
    adb, peer = connection
    slow, slow_id = opened(adb, peer, in_thread, remote_id=70)
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    fast, fast_id = opened(adb, peer, in_thread, remote_id=71)
    payload = bytes(packets.MAX_PAYLOAD_BYTES)
    sent = quick = 0
    while quick < 100:
        peer.send(WRTE, 70, slow_id, payload)
        sent += 1
        quick = quick_until_acknowledged(peer, fast, fast_id, slow_id)
    assert sent < 50

    got = 0
    while got < sent * len(payload):
        got += len(slow.recv(1 << 20))
    assert peer.receive()[:3] == (OKAY, slow_id, 70)
    slow.close()
    fast.close()


def quick_until_acknowledged(peer, fast, fast_id, slow_id):
    """How often a quick packet came through the fast stream before the slow one's was acknowledged; at most 100."""
    for count in range(100):
        peer.send(WRTE, 71, fast_id, b"quick")
        assert fast.recv(10) == b"quick"
        acknowledged = peer.receive()[:3]
        if acknowledged == (OKAY, slow_id, 70):
            assert peer.receive()[:3] == (OKAY, fast_id, 71)
            return count
        assert acknowledged == (OKAY, fast_id, 71)
    return 100


def test_what_a_service_left_at_its_end_comes_without_waiting(connection, in_thread):
    """As Debian's adbd does."""
    adb, peer = connection
    sock, local_id = opened(adb, peer, in_thread)
    left = os.urandom(3 * packets.MAX_PAYLOAD_BYTES)
    for start in range(0, len(left), packets.MAX_PAYLOAD_BYTES):
        peer.send(WRTE, 70, local_id, left[start : start + packets.MAX_PAYLOAD_BYTES])
    peer.send(CLSE, 70, local_id)
    assert sock.makefile("rb").read() == left
    sock.close()


def test_a_phone_that_never_waits_for_okay_breaks_the_connection(connection, in_thread):
    adb, peer = connection
    sock, local_id = opened(adb, peer, in_thread)
    payload = bytes(packets.MAX_PAYLOAD_BYTES)
    # The first can't be acknowledged: it is more than the socket holds unread.
    in_thread(send_until_it_breaks, peer, local_id, payload)
    with pytest.raises(LinkLost, match="without waiting for what it sent"):
        adb.open("tcp:2")
    assert sock.makefile("rb").read() == bytes(MAX_UNACKNOWLEDGED_BYTES)
    sock.close()


def send_until_it_breaks(peer, local_id, payload):
    with contextlib.suppress(OSError):
        while True:
            peer.send(WRTE, 70, local_id, payload)


def test_bytes_before_a_close_arrive_then_eof(connection, in_thread):
    adb, peer = connection
    sock, local_id = opened(adb, peer, in_thread)
    peer.send(WRTE, 70, local_id, b"answer")
    peer.send(CLSE, 70, local_id)
    assert sock.recv(100) == b"answer"
    assert sock.recv(100) == b""
    with pytest.raises(BrokenPipeError):
        sock.sendall(b"too late")
    kinds = {peer.receive()[0], peer.receive()[0]}
    assert kinds == {OKAY, CLSE}
    sock.close()


def test_bytes_before_a_local_close_arrive_then_clse(connection, in_thread):
    adb, peer = connection
    sock, local_id = opened(adb, peer, in_thread)
    sock.sendall(b"b" * 2500)
    sock.close()
    got = b""
    while len(got) < 2500:
        got += peer.expect(WRTE)[1]
        peer.send(OKAY, 70, local_id)
    assert got == b"b" * 2500
    assert peer.receive()[:3] == (CLSE, local_id, 70)


def test_packets_to_a_stream_that_is_closed_change_nothing(connection, in_thread):
    adb, peer = connection
    sock, local_id = opened(adb, peer, in_thread)
    sock.close()
    peer.expect(CLSE)
    peer.send(WRTE, 70, local_id, b"late")
    peer.send(OKAY, 70, local_id)
    peer.send(CLSE, 70, local_id)
    again, again_id = opened(adb, peer, in_thread, remote_id=71)
    assert again_id != local_id
    again.close()


def test_refused_service(connection, in_thread):
    adb, peer = connection

    def refuse():
        local_id, _ = peer.expect(OPEN)
        peer.send(CLSE, 0, local_id)

    in_thread(refuse)
    with pytest.raises(ServiceRefused, match="the phone refused tcp:47613"):
        adb.open("tcp:47613")


def test_a_service_name_over_the_packet_size_is_refused_here(connection):
    adb, _ = connection
    with pytest.raises(ServiceRefused, match="takes no command of 2001 bytes"):
        adb.open("x" * 2000)


def test_silent_phone_is_lost(connection):
    adb, _ = connection
    with pytest.raises(LinkLost, match="no answer within 0 s"):
        adb.open("tcp:1", timeout_s=0.05)
    with pytest.raises(LinkLost):
        adb.open("tcp:1")


@pytest.mark.parametrize("fault", ["unplugged", "garbage", "oversized"])
def test_lost_connection_ends_every_stream(connection, in_thread, fault):
    adb, peer = connection
    streams = [opened(adb, peer, in_thread, remote_id=70 + n)[0] for n in range(3)]
    streams[0].sendall(b"c" * 5000)
    if fault == "unplugged":
        peer.sock.close()
    elif fault == "garbage":
        peer.send(WRTE, 1, 1, b"x", magic=12345)
    else:
        peer.send(WRTE, 1, 1, b"", size=1 << 30)
    for sock in streams:
        assert sock.recv(100) == b""
        sock.close()
    with pytest.raises(LinkLost, match="the adb connection to the phone is gone"):
        adb.open("tcp:1")


def test_close_ends_streams_and_threads(connection, in_thread):
    adb, peer = connection
    sock, _ = opened(adb, peer, in_thread)
    adb.close()
    assert sock.recv(1) == b""
    sock.close()
    assert not [t for t in threading.enumerate() if t.name == "adb-reader"]
    adb.close()


def test_full_duplex_of_many_streams(connection, in_thread):
    """Each stream's peer echoes; all data of all streams comes back although both directions are full."""
    adb, peer = connection
    count, size = 4, 300_000
    ids, lock = {}, threading.Lock()

    def echo():
        done = 0
        waiting = {}
        while done < count:
            command, arg0, arg1, payload, _ = peer.receive()
            if command == OPEN:
                ids[arg0] = 500 + arg0
                peer.send(OKAY, ids[arg0], arg0)
            elif command == WRTE:
                assert arg0 not in waiting
                waiting[arg0] = True
                peer.send(WRTE, arg1, arg0, payload)
            elif command == OKAY:
                del waiting[arg0]
                peer.send(OKAY, arg1, arg0)
            elif command == CLSE:
                done += 1

    in_thread(echo)

    def use(seed):
        with lock:
            sock = adb.open(f"tcp:{seed}")
        sock.settimeout(60)
        data = bytes([seed]) * size
        in_thread(sock.sendall, data)
        got = b""
        while len(got) < size:
            got += sock.recv(1 << 16)
        assert got == data
        sock.close()

    users = [threading.Thread(target=use, args=[seed], daemon=True) for seed in range(1, count + 1)]
    for user in users:
        user.start()
    for user in users:
        user.join(60)
        assert not user.is_alive()

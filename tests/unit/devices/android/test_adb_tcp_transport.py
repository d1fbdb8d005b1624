"""The TCP pipe: nothing lost in partial writes, errors instead of spinning, no waiting for a refused port."""

import os
import socket
import threading

import pytest

from orchestrator.devices.android.tcp import TcpTransport
from tests.support.ports import refusing_port


def test_all_is_written_through_a_tiny_buffer(ends, in_thread):
    transport, peer = ends
    transport._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    data, got = os.urandom(3_000_000), bytearray()

    in_thread(transport.bulk_write, data, 60.0)
    while len(got) < len(data):
        got.extend(peer.sock.recv(100_000))
    assert bytes(got) == data


def test_the_kernel_takes_less_than_it_is_given(ends):
    """What makes the test above one: a single `send` does not do."""
    transport, _ = ends
    transport._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    assert transport._sock.send(bytes(10_000_000)) < 10_000_000


def test_eof_is_an_error_each_time(ends):
    transport, peer = ends
    peer.sock.sendall(b"last")
    peer.sock.close()

    assert transport.bulk_read(24, 5.0) == b"last"
    for _ in range(3):
        with pytest.raises(ConnectionResetError, match="closed the connection"):
            transport.bulk_read(24, 5.0)


def test_silence_is_an_empty_read(ends):
    transport, _ = ends
    assert transport.bulk_read(24, 0.01) == b""


def test_a_peer_that_takes_nothing_is_an_error(ends):
    transport, _ = ends
    with pytest.raises(TimeoutError, match="took nothing"):
        transport.bulk_write(bytes(50_000_000), 0.05)


def test_refused_port_is_an_error_at_once():
    with refusing_port() as port, pytest.raises(ConnectionRefusedError):
        TcpTransport("127.0.0.1", port).connect(3600.0)


def test_small_packets_are_sent_at_once(ends):
    transport, _ = ends
    assert transport._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("busy", ["read", "write"])
def test_interrupt_ends_what_another_thread_does(ends, busy):
    transport, _ = ends
    ended = []

    def work():
        try:
            if busy == "read":
                transport.bulk_read(24, None)
            else:
                transport.bulk_write(bytes(50_000_000), None)
        except OSError as error:
            ended.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(0.1)
    assert thread.is_alive()
    transport.interrupt()
    thread.join(60)
    assert ended


def test_closed_transport_raises(ends):
    transport, _ = ends
    transport.close()
    with pytest.raises(ConnectionResetError):
        transport.bulk_read(1, 1.0)
    with pytest.raises(ConnectionResetError):
        transport.bulk_write(b"a", 1.0)

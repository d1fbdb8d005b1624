"""The cable between a client and a phone: a port of this machine that can be pulled out and plugged in again."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

_CHUNK_BYTES = 64 * 1024
_TCP_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))


class Cable:
    """Relays each connection to a port of the loopback to the phone's end, which `dial` opens.

    Plugged in from the start. Only processes of this user get through, for behind it is a shell.
    """

    def __init__(self, dial: Callable[[], socket.socket]) -> None:
        self._dial = dial
        self._listener = _bind_free_port()
        # Stays the same whether plugged in or not.
        self.port = int(self._listener.getsockname()[1])
        self._lock = threading.Lock()
        self._ends: set[socket.socket] = set()
        self._plugged = False
        # Pieces that the phone's bytes arrive in; small ones find readers that trust one recv.
        self.piece_bytes = _CHUNK_BYTES
        # Bytes that may still pass, both ways together, before the cable falls out by itself.
        self.bytes_left: int | None = None
        self.plug_in()

    def plug_in(self) -> None:
        """Connections are taken again."""
        with self._lock:
            if self._plugged:
                return
            self._plugged = True
            self.bytes_left = None
            self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def pull(self) -> None:
        """Ends all connections; new ones are refused."""
        with self._lock:
            if not self._plugged:
                return
            self._plugged = False
            # On Linux this ends listening and wakes accept(), yet keeps the port.
            self._listener.shutdown(socket.SHUT_RDWR)
            ends, self._ends = self._ends, set()
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Pulls for good."""
        self.pull()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, address = self._listener.accept()
            except OSError:
                return
            if not _of_this_user(address[1], self.port):
                client.close()
                continue
            try:
                phone = self._dial()
            except OSError:
                client.close()
                continue
            with self._lock:
                plugged = self._plugged
                if plugged:
                    self._ends |= {client, phone}
            if plugged:
                self._relay(client, phone)
            else:
                client.close()
                phone.close()

    def _relay(self, client: socket.socket, phone: socket.socket) -> None:
        running = [True, True]

        def carry(source: socket.socket, sink: socket.socket, piece_bytes: Callable[[], int]) -> None:
            with contextlib.suppress(OSError):
                while part := source.recv(piece_bytes()):
                    if self._spent(len(part)):
                        break
                    sink.sendall(part)
            for end in (client, phone):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            with self._lock:
                running.pop()
                if running:
                    return
                self._ends -= {client, phone}
            client.close()
            phone.close()

        for end in (client, phone):
            if end.family == socket.AF_INET:
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=carry, args=[client, phone, lambda: _CHUNK_BYTES], daemon=True).start()
        threading.Thread(target=carry, args=[phone, client, lambda: self.piece_bytes], daemon=True).start()

    def _spent(self, size: int) -> bool:
        """Whether these bytes are more than may pass; then the cable is pulled."""
        with self._lock:
            if self.bytes_left is None:
                return False
            self.bytes_left -= size
            spent = self.bytes_left < 0
        if spent:
            self.pull()
        return spent


def _bind_free_port() -> socket.socket:
    """A socket that keeps its port when it ends listening: only one that was asked for by number is kept."""
    with socket.socket() as chosen:
        sock = socket.socket()
        for each in (chosen, sock):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        chosen.bind(("127.0.0.1", 0))
        sock.bind(chosen.getsockname())
    return sock


def _of_this_user(peer_port: int, own_port: int) -> bool:
    """Whether the socket at the other end of a loopback connection belongs to this user.

    Raises nothing: a row that can't be found is refused.
    """
    for table in _TCP_TABLES:
        try:
            rows = table.read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            _, local, remote, _, _, _, _, uid, *_ = row.split()
            ports = [int(end.rpartition(":")[2], 16) for end in (local, remote)]
            if ports == [peer_port, own_port]:
                return int(uid) == os.getuid()
    return False

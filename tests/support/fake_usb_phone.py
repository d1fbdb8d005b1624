"""An Android phone on USB, as the library usb1 shows it: a device with one interface of two bulk endpoints.

It lets every client in. Packets that nobody has read stay in its endpoint when a session is killed, and a read that
is too short for the next packet overflows and halts the endpoint (libusb's LIBUSB_ERROR_OVERFLOW and _PIPE).
"""

# ruff: noqa: N802, N815 (usb1's names)

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import usb1
from adb_shell.adb_message import AdbMessage, unpack
from adb_shell.constants import CNXN, MESSAGE_SIZE, WIRE_TO_ID

PACKET_BYTES = 512
_IN, _OUT = 0x81, 0x01


class FakeUsbPhone:
    """The device and the handle that it opens.

    Attributes:
        packets: What the phone has for the computer, by USB packet.
        late: Packets of an earlier session that the phone sends before it answers the next greeting.
        greetings: How often it was greeted.
        is_silent: It answers nothing.
    """

    def __init__(self) -> None:
        self.packets: list[bytes] = []
        self.late: list[bytes] = []
        self.greetings = 0
        self.is_silent = False
        self._halted: set[int] = set()

    def setting(self) -> Any:
        """Return the interface of adb."""
        ends = [SimpleNamespace(getAddress=lambda end=end: end) for end in (_IN, _OUT)]
        return SimpleNamespace(iterEndpoints=lambda: ends, getNumber=lambda: 0)

    def open(self) -> FakeUsbPhone:
        return self

    def close(self) -> None:
        """Leave the packets where they are, as a phone does."""

    def getMaxPacketSize(self, endpoint: int) -> int:
        return PACKET_BYTES

    def getSerialNumber(self) -> str:
        return "U1"

    def kernelDriverActive(self, interface: int) -> bool:
        return False

    def claimInterface(self, interface: int) -> None:
        assert interface == 0

    releaseInterface = claimInterface

    def clearHalt(self, endpoint: int) -> None:
        self._halted.discard(endpoint)

    def bulkRead(self, endpoint: int, size: int, timeout: int) -> bytearray:
        assert endpoint == _IN
        assert timeout > 0, "0 would wait for ever"
        if endpoint in self._halted:
            raise usb1.USBErrorPipe
        data = bytearray()
        while len(data) < size:
            if not self.packets:
                if data:
                    return data
                raise usb1.USBErrorTimeout
            packet = self.packets.pop(0)
            if len(data) + len(packet) > size:
                self._halted.add(endpoint)
                raise usb1.USBErrorOverflow
            data += packet
            if len(packet) < PACKET_BYTES:
                break
        return data

    def bulkWrite(self, endpoint: int, data: bytes, timeout: int) -> int:
        assert endpoint == _OUT
        if len(data) == MESSAGE_SIZE and WIRE_TO_ID.get(unpack(data)[0]) == CNXN:
            self.greetings += 1
            late, self.late = self.late, []
            self.packets += late
            if not self.is_silent:
                answer = AdbMessage(CNXN, 0x01000000, 1 << 16, b"device::ro.product.model=Pixel 8;")
                self.packets += [answer.pack(), answer.data]
        return len(data)

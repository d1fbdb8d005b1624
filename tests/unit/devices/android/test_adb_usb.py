"""The USB pipe on a libusb whose device is played: ends of transfers, timeouts, permissions."""

import pytest
import usb1

from orchestrator.devices.android.errors import LinkLost, PhoneNotReady
from tests.support.libusb import usb, usb_transport

UsbTransport = usb.UsbTransport

PACKET_BYTES = 512
IN, OUT = 0x81, 0x01


class Endpoint:
    def __init__(self, address):
        self.address = address

    def getAddress(self):
        return self.address


class Setting:
    """adb's interface: class, subclass and protocol as AOSP's adb.h has them."""

    def getClass(self):
        return 0xFF

    def getSubClass(self):
        return 0x42

    def getProtocol(self):
        return 0x01

    def getNumber(self):
        return 0

    def iterEndpoints(self):
        return iter([Endpoint(IN), Endpoint(OUT)])


class Handle:
    """An opened device: notes writes, and answers reads from a list of bytes and errors."""

    def __init__(self):
        self.written, self.reads, self.closed = [], [], False
        self.takes = None

    def kernelDriverActive(self, number):
        return False

    def claimInterface(self, number):
        pass

    def releaseInterface(self, number):
        pass

    def bulkWrite(self, endpoint, data, timeout):
        assert endpoint == OUT
        self.written.append(bytes(data))
        return len(data) if self.takes is None else self.takes

    def bulkRead(self, endpoint, length, timeout):
        assert endpoint == IN
        answer = self.reads.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self):
        self.closed = True


class Device:
    def __init__(self, serial="37281FDJH0042", fails=None):
        self.serial, self.fails, self.handle = serial, fails, Handle()

    def iterSettings(self):
        return iter([Setting()])

    def open(self):
        if self.fails is not None:
            raise self.fails
        return self.handle

    def getSerialNumber(self):
        if isinstance(self.fails, usb1.USBErrorAccess):
            raise self.fails
        return self.serial

    def getBusNumber(self):
        return 1

    def getPortNumberList(self):
        return [2, 3]

    def getMaxPacketSize(self, endpoint):
        assert endpoint == OUT
        return PACKET_BYTES


@pytest.fixture
def attach(monkeypatch):
    """Plugs devices in."""

    def plug(*devices):
        context = type("Context", (), {"getDeviceIterator": lambda self, skip_on_error: iter(devices)})
        monkeypatch.setattr(usb_transport.UsbTransport, "USB1_CTX", context())

    return plug


@pytest.fixture
def opened(attach):
    device = Device()
    attach(device)
    transport = usb.find("37281FDJH0042")
    transport.connect(1.0)
    return transport, device.handle


@pytest.mark.parametrize(
    ("size", "lengths"), [(24, [24]), (511, [511]), (512, [512, 0]), (513, [513]), (4096, [4096, 0])]
)
def test_a_write_of_whole_packets_ends_with_an_empty_one(opened, size, lengths):
    transport, handle = opened
    assert transport.bulk_write(bytes(size), 1.0) == size
    assert [len(data) for data in handle.written] == lengths


def test_a_write_that_is_cut_short_is_an_error(opened):
    transport, handle = opened
    handle.takes = 100
    with pytest.raises(OSError, match="took 100 of 200 bytes"):
        transport.bulk_write(bytes(200), 1.0)


def test_a_read_that_times_out_keeps_what_had_arrived(opened):
    transport, handle = opened
    timeout = usb1.USBErrorTimeout()
    timeout.received = b"half"
    handle.reads = [timeout, b"", b"rest"]
    assert [transport.bulk_read(24, 1.0) for _ in range(3)] == [b"half", b"", b"rest"]


@pytest.mark.parametrize("operation", ["read", "write"])
def test_unplugged(opened, monkeypatch, operation):
    transport, handle = opened
    gone = usb1.USBErrorNoDevice()
    handle.reads = [gone]
    monkeypatch.setattr(handle, "bulkWrite", lambda *arguments, **options: (_ for _ in ()).throw(gone))
    with pytest.raises(OSError):
        transport.bulk_read(24, 1.0) if operation == "read" else transport.bulk_write(b"a", 1.0)


def test_closed(opened):
    transport, handle = opened
    transport.close()
    assert handle.closed
    with pytest.raises(OSError, match="closed"):
        transport.bulk_read(24, 1.0)


def test_phones_are_listed_with_those_that_may_not_be_opened(attach):
    attach(Device("A"), Device("B", usb1.USBErrorAccess()), Device("C"))
    found = list(usb.find_all())
    assert [serial for serial, _ in found] == ["A", "usb:1.2.3", "C"]
    assert found[1][1] is None
    assert isinstance(found[0][1], UsbTransport)


def test_phone_that_is_not_plugged_in(attach):
    attach(Device("A"))
    with pytest.raises(LinkLost, match="no phone B on USB"):
        usb.find("B")


def test_no_permission(attach):
    attach(Device("A", usb1.USBErrorAccess()))
    with pytest.raises(PhoneNotReady, match="udev rules") as caught:
        usb.find("usb:1.2.3")
    assert caught.value.state == "no permissions"


@pytest.mark.parametrize(
    ("fails", "error", "said"),
    [
        (usb1.USBErrorAccess(), PhoneNotReady, "udev rules"),
        (usb1.USBErrorBusy(), LinkLost, "another program holds"),
        (usb1.USBErrorIO(), OSError, "LIBUSB_ERROR_IO"),
    ],
)
def test_phone_that_can_not_be_opened(fails, error, said):
    transport = UsbTransport(Device("A", fails), Setting())
    with pytest.raises(error, match=said):
        transport.connect(1.0)

"""Which Android phones are found, through an adb server and without one, and which phone a name means."""

import socket
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from adb_shell.adb_device import UsbTransport
from adb_shell.exceptions import TcpTimeoutException, UsbReadFailedError

from orchestrator.devices.android import direct, phones
from orchestrator.devices.android import server as server_module
from orchestrator.devices.android.link import (
    LinkLostError,
    PhoneNotReadyError,
    ServiceRefusedError,
    is_address,
)
from orchestrator.devices.android.phones import AndroidPhone, choose, open_link, slug
from orchestrator.devices.android.server import AdbServer, running_server
from orchestrator.wire.client import AgentClient
from orchestrator.wire.errors import DeviceError
from tests.support.errors import raises
from tests.support.fake_adbd import FakeAdbd
from tests.support.fake_android import EMULATED, FakeAndroid

PIXEL = AndroidPhone("37281FDJH0042", "device", "Pixel 8", "usb")
TWIN = AndroidPhone("192.168.1.5:5555", "device", "Pixel 8", "tcp")
GALAXY = AndroidPhone("R58M123", "device", "SM-S911B", "server")
UNKNOWN = AndroidPhone("XYZ", "device", "Nokia 3.4", "server")
HIDDEN = AndroidPhone("R58M999", "unauthorized", "", "server")
EMULATOR = AndroidPhone("emulator-5554", "device", "Pixel 8", "server", emulated=True)


class TestNames:
    @pytest.mark.parametrize(
        ("phone", "name", "title"),
        [
            (EMULATOR, "emulator", "Android emulator, not a phone (Pixel 8)"),
            (PIXEL, "pixel8", "Pixel 8"),
            (GALAXY, "galaxys23", "Galaxy S23"),
            (UNKNOWN, "nokia34", "Nokia 3.4"),
            (HIDDEN, "", "Android phone"),
        ],
    )
    def test_they_come_from_the_registry_or_the_model(self, phone, name, title):
        assert (phone.name, phone.title) == (name, title)

    @pytest.mark.parametrize(("model", "name"), [("SM-S911B", "sms911b"), ("../Ärger 5G", "rger5g")])
    def test_slug_is_a_folder_name(self, model, name):
        assert slug(model) == name

    def test_addresses(self):
        assert all(map(is_address, ["192.168.1.5:5555", "phone.local:5555", "[fe80::1%eth0]:5555"]))
        assert not any(map(is_address, ["pixel8", "host:", ":5555", "host:0", "host:65536", "host:5555;rm"]))


class TestChoice:
    @pytest.mark.parametrize("name", ["pixel8", "Pixel 8", "PIXEL-8", "37281FDJH0042"])
    def test_by_name_or_serial(self, name):
        assert choose(name, [GALAXY, PIXEL, HIDDEN]) == PIXEL

    def test_an_emulator_is_not_the_phone_that_it_shows(self):
        assert choose("pixel8", [EMULATOR]) is None
        assert choose("pixel8", [EMULATOR, PIXEL]) == PIXEL
        assert choose("emulator", [EMULATOR, PIXEL]) == choose("emulator-5554", [EMULATOR]) == EMULATOR

    def test_no_such_phone(self):
        assert choose("pixel9", [PIXEL, GALAXY]) is None
        assert choose("iphone13", [PIXEL, HIDDEN]) is None

    def test_several_phones_of_a_name(self):
        with raises("several_phones") as several:
            choose("pixel8", [PIXEL, TWIN])
        assert "37281FDJH0042, 192.168.1.5:5555" in str(several.value)
        assert choose("192.168.1.5:5555", [PIXEL, TWIN]) == TWIN

    @pytest.mark.parametrize(
        ("state", "step"),
        [
            ("unauthorized", "accept its USB debugging dialog"),
            ("offline", "plug it in again"),
            ("no permissions", "udev rules"),
            ("unreachable", "close the program that holds the phone"),
            ("recovery", "adb says recovery"),
        ],
    )
    def test_a_phone_that_is_not_ready(self, state, step):
        with raises("phone_not_ready") as refused:
            choose("pixel8", [AndroidPhone("R58M123", state, "Pixel 8", "server")])
        assert refused.value.state == state
        assert step in str(refused.value)

    def test_a_phone_that_hides_its_name_may_be_the_one(self):
        with raises("phone_not_ready") as hidden:
            choose("pixel9", [PIXEL, HIDDEN])
        assert "unless it is R58M999" in str(hidden.value)


def wait_briefly(monkeypatch):
    monkeypatch.setattr(phones, "_POLL_S", 0.01)
    for module in (phones, direct):
        monkeypatch.setattr(module, "ACCEPT_TIMEOUT_S", 0.3)


def found(phone, transport="server"):
    return AndroidPhone(phone.serial, "device", "Pixel 8", transport)


class TestServer:
    def test_all_states_are_listed(self, server, phone):
        others = [
            FakeAndroid(phone.app, serial, state)
            for serial, state in [
                ("S2", "unauthorized"),
                ("S3", "offline"),
                ("S4", "no permissions (see udev)"),
            ]
        ]
        server.phones += others
        assert phones.list_phones() == [
            found(phone),
            AndroidPhone("S2", "unauthorized", "", "server"),
            AndroidPhone("S3", "offline", "", "server"),
            AndroidPhone("S4", "no permissions", "", "server"),
        ]

    @pytest.mark.parametrize("properties", [{}, EMULATED, {"ro.kernel.qemu": "1", "ro.hardware": "goldfish"}])
    def test_emulators_identify_themselves(self, server, phone, properties):
        phone.properties |= properties
        (listed,) = phones.list_phones()
        assert listed.emulated == bool(properties)

    def test_phones_on_the_network_are_added(self, server, phone, monkeypatch):
        server.phones.clear()
        phone.serial = "host:1"
        server.network["host:1"] = phone
        monkeypatch.setenv(phones.ADDRESSES_VARIABLE, "host:1, gone:1")
        assert phones.list_phones() == [found(phone)]
        assert phones.find("host:1", print) == found(phone)
        with raises("phone_lost"):
            phones.find("other:1", print)

    def test_lost_network_phone_is_connected_again(self, server, phone):
        phone.serial = "host:1"
        server.network["host:1"] = phone
        phone.pull_cable("offline")
        with raises("phone_lost"):
            open_link("host:1")
        phone.plug_in()
        assert open_link("host:1").shell("getprop ro.product.model").text == "Pixel 8"

    def test_silent_network_phone_is_connected_again(self, server, phone, monkeypatch):
        monkeypatch.setattr(server_module, "_ANSWER_TIMEOUT_S", 0.2)
        phone.serial = "host:1"
        server.network["host:1"] = phone
        link, talk, done = open_link("host:1"), phone.talk, threading.Event()
        monkeypatch.setattr(phone, "talk", lambda service: done.wait() and None)
        with raises("phone_lost"):
            link.shell("getprop ro.product.model")
        done.set()
        assert server.requests.count("host:disconnect:host:1") == 1
        monkeypatch.setattr(phone, "talk", talk)
        assert open_link("host:1").shell("getprop ro.product.model").text == "Pixel 8"
        assert server.requests.count("host:connect:host:1") == 1

    def test_refused_command_is_named_on_one_line(self, server, phone, monkeypatch):
        link = open_link(phone.serial)
        monkeypatch.setattr(phone, "talk", lambda service: None)
        with raises("service_refused") as refused:
            link.shell("pm grant a b")
        assert str(refused.value) == f"{phone.serial} refused pm grant a b: closed"

    def test_bad_address(self, server, monkeypatch):
        monkeypatch.setenv(phones.ADDRESSES_VARIABLE, "pixel8")
        with raises("bad_address"):
            phones.list_phones()

    def test_permission_is_waited_for(self, server, phone, monkeypatch):
        phone.state, messages = "unauthorized", []

        def accept(line):
            messages.append(line)
            phone.state = "device"

        assert phones.find("pixel8", accept) == found(phone)
        assert messages == [f"the phone {phone.serial} asks: unlock it and allow USB debugging there"]

    def test_permission_that_is_not_given(self, server, phone, monkeypatch):
        wait_briefly(monkeypatch)
        phone.state = "unauthorized"
        with raises("phone_not_ready"):
            phones.find(phone.serial, print)

    def test_no_phone_asks_if_another_is_meant(self, server, phone):
        server.phones.append(FakeAndroid(phone.app, "S2", "unauthorized"))
        messages = []
        assert phones.find("pixel8", messages.append) == found(phone)
        assert messages == []

    def test_phone_that_is_lost_behind_a_link(self, server, phone):
        link = open_link(phone.serial)
        phone.pull_cable()
        with pytest.raises(LinkLostError):
            link.open_service("tcp:47613")
        phone.state = "unauthorized"
        with pytest.raises(PhoneNotReadyError):
            link.open_service("tcp:47613")
        server.close()
        with pytest.raises(LinkLostError):
            link.shell("getprop ro.product.model")

    def test_something_else_at_its_address(self, monkeypatch):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(listener.getsockname()[1]))

            def hang_up():
                for _ in range(2):
                    listener.accept()[0].close()

            threading.Thread(target=hang_up, daemon=True).start()
            assert running_server() is None

    @pytest.mark.parametrize(
        ("variable", "value", "expected"),
        [
            ("ANDROID_ADB_SERVER_PORT", "5038", AdbServer("127.0.0.1", 5038)),
            ("ANDROID_ADB_SERVER_PORT", "", AdbServer("127.0.0.1", 5037)),
            ("ADB_SERVER_SOCKET", "tcp:5039", AdbServer("127.0.0.1", 5039)),
            ("ADB_SERVER_SOCKET", "tcp:rack:5039", AdbServer("rack", 5039)),
        ],
    )
    def test_address_of_the_environment(self, monkeypatch, variable, value, expected):
        monkeypatch.setenv(variable, value)
        assert AdbServer.from_environment() == expected

    def test_a_server_elsewhere_is_not_started_here(self, monkeypatch):
        monkeypatch.setenv("ADB_SERVER_SOCKET", "tcp:192.0.2.1:1")
        monkeypatch.setattr(server_module, "_PROBE_TIMEOUT_S", 0.1)
        monkeypatch.setattr(AdbServer, "start", lambda self: pytest.fail("started"))
        assert running_server() is None


@pytest.fixture
def adbd(phone):
    """The phone's adb daemon on the network; no adb server runs or can be started."""
    adbd = FakeAdbd(phone)
    yield adbd
    adbd.close()


@pytest.fixture
def usb(monkeypatch):
    """Phones on USB by serial: None if this user may not open them."""
    attached = {}
    monkeypatch.setattr(direct, "list_usb", lambda: dict(attached))
    return attached


class TestDirectly:
    def test_listing_shows_no_dialog(self, adbd, usb, monkeypatch):
        monkeypatch.setenv(phones.ADDRESSES_VARIABLE, f"{adbd.address},127.0.0.1:1")
        usb["U3"] = None
        assert phones.list_phones() == [
            AndroidPhone("U3", "no permissions", "", "usb"),
            AndroidPhone(adbd.address, "unauthorized", "", "tcp"),
        ]
        assert adbd.dialogs == 0

    def test_named_phone_asks_once(self, adbd, usb):
        messages = []
        for _ in range(2):
            assert phones.find(adbd.address, messages.append) == found(adbd.phone, "tcp")
        assert (adbd.dialogs, len(messages)) == (1, 1)

    def test_dialog_that_nobody_accepts(self, adbd, usb, monkeypatch):
        wait_briefly(monkeypatch)
        adbd.accepts = False
        with raises("phone_not_ready"):
            phones.find(adbd.address, print)
        assert adbd.dialogs == 1

    def test_key_of_this_user_alone(self, adbd, usb, tmp_path):
        phones.find(adbd.address, print)
        assert (tmp_path / ".android/adbkey").stat().st_mode & 0o077 == 0
        (tmp_path / ".android/adbkey").write_text("not a key")
        with raises("bad_adb_key"):
            phones.find(adbd.address, print)

    def test_shell_with_much_output_and_input(self, adbd, usb):
        link = open_link(adbd.address, lambda: None)
        adbd.phone.answers = [("logcat", "x" * 3_000_001, 7)]
        result = link.shell("logcat -d")
        assert (len(result.output), result.exit_code) == (3_000_001, 7)
        apk = bytes(range(256)) * 20_000
        assert link.shell(f"cmd package install -r -S {len(apk)}", apk).text == "Success"
        assert adbd.phone.apk == apk
        link.close()

    def test_refused_port_does_not_wait(self, adbd, usb):
        link = open_link(adbd.address, lambda: None)
        start_s = time.monotonic()
        with pytest.raises(ServiceRefusedError):
            link.open_service("tcp:47613")
        assert time.monotonic() - start_s < 10
        link.close()

    def test_shell_and_agent_share_the_connection(self, adbd, usb):
        link = open_link(adbd.address, lambda: None)
        adbd.phone.token = "of-the-test"
        adbd.phone._start_agent()
        client = AgentClient.greeted(link.open_service("tcp:47613"), "of-the-test", 60, "pixel8")
        assert client.hello().device.model == "Pixel 8"
        assert {link.shell("getprop ro.product.model").text for _ in range(5)} == {"Pixel 8"}
        client.close()
        link.close()

    def test_small_messages_are_sent_at_once(self, adbd, usb):
        link = open_link(adbd.address, lambda: None)
        assert isinstance(link, direct.DirectLink)
        sock = link._device._io_manager._transport._connection
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        link.close()

    def test_pulled_cable(self, adbd, usb):
        link = open_link(adbd.address, lambda: None)
        adbd.phone.pull_cable()
        with raises("phone_lost"):
            link.shell("getprop ro.product.model")
        adbd.close()
        with raises("phone_lost"):
            open_link(adbd.address)

    def test_usb_phones_that_cannot_be_opened(self, usb):
        usb["U3"] = None
        with raises("phone_not_ready"):
            open_link("U3")
        with raises("phone_lost"):
            open_link("U4")

    def test_no_adb_and_no_libusb(self, usb, monkeypatch):
        monkeypatch.setattr(direct, "HAS_USB", True)
        assert phones.list_phones() == []
        monkeypatch.setattr(direct, "HAS_USB", False)
        with raises("no_adb"):
            phones.list_phones()


usb1 = pytest.importorskip("usb1") if direct.HAS_USB else None


@pytest.mark.skipif(not direct.HAS_USB, reason="libusb is not installed")
class TestUsb:
    @pytest.fixture
    def transport(self):
        transport = object.__new__(direct._Usb)
        transport._device = SimpleNamespace(getMaxPacketSize=lambda endpoint: 512)
        transport._write_endpoint = 1
        return transport

    @pytest.mark.parametrize(("size", "packets"), [(24, [24]), (511, [511]), (1024, [1024, 0])])
    def test_an_empty_packet_follows_full_ones(self, transport, monkeypatch, size, packets):
        sent = []

        def write(_, data, timeout_s):
            sent.append(len(data))
            return len(data)

        monkeypatch.setattr(UsbTransport, "bulk_write", write)
        transport.bulk_write(bytes(size), 1.0)
        assert sent == packets

    def test_a_poll_ends_before_a_message_only(self, transport, monkeypatch):
        timeouts = []

        def read(_, size, timeout_s):
            timeouts.append(timeout_s)
            raise UsbReadFailedError("timed out", usb1.USBErrorTimeout())

        monkeypatch.setattr(UsbTransport, "bulk_read", read)
        for size in (24, 4096):
            with pytest.raises(TcpTimeoutException):
                transport.bulk_read(size, 0.02)
        assert timeouts == [0.02, 20.0]

    @pytest.fixture
    def usb_phone(self):
        from tests.support.fake_usb_phone import FakeUsbPhone

        return FakeUsbPhone()

    def connect(self, usb_phone):
        return direct.connect("U1", direct._Usb(usb_phone, usb_phone.setting(), "U1"))

    @pytest.mark.parametrize("sizes", [[], [88], [512, 88], [512] * 40])
    def test_packets_for_a_killed_session_are_dropped(self, usb_phone, sizes):
        usb_phone.packets = [bytes(size) for size in sizes]
        self.connect(usb_phone).close()
        assert usb_phone.greetings == 1

    @pytest.mark.parametrize("size", [24, 512])
    def test_phone_is_greeted_once_more(self, usb_phone, size):
        usb_phone.late = [bytes(size)]
        self.connect(usb_phone).close()
        assert usb_phone.greetings == 2

    def test_phone_that_does_not_answer_is_greeted_twice(self, usb_phone):
        usb_phone.is_silent = True
        with raises("phone_lost"):
            self.connect(usb_phone)
        assert usb_phone.greetings == 2

    def test_phone_that_this_user_may_not_open(self, monkeypatch):
        class Transport:
            port_path = (1, 4)

            def __init__(self, error=None):
                self.error = error

            @property
            def serial_number(self):
                if self.error:
                    raise self.error
                return "U1"

        attached = [Transport(), Transport(usb1.USBErrorAccess()), Transport(usb1.USBErrorNoDevice())]
        monkeypatch.setattr(direct._Usb, "find_all_adb_devices", lambda: attached)
        assert direct.list_usb() == {"U1": attached[0], "usb:1.4": None}


@pytest.mark.parametrize("package", ["adbutils", "adb_shell.adb_device"])
def test_missing_packages(monkeypatch, package):
    for name in ("server", "direct"):
        monkeypatch.delitem(sys.modules, f"orchestrator.devices.android.{name}", raising=False)
        monkeypatch.delattr(f"orchestrator.devices.android.{name}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with raises("package_missing") as missing:
        phones.list_phones()
    assert missing.value.next_step == "from a checkout of blocktime, pip install -e '.[android]'"


def test_command_that_does_not_end(link, phone, monkeypatch):
    phone.talk = lambda service: lambda sock: time.sleep(0.5)
    with raises("phone_lost"):
        link.shell("sleep 1000", timeout_s=0.1)


def test_command_without_an_exit_code(link, phone):
    phone.talk = lambda service: lambda sock: sock.sendall(b"half of the out")
    with raises("phone_lost"):
        link.shell("cat")


def test_server_of_the_adbutils_package(monkeypatch):
    """The bundled adb starts a server that answers; it is ended again."""
    from adbutils import AdbClient

    from tests.support.ports import own_port

    port = own_port()
    monkeypatch.delenv("ADBUTILS_ADB_PATH")
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
    monkeypatch.setenv("ADB_MDNS_AUTO_CONNECT", "0")
    try:
        started = running_server()
    except DeviceError as error:
        pytest.skip(f"no adb for this computer: {error}")
    if started is None:
        pytest.skip("no adb for this computer")
    try:
        assert started == AdbServer("127.0.0.1", port)
        assert isinstance(started.list_states(), dict)
    finally:
        AdbClient("127.0.0.1", port).server_kill()

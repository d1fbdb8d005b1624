"""The transport to Android phones, on both phones that are none, directly and over an adb server."""

import os
import threading
from pathlib import Path

import pytest

from orchestrator.devices.android import apk, device, finding, handshake
from orchestrator.devices.android.device import AndroidDevice
from orchestrator.devices.android.direct import DirectLink
from orchestrator.devices.android.errors import LinkLost, NotInstalled, PhoneNotReady, ServiceRefused
from orchestrator.devices.android.phones import AndroidPhone
from orchestrator.devices.android.server import ServerLink
from orchestrator.devices.common import busy
from orchestrator.wire.errors import AgentError, AgentLost, DeviceError
from tests.support.fakephone.daemon import Owner
from tests.support.ports import refusing_port
from tests.support.waiting import until

WAYS = ("direct", "server")


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    """Keys of these tests alone, and no adb server unless a test wants one."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (
        "ADB_SERVER_SOCKET",
        "ANDROID_ADB_SERVER_ADDRESS",
        apk.APK_VARIABLE,
        finding.ADDRESSES_VARIABLE,
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(device, "_COMEBACK_POLL_S", 0.1)
    with refusing_port() as port:
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
        yield


@pytest.fixture
def said():
    return []


@pytest.fixture(params=WAYS)
def way(request):
    return request.param


@pytest.fixture
def attached(way, phone, monkeypatch, request, said):
    """The phone, that either the server holds or nobody."""
    if way == "server":
        adb = request.getfixturevalue("adb")
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(adb.port))
        with adb.connected(phone.serial):
            yield phone
    else:
        yield phone


@pytest.fixture
def link(attached, way, said):
    link = finding.open_link(attached.serial, lambda: said.append("asked"))
    assert isinstance(link, ServerLink if way == "server" else DirectLink)
    yield link
    link.close()


@pytest.fixture
def android(attached, kotlin_agent, make_apk, said):
    """The device that `bench` would use, ended at the end."""
    with AndroidDevice(found(attached), apk=make_apk(), say=said.append, timeout_s=300) as opened:
        yield opened


@pytest.fixture
def directly(fake_phone, kotlin_agent, make_apk, said):
    """As `android`, with the fake phone and no server."""
    with AndroidDevice(found(fake_phone), apk=make_apk(), say=said.append, timeout_s=300) as opened:
        yield opened


def found(phone):
    """The phone as its serial finds it; where it does not know this computer, its owner accepts."""
    return finding.find(phone.serial, print)


def model_file(folder, size):
    path = folder / "model.pte"
    path.write_bytes(os.urandom(size))
    return path


def take_log(line):
    """What is in the log file that a line names at its end; the file is removed."""
    path = Path(line.rpartition(" ")[2])
    text = path.read_text()
    path.unlink()
    return text


def test_shell(link):
    result = link.shell("cat; echo err >&2; exit 7", b"in\n")
    assert sorted(result.text.split()) == ["err", "in"]
    assert result.exit_code == 7
    assert link.shell("getprop ro.product.model").text == "Pixel 8"


def test_push(link, attached, tmp_path):
    path = model_file(tmp_path, 3_000_001)
    link.push(path, "/data/local/tmp/a folder/model.pte")
    assert attached.folders.local("/data/local/tmp/a folder/model.pte").read_bytes() == path.read_bytes()


def test_port_where_nothing_listens_is_refused_at_once(link):
    with pytest.raises(ServiceRefused, match="refused tcp:47613"):
        link.open_socket(47613)


def test_shell_and_agent_share_a_link(android, tmp_path):
    """Over USB there is one connection only: a put of 100 MiB in one stream, commands in another."""
    client = android.connect()
    path = model_file(tmp_path, 100 << 20)
    done, answers = threading.Event(), []

    def ask():
        while not done.is_set():
            answers.append(android._link.shell("getprop ro.product.model").text)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    assert client.ensure(path)
    done.set()
    asking.join(60)
    assert set(answers) == {"Pixel 8"}
    assert not client.ensure(path)
    client.bye()


def test_app_is_installed_started_and_stopped(attached, android):
    assert "dev.blocktime.bench" not in attached.state.packages
    with android.connect() as client:
        hello = client.hello()
        assert (hello.agent.name, hello.device.model) == ("blocktime-kotlin", "Pixel 8")
        assert hello.device.simulated
    assert attached.state.packages["dev.blocktime.bench"].granted == {"android.permission.POST_NOTIFICATIONS"}
    assert "dev.blocktime.bench" in attached.state.idle_whitelist
    android.__exit__(None, None, None)
    assert attached.app.pid is None


def test_a_dark_screen_is_woken_and_reasons_are_passed_on(installed, kotlin_agent, said):
    installed.state.screen_on = False
    allow = ("low_battery", "throttled")
    with AndroidDevice(found(installed), allow=allow, say=said.append) as opened:
        opened.connect().bye()
        assert installed.state.screen_on
        assert installed.app.allowed == allow


def test_cable_pulled_in_a_put(attached, android, said, tmp_path, way, adb):
    path = model_file(tmp_path, 30_000_000)
    client = android.connect()
    attached.cable.bytes_left = 10_000_000
    with pytest.raises(AgentLost, match="receiving model.pte"):
        client.ensure(path)
    pid = attached.app.pid

    def plug_in():
        until(lambda: said)
        attached.plug_in()
        if way == "server":  # a server asks phones in the network anew only now and then
            adb.run("disconnect", attached.serial)
            adb.run("connect", attached.serial)

    plugging = threading.Thread(target=plug_in, daemon=True)
    plugging.start()
    with android.connect() as again:
        assert again.ensure(path)
    plugging.join()
    assert not [line for line in said if not line.startswith("waiting for Pixel 8: ")]
    assert attached.app.pid == pid
    assert android.agent_starts == 1


def test_app_killed_by_the_system(directly, fake_phone, said):
    client = directly.connect()
    fake_phone.app.stop()
    with pytest.raises(AgentLost):
        client.state()
    with directly.connect() as again:
        again.state()
    assert directly.agent_starts == 2
    [line] = said
    assert line.startswith("the app on Pixel 8 had ended; starting it again, its log is ")
    assert "beginning of main" in take_log(line)


def test_phone_that_restarts(fake_phone, kotlin_agent, make_apk):
    said = []

    def say(line):
        said.append(line)
        if "still starting" in line:
            fake_phone.state.properties["sys.boot_completed"] = "1"

    with AndroidDevice(found(fake_phone), apk=make_apk(), say=say) as opened:
        client = opened.connect()
        fake_phone.state.properties["sys.boot_completed"] = ""
        fake_phone.reboot()
        with pytest.raises(AgentLost):
            client.state()
        with opened.connect() as again:
            again.state()
        assert opened.agent_starts == 2
    assert any("still starting" in line for line in said)
    take_log(said[-1])


def test_phone_that_stays_away(directly, fake_phone, monkeypatch):
    directly._comeback_timeout_s = 0.3
    directly.connect()
    fake_phone.pull_cable()
    with pytest.raises(DeviceError, match="Pixel 8 did not come back within 0 s: .*nothing listens"):
        directly.connect()
    fake_phone.plug_in()


def test_two_programs_at_once(directly, fake_phone, monkeypatch):
    monkeypatch.setattr(busy, "BUSY_S", 0.0)
    with directly.connect() as client, AndroidDevice(found(fake_phone)) as other:
        with pytest.raises(AgentError) as caught:
            other.connect()
        assert caught.value.code == "busy"
        client.state()
    assert fake_phone.app.pid is not None


def test_unauthorized(fake_phone, monkeypatch, said):
    monkeypatch.setenv(finding.ADDRESSES_VARIABLE, fake_phone.serial)
    fake_phone.daemon.owner = Owner.IGNORES
    assert finding.list_phones() == [AndroidPhone(fake_phone.serial, "unauthorized", "", "tcp")]
    with (
        monkeypatch.context() as impatient,
        pytest.raises(PhoneNotReady, match="unlock it, accept its USB debugging dialog"),
    ):
        impatient.setattr(handshake, "ACCEPT_TIMEOUT_S", 0.3)
        finding.find("pixel8", said.append)
    assert said == [f"the phone {fake_phone.serial} asks: unlock it and allow USB debugging there"]

    fake_phone.daemon.owner = Owner.ALLOWS
    assert finding.find("pixel8", said.append).model == "Pixel 8"
    asked = len(said)
    assert finding.find("pixel8", said.append).state == "device"
    assert len(said) == asked


def test_unauthorized_by_the_servers_word(fake_phone, adb, monkeypatch, said):
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(adb.port))
    fake_phone.daemon.owner = Owner.IGNORES
    with adb.connected(fake_phone.serial, "unauthorized"):
        assert finding.list_phones() == [AndroidPhone(fake_phone.serial, "unauthorized", "", "server")]
        with pytest.raises(PhoneNotReady, match="is unauthorized: unlock the phone and accept"):
            finding.find(fake_phone.serial, said.append)
    assert said == []


def test_two_phones_of_a_model(fake_phone, kotlin_agent, monkeypatch):
    from tests.support.fakephone.phone import FakePhone

    with FakePhone(fake_phone.app._program) as twin:
        for phone in (fake_phone, twin):
            found(phone)
        monkeypatch.setenv(finding.ADDRESSES_VARIABLE, f"{fake_phone.serial},{twin.serial}")
        with pytest.raises(
            DeviceError, match=f"several phones are pixel8.*{fake_phone.serial}, {twin.serial}"
        ):
            finding.find("pixel8", print)
        assert finding.find(twin.serial, print).serial == twin.serial


def test_address_where_no_phone_is(fake_phone):
    fake_phone.pull_cable()
    with pytest.raises(LinkLost, match="nothing listens at .*`adb tcpip 5555`"):
        found(fake_phone)


def test_full_storage_and_refused_installs(fake_phone, make_apk):
    fake_phone.state.free_bytes = 100
    with (
        AndroidDevice(found(fake_phone), apk=make_apk()) as opened,
        pytest.raises(DeviceError, match="the storage of .* is full: base.apk does not fit"),
    ):
        opened.connect()
    fake_phone.state.free_bytes = None
    fake_phone.state.install_failure = "INSTALL_FAILED_UPDATE_INCOMPATIBLE: signatures do not match"
    with (
        AndroidDevice(found(fake_phone), apk=make_apk()) as opened,
        pytest.raises(DeviceError, match="has another signature: remove it with `adb uninstall"),
    ):
        opened.connect()
    assert not list(fake_phone.folders.local("/data/local/tmp").iterdir())


def test_no_app_and_no_file(fake_phone):
    with AndroidDevice(found(fake_phone)) as opened, pytest.raises(NotInstalled, match="--app FILE.apk"):
        opened.connect()


def test_upgrade(fake_phone, kotlin_agent, make_apk):
    fake_phone.packages.install(make_apk(version_code=1))
    newer = make_apk(version_code=2)
    with AndroidDevice(found(fake_phone), apk=newer) as opened:
        opened.connect().bye()
        installed = fake_phone.state.packages["dev.blocktime.bench"]
        assert installed.apk.version_code == 2
        opened.connect().bye()
    assert fake_phone.state.packages["dev.blocktime.bench"] is installed


def test_phone_with_small_packets_on_a_bad_line(fake_phone, tmp_path, said):
    fake_phone.daemon.max_payload = 4096
    fake_phone.cable.piece_bytes = 7
    link = finding.open_link(fake_phone.serial, lambda: said.append("asked"))
    path = model_file(tmp_path, 300_000)
    link.push(path, "/data/local/tmp/model")
    assert fake_phone.folders.local("/data/local/tmp/model").read_bytes() == path.read_bytes()
    assert link.shell("head -c 100000 /dev/zero").output == bytes(100_000)
    link.close()

"""A Pixel 8 held by an adb server, both played by this process, for `bench` as users run it."""

import pytest

from tests.support.agent_programs import ROOT, require_built
from tests.support.fake_android import FakeAdbServer, FakeAndroid
from tests.support.phone_apps import ProgramApp


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Folders of the test's own under a home whose name must not appear in a bug report."""
    home = tmp_path / "home" / "mister-secret"
    home.mkdir(parents=True)
    for name in ("LUTS", "RUNS", "CACHE"):
        monkeypatch.setenv(f"BLOCKTIME_{name}", str(home / name.lower()))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("ADBUTILS_ADB_PATH", str(home / "no-adb"))
    return home


@pytest.fixture
def server(monkeypatch):
    """An adb server without phones."""
    with FakeAdbServer() as server:
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(server.port))
        yield server
        assert [defect for phone in server.phones for defect in phone.defects] == []


@pytest.fixture
def attach_kotlin_phone(server, tmp_path):
    """A function that attaches a Pixel 8 whose app is the Kotlin agent."""
    require_built("kotlin")

    def attach(serial="37281FDJH0042"):
        command = [str(ROOT / "build/kotlin/blocktime-agent"), "--port", "0", "--simulate", "Pixel 8"]
        command += ["--store", str(tmp_path / f"store-{serial}")]
        phone = FakeAndroid(ProgramApp(command, tmp_path / f"agent-{serial}.log"), serial)
        server.phones.append(phone)
        return phone

    return attach

"""A fake phone, a link to it, and an adb server that holds it; no real adb server is used or started."""

import pytest

from orchestrator.devices.android import app
from tests.support.fake_android import FakeAdbServer, FakeAndroid, FakeLink
from tests.support.phone_apps import ScriptedApp


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ADBUTILS_ADB_PATH", str(tmp_path / "no-adb"))
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "1")
    for name in (
        "ADB_SERVER_SOCKET",
        "ANDROID_ADB_SERVER_ADDRESS",
        "BLOCKTIME_ADB_ADDRESSES",
        app.APK_VARIABLE,
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(app, "_BUILD_FOLDER", tmp_path / "built")


@pytest.fixture
def phone():
    """A Pixel 8 with the app, whose agent answers by a script."""
    agent = ScriptedApp()
    phone = FakeAndroid(agent, apk=b"an app", compiled=True)
    yield phone
    phone.pull_cable()
    agent.close()
    assert phone.defects == []


@pytest.fixture
def link(phone):
    return FakeLink(phone)


@pytest.fixture
def server(phone, monkeypatch):
    """An adb server that holds the phone."""
    with FakeAdbServer(phone) as server:
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(server.port))
        yield server

"""A played phone, with the app installed, and a device that is it."""

import pytest

from orchestrator.devices.android import apk as apk_module
from orchestrator.devices.android import app as app_module
from orchestrator.devices.android import device as device_module
from orchestrator.devices.android import finding as finding_module
from orchestrator.devices.android.device import AndroidDevice
from tests.support.played_phone import ON, PHONE, Clock, Phone, played_agent


@pytest.fixture
def phone(link, monkeypatch, tmp_path):
    """The played phone, with the app installed and nothing else in the way; no time passes in waiting."""

    class Link(type(link)):
        def __init__(self, owner):
            super().__init__()
            self.owner = owner
            self.say("dumpsys package", "Package [dev.blocktime.bench] (1):\n versionCode=7\n")
            self.say("getprop sys.boot_completed", "1")
            self.say("pm install", "Success")
            if owner.mode_refused:
                self.say(ON, "Failed to set FIXED_PERFORMANCE mode", 255)

        def shell(self, command, stdin=b"", timeout_s=30.0):
            answer = super().shell(command, stdin, timeout_s)
            if command.startswith("am start -n"):
                self.owner.running = True
            if command.startswith("am force-stop"):
                self.owner.running, self.owner.token = False, ""
            if "content write" in command:
                self.owner.token = stdin.decode().strip()
                self.owner.tokens.append(self.owner.token)
            return answer

        def open_service(self, service):
            assert service == "tcp:47613"
            if not self.lost and self.owner.running:
                self.ports.append(played_agent(self.owner))
            return super().open_service(service)

    played = Phone(Link)
    monkeypatch.setattr(finding_module, "open_link", played.open_link)
    monkeypatch.setattr(apk_module, "_BUILT", tmp_path)
    monkeypatch.setattr(app_module, "save_log", lambda link, name: tmp_path / f"{name}.log")
    played.clock = clock = Clock()
    monkeypatch.setattr(device_module, "_clock", clock.now)
    monkeypatch.setattr(device_module, "_sleep", clock.sleep)
    yield played
    for kept in played.kept:
        kept.close()


@pytest.fixture
def said():
    return []


@pytest.fixture
def device(phone, said):
    return AndroidDevice(PHONE, say=said.append)

"""iPhones that misbehave, played by a driver that answers from lists."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from orchestrator.devices.common.device import Access, ignore_message
from orchestrator.devices.iphone import device as device_module
from orchestrator.devices.iphone.device import IphoneDevice
from orchestrator.devices.iphone.phones import list_phones
from orchestrator.devices.iphone.state import CannotLaunchError, Connection, IphoneState, PhoneGoneError
from orchestrator.wire.errors import DeviceError
from tests.support.errors import raises
from tests.support.phone_apps import ScriptedApp

if TYPE_CHECKING:
    from orchestrator.devices.iphone.mobiledevice import MobileDevice

APPS = {"dev.blocktime.bench.ABCDE12345": "0.1.0"}
READY = IphoneState("UDID", "usb", "iPhone14,5", "16.7.10", "Phone", "trusted", True, APPS)


class ScriptedDriver:
    """Opens connections to an agent that answers by a list (see `ScriptedApp`); None refuses the connection."""

    def __init__(self, *answers: str | None, **states: IphoneState | DeviceError) -> None:
        self.app = ScriptedApp("iPhone14,5")
        self.port = self.app.start({"BLOCKTIME_TOKEN": "any"})
        self.answers = list(answers)
        self.states = states or {"UDID": READY}
        self.launched: list[Mapping[str, str]] = []
        self.killed: list[int] = []
        self.may_launch = True
        self.is_attached = True

    def attached(self) -> dict[str, Connection]:
        return dict.fromkeys(self.states, "usb") if self.is_attached else {}

    def read_state(self, udid: str) -> IphoneState:
        state = self.states[udid]
        if isinstance(state, DeviceError):
            raise state
        return state

    def open_socket(self, udid: str, port: int) -> socket.socket | None:
        answer = self.answers.pop(0)
        if answer is None:
            return None
        if answer == "unplugged":
            answer, self.is_attached = "lost", False
        self.app.answers.append(answer)
        return socket.create_connection(("127.0.0.1", self.port))

    def launch(
        self,
        udid: str,
        bundle: str,
        environment: Mapping[str, str],
        *,
        fresh: bool,
        say: Callable[[str], None] = ignore_message,
    ) -> int:
        assert bundle in APPS
        if not self.may_launch:
            raise CannotLaunchError("not today")
        self.launched.append(environment)
        return 4711

    def kill(self, udid: str, pid: int) -> None:
        self.killed.append(pid)
        raise PhoneGoneError("it left first")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "_POLL_S", 0.01)
    monkeypatch.delenv("BLOCKTIME_TOKEN", raising=False)


def phone(driver: ScriptedDriver, **access: object) -> IphoneDevice:
    return IphoneDevice(cast("MobileDevice", driver), READY, Access(**access))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "answers", [("ok", "ok"), ("ok", "busy", "busy", "ok"), (None, None, "lost", "ok", "ok")]
)
def test_agent_that_is_slow_or_busy_is_waited_for(answers: tuple[str | None, ...]) -> None:
    driver = ScriptedDriver(*answers)
    with phone(driver) as device:
        device.connect().close()
        device.connect().close()
        assert device.agent_starts == 1
    assert driver.killed == [4711], "a phone that left before is no error"


def test_app_that_never_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "_START_TIMEOUT_S", 0.0)
    with phone(ScriptedDriver(None)) as device, raises("agent_silent"):
        device.connect()


@pytest.mark.parametrize("code", ["busy", "protocol_version"])
def test_agent_that_refuses(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(device_module, "BUSY_TIMEOUT_S", 0.0)
    with phone(ScriptedDriver(code)) as device, raises(code):
        device.connect()


def test_busy_agent_has_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five minutes of `busy`, on a clock that only sleeping moves."""
    now_s, messages = [0.0], []

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return now_s[0]

        @staticmethod
        def sleep(seconds: float) -> None:
            now_s[0] += 10.0

    monkeypatch.setattr(device_module, "time", Clock)
    with phone(ScriptedDriver(*["busy"] * 30, "ok"), say=messages.append) as device:
        device.connect().close()
    assert now_s == [300.0]
    assert [line for line in messages if "compiling a model" in line] == messages


def test_app_that_hangs_up_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "_HANG_UP_TIMEOUT_S", 0.0)
    driver = ScriptedDriver("ok", "lost", "ok")
    with phone(driver) as device:
        device.connect().close()
        device.connect().close()
        assert device.agent_starts == 2
    assert driver.launched[0] == driver.launched[1]


def test_phone_lost_during_the_handshake_is_waited_for() -> None:
    driver, messages = ScriptedDriver("ok", "unplugged", "ok"), []

    def say(line: str) -> None:
        messages.append(line)
        driver.is_attached = True

    with phone(driver, say=say) as device:
        device.connect().close()
        device.connect().close()
        assert device.agent_starts == 1
    assert messages == ["iPhone 13 is not attached: waiting up to 10 min for its cable"]


def test_pairing_code_is_used_for_the_next_connection() -> None:
    questions: list[str] = []

    def ask(prompt: str) -> str:
        questions.append(prompt)
        return "ab2d-ef3h"

    driver = ScriptedDriver("ok", "ok")
    driver.may_launch = False
    with phone(driver, ask=ask) as device:
        device.connect().close()
        device.connect().close()
        assert device.agent_starts == 1
    assert len(questions) == 1
    assert driver.killed == []


def test_list_with_a_failing_phone_and_one_that_left() -> None:
    driver = ScriptedDriver(b=DeviceError("odd"), a=READY, c=PhoneGoneError("left"))
    assert list_phones(cast("MobileDevice", driver)) == (READY, IphoneState("b", "usb"))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"garbage that is longer than a header",
        struct.pack("<IIII", 3, 1, 8, 1),
        struct.pack("<IIII", 20, 1, 8, 1) + b"<a/>",
        struct.pack("<IIII", 19, 1, 8, 1) + b"<<<",
        struct.pack("<IIII", 16, 1, 8, 1),
        struct.pack("<IIII", 16, 9, 8, 1),
    ],
)
def test_usbmuxd_that_answers_garbage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    path = tmp_path / "usbmuxd"
    monkeypatch.setenv("USBMUXD_SOCKET_ADDRESS", f"UNIX:{path}")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            for _ in range(2):
                with contextlib.suppress(OSError), listener.accept()[0] as sock:
                    sock.recv(4096)
                    sock.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        with raises("bad_usbmuxd") as nonsense:
            list_phones()
        listener.shutdown(socket.SHUT_RDWR)
    assert "\n" not in str(nonsense.value)

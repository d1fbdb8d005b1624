"""iPhones that misbehave, played by a driver that answers from lists."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from orchestrator.devices.common.device import Access
from orchestrator.devices.iphone import device as device_module
from orchestrator.devices.iphone.device import IphoneDevice
from orchestrator.devices.iphone.phones import list_phones
from orchestrator.devices.iphone.state import CannotLaunchError, Connection, IphoneState, PhoneGoneError
from orchestrator.wire.errors import AgentError, DeviceError
from orchestrator.wire.frames import encode_header
from tests.support.errors import raises

if TYPE_CHECKING:
    from orchestrator.devices.iphone.mobiledevice import MobileDevice

APPS = {"dev.blocktime.bench.ABCDE12345": "0.1.0"}
READY = IphoneState("UDID", "usb", "iPhone14,5", "16.7.10", "Phone", "trusted", True, APPS)

Agent = Callable[[socket.socket], None]


@dataclass
class ScriptedDriver:
    """Answers from lists; an agent of the list serves each connection, None refuses it."""

    agents: list[Agent | None] = field(default_factory=list)
    states: dict[str, IphoneState | DeviceError] = field(default_factory=lambda: {"UDID": READY})
    launched: list[Mapping[str, str]] = field(default_factory=list)
    killed: list[int] = field(default_factory=list)
    may_launch: bool = True
    gone: bool = False

    def attached(self) -> dict[str, Connection]:
        return {} if self.gone else dict.fromkeys(self.states, "usb")

    def read_state(self, udid: str) -> IphoneState:
        state = self.states[udid]
        if isinstance(state, DeviceError):
            raise state
        return state

    def pair(self, udid: str, timeout_s: float) -> None:
        raise AssertionError("a trusted phone is not paired again")

    def open_socket(self, udid: str, port: int) -> socket.socket | None:
        agent = self.agents.pop(0)
        if agent is None:
            return None
        ours, theirs = socket.socketpair()
        threading.Thread(target=agent, args=(theirs,), daemon=True).start()
        return ours

    def install(self, udid: str, ipa: Path) -> None:
        raise AssertionError("nothing was to be installed")

    def launch(self, udid: str, bundle: str, environment: Mapping[str, str], *, fresh: bool) -> int:
        assert bundle in APPS
        if not self.may_launch:
            raise CannotLaunchError("not today")
        self.launched.append(environment)
        return 4711

    def kill(self, udid: str, pid: int) -> None:
        self.killed.append(pid)
        raise PhoneGoneError("it left first")


def greets(sock: socket.socket) -> None:
    """An agent that answers hello and then waits for the client to leave."""
    with sock:
        sock.recv(4096)
        agent = {"name": "blocktime-ios", "version": "1"}
        device: dict[str, object] = {
            "model": "iPhone14,5",
            "os": "iOS 16.7.10",
            "os_build": None,
            "soc": None,
        }
        device |= {"cores": 6, "memory_bytes": 1 << 32, "simulated": True}
        reply = {"id": 1, "protocol": 1, "agent": agent, "device": device, "runtimes": {}}
        sock.sendall(encode_header(reply))
        sock.recv(4096)


def refuses(code: str) -> Agent:
    def agent(sock: socket.socket) -> None:
        with sock:
            sock.recv(4096)
            sock.sendall(encode_header({"id": 1, "error": {"code": code, "message": "no"}}))

    return agent


def hangs_up(sock: socket.socket) -> None:
    sock.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "_POLL_S", 0.01)
    monkeypatch.delenv("BLOCKTIME_TOKEN", raising=False)


def phone(driver: ScriptedDriver, **access: object) -> IphoneDevice:
    return IphoneDevice(cast("MobileDevice", driver), READY, Access(**access))  # type: ignore[arg-type]


def test_app_that_takes_a_moment_to_listen_is_waited_for() -> None:
    driver = ScriptedDriver([None, None, hangs_up, greets])
    with phone(driver) as device:
        device.connect().close()
        assert device.agent_starts == 1
    assert driver.killed == [4711], "and its going away first is no error"


def test_app_that_never_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "_START_TIMEOUT_S", 0.0)
    with phone(ScriptedDriver([None])) as device, raises("agent_silent"):
        device.connect()


def test_busy_agent_is_waited_for() -> None:
    driver = ScriptedDriver([greets, refuses("busy"), refuses("busy"), greets])
    with phone(driver) as device:
        device.connect().close()
        device.connect().close()
        assert device.agent_starts == 1


def test_agent_that_stays_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "BUSY_TIMEOUT_S", 0.0)
    with phone(ScriptedDriver([refuses("busy")])) as device, pytest.raises(AgentError) as busy:
        device.connect()
    assert busy.value.code == "busy"


def test_busy_agent_may_take_as_long_as_compiling_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five minutes of `busy`, on a clock that only sleeping moves."""
    now_s, told = [0.0], []

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return now_s[0]

        @staticmethod
        def sleep(seconds: float) -> None:
            now_s[0] += 10.0

    monkeypatch.setattr(device_module, "time", Clock)
    driver = ScriptedDriver([*[refuses("busy")] * 30, greets])
    with phone(driver, say=told.append) as device:
        device.connect().close()
    assert now_s == [300.0]
    assert [line for line in told if "compiling a model" in line] == told


def test_app_that_hangs_up_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "_HANG_UP_TIMEOUT_S", 0.0)
    driver = ScriptedDriver([greets, hangs_up, greets])
    with phone(driver) as device:
        device.connect().close()
        device.connect().close()
        assert device.agent_starts == 2
    assert driver.launched[0] == driver.launched[1]


def test_agent_of_another_protocol() -> None:
    with phone(ScriptedDriver([refuses("protocol_version")])) as device, pytest.raises(AgentError):
        device.connect()


def test_phone_lost_during_the_handshake_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    driver, told = ScriptedDriver(), []

    def unplugged(sock: socket.socket) -> None:
        driver.gone = True
        sock.close()

    def say(line: str) -> None:
        told.append(line)
        driver.gone = False

    driver.agents = [greets, unplugged, greets]
    with phone(driver, say=say) as device:
        device.connect().close()
        device.connect().close()
        assert device.agent_starts == 1
    assert told == ["iPhone 13 is not attached: waiting up to 10 min for its cable"]


def test_pairing_code_is_used_for_the_next_connection() -> None:
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return "ab2d-ef3h"

    driver = ScriptedDriver([greets, greets], may_launch=False)
    with phone(driver, ask=ask) as device:
        for _ in range(2):
            client = device.connect()
            client.close()
        assert device.agent_starts == 1
    assert len(asked) == 1
    assert driver.killed == []


def test_list_with_a_failing_phone_and_one_that_left() -> None:
    driver = ScriptedDriver(states={"b": DeviceError("odd"), "a": READY, "c": PhoneGoneError("left")})
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

"""How a phone is connected: first, after a cable pull, after the app died, and when it is in use."""

import contextlib
import json
import socket
import struct

import pytest

from orchestrator.devices.android import apk as apk_module
from orchestrator.devices.android import app as app_module
from orchestrator.devices.android import device as device_module
from orchestrator.devices.android import finding as finding_module
from orchestrator.devices.android.device import AndroidDevice
from orchestrator.devices.android.errors import LinkLost, NotInstalled, PhoneNotReady
from orchestrator.devices.android.phones import AndroidPhone
from orchestrator.wire.client import AgentClient
from orchestrator.wire.errors import AgentError, DeviceError

PHONE = AndroidPhone("SERIAL1", "device", "Pixel 8", "usb")
HELLO = {
    "protocol": 1,
    "agent": {"name": "blocktime-android", "version": "1"},
    "device": {
        "model": "Pixel 8", "os": "Android 15", "os_build": None, "soc": None, "cores": 9, "memory_bytes": 1 << 33
    },
    "runtimes": {},
}  # fmt: skip


class Phone:
    """Hands out links whose app listens once it was started, unless told otherwise.

    `agent` decides about one hello from the token: None where nothing listens, `lost` for a hang-up, an error's
    code, or `ok`.
    """

    def __init__(self, make_link):
        self._make_link = make_link
        self.links, self.attached, self.tokens, self.replies = [], True, [], []
        self.running = self.mode_refused = False
        self.token = ""
        self.verdicts, self.kept = [], []
        self.clock = Clock()

    def open_link(self, serial, ask_user=None):
        assert serial == "SERIAL1"
        if isinstance(self.attached, Exception):
            raise self.attached
        if not self.attached:
            raise LinkLost("no phone SERIAL1 on USB")
        self.links.append(self._make_link(self))
        return self.links[-1]

    def unplug(self):
        self.attached = False
        for link in self.links:
            link.lost = True

    @property
    def commands(self):
        return [command for link in self.links for command in link.commands()]


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


class Clock:
    """Time passes by sleeping; `at` calls a function when a moment comes."""

    def __init__(self):
        self.time_s, self.events = 0.0, []

    def now(self):
        return self.time_s

    def sleep(self, seconds):
        self.time_s += seconds
        for when_s, action in list(self.events):
            if self.time_s >= when_s:
                self.events.remove((when_s, action))
                action()

    def at(self, after_s, action):
        self.events.append((self.time_s + after_s, action))


def played_agent(owner):
    """A socket on whose other end an agent has already answered the first hello, as the phone's state has it."""
    near, far = socket.socketpair()
    with far:
        verdict = owner.verdicts.pop(0) if owner.verdicts else "ok"
        if verdict == "ok":
            verdict = "ok" if owner.token else "unauthorized"
        if verdict != "lost":
            answer = HELLO if verdict == "ok" else {"error": {"code": verdict, "message": "no"}}
            header = json.dumps({"id": 1, **answer}).encode()
            far.sendall(struct.pack(">I", len(header)) + header)
            owner.replies.append(verdict)
        far.shutdown(socket.SHUT_WR)
        # Kept open: the client's request goes into its buffer.
        owner.kept.append(far.dup())
        if len(owner.kept) > 4:
            owner.kept.pop(0).close()
    return near


@pytest.fixture
def said():
    return []


@pytest.fixture
def device(phone, said):
    return AndroidDevice(PHONE, say=said.append)


def test_first_connection_gives_the_token_and_starts_the_app(device, phone, said):
    assert device.name == "pixel8"
    assert device.describe() == "Pixel 8 (SERIAL1), reached over USB"
    client = device.connect()
    assert client.hello().device.model == "Pixel 8"
    assert device.agent_starts == 1
    assert len(phone.tokens) == 1
    assert len(phone.tokens[0]) >= 32
    kinds = [command.split()[0] for command in phone.commands]
    assert kinds.index("read") < kinds.index("am", kinds.index("read"))
    assert "am force-stop dev.blocktime.bench" not in phone.commands
    assert "pm grant dev.blocktime.bench android.permission.POST_NOTIFICATIONS" in phone.commands
    assert said == []


def test_allowed_reasons_are_passed_on(phone):
    AndroidDevice(PHONE, allow=("throttled",)).connect()
    assert "am start -n dev.blocktime.bench/.MainActivity --esa allow throttled" in phone.commands


ON, OFF = (f"cmd power set-fixed-performance-mode-enabled {value}" for value in ("true", "false"))


@pytest.mark.parametrize("error", [(), KeyboardInterrupt, DeviceError, SystemExit])
def test_clocks_are_fixed_before_the_app_starts_and_released_however_it_ends(phone, said, error):
    with contextlib.suppress(error), AndroidDevice(PHONE, fixed=True, say=said.append) as device:
        assert device.fixed_performance
        device.connect()
        device.connect()
        if error:
            raise error
    switched = [command for command in phone.commands if command in (ON, OFF)]
    assert switched == [ON, OFF]
    assert phone.commands.index(ON) < next(
        i for i, command in enumerate(phone.commands) if command.startswith("am start -n")
    )
    assert said == []


def test_clocks_are_released_over_a_new_link_where_the_last_one_was_lost(phone, said):
    with AndroidDevice(PHONE, fixed=True, say=said.append) as device:
        device.connect()
        phone.unplug()
        phone.attached = DeviceError("no phone")
        with pytest.raises(DeviceError):
            device.connect()
        phone.attached = True
    assert phone.links[-1].commands()[-1] == OFF
    assert not any("fixed performance" in line for line in said)


def test_a_phone_that_is_gone_at_the_end_may_keep_its_clocks_and_its_owner_hears_how_to_free_them(
    phone, said
):
    with AndroidDevice(PHONE, fixed=True, say=said.append) as device:
        device.connect()
        phone.unplug()
    (line,) = said
    assert line == (
        "Pixel 8 may still be in its fixed performance mode: restart it, or run "
        "`adb shell cmd power set-fixed-performance-mode-enabled false`"
    )


def test_a_phone_without_that_mode_is_not_measured_in_it(phone):
    phone.mode_refused = True
    with (
        pytest.raises(
            DeviceError, match=r"no fixed performance mode \(Failed to set.*\): leave --fixed-perf"
        ),
        AndroidDevice(PHONE, fixed=True) as device,
    ):
        device.connect()
    assert not any(command.startswith("am start -n") for command in phone.commands)


def test_clocks_are_left_alone_unless_asked(device, phone):
    with device:
        device.connect()
    assert not device.fixed_performance
    assert not {ON, OFF} & set(phone.commands)


def test_second_connection_takes_what_runs(device, phone):
    device.connect()
    device.connect()
    assert device.agent_starts == 1
    assert len(phone.tokens) == 1


def test_cable_pulled_and_back(device, phone, said):
    device.connect()
    phone.unplug()
    phone.clock.at(60, lambda: setattr(phone, "attached", True))
    device.connect()
    assert device.agent_starts == 1
    assert len(phone.tokens) == 1
    assert said == ["waiting for Pixel 8: gone", "waiting for Pixel 8: no phone SERIAL1 on USB"]
    assert phone.links[0].closed


def test_unauthorized_for_a_moment_after_a_cable_pull(device, phone):
    device.connect()
    phone.unplug()
    phone.attached = PhoneNotReady("SERIAL1 is unauthorized", "unauthorized")
    phone.clock.at(10, lambda: setattr(phone, "attached", True))
    device.connect()
    assert device.agent_starts == 1


def test_phone_that_does_not_come_back(device, phone):
    device.connect()
    phone.unplug()
    with pytest.raises(DeviceError, match="Pixel 8 did not come back within 600 s: no phone SERIAL1"):
        device.connect()


@pytest.mark.parametrize("error", [LinkLost("no phone"), PhoneNotReady("unauthorized", "unauthorized")])
def test_a_phone_that_never_was_there_is_not_waited_for(device, phone, error):
    phone.attached = error
    with pytest.raises(type(error)):
        device.connect()
    assert phone.clock.time_s == 0


def test_dead_app_is_started_again_with_the_same_token(device, phone, said):
    device.connect()
    phone.running, phone.token = False, ""
    device.connect()
    assert device.agent_starts == 2
    assert phone.tokens[0] == phone.tokens[1]
    assert "am force-stop dev.blocktime.bench" in phone.commands
    assert len(said) == 1
    assert "had ended; starting it again, its log is" in said[0]


def test_restarted_phone_is_given_the_token_again(device, phone):
    device.connect()
    phone.unplug()
    phone.running, phone.token = False, ""

    def boot():
        phone.attached = True

    phone.clock.at(30, boot)
    device.connect()
    assert device.agent_starts == 2
    assert phone.tokens[0] == phone.tokens[1]


def test_phone_that_still_starts_is_waited_for(device, phone):
    device.connect()
    phone.running, phone.token = False, ""
    phone.links[0].say("getprop sys.boot_completed", "")
    device.connect()
    assert device.agent_starts == 2
    assert phone.clock.time_s > 0


def test_another_programs_measurement_is_left_alone(device, phone):
    phone.running = True
    phone.verdicts = ["busy"] * 10_000
    with pytest.raises(AgentError, match="no") as caught:
        device.connect()
    assert caught.value.code == "busy"
    assert phone.tokens == []
    assert device.agent_starts == 0


def test_an_earlier_client_that_was_ended_in_a_load_is_waited_for(device, phone, said):
    phone.running = True
    phone.verdicts = ["busy"] * 100
    device.connect()
    assert phone.clock.time_s > 15
    assert said == [
        "the app on Pixel 8 still works for an earlier client, compiling a model can take minutes: waiting up to "
        "20 min; end the app to stop that"
    ]


def test_another_programs_finished_app_is_taken_over(device, phone):
    phone.running = True
    phone.verdicts = ["unauthorized"]
    device.connect()
    assert device.agent_starts == 1
    assert "am force-stop dev.blocktime.bench" not in phone.commands


def test_an_agent_of_ours_is_not_given_up_at_its_first_silence(device, phone):
    device.connect()
    phone.verdicts = ["lost", "lost"]
    device.connect()
    assert device.agent_starts == 1
    phone.verdicts = ["lost", "lost", "lost"]
    device.connect()
    assert device.agent_starts == 2


def test_own_old_connection_is_waited_for(device, phone):
    device.connect()
    phone.verdicts = ["busy"] * 5
    device.connect()
    assert device.agent_starts == 1


def test_own_connection_that_was_lost_in_a_load_is_waited_for_as_long_as_that_may_take(
    device, phone, monkeypatch
):
    device.connect()
    monkeypatch.setattr(AgentClient, "load_left_s", 300.0)
    phone.verdicts = ["busy"] * 500
    device.connect()
    assert device.agent_starts == 1
    phone.verdicts = ["busy"] * 601
    device.connect()
    assert device.agent_starts == 2


def test_own_old_connection_that_never_ends_is_ended(device, phone):
    device.connect()
    phone.verdicts = ["busy"] * 31
    device.connect()
    assert device.agent_starts == 2
    assert "am force-stop dev.blocktime.bench" in phone.commands


def test_app_that_is_slow_to_listen(device, phone):
    phone.verdicts = ["unauthorized", "lost", "unauthorized"]
    device.connect()
    assert device.agent_starts == 1


def test_app_that_never_answers_names_its_log(device, phone):
    phone.verdicts = ["lost"] * 1000
    with pytest.raises(DeviceError, match=r"was started, but its agent does not answer.*pixel8\.log"):
        device.connect()
    assert phone.clock.time_s >= device_module.START_TIMEOUT_S


def test_app_of_another_protocol_is_replaced(phone, tmp_path):
    apk = tmp_path / "app-release.apk"
    apk.write_bytes(b"new")
    device = AndroidDevice(PHONE)
    phone.verdicts = ["protocol_version"]
    device.connect()
    assert device.agent_starts == 2
    assert [path for path, _ in phone.links[0].pushed] == [apk]


def test_app_of_another_protocol_and_no_file(device, phone):
    phone.verdicts = ["protocol_version"]
    with pytest.raises(NotInstalled, match="install the app of this version"):
        device.connect()


def test_the_end_stops_the_app_and_closes_the_link(device, phone):
    with device:
        device.connect()
    assert phone.commands[-1] == "am force-stop dev.blocktime.bench"
    assert phone.links[0].closed


def test_the_end_without_a_phone_is_quiet(device, phone):
    with device:
        device.connect()
        phone.unplug()
    assert phone.links[0].closed


def test_the_end_before_a_start_stops_nothing(device, phone):
    phone.running = True
    phone.verdicts = ["busy"] * 10_000
    with pytest.raises(AgentError), device:
        device.connect()
    assert "am force-stop dev.blocktime.bench" not in phone.commands


def test_a_phone_without_a_model_is_named_by_its_serial(phone):
    assert AndroidDevice(AndroidPhone("127.0.0.1:5", "device", "", "tcp")).name == "1270015"

"""An Android phone as a device: first connection, losses, an app in use, fixed performance, and the end."""

import contextlib

import pytest

from orchestrator.devices.android import app, phones
from orchestrator.devices.android import device as device_module
from orchestrator.devices.android.app import PACKAGE
from orchestrator.devices.android.device import AndroidDevice
from orchestrator.devices.android.link import LinkLostError, PhoneNotReadyError
from orchestrator.devices.android.phones import AndroidPhone
from orchestrator.devices.common.device import Access
from orchestrator.wire.client import AgentClient
from orchestrator.wire.errors import AgentError, DeviceError
from tests.support.errors import raises
from tests.support.fake_android import APK, FakeLink

PIXEL = AndroidPhone("37281FDJH0042", "device", "Pixel 8", "usb")
START = f"am start -n {PACKAGE}/.MainActivity"
STOP = f"am force-stop {PACKAGE}"
FIX, RELEASE = (f"{app.FIXED_PERFORMANCE} {value}" for value in ("true", "false"))
UNAUTHORIZED = PhoneNotReadyError("it is unauthorized", "unauthorized")


class Clock:
    """Time that passes by sleeping only; `at` schedules a function."""

    def __init__(self):
        self.time_s, self.events = 0.0, []

    def sleep(self, seconds):
        self.time_s += seconds
        for event in [event for event in self.events if event[0] <= self.time_s]:
            self.events.remove(event)
            event[1]()

    def at(self, after_s, action):
        self.events.append((self.time_s + after_s, action))


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(device_module, "_clock", lambda: clock.time_s)
    monkeypatch.setattr(device_module, "_sleep", clock.sleep)
    return clock


@pytest.fixture
def links(phone, clock, monkeypatch, tmp_path):
    """All links that were opened; `phone.refuses` is the error of opening one."""
    opened = []
    phone.refuses = None

    def open_link(serial, ask_user=None):
        assert serial == phone.serial
        if phone.refuses:
            raise phone.refuses
        if not phone.state:
            raise LinkLostError("no phone on USB", code="phone_lost")
        opened.append(FakeLink(phone))
        return opened[-1]

    monkeypatch.setattr(phones, "open_link", open_link)
    monkeypatch.setattr(app, "save_log", lambda link, name: tmp_path / f"{name}.log")
    return opened


def _written(path, content):
    path.write_bytes(content)
    return path


@pytest.fixture
def messages():
    return []


@pytest.fixture
def device(links, messages):
    return AndroidDevice(PIXEL, Access(say=messages.append))


@pytest.fixture
def in_use(phone):
    """The app runs with another program's token."""
    phone.token = "of-another-program"
    phone._start_agent()


class TestFirstConnection:
    def test_it_sets_the_token_and_starts_the_app(self, device, phone, messages):
        assert (device.name, device.identity) == ("pixel8", phone.serial)
        assert device.describe() == f"Pixel 8 ({phone.serial}), reached over USB"
        assert device.connect().hello().device.model == "Pixel 8"
        assert (device.agent_starts, phone.starts) == (1, 1)
        assert len(phone.token) >= 32
        assert f"pm grant {PACKAGE} android.permission.POST_NOTIFICATIONS" in phone.commands
        assert STOP not in phone.commands
        assert messages == []

    def test_an_app_that_adb_or_android_studio_installed_runs_compiled(self, device, phone):
        phone.compiled = False
        device.connect()
        assert (phone.compiled, phone.runs_compiled) == (True, True)

    def test_an_open_app_is_started_again_after_it_was_compiled(self, device, phone, in_use):
        phone.compiled, phone.app.answers = False, ["unauthorized"]
        device.connect()
        assert phone.runs_compiled

    def test_a_phone_that_does_not_compile_is_measured(self, device, phone):
        phone.compiled = phone.can_compile = False
        device.connect()
        assert device.agent_starts == 1

    def test_allowed_conditions_are_passed_on(self, links, phone):
        AndroidDevice(PIXEL, Access(allow=("throttled",))).connect()
        assert f"{START} --esa allow throttled" in phone.commands

    @pytest.mark.parametrize("error", [LinkLostError("no phone", code="phone_lost"), UNAUTHORIZED])
    def test_missing_phone_is_not_waited_for(self, device, phone, clock, error):
        phone.refuses = error
        with pytest.raises(type(error)):
            device.connect()
        assert clock.time_s == 0

    def test_a_phone_without_a_model_is_named_by_its_serial(self, links):
        assert AndroidDevice(AndroidPhone("127.0.0.1:5", "device", "", "tcp")).name == "1270015"


class TestReadiness:
    """What is checked before models are exported."""

    def test_a_ready_phone_is_left_alone(self, device, phone, links):
        phone.go_dark()
        device.check_ready()
        assert (phone.is_running, phone.screen_on, phone.token) == (False, False, "")
        assert all(link.is_closed for link in links)
        assert device.agent_starts == 0

    def test_phone_that_nobody_has_unlocked(self, device, phone):
        phone.unlocked = False
        with raises("phone_not_ready"):
            device.check_ready()

    def test_phone_that_is_not_authorised(self, device, phone):
        phone.refuses = UNAUTHORIZED
        with raises("phone_not_ready"):
            device.check_ready()

    def test_missing_app(self, device, phone):
        phone.apk = None
        with raises("app_not_installed"):
            device.check_ready()

    def test_file_that_is_to_be_installed(self, links, phone, tmp_path):
        file, phone.apk = tmp_path / "app.apk", None
        device = AndroidDevice(PIXEL, Access(app=_written(file, b"PK no signature")))
        with raises("app_not_signed"):
            device.check_ready()
        _written(file, APK)
        device.check_ready()
        assert phone.apk is None, "it is installed later"
        file.unlink()
        with raises("unreadable_file"):
            device.check_ready()

    def test_app_of_an_older_protocol(self, device, phone, links, tmp_path):
        phone.build = "0"
        with raises("app_of_another_version"):
            device.check_ready()
        AndroidDevice(PIXEL, Access(app=_written(tmp_path / "new.apk", APK))).check_ready()

    def test_full_storage(self, device, phone):
        phone.free_kib = 100_000
        with raises("phone_full") as full:
            device.check_ready()
        assert "has 102 MB free, models take 500" in str(full.value)

    @pytest.mark.parametrize("pattern", ["df -k", "--show-versioncode"])
    def test_a_phone_may_not_say(self, device, phone, pattern):
        phone.answers = [(pattern, "sh: inaccessible or not found", 127)]
        device.check_ready()


class TestEnd:
    def test_it_stops_the_app_and_closes_the_link(self, device, phone, links):
        with device:
            device.connect()
        assert phone.commands[-1] == STOP
        assert links[0].is_closed

    def test_it_is_quiet_without_a_phone(self, device, phone, links, messages):
        with device:
            device.connect()
            phone.pull_cable()
        assert links[0].is_closed
        assert messages == []

    def test_it_stops_nothing_that_another_program_started(self, device, phone, in_use):
        phone.app.answers = ["busy"] * 10_000
        with pytest.raises(AgentError), device:
            device.connect()
        assert STOP not in phone.commands


class TestLoss:
    def test_a_second_connection_uses_the_running_agent(self, device, phone):
        device.connect()
        device.connect()
        assert (device.agent_starts, phone.starts) == (1, 1)

    def test_a_pulled_cable_is_waited_for(self, device, phone, links, clock, messages):
        device.connect()
        phone.pull_cable()
        clock.at(60, phone.plug_in)
        device.connect()
        assert (device.agent_starts, phone.starts) == (1, 1)
        assert messages == [
            "waiting for Pixel 8: the cable was pulled",
            "waiting for Pixel 8: no phone on USB",
        ]
        assert links[0].is_closed

    def test_a_phone_may_be_unauthorized_for_a_moment(self, device, phone, clock):
        device.connect()
        phone.pull_cable()
        phone.refuses = UNAUTHORIZED

        def come_back():
            phone.refuses = None
            phone.plug_in()

        clock.at(10, come_back)
        device.connect()
        assert device.agent_starts == 1

    def test_a_phone_that_stays_away(self, device, phone, clock):
        device.connect()
        phone.pull_cable()
        with raises("phone_did_not_return"):
            device.connect()
        assert clock.time_s >= 600

    def test_dead_app_is_started_again(self, device, phone, messages):
        device.connect()
        token = phone.token
        phone.stop_app()
        device.connect()
        assert (device.agent_starts, phone.token) == (2, token)
        assert STOP in phone.commands
        (line,) = messages
        assert "had ended; starting it again, its log is" in line

    def test_a_restarted_phone_gets_the_token_again(self, device, phone, clock):
        device.connect()
        token = phone.token
        phone.pull_cable()
        phone.stop_app()
        clock.at(30, phone.plug_in)
        device.connect()
        assert (device.agent_starts, phone.token) == (2, token)

    def test_a_phone_that_still_starts_is_waited_for(self, device, phone, clock):
        device.connect()
        phone.stop_app()
        phone.properties["sys.boot_completed"] = ""
        clock.at(30, lambda: phone.properties.update({"sys.boot_completed": "1"}))
        device.connect()
        assert device.agent_starts == 2

    def test_one_silence_is_not_the_end(self, device, phone):
        device.connect()
        phone.app.answers = ["lost", "lost"]
        device.connect()
        assert device.agent_starts == 1
        phone.app.answers = ["lost", "lost", "lost"]
        device.connect()
        assert device.agent_starts == 2


class TestBusyAgent:
    def test_busy_app_is_left_alone(self, device, phone, in_use):
        phone.app.answers = ["busy"] * 10_000
        with pytest.raises(AgentError) as refused:
            device.connect()
        assert (refused.value.code, device.agent_starts, phone.starts) == ("busy", 0, 1)

    def test_dead_client_is_waited_for(self, device, phone, in_use, clock, messages):
        phone.app.answers = ["busy"] * 100
        device.connect()
        assert clock.time_s > 15
        (line,) = messages
        assert "busy with an earlier client" in line

    def test_idle_app_is_taken_over(self, device, phone, in_use):
        phone.app.answers = ["unauthorized"]
        device.connect()
        assert device.agent_starts == 1
        assert STOP not in phone.commands

    @pytest.mark.parametrize(
        ("load_s", "tries", "starts"), [(0, 5, 1), (0, 31, 2), (300, 500, 1), (300, 601, 2)]
    )
    def test_old_connection_is_waited_for(self, device, phone, monkeypatch, load_s, tries, starts):
        device.connect()
        monkeypatch.setattr(AgentClient, "load_left_s", float(load_s))
        phone.app.answers = ["busy"] * tries
        device.connect()
        assert device.agent_starts == starts


class TestAppThatDoesNotAnswer:
    def test_it_may_be_slow_to_listen(self, device, phone):
        phone.app.answers = ["unauthorized", "lost", "unauthorized"]
        device.connect()
        assert device.agent_starts == 1

    def test_its_log_is_named(self, device, phone, clock):
        phone.app.answers = ["lost"] * 1000
        with raises("agent_silent") as failed:
            device.connect()
        assert "pixel8.log" in str(failed.value)
        assert clock.time_s >= device_module.START_TIMEOUT_S

    def test_an_app_of_another_protocol_is_replaced(self, links, phone, tmp_path):
        (tmp_path / "built").mkdir()
        (tmp_path / "built/app-release.apk").write_bytes(b"new")
        device = AndroidDevice(PIXEL)
        phone.app.answers = ["protocol_version"]
        device.connect()
        assert (device.agent_starts, phone.apk) == (2, b"new")

    def test_an_app_of_another_protocol_without_a_file(self, device, phone):
        phone.app.answers = ["protocol_version"]
        with raises("app_of_another_version"):
            device.connect()


class TestFixedPerformance:
    @pytest.fixture
    def device(self, links, messages):
        return AndroidDevice(PIXEL, Access(fixed_performance=True, say=messages.append))

    @pytest.mark.parametrize("error", [(), KeyboardInterrupt, DeviceError, SystemExit])
    def test_it_is_on_while_the_app_runs(self, device, phone, messages, error):
        with contextlib.suppress(error), device:
            device.connect()
            device.connect()
            if error:
                raise error
        switched = [command for command in phone.commands if command in (FIX, RELEASE)]
        assert switched == [FIX, RELEASE]
        assert phone.commands.index(FIX) < phone.commands.index(START)
        assert messages == []

    def test_it_is_switched_off_over_a_new_link(self, device, phone, messages):
        with device:
            device.connect()
            phone.pull_cable()
            phone.refuses = DeviceError("no phone")
            with pytest.raises(DeviceError):
                device.connect()
            phone.refuses = None
            phone.plug_in()
        assert phone.commands[-1] == RELEASE
        assert not any("fixed performance" in line for line in messages)

    def test_lost_phone_is_reported(self, device, phone, messages):
        with device:
            device.connect()
            phone.pull_cable()
        (line,) = messages
        assert f"restart it, or run `adb shell {RELEASE}`" in line

    def test_a_phone_without_it_is_not_measured(self, device, phone):
        phone.has_fixed_performance = False
        with raises("no_fixed_performance"), device:
            device.connect()
        assert START not in phone.commands

    def test_it_is_not_touched_unless_requested(self, links, phone):
        with AndroidDevice(PIXEL) as device:
            device.connect()
        assert not {FIX, RELEASE} & set(phone.commands)

"""A phone whose app is somebody else's, an old one's, or slow."""

import pytest

from orchestrator.devices.android import device as device_module
from orchestrator.devices.android.device import AndroidDevice
from orchestrator.devices.android.errors import NotInstalled
from orchestrator.wire.client import AgentClient
from orchestrator.wire.errors import AgentError, DeviceError
from tests.support.played_phone import PHONE


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

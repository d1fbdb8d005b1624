"""How a phone is connected first, and left."""

import pytest

from orchestrator.devices.android.device import AndroidDevice
from orchestrator.devices.android.phones import AndroidPhone
from orchestrator.wire.errors import AgentError
from tests.support.played_phone import PHONE


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

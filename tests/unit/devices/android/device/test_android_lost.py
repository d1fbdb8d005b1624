"""A phone that was lost: a pulled cable, a dead app, a restart."""

import pytest

from orchestrator.devices.android.errors import LinkLost, PhoneNotReady
from orchestrator.wire.errors import DeviceError


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

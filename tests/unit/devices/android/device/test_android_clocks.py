"""A phone's fixed clocks: asked for, kept, and given back however a measurement ends."""

import contextlib

import pytest

from orchestrator.devices.android.device import AndroidDevice
from orchestrator.wire.errors import DeviceError
from tests.support.played_phone import OFF, ON, PHONE


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

"""`bench profile` on a Pixel 8 that is none, all the way: adb, the Kotlin agent, ExecuTorch, and faults on the way.

Once directly to the fake phone, once over an adb server to the one with a real adbd.
"""

import pytest

from tests.support.ports import refusing_port
from tests.support.profiling import HOLDS, Profiling


@pytest.fixture
def profile(tmp_path, export_cache, make_apk, kotlin_agent):
    """Starts `bench profile` with an environment of its own."""
    started = []
    own = {"BLOCKTIME_CACHE": str(export_cache), "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}

    def start(*options, **environment):
        options = ("--app", str(make_apk()), *options)
        started.append(Profiling("pixel8", tmp_path, own | environment, *options, holds=HOLDS))
        return started[-1]

    yield start
    for profiling in started:
        profiling.kill()


@pytest.fixture
def no_adb_server():
    """A port on which no adb server answers, so that the phone is reached directly."""
    with refusing_port() as port:
        yield str(port)


def assert_simulated_pixel_8(lut):
    assert (lut.meta.measured, lut.meta.device.model) == ("simulated", "Pixel 8")


def test_directly_with_the_cable_pulled_and_the_app_killed(fake_phone, profile, no_adb_server):
    run = profile(
        "--fixed-performance",
        BLOCKTIME_ADB_ADDRESSES=fake_phone.serial,
        ANDROID_ADB_SERVER_PORT=no_adb_server,
    )
    with run.held():
        pid = fake_phone.app.pid
        fake_phone.pull_cable()
    run.wait_for_words("waiting for Pixel 8")
    fake_phone.plug_in()
    with run.held():
        assert fake_phone.app.pid == pid, "the agent that ran on is the one that is used again"
        fake_phone.app.stop()
    said = run.finish()
    assert said.count("waiting for Pixel 8") == 1
    assert said.count("the app on Pixel 8 had ended; starting it again") == 1
    assert fake_phone.app.pid is None, "the app that was started from here was ended"
    assert fake_phone.state.performance_switches == [True, True, False], "at each start of the app, and back"
    assert run.lut().meta.fixed_performance
    assert_simulated_pixel_8(run.lut())


def test_over_an_adb_server_to_a_real_adbd_that_reboots(adb, adbd_phone, profile):
    with adb.connected(adbd_phone.serial):
        run = profile(ANDROID_ADB_SERVER_PORT=str(adb.port))
        with run.held():
            pid = adbd_phone.app.pid
            adbd_phone.pull_cable()
        run.wait_for_words("waiting for Pixel 8")
        adbd_phone.plug_in()
        adb.reconnect(adbd_phone.serial)
        with run.held():
            assert adbd_phone.app.pid == pid
            adbd_phone.reboot()
            adb.reconnect(adbd_phone.serial)
        said = run.finish()
    assert not adbd_phone.state.performance_switches
    assert said.count("the app on Pixel 8 had ended; starting it again") == 1
    assert_simulated_pixel_8(run.lut())

"""`bench profile` on a Pixel 8 with the Kotlin agent, ExecuTorch, and faults on the way."""

import pytest

from tests.support.fake_android import APK
from tests.support.profiling import HOLDS, Profiling


@pytest.fixture
def app_file(tmp_path):
    path = tmp_path / "app.apk"
    path.write_bytes(APK)
    return path


@pytest.fixture
def profiling(server, attach_kotlin_phone, tmp_path, export_cache, app_file):
    """A phone without the app, and a run on it that has just begun."""
    phone = attach_kotlin_phone()
    environment = {
        "BLOCKTIME_CACHE": str(export_cache),
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "ANDROID_ADB_SERVER_PORT": str(server.port),
    }
    options = ("--app", str(app_file), "--fixed-performance")
    run = Profiling("pixel8", tmp_path, environment, *options, holds=HOLDS)
    yield phone, run
    run.kill()


def test_profile_survives_a_pulled_cable_and_a_killed_app(profiling):
    phone, run = profiling
    with run.held():
        phone.pull_cable()
    run.wait_for_words("waiting for Pixel 8")
    phone.plug_in()
    with run.held():
        assert phone.starts == 1, "the running agent is used again"
        phone.stop_app()
    said = run.finish()
    assert said.count("waiting for Pixel 8") == 1
    assert said.count("the app on Pixel 8 had ended; starting it again") == 1
    assert not phone.is_running, "the app that was started from here is ended"
    switched = [command.split()[-1] for command in phone.commands if "set-fixed-performance" in command]
    assert switched == ["true", "true", "false"], "at each start of the app, and back"
    meta = run.lut().meta
    assert (meta.measured, meta.device.model, meta.fixed_performance) == ("simulated", "Pixel 8", True)

"""`bench profile` on a Pixel 8 that is none, all the way: adb, the Kotlin agent, ExecuTorch, and faults on the way.

Once directly to the fake phone, once over an adb server to the one with a real adbd.
"""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from luts.store import LutStore
from luts.verify import verify_lut
from orchestrator.measure.log import read_log
from orchestrator.measure.samples import samples_table

COMMAND = [
    *(str(Path(sys.executable).parent / "bench"), "profile"),
    *("--device", "pixel8", "--space", "autovit-nano", "--threads", "1", "--budget", "1s"),
    *("--removals", "none", "--design", "2", "--heldout", "2"),
]


class Profiling:
    """A running `bench profile`."""

    def __init__(self, folder, environment, app):
        self.folder = folder
        self.journal = folder / "run" / "journal.jsonl"
        self.process = subprocess.Popen(
            [*COMMAND, "--app", app, "--run", folder / "run"],
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for_more(self, size):
        """Until so many bytes more are in the journal."""
        wanted = (self.journal.stat().st_size if self.journal.exists() else 0) + size
        while not (self.journal.exists() and self.journal.stat().st_size >= wanted):
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.02)

    def finish(self):
        """What it said on stderr."""
        _, errors = self.process.communicate(timeout=300)
        assert self.process.returncode == 0, errors
        return errors

    def lut(self):
        """The LUT, verified, of which no sample was taken twice."""
        table = samples_table(read_log(self.journal))
        names = ("batch", "segment", "round", "position")
        places = list(zip(*(table.column(name).to_pylist() for name in names), strict=True))
        assert len(places) == len(set(places))
        store = LutStore([self.folder / "luts"])
        return verify_lut(store.resolve("pixel8/autovit-nano/executorch-xnnpack-fp32-t1/v1").path)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Of exported models, which both phones get."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def profile(tmp_path, cache, make_apk, kotlin_agent):
    """Starts `bench profile` with an environment of its own."""
    started = []

    def start(**environment):
        own = {
            "BLOCKTIME_LUTS": str(tmp_path / "luts"),
            "BLOCKTIME_CACHE": str(cache),
            "HOME": str(tmp_path),
            "TMPDIR": str(tmp_path),
        }
        started.append(Profiling(tmp_path, os.environ | own | environment, make_apk()))
        return started[-1]

    yield start
    for profiling in started:
        profiling.process.kill()
        profiling.process.wait()


@pytest.fixture
def no_adb_server():
    """A port on which no adb server answers, so that the phone is reached directly."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield str(taken.getsockname()[1])


def assert_simulated_pixel_8(meta):
    assert (meta.measured, meta.device.model) == ("simulated", "Pixel 8")


def test_directly_with_the_cable_pulled_and_the_app_killed(fake_phone, profile, no_adb_server):
    run = profile(BLOCKTIME_ADB_ADDRESSES=fake_phone.serial, ANDROID_ADB_SERVER_PORT=no_adb_server)
    run.wait_for_more(10_000)
    pid = fake_phone.app.pid
    fake_phone.pull_cable()
    time.sleep(1.0)
    fake_phone.plug_in()
    run.wait_for_more(10_000)
    assert fake_phone.app.pid == pid, "the agent that ran on is the one that is used again"
    fake_phone.app.stop()
    said = run.finish()
    assert said.count("waiting for Pixel 8") == 1
    assert said.count("the app on Pixel 8 had ended; starting it again") == 1
    assert fake_phone.app.pid is None, "the app that was started from here was ended"
    assert_simulated_pixel_8(run.lut().meta)


def test_over_an_adb_server_to_a_real_adbd_that_reboots(adb, adbd_phone, profile):
    with adb.connected(adbd_phone.serial):
        run = profile(ANDROID_ADB_SERVER_PORT=str(adb.port))
        run.wait_for_more(10_000)
        pid = adbd_phone.app.pid
        adbd_phone.pull_cable()
        time.sleep(1.0)
        adbd_phone.plug_in()
        adb.run("connect", adbd_phone.serial)
        run.wait_for_more(10_000)
        assert adbd_phone.app.pid == pid
        adbd_phone.reboot()
        adb.run("connect", adbd_phone.serial)
        said = run.finish()
    assert said.count("the app on Pixel 8 had ended; starting it again") == 1
    assert_simulated_pixel_8(run.lut().meta)

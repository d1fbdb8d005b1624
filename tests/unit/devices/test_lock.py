"""Two measurements on one device at once are noticed; what a dead process held is free."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from luts.format.errors import StorageError
from orchestrator.devices.lock import lock_device, lock_path
from orchestrator.tasks.target import Target
from tests.support.errors import raises
from tests.support.fake_device import FakeDevice

HOLDER = """
import sys, time
from orchestrator.devices.lock import lock_device
from tests.support.fake_device import FakeDevice
device = FakeDevice({})
device.identity = sys.argv[1]
with lock_device(device):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOCKTIME_LOCKS", str(tmp_path / "locks"))


def device(identity: str) -> FakeDevice:
    fake = FakeDevice({})
    fake.identity = identity
    return fake


@pytest.fixture
def holder() -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, "R58/:1"], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_holder_is_named_and_a_killed_holder_releases_the_lock(
    holder: "subprocess.Popen[str]",
) -> None:
    with raises("device_busy") as refused, lock_device(device("R58/:1")):
        pass
    assert f"fake is being measured by process {holder.pid} (-c R58/:1, since " in str(refused.value)
    assert "\n" not in str(refused.value)
    with lock_device(device("R58/:2")):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with lock_device(device("R58/:1")):
        assert str(os.getpid()) in lock_path("R58/:1").read_text()


def test_lock_is_released_at_the_end() -> None:
    for _ in range(2):
        with lock_device(device("host")), raises("device_busy"), lock_device(device("host")):
            pass


def test_target_locks_its_device() -> None:
    refused = raises("device_busy")
    with lock_device(device("host")), refused, Target("host").found():
        pass


def test_simulated_devices_are_not_locked() -> None:
    with lock_device(device("")), lock_device(device("")):
        assert not lock_path("").parent.exists()


def test_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    lock_path("host").parent.mkdir()
    lock_path("host").symlink_to(victim)
    with pytest.raises(StorageError), lock_device(device("host")):
        pass
    assert victim.read_text() == "precious"

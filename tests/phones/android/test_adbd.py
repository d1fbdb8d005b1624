"""Our links to a real adb daemon, and a profile with a fault on the way."""

import os
import subprocess
import sys

import pytest

from tests.soak.adbd import WORKER
from tests.soak.faults import Outcome
from tests.support.real_adbd import ADBD, NAMESPACES, ROOT, missing
from tests.support.slow import mostly_slow


@pytest.fixture
def adbd():
    if why := missing():
        pytest.skip(why)
    return str(ADBD)


def test_real_daemon_through_both_ways(adbd, tmp_path):
    environment = {**os.environ, "HOME": str(tmp_path), "ANDROID_ADB_SERVER_PORT": "15037"}
    environment.pop("ADBUTILS_ADB_PATH", None)
    command = [*NAMESPACES, sys.executable, "-m", "tests.support.real_adbd", adbd]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("checked ")


@pytest.mark.parametrize("transport", mostly_slow(["adbd", "adbd-and-server"], kept=["adbd"]))
def test_a_cut_connection_costs_nothing(adbd, tmp_path, transport):
    try:
        assert WORKER.run("cut", transport, 0, tmp_path) == Outcome(tries=1)
    finally:
        WORKER.stop()

"""Our links to a real adb daemon, through a real adb server and directly."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.support.agent_programs import ROOT

ADBD = ROOT / ".toolchains/swift/usr/lib/android-sdk/platform-tools/adbd"
NAMESPACES = [
    "setpriv",
    "--pdeathsig",
    "KILL",
    "unshare",
    "--net",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
]


@pytest.fixture
def adbd():
    if not ADBD.is_file():
        pytest.skip(f"no {ADBD.relative_to(ROOT)}: run tools/toolchains/swift.sh")
    if not all(map(shutil.which, ("setpriv", "unshare", "ip"))):
        pytest.skip("needs util-linux and iproute2: run tools/toolchains/phones.sh")
    probe = subprocess.run([*NAMESPACES, "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"namespaces cannot be created here: {probe.stderr.strip()}")
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

"""Phones without a phone: the fake one, and the one with a real adbd; and the clients that connect to them."""

import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.agent_programs import require_built
from tests.support.fakephone.adbd_phone import AdbdPhone, why_not
from tests.support.fakephone.bench_app import AgentProgram
from tests.support.fakephone.clients import OfficialAdb
from tests.support.fakephone.phone import FakePhone
from tests.support.ports import own_port

ROOT = Path(__file__).parents[3]
ADBD = ROOT / ".toolchains/swift/usr/lib/android-sdk/platform-tools/adbd"
ANDROID_JAR = ROOT / ".toolchains/android_api/android-23.jar"
KOTLIN_AGENT = AgentProgram((str(ROOT / "build/kotlin/blocktime-agent"),), "Pixel 8")
TOKEN = "a-token-that-only-these-tests-know"
ALLOWED = ("low_battery", "throttled")


@pytest.fixture(scope="session")
def kotlin_agent():
    """The Kotlin agent is built: what phones start as their app."""
    require_built("kotlin")


@contextmanager
def _open_phone(kind, **options):
    """A phone of either kind; nothing that no fault explains may have happened on it."""
    if kind == "fake":
        made: FakePhone | AdbdPhone = FakePhone(KOTLIN_AGENT, **options)
    elif reason := why_not(ADBD):
        pytest.skip(reason)
    else:
        made = AdbdPhone(ADBD, KOTLIN_AGENT, **options)
    with made as phone:
        yield phone
        defects = phone.defects
    assert not defects


@pytest.fixture(scope="session")
def open_phone():
    """A function that opens a phone of a kind, `fake` or `adbd`, for fixtures that keep one longer than a test."""
    return _open_phone


@pytest.fixture
def fake_phone():
    with _open_phone("fake") as phone:
        yield phone


@pytest.fixture
def adbd_phone():
    with _open_phone("adbd") as phone:
        yield phone


@pytest.fixture(params=["fake", "adbd"])
def phone(request):
    """Each of the two, for what must work through both."""
    return request.getfixturevalue(f"{request.param}_phone")


@pytest.fixture(scope="module", params=["fake", "adbd"])
def running(request, kotlin_agent, make_apk, adb):
    """Each of the two with the app running, for a module's tests that leave it so."""
    with _open_phone(request.param) as phone, adb.connected(phone.serial):
        phone.packages.install(make_apk())
        phone.app.give_token(TOKEN)
        phone.app.start(ALLOWED)
        yield phone


@pytest.fixture(scope="session")
def adb(tmp_path_factory):
    """The official client with a server and keys of its own."""
    program = shutil.which("adb")
    if program is None:
        pytest.skip("adb is not installed (Debian: apt install adb)")
    adb = OfficialAdb(program, own_port(), tmp_path_factory.mktemp("adb-home"))
    yield adb
    adb.run("kill-server")


@pytest.fixture
def connected(adb, phone):
    """A phone that the official client's server holds; it asks for the server's key at first."""
    with adb.connected(phone.serial):
        yield phone


@pytest.fixture(scope="session")
def make_apk(tmp_path_factory):
    """A function that makes an APK with a manifest and nothing else."""
    aapt = shutil.which("aapt")
    if aapt is None or not ANDROID_JAR.is_file():
        pytest.skip("needs aapt and the Android API: run tools/toolchains/android_api.sh")

    def make(package="dev.blocktime.bench", version_code=1, debuggable=False):
        folder = tmp_path_factory.mktemp("apk")
        (folder / "AndroidManifest.xml").write_text(
            '<manifest xmlns:android="http://schemas.android.com/apk/res/android" '
            f'package="{package}" android:versionCode="{version_code}" android:versionName="0.{version_code}">'
            f'<application android:debuggable="{str(debuggable).lower()}"/></manifest>'
        )
        apk = folder / "base.apk"
        command = [aapt, "package", "-M", folder / "AndroidManifest.xml", "-I", ANDROID_JAR, "-F", apk]
        subprocess.run(command, check=True, capture_output=True, env=os.environ)
        return apk

    return make


@pytest.fixture
def installed(phone, make_apk, kotlin_agent):
    """A phone on which the app is installed."""
    phone.packages.install(make_apk())
    return phone

"""What is asked of the phone to install, wake and start the app, and what its answers mean."""

import hashlib

import pytest

from luts.format.errors import InvalidArtifactError, UsageError
from orchestrator.devices.android import apk as apk_module
from orchestrator.devices.android import app, awake
from orchestrator.devices.android.apk import APK_VARIABLE, AppFile
from orchestrator.devices.android.errors import NotInstalled, PhoneNotReady
from orchestrator.devices.android.install import Installed, find_installed, install
from orchestrator.wire.errors import DeviceError

DUMP = """Activity Resolver Table:
  Non-Data Actions:
      android.intent.action.MAIN:
        6b0 dev.blocktime.bench/.MainActivity filter 9c1

Packages:
  Package [dev.blocktime.bench] (c5f1b):
    userId=10234
    versionCode=7 minSdk=26 targetSdk=35
    versionName=0.1.0
    firstInstallTime=2026-11-21 16:00:00
"""
INSTALLED = ("dumpsys package", DUMP, 0)
TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def apk(tmp_path):
    path = tmp_path / "app.apk"
    path.write_bytes(b"an apk")
    return path


@pytest.fixture(autouse=True)
def no_build(tmp_path, monkeypatch):
    """No app was built here, and none is named in the environment."""
    monkeypatch.delenv(APK_VARIABLE, raising=False)
    monkeypatch.setattr(apk_module, "_BUILT", tmp_path / "built")


def test_version_of_the_installed_app(link):
    assert find_installed(link) is None
    link.say(
        "dumpsys package", "Packages:\n  Package [dev.blocktime.bench2] (1):\n    versionCode=3 minSdk=1\n"
    )
    assert find_installed(link) is None
    link.say(*INSTALLED)
    assert find_installed(link) == Installed(7, "0.1.0")


def test_install_pushes_installs_and_cleans_up(link, apk):
    link.say("pm install", "Success\n")
    install(link, apk)
    assert link.pushed == [(apk, "/data/local/tmp/blocktime.apk")]
    assert link.commands() == [
        "pm install -r /data/local/tmp/blocktime.apk",
        "rm -f /data/local/tmp/blocktime.apk",
        "cmd package compile -m speed -f dev.blocktime.bench",
    ]


@pytest.mark.parametrize(
    ("answer", "exit_code", "said"),
    [
        ("Failure [INSTALL_FAILED_INSUFFICIENT_STORAGE]", 1, "storage is full"),
        (
            "Failure [INSTALL_FAILED_UPDATE_INCOMPATIBLE: Package signatures do not match]",
            1,
            "adb uninstall dev",
        ),
        ("Failure [INSTALL_FAILED_VERSION_DOWNGRADE]", 0, "installed app is newer"),
        ("Failure [INSTALL_FAILED_OLDER_SDK: Requires newer sdk]", 1, "Android is too old"),
        ("Failure [INSTALL_FAILED_NO_MATCHING_ABIS: res=-113]", 1, "no code for its processor"),
        ("Failure [INSTALL_FAILED_USER_RESTRICTED: Install canceled by user]", 1, "install via USB"),
        ("Failure [INSTALL_PARSE_FAILED_NO_CERTIFICATES]", 1, "not signed"),
        (
            "Performing install\nFailure [INSTALL_FAILED_NEW_KIND: x]",
            1,
            r"it said Failure \[INSTALL_FAILED_NEW_KIND",
        ),
        ("", 137, "pm ended with 137"),
    ],
)
def test_refused_install_says_why_and_cleans_up(link, apk, answer, exit_code, said):
    link.say("pm install", answer, exit_code)
    with pytest.raises(DeviceError, match=f"SERIAL1 does not install app.apk: .*{said}") as caught:
        install(link, apk)
    assert "\n" not in str(caught.value)
    assert link.commands()[-1].startswith("rm -f")


def test_missing_app_and_no_file(link):
    with pytest.raises(NotInstalled, match="not on SERIAL1: build it .*--app FILE.apk"):
        AppFile.find().put_on(link)


def test_a_built_app_is_for_phones_without_one(link, tmp_path):
    (tmp_path / "built").mkdir()
    (tmp_path / "built" / "app-release-unsigned.apk").write_bytes(b"unsigned")
    assert AppFile.find().path is None
    (tmp_path / "built" / "app-release.apk").write_bytes(b"signed")
    found = AppFile.find()
    assert (found.path.name, found.asked_for) == ("app-release.apk", False)

    link.say(*INSTALLED)
    found.put_on(link)
    assert not link.pushed
    link.say("dumpsys package", "")
    link.say("pm install", "Success")
    found.put_on(link)
    assert [path.name for path, _ in link.pushed] == ["app-release.apk"]


@pytest.mark.parametrize("way", ["argument", "environment"])
def test_an_app_that_was_asked_for_replaces_another(link, apk, monkeypatch, way):
    if way == "environment":
        monkeypatch.setenv(APK_VARIABLE, str(apk))
    found = AppFile.find(apk if way == "argument" else None)
    link.say(*INSTALLED)
    link.say("pm install", "Success")
    link.say("sha256sum", f"{hashlib.sha256(b'another').hexdigest()}  /data/app/base.apk")
    found.put_on(link)
    assert len(link.pushed) == 1
    link.say("sha256sum", f"{hashlib.sha256(b'an apk').hexdigest()}  /data/app/base.apk")
    found.put_on(link)
    assert len(link.pushed) == 1
    assert not found.replace_on(link)


def test_a_file_that_is_not_there(link, tmp_path, apk):
    with pytest.raises(UsageError, match="there is no app"):
        AppFile.find(tmp_path / "none.apk")
    found = AppFile.find(apk)
    apk.unlink()
    link.say(*INSTALLED)
    with pytest.raises(InvalidArtifactError, match="can't read the app"):
        found.put_on(link)


def test_the_token_is_on_no_command_line(link):
    app.give_token(link, TOKEN)
    [(command, stdin)] = link.asked
    assert stdin == TOKEN.encode() + b"\n"
    assert command.endswith("| content write --uri content://dev.blocktime.bench.control/token")
    assert TOKEN not in command


@pytest.mark.parametrize(
    ("answer", "exit_code"),
    [
        (
            "Error while accessing provider:dev.blocktime.bench.control\njava.lang.IllegalStateException: no",
            0,
        ),
        ("java.lang.SecurityException: Permission Denial", 1),
        ("", 127),
    ],
)
def test_a_token_that_is_not_taken(link, answer, exit_code):
    link.say("content write", answer, exit_code)
    with pytest.raises(DeviceError, match="did not take the token.*--app FILE.apk") as caught:
        app.give_token(link, TOKEN)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    ("allow", "command"),
    [
        ((), "am start -n dev.blocktime.bench/.MainActivity"),
        (
            ("low_battery", "throttled"),
            "am start -n dev.blocktime.bench/.MainActivity --esa allow low_battery,throttled",
        ),
    ],
)
def test_start_says_what_is_allowed(link, allow, command):
    link.say("am start", "Starting: Intent { cmp=dev.blocktime.bench/.MainActivity }\n")
    app.start(link, allow)
    assert link.commands() == [command]


@pytest.mark.parametrize("reason", ["low battery", "x;reboot", "$(reboot)", ""])
def test_unknown_reasons_reach_no_shell(link, reason):
    with pytest.raises(UsageError, match="unknown reason"):
        app.start(link, (reason,))
    assert not link.asked


@pytest.mark.parametrize("exit_code", [0, 1])
def test_an_app_that_android_does_not_start(link, exit_code):
    error = "Error: Activity class {dev.blocktime.bench/.MainActivity} does not exist."
    link.say("am start", f"Starting: Intent {{}}\nError type 3\n{error}\n", exit_code)
    with pytest.raises(DeviceError, match="does not start the app: Error: Activity class .* does not exist"):
        app.start(link)


@pytest.mark.parametrize(
    ("pids", "source"), [("4242\n", "--pid=4242"), ("", "-b crash"), ("$(id)", "-b crash")]
)
def test_log_of_the_app_or_of_its_crash(link, pids, source):
    link.say("pidof", pids)
    link.say("logcat", "a line\n")
    path = app.save_log(link, "pixel8")
    try:
        assert path.read_text() == "a line\n"
        assert path.stat().st_mode & 0o077 == 0
    finally:
        path.unlink()
    assert link.commands()[-1].startswith("logcat -d ")
    assert link.commands()[-1].endswith(f"-t 2000 {source}")


def test_a_phone_that_still_starts(link):
    with pytest.raises(PhoneNotReady, match="still starting"):
        awake.check_booted(link)
    link.say("getprop", "1\n")
    link.say("get-started-user-state", "RUNNING_LOCKED\n")
    with pytest.raises(PhoneNotReady, match="unlock it once") as caught:
        awake.check_booted(link)
    assert caught.value.state == "locked"
    link.say("get-started-user-state", "RUNNING_UNLOCKED\n")
    awake.check_booted(link)


def test_a_dark_screen_is_switched_on(link):
    class Sleeper(type(link)):
        def shell(self, command, stdin=b"", timeout_s=30.0):
            if "KEYCODE_WAKEUP" in command:
                self.say("dumpsys power", "  mWakefulness=Awake\n")
            return super().shell(command, stdin, timeout_s)

    sleeper = Sleeper()
    sleeper.say("dumpsys power", "  mWakefulness=Dozing\n")
    awake.wake(sleeper)
    assert "input keyevent KEYCODE_WAKEUP" in sleeper.commands()
    sleeper.asked.clear()
    awake.wake(sleeper)
    assert sleeper.commands() == ["dumpsys power"]


def test_a_screen_that_stays_dark(link, monkeypatch):
    monkeypatch.setattr(awake, "_WAKE_S", 0.0)
    link.say("dumpsys power", "mWakefulness=Asleep")
    with pytest.raises(DeviceError, match="the screen of SERIAL1 stays off"):
        awake.wake(link)

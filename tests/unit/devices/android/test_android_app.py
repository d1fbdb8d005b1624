"""Commands that install, wake and start the app, and what their answers mean."""

import pytest

from orchestrator.devices.android import app
from orchestrator.devices.android.app import Apk
from tests.support.errors import raises

TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def apk(tmp_path):
    path = tmp_path / "app.apk"
    path.write_bytes(bytes(range(256)) * 1000)
    return path


def test_install_streams_the_file(link, phone, apk):
    app.install(link, apk)
    assert phone.apk == apk.read_bytes()
    assert phone.commands == ["cmd package install -r -S 256000"]


def test_code_that_is_not_compiled_is_and_its_process_ends(link, phone):
    """Android profiles of an app's use (`speed-profile`) are not enough: they lack what was never run."""
    phone.answers = [("^dumpsys package", "arm64: [status=speed-profile] [reason=bg-dexopt]", 0)]
    app.compile_ahead(link)
    assert phone.commands[1:] == [
        "am force-stop dev.blocktime.bench",
        "cmd package compile -m speed -f dev.blocktime.bench",
    ]
    phone.answers = []
    app.compile_ahead(link)
    assert phone.commands[3:] == ["dumpsys package dev.blocktime.bench"]


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        ("INSTALL_FAILED_INSUFFICIENT_STORAGE", "storage is full"),
        ("INSTALL_FAILED_UPDATE_INCOMPATIBLE: signatures do not match", "adb uninstall dev"),
        ("INSTALL_FAILED_VERSION_DOWNGRADE", "installed app is newer"),
        ("INSTALL_FAILED_OLDER_SDK: Requires newer sdk", "Android is too old"),
        ("INSTALL_FAILED_NO_MATCHING_ABIS: res=-113", "no code for its processor"),
        ("INSTALL_FAILED_USER_RESTRICTED: Install canceled by user", "install via USB"),
        ("INSTALL_PARSE_FAILED_NO_CERTIFICATES", "not signed"),
        ("INSTALL_FAILED_NEW_KIND: x", "INSTALL_FAILED_NEW_KIND: x"),
    ],
)
def test_refused_install_says_why(link, phone, apk, failure, reason):
    phone.install_failure = failure
    with raises("install_refused") as refused:
        app.install(link, apk)
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


def test_missing_app_without_a_file(link, phone):
    phone.apk = None
    with raises("app_not_installed"):
        Apk.find().ensure_installed(link)


def test_a_built_app_is_for_phones_without_one(link, phone, tmp_path):
    (tmp_path / "built").mkdir()
    (tmp_path / "built" / "app-release-unsigned.apk").write_bytes(b"unsigned")
    assert Apk.find().path is None
    (tmp_path / "built" / "app-release.apk").write_bytes(b"signed")
    built = Apk.find()
    built.ensure_installed(link)
    assert phone.apk == b"an app"
    phone.apk = None
    built.ensure_installed(link)
    assert phone.apk == b"signed"


@pytest.mark.parametrize("way", ["argument", "environment"])
def test_a_requested_app_replaces_another(link, phone, apk, monkeypatch, way):
    if way == "environment":
        monkeypatch.setenv(app.APK_VARIABLE, str(apk))
    requested = Apk.find(apk if way == "argument" else None)
    requested.ensure_installed(link)
    assert phone.apk == apk.read_bytes()
    phone.commands.clear()
    requested.ensure_installed(link)
    assert not requested.replace(link)
    assert not any("install" in command for command in phone.commands)


def test_unusable_files(link, tmp_path, apk):
    with raises("no_app_file"):
        Apk.find(tmp_path / "none.apk")
    requested = Apk.find(apk)
    apk.unlink()
    with raises("unreadable_file"):
        requested.ensure_installed(link)


def test_token_is_on_no_command_line(link, phone):
    app.set_token(link, TOKEN)
    assert phone.token == TOKEN
    assert not any(TOKEN in command for command in phone.commands)


@pytest.mark.parametrize(
    ("output", "exit_code"),
    [
        (
            "Error while accessing provider:dev.blocktime.bench.control\njava.lang.IllegalStateException: no",
            0,
        ),
        ("java.lang.SecurityException: Permission Denial", 1),
        ("", 127),
    ],
)
def test_refused_token(link, phone, output, exit_code):
    phone.answers = [("content write", output, exit_code)]
    with raises("token_refused") as refused:
        app.set_token(link, TOKEN)
    assert TOKEN not in str(refused.value)


def test_start_passes_on_allowed_conditions(link, phone):
    app.start(link)
    app.start(link, ("low_battery", "throttled"))
    start = "am start -n dev.blocktime.bench/.MainActivity"
    assert phone.commands == [start, f"{start} --esa allow low_battery,throttled"]


@pytest.mark.parametrize("condition", ["low battery", "x;reboot", "$(reboot)", ""])
def test_unknown_conditions_reach_no_shell(link, phone, condition):
    with raises("unknown_condition"):
        app.start(link, (condition,))
    assert phone.commands == []


@pytest.mark.parametrize("exit_code", [0, 1])
def test_app_that_android_does_not_start(link, phone, exit_code):
    phone.answers = [
        (
            "am start",
            "Starting: Intent {}\nError type 3\nError: Activity class {x} does not exist.",
            exit_code,
        )
    ]
    with raises("app_not_started") as failed:
        app.start(link)
    assert "(Error: Activity class {x} does not exist.)" in str(failed.value)


@pytest.mark.parametrize(
    ("pids", "source"), [("4242\n", "--pid=4242"), ("", "-b crash"), ("$(id)", "-b crash")]
)
def test_log_of_the_app_or_of_its_crash(link, phone, pids, source):
    phone.answers = [("pidof", pids, 0)]
    phone.log = "a line\n"
    path = app.save_log(link, "pixel8")
    try:
        assert path.read_text() == "a line\n"
        assert path.stat().st_mode & 0o077 == 0
    finally:
        path.unlink()
    assert phone.commands[-1].endswith(f"-t 2000 {source}")


def test_phone_that_still_starts_or_was_never_unlocked(link, phone):
    phone.properties["sys.boot_completed"] = ""
    with raises("phone_not_ready") as starting:
        app.check_booted(link)
    phone.properties["sys.boot_completed"] = "1"
    phone.unlocked = False
    with raises("phone_not_ready") as locked:
        app.check_booted(link)
    assert (starting.value.state, locked.value.state) == ("starting", "locked")
    phone.unlocked = True
    app.check_booted(link)


def test_dark_screen_is_switched_on(link, phone):
    phone.go_dark()
    app.wake(link)
    assert phone.screen_on
    phone.commands.clear()
    app.wake(link)
    assert phone.commands == ["dumpsys power"]


def test_screen_that_stays_dark(link, phone, monkeypatch):
    monkeypatch.setattr(app, "_WAKE_TIMEOUT_S", 0.0)
    phone.answers = [("dumpsys power", "mWakefulness=Asleep", 0)]
    with raises("screen_off"):
        app.wake(link)


def test_install_that_was_killed(link, phone, apk):
    phone.answers = [("install", "", 137)]
    with raises("install_refused") as refused:
        app.install(link, apk)
    assert "exit code 137" in str(refused.value)


def test_unknown_screen_state(link, phone):
    phone.answers = [("dumpsys power", "", 0)]
    app.wake(link)

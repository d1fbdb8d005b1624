"""The app on both phones: the Kotlin agent, started with its token as a phone's owner's computer would start it."""

import socket
import subprocess
from pathlib import Path

import pytest

from orchestrator.wire.client import AgentClient
from orchestrator.wire.errors import AgentError, AgentLost
from tests.support.waiting import until

TOKEN = "a-token-that-only-this-test-knows"
GIVE_TOKEN = 'read -r t && printf %s "$t" | content write --uri content://dev.blocktime.bench.control/token'
START = "am start -n dev.blocktime.bench/.MainActivity"


@pytest.fixture
def ready(adb, installed):
    """A phone with the app, which does not run, that the official client's server holds."""
    with adb.connected(installed.serial):
        yield installed


@pytest.fixture
def greet(adb, running):
    """A function that connects to the running app through `adb forward`."""
    return greeter(adb, running)


def greeter(adb, phone):
    until(lambda: phone.app.port)
    port = int(adb.run("forward", "tcp:0", "tcp:47613", serial=phone.serial).stdout)

    def connect(token):
        return AgentClient(socket.create_connection(("127.0.0.1", port), 60), token)

    return connect


def shell(adb, phone, command):
    done = adb.run("shell", command, serial=phone.serial)
    return done.returncode, (done.stdout + done.stderr).decode()


def give_token(adb, phone, token):
    return adb.run("shell", GIVE_TOKEN, serial=phone.serial, stdin=token.encode() + b"\n")


def test_is_the_kotlin_agent_of_a_simulated_phone(running, greet):
    with greet(running.app.token) as client:
        hello = client.hello()
        assert hello.agent.name == "blocktime-kotlin"
        assert (hello.device.model, hello.device.simulated) == ("Pixel 8", True)
        assert "executorch" in hello.runtimes


def test_answers_only_the_holder_of_the_token(greet):
    with pytest.raises(AgentError, match="token") as refused:
        greet("another-token-of-some-length").hello()
    assert refused.value.code == "unauthorized"


def test_without_a_token_nothing_listens(adb, ready):
    assert shell(adb, ready, START)[0] == 0
    assert ready.app.port is None


@pytest.mark.parametrize("token", ["short", "x" * 257, "with space but long enough"])
def test_a_token_that_is_none(adb, ready, token):
    done = give_token(adb, ready, token)
    assert done.returncode == 0
    assert b"visible ASCII" in done.stderr


def test_the_token_is_on_no_command_line(adb, ready):
    """Neither while the phone waits for it nor once the agent runs with it."""
    watched = subprocess.Popen(
        [adb.program, "-s", ready.serial, "shell", GIVE_TOKEN],
        env=dict(adb.environment),
        stdin=subprocess.PIPE,
    )
    assert watched.stdin is not None
    until(lambda: any("read -r t" in line for line in command_lines()))
    watched.stdin.write(TOKEN.encode() + b"\n")
    watched.stdin.close()
    while watched.poll() is None:
        assert not any(TOKEN in line for line in command_lines())
    shell(adb, ready, START)
    until(lambda: ready.app.port)
    assert not any(TOKEN in line for line in command_lines())


def command_lines():
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue


def test_started_stopped_and_rebooted(adb, ready):
    give_token(adb, ready, TOKEN)
    shell(adb, ready, f"{START} --esa allow debuggable_build,low_battery")
    assert ready.app.allowed == ("debuggable_build", "low_battery")
    pid = int(shell(adb, ready, "pidof dev.blocktime.bench")[1])
    assert Path(f"/proc/{pid}").exists()
    client = greeter(adb, ready)(TOKEN)
    client.hello()
    shell(adb, ready, "am force-stop dev.blocktime.bench")
    with pytest.raises(AgentLost):
        client.state()
    assert shell(adb, ready, "pidof dev.blocktime.bench")[0] == 1
    shell(adb, ready, START)
    assert ready.app.port is None, "its token is gone with it"
    give_token(adb, ready, TOKEN)
    shell(adb, ready, START)
    until(lambda: ready.app.port)
    ready.reboot()
    adb.reconnect(ready.serial)
    assert shell(adb, ready, "pidof dev.blocktime.bench")[0] == 1
    assert shell(adb, ready, "pm path dev.blocktime.bench")[0] == 0


class TestInstalling:
    """As our own transport and as `adb install` do it."""

    def test_streamed(self, adb, fake_phone, make_apk):
        with adb.connected(fake_phone.serial):
            apk = make_apk(version_code=4)
            assert b"Success" in adb.run("install", str(apk), serial=fake_phone.serial).stdout
            assert fake_phone.state.packages["dev.blocktime.bench"].path.read_bytes() == apk.read_bytes()
            downgrade = adb.run("install", str(make_apk(version_code=3)), serial=fake_phone.serial)
            assert b"INSTALL_FAILED_VERSION_DOWNGRADE" in downgrade.stdout + downgrade.stderr

    def test_pushed(self, adb, ready, make_apk):
        apk = make_apk(version_code=2)
        adb.run("push", str(apk), "/data/local/tmp/b.apk", serial=ready.serial)
        code, text = shell(adb, ready, "pm install -r /data/local/tmp/b.apk; rm -f /data/local/tmp/b.apk")
        assert (code, text) == (0, "Success\n")
        assert "versionCode=2 " in shell(adb, ready, "dumpsys package dev.blocktime.bench")[1]
        path = shell(adb, ready, "pm path dev.blocktime.bench")[1].removeprefix("package:").strip()
        adb.run("pull", path, str(apk.with_name("back")), serial=ready.serial)
        assert apk.with_name("back").read_bytes() == apk.read_bytes()

    def test_compiled(self, adb, ready):
        compiled = shell(adb, ready, "cmd package compile -m speed -f dev.blocktime.bench")
        assert compiled == (0, "Success\n")
        assert ready.state.packages["dev.blocktime.bench"].compiler_filter == "speed"

    def test_refused(self, adb, ready, make_apk):
        ready.state.install_failure = "INSTALL_FAILED_UPDATE_INCOMPATIBLE: signatures do not match"
        adb.run("push", str(make_apk()), "/data/local/tmp/b.apk", serial=ready.serial)
        code, text = shell(adb, ready, "pm install -r /data/local/tmp/b.apk")
        assert (code, text) == (
            1,
            "Failure [INSTALL_FAILED_UPDATE_INCOMPATIBLE: signatures do not match]\n",
        )

    def test_not_installed(self, adb, ready):
        assert shell(adb, ready, "pm uninstall dev.blocktime.bench") == (0, "Success\n")
        assert shell(adb, ready, "pm path dev.blocktime.bench") == (1, "")
        code, text = shell(adb, ready, START)
        assert code == 1
        assert "does not exist" in text
        done = give_token(adb, ready, TOKEN)
        assert done.returncode == 0, "as on Android"
        assert b"Could not find provider" in done.stderr

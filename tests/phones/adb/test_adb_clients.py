"""Both phones are phones to the official adb client, to adbutils and to adb_shell.

Tests of our own transport on the fake phone would prove nothing were it a phone to our transport alone.
"""

import os
import shlex
import socket
import threading

import adbutils
import pytest
from adb_shell.adb_device import AdbDeviceTcp
from adb_shell.auth.keygen import keygen
from adb_shell.auth.sign_pythonrsa import PythonRSASigner
from adb_shell.exceptions import AdbCommandFailureException

from tests.support.waiting import until

SIZES = [0, 1, 64 * 1024, 3 * 1024 * 1024 + 17]
REMOTE = "/data/local/tmp/file"


@pytest.fixture
def adbutils_device(adb, connected):
    return adbutils.AdbClient("127.0.0.1", adb.port).device(connected.serial)


@pytest.fixture
def adb_shell_device(phone, tmp_path):
    keygen(str(tmp_path / "key"))
    signer = PythonRSASigner.FromRSAKeyPath(str(tmp_path / "key"))
    device = AdbDeviceTcp("127.0.0.1", phone.cable.port, default_transport_timeout_s=300)
    device.connect(rsa_keys=[signer], auth_timeout_s=300)
    yield device
    device.close()


@pytest.fixture
def echo(phone):
    """On port 5000 of the phone something sends back what it gets."""

    def serve(listener):
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=[client], daemon=True).start()

    def answer(client):
        with client:
            while part := client.recv(1 << 16):
                client.sendall(part)

    with phone.listen(5000) as listener:
        threading.Thread(target=serve, args=[listener], daemon=True).start()
        yield "tcp:5000"
        listener.shutdown(socket.SHUT_RDWR)


def receive(sock, size):
    parts = bytearray()
    while len(parts) < size:
        part = sock.recv(size - len(parts))
        assert part, f"ended after {len(parts)} of {size} bytes"
        parts += part
    return bytes(parts)


class TestOfficialClient:
    def test_lists_the_phone(self, adb, connected):
        assert adb.state(connected.serial).split()[0] == "device"

    def test_shell_keeps_streams_and_exit_code_apart(self, adb, connected):
        done = adb.run("shell", "echo out; echo err >&2; exit 7", serial=connected.serial)
        assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"err\n", 7)

    def test_shell_takes_stdin(self, adb, connected):
        data = os.urandom(1 << 20)
        done = adb.run("shell", "cat", serial=connected.serial, stdin=data)
        assert done.returncode == 0
        assert done.stdout == data

    def test_shell_of_the_phone(self, adb, connected):
        done = adb.run("shell", "getprop ro.product.model", serial=connected.serial)
        assert done.stdout == b"Pixel 8\n"

    def test_quoting_survives(self, adb, connected):
        text = "a b'c\"d$e"
        done = adb.run("shell", f"printf %s {shlex.quote(text)}", serial=connected.serial)
        assert done.stdout.decode() == text

    def test_exec_out_is_binary(self, adb, connected):
        done = adb.run("exec-out", r"printf '\r\n\0\377'", serial=connected.serial)
        assert done.stdout == b"\r\n\0\xff"

    @pytest.mark.parametrize("size", SIZES)
    def test_push_and_pull(self, adb, connected, tmp_path, size):
        (tmp_path / "sent").write_bytes(os.urandom(size))
        pushed = adb.run("push", str(tmp_path / "sent"), REMOTE, serial=connected.serial)
        assert pushed.returncode == 0, pushed.stderr
        assert adb.run("shell", f"wc -c < {REMOTE}", serial=connected.serial).stdout.split() == [b"%d" % size]
        pulled = adb.run("pull", REMOTE, str(tmp_path / "got"), serial=connected.serial)
        assert pulled.returncode == 0, pulled.stderr
        assert (tmp_path / "got").read_bytes() == (tmp_path / "sent").read_bytes()

    def test_folders(self, adb, connected, tmp_path):
        for name in ("a/one", "a/b/two", "a/b/three"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(name)
        assert adb.run("push", str(tmp_path / "a"), REMOTE, serial=connected.serial).returncode == 0
        listed = adb.run("ls", REMOTE, serial=connected.serial).stdout.decode().splitlines()
        assert {line.split(maxsplit=3)[3] for line in listed} == {".", "..", "one", "b"}
        assert adb.run("pull", REMOTE, str(tmp_path / "back"), serial=connected.serial).returncode == 0
        assert (tmp_path / "back/b/three").read_text() == "a/b/three"

    def test_pull_of_what_is_not_there(self, adb, connected, tmp_path):
        done = adb.run("pull", "/data/nothing", str(tmp_path / "got"), serial=connected.serial)
        assert done.returncode != 0
        assert b"No such file" in done.stdout + done.stderr

    def test_forward_to_nothing_ends(self, adb, connected):
        port = int(adb.run("forward", "tcp:0", "tcp:47613", serial=connected.serial).stdout)
        with socket.create_connection(("127.0.0.1", port), 60) as sock:
            assert sock.recv(1) == b""

    @pytest.mark.parametrize("size", [1, 2 * 1024 * 1024 + 1])
    def test_forward_both_ways_at_once(self, adb, connected, echo, size):
        port = int(adb.run("forward", "tcp:0", echo, serial=connected.serial).stdout)
        data = os.urandom(size)
        with socket.create_connection(("127.0.0.1", port), 60) as sock:
            sending = threading.Thread(target=sock.sendall, args=[data])
            sending.start()
            assert receive(sock, size) == data
            sending.join()

    def test_two_shells_at_once(self, adb, connected):
        """Streams of one connection do not wait for each other."""
        results = {}

        def run(name, command):
            results[name] = adb.run("shell", command, serial=connected.serial).stdout

        first = threading.Thread(
            target=run, args=["waits", f"until [ -e {REMOTE} ]; do sleep 0.05; done; echo seen"]
        )
        first.start()
        run("touches", f"touch {REMOTE}; echo done")
        first.join(60)
        assert results == {"waits": b"seen\n", "touches": b"done\n"}

    def test_cable_pulled_and_plugged_in(self, adb, connected):
        connected.pull_cable()
        until(lambda: not adb.state(connected.serial).startswith("device"))
        assert adb.run("shell", "true", serial=connected.serial).returncode != 0
        connected.plug_in()
        adb.reconnect(connected.serial)
        assert adb.run("shell", "echo back", serial=connected.serial).stdout == b"back\n"


class TestAdbutils:
    def test_knows_the_phone(self, adbutils_device):
        assert adbutils_device.get_state() == "device"
        assert adbutils_device.prop.model == "Pixel 8"

    def test_shell(self, adbutils_device):
        result = adbutils_device.shell2("echo out; (exit 5)")
        assert (result.returncode, result.output) == (5, "out\n")

    @pytest.mark.parametrize("size", [0, SIZES[-1]])
    def test_push_and_pull(self, adbutils_device, tmp_path, size):
        (tmp_path / "sent").write_bytes(os.urandom(size))
        adbutils_device.sync.push(tmp_path / "sent", REMOTE)
        assert adbutils_device.sync.stat(REMOTE).size == size
        adbutils_device.sync.pull(REMOTE, tmp_path / "got")
        assert (tmp_path / "got").read_bytes() == (tmp_path / "sent").read_bytes()

    def test_opens_ports(self, adbutils_device, echo):
        with adbutils_device.create_connection(adbutils.Network.TCP, 5000) as sock:
            sock.sendall(b"ping")
            assert receive(sock, 4) == b"ping"

    def test_installs(self, adbutils_device, make_apk):
        apk = make_apk(version_code=7)
        adbutils_device.install(str(apk), nolaunch=True, silent=True)
        info = adbutils_device.package_info("dev.blocktime.bench")
        assert info["version_name"] == "0.7"


class TestAdbShell:
    def test_shell(self, adb_shell_device):
        assert adb_shell_device.shell("echo out; getprop ro.product.device") == "out\nshiba\n"

    @pytest.mark.parametrize("size", [0, SIZES[-1]])
    def test_push_and_pull(self, adb_shell_device, tmp_path, size):
        (tmp_path / "sent").write_bytes(os.urandom(size))
        adb_shell_device.push(str(tmp_path / "sent"), REMOTE)
        mode, stat_size, _ = adb_shell_device.stat(REMOTE)
        assert (mode & 0o100000, stat_size) == (0o100000, size)
        adb_shell_device.pull(REMOTE, str(tmp_path / "got"))
        assert (tmp_path / "got").read_bytes() == (tmp_path / "sent").read_bytes()

    def test_list(self, adb_shell_device):
        adb_shell_device.shell("mkdir /data/local/tmp/d; echo hello > /data/local/tmp/d/f")
        found = {bytes(entry.filename): entry.size for entry in adb_shell_device.list("/data/local/tmp/d")}
        assert found[b"f"] == 6

    def test_pull_of_what_is_not_there(self, adb_shell_device, tmp_path):
        with pytest.raises(AdbCommandFailureException):
            adb_shell_device.pull("/data/nothing", str(tmp_path / "got"))

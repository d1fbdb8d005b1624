"""What the fake phone refuses, and the faults that it plays."""

import contextlib
import os
import random
import socket
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from adb_shell.adb_device import AdbDeviceTcp
from adb_shell.auth.keygen import keygen
from adb_shell.auth.sign_pythonrsa import PythonRSASigner

from tests.support.fakephone.apk import Apk, InvalidApk
from tests.support.fakephone.daemon import Owner
from tests.support.fakephone.folders import Folders
from tests.support.fakephone.package_manager import InstallFailed
from tests.support.fakephone.packets import (
    MAX_PAYLOAD_BYTES,
    VERSION_MIN,
    Command,
    Packet,
    Terms,
    receive_packet,
)
from tests.support.waiting import until

GREETING = Packet(Command.CNXN, VERSION_MIN, MAX_PAYLOAD_BYTES, b"host::features=shell_v2\0")


@pytest.fixture
def signer(tmp_path):
    keygen(str(tmp_path / "key"))
    return PythonRSASigner.FromRSAKeyPath(str(tmp_path / "key"))


@pytest.fixture
def bare(fake_phone):
    """A connection whose messages the test makes by hand; the phone's violations are the test's to expect."""
    with socket.create_connection(("127.0.0.1", fake_phone.cable.port), 10) as sock:
        yield Bare(sock, fake_phone)
    fake_phone.daemon.violations.clear()


class Bare:
    def __init__(self, sock, phone):
        self.sock = sock
        self.phone = phone

    def send(self, packet):
        self.sock.sendall(packet.encode(checksum=True))

    def receive(self):
        return receive_packet(self.sock, Terms(MAX_PAYLOAD_BYTES))

    def log_in(self, signer):
        """Greets and has the phone's owner allow a key. Answers the phone's greeting."""
        self.send(GREETING)
        assert self.receive().command is Command.AUTH
        self.send(Packet(Command.AUTH, 3, 0, signer.GetPublicKey().encode() + b"\0"))
        return self.receive()

    def ended_for(self, why):
        """The phone has ended the connection, and says why."""
        assert self.sock.recv(1) == b""
        assert why in self.phone.daemon.violations[-1]
        return True


class TestAuthorization:
    def test_nobody_enters_whom_the_owner_ignores(self, adb, fake_phone):
        fake_phone.daemon.owner = Owner.IGNORES
        with adb.connected(fake_phone.serial, "unauthorized"):
            assert b"unauthorized" in adb.run("shell", "true", serial=fake_phone.serial).stderr
            fake_phone.daemon.owner = Owner.ALLOWS
            until(lambda: adb.state(fake_phone.serial).startswith("device"))

    def test_a_known_key_is_not_asked_about_again(self, fake_phone, signer):
        for owner in (Owner.ALLOWS, Owner.IGNORES):
            fake_phone.daemon.owner = owner
            device = AdbDeviceTcp("127.0.0.1", fake_phone.cable.port, default_transport_timeout_s=300)
            assert device.connect(rsa_keys=[signer], auth_timeout_s=300)
            device.close()

    def test_a_signature_of_another_token_is_worth_nothing(self, bare, signer):
        assert bare.log_in(signer).command is Command.CNXN
        with socket.create_connection(("127.0.0.1", bare.phone.cable.port), 10) as sock:
            again = Bare(sock, bare.phone)
            again.send(GREETING)
            first = again.receive().data
            again.send(Packet(Command.AUTH, 2, 0, signer.Sign(os.urandom(20))))
            second = again.receive()
            assert second.command is Command.AUTH
            assert second.data != first
            again.send(Packet(Command.AUTH, 2, 0, signer.Sign(first)))
            third = again.receive()
            assert third.command is Command.AUTH
            again.send(Packet(Command.AUTH, 2, 0, signer.Sign(third.data)))
            assert again.receive().command is Command.CNXN

    def test_revoked(self, bare, signer):
        bare.log_in(signer)
        bare.phone.daemon.forget_keys()
        with socket.create_connection(("127.0.0.1", bare.phone.cable.port), 10) as sock:
            again = Bare(sock, bare.phone)
            again.send(GREETING)
            again.send(Packet(Command.AUTH, 2, 0, signer.Sign(again.receive().data)))
            assert again.receive().command is Command.AUTH


class TestViolations:
    """Each ends the connection and is remembered, so that no test of a client passes with it."""

    def test_open_before_authorization(self, bare):
        bare.send(GREETING)
        bare.receive()
        bare.send(Packet(Command.OPEN, 1, 0, b"shell:true\0"))
        assert bare.ended_for("OPEN before")

    def test_wrong_magic(self, bare):
        bare.sock.sendall(struct.pack("<6I", Command.CNXN, VERSION_MIN, 4096, 0, 0, 7))
        assert bare.ended_for("magic")

    def test_unknown_command(self, bare):
        bare.sock.sendall(struct.pack("<6I", 1, 0, 0, 0, 0, 1 ^ 0xFFFFFFFF))
        assert bare.ended_for("unknown command")

    def test_wrong_checksum(self, bare):
        message = bytearray(GREETING.encode(checksum=True))
        message[-2] ^= 1
        bare.sock.sendall(message)
        assert bare.ended_for("checksum")

    def test_too_long(self, bare):
        size = MAX_PAYLOAD_BYTES + 1
        magic = Command.CNXN ^ 0xFFFFFFFF
        bare.sock.sendall(struct.pack("<6I", Command.CNXN, VERSION_MIN, 4096, size, 0, magic))
        assert bare.ended_for("over the agreed")

    def test_key_that_is_none(self, bare):
        bare.send(GREETING)
        bare.receive()
        bare.send(Packet(Command.AUTH, 3, 0, b"QUJD owner\0"))
        assert bare.ended_for("public key")

    def test_writing_on_without_waiting(self, bare, signer):
        bare.log_in(signer)
        bare.send(Packet(Command.OPEN, 1, 0, b"shell:sleep 60\0"))
        stream = bare.receive().arg0
        # stdin's pipe takes 64 KiB; after that nothing is taken, so nothing is answered.
        part = Packet(Command.WRTE, 1, stream, bytes(512 * 1024))
        bare.send(part)
        assert bare.receive().command is Command.OKAY
        bare.send(part)
        bare.send(part)
        assert bare.ended_for("WRTE before the OKAY")

    def test_stream_that_never_was(self, bare, signer):
        bare.log_in(signer)
        bare.send(Packet(Command.WRTE, 1, 99, b"x"))
        assert bare.ended_for("never was")


class TestStreams:
    def test_unknown_service_is_closed(self, bare, signer):
        bare.log_in(signer)
        for service in (b"reverse:list-forward\0", b"tcp:5000\0", b"tcp:x\0", b"reboot:\0"):
            bare.send(Packet(Command.OPEN, 5, 0, service))
            answer = bare.receive()
            assert (answer.command, answer.arg0, answer.arg1) == (Command.CLSE, 0, 5)

    def test_nothing_more_until_the_last_was_taken(self, bare, signer):
        bare.log_in(signer)
        bare.send(Packet(Command.OPEN, 1, 0, b"shell:echo one; sleep 0.2; echo two\0"))
        stream = bare.receive().arg0
        assert bare.receive().data == b"one\n"
        bare.sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            bare.receive()
        bare.sock.settimeout(10)
        bare.send(Packet(Command.OKAY, 1, stream))
        assert bare.receive().data == b"two\n"

    def test_payloads_are_as_small_as_the_client_wants(self, bare, signer):
        bare.send(Packet(Command.CNXN, VERSION_MIN, 100, b"host::\0"))
        bare.receive()
        bare.send(Packet(Command.AUTH, 3, 0, signer.GetPublicKey().encode() + b"\0"))
        bare.receive()
        bare.send(Packet(Command.OPEN, 1, 0, b"shell:printf %250s x\0"))
        stream = bare.receive().arg0
        sizes = []
        while (packet := bare.receive()).command is Command.WRTE:
            sizes.append(len(packet.data))
            bare.send(Packet(Command.OKAY, 1, stream))
        assert sizes == [100, 100, 50]

    def test_a_command_ends_with_its_client(self, bare, signer):
        bare.log_in(signer)
        pid_file = bare.phone.folders.local("/data/local/tmp/pid")
        bare.send(Packet(Command.OPEN, 1, 0, b"shell:echo $$ > /data/local/tmp/pid; sleep 60\0"))
        stream = bare.receive().arg0
        until(lambda: pid_file.exists() and pid_file.read_text().strip())
        process = Path("/proc") / pid_file.read_text().strip()
        assert process.exists()
        bare.send(Packet(Command.CLSE, 1, stream))
        until(lambda: not process.exists())


class TestFaults:
    def test_bytes_in_single_pieces(self, adb, fake_phone):
        fake_phone.cable.piece_bytes = 1
        with adb.connected(fake_phone.serial):
            assert adb.run("shell", "printf %2000s x", serial=fake_phone.serial).stdout == b" " * 1999 + b"x"

    def test_small_payloads(self, adb, fake_phone, tmp_path):
        fake_phone.daemon.max_payload = 4096
        (tmp_path / "file").write_bytes(os.urandom(100_000))
        with adb.connected(fake_phone.serial):
            assert (
                adb.run("push", str(tmp_path / "file"), "/sdcard/file", serial=fake_phone.serial).returncode
                == 0
            )
            assert fake_phone.folders.local("/sdcard/file").read_bytes() == (tmp_path / "file").read_bytes()

    def test_storage_full(self, adb, fake_phone, tmp_path):
        fake_phone.state.free_bytes = 1000
        (tmp_path / "file").write_bytes(bytes(100_000))
        with adb.connected(fake_phone.serial):
            done = adb.run("push", str(tmp_path / "file"), "/data/local/tmp/file", serial=fake_phone.serial)
            assert done.returncode != 0
            assert b"No space left on device" in done.stdout + done.stderr
            assert not fake_phone.folders.local("/data/local/tmp/file").exists()

    def test_cable_falls_out_after_so_many_bytes(self, fake_phone):
        fake_phone.cable.bytes_left = 1000
        address = ("127.0.0.1", fake_phone.cable.port)
        with socket.create_connection(address, 10) as sock, pytest.raises(OSError):
            for _ in range(1000):
                sock.sendall(GREETING.encode(checksum=True))
                sock.recv(1000)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, 10)

    def test_a_pulled_cable_keeps_its_port(self, fake_phone):
        port = fake_phone.cable.port
        for _ in range(3):
            fake_phone.pull_cable()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), 10)
            with socket.socket() as other, pytest.raises(OSError, match="in use"):
                other.bind(("127.0.0.1", port))
            fake_phone.plug_in()
            socket.create_connection(("127.0.0.1", port), 10).close()
        assert fake_phone.cable.port == port


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to act as somebody else")
def test_other_users_do_not_get_through(fake_phone):
    """Behind the cable is a shell of whoever runs the tests."""
    knock = (
        "import socket, sys; s = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); print(s.recv(1))"
    )
    command = [sys.executable, "-IS", "-c", knock, str(fake_phone.cable.port)]
    done = subprocess.run(["setpriv", "--reuid", "65534", *command], capture_output=True, text=True)
    assert done.stdout == "b''\n", done.stderr


class TestFolders:
    @pytest.mark.parametrize(
        "path", ["/etc/passwd", "/data/../etc/passwd", "data/x", "/", "/sdcard/../../x", "/database"]
    )
    def test_nothing_but_its_own(self, tmp_path, path):
        with pytest.raises(PermissionError):
            Folders(tmp_path).local(path)

    def test_no_way_out_by_links(self, tmp_path):
        folders = Folders(tmp_path)
        folders.create()
        (tmp_path / "data/out").symlink_to("/etc")
        with pytest.raises(PermissionError):
            folders.local("/data/out/passwd")

    def test_commands_name_its_own_paths(self, tmp_path):
        folders = Folders(Path("/home/phone"))
        assert folders.translate("rm -f /data/local/tmp/x '/sdcard'") == (
            "rm -f /home/phone/data/local/tmp/x '/home/phone/sdcard'"
        )
        unchanged = "cat /database /mnt/data/x a/data/b content://data/x"
        assert folders.translate(unchanged) == unchanged


class TestPackages:
    def test_reads_what_aapt_wrote(self, make_apk):
        read = Apk.read(make_apk(version_code=12, debuggable=True))
        assert read == Apk("dev.blocktime.bench", 12, "0.12", debuggable=True)

    @pytest.mark.parametrize("seed", range(3))
    def test_damaged_manifests_are_refused(self, make_apk, tmp_path, seed):
        """Nothing but InvalidApk or a manifest that still reads."""
        with zipfile.ZipFile(make_apk()) as archive:
            manifest = archive.read("AndroidManifest.xml")
        draw = random.Random(seed)
        for _ in range(50):
            damaged = bytearray(manifest)
            for _ in range(8):
                damaged[draw.randrange(len(damaged))] = draw.randrange(256)
            with zipfile.ZipFile(tmp_path / "x.apk", "w") as archive:
                archive.writestr("AndroidManifest.xml", bytes(damaged[: draw.randrange(len(damaged))]))
            with contextlib.suppress(InvalidApk):
                Apk.read(tmp_path / "x.apk")

    def test_no_apk(self, fake_phone, tmp_path):
        (tmp_path / "x.apk").write_bytes(b"no zip")
        with pytest.raises(InstallFailed, match="INSTALL_PARSE_FAILED_NOT_APK"):
            fake_phone.packages.install(tmp_path / "x.apk")

    def test_upgrade_and_downgrade(self, fake_phone, make_apk):
        fake_phone.packages.install(make_apk(version_code=2))
        fake_phone.packages.install(make_apk(version_code=3))
        with pytest.raises(InstallFailed, match="INSTALL_FAILED_VERSION_DOWNGRADE"):
            fake_phone.packages.install(make_apk(version_code=1))
        assert fake_phone.state.packages["dev.blocktime.bench"].apk.version_code == 3

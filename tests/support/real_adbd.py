"""Checks of our links to a real adb daemon, run as `unshare --net --pid … python -m tests.support.real_adbd ADBD`.

The daemon gives a root shell to everybody who connects, so it must run in a network namespace of its own; vsock,
which namespaces do not confine, is denied to it.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import platform
import shutil
import socket
import subprocess
import sys
import threading
import time
from functools import cache
from pathlib import Path

from orchestrator.agent.agent import LOOPBACK, PHONE_PORT
from orchestrator.devices.android.direct import DirectLink
from orchestrator.devices.android.link import AdbLink, ServiceRefusedError
from orchestrator.devices.android.phones import list_phones, open_link
from orchestrator.devices.android.server import AdbServer, ServerLink, running_server

ROOT = Path(__file__).resolve().parents[2]
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

# Local adb servers take ports 5555 to 5585 for emulators.
_PORT = 15557
_ADDRESS = f"{LOOPBACK}:{_PORT}"
_SOCKET_SYSCALL = {"x86_64": 41, "aarch64": 198}
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06


@cache
def missing() -> str:
    """Return why the daemon can't run in a namespace of its own here, or an empty string."""
    if not ADBD.is_file():
        return f"no {ADBD.relative_to(ROOT)}: run tools/toolchains/swift.sh"
    if not all(map(shutil.which, ("setpriv", "unshare", "ip"))):
        return "needs util-linux and iproute2: run tools/toolchains/phones.sh"
    probe = subprocess.run([*NAMESPACES, "true"], capture_output=True, text=True, check=False)
    return f"namespaces cannot be created here: {probe.stderr.strip()}" if probe.returncode else ""


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.c_char_p))


def deny_vsock() -> None:
    """Make socket(AF_VSOCK) fail in this process and its children."""
    instructions = (
        (_LOAD, 0, 0, 0),  # seccomp_data.nr
        (_JUMP_IF_EQUAL, 0, 3, _SOCKET_SYSCALL[platform.machine()]),
        (_LOAD, 0, 0, 16),  # the low half of seccomp_data.args[0]
        (_JUMP_IF_EQUAL, 0, 1, socket.AF_VSOCK),
        (_RETURN, 0, 0, _ERRNO | errno.EAFNOSUPPORT),
        (_RETURN, 0, 0, _ALLOW),
    )
    code = b"".join(
        operation.to_bytes(2, "little") + bytes([if_true, if_false]) + value.to_bytes(4, "little")
        for operation, if_true, if_false, value in instructions
    )
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    program = _Program(len(instructions), code)
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")


def check(link: AdbLink) -> None:
    """Check shell, streams and ports."""
    result = link.shell("echo out; echo err >&2; exit 7")
    assert (result.output, result.exit_code) == (b"out\nerr\n", 7)
    assert link.shell('read -r t && printf %s "$t" | wc -c', b"0123456789\n").text == "10"
    data = os.urandom(5_000_000)
    result = link.shell(f"head -c {len(data)} | sha256sum", data)
    assert result.text.split()[0] == hashlib.sha256(data).hexdigest()
    assert len(link.shell("head -c 3000000 /dev/zero").output) == 3_000_000
    assert link.shell("exit 3", data).exit_code == 3, "a command that does not read its input"
    try:
        link.open_service(f"tcp:{PHONE_PORT}")
    except ServiceRefusedError:
        pass
    else:
        raise AssertionError("nothing listens on the port")
    check_echo(link)


def check_echo(link: AdbLink) -> None:
    """Send and receive at once through a port of the phone."""
    with socket.create_server((LOOPBACK, PHONE_PORT)) as listener:

        def echo() -> None:
            client, _ = listener.accept()
            while chunk := client.recv(1 << 16):
                client.sendall(chunk)

        threading.Thread(target=echo, daemon=True).start()
        data, received = os.urandom(2_000_000), b""
        with link.open_service(f"tcp:{PHONE_PORT}") as sock:
            sending = threading.Thread(target=sock.sendall, args=[data])
            sending.start()
            while len(received) < len(data):
                received += sock.recv(1 << 16)
            sending.join()
    assert received == data


def main(adbd: str) -> None:
    """Start the daemon, and check both ways to it: an adb server started here, and none."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    deny_vsock()
    daemon = subprocess.Popen([adbd], env={**os.environ, "ADBD_PORT": str(_PORT)})
    deadline_s = time.monotonic() + 60
    while not AdbServer(LOOPBACK, _PORT).answers():
        assert time.monotonic() < deadline_s, "adbd does not listen"
        time.sleep(0.05)
    server = running_server()
    if server is not None:
        assert [(phone.serial, phone.transport) for phone in list_phones([_ADDRESS])] == [
            (_ADDRESS, "server")
        ]
        link = open_link(_ADDRESS)
        assert isinstance(link, ServerLink)
        check(link)
        server._client().server_kill()
    os.environ["ADBUTILS_ADB_PATH"] = "/nonexistent/adb"
    assert [(phone.serial, phone.transport) for phone in list_phones([_ADDRESS])] == [(_ADDRESS, "tcp")]
    link = open_link(_ADDRESS)
    assert isinstance(link, DirectLink)
    check(link)
    daemon.kill()
    print("checked", "both" if server else "directly")


if __name__ == "__main__":
    main(sys.argv[1])

"""The phone with Debian's adbd is confined: its shell, its files and its network are its own."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from adb_shell.adb_device import AdbDeviceTcp


@pytest.fixture
def device(adbd_phone):
    device = AdbDeviceTcp("127.0.0.1", adbd_phone.cable.port, default_transport_timeout_s=10)
    device.connect()
    yield device
    device.close()


def test_its_data_is_private(adbd_phone, device):
    device.shell("echo here > /data/local/tmp/mark")
    assert adbd_phone.folders.local("/data/local/tmp/mark").read_text() == "here\n"
    assert not Path("/data/local/tmp/mark").exists()


def test_its_network_is_a_loopback_alone(device):
    links = device.shell("ip -o link").strip().splitlines()
    assert len(links) == 1
    assert " lo:" in links[0]


def test_its_shell_cannot_be_reached_by_vsock(device):
    """Network namespaces do not confine vsock, and adbd would listen on it."""
    attempt = "import socket; socket.socket(socket.AF_VSOCK)"
    assert "Address family not supported" in device.shell(f"{sys.executable} -IS -c '{attempt}' 2>&1")
    tcp = "import socket; socket.socket(); print(1)"
    assert device.shell(f"{sys.executable} -IS -c '{tcp}' 2>&1") == "1\n"


def test_nothing_listens_here(adbd_phone):
    """adbd's own port is in the namespace alone."""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", 15557), 5)


def test_everything_ends_with_it(adbd_phone, device):
    device.shell("nohup sleep 1000 >/dev/null 2>&1 & echo")
    namespace = Path(f"/proc/{adbd_phone.adbd.pid}/ns/net").readlink()
    assert processes_in(namespace)
    adbd_phone.adbd.close()
    give_up_s = time.monotonic() + 20
    while processes_in(namespace):
        assert time.monotonic() < give_up_s
        time.sleep(0.02)


def test_ends_when_its_starter_is_killed(adbd_phone, tmp_path):
    """Even by SIGKILL, which leaves no time to clean up."""
    here = Path(__file__).parent
    script = (
        "import sys, time; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from fakephone.adbd_phone import Adbd; from fakephone.phone import new_home\n"
        "home = new_home(); adbd = Adbd(Path(sys.argv[2]), home); adbd.await_listening()\n"
        "print(adbd.pid, home, flush=True); time.sleep(1000)\n"
    )
    program = adbd_phone.adbd.program
    starter = subprocess.Popen(
        [sys.executable, "-c", script, here, program], stdout=subprocess.PIPE, text=True
    )
    assert starter.stdout is not None
    pid, home = starter.stdout.readline().split()
    namespace = Path(f"/proc/{pid}/ns/net").readlink()
    starter.kill()
    starter.wait()
    starter.stdout.close()
    give_up_s = time.monotonic() + 20
    while processes_in(namespace):
        assert time.monotonic() < give_up_s
        time.sleep(0.02)
    subprocess.run(["rm", "-r", home], check=True)


def processes_in(namespace):
    """The processes in a network namespace."""
    found = []
    for link in Path("/proc").glob("[0-9]*/ns/net"):
        try:
            if link.readlink() == namespace:
                found.append(link.parts[2])
        except OSError:
            continue
    return found

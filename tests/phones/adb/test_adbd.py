"""The phone with Debian's adbd is confined: its shell, its files and its network are its own."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from adb_shell.adb_device import AdbDeviceTcp

from tests.support.waiting import until

ROOT = Path(__file__).parents[3]


@pytest.fixture
def device(adbd_phone):
    device = AdbDeviceTcp("127.0.0.1", adbd_phone.cable.port, default_transport_timeout_s=300)
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


def test_it_listens_in_its_namespace_alone(open_phone):
    """A port that is taken here is free for adbd, and who connects to it here does not reach adbd."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with open_phone("adbd", adbd_port=port) as phone:
            phone.adbd.dial().close()
            with socket.create_connection(("127.0.0.1", port), 5) as sock:
                accepted, address = taken.accept()
                accepted.close()
                assert address == sock.getsockname()


def test_everything_ends_with_it(adbd_phone, device):
    device.shell("nohup sleep 1000 >/dev/null 2>&1 & echo")
    namespace = Path(f"/proc/{adbd_phone.adbd.pid}/ns/net").readlink()
    assert processes_in(namespace)
    adbd_phone.adbd.close()
    until(lambda: not processes_in(namespace))


def test_ends_when_its_starter_is_killed(adbd_phone, tmp_path):
    """Even by SIGKILL, which leaves no time to clean up."""
    script = (
        "import sys, time; from pathlib import Path\n"
        "from tests.support.fakephone.adbd_phone import Adbd; from tests.support.fakephone.phone import new_home\n"
        "home = new_home(); adbd = Adbd(Path(sys.argv[1]), home); adbd.await_listening()\n"
        "print(adbd.pid, home, flush=True); time.sleep(1000)\n"
    )
    program = adbd_phone.adbd.program
    starter = subprocess.Popen(
        [sys.executable, "-c", script, program], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert starter.stdout is not None
    pid, home = starter.stdout.readline().split()
    namespace = Path(f"/proc/{pid}/ns/net").readlink()
    starter.kill()
    starter.wait()
    starter.stdout.close()
    until(lambda: not processes_in(namespace))
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

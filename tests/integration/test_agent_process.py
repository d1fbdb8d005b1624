"""The host agent as a process of its own, with ExecuTorch and a real model."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from orchestrator.agent.agent import LOOPBACK
from orchestrator.cli.main import exit_code
from orchestrator.devices.host import HostDevice
from orchestrator.wire.client import AgentClient
from orchestrator.wire.errors import AgentError, AgentLostError, DeviceError
from tests.support.errors import raises
from tests.support.tiny_model import Exported
from tests.support.waiting import has_ended, until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostDevice]:
    folder = tmp_path_factory.mktemp("agent")
    with HostDevice(store_dir=folder / "store", log_path=folder / "agent.log") as host:
        yield host


@pytest.fixture
def client(device: HostDevice) -> Iterator[AgentClient]:
    with device.connect() as connected:
        yield connected


def damaged(folder: Path, name: str, data: bytes) -> tuple[Path, str]:
    path = folder / name
    path.write_bytes(data)
    return path, hashlib.sha256(data).hexdigest()


def load_outcome(client: AgentClient, sha256: str) -> str:
    """`loaded`, the code of the agent's refusal, or what the client says of an agent that died of it."""
    try:
        client.load(sha256, "executorch")
    except AgentError as error:
        return error.code
    except AgentLostError as error:
        return str(error)
    return "loaded"


def test_client_needs_no_runtime() -> None:
    code = "import sys; import orchestrator.devices.discover; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_flipped_bits_never_hang_and_a_dead_agent_is_named(
    device: HostDevice, exported: Exported, tmp_path: Path
) -> None:
    """ExecuTorch may refuse, run or crash on such a file; each must be told, and the next load must work."""
    data = exported.path.read_bytes()
    rng = np.random.default_rng(7)
    for number in range(12):
        flipped = bytearray(data)
        for position in rng.integers(0, len(data), 8):
            flipped[position] ^= 1 << int(rng.integers(8))
        path, sha256 = damaged(tmp_path, f"flipped{number}.pte", bytes(flipped))
        client = device.connect()
        client.ensure(path)
        outcome = load_outcome(client, sha256)
        assert outcome in ("loaded", "bad_model", "out_of_memory") or f"flipped{number}.pte" in outcome
        client.close()
    with device.connect() as client:
        client.ensure(exported.path)
        client.load(exported.sha256, "executorch")


def test_model_that_does_not_fit_into_memory_is_refused_before_loading(
    client: AgentClient, exported: Exported, tmp_path: Path
) -> None:
    """The planned activations, an int64 in the file, are made 2^50 bytes."""
    from orchestrator.agent.runtime import read_pte

    planned_bytes = read_pte(exported.path).planned_bytes
    data = exported.path.read_bytes()
    assert data.count(planned_bytes.to_bytes(8, "little")) == 1
    huge = data.replace(planned_bytes.to_bytes(8, "little"), (1 << 50).to_bytes(8, "little"))
    path, sha256 = damaged(tmp_path, "huge.pte", huge)
    client.ensure(path)
    with raises("out_of_memory"):
        client.load(sha256, "executorch")


def test_killed_agent_is_lost_and_started_again(device: HostDevice, exported: Exported) -> None:
    client = device.connect()
    client.ensure(exported.path)
    model = client.load(exported.sha256, "executorch", {"threads": 1})
    killed = device.agent_pid
    assert killed is not None
    timer = threading.Timer(0.3, os.kill, (killed, signal.SIGKILL))
    with pytest.raises(AgentLostError, match=r"lost while timing tiny\.pte") as lost:
        timer.start()
        until(lambda: not client.run([model.handle], [[0] * 1000] * 100))
    timer.join()
    assert exit_code(lost.value) == 3
    with device.connect() as again:
        assert device.agent_pid != killed
        assert again.ensure(exported.path) is False


def test_agent_ends_with_its_device(tmp_path: Path) -> None:
    with HostDevice(store_dir=tmp_path / "store", log_path=tmp_path / "log") as host:
        host.connect().close()
        pid = host.agent_pid
        assert pid is not None
    assert host.agent_pid is None
    assert not psutil.pid_exists(pid)


def test_agent_does_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    code = f"""
import time
from pathlib import Path
from orchestrator.devices.host import HostDevice
host = HostDevice(store_dir=Path({str(tmp_path)!r}) / "store", log_path=Path({str(tmp_path)!r}) / "log")
host.connect()
print(host.agent_pid, flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT)
    assert parent.stdout is not None
    agent_pid = int(parent.stdout.readline())
    assert psutil.pid_exists(agent_pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until(lambda: has_ended(agent_pid))


def test_port_in_use_is_reported(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        host = HostDevice(store_dir=tmp_path / "store", port=port, log_path=tmp_path / "log")
        with (
            host,
            pytest.raises(DeviceError, match=f"died at its start: port {port} is in use; choose another"),
        ):
            host.connect()

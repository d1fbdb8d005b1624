"""Every agent as a program: its options, its end, a full disk and a crash of the runtime."""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from orchestrator.agent.programs import AgentProgram, agent_program
from orchestrator.devices.host import HostDevice
from orchestrator.wire.errors import AgentLostError
from tests.support.agent_programs import (
    BUILT,
    ROOT,
    digest,
    put,
    require_built,
    started,
)
from tests.support.tiny_model import Exported


@pytest.mark.parametrize("language", BUILT)
def test_stands_for_a_configured_phone(language: str, tmp_path: Path) -> None:
    require_built(language)
    options = ("--simulate", "Pixel 8")
    allowed = "debuggable_build,low_battery"
    with (
        started(agent_program(language), tmp_path / "store", *options, BLOCKTIME_ALLOW=allowed) as agent,
        agent.greeted() as client,
    ):
        hello = client.hello()
        assert (hello.device.model, hello.device.simulated) == ("Pixel 8", True)
        assert hello.agent.name == f"blocktime-{language}"
        assert client.state().caveats == []


@pytest.mark.parametrize("program", ["python", *BUILT], indirect=True)
def test_a_full_disk_leaves_nothing_behind(program: AgentProgram, tmp_path: Path) -> None:
    """A limit on the size of files stands for the end of the space."""

    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    large = b"x" * 300_000
    with started(program, tmp_path / "store", preexec=limit_files) as agent, agent.raw() as raw:
        assert raw.code({"id": 1, "op": "put", "sha256": digest(large)}, large) == "storage_full"
        assert list(agent.store.iterdir()) == []
        put(raw, b"small")
    assert agent.process.returncode == 0


def crash_process(pid: int) -> None:
    """Again and again: the handler of a crash may return to code that has none, and go on."""
    process = os.pidfd_open(pid)
    try:
        for _ in range(100):
            signal.pidfd_send_signal(process, signal.SIGSEGV)
            if select.select([process], [], [], 0.2)[0]:
                return
    finally:
        os.close(process)


def test_foreground_agent_restarts_after_a_crash(
    program: AgentProgram, tmp_path: Path, exported: Exported
) -> None:
    """A crash in native code can't be caught. The client names the models that were in hand; the store is kept."""
    with HostDevice(program, store_dir=tmp_path / "store", log_path=tmp_path / "log") as device:
        client = device.connect()
        client.ensure(exported.path)
        model = client.load(exported.sha256, "executorch", {"threads": 1})
        crashed = device.agent_pid
        assert crashed is not None
        crash = threading.Timer(0.2, crash_process, args=(crashed,))
        crash.start()
        until = time.monotonic() + 300
        with pytest.raises(AgentLostError, match=r"lost while timing tiny\.pte"):
            while time.monotonic() < until:
                client.run([model.handle], [[0] * 1000] * 10)
        crash.join()
        with device.connect() as again:
            assert device.agent_pid not in (None, crashed)
            assert again.ensure(exported.path) is False
            again.load(exported.sha256, "executorch", {"threads": 1})


@pytest.mark.parametrize("language", BUILT)
@pytest.mark.parametrize(
    ("options", "word"),
    [
        ((), "--store"),
        (("--store", "s", "--nosuch"), "--nosuch"),
        (("--store", "s", "--port", "x"), "--port"),
    ],
)
def test_bad_options_are_reported(language: str, options: tuple[str, ...], word: str, tmp_path: Path) -> None:
    done = launched(language, tmp_path, *options, token="x")
    assert (done.returncode, done.stdout) == (2, "")
    assert word in done.stderr


@pytest.mark.parametrize("language", BUILT)
def test_missing_token_and_used_port(language: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        store = ("--store", str(tmp_path / "s"))
        done = launched(language, tmp_path, *store, "--port", str(port), token="x")
        assert (done.returncode, done.stdout) == (3, "")
        assert f"port {port} is in use" in done.stderr
    done = launched(language, tmp_path, *store, token="")
    assert (done.returncode, done.stdout) == (2, "")
    assert "BLOCKTIME_TOKEN" in done.stderr


def launched(language: str, folder: Path, *options: str, token: str) -> subprocess.CompletedProcess[str]:
    """An agent that is expected to end at once."""
    require_built(language)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "BLOCKTIME_TOKEN": token}
    command = [*agent_program(language).command, *options]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )

"""A damaged model that crashes ExecuTorch inside every agent: it costs its batch, and is named."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.agent.agent import LOOPBACK, TOKEN_VARIABLE
from orchestrator.agent.programs import AgentProgram
from orchestrator.devices.host import HostDevice
from orchestrator.export.artifacts.spec import Variant
from orchestrator.measure.engine import EngineOptions, ModelSet
from orchestrator.measure.session import measure
from orchestrator.plan.plan import Policy
from orchestrator.wire.client import AgentClient, ModelFile, file_digest
from orchestrator.wire.errors import AgentLostError
from tests.support.agent_programs import PROGRAMS, ROOT, require_built
from tests.support.bench import BENCH
from tests.support.native_mutants import mutate
from tests.support.slow import mostly_slow
from tests.support.tiny_model import Exported

# One flipped bit, which XNNPACK follows into memory that there is not; the others where this one is refused.
SEEDS = (1961, *range(20_000))

POLICY = Policy(batch_models=4, min_rounds=10, max_rounds=10, min_passes=1, max_passes=1, cooling_s=0.0)


@pytest.fixture(scope="module")
def deadly(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mutant of the small model that crashes who loads it."""
    require_built("python")
    folder = tmp_path_factory.mktemp("deadly")
    for seed in SEEDS:
        command: list[str | Path] = [
            sys.executable,
            "-m",
            "tests.support.native_mutants",
            exported.path,
            ROOT / "build/native",
        ]
        command += [folder / "tried.pte", str(seed), str(seed + 1)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
        if done.stdout.split()[-1] == "load" and done.returncode < 0:
            path = folder / "deadly.pte"
            path.write_bytes(mutate(exported.path.read_bytes(), seed))
            return path
    raise AssertionError("no mutant crashes ExecuTorch")


@pytest.mark.parametrize("program", mostly_slow(PROGRAMS, kept=["python", "kotlin"]), indirect=True)
def test_crashing_model_is_excluded(
    program: AgentProgram, tmp_path: Path, exported: Exported, deadly: Path
) -> None:
    paths = {"reference": exported.path, "deadly": deadly, "good": exported.path}
    files = {name: ModelFile(path, file_digest(path)) for name, path in paths.items()}
    messages: list[str] = []
    with HostDevice(program, store_dir=tmp_path / "store", log_path=tmp_path / "log") as device:
        result = measure(
            device,
            Variant("executorch", "xnnpack", "fp32", 1),
            ModelSet(files, "reference", "0" * 64, seed=1),
            tmp_path / "journal.jsonl",
            POLICY,
            EngineOptions(budget_s=600.0, progress=lambda message, *_: messages.append(message)),
        )
    assert set(result.failures) == {"deadly"}
    assert result.failures["deadly"] == "the agent crashed or hung 2 times out of 2 that it ran alone"
    assert set(result.estimates.ratios) == {"reference", "good"}
    assert "the agent crashed or hung while loading deadly: trying that model alone" in messages
    # At first, and after each death: one in the batch, two alone.
    assert device.agent_starts == 4


def test_foreground_agent_restarts(tmp_path: Path, exported: Exported, deadly: Path) -> None:
    """For the next client, on the same port, whoever sent the model."""
    environment = os.environ | {TOKEN_VARIABLE: "secret", "PYTHONPATH": str(ROOT)}
    command = [str(BENCH), "agent", "--store", str(tmp_path / "store")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stderr is not None
        while "listening on port" not in (line := process.stderr.readline()):
            assert line, "bench agent ended"
        port = int(line.split()[-1])

        def client() -> AgentClient:
            sock = socket.create_connection((LOOPBACK, port), timeout=120)
            return AgentClient.greeted(sock, "secret", 120, "host")

        with client() as first:
            first.ensure(deadly)
            with pytest.raises(AgentLostError, match=r"lost while loading deadly\.pte"):
                first.load(file_digest(deadly), "executorch", {"threads": 1})
        with client() as second:
            second.ensure(exported.path)
            second.load(exported.sha256, "executorch", {"threads": 1})
        assert "a model crashed the agent (SIGSEGV)" in process.stderr.readline()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(300)

"""Latency in the Kotlin, Swift and Python agents against a bare C++ program, interleaved, in fresh processes."""

from __future__ import annotations

import json
import math
import random
import statistics
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from scipy import stats

from luts.format.provenance import ROOT
from orchestrator.agent.native import find_shim
from orchestrator.agent.programs import agent_program
from orchestrator.devices.host import HostDevice
from orchestrator.export.artifacts.spec import Variant
from orchestrator.measure.readiness import DeviceConnection
from orchestrator.tasks.models import export_all, files_of
from orchestrator.wire.client import ModelFile
from search.spaces import get_arch, get_space
from tools.tables import Interval, Tables, log

SESSIONS = 36
"""Sessions of fresh processes, half a minute each."""
ROUNDS = 6
VISITS = 6
WARMUP = 3
SETTLE_RUNS = 1
NETWORKS = 3
SMALL_LOADS = 8
LARGE_LOADS = 2
"""Fresh loads of a network in every process. Loads of a small network differ by 3 to 8 % with their memory,
which dominates its intervals; more invocations of each load would not narrow them."""
THREADS = 1
EXECUTE = "c++"
FORWARD = "c++ forward"
BASES = {"python": EXECUTE, "kotlin": FORWARD, "swift": EXECUTE}
"""Agents, each with its C++ call: ExecuTorch's Android interface sets the inputs within the timed call."""


class _Timer(Protocol):
    """Loads models and times invocations, each after a settle run."""

    def load(self, model: ModelFile) -> int: ...

    def unload(self, handle: int) -> None: ...

    def run(self, handles: Sequence[int]) -> np.ndarray:
        """Return nanoseconds (handles, VISITS), one handle after the other."""


@dataclass(frozen=True)
class SessionRatios:
    """A network in one session: by agent, the log ratio to its C++ call.

    It is the median over rounds of the mean over loads of the log of a turn's median invocation, minus the same of
    the C++ program in the same round. So disturbances longer than a round cancel out, and short ones do not count.
    """

    log_ratios: Mapping[str, float]
    base_ms: float


class _AgentTimer:
    """An agent behind the wire protocol."""

    def __init__(self, device: HostDevice):
        self._link = DeviceConnection(device, "executorch", {"threads": THREADS})

    def load(self, model: ModelFile) -> int:
        return self._link.load(model).handle

    def unload(self, handle: int) -> None:
        self._link.client.unload(handle)

    def run(self, handles: Sequence[int]) -> np.ndarray:
        order = [[index] * (SETTLE_RUNS + 1) for index in range(len(handles)) for _ in range(VISITS)]
        samples = self._link.client.run(handles, order, WARMUP).samples
        return samples[:, -1].reshape(len(handles), VISITS)


class _BareTimer:
    """build/native/etbench: ExecuTorch in a bare C++ program; `verb` is the command that is timed."""

    def __init__(self, process: subprocess.Popen[str], verb: str):
        self._process, self._verb = process, verb

    def load(self, model: ModelFile) -> int:
        return int(self._ask(f"load {model.path} {THREADS}")["handle"])

    def unload(self, handle: int) -> None:
        self._ask(f"unload {handle}")

    def run(self, handles: Sequence[int]) -> np.ndarray:
        runs = f"{VISITS * (SETTLE_RUNS + 1)} {WARMUP}"
        ns = [self._ask(f"{self._verb} {handle} {runs}")["ns"] for handle in handles]
        return np.array(ns)[:, SETTLE_RUNS :: SETTLE_RUNS + 1]

    def _ask(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(line, file=self._process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise RuntimeError(f"etbench, {line}: {answer['error']}")
        return answer


def main() -> Tables:
    """Compare latency in each agent with that in a bare C++ program, in sessions of fresh processes.

    A session's ratio is the median over its rounds, in which all programs take turns; 95 % intervals are over
    sessions. Kotlin is compared with a C++ program that sets the inputs within the call, as ExecuTorch's Android
    interface does.

    Raises:
        ShimMissingError: the Python agent would time through its binding.
    """
    find_shim()
    rng = random.Random(0)
    models, loads = _models(rng)
    found: dict[str, list[SessionRatios]] = {name: [] for name in loads}
    for session in range(SESSIONS):
        with _timers() as timers:
            for name in rng.sample(list(loads), len(loads)):
                found[name].append(_compare(timers, models[name], loads[name], rng))
        log(f"session {session + 1} of {SESSIONS}")
    rows = []
    for name, networks in [*((name, [each]) for name, each in found.items()), ("all", list(found.values()))]:
        base_ms = None if networks[1:] else statistics.median(each.base_ms for each in networks[0])
        ratios = {f"{agent} to C++": _over_sessions(networks, agent) for agent in BASES}
        rows.append({"network": name, "C++ ms": base_ms, **ratios})
    return {"Agents against a bare C++ program": rows}


def agreement(log_ratios: Sequence[float]) -> Interval:
    """Return the geometric mean with a t interval of log ratios, one per session: the unit of replication."""
    mean = statistics.fmean(log_ratios)
    half = stats.t.ppf(0.975, len(log_ratios) - 1) * statistics.stdev(log_ratios) / math.sqrt(len(log_ratios))
    return Interval(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


def _over_sessions(networks: Sequence[Sequence[SessionRatios]], agent: str) -> Interval:
    """Return the agreement over networks, each with the same weight in every session."""
    sessions = zip(*networks, strict=True)
    return agreement([statistics.fmean(each.log_ratios[agent] for each in session) for session in sessions])


def _models(rng: random.Random) -> tuple[dict[str, ModelFile], dict[str, int]]:
    """Return the networks, and how often each is loaded in a session."""
    nano = get_space("autovit-nano")
    archs = {f"nano {i + 1}": nano.sample(rng) for i in range(NETWORKS)}
    archs["autovit-xxs-paper"] = get_arch("autovit-xxs-paper")
    variant = Variant("executorch", "xnnpack", "", THREADS)
    artifacts = export_all({name: variant.export_spec(arch.keys()) for name, arch in archs.items()})
    loads = {name: SMALL_LOADS if _is_small(name) else LARGE_LOADS for name in archs}
    return files_of(artifacts), loads


def _is_small(name: str) -> bool:
    return name.startswith("nano")


@contextmanager
def _timers() -> Iterator[dict[str, _Timer]]:
    """Run all four programs within the context."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        timers: dict[str, _Timer] = {}
        for name, verb in ((EXECUTE, "run"), (FORWARD, "forward")):
            bare = subprocess.Popen(
                [ROOT / "build" / "native" / "etbench"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(bare.wait)
            assert bare.stdin is not None
            stack.callback(bare.stdin.close)
            timers[name] = _BareTimer(bare, verb)
        for agent in BASES:
            device = HostDevice(
                agent_program(agent), store_dir=folder / agent, log_path=folder / f"{agent}.log"
            )
            timers[agent] = _AgentTimer(stack.enter_context(device))
        yield timers


def _compare(timers: Mapping[str, _Timer], model: ModelFile, loads: int, rng: random.Random) -> SessionRatios:
    """Load the network in every program, and measure rounds in which all take turns."""
    handles: dict[str, list[int]] = {name: [] for name in timers}
    for _ in range(loads):
        for name in rng.sample(list(timers), len(timers)):
            handles[name].append(timers[name].load(model))
    rounds = [
        {name: _log_level(timers[name].run(handles[name])) for name in rng.sample(list(timers), len(timers))}
        for _ in range(ROUNDS)
    ]
    for name in timers:
        for handle in handles[name]:
            timers[name].unload(handle)
    log_ratios = {
        agent: statistics.median(levels[agent] - levels[base] for levels in rounds)
        for agent, base in BASES.items()
    }
    return SessionRatios(log_ratios, math.exp(statistics.median(levels[EXECUTE] for levels in rounds)) / 1e6)


def _log_level(ns: np.ndarray) -> float:
    """Return the mean over loads of the log of the median invocation of a turn (loads, invocations)."""
    return float(np.log(np.median(ns, axis=1)).mean())

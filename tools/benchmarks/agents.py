"""Do the Kotlin, Swift and Python agents time what a bare C++ program times? Interleaved, from fresh processes."""

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

SESSIONS = 36
"""Of fresh processes, in half a minute each."""
ROUNDS = 6
VISITS = 6
WARMUP = 3
SETTLE_RUNS = 1
NETWORKS = 3
SMALL_LOADS = 8
LARGE_LOADS = 2
"""Fresh loads of a network in every process. Loads of a small network differ by 3 to 8 %, by where their memory
lies, which is what its intervals come from; more visits of each would narrow nothing."""
THREADS = 1
EXECUTE = "c++"
FORWARD = "c++ forward"
BASES = {"python": EXECUTE, "kotlin": FORWARD, "swift": EXECUTE}
"""Agents, and the C++ call that is theirs: ExecuTorch's Android API sets the inputs within the timed call."""


class Timer(Protocol):
    """Something that loads models and times visits, each after a settle run."""

    def load(self, model: ModelFile) -> int: ...

    def unload(self, handle: int) -> None: ...

    def run(self, handles: Sequence[int]) -> np.ndarray:
        """Nanoseconds [handles, VISITS], one handle after the other."""


@dataclass(frozen=True)
class Compared:
    """A network in one session: by agent, the log ratio to its C++ call.

    That is the median over rounds of the mean over loads of the logarithm of a turn's median visit, less the same
    of the C++ program, whose turn was in the same round: what slows the machine for longer than a round drops out,
    and what slows a few visits or rounds does not count. Lower quartiles of a load's visits, which can't be paired
    within rounds, spread by more than twice as much.
    """

    log_ratios: Mapping[str, float]
    base_ms: float


class AgentTimer:
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


class BareTimer:
    """build/native/etbench: ExecuTorch under C++ with nothing else in the process. `verb`: what is timed."""

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


@dataclass(frozen=True)
class Agreement:
    """Latency of a network under an agent over that of its C++ call, with its 95 % interval over processes."""

    ratio: float
    low: float
    high: float


def main() -> str:
    """Time the same networks in all four programs, each session with processes of its own.

    Raises ShimMissingError where the Python agent would time through its binding.
    """
    find_shim()
    rng = random.Random(0)
    models, loads = _models(rng)
    found: dict[str, list[Compared]] = {name: [] for name in loads}
    for session in range(SESSIONS):
        with _timers() as timers:
            for name in rng.sample(list(loads), len(loads)):
                found[name].append(_compare(timers, models[name], loads[name], rng))
        print(f"session {session + 1} of {SESSIONS}", flush=True)
    return _section(found)


def agreement(log_ratios: Sequence[float]) -> Agreement:
    """Mean and t interval of log ratios, one a session: processes are the unit of replication here."""
    mean = statistics.fmean(log_ratios)
    half = stats.t.ppf(0.975, len(log_ratios) - 1) * statistics.stdev(log_ratios) / math.sqrt(len(log_ratios))
    return Agreement(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


def _models(rng: random.Random) -> tuple[dict[str, ModelFile], dict[str, int]]:
    """The networks, and how often each is loaded in a session."""
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
def _timers() -> Iterator[dict[str, Timer]]:
    """All four programs, started now and ended after."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        timers: dict[str, Timer] = {}
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
            timers[name] = BareTimer(bare, verb)
        for agent in BASES:
            device = HostDevice(
                agent_program(agent), store_dir=folder / agent, log_path=folder / f"{agent}.log"
            )
            timers[agent] = AgentTimer(stack.enter_context(device))
        yield timers


def _compare(timers: Mapping[str, Timer], model: ModelFile, loads: int, rng: random.Random) -> Compared:
    """Fresh loads in every program, and rounds in which all take turns."""
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
    return Compared(log_ratios, math.exp(statistics.median(levels[EXECUTE] for levels in rounds)) / 1e6)


def _log_level(ns: np.ndarray) -> float:
    """Of a turn, visits by loads: the mean over loads of the logarithm of the median visit."""
    return float(np.log(np.median(ns, axis=1)).mean())


def _section(found: Mapping[str, Sequence[Compared]]) -> str:
    rows = []
    for name, sessions in found.items():
        cells = [_cell(_agreement_of([sessions], agent)) for agent in BASES]
        rows.append(f"| {name} | {_base_ms(sessions):.3f} | " + " | ".join(cells) + " |")
    overall = [f"**{_cell(_agreement_of(list(found.values()), agent))}**" for agent in BASES]
    rows.append("| all | | " + " | ".join(overall) + " |")
    table = "\n".join(rows)
    return f"""## The same network in C++, Python, Kotlin and Swift

Latency in each agent over that in a bare C++ program, all on the same ExecuTorch runtime, XNNPACK fp32, {THREADS}
thread: {SESSIONS} sessions of fresh processes, in each {SMALL_LOADS} fresh loads of the small networks and
{LARGE_LOADS} of the large one, {ROUNDS} rounds in which all programs took turns in random order ({VISITS} timed
visits of every load a turn). Compared are turns of one round: the mean over loads of the logarithm of the median
visit. A session's ratio is the median over its rounds; 95 % intervals are over sessions.
The agents go through the wire protocol. The Python one executes and times through a C library, with no interpreter
between two readings of the clock ([native](../native/README.md)); Swift calls the same library. The Kotlin one, on
the JVM, goes through a stand-in of ExecuTorch's Android API over JNI. That API sets the inputs within the call, so
Kotlin is compared with a C++ program that times both, the others with one that times the execution alone. The
stand-in wraps inputs and outputs once and the real API in every call: what that costs on a phone is not in here.

| network | C++, ms | Python | Kotlin | Swift |
|---|---|---|---|---|
{table}

Over the networks of autovit-nano that is {_microseconds(found)} a call:
what the call costs beside the execution. It weighs most on networks this small.
"""


def _agreement_of(networks: Sequence[Sequence[Compared]], agent: str) -> Agreement:
    """Over networks, each with the same weight in every session."""
    return agreement(
        [
            statistics.fmean(compared.log_ratios[agent] for compared in session)
            for session in zip(*networks, strict=True)
        ]
    )


def _base_ms(sessions: Sequence[Compared]) -> float:
    return statistics.median(compared.base_ms for compared in sessions)


def _microseconds(found: Mapping[str, Sequence[Compared]]) -> str:
    """What each agent's call costs beside C++'s, in microseconds, on average over the small networks."""
    small = [sessions for name, sessions in found.items() if _is_small(name)]
    parts = []
    for agent in BASES:
        extra_ms = [(_agreement_of([sessions], agent).ratio - 1) * _base_ms(sessions) for sessions in small]
        parts.append(f"{1000 * statistics.fmean(extra_ms):+.1f} µs in {agent.capitalize()}")
    return ", ".join(parts)


def _cell(found: Agreement) -> str:
    return f"{found.ratio:.4f} ({found.low:.4f} to {found.high:.4f})"


if __name__ == "__main__":
    print(main())

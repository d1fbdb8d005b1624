"""Do the Kotlin, Swift and Python agents time what a bare C++ program times? Interleaved, from fresh processes."""

from __future__ import annotations

import json
import math
import random
import statistics
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from scipy import stats

from orchestrator.cli.exports import export_all
from orchestrator.devices.host import HostDevice
from orchestrator.devices.programs import ROOT, agent_program
from orchestrator.measure.link import Link, ModelFile
from orchestrator.variant import Variant
from search.spaces import get_arch, get_space

SESSIONS = 12
LOADS = 3
ROUNDS = 10
QUIET_QUANTILE = 0.25
"""Of a load's visits, beside their median: other work on the machine lengthens more than half of them at times."""
VISITS = 6
WARMUP = 3
SETTLE_RUNS = 1
NETWORKS = 3
THREADS = 1
EXECUTE = "c++"
FORWARD = "c++ forward"
BASES = {"python": EXECUTE, "kotlin": FORWARD, "swift": EXECUTE}
"""Agents, and the C++ call that is theirs: ExecuTorch's Android API sets the inputs within the timed call."""


class Timer(Protocol):
    """Something that loads models and times visits, each after a settle run, in nanoseconds."""

    def load(self, model: ModelFile) -> int: ...

    def unload(self, handle: int) -> None: ...

    def run(self, handle: int) -> list[int]: ...


@dataclass(frozen=True)
class Load:
    """One fresh load in every program: by agent, log ratios to its C++ call.

    `quiet`: of the lower quartiles of all visits; `paired`: the median over rounds of the ratio of medians.
    """

    quiet: Mapping[str, float]
    paired: Mapping[str, float]
    base_ms: float


class AgentTimer:
    """An agent behind the wire protocol."""

    def __init__(self, device: HostDevice):
        self._link = Link(device, "executorch", {"threads": THREADS})

    def load(self, model: ModelFile) -> int:
        return self._link.load(model).handle

    def unload(self, handle: int) -> None:
        self._link.client.unload(handle)

    def run(self, handle: int) -> list[int]:
        samples = self._link.client.run([handle], [[0] * (SETTLE_RUNS + 1)] * VISITS, WARMUP).samples
        return [int(ns) for ns in samples[:, -1]]


class BareTimer:
    """build/native/etbench: ExecuTorch under C++ with nothing else in the process. `verb`: what is timed."""

    def __init__(self, process: subprocess.Popen[str], verb: str):
        self._process, self._verb = process, verb

    def load(self, model: ModelFile) -> int:
        return int(self._ask(f"load {model.path} {THREADS}")["handle"])

    def unload(self, handle: int) -> None:
        self._ask(f"unload {handle}")

    def run(self, handle: int) -> list[int]:
        ns = self._ask(f"{self._verb} {handle} {VISITS * (SETTLE_RUNS + 1)} {WARMUP}")["ns"]
        return [int(value) for value in ns[SETTLE_RUNS :: SETTLE_RUNS + 1]]

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
    """Time the same networks in all four programs, each session with processes of its own."""
    rng = random.Random(0)
    models, names = _models(rng)
    quiet: dict[tuple[str, str], list[float]] = defaultdict(list)
    paired: dict[tuple[str, str], list[float]] = defaultdict(list)
    base_ms: dict[str, list[float]] = defaultdict(list)
    for session in range(SESSIONS):
        with _timers() as timers:
            for name in names:
                found = [_one_load(timers, models[name], rng) for _ in range(LOADS)]
                for agent in BASES:
                    quiet[name, agent].append(statistics.fmean(load.quiet[agent] for load in found))
                    paired[name, agent].append(statistics.fmean(load.paired[agent] for load in found))
                base_ms[name].append(statistics.median(load.base_ms for load in found))
        print(f"session {session + 1} of {SESSIONS}", flush=True)
    return _section(names, base_ms, quiet, paired)


def agreement(log_ratios: Sequence[float]) -> Agreement:
    """Mean and t interval of log ratios, one a session: processes are the unit of replication here."""
    mean = statistics.fmean(log_ratios)
    half = stats.t.ppf(0.975, len(log_ratios) - 1) * statistics.stdev(log_ratios) / math.sqrt(len(log_ratios))
    return Agreement(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


def _models(rng: random.Random) -> tuple[dict[str, ModelFile], list[str]]:
    nano = get_space("autovit-nano")
    archs = {f"nano {i + 1}": nano.sample(rng) for i in range(NETWORKS)}
    archs["autovit-xxs-paper"] = get_arch("autovit-xxs-paper")
    variant = Variant("executorch", "xnnpack", "", THREADS)
    artifacts = export_all({name: variant.export_spec(arch.keys()) for name, arch in archs.items()}, None)
    return {name: ModelFile(a.path, a.sha256) for name, a in artifacts.items()}, list(archs)


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


def _one_load(timers: Mapping[str, Timer], model: ModelFile, rng: random.Random) -> Load:
    """A fresh load in every program, and rounds in which all take turns."""
    handles = {name: timers[name].load(model) for name in rng.sample(list(timers), len(timers))}
    rounds: list[dict[str, list[int]]] = []
    for _ in range(ROUNDS):
        turn = rng.sample(list(timers), len(timers))
        rounds.append({name: timers[name].run(handles[name]) for name in turn})
    for name, handle in handles.items():
        timers[name].unload(handle)
    quiet_ns = {
        name: float(np.quantile([ns for visited in rounds for ns in visited[name]], QUIET_QUANTILE))
        for name in timers
    }
    quiet = {agent: math.log(quiet_ns[agent] / quiet_ns[base]) for agent, base in BASES.items()}
    paired = {
        agent: statistics.median(
            math.log(statistics.median(visited[agent]) / statistics.median(visited[base]))
            for visited in rounds
        )
        for agent, base in BASES.items()
    }
    return Load(quiet, paired, quiet_ns[EXECUTE] / 1e6)


def _section(
    names: Sequence[str],
    base_ms: Mapping[str, Sequence[float]],
    quiet: Mapping[tuple[str, str], Sequence[float]],
    paired: Mapping[tuple[str, str], Sequence[float]],
) -> str:
    found = {key: agreement(values) for key, values in quiet.items()}
    rows = []
    for name in names:
        cells = [_cell(found[name, agent]) for agent in BASES]
        rows.append(f"| {name} | {statistics.median(base_ms[name]):.3f} | " + " | ".join(cells) + " |")
    overall = [f"**{_cell(_over_all(quiet, names, agent))}**" for agent in BASES]
    medians = [_cell(_over_all(paired, names, agent)) for agent in BASES]
    rows.append("| all | | " + " | ".join(overall) + " |")
    rows.append("| all, by medians | | " + " | ".join(medians) + " |")
    table = "\n".join(rows)
    return f"""## The same network in C++, Python, Kotlin and Swift

Latency in each agent over that in a bare C++ program, all on the same ExecuTorch runtime, XNNPACK fp32, {THREADS}
thread: {SESSIONS} sessions of fresh processes, {LOADS} fresh loads in each, {ROUNDS} rounds a load in which all
took turns in random order ({VISITS} timed visits a turn). Compared are lower quartiles of a load's visits; the last
line compares medians, turn by turn. 95 % intervals are over sessions.
The agents go through the wire protocol; the Kotlin one on the JVM through a stand-in of ExecuTorch's
Android API over JNI. That API sets the inputs within the call, so Kotlin is compared with a C++ program that times
both, the others with one that times the execution alone. The stand-in wraps inputs and outputs once and the real
API in every call: what that costs on a phone is not in here. ExecuTorch's Python binding redirects `sys.stdout` and
`sys.stderr` in every call, which is part of its time.

| network | C++, ms | Python | Kotlin | Swift |
|---|---|---|---|---|
{table}

Over the networks of autovit-nano that is {_microseconds(names, base_ms, found)} a call:
what the call costs beside the execution. It weighs most on networks this small.
"""


def _over_all(logs: Mapping[tuple[str, str], Sequence[float]], names: Sequence[str], agent: str) -> Agreement:
    """Over networks, each with the same weight in every session."""
    return agreement(
        [statistics.fmean(values) for values in zip(*(logs[name, agent] for name in names), strict=True)]
    )


def _microseconds(
    names: Sequence[str], base_ms: Mapping[str, Sequence[float]], found: Mapping[tuple[str, str], Agreement]
) -> str:
    """What each agent's call costs beside C++'s, in microseconds, on average over the small networks."""
    small = [name for name in names if name.startswith("nano")]
    parts = []
    for agent in BASES:
        extra_ms = [(found[name, agent].ratio - 1) * statistics.median(base_ms[name]) for name in small]
        parts.append(f"{1000 * statistics.fmean(extra_ms):+.1f} µs in {agent.capitalize()}")
    return ", ".join(parts)


def _cell(found: Agreement) -> str:
    return f"{found.ratio:.4f} ({found.low:.4f} to {found.high:.4f})"


if __name__ == "__main__":
    print(main())

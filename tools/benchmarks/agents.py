"""Latency in the Kotlin, Swift and Python agents against a bare C++ program, interleaved, in fresh processes."""

from __future__ import annotations

import json
import math
import random
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
SMALL_LOADS, LARGE_LOADS = 8, 2
"""Fresh loads of a network in every process. Loads of a small network differ by 3 to 8 % with their memory,
which dominates its intervals; more invocations of each load would not narrow them."""
THREADS = 1
BASES = {"python": "run", "kotlin": "forward", "swift": "run"}
"""Agents, each with the command of the C++ program that does the same: ExecuTorch's Android interface sets the
inputs within the timed call (`forward`)."""


@dataclass(frozen=True)
class _Timer:
    """A program that loads models and times invocations, each after a settle run.

    Attributes:
        load: Loads a model and returns its handle.
        unload: Unloads a handle.
        run: Returns nanoseconds (handles, VISITS), one handle after the other.
    """

    load: Callable[[ModelFile], int]
    unload: Callable[[int], object]
    run: Callable[[Sequence[int]], np.ndarray]


def _agent_timer(device: HostDevice) -> _Timer:
    """Time an agent behind the wire protocol."""
    link = DeviceConnection(device, "executorch", {"threads": THREADS})

    def run(handles: Sequence[int]) -> np.ndarray:
        order = [[index] * (SETTLE_RUNS + 1) for index in range(len(handles)) for _ in range(VISITS)]
        samples = link.client.run(handles, order, WARMUP).samples
        return samples[:, -1].reshape(len(handles), VISITS)

    return _Timer(lambda model: link.load(model).handle, lambda handle: link.client.unload(handle), run)


def _bare_timer(process: subprocess.Popen[str], verb: str) -> _Timer:
    """Time build/native/etbench, ExecuTorch in a bare C++ program; `verb` is the command that is timed."""

    def ask(line: str) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        print(line, file=process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(process.stdout.readline())
        if "error" in answer:
            raise RuntimeError(f"etbench, {line}: {answer['error']}")
        return answer

    def run(handles: Sequence[int]) -> np.ndarray:
        calls = f"{VISITS * (SETTLE_RUNS + 1)} {WARMUP}"
        ns = [ask(f"{verb} {handle} {calls}")["ns"] for handle in handles]
        return np.array(ns)[:, SETTLE_RUNS :: SETTLE_RUNS + 1]

    return _Timer(
        lambda model: int(ask(f"load {model.path} {THREADS}")["handle"]),
        lambda handle: ask(f"unload {handle}"),
        run,
    )


def main() -> Tables:
    """Compare latency in each agent with that in a bare C++ program, in sessions of fresh processes.

    A session's ratio is the median over its rounds, in which all programs take turns; 95 % intervals are over
    sessions. Kotlin is compared with a C++ program that sets the inputs within the call, as ExecuTorch's Android
    interface does.

    Raises:
        ShimMissingError: the Python agent would time through its binding.
    """
    find_shim()
    rng, nano = random.Random(0), get_space("autovit-nano")
    archs = {f"nano {i + 1}": nano.sample(rng) for i in range(NETWORKS)}
    archs["autovit-xxs-paper"] = get_arch("autovit-xxs-paper")
    variant = Variant("executorch", "xnnpack", "", THREADS)
    models = files_of(export_all({name: variant.export_spec(arch.keys()) for name, arch in archs.items()}))
    loads = {name: SMALL_LOADS if arch.space == nano.name else LARGE_LOADS for name, arch in archs.items()}
    found: dict[str, list[tuple[float, Mapping[str, float]]]] = {name: [] for name in archs}
    for session in range(SESSIONS):
        with _timers() as timers:
            for name in rng.sample(list(archs), len(archs)):
                found[name].append(_compare(timers, models[name], loads[name], rng))
        log(f"session {session + 1} of {SESSIONS}")
    rows: list[dict[str, object]] = []
    for name, sessions in found.items():
        base_ms = statistics.median(ms for ms, _ in sessions)
        rows.append({"network": name, "C++ ms": base_ms, **_over_sessions([sessions])})
    return {
        "Agents against a bare C++ program": [*rows, {"network": "all", **_over_sessions([*found.values()])}]
    }


def agreement(log_ratios: Sequence[float]) -> Interval:
    """Return the geometric mean with a t interval of log ratios, one per session: the unit of replication."""
    mean = statistics.fmean(log_ratios)
    half = stats.t.ppf(0.975, len(log_ratios) - 1) * statistics.stdev(log_ratios) / math.sqrt(len(log_ratios))
    return Interval(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


def _over_sessions(networks: Sequence[Sequence[tuple[float, Mapping[str, float]]]]) -> dict[str, Interval]:
    """Return each agent's agreement over networks, which have the same weight in every session."""
    return {
        f"{agent} to C++": agreement(
            [
                statistics.fmean(ratios[agent] for _, ratios in session)
                for session in zip(*networks, strict=True)
            ]
        )
        for agent in BASES
    }


@contextmanager
def _timers() -> Iterator[dict[str, _Timer]]:
    """Run all programs within the context: agents by name, the C++ program by its command."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        timers: dict[str, _Timer] = {}
        for verb in dict.fromkeys(BASES.values()):
            program, pipe = [ROOT / "build" / "native" / "etbench"], subprocess.PIPE
            bare = subprocess.Popen(program, stdin=pipe, stdout=pipe, text=True)
            stack.callback(bare.wait)
            assert bare.stdin is not None
            stack.callback(bare.stdin.close)
            timers[verb] = _bare_timer(bare, verb)
        for agent in BASES:
            device = HostDevice(
                agent_program(agent), store_dir=folder / agent, log_path=folder / f"{agent}.log"
            )
            timers[agent] = _agent_timer(stack.enter_context(device))
        yield timers


def _compare(
    timers: Mapping[str, _Timer], model: ModelFile, loads: int, rng: random.Random
) -> tuple[float, Mapping[str, float]]:
    """Load the network in every program, and measure rounds in which all take turns.

    Returns the C++ program's milliseconds and, by agent, the log ratio to its C++ call. That is the median over
    rounds of the mean over loads of the log of a turn's median invocation, minus the same of the C++ program in the
    same round. So disturbances longer than a round cancel out, and short ones do not count.
    """
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
    base_ms = math.exp(statistics.median(levels["run"] for levels in rounds)) / 1e6
    return base_ms, {
        agent: statistics.median(levels[agent] - levels[base] for levels in rounds)
        for agent, base in BASES.items()
    }


def _log_level(ns: np.ndarray) -> float:
    """Return the mean over loads of the log of the median invocation of a turn (loads, invocations)."""
    return float(np.log(np.median(ns, axis=1)).mean())

"""Negative controls: how often does the 95 % interval of two loads of the same file hold 0, quiet and busy?"""

from __future__ import annotations

import contextlib
import datetime
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from scipy import stats

from luts.estimate.ratios import AaInterval, load_variance, noise_floor
from orchestrator.agent.programs import agent_program
from orchestrator.devices.common.device import Device
from orchestrator.devices.host import HostDevice
from orchestrator.export.artifacts.spec import Variant
from orchestrator.journal.log import MeasurementLog
from orchestrator.journal.records import Header
from orchestrator.measure.batches import BatchKey, BatchRunner
from orchestrator.measure.engine import ModelSet
from orchestrator.measure.readiness import DeviceConnection
from orchestrator.measure.session import make_identity
from orchestrator.plan.plan import Policy
from orchestrator.tasks.models import export_all, files_of
from search.spaces import get_arch, get_space

TRIALS = 200
SPACE = "autovit-nano"
LARGE = "autovit-xxs-paper"
COMPANION = "companion"
"""The model beside the two loads, whose ratio decides when a batch ends. A small one: a profile's batches hold six,
which would make 200 batches of a large network an hour."""
VARIANT = Variant("executorch", "xnnpack", "", 1)
POLICY = Policy(max_rounds=20, cooling_s=0.0)
"""The fewest rounds of a profile: 200 batches of a large network must end in minutes."""
BURNER = "while True: pass"


@dataclass(frozen=True)
class Control:
    """A/A intervals of a series of batches, one a trial; `load_sd` and `noise_floor` are those of all of them."""

    latency_ms: float
    intervals: tuple[AaInterval, ...]
    rounds: float
    load_sd: float
    noise_floor: float

    @property
    def compatible(self) -> int:
        """Trials whose interval holds 0."""
        return sum(interval.compatible for interval in self.intervals)


def main() -> str:
    """Run the series of each network without and with a process that computes all the time."""
    found: dict[tuple[str, str], Control] = {}
    rng = random.Random(0)
    archs = {
        "autovit-nano": get_space(SPACE).sample(rng),
        LARGE: get_arch(LARGE),
        COMPANION: get_space(SPACE).sample(rng),
    }
    files = files_of(export_all({name: VARIANT.export_spec(arch.keys()) for name, arch in archs.items()}))
    for name in ("autovit-nano", LARGE):
        for condition, burners in (("quiet", 0), ("a process beside it", 1)):
            with burning(burners), tempfile.TemporaryDirectory() as folder:
                home = Path(folder)
                program = agent_program("python")
                with HostDevice(program, store_dir=home / "store", log_path=home / "agent.log") as device:
                    subject = ModelSet({key: files[key] for key in (name, COMPANION)}, name, "0" * 64, seed=0)
                    found[name, condition] = control(device, subject, home / "journal.jsonl", TRIALS)
            print(f"{name}, {condition}: {_row(found[name, condition])}", flush=True)
    return _section(found)


def control(device: Device, subject: ModelSet, journal: Path, trials: int) -> Control:
    """Batches of fresh loads as a profile makes and judges them, each by those before it."""
    link = DeviceConnection(device, VARIANT.runtime, VARIANT.load_options)
    hello = link.hello()
    header = Header(
        identity=make_identity(hello, VARIANT, subject, POLICY, device.fixed_performance),
        reference_id=subject.reference_id,
        seed=subject.seed,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        simulated=hello.device.simulated,
    )
    beside = [name for name in subject.files if name != subject.reference_id]
    try:
        with MeasurementLog(journal, header) as log:
            runner = BatchRunner(link, subject.files, log, POLICY, subject.seed, print)
            ends = [runner.run(BatchKey(trial, 0, 0), beside) for trial in range(trials)]
            estimation = log.estimation()
    finally:
        link.drop()
    differences = estimation.differences
    medians_ms = [segment.median_ms(subject.reference_id) for segment in estimation.segments]
    return Control(
        latency_ms=statistics.median(ms for ms in medians_ms if ms is not None),
        intervals=tuple(AaInterval(*end.aa) for end in ends),
        rounds=statistics.fmean(difference.rounds for difference in differences),
        load_sd=load_variance([], differences).sd,
        noise_floor=noise_floor(differences),
    )


@contextlib.contextmanager
def burning(processes: int) -> Iterator[None]:
    """Processes that compute without end, for as long as the context lasts."""
    with contextlib.ExitStack() as stack:
        for _ in range(processes):
            burner = subprocess.Popen([sys.executable, "-c", BURNER])
            stack.callback(burner.wait)
            stack.callback(burner.kill)
        yield


def coverage_interval(hits: int, trials: int) -> tuple[float, float]:
    """95 % interval of a share (Clopper and Pearson 1934)."""
    found = stats.binomtest(hits, trials).proportion_ci(0.95, method="exact")
    return float(found.low), float(found.high)


def _row(found: Control) -> str:
    trials = len(found.intervals)
    low, high = coverage_interval(found.compatible, trials)
    half = statistics.median((interval.high - interval.low) / 2 for interval in found.intervals)
    return (
        f"{found.latency_ms:.2f} | {found.rounds:.0f} | {trials} | **{found.compatible / trials:.1%}** "
        f"({low:.1%} to {high:.1%}) | ±{half:.2%} | {found.noise_floor:.2%} | {found.load_sd:.2%}"
    )


def _section(found: Mapping[tuple[str, str], Control]) -> str:
    rows = "\n".join(f"| {name} | {condition} | {_row(row)} |" for (name, condition), row in found.items())
    return f"""## Negative controls: two loads of the same file

How often the 95 % interval of the difference between two fresh loads of one file holds 0, on the host by the Python
agent, XNNPACK fp32, one thread. A trial is a batch as `bench profile` makes and judges it: two fresh loads of the
network and one of a small network beside them, interleaved rounds until the ratio is narrow, at most
{POLICY.max_rounds}, an interval that rests on the batches before it. Nothing is left out, not even the first ones.
Beside: the share's own binomial 95 % interval, half the interval's median width, the robust deviation of the
differences, that of one load.

| network | condition | ms | rounds | trials | interval holds 0 | width | A/A spread | one load |
|---|---|---|---|---|---|---|---|---|
{rows}
"""


if __name__ == "__main__":
    print(main())

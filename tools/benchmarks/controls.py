"""Negative controls: how often does the 95 % interval of two loads of the same file contain 0?"""

from __future__ import annotations

import contextlib
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scipy import stats

from luts.estimate.ratios import AaInterval, load_variance, noise_floor
from orchestrator.agent.programs import agent_program
from orchestrator.devices.common.device import Device
from orchestrator.devices.host import HostDevice
from orchestrator.export.artifacts.spec import Variant
from orchestrator.journal.log import MeasurementLog
from orchestrator.measure.batches import BatchKey, BatchRunner
from orchestrator.measure.engine import ModelSet
from orchestrator.measure.readiness import DeviceConnection
from orchestrator.measure.session import make_header
from orchestrator.plan.plan import Policy
from orchestrator.tasks.models import export_all, files_of
from search.spaces import get_arch, get_space
from tools.tables import Interval, Tables, log

TRIALS = 200
COMPANION = "companion"
"""A small model measured with the two loads; its ratio decides when a batch ends."""
VARIANT = Variant("executorch", "xnnpack", "", 1)
POLICY = Policy(max_rounds=20, cooling_s=0.0)
"""The fewest rounds of a profile, so that 200 batches of a large network end in minutes."""


def main() -> Tables:
    """Measure each network without and with a process that computes all the time.

    Counts how often the 95 % interval of the difference between two fresh loads of one file contains 0. A trial is
    a batch as in `bench profile`: two loads of the network and one of a small network, interleaved.
    """
    rows, rng, nano = [], random.Random(0), get_space("autovit-nano")
    archs = {
        nano.name: nano.sample(rng),
        "autovit-xxs-paper": get_arch("autovit-xxs-paper"),
        COMPANION: nano.sample(rng),
    }
    files = files_of(export_all({name: VARIANT.export_spec(arch.keys()) for name, arch in archs.items()}))
    for name in list(archs)[:2]:
        for condition in ("quiet", "another process"):
            with _burning(condition != "quiet"), tempfile.TemporaryDirectory() as folder:
                home = Path(folder)
                program = agent_program("python")
                with HostDevice(program, store_dir=home / "store", log_path=home / "agent.log") as device:
                    subject = ModelSet({key: files[key] for key in (name, COMPANION)}, name, "0" * 64, seed=0)
                    row = control(device, subject, home / "journal.jsonl", TRIALS)
            rows.append({"network": name, "condition": condition, **row})
            log(str(rows[-1]))
    return {"Negative controls": rows}


def control(device: Device, subject: ModelSet, journal: Path, trials: int) -> dict[str, Any]:
    """Measure batches of fresh loads as a profile does, each with an interval that rests on those before it."""
    others = [name for name in subject.files if name != subject.reference_id]
    with DeviceConnection.opened(device, VARIANT) as link:
        header = make_header(link.hello(), VARIANT, subject, POLICY, device.fixed_performance)
        with MeasurementLog(journal, header) as log:
            runner = BatchRunner(link, subject.files, log, POLICY, print)
            ends = [runner.run(BatchKey(trial, 0, 0), others) for trial in range(trials)]
            estimation = log.estimation()
    intervals = [AaInterval(*end.aa) for end in ends]
    hits = sum(interval.compatible for interval in intervals)
    medians_ms = [segment.median_ms(subject.reference_id) for segment in estimation.segments]
    return {
        "ms": statistics.median(ms for ms in medians_ms if ms is not None),
        "rounds": statistics.fmean(difference.rounds for difference in estimation.differences),
        "trials": trials,
        "interval contains 0, %": coverage(hits, trials),
        "half width, %": 50 * statistics.median(interval.high - interval.low for interval in intervals),
        "two loads, %": 100 * noise_floor(estimation.differences),
        "one load, %": 100 * load_variance([], estimation.differences).sd,
    }


def coverage(hits: int, trials: int) -> Interval:
    """Return a fraction in percent with its 95 % interval (Clopper and Pearson 1934)."""
    found = stats.binomtest(hits, trials).proportion_ci(0.95, method="exact")
    return Interval(100 * hits / trials, 100 * float(found.low), 100 * float(found.high))


@contextlib.contextmanager
def _burning(burn: bool) -> Iterator[None]:
    """Run a process that computes for as long as the context lasts."""
    if not burn:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as burner:
        try:
            yield
        finally:
            burner.kill()

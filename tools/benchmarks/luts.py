"""LUTs of this machine: repeatability, classifiers of other sizes, minutes to an adapted LUT."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from luts.diff import diff_luts
from luts.format.store import LutStore, lut_store
from orchestrator.tasks.adapt import AdaptCommand, adapt
from orchestrator.tasks.plan import PlanOptions, ProfileCommand
from orchestrator.tasks.profile import profile
from orchestrator.tasks.progress import Event, Note
from orchestrator.tasks.target import DeviceOptions, Target
from orchestrator.tasks.validate import ValidateCommand, validate
from tools.benchmarks.shared import bench
from tools.tables import Tables

REPEATED_SPACE = "autovit-nano"
UNSEEN = 30
REPEATED_PROFILE = (
    f"profile --device host --space {REPEATED_SPACE} --threads 1 --from none --budget 3m --fresh --json"
)
COLUMNS = ("mape", "max_error", "within_2", "within_5", "within_10", "coverage", "kendall_tau", "noise_floor")


def profile_twice() -> Tables:
    """Profile twice from exported models, compare the entries, and validate the first LUT on unseen networks."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        paths = [json.loads(bench(REPEATED_PROFILE, home))["path"] for _ in range(2)]
        checked = json.loads(bench(f"validate --lut host/v1 --device host -n {UNSEEN} --json", home))
        luts = [LutStore([home / "luts"]).load(path) for path in paths]
    difference = diff_luts(*luts)
    ratios = [
        entry.ratios[1]
        for entry in difference.entries
        if entry.ratios[1] and entry.ms[0] > 0.01 * luts[0].meta.reference_ms
    ]
    return {
        f"Two profiles of {REPEATED_SPACE}": [
            {
                "profile": number,
                "fitted": sum(model.split == "fit" for model in lut.models),
                "held out": sum(model.split == "heldout" for model in lut.models),
                "samples": lut.samples.num_rows,
                "reference ms": lut.meta.reference_ms,
                "noise floor, %": 100 * lut.meta.noise_floor,
                "held-out MAPE, %": lut.meta.heldout_error and 100 * lut.meta.heldout_error.mape,
            }
            for number, lut in enumerate(luts, 1)
        ],
        "Entries of both": [
            {
                "entries": len(difference.entries),
                "intervals that overlap, %": 100 * (difference.overlap_share or 0.0),
                "median ratio above 1 % of the reference": statistics.median(ratios),
            }
        ],
        f"`bench validate` of the first on {UNSEEN} unseen networks": [
            {name: checked[name] for name in COLUMNS}
        ],
    }


HEADS_SPACE = "autovit-xxs"
PROFILED, USED = 1000, 10
HEADS_NETWORKS = 20
MODELS = 40
BUDGET_S, CHECK_S = 300.0, 150.0
"""Time limits of each profile and each check: half an hour in total, with exports."""


def compare_heads(
    device: str = "host",
    space: str = HEADS_SPACE,
    models: int = MODELS,
    networks: int = HEADS_NETWORKS,
    budget_s: float = BUDGET_S,
    check_s: float = CHECK_S,
) -> Tables:
    """Profile with and without `--heads`; measure the same unseen networks after each profile."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for heads in ((), (USED, PROFILED)):
            store = LutStore([Path(folder) / str(len(heads))])
            plan = PlanOptions(classes=PROFILED, models=models, heads=heads)
            lut = profile(
                ProfileCommand(space=space, target=Target(device), plan=plan, budget_s=budget_s, store=store)
            )
            for classes in (PROFILED, USED):
                command = ValidateCommand(
                    lut=str(lut.path),
                    target=DeviceOptions(device),
                    count=networks,
                    budget_s=check_s,
                    classes=classes,
                )
                checked = validate(command)
                rows.append(
                    {
                        "classifiers measured": " and ".join(map(str, heads or (PROFILED,))),
                        "networks of": f"{classes} classes",
                        "mean error, %": 100 * checked.mape,
                        "largest, %": 100 * checked.max_error,
                        "within the interval, %": 100 * checked.coverage,
                        "Kendall's tau": checked.kendall_tau,
                    }
                )
    return {"Classifiers of other numbers of classes": rows}


SOURCE = "linux-x86-64/autovit-xxs/executorch-xnnpack-fp32-t1"
ADAPT_NETWORKS = 10
START, PLAN, EXPORTS, MEASURING, LUT = "start and imports", "plan", "exports", "measuring", "LUT"


@dataclass
class Clock:
    """Seconds by phase of a task, from its progress events; an event ends the time since the one before."""

    began: float = field(default_factory=lambda: time.monotonic())
    seconds: dict[str, float] = field(default_factory=dict)
    _measures: bool = False

    def __call__(self, event: Event) -> None:
        """Add the time since the last event to the phase that the event belongs to."""
        text = str(event)
        if text.startswith("run ") and isinstance(event, Note):
            self.add(EXPORTS)
            self._measures = True
        else:
            self.add(MEASURING if self._measures else EXPORTS if "export" in text else PLAN)

    def add(self, phase: str) -> None:
        """Add the time since the last event to a phase."""
        now = time.monotonic()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self.began
        self.began = now


def time_adapt(device: str = "host", source: str = SOURCE, networks: int = ADAPT_NETWORKS) -> Tables:
    """Adapt a LUT in a process with cache and folders of its own."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        fresh = {name: str(root / name.lower()) for name in ("XDG_CACHE_HOME", "BLOCKTIME_RUNS")}
        module = [sys.executable, "-m", "tools.benchmarks.luts", folder, device, source, str(networks)]
        began = time.monotonic()
        answer = subprocess.run(module, env=os.environ | fresh, stdout=subprocess.PIPE, text=True, check=True)
        whole_s = time.monotonic() - began
    seconds: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    seconds[START] = whole_s - sum(seconds.values())
    rows = [
        {"phase": name, "seconds": seconds.get(name, 0.0)} for name in (START, PLAN, EXPORTS, MEASURING, LUT)
    ]
    return {f"Minutes to a LUT from {networks} networks": [*rows, {"phase": "total", "seconds": whole_s}]}


def adapt_in(root: Path, device: str, source: str, networks: int) -> dict[str, float]:
    """Adapt a LUT in `root` and return the seconds of each phase; runs in the fresh process."""
    clock = Clock()
    store = LutStore([root / "luts", *lut_store().roots])
    adapt(AdaptCommand(lut=source, target=Target(device), networks=networks, store=store), clock)
    clock.add(LUT)
    return clock.seconds


if __name__ == "__main__":
    print(json.dumps(adapt_in(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))))

"""Minutes from the start of `bench lut adapt` to a finished LUT of `autovit-xxs` from ten networks, by phase.

A process with empty cache and runs folder, so that its start, imports and exports are included.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from luts.format.store import LutStore, lut_store
from orchestrator.tasks.adapt import AdaptCommand, adapt
from orchestrator.tasks.progress import Event, Note
from orchestrator.tasks.target import Target
from tools.tables import Tables

SOURCE = "linux-x86-64/autovit-xxs/executorch-xnnpack-fp32-t1"
NETWORKS = 10
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


def main(device: str = "host", source: str = SOURCE, networks: int = NETWORKS) -> Tables:
    """Adapt a LUT in a process with cache and folders of its own."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        fresh = {name: str(root / name.lower()) for name in ("XDG_CACHE_HOME", "BLOCKTIME_RUNS")}
        module = [sys.executable, "-m", "tools.benchmarks.lut_minutes", folder, device, source, str(networks)]
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

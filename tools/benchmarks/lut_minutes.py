"""Minutes from `bench profile` to a finished LUT of `autovit-xxs` from ten networks, and where they go.

    python -m tools.benchmarks lut_minutes

A fresh process with nothing exported before, so that its start, imports and exports are in them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from luts.format.store import LutStore, lut_store
from orchestrator.tasks.adapt import adapt
from orchestrator.tasks.progress import Event, Note

SPACE = "autovit-xxs"
SOURCE = f"linux-x86-64/{SPACE}/executorch-xnnpack-fp32-t1"
NETWORKS = 10
TARGET_MINUTES = 5.0
START, PLAN, EXPORTS, MEASURING, LUT = "start and imports", "plan", "exports", "measuring", "LUT"


@dataclass
class Clock:
    """Seconds by what went on; told of a task's events, each of which ends the time since the one before."""

    began: float = field(default_factory=lambda: time.monotonic())
    seconds: dict[str, float] = field(default_factory=dict)
    _measures: bool = False

    def __call__(self, event: Event) -> None:
        text = str(event)
        if text.startswith("run ") and isinstance(event, Note):
            self.add(EXPORTS)
            self._measures = True
        else:
            self.add(MEASURING if self._measures else EXPORTS if "export" in text else PLAN)

    def add(self, phase: str) -> None:
        """The time since the last event was of this phase."""
        now = time.monotonic()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self.began
        self.began = now


def main(device: str = "host", source: str = SOURCE, networks: int = NETWORKS) -> str:
    """The section: one profile in a process, cache and folders of its own."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        fresh = {name: str(root / name.lower()) for name in ("XDG_CACHE_HOME", "BLOCKTIME_RUNS")}
        module = [
            sys.executable,
            "-m",
            "tools.benchmarks.lut_minutes",
            str(root),
            device,
            source,
            str(networks),
        ]
        began = time.monotonic()
        answer = subprocess.run(module, env=os.environ | fresh, stdout=subprocess.PIPE, text=True, check=True)
        whole_s = time.monotonic() - began
    told = json.loads(answer.stdout.splitlines()[-1])
    return section(told["seconds"] | {START: whole_s - sum(told["seconds"].values())}, whole_s, told)


def section(seconds: Mapping[str, float], whole_s: float, told: Mapping[str, str | int]) -> str:
    """As it stands in docs/benchmarks.md; whether it is too long is said first."""
    late = whole_s > 60 * TARGET_MINUTES
    rows = [
        f"| {phase} | {seconds.get(phase, 0.0):.0f} |" for phase in (START, PLAN, EXPORTS, MEASURING, LUT)
    ]
    missed = "Target missed: " if late else ""
    fitted, heldout = told["fitted"], told["heldout"]
    return f"""## Minutes to a LUT from ten networks

{missed}{whole_s / 60:.1f} minutes, of at most {TARGET_MINUTES:g}, from the start of
`bench lut adapt {told["source"]} -n {fitted}` to the finished LUT of
`{told["space"]}` on {told["cores"]} cores: {fitted} networks fitted and {heldout} held out, nothing exported
before. Measuring ends by itself.

| | seconds |
|---|---|
{chr(10).join(rows)}
"""


def inside(root: Path, device: str, source: str, networks: int) -> dict[str, object]:
    """In the fresh process: profile, and tell how long what took."""
    clock = Clock()
    store = LutStore([root / "luts", *lut_store().roots])
    done = adapt(source, device, networks, store=store, progress=clock)
    clock.add(LUT)
    meta, splits = done.lut.meta, [model.split for model in done.lut.models]
    return {
        "seconds": clock.seconds,
        "source": source,
        "space": meta.space,
        "fitted": splits.count("fit"),
        "heldout": splits.count("heldout"),
        "cores": meta.device.cores,
    }


if __name__ == "__main__":
    print(json.dumps(inside(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))))

"""A small `bench profile` in a process of its own, which tests disturb."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from luts.lut import Lut
from luts.store import LutStore
from luts.verify import verify_lut
from orchestrator.measure.log import read_log
from orchestrator.measure.samples import samples_table

_BENCH = Path(sys.executable).parent / "bench"
# All tests profile this one plan, so that its models are exported once.
PLAN = ("--space", "autovit-nano", "--removals", "none", "--design", "3", "--heldout", "2")
SMALL = (*PLAN, "--threads", "1", "--budget", "1s")


class Profiling:
    """Starts at once; run, LUTs and what it writes are below `folder`."""

    def __init__(self, device: str, folder: Path, environment: Mapping[str, str], *options: str) -> None:
        self._device = device
        self._luts = folder / "luts"
        self.journal = folder / "run" / "journal.jsonl"
        what = ("--device", device, *SMALL, *options)
        self.process = subprocess.Popen(
            [_BENCH, "profile", *what, "--run", folder / "run"],
            env={**os.environ, "BLOCKTIME_LUTS": str(self._luts), **environment},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for_more(self, size_bytes: int) -> None:
        """Until the journal has grown by that much."""
        wanted = self._journal_bytes() + size_bytes
        while self._journal_bytes() < wanted:
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.02)

    def finish(self) -> str:
        """What it said on stderr."""
        _, errors = self.process.communicate(timeout=500)
        assert self.process.returncode == 0, errors
        return errors

    def kill(self) -> None:
        """Ends it where it still runs."""
        self.process.kill()
        self.process.communicate()

    def lut(self, name: str = "") -> Lut:
        """The LUT that it wrote, verified, no sample of which was taken twice; `name` where not the device's."""
        table = samples_table(read_log(self.journal))
        names = ("batch", "segment", "round", "position")
        places = list(zip(*(table.column(name).to_pylist() for name in names), strict=True))
        assert len(places) == len(set(places))
        where = f"{name or self._device}/autovit-nano/executorch-xnnpack-fp32-t1/v1"
        return verify_lut(LutStore([self._luts]).resolve(where).path)

    def _journal_bytes(self) -> int:
        return self.journal.stat().st_size if self.journal.exists() else 0

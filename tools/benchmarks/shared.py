"""What several benchmarks use: the `bench` command in a folder of its own, LUTs there, predictions by entries."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from luts.estimate.joint import JointFit
from luts.estimate.likelihood import FitData
from luts.estimate.sources import SourceEntries
from luts.format.latency import latency_ms
from luts.format.lut import Lut
from luts.format.schema import Floats
from luts.format.store import LutStore

BENCH = Path(sys.executable).parent / "bench"


def bench(command: str, home: Path | None = None) -> str:
    """Run `bench COMMAND` and return its standard output; with `home`, LUTs and runs are kept there.

    Raises:
        subprocess.CalledProcessError: the command failed.
    """
    folders = {} if home is None else {"BLOCKTIME_LUTS": f"{home}/luts", "BLOCKTIME_RUNS": f"{home}/runs"}
    arguments = [str(BENCH), *command.split()]
    return subprocess.run(
        arguments, env=os.environ | folders, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def lut_in(home: Path, name: str) -> Lut:
    """Return a LUT that `bench profile` left in `home`."""
    store = LutStore([home / "luts"])
    return store.load(store.resolve(name).path)


def entries_of(name: str, fit: JointFit) -> SourceEntries:
    """Return a fit's entries with standard errors as a source."""
    ms, se = (dict(zip(fit.keys, values.tolist(), strict=True)) for values in (fit.ms, fit.se))
    return SourceEntries(name, ms, fit.base_ms, fit.transfer_ms_per_mib, se)


def predicted_ms(costs: SourceEntries, networks: FitData) -> Floats:
    """Return the latencies of networks by a device's entries. Raises UsageError for an unknown block."""
    price = costs.entry_ms, costs.base_ms, costs.transfer_ms_per_mib
    pairs = zip(networks.blocks, networks.boundary_bytes.tolist(), strict=True)
    return np.array([latency_ms(*price, blocks, handed) for blocks, handed in pairs])

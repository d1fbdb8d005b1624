"""What several benchmarks use: the `bench` command in a folder of its own, and its LUTs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from luts.format.lut import Lut
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

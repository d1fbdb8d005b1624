"""How repeatable and precise a LUT of `autovit-nano` on this machine is: two profiles, and unseen architectures."""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path

from luts.diff import diff_luts
from luts.format.store import LutStore
from tools.benchmarks.shared import bench
from tools.tables import Tables

SPACE = "autovit-nano"
UNSEEN = 30
PROFILE = f"profile --device host --space {SPACE} --threads 1 --from none --budget 3m --fresh --json"
COLUMNS = ("mape", "max_error", "within_2", "within_5", "within_10", "coverage", "kendall_tau", "noise_floor")


def main() -> Tables:
    """Profile twice from exported models, compare the entries, and validate the first LUT on unseen networks."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        paths = [json.loads(bench(PROFILE, home))["path"] for _ in range(2)]
        checked = json.loads(bench(f"validate --lut host/v1 --device host -n {UNSEEN} --json", home))
        luts = [LutStore([home / "luts"]).load(path) for path in paths]
    difference = diff_luts(*luts)
    ratios = [
        entry.ratios[1]
        for entry in difference.entries
        if entry.ratios[1] and entry.ms[0] > 0.01 * luts[0].meta.reference_ms
    ]
    return {
        f"Two profiles of {SPACE}": [
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

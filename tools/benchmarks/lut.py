"""How far a LUT of `autovit-nano` on this machine can be trusted: two profiles, and fresh architectures."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from luts.diff import diff_luts
from luts.format.lut import Lut
from luts.format.store import LutStore

SPACE = "autovit-nano"
FRESH = 30
BENCH = Path(sys.executable).parent / "bench"


def main() -> str:
    """Profile twice from nothing but the exported models, compare, and validate the first."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        environment = os.environ | {
            "BLOCKTIME_LUTS": str(home / "luts"),
            "BLOCKTIME_RUNS": str(home / "runs"),
        }
        profile = [
            "profile",
            "--device",
            "host",
            "--space",
            SPACE,
            "--threads",
            "1",
            "--from",
            "none",
            "--budget",
            "3m",
            "--fresh",
            "--json",
        ]
        paths = [json.loads(_bench(environment, *profile))["path"] for _ in range(2)]
        checked = json.loads(
            _bench(
                environment, "validate", "--lut", "host/v1", "--device", "host", "-n", str(FRESH), "--json"
            )
        )
        store = LutStore([home / "luts"])
        first, second = (store.load(path) for path in paths)
        return _section(first, second, checked)


def _bench(environment: dict[str, str], *arguments: str) -> str:
    command = [str(BENCH), *arguments]
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


def _section(first: Lut, second: Lut, checked: dict[str, Any]) -> str:
    diff = diff_luts(first, second)
    ratios = [
        entry.ratios[1]
        for entry in diff.entries
        if entry.ratios[1] and entry.ms[0] > 0.01 * first.meta.reference_ms
    ]
    heldout = [lut.meta.heldout_error for lut in (first, second)]
    rows = [
        ("models fitted / held out", *(_counts(lut) for lut in (first, second))),
        ("samples", *(f"{lut.samples.num_rows:,}" for lut in (first, second))),
        ("reference model, ms", *(f"{lut.meta.reference_ms:.3f}" for lut in (first, second))),
        ("noise floor (two loads of one model)", *(f"{lut.meta.noise_floor:.2%}" for lut in (first, second))),
        ("held-out MAPE", *("-" if error is None else f"{error.mape:.2%}" for error in heldout)),
    ]
    table = "\n".join(f"| {name} | {a} | {b} |" for name, a, b in rows)
    overlap = diff.overlap_share or 0.0
    return f"""## A LUT of {SPACE} on this machine

{first.meta.variant}, {first.meta.versions.runtime}, {first.meta.device.soc or first.meta.device.model}. The whole
space profiled twice, each from fresh loads:

| | first | second |
|---|---|---|
{table}

Entries whose 95 % intervals overlap between the two: **{overlap:.1%}** of {len(diff.entries)}; median ratio second
to first over entries above 1 % of the reference: {statistics.median(ratios):.3f}.

{_validated(checked)}"""


def _validated(checked: dict[str, Any]) -> str:
    within = " / ".join(f"{checked[name]:.0%}" for name in ("within_2", "within_5", "within_10"))
    return (
        f"`bench validate` of the first on {len(checked['comparisons'])} random architectures no fit has seen: "
        f"MAPE **{checked['mape']:.2%}**, largest error {checked['max_error']:.2%}, within 2 / 5 / 10 %: {within}, "
        f"Kendall tau {checked['kendall_tau']:.3f}; {checked['coverage']:.0%} inside the predicted intervals. "
        f"Noise floor of that measurement: {checked['noise_floor']:.2%}."
    )


def _counts(lut: Lut) -> str:
    fitted = sum(model.split == "fit" for model in lut.models)
    return f"{fitted} / {len(lut.models) - fitted}"


if __name__ == "__main__":
    print(main())

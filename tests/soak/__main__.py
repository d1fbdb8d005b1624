"""Inject faults for a time, and report what was lost; `make soak` runs it.

    python -m tests.soak [--minutes M] [--results FILE] [FAULT...]

Results are written after every seed, so a stopped soak resumes with the seeds that are left.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.soak.faults import Fault, Outcome

FIGURES = [field.name for field in fields(Outcome) if field.name != "detail"]


def all_faults() -> list[Fault]:
    """Return the faults of all modules of this folder that have a list of them."""
    from tests.soak import adbd, inputs, kills, strangers, transport

    return [*kills.FAULTS, *transport.FAULTS, *adbd.FAULTS, *inputs.FAULTS, *strangers.FAULTS]


def read_results(path: Path) -> dict[str, dict[int, Outcome]]:
    """Return the outcomes so far, by fault and seed; a line cut off by a kill is left out."""
    results: dict[str, dict[int, Outcome]] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        fault, seed = record.pop("fault"), record.pop("seed")
        results.setdefault(fault, {})[seed] = Outcome(**record)
    return results


def soak(faults: Sequence[Fault], minutes: float, path: Path) -> dict[str, dict[int, Outcome]]:
    """Run seeds until the time is over; next is always the fault that has had the least time in this run."""
    results, end = read_results(path), time.monotonic() + 60 * minutes
    spent = {fault.name: 0.0 for fault in faults}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as out:
        out.write("\n")
        while left := [fault for fault in faults if len(results.get(fault.name, {})) < fault.seeds]:
            if (start := time.monotonic()) > end:
                break
            fault = min(left, key=lambda each: spent[each.name])
            done = results.setdefault(fault.name, {})
            seed = next(seed for seed in range(fault.seeds) if seed not in done)
            with tempfile.TemporaryDirectory(prefix="soak-") as folder:
                try:
                    outcome = fault.run(seed, Path(folder))
                except Exception as error:
                    outcome = Outcome(wrong=1, detail=f"{type(error).__name__}: {error}"[:500])
            done[seed] = outcome
            spent[fault.name] += time.monotonic() - start
            out.write(json.dumps({"fault": fault.name, "seed": seed} | asdict(outcome)) + "\n")
            out.flush()
            if not outcome.clean:
                print(f"{fault.name}, seed {seed}: {outcome.detail}", flush=True)
    return results


def summary(faults: Sequence[Fault], results: Mapping[str, Mapping[int, Outcome]]) -> Table:
    """Return the table of all faults: sums over seeds, and why a fault could not be injected."""
    table = Table("fault", "seeds", *FIGURES, "missing")
    for fault in faults:
        done = results.get(fault.name, {}).values()
        sums = [f"{sum(getattr(outcome, name) for outcome in done):,}" for name in FIGURES]
        table.add_row(fault.name, f"{len(done)} of {fault.seeds}", *sums, fault.missing())
    return table


def main() -> int:
    """Soak, print the table, and return 1 where anything was lost, doubled, wrong or hung."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument(
        "faults", nargs="*", metavar="FAULT", help="begin of the names of faults; default all"
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="time budget (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=Path("build/soak.jsonl"), help="results so far")
    options = parser.parse_args()
    faults = [fault for fault in all_faults() if fault.name.startswith(tuple(options.faults or [""]))]
    if not faults:
        parser.error(f"no such fault; there are: {', '.join(fault.name for fault in all_faults())}")
    results = soak([fault for fault in faults if not fault.missing()], options.minutes, options.results)
    Console(width=120).print(summary(faults, results))
    outcomes = [one for fault in faults for one in results.get(fault.name, {}).values()]
    failed = sum(not outcome.clean for outcome in outcomes)
    print(f"{len(outcomes) - failed} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())

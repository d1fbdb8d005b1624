"""How often 95 % intervals of LUTs contain the truth, on simulated devices in trouble.

    python -m tests.soak.calibration [--minutes M] [--profiles N] [--results FILE] [SCENARIO...]

Each profile is a device of its own: costs and disturbances follow from its number. A profile counts as rejected if
measuring ends in an error, or if its LUT says that it predicts networks no better than within `WIDEST`. Results are
written after every profile, so a stopped run resumes.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from luts.estimate.statistics import CONFIDENCE, normal_quantile
from luts.format.errors import BlocktimeError
from luts.format.lut import Lut
from luts.format.schema import Floats
from orchestrator.agent.store import ModelStore
from orchestrator.export.artifacts.spec import Variant
from orchestrator.measure.engine import EngineOptions
from orchestrator.measure.session import measure
from orchestrator.plan.build import make_plan
from orchestrator.plan.plan import Plan, Policy
from orchestrator.simulate.__main__ import simulated_agent
from orchestrator.simulate.compare import compare_lut_with_truth
from orchestrator.simulate.device import (
    GroundTruth,
    Noise,
    Scenario,
    StolenCore,
    Throttling,
    TrueCosts,
    write_model,
)
from orchestrator.tasks.exported_plan import ExportedPlan
from search.spaces import Arch, get_space
from tests.support.served_agent import ServedDevice

SPACE = "autovit-nano"
HELDOUT = 19
"""Fewest held-out networks from which a 95 % conformal width exists: it is their largest error."""
NETWORKS = 40
"""Networks whose predictions are compared with the truth in each profile; none of them is measured."""
WIDEST = 0.1
"""Half-width of predictions from which a LUT is of no use, and says so itself."""
POLICY = Policy(batch_models=15, min_rounds=10, max_rounds=20, min_passes=3, max_passes=3, cooling_s=0.0)
"""Few and large batches: a profile then takes seconds."""

_CONTEXT = TrueCosts(pair_sd=0.02, spill_ms_per_mib=0.05)
_BASE = Noise(load_sd=0.005, sample_sd=0.01, cold_share=0.02)
_HEAT = Throttling(tau_s=3.0)
"""Networks of `SPACE` take half a millisecond and a batch a second, so the case warms up twenty times as fast."""


def _scenario(name: str, costs: TrueCosts = _CONTEXT, **noise: object) -> Scenario:
    return Scenario(
        name=name,
        cores=2,
        costs=costs,
        noise=_BASE.model_copy(update=noise),
        load_ms=1.0,
        pause_s=0.1,
    )


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        _scenario("quiet"),
        _scenario("additive", TrueCosts()),
        _scenario("drift", drift_sd=0.03),
        _scenario("throttling", throttling=_HEAT),
        _scenario("throttling-silent", throttling=_HEAT.model_copy(update={"reported": False})),
        _scenario("stolen-core", stolen_core=StolenCore(mean_quiet_s=0.5, mean_burst_s=0.05)),
        _scenario("heavy-tails", outlier_share=0.1, outlier_scale=1.0, outlier_tail=1.1),
        _scenario("loads-differ", load_sd=0.02),
        _scenario("neighbours-disturb", cold_share=0.15, cold_runs=2, crowd_share=0.03, crowd_models=10),
        _scenario("wide-vectors", TrueCosts(depthwise=6.0, pair_sd=0.05, spill_ms_per_mib=0.2)),
    )
}


@dataclass(frozen=True)
class ProfileCoverage:
    """Coverage of one profile: 95 % intervals that contain the truth, or a new measurement, of how many."""

    rejected: str = ""
    entries: int = 0
    entries_covered: int = 0
    predictions: int = 0
    predictions_covered: int = 0
    measurements_covered: int = 0
    half_width: float = 0.0
    error: float = 0.0


@cache
def _plan() -> Plan:
    return make_plan(get_space(SPACE), design=24, heldout=HELDOUT, removals="reference")


@cache
def _networks() -> list[Arch]:
    """Networks of measured blocks that the plan does not measure."""
    rng, known = random.Random("calibration"), _plan().covered_keys()
    measured = {model.blocks for model in _plan().models}
    drawn = dict.fromkeys(get_space(SPACE).sample(rng) for _ in range(2000))
    new = [arch for arch in drawn if arch.keys() not in measured and known.issuperset(arch.keys())]
    return new[:NETWORKS]


def profile_coverage(scenario: Scenario, number: int, folder: Path) -> ProfileCoverage:
    """Profile the device of this number and compare its LUT with the truth."""
    costs = scenario.costs.model_copy(update={"seed": number})
    scenario = scenario.model_copy(update={"costs": costs, "noise_seed": number})
    plan, truth = _plan(), GroundTruth(costs)
    files = {model.model_id: write_model(model.blocks, folder / "models") for model in plan.models}
    exported = ExportedPlan(plan, files)
    try:
        with ServedDevice(simulated_agent(scenario, "token", ModelStore(folder / "store"))) as device:
            measurement = measure(
                device,
                Variant("simulated", "", threads=1),
                exported.model_set,
                folder / "journal.jsonl",
                POLICY,
                EngineOptions(budget_s=0),
            )
            lut = exported.lut(measurement, device.name)
    except BlocktimeError as error:
        return ProfileCoverage(rejected=str(error)[:200])
    compared = compare_lut_with_truth(lut, truth)
    predictions = [lut.predict(arch) for arch in _networks()]
    true_ms = compared.reference_ratio * np.array([truth.latency_ms(arch.keys()) for arch in _networks()])
    half_width = float(np.median([each.high / each.ms - 1 for each in predictions]))
    measured_ms = true_ms * np.exp(
        _standard_error(lut) * np.random.default_rng(number).normal(size=len(true_ms))
    )

    def covered(values: Floats) -> int:
        return sum(bool(each.low <= ms <= each.high) for each, ms in zip(predictions, values, strict=True))

    return ProfileCoverage(
        rejected=f"predicts within {100 * half_width:.0f} %" if half_width > WIDEST else "",
        entries=compared.entries,
        entries_covered=round(compared.covered * compared.entries),
        predictions=len(predictions),
        predictions_covered=covered(true_ms),
        measurements_covered=covered(measured_ms),
        half_width=half_width,
        error=float(np.mean([abs(each.ms / ms - 1) for each, ms in zip(predictions, true_ms, strict=True)])),
    )


def _standard_error(lut: Lut) -> float:
    """Return the median relative standard error of the held-out networks' measurements."""
    widths = [np.log(model.ci_high / model.ci_low) for model in lut.models if model.split == "heldout"]
    return float(np.median(widths)) / (2 * normal_quantile(0.5 + CONFIDENCE / 2))


def read_results(path: Path) -> dict[str, dict[int, ProfileCoverage]]:
    """Return the profiles so far by scenario and number; a line cut off by a kill is left out."""
    results: dict[str, dict[int, ProfileCoverage]] = {name: {} for name in SCENARIOS}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        name, number = record.pop("scenario"), record.pop("number")
        results.setdefault(name, {})[number] = ProfileCoverage(**record)
    return results


def _coverage(covered: Sequence[int], of: Sequence[int]) -> str:
    """Return the fraction in percent with a 95 % interval over profiles."""
    if len(of) < 2:
        return ""
    each = np.array(covered) / np.array(of)
    margin = 1.96 * each.std(ddof=1) / len(each) ** 0.5
    return f"{100 * each.mean():.1f} ± {100 * margin:.1f} %"


def summary(results: Mapping[str, Mapping[int, ProfileCoverage]]) -> Table:
    """Return the table of all scenarios."""
    table = Table(
        "scenario", "profiles", "rejected", "entries", "truth", "measurement", "half-width", "error"
    )
    for name, profiles in results.items():
        used = [each for each in profiles.values() if not each.rejected]
        widths = [
            f"{100 * np.mean([getattr(each, field) for each in used]):.2f} %"
            for field in ("half_width", "error")
        ]
        table.add_row(
            name,
            str(len(profiles)),
            str(len(profiles) - len(used)),
            _coverage([each.entries_covered for each in used], [each.entries for each in used]),
            *(
                _coverage([getattr(each, field) for each in used], [each.predictions for each in used])
                for field in ("predictions_covered", "measurements_covered")
            ),
            *(widths if used else ["", ""]),
        )
    return table


def main() -> int:
    """Profile until the time is over or every scenario has its profiles; print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.calibration")
    parser.add_argument(
        "scenarios", nargs="*", metavar="SCENARIO", help=f"default: all of {', '.join(SCENARIOS)}"
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="time budget (default: %(default)s)")
    parser.add_argument(
        "--profiles", type=int, default=100, help="profiles of each scenario (default: %(default)s)"
    )
    parser.add_argument(
        "--results", type=Path, default=Path("build/calibration.jsonl"), help="results so far"
    )
    options = parser.parse_args()
    if unknown := set(options.scenarios) - SCENARIOS.keys():
        parser.error(f"no scenario {', '.join(sorted(unknown))}; there are: {', '.join(SCENARIOS)}")
    names, end = options.scenarios or list(SCENARIOS), time.monotonic() + 60 * options.minutes
    results = read_results(options.results)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    with options.results.open("a") as out:
        out.write("\n")
        for number in range(options.profiles):
            for name in names:
                if number in results[name] or time.monotonic() > end:
                    continue
                with tempfile.TemporaryDirectory(prefix="calibration-") as folder:
                    coverage = profile_coverage(SCENARIOS[name], number, Path(folder))
                results[name][number] = coverage
                out.write(json.dumps({"scenario": name, "number": number} | asdict(coverage)) + "\n")
                out.flush()
    Console(width=120).print(summary(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())

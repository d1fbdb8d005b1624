"""Transfer between this machine's own variants, measured: to two threads, to int8, to portable kernels.

    python -m tools.benchmarks.transfer_host --plan-only     minutes that it takes
    python -m tools.benchmarks.transfer_host                 measure what is not measured yet, print the section
    python -m tools.benchmarks.transfer_host --design 6 --heldout 16 --draws 1      a quick try

One profile a variant, all of the same networks; a run that is cut off goes on when the command is repeated.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from luts.format.lut import Lut
from luts.format.store import LutStore
from orchestrator.journal.runs import runs_root
from orchestrator.tasks.plan import PlanChoice, PlannedProfile, plan_profile
from orchestrator.tasks.profile import profile
from orchestrator.tasks.target import Target
from tools.benchmarks._transfer_host_trial import (
    CALIBRATE_EACH,
    as_source,
    divided,
    noise,
    one_factor,
    order_of,
    score,
)
from tools.benchmarks._transfer_trial import COUNTS, METHODS, Score

SPACE = "autovit-nano"
DESIGN, HELDOUT = 10, 52
DRAWS = 4
BUDGET_S = 60.0
"""Passes after the three that are made whatever the budget."""

TARGETS: Mapping[str, Target] = {
    "fp32, 1 thread": Target("host", threads=1),
    "fp32, 2 threads": Target("host", threads=2),
    "int8": Target("host", precision="int8", threads=1),
    "portable kernels": Target("host", backend="portable", threads=1),
}
OTHERS = "the other three"
FIRST = "fp32, 1 thread"
MISSED = 0.010
COVERED = (0.92, 0.98)
WORSE = 1.1


@dataclass(frozen=True)
class Sizes:
    """How much is measured of a variant, and how often it is divided anew into what is fitted and what judges."""

    design: int = DESIGN
    heldout: int = HELDOUT
    draws: int = DRAWS

    @property
    def choice(self) -> PlanChoice:
        """The same networks for every variant: the plan knows nothing of it."""
        return PlanChoice(design=self.design, heldout=self.heldout, removals="none", sources="none")


@dataclass(frozen=True)
class Case:
    """A variant that is learned, and those that are its sources."""

    target: str
    sources: tuple[str, ...]

    @property
    def called(self) -> str:
        return f"{self.target}, from {OTHERS if len(self.sources) > 1 else self.sources[0]}"


CASES = (
    *(Case(name, (FIRST,)) for name in TARGETS if name != FIRST),
    *(Case(name, tuple(other for other in TARGETS if other != name)) for name in TARGETS),
)
Key = tuple[Case, str, str, int]
"""Case, networks (`random`, `chosen`), method and how many."""


def measure(sizes: Sizes) -> dict[str, Lut]:
    """A LUT of every variant, measured where it is not yet."""
    luts = {}
    for name, target in TARGETS.items():
        folder = runs_root() / "transfer" / f"{SPACE}-{sizes.design}-{sizes.heldout}" / target.variant.name
        print(f"{name}: {folder}", flush=True)
        luts[name] = profile(
            SPACE,
            target,
            sizes.choice,
            budget_s=BUDGET_S,
            narrow=0.0,
            run_folder=folder,
            reuse=True,
            store=LutStore([folder / "luts"]),
        ).lut
    return luts


def plans(sizes: Sizes) -> dict[str, PlannedProfile]:
    """What is to be measured, with its forecast."""
    return {
        name: plan_profile(SPACE, target, sizes.choice, budget_s=BUDGET_S, narrow=0.0, store=LutStore([]))
        for name, target in TARGETS.items()
    }


def run(luts: Mapping[str, Lut], draws: int) -> dict[Key, list[Score]]:
    """All cases."""
    scores: dict[Key, list[Score]] = {}
    for seed in range(draws):
        print(f"draw {seed + 1} of {draws} ...", flush=True)
        known = {name: as_source(name, lut, seed) for name, lut in luts.items()}
        for case in CASES:
            measured = divided(luts[case.target], seed)
            sources = [known[name] for name in case.sources]
            as_they_are = one_factor(measured, (), sources)
            for how in ("random", "chosen"):
                scores.setdefault((case, how, "one factor", 0), []).append(as_they_are)
                ordered = order_of(measured, sources, how == "chosen", seed)
                for count in COUNTS[1:]:
                    if count > len(ordered):
                        continue
                    for method in METHODS:
                        found = score(measured, ordered[:count], sources, method)
                        scores.setdefault((case, how, method, count), []).append(found)
    return scores


def section(sizes: Sizes) -> str:
    """The part of docs/benchmarks.md: measures what is not measured yet."""
    luts = measure(sizes)
    scores = run(luts, sizes.draws)
    named = luts[FIRST].meta
    head = "| learned | networks | method | " + " | ".join(map(str, COUNTS)) + " |"
    lines = []
    for case in CASES:
        for how in ("random", "chosen"):
            for method in METHODS:
                cells = [_cell(scores.get((case, how, method, count), ())) for count in COUNTS]
                lines.append(f"| {case.called} | {how} | {method} | " + " | ".join(cells) + " |")
    device, models, calibrating = named.device, len(luts[FIRST].models), max(COUNTS) // CALIBRATE_EACH
    return f"""## A variant of this machine from the LUTs of others, measured ({SPACE})

{named.versions.runtime} on {device.soc or device.model}, {device.cores} cores. One profile of each variant, of the
same {models} networks: the reference, {sizes.design} of a design, {sizes.heldout} random ones. Of these half judge
and are in no fit and no source; the others are what is learned from, and what the sources' LUTs rest on. The first
network is always the reference. A third as many more as are fitted, at most {calibrating}, calibrate
intervals, as `bench lut adapt` has it. Errors are of measurements, whose own noise no method can predict: a perfect
one would err by {_perfect(luts)}. Means of {sizes.draws} divisions. Three rules were made with
these figures in view: that sources which mislead alike are dropped together, that some are kept only where the rows
are e^2 times likelier with them than by physics, and that deviations from sources have both signs;
so these variants are no unseen devices.

{_missed(scores)}

{_in_short(scores)}

{head}
{"|---" * (3 + len(COUNTS)) + "|"}
{chr(10).join(lines)}
"""


def _cell(scores: Sequence[Score]) -> str:
    if not scores:
        return "-"
    covered = [one.coverage for one in scores if one.coverage is not None]
    return f"{_error(scores):.2%}" + (f", {np.mean(covered):.0%}" if covered else "")


def _error(scores: Sequence[Score]) -> float:
    return float(np.mean([one.mape for one in scores]))


def _perfect(luts: Mapping[str, Lut]) -> str:
    """Mean absolute error that normal noise of the judging networks leaves: sqrt(2 / pi) of its deviation."""
    parts = []
    for name, lut in luts.items():
        measured = divided(lut, 0)
        parts.append(f"{np.sqrt(2 / np.pi) * np.mean(noise(measured, measured.judged)):.2%} ({name})")
    return ", ".join(parts)


def _missed(scores: Mapping[Key, Sequence[Score]]) -> str:
    """Targets that are missed, in a line each."""
    missed = []
    for (case, how, method, count), found in scores.items():
        if method != "transfer":
            continue
        name, error = f"{case.called}, {count} {how} networks", _error(found)
        covered = float(np.mean([one.coverage for one in found if one.coverage is not None]))
        scratch = _error(scores[case, how, "scratch", count])
        if count == 10 and error > MISSED:
            missed.append(f"{name}: MAPE {error:.2%}, above {MISSED:.1%}")
        if count >= 10 and not COVERED[0] <= covered <= COVERED[1]:
            missed.append(
                f"{name}: {covered:.1%} inside the 95 % interval, outside {COVERED[0]:.0%} to {COVERED[1]:.0%}"
            )
        if error > WORSE * scratch:
            missed.append(f"{name}: {error:.2%} by transfer, {scratch:.2%} from scratch")
    return (
        "Targets missed:\n\n" + "\n".join(f"- {line}" for line in missed)
        if missed
        else "No target is missed."
    )


def _in_short(scores: Mapping[Key, Sequence[Score]]) -> str:
    """A line for each number of networks: mean errors over all cases, and where transfer is worse."""
    lines = []
    for count in COUNTS[1:]:
        errors = {
            method: [
                _error(found) for (_, _, by, many), found in scores.items() if (by, many) == (method, count)
            ]
            for method in ("scratch", "transfer")
        }
        if not errors["transfer"]:
            continue
        pairs = list(zip(errors["transfer"], errors["scratch"], strict=True))
        worse = sum(borrowed > WORSE * scratch for borrowed, scratch in pairs)
        lines.append(
            f"- {count} networks: {np.mean(errors['transfer']):.2%} by transfer, "
            f"{np.mean(errors['scratch']):.2%} from scratch; transfer is worse by more than a tenth in {worse} of "
            f"{len(pairs)}"
        )
    return "Mean error over what is learned, random and chosen networks alike:\n\n" + "\n".join(lines)


def _forecast(sizes: Sizes) -> str:
    lines, whole_s = [], 0.0
    exported = set()
    for name, plan in plans(sizes).items():
        variant = TARGETS[name].variant
        same = variant.target, variant.precision
        export_s = 0.0 if same in exported or plan.export_s is None else plan.export_s
        exported.add(same)
        device_s = plan.forecast.device_s
        whole_s += export_s + device_s
        lines.append(
            f"{name}: {len(plan.plan.models)} networks, {device_s / 60:.1f} min of measuring (assumed latencies), "
            f"{export_s / 60:.1f} min of exports ({plan.cached or 0} are there)"
        )
    return "\n".join([*lines, f"all: {whole_s / 60:.0f} min, and the fits of {sizes.draws} divisions"])


def main(sizes: Sizes | None = None) -> str:
    """The section of docs/benchmarks.md; about 20 minutes on two quiet cores."""
    return section(sizes or Sizes())


def command() -> None:
    """Parse options, print the forecast or the section."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plan-only", action="store_true", help="how long it takes; measures nothing")
    for name, default in (("design", DESIGN), ("heldout", HELDOUT), ("draws", DRAWS)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    sizes = Sizes(given.design, given.heldout, given.draws)
    print(_forecast(sizes) if given.plan_only else main(sizes))


if __name__ == "__main__":
    command()

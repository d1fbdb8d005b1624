"""Transfer between measured variants of this machine: two threads, int8, portable kernels (`autovit-nano`).

One profile per variant, all of the same networks; finished profiles are reused and interrupted ones resumed. Half
of the random networks evaluate and are in no fit and no source; the others are learned from.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from luts.build import build_lut, estimates_of, fit_measured
from luts.estimate.design import most_informative, prior_from_sources
from luts.estimate.ratios import RatioEstimates
from luts.estimate.sources import SourceEntries, source_from_lut
from luts.estimate.statistics import mape
from luts.format.lut import Lut
from luts.format.schema import KeyFeatures, LutInputs, MeasuredModel, ModelSpec
from luts.format.store import LutStore
from orchestrator.journal.runs import runs_root
from orchestrator.tasks.plan import PlanOptions, ProfileCommand
from orchestrator.tasks.profile import profile
from orchestrator.tasks.target import Target
from tools.benchmarks.transfer import (
    COUNTS,
    METHODS,
    Networks,
    Score,
    entries_of,
    one_factor,
    predicted_ms,
    score_row,
)
from tools.tables import Tables, log

SPACE = "autovit-nano"
DESIGN, HELDOUT, DRAWS = 10, 52, 4
BUDGET_S = 60.0
"""Time for further passes; the three passes that a profile always makes take longer."""
TARGETS: Mapping[str, Target] = {
    "fp32, 1 thread": Target("host", threads=1),
    "fp32, 2 threads": Target("host", threads=2),
    "int8": Target("host", precision="int8", threads=1),
    "portable kernels": Target("host", backend="portable", threads=1),
}
FIRST = "fp32, 1 thread"
EVALUATED = 0.5
"""Fraction of the random networks that evaluate."""
CALIBRATE_EACH = 3
"""One network is held out for every three that are fitted, to calibrate intervals, as in `bench lut adapt`."""


def main(draws: int = DRAWS) -> Tables:
    """Learn each variant from the first one, and from the other three; means over divisions, in percent."""
    plan = PlanOptions(design=DESIGN, heldout=HELDOUT, removals="none")
    luts = {}
    for name, target in TARGETS.items():
        folder = runs_root() / "transfer" / f"{SPACE}-{DESIGN}-{HELDOUT}" / target.variant.name
        luts[name] = profile(
            ProfileCommand(
                space=SPACE,
                target=target,
                plan=plan,
                sources="none",
                budget_s=BUDGET_S,
                narrow=0.0,
                run_folder=folder,
                reuse=True,
                store=LutStore([folder / "luts"]),
            ),
            log,
        ).lut
    noises = []
    for name, lut in luts.items():
        measured = divided(lut, 0)
        error = np.sqrt(2 / np.pi) * np.mean(noise(measured, measured.evaluated))
        noises.append({"variant": name, "error of a perfect predictor": 100 * float(error)})
    return {"Transfer between variants of this machine": evaluate(luts, draws), "Noise": noises}


def evaluate(luts: Mapping[str, Lut], draws: int) -> list[dict[str, object]]:
    """Return the errors of every method by variant, sources and number of networks."""
    cases: list[tuple[str, tuple[str, ...]]] = [(name, (FIRST,)) for name in luts if name != FIRST]
    cases += [(name, tuple(other for other in luts if other != name)) for name in luts]
    scores: dict[tuple[str, str, str, str, int], list[Score]] = {}
    for seed in range(draws):
        log(f"draw {seed + 1} of {draws} ...")
        known = {name: as_source(name, lut, seed) for name, lut in luts.items()}
        for target, names in cases:
            measured, sources = divided(luts[target], seed), [known[name] for name in names]
            for how in ("random", "chosen"):
                case = target, " and ".join(names), how
                as_they_are = score(measured, (), sources, "one factor")
                scores.setdefault((*case, "one factor", 0), []).append(as_they_are)
                ordered = order_of(measured, sources, how == "chosen", seed)
                for count in (each for each in COUNTS[1:] if each <= len(ordered)):
                    for method in METHODS:
                        found = score(measured, ordered[:count], sources, method)
                        scores.setdefault((*case, method, count), []).append(found)
    columns = ("variant", "sources", "networks", "method", "learned")
    return [dict(zip(columns, key, strict=True)) | score_row(found) for key, found in scores.items()]


@dataclass(frozen=True)
class Measured:
    """Networks of a variant: `first` is the reference, `pool` may be fitted, `evaluated` never is."""

    estimates: RatioEstimates
    features: Mapping[str, KeyFeatures]
    first: MeasuredModel
    pool: tuple[MeasuredModel, ...]
    calibrating: tuple[MeasuredModel, ...]
    evaluated: tuple[MeasuredModel, ...]


def divided(lut: Lut, seed: int) -> Measured:
    """Divide a variant's random networks by a seed; equal seeds divide all variants equally."""
    heldout = sorted((model for model in lut.models if model.split == "heldout"), key=lambda m: m.model_id)
    random.Random(f"divide:{seed}").shuffle(heldout)
    evaluated = int(EVALUATED * len(heldout))
    spare = max(COUNTS) // CALIBRATE_EACH
    design = [model for model in lut.models if model.role == "design"]
    return Measured(
        estimates_of(lut).ratios,
        {entry.key: entry.features for entry in lut.entries},
        lut.reference,
        (*heldout[evaluated + spare :], *design),
        tuple(heldout[evaluated : evaluated + spare]),
        tuple(heldout[:evaluated]),
    )


def as_source(name: str, lut: Lut, seed: int) -> SourceEntries:
    """Return a variant's LUT of all but the evaluated networks, as `--from` reads it."""
    evaluated = {model.model_id for model in divided(lut, seed).evaluated}
    specs = [_fitted(model) for model in lut.models if model.model_id not in evaluated]
    features = {entry.key: entry.features for entry in lut.entries}
    kept = build_lut(
        LutInputs.of(lut.meta),
        [ModelSpec.of(spec) for spec in specs],
        estimates_of(lut).without(evaluated),
        features,
    )
    return source_from_lut(name, kept)


def order_of(
    measured: Measured, sources: Sequence[SourceEntries], chosen: bool, seed: int
) -> list[MeasuredModel]:
    """Return the reference, then the others: at random, or the most informative ones by the sources' prior."""
    pool = list(measured.pool)
    if not chosen:
        random_ones = [model for model in pool if model.split == "heldout"]
        random.Random(f"order:{seed}").shuffle(random_ones)
        return [measured.first, *random_ones]
    typical = [model.blocks for model in (*measured.pool, *measured.calibrating) if model.split == "heldout"]
    posterior = prior_from_sources(measured.features, sources, typical)
    targets = np.stack([posterior.row(blocks) for blocks in typical])
    ordered = [measured.first]
    while pool and len(ordered) < max(COUNTS):
        posterior.learn(posterior.row(ordered[-1].blocks))
        rows = np.stack([posterior.row(model.blocks) for model in pool])
        ordered.append(pool.pop(most_informative(posterior, rows, targets)))
    return ordered


def score(
    measured: Measured, ordered: Sequence[MeasuredModel], sources: Sequence[SourceEntries], method: str
) -> Score:
    """Return a method's errors after the networks in `ordered`, of which there is at least one but for a factor."""
    evaluated = networks_of(measured.evaluated)
    if method == "one factor":
        return one_factor(sources, networks_of(ordered), evaluated, evaluated.ms)
    held = measured.calibrating[: max(1, len(ordered) // CALIBRATE_EACH)]
    fit = fit_measured(
        [*map(_fitted, ordered), *held],
        measured.estimates,
        measured.features,
        sources if method == "transfer" else (),
    )
    entries = entries_of(method, fit)
    half = fit.half_width(held, predicted_ms(entries, networks_of(held)).tolist(), noise(measured, held))
    predicted = predicted_ms(entries, evaluated)
    inside = np.abs(evaluated.ms / predicted - 1) <= (half or 0.0)
    return Score(mape(evaluated.ms.tolist(), predicted.tolist()), float(inside.mean()), tuple(fit.dropped))


def networks_of(models: Sequence[MeasuredModel]) -> Networks:
    """Return measured models as networks."""
    return Networks(
        tuple(model.blocks for model in models),
        tuple(model.boundary_bytes for model in models),
        np.array([model.ms for model in models]),
    )


def _fitted(model: MeasuredModel) -> MeasuredModel:
    return model if model.split == "fit" else model.model_copy(update={"split": "fit", "role": "design"})


def noise(measured: Measured, models: Sequence[MeasuredModel]) -> list[float]:
    """Return the relative standard errors of measurements."""
    return [measured.estimates.ratios[model.model_id].se for model in models]

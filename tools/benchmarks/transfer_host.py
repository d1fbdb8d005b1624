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
from luts.estimate.joint import JointFit
from luts.estimate.ratios import RatioEstimates
from luts.estimate.sources import SourceEntries, source_from_lut
from luts.estimate.statistics import mape
from luts.format.latency import latency_ms
from luts.format.lut import Lut
from luts.format.schema import KeyFeatures, LutInputs, MeasuredModel, ModelSpec
from luts.format.store import LutStore
from orchestrator.journal.runs import runs_root
from orchestrator.tasks.plan import PlanChoice
from orchestrator.tasks.profile import profile
from orchestrator.tasks.target import Target
from tools.benchmarks.transfer_trial import COUNTS, METHODS, Score, score_row
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
    choice = PlanChoice(design=DESIGN, heldout=HELDOUT, removals="none", sources="none")
    luts = {}
    for name, target in TARGETS.items():
        folder = runs_root() / "transfer" / f"{SPACE}-{DESIGN}-{HELDOUT}" / target.variant.name
        luts[name] = profile(
            SPACE,
            target,
            choice,
            budget_s=BUDGET_S,
            narrow=0.0,
            run_folder=folder,
            reuse=True,
            store=LutStore([folder / "luts"]),
            progress=log,
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
                as_they_are = one_factor(measured, (), sources)
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
    """Networks of a variant: `first` is the reference, `pool` may be fitted, `evaluated` never are."""

    estimates: RatioEstimates
    features: Mapping[str, KeyFeatures]
    first: MeasuredModel
    pool: tuple[MeasuredModel, ...]
    calibrating: tuple[MeasuredModel, ...]
    evaluated: tuple[MeasuredModel, ...]


def divided(lut: Lut, seed: int) -> Measured:
    """A variant's networks, its random ones divided by a seed; equal seeds divide all variants alike."""
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
    """A variant's LUT of all but the networks that judge, as `--from` reads it."""
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
    """The reference, then the others: at random, or each where it tells most under the sources' prior."""
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
    """A method after the networks in `ordered`, of which there is at least one."""
    if method == "one factor":
        return one_factor(measured, ordered, sources)
    held = measured.calibrating[: max(1, len(ordered) // CALIBRATE_EACH)]
    fit = fit_measured(
        [*map(_fitted, ordered), *held],
        measured.estimates,
        measured.features,
        sources if method == "transfer" else (),
    )
    half = fit.half_width(held, _predicted(fit, held), noise(measured, held))
    guess = _predicted(fit, measured.evaluated)
    truth = [model.ms for model in measured.evaluated]
    inside = [abs(ms / at - 1) <= (half or 0.0) for ms, at in zip(truth, guess, strict=True)]
    return Score(mape(truth, guess), float(np.mean(inside)), tuple(fit.dropped))


def _fitted(model: MeasuredModel) -> MeasuredModel:
    return model if model.split == "fit" else model.model_copy(update={"split": "fit", "role": "design"})


def _predicted(fit: JointFit, models: Sequence[MeasuredModel]) -> list[float]:
    entry_ms = dict(zip(fit.keys, fit.ms.tolist(), strict=True))
    return [
        latency_ms(entry_ms, fit.base_ms, fit.transfer_ms_per_mib, model.blocks, model.boundary_bytes)
        for model in models
    ]


def noise(measured: Measured, models: Sequence[MeasuredModel]) -> list[float]:
    """Relative standard errors of their measurements."""
    return [measured.estimates.ratios[model.model_id].se for model in models]


def one_factor(
    measured: Measured, ordered: Sequence[MeasuredModel], sources: Sequence[SourceEntries]
) -> Score:
    """The source that fits best, times one factor; without a network the mean error of all as they are."""
    truth = [model.ms for model in measured.evaluated]
    errors = []
    for source in sources:
        seen, asked = (
            np.array([_by_source(source, model) for model in models])
            for models in (ordered, measured.evaluated)
        )
        ms = np.array([model.ms for model in ordered])
        factor = float((ms / seen).mean()) if len(ordered) else 1.0
        misfit = float(np.abs(ms / (factor * seen) - 1).mean()) if len(ordered) else 0.0
        errors.append((misfit, mape(truth, (factor * asked).tolist())))
    return Score(min(errors)[1] if len(ordered) else float(np.mean([error for _, error in errors])), None)


def _by_source(source: SourceEntries, model: MeasuredModel) -> float:
    return latency_ms(
        source.entry_ms, source.base_ms, source.transfer_ms_per_mib, model.blocks, model.boundary_bytes
    )

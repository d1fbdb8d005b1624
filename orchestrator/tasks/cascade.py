"""Cascades of `bench search --adaptive` and `bench eval --adaptive`: candidates, predictions, files, replay."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from luts.format.errors import InfeasibleError, UsageError
from orchestrator.accuracy.predictions import ImageSet, PredictionCache, Predictions
from orchestrator.accuracy.program import predict_with_program
from orchestrator.agent.device import threads_by_default
from orchestrator.export.artifacts.spec import Variant
from orchestrator.tasks.models import export_all
from orchestrator.tasks.progress import Progress, Step
from orchestrator.winner.card import save_weights, weighted, winner_variants, write_network
from orchestrator.winner.winner import RESULT_FILE
from search.algorithms import Constraints, LutPrice, PricedArch, SearchResult, pareto_front
from search.algorithms.adaptive import AdaptiveResult, Cascade, CascadeLimits, ScoredArch, best_cascade
from search.algorithms.study import Candidates
from search.spaces import Space
from search.spaces.registry import arch_from_json
from search.supernet.inherit import InheritedAccuracy, Scores

RUNGS = 8
"""Latencies, up to the worst case, at which the largest network of each resolution is a candidate."""

MOST_OF_FRONT = 32
"""Networks of the search's front that are candidates; each costs an evaluation, and neighbours differ little."""


def largest_within(
    space: Space, price: LutPrice, constraints: Constraints, limits: CascadeLimits, images: int
) -> list[PricedArch]:
    """Return the largest networks of each resolution within latencies up to the worst case's limit.

    Raises:
        InfeasibleError: no network or no two networks are within the limits; the message says what can be reached.
        UsageError: the LUT lacks blocks of the space.
    """

    def within(part: Space, latency_ms: float) -> Candidates:
        limited = constraints.model_copy(update={"latency_ms": latency_ms})
        return Candidates(part, price, limited, 1, np.random.default_rng(0))

    smallest_ms = within(space, limits.latency_ms).smallest_ms
    rungs = np.geomspace(smallest_ms * (1 + 1e-9), limits.worst_ms, RUNGS)  # the sum rounds in another order
    rows: dict[str, PricedArch] = {}
    for resolution in space.resolutions:
        part = space.restricted((resolution,))
        for latency_ms in sorted({*rungs.tolist(), limits.latency_ms}):
            try:
                candidates = within(part, latency_ms)
            except InfeasibleError:
                continue  # this resolution has no network that fast
            rows |= {row.arch: row for row in candidates.compiled.priced(candidates.largest(1))}
    limits.check([limits.price(row.latency_ms, row.latency_high_ms) for row in rows.values()], images)
    return list(rows.values())


def choose_cascade(
    result: SearchResult,
    largest: Sequence[PricedArch],
    limits: CascadeLimits,
    inherited: InheritedAccuracy,
    folder: Path,
    progress: Progress,
) -> AdaptiveResult:
    """Return the best cascade of a search's front and the largest networks, by predictions on the search split.

    Predictions are cached in the folder as they are made, so that a repeated search does not make them again.

    Raises:
        InfeasibleError: no cascade is within the limits.
        InvalidArtifactError: cached predictions are damaged.
    """
    front = pareto_front(result.evaluated, ("accuracy", "latency"))
    spread = np.unique(np.linspace(0, len(front) - 1, MOST_OF_FRONT).astype(int))
    rows = list({row.arch: row for row in (*largest, *(front[at] for at in spread))}.values())
    images, labels = _held_out(inherited)
    predictions = []
    for done, row in enumerate(rows):
        progress(Step("predicting the search split", done, len(rows)))
        cache = PredictionCache(folder, f"inherited {inherited.fingerprint} {row.arch}", images)
        known = cache.read()
        if known is None:
            known = Predictions.of_logits(inherited.outputs(row.architecture())[0].float().cpu().numpy())
            cache.write(known)
        predictions.append(known)
    correct = np.array([each.correct(labels) for each in predictions])
    scored = [
        ScoredArch(**row.model_dump(include=set(ScoredArch.model_fields)) | {"accuracy": top1})
        for row, top1 in zip(rows, correct.mean(axis=1).tolist(), strict=True)
    ]
    confidences = np.array([each.confidence for each in predictions], np.float64)
    cascade = best_cascade(scored, confidences, correct, limits)
    as_fast = [row for row in scored if row.latency_ms <= cascade.expected_ms]
    within = [row for row in scored if limits.price(row.latency_ms, row.latency_high_ms) <= limits.latency_ms]
    return AdaptiveResult(
        cascade=cascade,
        candidates=len(scored),
        equal=max(as_fast, key=lambda row: (row.accuracy, -row.latency_ms)),
        largest=max(within, key=lambda row: (row.macs, row.params)),
    )


def write_stages(
    cascade: Cascade,
    variant: Variant,
    inherited: InheritedAccuracy,
    folder: Path,
    workers: int | None,
    progress: Progress,
) -> None:
    """Write architecture, weights and exported models of each stage, `stage1.pte` and so on."""
    for number, stage in enumerate(cascade.stages, start=1):
        arch = arch_from_json(stage.arch)
        weights = save_weights(inherited, arch, folder / "weights")
        specs = {
            each.name: weighted(each.export_spec(arch.keys()), weights) for each in winner_variants(variant)
        }
        artifacts = export_all(specs, workers, progress)
        write_network(folder, f"stage{number}", arch, weights, artifacts.values())


def replay_cascade(
    folder: Path, inherited: InheritedAccuracy, progress: Progress
) -> tuple[Mapping[str, Any], Scores, str]:
    """Run the exported stages of a search's folder on held-out images, each stage on those that reach it.

    Latencies are sums of the stages' predicted ones, not measured.

    Returns:
        What the command prints, top-1 and top-5, and a text that identifies the cascade.

    Raises:
        UsageError: the folder has no cascade, another supernet's, or one with a threshold that no image passes.
        InvalidArtifactError: a file is missing or damaged.
    """
    result = SearchResult.load(folder / RESULT_FILE, "search again with --adaptive cascade")
    if result.cascade is None or result.provenance is None:
        raise UsageError(f"{folder} has no cascade; search with --adaptive cascade", code="no_cascade")
    if result.provenance.checkpoint != inherited.info.weights_sha256:
        raise UsageError(f"{folder} is of another supernet; name that with --supernet", code="other_supernet")
    promised = result.cascade.cascade
    images, labels = _held_out(inherited)
    shape, reached = (len(promised.stages), len(labels)), np.arange(len(labels))
    confidences, first, five = np.full(shape, np.nan), np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    for stage in range(len(promised.stages)):
        if len(reached):
            progress(Step("replaying stages", stage, len(promised.stages)))
            part = replace(images, indices=images.indices[reached])
            path = folder / f"stage{stage + 1}.pte"
            predictions = predict_with_program(path, part, workers=threads_by_default())
            confidences[stage, reached] = predictions.confidence
            first[stage, reached] = predictions.correct(labels[reached])
            five[stage, reached] = predictions.correct(labels[reached], among=5)
        if stage < len(promised.thresholds):
            reached = reached[confidences[stage, reached] < promised.thresholds[stage]]
    seen = promised.replayed(confidences, first)
    scores = Scores(seen.accuracy, promised.replayed(confidences, five).accuracy)
    stage_ms = np.cumsum([stage.latency_ms for stage in seen.stages])
    p90_ms = float(np.quantile(np.repeat(stage_ms, seen.answered), 0.9, method="inverted_cdf"))
    facts = {
        "cascade": str(folder),
        "split": inherited.split_name,
        "images": seen.images,
        "top1": scores.top1,
        "top5": scores.top5,
        "top1_promised": promised.accuracy,
        "shares": [round(share, 4) for share in seen.shares],
        "shares_promised": [round(share, 4) for share in promised.shares],
        "latency": f"predicted by {result.lut_names[0]}, not measured",
        "mean_ms": seen.expected_ms,
        "mean_ms_promised": promised.expected_ms,
        "mean_ms_bound": promised.expected_high_ms,
        "p90_ms": p90_ms,
        "worst_ms": float(stage_ms[np.flatnonzero(seen.answered)[-1]]),
        "worst_ms_bound": promised.worst_high_ms,
    }
    digest = hashlib.sha256(promised.model_dump_json(include={"stages", "thresholds"}).encode()).hexdigest()
    return facts, scores, f"cascade {digest}"


def _held_out(inherited: InheritedAccuracy) -> tuple[ImageSet, np.ndarray]:
    """Return the images of an evaluation and their labels, (N,)."""
    data = inherited.data
    images = ImageSet(data.source.name, data.source.digest, inherited.held_out, data.side)
    return images, data.source.labels[inherited.held_out]

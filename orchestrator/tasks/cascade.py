"""Cascades and exits of `bench search --adaptive` and `bench eval --adaptive`: candidates, choice and replay."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from luts.format.errors import InfeasibleError, UsageError
from orchestrator.accuracy.predictions import ImageSet, PredictionCache, Predictions
from orchestrator.accuracy.program import predict_with_program
from orchestrator.agent.device import threads_by_default
from orchestrator.tasks.progress import Progress, Step
from orchestrator.winner.winner import RESULT_FILE
from search.algorithms import Constraints, LutPrice, PricedArch, SearchResult, pareto_front
from search.algorithms.adaptive import (
    AdaptiveResult,
    CascadeLimits,
    ScoredArch,
    Segments,
    best_cascade,
)
from search.algorithms.study import Candidates
from search.blocks import BlockSpec, boundary_bytes
from search.blocks.sequence import count
from search.spaces import Space, arch_from_json
from search.supernet.inherit import InheritedAccuracy, Scores

RUNGS = 8
"""Latencies, up to the worst case, at which the largest network of each resolution is a candidate."""

MOST_OF_FRONT = 32
"""Networks of the search's front that are candidates; each costs an evaluation, and neighbours differ little."""


def largest_within(
    space: Space, price: LutPrice, constraints: Constraints, limits: CascadeLimits, images: int
) -> list[PricedArch]:
    """Return the largest networks of each resolution, with exits if wanted, within latencies up to the worst case.

    Raises InfeasibleError, which says what can be reached, if no two networks or no exit meet the limits, and
    UsageError if the space has no exits.
    """
    whole = space
    if limits.kind == "exits":
        if len(space.stage_counts) < 2:
            raise UsageError(
                f"{space.name} has no exits: the networks searched have {space.stage_counts[0]} stages; use "
                "--adaptive cascade, or a supernet with several numbers of stages",
                code="no_exits",
            )
        space = replace(space, stage_counts=space.stage_counts[1:])

    def within(part: Space, latency_ms: float) -> Candidates:
        limited = constraints.model_copy(update={"latency_ms": latency_ms})
        return Candidates(part, price, limited, 1, np.random.default_rng(0))

    smallest_ms = within(space, limits.worst_ms if limits.kind == "exits" else limits.latency_ms).smallest_ms
    rungs = np.geomspace(smallest_ms * (1 + 1e-9), limits.worst_ms, RUNGS)  # the sum rounds in another order
    rows: dict[str, PricedArch] = {}
    for part in (space.restricted((resolution,)) for resolution in space.resolutions):
        for latency_ms in sorted({*rungs.tolist(), limits.latency_ms}):
            try:
                candidates = within(part, latency_ms)
            except InfeasibleError:
                continue  # this resolution has no network that fast
            rows |= {row.arch: row for row in candidates.compiled.priced(candidates.largest(1))}
    scored, segments = _with_exits([_scored(row) for row in rows.values()], whole, price, limits)
    limits.check(*limits.prices(scored, segments), images)
    return list(rows.values())


def _scored(row: PricedArch) -> ScoredArch:
    """Return a priced network as a candidate, its top-1 not known yet."""
    return ScoredArch(**(row.model_dump(include=set(ScoredArch.model_fields)) | {"accuracy": 0.0}))


def _with_exits(
    rows: Sequence[ScoredArch], space: Space, price: LutPrice, limits: CascadeLimits
) -> tuple[list[ScoredArch], Segments | None]:
    """Return candidates with the exits of each, in order of their JSON, and the segments after the exits.

    Each call of a segment costs the base and its blocks. Two networks of a cascade have no segments.
    """
    known, after = {row.arch: row for row in rows}, {}
    if limits.kind == "exits":
        for row in rows:
            arch = arch_from_json(row.arch)
            for early in space.exits(arch):
                name = early.to_json()
                known[name] = _priced(name, early.blocks(), price, limits)
                after[name, row.arch] = _priced(row.arch, arch.after_exit(early), price, limits)
    ordered = sorted(known)  # equal first stages share cached activations
    segments = {(ordered.index(exit_), ordered.index(whole)): row for (exit_, whole), row in after.items()}
    return [known[arch] for arch in ordered], segments if limits.kind == "exits" else None


def _priced(arch: str, blocks: Sequence[BlockSpec], price: LutPrice, limits: CascadeLimits) -> ScoredArch:
    """Return a network or a segment of it with its predicted latency."""
    keys, sent_bytes, (params, macs) = [block.key for block in blocks], boundary_bytes(blocks), count(blocks)
    return ScoredArch(
        arch=arch,
        latency_ms=price.model.predict(keys, sent_bytes).ms,
        latency_high_ms=price.model.bound_ms(keys, sent_bytes, limits.confidence),
        params=params,
        macs=macs.conv_linear,
        accuracy=0.0,
    )


def choose_cascade(
    result: SearchResult,
    largest: Sequence[PricedArch],
    limits: CascadeLimits,
    space: Space,
    price: LutPrice,
    inherited: InheritedAccuracy,
    folder: Path,
    progress: Progress,
) -> AdaptiveResult:
    """Return the best cascade of a search's front and the largest networks, by predictions on the search split.

    Predictions are cached in the folder as they are made. Raises InfeasibleError if no cascade meets the limits.
    """
    front = pareto_front(result.evaluated, ("accuracy", "latency"))
    spread = np.unique(np.linspace(0, len(front) - 1, MOST_OF_FRONT).astype(int))
    known_rows = {row.arch: _scored(row) for row in (*largest, *(front[at] for at in spread))}
    rows, segments = _with_exits(list(known_rows.values()), space, price, limits)
    images, labels = _held_out(inherited)
    predictions = []
    for done, row in enumerate(rows):
        progress(Step("predicting the search split", done, len(rows)))
        cache = PredictionCache(folder, f"inherited {inherited.fingerprint} {row.arch}", images)
        known = cache.read()
        if known is None:
            known = Predictions.of_logits(
                inherited.outputs(arch_from_json(row.arch))[0].float().cpu().numpy()
            )
            cache.write(known)
        predictions.append(known)
    correct = np.array([each.correct(labels) for each in predictions])
    top1 = correct.mean(axis=1).tolist()
    scored = [row.model_copy(update={"accuracy": value}) for row, value in zip(rows, top1, strict=True)]
    if segments is not None:
        segments = {at: row.model_copy(update={"accuracy": top1[at[1]]}) for at, row in segments.items()}
    confidences = np.array([each.confidence for each in predictions])
    cascade = best_cascade(scored, confidences, correct, limits, segments)
    as_fast = [row for row in scored if row.latency_ms <= cascade.expected_ms]
    within = [row for row in scored if limits.price(row.latency_ms, row.latency_high_ms) <= limits.latency_ms]
    return AdaptiveResult(
        cascade=cascade,
        candidates=len(scored),
        equal=max(as_fast, key=lambda row: (row.accuracy, -row.latency_ms)),
        largest=max(within, key=lambda row: (row.macs, row.params)),
    )


def replay_cascade(
    folder: Path, inherited: InheritedAccuracy, progress: Progress
) -> tuple[dict[str, Any], Scores, str]:
    """Run the exported stages of a search's folder on held-out images, each stage on those that reach it.

    Returns what the command prints, top-1 and top-5, and a text that identifies the cascade. Latencies are sums of
    the stages' predicted ones.

    Raises:
        UsageError: the folder has no cascade, another supernet's, or one with a threshold that no image passes.
        InvalidArtifactError: a file is missing or damaged.
    """
    result = SearchResult.load(folder / RESULT_FILE, "search again with --adaptive")
    if result.cascade is None or result.adaptive is None or result.provenance is None:
        raise UsageError(
            f"{folder} has no cascade; search with --adaptive cascade or exits", code="no_cascade"
        )
    if result.provenance.checkpoint != inherited.info.weights_sha256:
        raise UsageError(f"{folder} is of another supernet; name that with --supernet", code="other_supernet")
    promised = result.cascade.cascade
    images, labels = _held_out(inherited)
    shape, reached = (len(promised.stages), len(labels)), np.arange(len(labels))
    confidences, first, five = np.full(shape, np.nan), np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    for stage, threshold in enumerate((*promised.thresholds, 1.0)):
        if len(reached):
            progress(Step("replaying stages", stage, len(promised.stages)))
            part, path = replace(images, indices=images.indices[reached]), folder / f"stage{stage + 1}.pte"
            prefix = folder / "stage1.pte" if stage and result.adaptive.kind == "exits" else None
            predictions = predict_with_program(path, part, prefix=prefix, workers=threads_by_default())
            confidences[stage, reached] = predictions.confidence
            first[stage, reached] = predictions.correct(labels[reached])
            five[stage, reached] = predictions.correct(labels[reached], among=5)
            reached = reached[confidences[stage, reached] < threshold]
    seen = promised.replayed(confidences, first)
    scores = Scores(seen.accuracy, promised.replayed(confidences, five).accuracy)
    image_ms = np.repeat(np.cumsum([stage.latency_ms for stage in seen.stages]), seen.answered)
    facts = {
        "split": inherited.split_name,
        "images": seen.images,
        "top1": scores.top1,
        "top1_promised": promised.accuracy,
        "top5": scores.top5,
        "shares": [round(share, 4) for share in seen.shares],
        "shares_promised": [round(share, 4) for share in promised.shares],
        "latency": f"predicted by {result.lut_names[0]}, not measured",
        "mean_ms": seen.expected_ms,
        "mean_ms_promised": promised.expected_ms,
        "mean_ms_bound": promised.expected_high_ms,
        "p90_ms": float(np.quantile(image_ms, 0.9, method="inverted_cdf")),
        "worst_ms": float(image_ms.max()),
    }
    digest = hashlib.sha256(repr((promised.stages, promised.thresholds)).encode()).hexdigest()
    return facts, scores, f"cascade {digest}"


def _held_out(inherited: InheritedAccuracy) -> tuple[ImageSet, np.ndarray]:
    """Return the images of an evaluation and their labels, (N,)."""
    data = inherited.data
    images = ImageSet(data.source.name, data.source.digest, inherited.held_out, data.side)
    return images, data.source.labels[inherited.held_out]

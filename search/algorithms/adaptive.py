"""Cascades: networks that run one after another until one is confident, their expected latency and their choice.

A network with an exit is a cascade of its two segments: up to the exit, and from the map there to the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from luts.format.errors import InfeasibleError, UsageError
from luts.format.schema import Count, Floats, Fraction, PositiveMs, Value
from search.spaces.registry import MAX_ARCH_BYTES


def share_bound(count: Any, images: int, confidence: float) -> Floats:
    """Return the upper bound on a share of which `count` of `images` were seen, elementwise.

    It is the exact one-sided bound of Clopper and Pearson (Biometrika 1934), and holds for a threshold placed so
    that `count` of these images fall below it: their true share is then at most Beta(count + 1, images - count).
    """
    from scipy.special import betaincinv

    bound = betaincinv(np.asarray(count) + 1, np.maximum(images - np.asarray(count), 1), confidence)
    return np.asarray(np.where(np.asarray(count) >= images, 1.0, bound), np.float64)


class ScoredArch(Value):
    """An architecture (canonical JSON): predicted latency, its upper bound, size, and top-1 when it runs alone.

    The last stage of a network with an exit has the latency and size of its segment, and the network's top-1.
    """

    arch: str = Field(max_length=MAX_ARCH_BYTES)
    latency_ms: PositiveMs
    latency_high_ms: PositiveMs
    params: Count
    macs: Count
    accuracy: Fraction


class Cascade(Value):
    """Networks of one supernet that run in order until the confidence of one reaches its threshold.

    The confidence is the largest softmax probability. Files also have the derived values, for their readers.

    Attributes:
        stages: The networks; the last one answers every image that reaches it.
        thresholds: Least confidence with which each stage but the last answers.
        answered: Images that each stage answered, of the images that the shares are of.
        correct: Images that were answered correctly.
        confidence: Probability of each upper bound: of a stage's latency, and of all shares together.
    """

    model_config = ConfigDict(extra="ignore")

    stages: tuple[ScoredArch, ...] = Field(min_length=2, max_length=8)
    thresholds: tuple[Fraction, ...]
    answered: tuple[Count, ...]
    correct: Count
    confidence: float = Field(ge=0.5, lt=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not len(self.stages) == len(self.thresholds) + 1 == len(self.answered):
            raise ValueError("every stage has a count, and every stage but the last has a threshold")
        if self.correct > self.images or not self.images:
            raise ValueError("no image was answered, or more are correct")
        return self

    @model_serializer(mode="wrap")
    def _with_derived(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        derived = ("shares", "accuracy", "expected_ms", "expected_high_ms", "worst_ms", "worst_high_ms")
        values: dict[str, Any] = handler(self)
        return values | {name: getattr(self, name) for name in derived}

    @property
    def images(self) -> int:
        """Number of images that the shares are of."""
        return sum(self.answered)

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of the images that each stage answered."""
        return tuple(count / self.images for count in self.answered)

    @property
    def accuracy(self) -> float:
        """Share of the images that were answered correctly."""
        return self.correct / self.images

    @property
    def expected_ms(self) -> float:
        """Sum over the stages of the share of images that reach a stage times its predicted latency."""
        reach = np.cumsum(self.answered[::-1])[::-1] / self.images
        return float(reach @ [stage.latency_ms for stage in self.stages])

    @property
    def expected_high_ms(self) -> float:
        """The same sum with upper bounds of the shares, which hold together (Bonferroni), and of the latencies."""
        level = 1 - (1 - self.confidence) / len(self.thresholds)
        reach = share_bound(np.cumsum(self.answered[::-1])[::-1], self.images, level)
        return float(reach @ [stage.latency_high_ms for stage in self.stages])

    @property
    def worst_ms(self) -> float:
        """Predicted latency of an image that reaches the last stage."""
        return sum(stage.latency_ms for stage in self.stages)

    @property
    def worst_high_ms(self) -> float:
        """Sum of the stages' upper bounds."""
        return sum(stage.latency_high_ms for stage in self.stages)

    def replayed(self, confidences: Floats, correct: NDArray[np.bool_]) -> Cascade:
        """Return the cascade with counts of other images, both (stages, N); NaN where a stage did not run.

        Raises:
            UsageError: no image that reaches a stage passes its threshold; the message says what it may be.
        """
        last, count = len(self.thresholds), confidences.shape[1]
        stages = np.full(count, last)
        for number, threshold in enumerate(self.thresholds):
            reached = stages == last
            passing = reached & (confidences[number] >= threshold)
            if reached.any() and not passing.any():
                raise UsageError(
                    f"none of {reached.sum()} images passes threshold {threshold:.6g} of stage {number + 1}; the "
                    f"highest confidence is {confidences[number, reached].max():.6g}, lower the threshold",
                    code="threshold_not_reached",
                )
            stages[passing] = number
        counts = tuple(np.bincount(stages, minlength=last + 1).tolist())
        right = int(correct[stages, np.arange(count)].sum())
        return self.model_copy(update={"answered": counts, "correct": right})


class AdaptiveResult(Value):
    """The best cascade of a search, next to single networks.

    Attributes:
        candidates: Networks whose predictions were available.
        equal: The most accurate of them whose predicted latency is at most the cascade's expected one.
        largest: The one with the most MACs within the limit of the expected latency.
    """

    cascade: Cascade
    candidates: Count
    equal: ScoredArch
    largest: ScoredArch


Segments = Mapping[tuple[int, int], ScoredArch]
"""Indices of an exit and of its network -> the segment that runs after the exit."""


class CascadeLimits(Value):
    """Limits of a cascade's expected latency and of its worst case.

    Attributes:
        kind: A `cascade` of two networks, or of the segments of a network with `exits`.
        cautious: Whether limits hold for upper bounds, with `confidence`, or for predictions and counted shares.
    """

    kind: Literal["cascade", "exits"] = "cascade"
    latency_ms: PositiveMs
    worst_ms: PositiveMs
    cautious: bool = True
    confidence: float = Field(default=0.95, ge=0.5, lt=1)

    def price(self, ms: float, high_ms: float) -> float:
        """Return the one of a predicted latency and its upper bound that counts."""
        return high_ms if self.cautious else ms

    def share(self, count: Any, images: int) -> Floats:
        """Return the share that counts where `count` of `images` reach the second stage."""
        return share_bound(count, images, self.confidence) if self.cautious else np.asarray(count) / images

    def prices(self, rows: Sequence[ScoredArch], segments: Segments | None) -> tuple[Floats, Floats]:
        """Return latencies that count: of C first stages (C,), and of each second stage after them (C, C).

        They are infinite where there is no second stage. Without `segments` each network follows each other one.
        """
        prices = np.array([self.price(row.latency_ms, row.latency_high_ms) for row in rows])
        if segments is None:
            return prices, prices + np.where(np.eye(len(rows), dtype=bool), np.inf, 0.0)
        later = np.full((len(rows), len(rows)), np.inf)
        for pair, row in segments.items():
            later[pair] = self.price(row.latency_ms, row.latency_high_ms)
        return prices, later

    def check(self, prices: Floats, later: Floats, images: int) -> None:
        """Raise InfeasibleError, which says what can be reached, if no first and second stage of `prices` fit."""
        if len(prices) == 1:
            later = prices[None]  # a second network takes as long at least
        worst_ms = float((prices[:, None] + later).min())
        seconds, share = later.min(axis=1), float(self.share(1, images))
        first_ms, second_ms = min(zip(prices, seconds, strict=True), key=lambda ms: ms[0] + share * ms[1])
        least = first_ms + share * second_ms
        what, fastest, both = {
            "cascade": ("cascade", "the fastest network takes", "the two fastest networks take"),
            "exits": ("network with an exit", "the first exit takes", "the two segments of the fastest take"),
        }[self.kind]
        if worst_ms > self.worst_ms:
            raise InfeasibleError(
                f"no {what} has a worst case of at most {self.worst_ms:.4g} ms: {both} "
                f"{worst_ms:.4g} ms together; allow that with --worst"
            )
        few = self.cautious and first_ms + second_ms / images <= self.latency_ms
        reached = f"{images} images bound the mean by" if few else f"the fastest {what} takes"
        if least > self.latency_ms:
            raise InfeasibleError(
                f"no {what} has a mean latency of at most {self.latency_ms:.4g} ms: {fastest} "
                f"{first_ms:.4g} ms, {reached} {least:.4g} ms; allow that with --latency"
                + (", or compare predictions with --point" if few else "")
            )


def best_cascade(
    rows: Sequence[ScoredArch],
    confidences: Floats,
    correct: NDArray[np.bool_],
    limits: CascadeLimits,
    segments: Segments | None = None,
) -> Cascade:
    """Return the two networks and the threshold that answer the most images correctly within the limits.

    With `segments` the two are an exit and its network. Each stage answers at least one image; the threshold is
    midway between two confidences. Among equals the cascade with the lowest expected latency is best, then the
    earlier networks.

    Args:
        rows: C networks of one supernet.
        confidences: (C, N) largest softmax probability for each image.
        correct: (C, N) whether the likeliest class is the label.
        limits: Of expected and worst latency.
        segments: Those after exits, to choose among networks with exits; None for a cascade of two networks.

    Raises:
        InfeasibleError: no cascade meets the limits; the message says what can be reached.
    """
    images, found = confidences.shape[1], []
    prices, later = limits.prices(rows, segments)
    limits.check(prices, later, images)
    shares = limits.share(np.arange(images + 1), images)
    for first, price in enumerate(prices):
        order = np.argsort(-confidences[first], kind="stable")
        ranked = confidences[first, order]
        cuts = np.flatnonzero(ranked[:-1] > ranked[1:]) + 1  # images of equal confidence stay together
        early = np.cumsum(correct[first, order])[cuts - 1]
        late = np.cumsum(correct[:, order[::-1]], axis=1)[:, ::-1][:, cuts]
        total = price + shares[images - cuts] * later[first][:, None]
        allowed = (total <= limits.latency_ms) & (price + later[first] <= limits.worst_ms)[:, None]
        if allowed.any():
            score = np.where(allowed, early + late, -1)
            cheapest = np.where(score == score.max(), total, np.inf)
            second, at = map(int, np.unravel_index(cheapest.argmin(), total.shape))
            threshold = float(ranked[cuts[at] - 1] + ranked[cuts[at]]) / 2
            found.append((-int(score.max()), float(cheapest.min()), first, second, threshold))
    if not found:
        raise InfeasibleError(
            f"no threshold on the confidence divides {images} images between two of {len(rows)} networks within "
            f"{limits.latency_ms:.4g} ms expected and {limits.worst_ms:.4g} ms at worst; allow more"
        )
    *_, first, second, threshold = min(found)
    cascade = Cascade(
        stages=(rows[first], (segments or {}).get((first, second), rows[second])),
        thresholds=(threshold,),
        answered=(images, 0),
        correct=0,
        confidence=limits.confidence,
    )
    return cascade.replayed(confidences[[first, second]], correct[[first, second]])

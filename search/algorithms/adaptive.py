"""Cascades: networks that run one after another until one is confident, their expected latency and their choice."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, computed_field, model_validator

from luts.format.errors import InfeasibleError, UsageError
from luts.format.schema import Count, Floats, Fraction, Integers, PositiveMs, Value
from search.spaces.registry import MAX_ARCH_BYTES

MOST_STAGES = 3

CUTS = 9
"""First thresholds that are tried for three stages, the deciles of its confidences; later ones are all tried."""


class ScoredArch(Value):
    """An architecture (canonical JSON): predicted latency, its upper bound, size, and top-1 when it runs alone."""

    arch: str = Field(max_length=MAX_ARCH_BYTES)
    latency_ms: PositiveMs
    latency_high_ms: PositiveMs
    params: Count
    macs: Count
    accuracy: Fraction


def share_bound(count: Any, images: int, confidence: float) -> Floats:
    """Return the upper bound on a share of which `count` of `images` were seen, elementwise.

    It is the exact one-sided bound of Clopper and Pearson (Biometrika 1934). It also holds for a threshold placed
    so that exactly `count` of these images fall below it: their share among all images then has the distribution
    Beta(count + 1, images - count).
    """
    from scipy.special import betaincinv

    count = np.asarray(count)
    bound = betaincinv(count + 1, np.maximum(images - count, 1), confidence)
    return np.asarray(np.where(count >= images, 1.0, bound), np.float64)


class Cascade(Value):
    """Networks of one supernet that run in order until the confidence of one reaches its threshold.

    The confidence is the largest softmax probability. Derived values are in files for their readers, and are
    computed again when a file is read.

    Attributes:
        stages: The networks; the last one answers every image that reaches it.
        thresholds: Least confidence with which each stage but the last answers.
        answered: Images that each stage answered, of the images that the shares are of.
        correct: Images that were answered correctly.
        confidence: Probability of each upper bound: of every stage's latency, and of all shares together.
    """

    model_config = ConfigDict(extra="ignore")

    stages: tuple[ScoredArch, ...] = Field(min_length=2, max_length=MOST_STAGES)
    thresholds: tuple[Fraction, ...]
    answered: tuple[Count, ...]
    correct: Count
    confidence: float = Field(ge=0.5, lt=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not len(self.stages) == len(self.thresholds) + 1 == len(self.answered):
            raise ValueError(
                "a cascade has a threshold for each stage but the last, and a count for each stage"
            )
        if not self.correct <= sum(self.answered) or not sum(self.answered):
            raise ValueError("more images are correct than were answered, or none was answered")
        return self

    @property
    def images(self) -> int:
        """Number of images that the shares are of."""
        return sum(self.answered)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def shares(self) -> tuple[float, ...]:
        """Share of the images that each stage answered."""
        return tuple(count / self.images for count in self.answered)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def accuracy(self) -> float:
        """Share of the images that were answered correctly."""
        return self.correct / self.images

    @computed_field  # type: ignore[prop-decorator]
    @property
    def expected_ms(self) -> float:
        """Sum over the stages of the share of images that reach a stage times its predicted latency."""
        return sum(
            reach / self.images * stage.latency_ms
            for reach, stage in zip(self._reach, self.stages, strict=True)
        )

    @computed_field  # type: ignore[prop-decorator]
    @property
    def expected_high_ms(self) -> float:
        """The same sum with upper bounds of the shares and of the latencies."""
        level = share_level(self.confidence, len(self.stages))
        return sum(
            float(share_bound(reach, self.images, level)) * stage.latency_high_ms
            for reach, stage in zip(self._reach, self.stages, strict=True)
        )

    @computed_field  # type: ignore[prop-decorator]
    @property
    def worst_ms(self) -> float:
        """Predicted latency of an image that reaches the last stage."""
        return sum(stage.latency_ms for stage in self.stages)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def worst_high_ms(self) -> float:
        """Sum of the stages' upper bounds."""
        return sum(stage.latency_high_ms for stage in self.stages)

    @property
    def _reach(self) -> tuple[int, ...]:
        """Images that reach each stage."""
        return tuple(sum(self.answered[stage:]) for stage in range(len(self.stages)))

    def answering(self, confidences: Floats) -> Integers:
        """Return the stage that answers each image, (N,).

        Args:
            confidences: (stages, N); NaN where a stage did not run.

        Raises:
            UsageError: no image that reaches a stage passes its threshold; the message says what it may be.
        """
        last = len(self.thresholds)
        stages = np.full(confidences.shape[1], last, np.int64)
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
        return stages

    def replayed(self, confidences: Floats, correct: NDArray[np.bool_]) -> Cascade:
        """Return the cascade with counts of other images, both (stages, N); raises like `answering`."""
        stages = self.answering(confidences)
        counts = np.bincount(stages, minlength=len(self.stages)).tolist()
        right = int(correct[stages, np.arange(len(stages))].sum())
        return self.model_copy(update={"answered": tuple(counts), "correct": right})


class AdaptiveResult(Value):
    """The best cascade of a search, next to static networks.

    Attributes:
        candidates: Networks whose predictions were available.
        equal: The most accurate of them whose predicted latency is at most the cascade's expected one.
        largest: The one with the most MACs within the limit of the expected latency.
    """

    cascade: Cascade
    candidates: Count
    equal: ScoredArch
    largest: ScoredArch


def share_level(confidence: float, stages: int) -> float:
    """Return the probability of each share's bound, so that all hold with `confidence` (Bonferroni)."""
    return 1 - (1 - confidence) / (stages - 1)


class CascadeLimits(Value):
    """What a cascade of at most `stages` networks must meet.

    Attributes:
        latency_ms: Limit of the expected latency.
        worst_ms: Limit of the worst case.
        cautious: Whether limits hold for upper bounds, with `confidence`, or for predictions and counted shares.
    """

    kind: Literal["cascade"] = "cascade"
    latency_ms: PositiveMs
    worst_ms: PositiveMs
    stages: int = Field(default=2, ge=2, le=MOST_STAGES)
    cautious: bool = True
    confidence: float = Field(default=0.95, ge=0.5, lt=1)

    def price(self, ms: float, high_ms: float) -> float:
        """Return the one of a predicted latency and its upper bound that counts."""
        return high_ms if self.cautious else ms

    def share(self, count: Any, images: int, stages: int = 2) -> Floats:
        """Return the share that counts where `count` of `images` reach a stage."""
        if not self.cautious:
            return np.asarray(count / images, np.float64)
        return share_bound(count, images, share_level(self.confidence, stages))

    def check(self, prices: Sequence[float], images: int) -> None:
        """Raise InfeasibleError, which says what can be reached, if no two networks with these latencies fit."""
        if len(prices) < 2 or images < 2:
            raise InfeasibleError(
                f"a cascade needs two networks and two images, there are {len(prices)} and {images}; allow a "
                "larger --worst, or use a supernet with more images held out"
            )
        first, second = sorted(prices)[:2]
        least = first + float(self.share(1, images)) * second
        if first + second > self.worst_ms:
            raise InfeasibleError(
                f"no cascade has a worst case of at most {self.worst_ms:.4g} ms: the two fastest networks take "
                f"{first + second:.4g} ms together; allow that with --worst"
            )
        if least <= self.latency_ms:
            return
        room = (self.latency_ms - first) / second
        if self.cautious and room > 1 / images:
            enough = bisect.bisect_left(
                range(MOST_IMAGES), True, key=lambda count: bool(self.share(1, count + 2) <= room)
            )
            raise InfeasibleError(
                f"{images} images are too few to bound an expected latency by {self.latency_ms:.4g} ms: the lowest "
                f"bound is {least:.4g} ms, {enough + 2} images would do; allow more with --latency, or compare "
                "predictions with --point"
            )
        raise InfeasibleError(
            f"no cascade has an expected latency of at most {self.latency_ms:.4g} ms: the fastest network takes "
            f"{first:.4g} ms, the fastest cascade {least:.4g} ms; allow that with --latency"
        )


MOST_IMAGES = 10**9
"""Far more than any set of images has; ends the count of those that would do."""


class _Prefix(NamedTuple):
    """First stages and thresholds, expected and worst latency so far, and images answered correctly."""

    stages: tuple[int, ...] = ()
    thresholds: tuple[float, ...] = ()
    expected_ms: float = 0.0
    worst_ms: float = 0.0
    correct: int = 0


@dataclass(frozen=True, eq=False)
class _Choice:
    """Chooses stages and thresholds that answer the most images correctly.

    Attributes:
        prices: (C,) latencies of the networks that count, ms.
        confidences: (C, N).
        correct: (C, N).
        shares: (N + 1,) share that counts, by the number of images that reach a stage; 1 for all of them.
    """

    limits: CascadeLimits
    prices: Floats
    confidences: Floats
    correct: NDArray[np.bool_]
    shares: Floats

    def extend(self, before: _Prefix, images: Integers, left: int) -> Iterator[_Prefix]:
        """Yield cascades with `left` more stages for the `images` that are left, the best for each next stage."""
        limits = self.limits
        for stage in sorted(set(range(len(self.prices))) - set(before.stages)):
            expected = before.expected_ms + self.shares[len(images)] * self.prices[stage]
            worst = before.worst_ms + self.prices[stage]
            order = images[np.argsort(-self.confidences[stage, images], kind="stable")]
            ranked = self.confidences[stage, order]
            cuts = np.flatnonzero(ranked[:-1] > ranked[1:]) + 1  # images of equal confidence stay together
            if expected > limits.latency_ms or worst > limits.worst_ms or not len(cuts):
                continue
            chosen, middle = (*before.stages, stage), (ranked[:-1] + ranked[1:]) / 2
            right = before.correct + np.cumsum(self.correct[stage, order])
            if left > 2:
                tried = np.linspace(0, len(cuts) - 1, CUTS + 2)[1:-1].astype(int)
                for cut in cuts[np.unique(tried)]:
                    thresholds = (*before.thresholds, float(middle[cut - 1]))
                    begun = _Prefix(chosen, thresholds, expected, worst, int(right[cut - 1]))
                    yield from self.extend(begun, order[cut:], left - 1)
                continue
            after = np.cumsum(self.correct[:, order[::-1]], axis=1)[:, ::-1]
            score = right[cuts - 1] + after[:, cuts]
            total = expected + self.shares[len(images) - cuts] * self.prices[:, None]
            allowed = (total <= limits.latency_ms) & (worst + self.prices <= limits.worst_ms)[:, None]
            allowed[list(chosen)] = False
            if allowed.any():
                best = np.where(allowed, score, -1).max()
                cheapest = np.where(allowed & (score == best), total, np.inf).argmin()
                last, at = map(int, np.unravel_index(cheapest, total.shape))
                thresholds = (*before.thresholds, float(middle[cuts[at] - 1]))
                latencies = float(total[last, at]), float(worst + self.prices[last])
                yield _Prefix((*chosen, last), thresholds, *latencies, int(best))


def best_cascade(
    rows: Sequence[ScoredArch], confidences: Floats, correct: NDArray[np.bool_], limits: CascadeLimits
) -> Cascade:
    """Return the cascade that answers the most images correctly within the limits.

    Each stage answers at least one image; thresholds lie midway between two confidences. Among equals that with the
    lowest expected latency is best, then that with fewer stages. For two stages all thresholds are tried, for three
    the first one only at the deciles of its confidences.

    Args:
        rows: C networks of one supernet.
        confidences: (C, N) largest softmax probability for each image.
        correct: (C, N) whether the likeliest class is the label.
        limits: Of expected and worst latency.

    Raises:
        InfeasibleError: no cascade meets the limits; the message says what can be reached.
    """
    images = confidences.shape[1]
    prices = np.array([limits.price(row.latency_ms, row.latency_high_ms) for row in rows])
    limits.check(prices.tolist(), images)
    found: list[_Prefix] = []
    for count in range(2, limits.stages + 1):
        shares = limits.share(np.arange(images + 1), images, count)
        choice = _Choice(limits, prices, confidences, correct, shares)
        found += choice.extend(_Prefix(), np.arange(images), count)
    if not found:
        raise InfeasibleError(
            f"no threshold on the confidence divides the {images} images of any two of {len(rows)} networks within "
            f"{limits.latency_ms:.4g} ms expected and {limits.worst_ms:.4g} ms at worst; allow more"
        )
    best = min(found, key=lambda each: (-each.correct, each.expected_ms, len(each.stages), each.stages))
    chosen = list(best.stages)
    cascade = Cascade(
        stages=tuple(rows[row] for row in chosen),
        thresholds=best.thresholds,
        answered=(images, *(0 for _ in best.thresholds)),
        correct=0,
        confidence=limits.confidence,
    )
    return cascade.replayed(confidences[chosen], correct[chosen])

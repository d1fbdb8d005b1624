"""Finals of a search: a few networks are trained alone, and the best must beat the largest one twice."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from luts.format.files import read_json
from luts.format.schema import Fraction, Value
from search.algorithms.record import Evaluated, SearchResult

FINALS_FILE = "finals.json"
"""In the result folder of a search."""

MAX_FINALS_BYTES = 16 << 20

Rule = Literal["largest", "deepest", "search"]
"""By which rule a finalist was chosen: most MACs, greatest depth, or the search's objective."""


def finalists(result: SearchResult, count: int, allowed: Callable[[Evaluated], bool]) -> dict[str, Rule]:
    """Return up to `count` networks as rules by architecture, the largest first.

    They are the largest, the deepest and the best by the search's objective that are `allowed`, such as those that
    were measured within the latency limit. Where the largest is not allowed, the next one takes its place.
    """
    rows = [row for row in (result.largest, result.deepest, *result.best(len(result.evaluated))) if row]
    within = [row for row in rows if allowed(row)]
    by_size = sorted(within, key=lambda row: (-row.macs, -row.params, row.latency_ms, row.arch))
    by_depth = sorted(within, key=lambda row: (-row.depth, -row.macs, row.latency_ms, row.arch))
    chosen: dict[str, Rule] = {}
    rules: Sequence[tuple[Rule, list[Evaluated]]] = (
        ("largest", by_size[:1]),
        ("deepest", by_depth[:1]),
        ("search", within),
    )
    for rule, ranked in rules:
        for row in ranked:
            if len(chosen) < count:
                chosen.setdefault(row.arch, rule)
    return chosen


class Final(Value):
    """A finalist.

    Attributes:
        arch: Canonical JSON.
        rule: Why it was trained.
        top1: On the search split: of the final, then of each repeated training.
    """

    arch: str
    rule: Rule
    top1: tuple[Fraction, ...] = Field(min_length=1, max_length=101)


class Finals(Value):
    """Networks that were trained alone, the largest first, and the winner among them.

    The best one wins if it is the largest, or if its mean over the repeated trainings is above the largest one's,
    without the first training, by which it was chosen. Without repeated trainings the best one wins, unconfirmed.

    Attributes:
        recipe: Name of the recipe.
        fingerprint: Digest of recipe, images and first seed.
        inherited: Whether the trainings started from the supernet's weights.
    """

    format: Literal[1] = 1
    recipe: str = Field(max_length=4096)
    fingerprint: str = Field(max_length=4096)
    inherited: bool = False
    finals: tuple[Final, ...] = Field(min_length=1, max_length=1000)

    @model_validator(mode="after")
    def _as_often(self) -> Self:
        if self.finals[0].rule != "largest":
            raise ValueError("the first final is not the largest network")
        if any(len(final.top1) not in (1, len(self.largest.top1)) for final in self.finals):
            raise ValueError("a final was not trained as often as the largest network")
        return self

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a saved file; raise InvalidArtifactError if it is damaged."""
        return read_json(path, cls, MAX_FINALS_BYTES, "run bench search --finals again")

    @property
    def largest(self) -> Final:
        """The largest network."""
        return self.finals[0]

    @property
    def best(self) -> Final:
        """The best by the first training; among equals that which comes first."""
        return max(self.finals, key=lambda final: final.top1[0])

    @property
    def repeated(self) -> int:
        """Number of repeated trainings of the best and of the largest."""
        return len(self.best.top1) - 1

    @property
    def winner(self) -> Final:
        """The best if it is confirmed or nothing was repeated, else the largest."""
        best, largest = self.best, self.largest
        if best is largest or not self.repeated:
            return best
        return best if statistics.fmean(best.top1[1:]) > statistics.fmean(largest.top1[1:]) else largest

    @property
    def noise(self) -> float | None:
        """Standard deviation of one training, pooled over the networks that were trained repeatedly."""
        variances = [statistics.variance(final.top1) for final in self.finals if len(final.top1) > 1]
        return math.sqrt(statistics.fmean(variances)) if variances else None

    def verdict(self) -> str:
        """Return in a sentence or two what the trainings say."""
        best, largest = self.best, self.largest
        if best is largest:
            return "No other network was better than the largest."
        gain = 100 * (best.top1[0] - largest.top1[0])
        text = f"The best was {gain:.2f} points better than the largest, which chance may explain."
        if not self.repeated:
            return f"{text} Nothing was repeated."
        again = 100 * (statistics.fmean(best.top1[1:]) - statistics.fmean(largest.top1[1:]))
        outcome = "so it wins" if self.winner is best else "so the largest wins"
        noise, loss = 100 * (self.noise or 0.0), 100 * (self.expected_loss or 0.0)
        return (
            f"{text} Trained again with {self.repeated} other seed{'s' if self.repeated > 1 else ''}, it was "
            f"{again:+.2f} points from the largest, {outcome}. One training varies by {noise:.2f} points (sd), so "
            f"on average the winner is at most {loss:.2f} points below the largest."
        )

    @property
    def expected_loss(self) -> float | None:
        """The most by which the winner may be expected to be worse than the largest; None without repetitions.

        A network that is worse by d passes a comparison of r pairs of trainings with noise s with the probability
        Phi(-d / sigma), sigma = s sqrt(2 / r). The expectation d Phi(-d / sigma) is at most 0.17 sigma.
        """
        if self.noise is None or not self.repeated:
            return None
        return 0.17 * self.noise * math.sqrt(2 / self.repeated)


Train = Callable[[Sequence[str], int], Mapping[str, float]]
"""Trains architectures with a seed; returns top-1 on the search split, 0 to 1, by architecture."""


def hold_finals(chosen: Mapping[str, Rule], train: Train, seed: int, confirm: int) -> tuple[Final, ...]:
    """Train finalists with a seed, and the best and the largest again with `confirm` others.

    Args:
        chosen: Rules by architecture, as from `finalists`.
        train: Trains several networks, in parallel where possible.
        seed: Of the first training; the following integers are those of the repeated ones.
        confirm: Number of repeated trainings, none if the best is the largest.
    """
    first = train(list(chosen), seed)
    largest = next(iter(chosen))
    best = max(chosen, key=lambda arch: first[arch])
    top1 = {arch: [first[arch]] for arch in chosen}
    if best != largest:
        for again in range(seed + 1, seed + 1 + confirm):
            for arch, value in train([largest, best], again).items():
                top1[arch].append(value)
    return tuple(Final(arch=arch, rule=rule, top1=tuple(top1[arch])) for arch, rule in chosen.items())

"""A share of independent trials with its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

from luts.estimate.quantiles import normal_quantile
from luts.estimate.ratios import CONFIDENCE


@dataclass(frozen=True)
class Proportion:
    """`hits` of `trials`, of which there is at least one."""

    hits: int
    trials: int

    @property
    def share(self) -> float:
        """0 to 1."""
        return self.hits / self.trials

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the share that more trials would show (Wilson, "Probable inference", JASA 1927)."""
        z2 = normal_quantile(0.5 + CONFIDENCE / 2) ** 2
        weight = self.trials / (self.trials + z2)
        middle = weight * self.share + (1 - weight) / 2
        spread = weight * math.sqrt(
            z2 * (self.share * (1 - self.share) + z2 / (4 * self.trials)) / self.trials
        )
        return max(0.0, middle - spread), min(1.0, middle + spread)

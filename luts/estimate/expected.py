"""What blocks are expected to cost before they are measured: by an assumption, or by another LUT."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from luts.estimate.physics import coefficients_of, physics_ms
from luts.estimate.sources import Source
from luts.format.lut import Lut
from luts.format.schema import Coefficients, KeyFeatures


@dataclass(frozen=True)
class Expectation:
    """Latencies to expect.

    Attributes:
        source: Says for people where all this comes from.
        common: Physics of kinds of blocks that nothing more is known of.
        kinds: Physics of those that are known better.
        entry_ms: Blocks that are known better still.
        base_ms: Of a call before any block runs.
        unpriced: Features that the coefficients were made without: they count as 0 here too. Without
            `depthwise_macs` all MACs have one price, without `params` the bytes of weights have none.
        sources: Other devices' entries that the fit will rest on, so that networks are chosen for the rest.
    """

    source: str
    common: Coefficients
    kinds: Mapping[str, Coefficients] = field(default_factory=dict)
    entry_ms: Mapping[str, float] = field(default_factory=dict)
    base_ms: float = 0.0
    unpriced: Collection[str] = ()
    sources: tuple[Source, ...] = ()

    def priced(self, features: Mapping[str, KeyFeatures]) -> dict[str, KeyFeatures]:
        """By key the features that coefficients were made with."""
        update = dict.fromkeys(self.unpriced, 0)
        return {key: feature.model_copy(update=update) for key, feature in features.items()}

    def ms(self, features: Mapping[str, KeyFeatures]) -> dict[str, float]:
        """By key, never 0."""
        physics = {
            key: physics_ms(feature, self.kinds.get(feature.kind, self.common))
            for key, feature in self.priced(features).items()
        }
        return {key: max(self.entry_ms.get(key, ms), 1e-6) for key, ms in physics.items()}


TYPICAL = Expectation(
    "an assumption: 20 us a block, 50 GMAC/s, 10 GiB/s",
    Coefficients(constant_ms=0.02, ms_per_mmac=0.02, ms_per_mib=0.1),
    unpriced=("params", "depthwise_macs"),
)
"""One core of a phone or laptop, fp32. Which models to build hardly depends on it, how long they take does. It
never changes: a measurement goes on only if the same plan is made again."""


def expectation_of(lut: Lut, name: str) -> Expectation:
    """What a LUT says, also of blocks that it does not hold: by the priors of its kinds, with the features that its
    fit had."""
    kinds = {row.kind: Coefficients.of(row) for row in lut.meta.prior}
    means = np.mean([list(dict(row).values()) for row in kinds.values()], axis=0)
    return Expectation(
        f"LUT {name}",
        coefficients_of(means),
        kinds,
        {entry.key: entry.ms for entry in lut.entries},
        lut.meta.base_ms,
        [name for name in ("params", "depthwise_macs") if not any(getattr(row, name) for row in lut.entries)],
    )

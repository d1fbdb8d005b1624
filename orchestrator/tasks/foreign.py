"""Predictions for a device by another device's LUT: as wide as devices are apart."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from luts.format.errors import InvalidArtifactError
from luts.format.latency import Prediction
from luts.format.store import LutRef, LutStore

MAX_SPREAD = math.log(100.0)
"""Devices farther apart than a hundredfold tell nothing of a third; intervals end there."""


@dataclass(frozen=True)
class Spread:
    """How far predictions of one device's LUT are off on another, as a standard deviation of the logarithm.

    `devices` are those at hand with a LUT of the space.
    """

    log_sd: float
    devices: tuple[str, ...]


def device_spread(store: LutStore, space: str, runtime: str) -> Spread | None:
    """The spread between the devices known: of the log ratios of their LUTs' sums, over pairs of devices.

    The sums are of the blocks that all have in common, one version a device. None with fewer than two devices.

    Args:
        store: Where they are looked for.
        space: Of the LUTs.
        runtime: Family of the variants (`executorch`).
    """
    sums: dict[str, dict[str, float]] = {}
    for name in sorted({ref.name for ref in store.list() if _fits(ref, space, runtime)}):
        try:
            ref = store.taken(name)
            sums.setdefault(ref.device, {entry.key: entry.ms for entry in store.load(ref).entries})
        except InvalidArtifactError:
            continue
    common = set.intersection(*(set(entries) for entries in sums.values())) if sums else set()
    if len(sums) < 2 or not common:
        return None
    logs = np.log([sum(entries[key] for key in common) for entries in sums.values()])
    differences = [one - other for i, one in enumerate(logs) for other in logs[:i]]
    return Spread(float(np.sqrt(np.mean(np.square(differences)))), tuple(sums))


def widened(prediction: Prediction, spread: Spread) -> Prediction:
    """The prediction with a 95 % interval for another device: times and divided by what devices are apart."""
    own = math.log(max(prediction.high / prediction.ms, 1.0))
    factor = math.exp(min(math.hypot(own, 1.96 * spread.log_sd), MAX_SPREAD))
    low, high = prediction.ms / factor, prediction.ms * factor
    return replace(prediction, low=low, high=high, level=0.95, basis="spread")


def warning(ref: LutRef, device: str, spread: Spread | None) -> str:
    """What whoever predicts for `device` by another's LUT must know."""
    apart = (
        "how far devices are apart is not known, since no second one has a LUT of the space"
        if spread is None
        else f"predictions may be off by a factor of {math.exp(1.96 * spread.log_sd):.2f}, "
        f"as {', '.join(spread.devices)} are apart"
    )
    return (
        f"{ref} is of {ref.device}, not of {device}: {apart}; "
        f"bench lut adapt {ref} --device {device} makes it one of {device}"
    )


def _fits(ref: LutRef, space: str, runtime: str) -> bool:
    return ref.space == space and ref.variant.split("-")[0] == runtime

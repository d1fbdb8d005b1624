"""Predictions for a device by another device's LUT: as wide as devices are apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from luts.format.errors import InvalidArtifactError
from luts.format.latency import Prediction
from luts.format.lut import Lut
from luts.format.schema import DeviceInfo
from luts.format.store import LutRef, LutStore
from orchestrator.agent.device import describe_host
from orchestrator.agent.programs import AGENTS
from orchestrator.devices.common.registry import known_phone
from orchestrator.devices.discover import resolve
from orchestrator.devices.host import scenario_of, simulated_program

HOSTS = ("host", *(f"host-{agent}" for agent in AGENTS))
"""Names of LUTs that this machine's agents measured."""

MEMORY_ALIKE = 0.02
"""Another kernel leaves some more or less of the same memory."""


@dataclass(frozen=True)
class Spread:
    """How far predictions of one device's LUT are off on another, as a standard deviation of the logarithm.

    `devices` are those at hand with a LUT of the space.
    """

    log_sd: float
    devices: tuple[str, ...]


@dataclass(frozen=True)
class Foreign:
    """The device that is meant, where a LUT is another's. `spread`: None where no second device is known."""

    device: str
    spread: Spread | None

    @property
    def log_sd(self) -> float:
        """Of `spread`; 0 where it is not known."""
        return self.spread.log_sd if self.spread else 0.0


def foreign(ref: LutRef, lut: Lut, device: str, store: LutStore) -> Foreign | None:
    """What makes a LUT another's than the device's; None where it is its own.

    A LUT is of a device whose name it has, or that answers with the product type in it; of this machine, which
    every other is called `host` too, where model, processor and memory are the same.

    Args:
        ref: Of the LUT.
        device: `host`, a phone's name or serial, `simulated[:SCENARIO]`, or the name in a LUT.
        store: Whose devices are known.

    Raises:
        DeviceError: there is no such device, or no phone with this serial.
        UsageError: there is no such scenario.
    """
    scenario, name = scenario_of(device), device
    if scenario is not None:
        name = simulated_program(scenario).device_name
    elif not (
        name in HOSTS or known_phone(name) or name in {ref.device, *(each.device for each in store.list())}
    ):
        name = resolve(name).name
    phone = known_phone(name)
    if name in HOSTS:
        own = _same_machine(lut.meta.device)
    else:
        own = name == ref.device or (phone is not None and lut.meta.device.model in phone.product_types)
    return None if own else Foreign(device, device_spread(store, ref))


def device_spread(store: LutStore, ref: LutRef) -> Spread | None:
    """The spread between the devices known: of the log ratios of their LUTs' sums, over pairs of devices.

    The sums are of the blocks that all have in common, one version a device: those of the LUT's own variant, where
    two devices have one, else of its runtime. Made-up devices count among such alone. None with fewer than two.

    Args:
        store: Where they are looked for.
        ref: The LUT whose space and variant count.
    """
    family = [name for name in sorted({each.name for each in store.list()}) if _alike(name, ref)]
    sums: dict[tuple[str, str], dict[str, float]] = {}
    for name in family:
        try:
            known = store.current(name)
            sums[known.device, known.variant] = {entry.key: entry.ms for entry in store.load(known).entries}
        except InvalidArtifactError:
            continue
    own = {device: ms for (device, variant), ms in sums.items() if variant == ref.variant}
    return _spread(own) or _spread({device: ms for (device, _), ms in reversed(sums.items())} | own)


def for_device(prediction: Prediction, meant: Foreign) -> Prediction:
    """The prediction with an interval for the device that is meant; of no level where no spread is known."""
    if meant.spread is None:
        return replace(prediction, level=None)
    return prediction.for_other_device(meant.spread.log_sd)


def warning(ref: LutRef, meant: Foreign) -> str:
    """What whoever predicts for a device by another's LUT must know."""
    device, spread = meant.device, meant.spread
    apart = (
        "how far devices are apart is not known, since no second one has a LUT of the space, so that intervals and "
        f"budgets are those of {ref.device}"
        if spread is None
        else f"predictions may be off by a factor of {math.exp(1.96 * spread.log_sd):.2f}, "
        f"as {', '.join(spread.devices)} are apart; intervals and budgets are widened by that"
    )
    return (
        f"{ref} is of {ref.device}, not of {device}: {apart}; "
        f"bench lut adapt {ref} --device {device} makes it one of {device}"
    )


def _alike(name: str, ref: LutRef) -> bool:
    """Of the same space and runtime; what is simulated has a runtime of its own."""
    _, space, variant = name.split("/")
    return space == ref.space and variant.split("-")[0] == ref.variant.split("-")[0]


def _spread(sums: Mapping[str, Mapping[str, float]]) -> Spread | None:
    common = set.intersection(*(set(entries) for entries in sums.values())) if sums else set()
    if len(sums) < 2 or not common:
        return None
    logs = np.log([sum(entries[key] for key in common) for entries in sums.values()])
    differences = [one - other for i, one in enumerate(logs) for other in logs[:i]]
    return Spread(float(np.sqrt(np.mean(np.square(differences)))), tuple(sums))


def _same_machine(told: DeviceInfo) -> bool:
    here = describe_host()
    return (here.model, here.soc or "") == (told.model, told.soc) and math.isclose(
        here.memory_bytes, told.memory_bytes, rel_tol=MEMORY_ALIKE
    )

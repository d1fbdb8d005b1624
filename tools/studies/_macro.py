"""NAS-Bench-Macro as the judge: published accuracies of all its networks, and what a LUT says that they cost."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.schema import Floats
from luts.format.store import load_lut
from search.algorithms.cost import CompiledSpace, LutPrice
from search.spaces import Arch, get_space
from search.spaces.nasbench_macro import key_of

SPACE = get_space("nasbench-macro")
MAX_TABLE_BYTES = 4 << 20
"""Three times the published table's."""

BUDGETS = (0.2, 0.4, 0.6, 0.8)
"""Shares of the networks that are within."""


@dataclass(frozen=True)
class Truth:
    """The published accuracy, the mean over trainings, as a search's objective.

    Attributes:
        top1: Share of CIFAR-10's test images, by key.
        macs: Multiply-accumulates, by key.
    """

    top1: dict[str, float]
    macs: dict[str, int]
    fingerprint: str = "nas-bench-macro"

    def accuracy(self, arch: Arch) -> float:
        """Top-1, 0 to 1."""
        return self.top1[key_of(arch)]


def open_truth(path: Path | None) -> Truth:
    """The table `nas-bench-macro.json`.

    Raises:
        UsageError: no file is given.
        InvalidArtifactError: it cannot be read, or lacks networks of the space.
    """
    if path is None:
        raise UsageError("this study needs the published accuracies: --truth nas-bench-macro.json")
    try:
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise ValueError(f"over {MAX_TABLE_BYTES} bytes")
        table = json.loads(path.read_text(encoding="utf-8"))
        top1 = {key: statistics.fmean(row["test_acc"]) / 100 for key, row in table.items()}
        macs = {key: int(row["flops"]) for key, row in table.items()}
        if not all(0 <= value <= 1 for value in top1.values()):
            raise ValueError("accuracies beyond 0 to 100")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, statistics.StatisticsError) as error:
        raise InvalidArtifactError(f"{path}: not the table of NAS-Bench-Macro ({error})") from error
    if missing := sorted({key_of(arch) for arch in SPACE} - top1.keys()):
        raise InvalidArtifactError(f"{path}: {len(missing)} networks are missing, such as {missing[0]}")
    return Truth(top1, macs)


@dataclass(frozen=True)
class Priced:
    """Every network of the space with its latency.

    Attributes:
        price: The LUT.
        name: The LUT's.
        simulated: Whether its device is made up.
        latency_ms: In the order of the space.
        bound_ms: Under which each stays with 95 % probability.
    """

    price: LutPrice
    name: str
    simulated: bool
    archs: tuple[Arch, ...]
    latency_ms: Floats
    bound_ms: Floats

    @staticmethod
    def by(price: LutPrice, name: str, simulated: bool) -> Priced:
        """Every network by a LUT; raises UsageError where it is of another space."""
        compiled = CompiledSpace(SPACE, price)
        archs = tuple(SPACE)
        prices = compiled.price(compiled.encode(archs))
        return Priced(price, name, simulated, archs, prices.latency_ms[0], prices.latency_high_ms[0])

    @property
    def made_up(self) -> str:
        """What a section says first of a simulated device."""
        return "SIMULATED latencies, not measured on any device. " if self.simulated else ""

    def budget_ms(self, share: float) -> float:
        """The latency that this share of the networks meets."""
        return float(np.quantile(self.latency_ms, share, method="higher"))


def priced(lut: str) -> Priced:
    """By a LUT's name; raises as `load_lut`, and UsageError where it is of another space."""
    table = load_lut(lut)
    name = f"{table.meta.device.name}/{table.meta.space}/{table.meta.variant}"
    price = LutPrice(table.latency_model, table.meta.device.name, lut)
    return Priced.by(price, name, table.meta.measured == "simulated")

"""NAS-Bench-Macro as ground truth: published accuracies, predicted latencies, supernets of its space."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.schema import Floats
from luts.format.store import load_lut
from search.algorithms import CompiledSpace, LutPrice
from search.spaces import Arch, Space, Value, get_space, register_space, register_stage
from search.spaces.nasbench_macro import key_of, operation
from search.spaces.plugins import load_plugin
from search.supernet.recipe.recipe import changed
from tools.studies.shared import Options
from tools.studies.trainings import Training, one_cycle

load_plugin(__name__)  # worker processes import what is loaded, and then know the space below

SPACE = get_space("nasbench-macro")
BUDGETS = (0.2, 0.4, 0.6, 0.8)
"""Fractions of the networks whose latency is within the budget."""
CALIBRATION_BATCHES = 8
"""Batches of 128 training images for BN statistics."""
NEAR = 0.03
"""Largest relative difference of latencies that count as equal."""


def _own_slots(v: dict[str, Value]) -> list[str]:
    """Give each operation of a place its own weights."""
    return [f"op{v['op']}"]


register_stage("macro-place-separate", _own_slots)(operation)
SEPARATE: Space = register_space(
    replace(
        SPACE,
        name="nasbench-macro-separate",
        stages=tuple(
            replace(stage, kind="macro-place-separate") if stage.kind == "macro-place" else stage
            for stage in SPACE.stages
        ),
    )
)
"""The same networks with separate weights for each operation of a place, as in single-path one-shot search."""


@dataclass(frozen=True)
class GroundTruth:
    """Published results on CIFAR-10, by network key.

    Attributes:
        top1: Mean accuracy over trainings, 0 to 1.
        macs: Multiply-accumulates.
    """

    top1: dict[str, float]
    macs: dict[str, int]
    fingerprint: str = "nas-bench-macro"

    def accuracy(self, arch: Arch) -> float:
        """Return the published top-1, 0 to 1, as a search objective."""
        return self.top1[key_of(arch)]

    def accuracies(self, archs: Sequence[Arch]) -> Floats:
        """Return the published top-1 of several networks."""
        return np.array([self.accuracy(arch) for arch in archs])


def read_truth(path: Path | None) -> GroundTruth:
    """Read `nas-bench-macro.json`.

    Raises:
        UsageError: no file was given.
        InvalidArtifactError: it cannot be read, or lacks networks of the space.
    """
    if path is None:
        message = "this study needs published accuracies; add --truth nas-bench-macro.json"
        raise UsageError(message, code="no_truth")
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        top1 = {key: statistics.fmean(row["test_acc"]) / 100 for key, row in table.items()}
        macs = {key: int(row["flops"]) for key, row in table.items()}
        if missing := {key_of(arch) for arch in SPACE} - top1.keys():
            raise ValueError(f"{len(missing)} networks are missing, such as {min(missing)}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"{path}: not the table of NAS-Bench-Macro ({error}); download it again"
        raise InvalidArtifactError(message, code="invalid_truth") from error
    return GroundTruth(top1, macs)


@dataclass(frozen=True)
class PricedSpace:
    """Every network of the space with its latency by a LUT.

    Attributes:
        archs: In the order of the space.
        latency_ms: Predicted latency of each.
        bound_ms: Upper end of its 95 % interval.
    """

    price: LutPrice
    archs: tuple[Arch, ...]
    latency_ms: Floats
    bound_ms: Floats

    @classmethod
    def of(cls, price: LutPrice) -> PricedSpace:
        """Price all networks; raises UsageError if the LUT is of another space."""
        compiled, archs = CompiledSpace(SPACE, price), tuple(SPACE)
        prices = compiled.price(compiled.encode(archs))
        return cls(price, archs, prices.latency_ms[0], prices.latency_high_ms[0])

    def budget_ms(self, fraction: float) -> float:
        """Return the latency that this fraction of the networks meets."""
        return float(np.quantile(self.latency_ms, fraction, method="higher"))


def priced_by(lut: str) -> PricedSpace:
    """Price all networks by the LUT of that name; raises UsageError if it is of another space."""
    table = load_lut(lut)
    return PricedSpace.of(LutPrice(table.latency_model, table.meta.device.name, lut))


def supernet(options: Options, space: str, epochs: int, seed: int) -> Training:
    """Return the training of a supernet of `SPACE` or `SEPARATE`, one uniform subnet per step."""
    recipe = one_cycle("one-cycle", epochs, seed)
    if options.quick:
        recipe = changed(recipe, {"batch_size": 512}, {})
    return Training(space, recipe, options.images)

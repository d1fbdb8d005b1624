"""Options of `bench search`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import get_args

from luts.format.errors import UsageError
from luts.format.store import LutStore
from orchestrator.tasks.latency_target import LatencyTarget
from orchestrator.tasks.options import (
    ADVANCED,
    OUTPUT,
    REQUIRED,
    SEARCH,
    TARGET,
    ExportOptions,
    StoreOptions,
    option,
)
from orchestrator.tasks.parsing import parse_budget, parse_bytes, parse_count, parse_fraction, parse_latency
from orchestrator.tasks.target import DeviceOptions
from search.algorithms import Constraints, Criterion, SearchSettings, get_strategy
from search.algorithms.record import MACS

_target, _constraint, _search, _measuring, _advanced = (
    partial(option, panel=panel) for panel in (TARGET, "Constraints", SEARCH, "Measuring", ADVANCED)
)


def _parse_count(text: str, flag: str) -> int:
    return int(parse_count(text, flag))


def _parse_bytes(text: str, flag: str) -> int:
    return int(parse_bytes(text, flag))


def _parse_confidence(text: str, flag: str) -> float:
    confidence = parse_fraction(text, flag)
    if not 0.5 <= confidence <= 0.999:
        raise UsageError(f"{flag} {text!r}: expected 50% to 99.9%", code="invalid_value")
    return confidence


def _parse_criteria(text: str, flag: str) -> tuple[Criterion, ...]:
    known, given = get_args(Criterion), text.split(",")
    if unknown := [name for name in given if name not in known]:
        raise UsageError(f"{flag}: unknown {unknown[0]!r}; use {', '.join(known)}", code="unknown_criterion")
    return tuple(name for name in known if name in given)


@dataclass(frozen=True, kw_only=True)
class TargetOptions:
    """The devices that a network is for, and its largest latency on each."""

    lut: str = _target(REQUIRED, "LUT of the device that the network is for.")
    latency: str = _target(REQUIRED, "Latency limit: 10ms, 150us, or 80% of the LUT's reference model.")
    also: tuple[str, ...] = _target(
        (), "LUT=LATENCY of a further device with a limit of its own; repeatable."
    )

    def open(self, store: LutStore) -> list[LatencyTarget]:
        """Load the LUTs; raise UsageError for an unknown LUT or a text that is not LUT=LATENCY."""
        targets = [LatencyTarget.open(self.lut, self.latency, store)]
        for text in self.also:
            lut, equals, latency = text.rpartition("=")
            if not equals or not lut:
                raise UsageError(
                    f"--also {text!r}: expected LUT=LATENCY, e.g. pixel6/autovit-xxs=12ms",
                    code="invalid_value",
                )
            targets.append(LatencyTarget.open(lut, latency, store, "--also"))
        return targets


@dataclass(frozen=True, kw_only=True)
class ConstraintOptions:
    """Limits of a network's costs besides latency, and how certain the latency limit is."""

    params: int | None = _constraint(None, "Most parameters, e.g. 1.8M.", parse=_parse_count, metavar="COUNT")
    macs: int | None = _constraint(
        None, "Most conv+linear MACs, e.g. 300M.", parse=_parse_count, metavar="COUNT"
    )
    memory: int | None = _constraint(
        None, "Most bytes of fp32 activations, e.g. 900KB.", parse=_parse_bytes, metavar="SIZE"
    )
    confidence: float = _constraint(
        0.95,
        "Probability that a measured latency is within the limit: 50% to 99.9%.",
        parse=_parse_confidence,
        shown="95%",
        metavar="PERCENT",
    )
    point: bool = _constraint(
        False, "Compare the prediction itself with the limit, not its upper bound.", flag="--point"
    )

    def of(self, targets: Sequence[LatencyTarget]) -> Constraints:
        """Return the constraints with the targets' latencies."""
        latency_ms, *further = (target.latency_ms for target in targets)
        return Constraints(
            latency_ms=latency_ms,
            further_latency_ms=tuple(further),
            params=self.params,
            macs=self.macs,
            memory_bytes=self.memory,
            cautious=not self.point,
            confidence=self.confidence,
        )


@dataclass(frozen=True, kw_only=True)
class SettingOptions:
    """How to search; fields as those of `SearchSettings`, None where the objective decides."""

    strategy: str | None = _search(
        None,
        "coarse-to-fine, evolution, random, pareto, largest, or one of your own.",
        shown="coarse-to-fine; largest without --supernet",
    )
    seed: int = _search(0, "Random seed of the search.")
    population: int = _search(50, "Networks of the first generation.", minimum=1)
    generations: int = _search(20, "Generations after the first.", minimum=0)
    objectives: tuple[Criterion, ...] = _search(
        ("accuracy", "latency"),
        "Criteria that pareto trades: accuracy, latency, params, macs, memory.",
        parse=_parse_criteria,
        shown="accuracy,latency",
        metavar="NAMES",
    )
    skeletons: int = _search(
        25,
        "K: skeletons of the coarse stage, or networks of the strategy largest.",
        flag="--top-k",
        minimum=1,
        maximum=10_000,
    )
    draws: int = _advanced(10_000, "Networks drawn for the coarse stage.", minimum=1, maximum=1_000_000)
    ms_per_loss: float = _advanced(
        0.0,
        "Minimise latency + lambda * error; lambda in ms per unit of error, e.g. 500ms.",
        parse=parse_latency,
        shown="accuracy alone",
        metavar="TIME",
    )
    loss_per_ms: float = option(
        0.0,
        "Minimise error + lambda * latency; lambda in error per ms, e.g. 0.2%.",
        parse=parse_fraction,
        metavar="PERCENT",
        hidden=True,
    )
    additive: float = _advanced(
        0.0,
        "Weight of an additive surrogate in the accuracy estimate, e.g. 50%.",
        parse=parse_fraction,
        shown="0%",
        metavar="PERCENT",
    )
    sample: int = option(
        100, "Networks that --additive is fitted to.", minimum=10, maximum=100_000, hidden=True
    )
    parents: int = option(10, "Best networks that children descend from.", minimum=1, hidden=True)
    crossovers: int = option(25, "Children of two parents per generation.", minimum=0, hidden=True)
    mutations: int = option(25, "Children of one parent per generation.", minimum=0, hidden=True)
    p_depth: float = option(
        0.2, "P_d: probability that a mutation changes a depth.", minimum=0, maximum=1, hidden=True
    )
    p_block: float = option(
        0.4, "P_m: probability that a mutation changes a block.", minimum=0, maximum=1, hidden=True
    )

    def of(self, objective: str) -> SearchSettings:
        """Return the settings for an objective.

        Raises:
            UsageError: unknown strategy, both readings of the joint objective, or an option that `largest` ignores.
        """
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        values["strategy"] = self.strategy or ("largest" if objective == MACS else "coarse-to-fine")
        get_strategy(values["strategy"])
        if self.ms_per_loss and self.loss_per_ms:
            raise UsageError(
                "--ms-per-loss and --loss-per-ms are two readings of one objective; give one of them",
                code="conflicting_options",
            )
        if values["strategy"] == "largest":
            for each in fields(self):
                if each.name not in _USED_BY_LARGEST and getattr(self, each.name) != each.default:
                    raise UsageError(
                        f"--{each.name.replace('_', '-')} is not used by the strategy largest; add --supernet, or "
                        "choose another --strategy",
                        code="unused_option",
                    )
            values |= {"population": self.skeletons, "generations": 0}
        return SearchSettings(**values)


_USED_BY_LARGEST = ("strategy", "seed", "draws", "skeletons")


@dataclass(frozen=True)
class OptionalDevice(DeviceOptions):
    """The device that the best networks are measured on; "" for none."""

    device: str = _measuring("", "Measure the best networks on this device.")


@dataclass(frozen=True, kw_only=True)
class SearchCommand(ExportOptions, StoreOptions):
    """Find the most accurate network within a latency. Rerun the same command to resume an interrupted search.

    Without --supernet, list the networks within the constraints with the most MACs.
    """

    targets: TargetOptions
    limits: ConstraintOptions = field(default_factory=ConstraintOptions)
    supernet: Path | None = option(
        None, "Folder of a trained supernet.", shown="list the largest networks", panel=SEARCH
    )
    objective: str | None = _search(
        None,
        "inherited-accuracy, inherited-likelihood, macs, or one of your own.",
        shown="inherited-accuracy; macs without --supernet",
    )
    settings: SettingOptions = field(default_factory=SettingOptions)
    workers: int | None = _advanced(
        None, "Processes that evaluate and export.", minimum=1, shown="one per core, or per GPU"
    )
    measured_on: OptionalDevice = field(default_factory=OptionalDevice)
    top: int = _measuring(3, "Number of networks to measure.", minimum=1)
    budget_s: float = _measuring(
        120.0,
        "Time after which no new pass of measuring starts: 90s, 15m or 2h.",
        flag="--budget",
        parse=parse_budget,
        shown="2m",
        metavar="TIME",
    )
    feedback: bool = _measuring(
        False, "Write a new version of the LUT with the measurements in it.", flag="--feedback"
    )
    output: Path | None = option(
        None,
        "Folder of the result.",
        flag="--output -o",
        shown="a folder under the runs folder",
        panel=OUTPUT,
    )
    data: str | None = _advanced(
        None, "Image source (imagefolder:DIR, cifar10:FILE); use it if the images have moved since training."
    )
    outside: bool = _advanced(False, "Also propose networks outside the supernet's scope.", flag="--outside")
    on: str = _advanced("auto", "Where networks are evaluated: auto, cpu, cuda or mps.")
    cluster: bool = _advanced(
        False, "Evaluate on the Ray cluster of $RAY_ADDRESS, or one started here.", flag="--cluster"
    )

    def check(self) -> None:
        """Raise UsageError for options that do not go together."""
        if self.feedback and not self.measured_on.device:
            raise UsageError("--feedback needs measurements; add --device", code="missing_option")
        if self.cluster and self.on not in ("auto", "cpu"):
            raise UsageError(
                f"--cluster evaluates on CPUs; leave --on {self.on} out", code="conflicting_options"
            )
        if self.supernet is None:
            for flag, given in (("data", self.data), ("outside", self.outside)):
                if given:
                    raise UsageError(
                        f"--{flag} needs a supernet; add --supernet DIR", code="supernet_required"
                    )

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
from search.algorithms.adaptive import CascadeLimits
from search.algorithms.record import INHERITED_ACCURACY, INHERITED_LIKELIHOOD, MACS, usual_settings

_target, _constraint, _search, _measuring, _advanced = (
    partial(option, panel=panel) for panel in (TARGET, "Constraints", SEARCH, "Measuring", ADVANCED)
)


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

    params: int | None = _constraint(None, "Most parameters, e.g. 1.8M.", parse=parse_count, metavar="COUNT")
    macs: int | None = _constraint(
        None, "Most conv+linear MACs, e.g. 300M.", parse=parse_count, metavar="COUNT"
    )
    memory: int | None = _constraint(
        None, "Most bytes of fp32 activations, e.g. 900KB.", parse=parse_bytes, metavar="SIZE"
    )
    confidence: float = _constraint(
        0.95,
        "Probability that a measured latency is within the limit: 50% to 99.9%.",
        parse=_parse_confidence,
        shown="95%",
        metavar="PERCENT",
    )
    point: bool = _constraint(False, "Compare the prediction itself with the limit, not its upper bound.")

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
    """How to search; fields as those of `SearchSettings`, None where strategy and objective decide."""

    strategy: str | None = _search(
        None,
        "large-first, autovit (the paper's), evolution, random, pareto, largest, or one of your own.",
        shown="large-first; largest without --supernet",
    )
    seed: int = _search(0, "Random seed of the search.")
    population: int | None = _search(
        None, "Networks of the first generation.", minimum=1, shown="356; 50 of other strategies"
    )
    generations: int | None = _search(
        None, "Generations of 50 networks after the first.", minimum=0, shown="10; 20 of other strategies"
    )
    objectives: tuple[Criterion, ...] = _search(
        ("accuracy", "latency"),
        "Criteria that pareto trades: accuracy, latency, params, macs, memory.",
        parse=_parse_criteria,
        shown="accuracy,latency",
        metavar="NAMES",
    )
    skeletons: int | None = _search(
        None,
        "K: largest networks, or skeletons, that the search starts from.",
        flag="--top-k",
        minimum=1,
        maximum=10_000,
        shown="256; 25 of other strategies",
    )
    draws: int = _advanced(10_000, "Networks drawn from a large space.", minimum=1, maximum=1_000_000)
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
    additive: float | None = _advanced(
        None,
        "Weight of an additive surrogate in the accuracy estimate, e.g. 50%.",
        parse=parse_fraction,
        shown="50% of inherited-likelihood by large-first, else 0%",
        metavar="PERCENT",
    )

    @property
    def usual_objective(self) -> str:
        """Objective of a search with a supernet: the paper's, or that which ranks better."""
        return INHERITED_ACCURACY if self.strategy in ("autovit", "coarse-to-fine") else INHERITED_LIKELIHOOD

    def of(self, objective: str) -> SearchSettings:
        """Return the settings for an objective.

        Raises:
            UsageError: unknown strategy, both readings of the joint objective, or an option that `largest` ignores.
        """
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        strategy = self.strategy or ("largest" if objective == MACS else "large-first")
        get_strategy(SearchSettings(strategy=strategy).strategy)
        if self.ms_per_loss and self.loss_per_ms:
            raise UsageError(
                "--ms-per-loss and --loss-per-ms are two readings of one objective; give one of them",
                code="conflicting_options",
            )
        usual = usual_settings(strategy).model_dump()
        if strategy == "large-first" and objective == INHERITED_LIKELIHOOD:
            usual["additive"] = 0.5
        values = usual | {name: value for name, value in given.items() if value is not None}
        values["strategy"] = strategy
        if strategy == "largest":
            for each in fields(self):
                if each.name not in _USED_BY_LARGEST and getattr(self, each.name) != each.default:
                    raise UsageError(
                        f"--{each.name.replace('_', '-')} is not used by the strategy largest; add --supernet, or "
                        "choose another --strategy",
                        code="unused_option",
                    )
            values |= {"population": 2 * values["skeletons"], "generations": 0}
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
    adaptive: str | None = _search(
        None,
        "cascade: a network, then a second one for images with low confidence; exits: one network that such images "
        "run to its end, and others to an earlier classifier; --latency limits the mean.",
        shown="one network",
    )
    worst: str | None = _search(
        None, "With --adaptive: limit of the latency of an image that needs both.", metavar="TIME"
    )
    supernet: Path | None = option(
        None, "Folder of a trained supernet.", shown="list the largest networks", panel=SEARCH
    )
    objective: str | None = _search(
        None,
        "inherited-likelihood, inherited-accuracy, naswot, macs, or one of your own.",
        shown="inherited-likelihood; inherited-accuracy of autovit; macs without --supernet",
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
    feedback: bool = _measuring(False, "Write a new version of the LUT with the measurements in it.")
    output: Path | None = option(
        None,
        "Folder of the result.",
        flag="--output -o",
        shown="a folder under the runs folder",
        panel=OUTPUT,
    )
    finals: int = _search(
        0,
        "Train this many networks alone, the largest among them, and take the best.",
        minimum=0,
        maximum=1000,
    )
    finals_recipe: str = _search("finals", "Recipe of their trainings: a name, or a file FILE.toml.")
    finals_inherit: bool = _advanced(False, "Start the finals from inherited weights, not random ones.")
    confirm: int = _search(
        1,
        "Repeated trainings in which the best final must beat the largest network again; 0 for none.",
        minimum=0,
        maximum=100,
    )
    data: str | None = _advanced(
        None,
        "Image source (imagefolder:DIR, cifar10:FILE): of --finals and naswot without a supernet, or if the images "
        "of the supernet have moved.",
    )
    outside: bool = _advanced(False, "Also propose networks outside the supernet's scope.")
    on: str = _advanced("auto", "Where networks are evaluated: auto, cpu, cuda or mps.")
    cluster: bool = _advanced(False, "Evaluate on the Ray cluster of $RAY_ADDRESS, or one started here.")

    def check(self) -> None:
        """Raise UsageError for options that do not go together."""
        if self.feedback and not self.measured_on.device:
            raise UsageError("--feedback needs measurements; add --device", code="missing_option")
        if self.cluster and self.on not in ("auto", "cpu"):
            raise UsageError(
                f"--cluster evaluates on CPUs; leave --on {self.on} out", code="conflicting_options"
            )
        if self.supernet is None and self.outside:
            raise UsageError("--outside needs a supernet; add --supernet DIR", code="supernet_required")
        if self.supernet is None and self.data and not self.finals and self.objective in (None, MACS):
            raise UsageError(
                "--data is for networks that are trained or scored; add --supernet DIR, --finals N or "
                "--objective naswot",
                code="supernet_required",
            )
        self._check_adaptive()
        if self.finals and self.supernet is None and not self.data:
            raise UsageError(
                "--finals trains networks; add --data, such as cifar10:DIR or imagefolder:DIR",
                code="no_images",
            )
        if self.finals_inherit and (self.supernet is None or not self.finals):
            raise UsageError(
                "--finals-inherit needs --finals and --supernet; add them", code="missing_option"
            )
        if self.finals == 1:
            raise UsageError(
                "--finals 1 compares nothing; train at least 2 networks, such as --finals 8",
                code="too_few_finals",
            )

    def _check_adaptive(self) -> None:
        if self.adaptive not in (None, "cascade", "exits"):
            raise UsageError(f"--adaptive {self.adaptive!r}: expected cascade or exits", code="invalid_value")
        if (self.adaptive or self.worst) and None in (self.adaptive, self.worst, self.supernet):
            raise UsageError("--adaptive needs --worst and --supernet; add them", code="missing_option")
        if self.adaptive and (self.finals or self.measured_on.device or self.targets.also):
            raise UsageError(
                "--adaptive takes inherited weights and one LUT; leave --finals, --device and --also out",
                code="conflicting_options",
            )

    def cascade_limits(self, target: LatencyTarget, store: LutStore) -> CascadeLimits | None:
        """Return a cascade's limits, None for one network; UsageError if they contradict each other."""
        if self.worst is None:
            return None
        worst_ms = LatencyTarget.open(str(target.ref), self.worst, store, "--worst").latency_ms
        if target.head:
            raise UsageError("--adaptive is for classifiers; use a LUT without a head", code="wrong_space")
        if worst_ms < target.latency_ms:
            raise UsageError(
                f"--worst {worst_ms:.4g} ms is below --latency; the worst case is never below the mean, give at "
                f"least {target.latency_ms:.4g} ms",
                code="invalid_value",
            )
        return CascadeLimits(
            kind="exits" if self.adaptive == "exits" else "cascade",
            latency_ms=target.latency_ms,
            worst_ms=worst_ms,
            cautious=not self.limits.point,
            confidence=self.limits.confidence,
        )

"""Search for the best network within a latency: evaluate, measure the best, choose, export, feed back.

What "best" means is the objective: inherited accuracy with a supernet, its proxy for a backbone with another task's
head, or MACs without a supernet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from luts.format.errors import UsageError
from luts.format.files import check_folder, write_json
from luts.format.provenance import code_version
from luts.format.store import LutStore
from luts.format.table import Column, Table
from orchestrator.agent.device import usable_cores
from orchestrator.devices.discover import resolve
from orchestrator.devices.lock import lock_device
from orchestrator.journal.runs import runs_root
from orchestrator.plan.plan import model_id
from orchestrator.tasks.latency_target import LatencyTarget, constraints_of, searchable_space
from orchestrator.tasks.measured import REFERENCE, measure_with_lut
from orchestrator.tasks.models import export_all
from orchestrator.tasks.options import (
    ADVANCED,
    OUTPUT,
    REQUIRED,
    SEARCH,
    TARGET,
    ExportOptions,
    MeasureOptions,
    StoreOptions,
    option,
)
from orchestrator.tasks.parsing import parse_budget, parse_bytes, parse_count, parse_latency, parse_share
from orchestrator.tasks.progress import Note, Progress, Step, silent
from orchestrator.tasks.target import DeviceOptions
from orchestrator.winner.card import (
    Card,
    by_lut,
    constraints_text,
    lut_text,
    save_weights,
    weighted_spec,
    winner_variants,
    write_winner,
)
from orchestrator.winner.feedback import with_feedback
from orchestrator.winner.winner import (
    LARGEST_BY,
    MeasuredBest,
    ResultFolder,
    best_of,
    largest_document,
    winner_of,
)
from search.algorithms import (
    CachedEvaluator,
    Constraints,
    Criterion,
    Evaluated,
    Evaluator,
    InProcess,
    Objective,
    ObjectiveOpener,
    OnStart,
    SearchResult,
    SearchSettings,
    get_strategy,
    open_objective,
    search,
)
from search.algorithms.cost import fingerprint
from search.algorithms.evaluation import OnResult, ProcessPool, RayPool
from search.algorithms.objectives import BackboneAccuracy, MovableObjective, move_objective
from search.algorithms.record import (
    BACKBONE_ACCURACY,
    INHERITED_ACCURACY,
    MACS,
    ClassifierParams,
    Provenance,
    SearchInputs,
)
from search.spaces import Arch, Space, get_space
from search.spaces.registry import without_task
from search.spaces.scope import Scope, covered_space

if TYPE_CHECKING:
    from search.supernet.inherit import InheritedAccuracy

CONSTRAINTS, MEASURING = "Constraints", "Measuring"
"""Panels of the help."""

ACCURACIES_FILE = "accuracies.jsonl"
"""In the supernet's folder, so that every search with it uses what others have evaluated."""

RANDOM_WEIGHTS = "note: measured with random weights, which take as long as trained ones"

PROXY = (
    "accuracy is a proxy: top-1 of the backbone as a classifier, with weights inherited from the supernet, not mAP "
    "or mIoU; latency is that of backbone and head together"
)


def _parse_count(text: str, flag: str) -> int:
    return int(parse_count(text, flag))


def _parse_bytes(text: str, flag: str) -> int:
    return int(parse_bytes(text, flag))


def _parse_confidence(text: str, flag: str) -> float:
    confidence = parse_share(text, flag)
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
    """The devices that a network is for, and its largest latency on each.

    Attributes:
        lut: LUT of the first device, by name or path.
        latency: Latency limit by it: `10ms`, `150us`, or `80%` of the latency of the LUT's reference model.
        also: `LUT=LATENCY` of further devices.
    """

    lut: str = option(REQUIRED, "LUT of the device that the network is for.", panel=TARGET)
    latency: str = option(
        REQUIRED, "Latency limit: 10ms, 150us, or 80% of the LUT's reference model.", panel=TARGET
    )
    also: tuple[str, ...] = option(
        (), "LUT=LATENCY of a further device with a limit of its own; repeatable.", panel=TARGET
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
    """ChannelLimits of a network's costs besides latency, and how certain the latency limit is."""

    params: int | None = option(
        None,
        "Most parameters, e.g. 1.8M.",
        parse=_parse_count,
        metavar="COUNT",
        panel=CONSTRAINTS,
    )
    macs: int | None = option(
        None,
        "Most conv+linear MACs, e.g. 300M.",
        parse=_parse_count,
        metavar="COUNT",
        panel=CONSTRAINTS,
    )
    memory: int | None = option(
        None,
        "Most bytes of fp32 activations, e.g. 900KB.",
        parse=_parse_bytes,
        metavar="SIZE",
        panel=CONSTRAINTS,
    )
    confidence: float = option(
        0.95,
        "Probability that a measured latency is within the limit: 50% to 99.9%.",
        parse=_parse_confidence,
        shown="95%",
        metavar="PERCENT",
        panel=CONSTRAINTS,
    )
    point: bool = option(
        False,
        "Compare the prediction itself with the limit, not its upper bound.",
        flag="--point",
        panel=CONSTRAINTS,
    )

    def of(self, targets: Sequence[LatencyTarget]) -> Constraints:
        """Return the constraints with the targets' latencies."""
        return constraints_of(
            targets,
            params=self.params,
            macs=self.macs,
            memory_bytes=self.memory,
            cautious=not self.point,
            confidence=self.confidence,
        )


@dataclass(frozen=True, kw_only=True)
class SettingOptions:
    """How to search; fields as those of `SearchSettings`, None where the objective decides."""

    strategy: str | None = option(
        None,
        "coarse-to-fine, evolution, random, pareto, largest, or one of your own.",
        shown="coarse-to-fine; largest without --supernet",
        panel=SEARCH,
    )
    seed: int = option(0, "Random seed of the search.", panel=SEARCH)
    population: int = option(50, "Networks of the first generation.", minimum=1, panel=SEARCH)
    generations: int = option(20, "Generations after the first.", minimum=0, panel=SEARCH)
    objectives: tuple[Criterion, ...] = option(
        ("accuracy", "latency"),
        "Criteria that pareto trades: accuracy, latency, params, macs, memory.",
        parse=_parse_criteria,
        shown="accuracy,latency",
        metavar="NAMES",
        panel=SEARCH,
    )
    skeletons: int = option(
        25,
        "K: skeletons of the coarse stage, or networks of the strategy largest.",
        flag="--top-k",
        minimum=1,
        maximum=10_000,
        panel=SEARCH,
    )
    draws: int = option(
        10_000,
        "Networks drawn for the coarse stage.",
        minimum=1,
        maximum=1_000_000,
        panel=ADVANCED,
    )
    ms_per_loss: float = option(
        0.0,
        "Minimise latency + lambda * error; lambda in ms per unit of error, e.g. 500ms.",
        parse=parse_latency,
        shown="accuracy alone",
        metavar="TIME",
        panel=ADVANCED,
    )
    loss_per_ms: float = option(
        0.0,
        "Minimise error + lambda * latency; lambda in error per ms, e.g. 0.2%.",
        parse=parse_share,
        metavar="PERCENT",
        hidden=True,
    )
    additive: float = option(
        0.0,
        "Weight of an additive surrogate in the accuracy estimate, e.g. 50%.",
        parse=parse_share,
        shown="0%",
        metavar="PERCENT",
        panel=ADVANCED,
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

    device: str = option("", "Measure the best networks on this device.", panel=MEASURING)


@dataclass(frozen=True, kw_only=True)
class SearchCommand(ExportOptions, StoreOptions):
    """Options of `bench search`.

    Attributes:
        targets: Latency targets.
        limits: Other constraints.
        supernet: Folder of a trained supernet; where it is read-only, accuracies are cached elsewhere.
        objective: Name of a registered objective; by default inherited accuracy, or MACs without a supernet.
        settings: How to search.
        data: Where the supernet's images are now, if they have moved.
        outside: Whether networks outside the supernet's scope are proposed too.
        on: Device of the evaluation: `auto`, `cpu`, `cuda` or `mps`.
        cluster: Whether to evaluate on the Ray cluster of $RAY_ADDRESS, or one started here.
        measured_on: Device that the best networks are measured on.
        workers: Evaluating and exporting processes.
        top: How many are measured.
        budget_s: Seconds after which no new pass of measuring starts.
        feedback: Whether the measurements become part of a new version of the LUT.
        output: Folder of the result; by default a folder under the runs folder, named after the search.
    """

    targets: TargetOptions
    limits: ConstraintOptions = field(default_factory=ConstraintOptions)
    supernet: Path | None = option(
        None, "Folder of a trained supernet.", shown="list the largest networks", panel=SEARCH
    )
    objective: str | None = option(
        None,
        "inherited-accuracy, inherited-likelihood, macs, or one of your own.",
        shown="inherited-accuracy; macs without --supernet",
        panel=SEARCH,
    )
    settings: SettingOptions = field(default_factory=SettingOptions)
    workers: int | None = option(
        None,
        "Processes that evaluate and export.",
        minimum=1,
        shown="one per core, or per GPU",
        panel=ADVANCED,
    )
    measured_on: OptionalDevice = field(default_factory=OptionalDevice)
    top: int = option(3, "Number of networks to measure.", minimum=1, panel=MEASURING)
    budget_s: float = option(
        120.0,
        "Time after which no new pass of measuring starts: 90s, 15m or 2h.",
        flag="--budget",
        parse=parse_budget,
        shown="2m",
        metavar="TIME",
        panel=MEASURING,
    )
    feedback: bool = option(
        False,
        "Write a new version of the LUT with the measurements in it.",
        flag="--feedback",
        panel=MEASURING,
    )
    output: Path | None = option(
        None,
        "Folder of the result.",
        flag="--output -o",
        shown="a folder under the runs folder",
        panel=OUTPUT,
    )
    data: str | None = option(
        None,
        "Image source (imagefolder:DIR, cifar10:FILE); use it if the images have moved since training.",
        panel=ADVANCED,
    )
    outside: bool = option(
        False, "Also propose networks outside the supernet's scope.", flag="--outside", panel=ADVANCED
    )
    on: str = option("auto", "Where networks are evaluated: auto, cpu, cuda or mps.", panel=ADVANCED)
    cluster: bool = option(
        False,
        "Evaluate on the Ray cluster of $RAY_ADDRESS, or one started here.",
        flag="--cluster",
        panel=ADVANCED,
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


@dataclass(frozen=True)
class FoundNetwork:
    """Result of a search.

    Attributes:
        result: The search.
        winner: The winner, which is not the search's own if measurements chose another.
        measured: The best networks as measured; None without a device.
        new_lut: The LUT's new version with the measurements.
        files: Files of the Pareto front in all the settings' objectives, best in the first one first; of the
            strategy `largest`, of all its networks.
        folder: Folder of the result.
        weights: The winner's weights as safetensors, those of its backbone if it has another task's head; None
            without a supernet.
    """

    result: SearchResult
    winner: Evaluated
    measured: MeasuredBest | None
    new_lut: Path | None
    files: Mapping[Path, Evaluated]
    folder: Path
    weights: Path | None = None

    MEASURED: ClassVar = (
        Column("rank", "rank"),
        Column("accuracy", "accuracy", 2, percent=True),
        Column("predicted_ms", "predicted ms", 3),
        Column("predicted_low", "low", 3, spare=2),
        Column("predicted_high", "high", 3, spare=2),
        Column("measured_ms", "measured ms", 3),
        Column("measured_low", "low", 3, spare=1),
        Column("measured_high", "high", 3, spare=1),
        Column("error", "error", 2, percent=True),
        Column("chosen", ""),
    )
    NETWORKS: ClassVar = (
        Column("file", "architecture"),
        Column("accuracy", "accuracy", 2, percent=True),
        Column("latency_ms", "predicted ms", 3),
        Column("latency_high_ms", "up to", 3, spare=2),
        Column("params", "parameters", counted=True, spare=1),
        Column("macs", "conv+linear MACs", counted=True, spare=2),
        Column("memory_bytes", "activation bytes", counted=True, spare=3),
    )

    @property
    def by_size(self) -> bool:
        """Whether networks were ranked by MACs, so that nothing is known of their accuracy."""
        return self.result.objective == MACS

    @property
    def _note(self) -> str:
        return PROXY if self.result.objective == BACKBONE_ACCURACY else ""

    def to_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        result, measured = self.result, self.measured
        models = measured.model_dump()["models"] if measured else []
        pins = result.provenance.luts if result.provenance else ()
        files = [str(file) for file in self.files]
        if result.settings.strategy == "largest":
            document = largest_document(result)
            return {name: document[name] for name in _LARGEST_FIELDS} | {
                "trained": False,
                "luts": [pin.name for pin in pins],
                "read_for": pins[0].read_for if pins else "",
                "device_log_sd": pins[0].device_log_sd if pins else 0.0,
                "networks": [
                    row | {"file": file} for row, file in zip(document["networks"], files, strict=True)
                ],
                "measured": [row | {"weights": "random"} for row in models],
                "new_lut": str(self.new_lut) if self.new_lut else None,
            }
        document = {
            **result.model_dump(include={"space", "constraints", "settings", "coarse", "history"}),
            "winner": self.winner.model_dump(),
            "lut": result.lut_names[0],
            "luts": [pin.model_dump() for pin in pins],
            "measured": models,
            "meets_budget": measured.meets_budget if measured else None,
            "new_lut": str(self.new_lut) if self.new_lut else None,
            "front": [row.model_dump() | {"file": str(file)} for file, row in self.files.items()],
        }
        if self._note:
            document |= {
                "arch": str(self.folder / "winner.json"),
                "weights": str(self.weights),
                "top1": self.winner.accuracy,
                "latency_ms": self.winner.latency_ms,
                "latency_high_ms": self.winner.latency_high_ms,
                "note": self._note,
            }
        return document

    def report(self) -> Iterator[Table | str]:
        """Yield the facts, the networks, the measurements, and where the files are."""
        facts = self.facts()
        width = max(map(len, facts))
        yield "\n".join(f"  {name:<{width}}  {text}" for name, text in facts.items())
        yield from self._networks()
        if self.measured is not None:
            title = "the best, measured" + (" with random weights" if self.by_size or self._note else "")
            columns = [column for column in self.MEASURED if column.name != "accuracy" or not self.by_size]
            yield Table(title, columns, self._measured_rows(self.measured))
            yield self.measured.verdict(self.result.constraints.latency_ms)
        if self.new_lut is not None:
            yield f"the LUT with these measurements: {self.new_lut}"
        if self._note:
            yield f"{self._note}; winner.json and the backbone's weights ({self.weights}) in {self.folder}"
        elif self.by_size:
            yield (
                f"architectures in {self.folder}; to rank by accuracy, run bench train and bench search --supernet"
            )
        else:
            yield f"winner.json, .safetensors, .pte, .mlpackage and model card winner.md in {self.folder}"

    def facts(self) -> dict[str, str]:
        """Return what the report says above its tables."""
        result, winner, coarse = self.result, self.winner, self.result.coarse
        luts = map(lut_text, result.provenance.luts) if result.provenance else result.lut_names
        facts = {
            "lut": " and ".join(luts),
            "constraints": constraints_text(result),
            "feasible": f"{100 * coarse.feasible_share:.3g} % of the space; "
            f"the fastest has {coarse.smallest_ms:.3f} ms",
        }
        if result.settings.strategy == "largest":
            candidates = "all" if coarse.whole else "drawn from all"
            return facts | {
                "networks": f"the {len(result.evaluated)} largest by {LARGEST_BY}, of {coarse.feasible:,}, "
                f"{candidates} within the constraints",
                "trained": "nothing: size is all that is known of them",
            }
        value = f"{100 * winner.accuracy:.2f} % on the search split, with inherited weights"
        if own := result.own_objective:
            value = f"{winner.accuracy:.4g} by the objective {own}, in columns named accuracy too"
        predicted = [f"{ms:.3f} ms (up to {high_ms:.3f})" for ms, high_ms in winner.latencies]
        return facts | {
            "evaluated": f"{len(result.evaluated)} architectures in {len(result.history)} generations",
            "winner": winner.arch,
            "objective" if result.own_objective else "accuracy": value,
            "predicted": "; ".join(by_lut(predicted, result.lut_names)),
            "parameters": f"{winner.params:,}",
        }

    def _networks(self) -> Iterator[Table]:
        settings = self.result.settings
        rows = [row.model_dump() | {"file": file.name} for file, row in self.files.items()]
        if settings.strategy == "largest":
            columns = [column for column in self.NETWORKS if column.name != "accuracy"]
            yield Table("the largest, as predicted", columns, rows)
        elif settings.strategy == "pareto":
            title = f"front of {', '.join(settings.objectives)}: architectures in {self.folder / 'front'}"
            yield Table(title, self.NETWORKS, rows)

    def _measured_rows(self, measured: MeasuredBest) -> list[dict[str, Any]]:
        chosen = measured.rank if measured.meets_budget else None
        return [
            model.model_dump()
            | {"rank": rank + 1, "error": model.error, "chosen": "chosen" if rank == chosen else ""}
            for rank, model in enumerate(measured.models)
        ]


_LARGEST_FIELDS = ("space", "budget", "count", "draws", "seed", "coarse", "whole", "largest_by")


@dataclass(frozen=True)
class _Problem:
    """What is searched, and how architectures are evaluated.

    Attributes:
        targets: Latency targets.
        space: The part of the space that is searched.
        constraints: Constraints, the supernet's scope included.
        settings: How to search.
        name: Name of the objective.
        objective: The objective, opened.
        on: Device of the evaluation.
        inherited: The trained supernet; None without one.
    """

    targets: Sequence[LatencyTarget]
    space: Space
    constraints: Constraints
    settings: SearchSettings
    name: str
    objective: Objective
    on: str
    inherited: InheritedAccuracy | None

    @property
    def inputs(self) -> SearchInputs:
        """Everything that decides the result."""
        return SearchInputs(
            space=self.space.name,
            space_digest=self.space.digest,
            evaluator=self.objective.fingerprint,
            price=fingerprint([target.price for target in self.targets]),
            constraints=self.constraints,
            settings=self.settings,
        )

    @property
    def provenance(self) -> Provenance:
        """Identity of everything that decides the result."""
        common: dict[str, Any] = {
            "luts": tuple(target.pin for target in self.targets),
            "code": code_version(),
            "objective": self.name,
        }
        if self.inherited is None:
            return Provenance(**common)
        data = self.inherited.data
        return Provenance(
            checkpoint=self.inherited.info.weights_sha256,
            data=data.source.name,
            data_digest=data.source.digest,
            split=self.inherited.split_name,
            split_seed=data.seed,
            split_fraction=data.fraction,
            **common,
        )


def find_network(options: SearchCommand, progress: Progress = silent) -> FoundNetwork:
    """Find the best network within the constraints; a killed search resumes when it is repeated.

    Args:
        options: What to search and how. If the first LUT is not of the device that is measured on, it is used as a
            proxy: predictions and bounds are widened.
        progress: Called with every evaluation, export and pass of measuring.

    Raises:
        InfeasibleError: nothing meets the constraints; the message names the smallest possible latency.
        UsageError: LUTs and supernet do not go together, the supernet is a single network, the folder has another
            search, or the measurements cannot become part of the LUT.
        StorageError: the folder is not writable; raised before anything is evaluated.
    """
    options.check()
    if options.output is not None:
        check_folder(options.output)
    store = options.open_store(progress, create=options.feedback)
    targets = _targets(options, store, progress)
    problem = _with_supernet(options, targets, progress) if options.supernet else _without(options, targets)
    folder = ResultFolder(options.output or _default_folder(problem.inputs))
    if options.output is None:
        check_folder(folder.path)
        progress(Note(f"result folder: {folder.path}"))
    folder.check(problem.inputs, [target.pin for target in targets])
    with _evaluator(problem, options, folder.path, progress) as (evaluator, on_start):
        prices = [target.price for target in problem.targets]
        result = search(problem.space, prices, evaluator, problem.constraints, problem.settings, on_start)
    result = result.model_copy(update={"provenance": problem.provenance})
    files = folder.save(result)
    measured, new_lut = folder.measured(), None
    if options.measured_on.device:
        best = best_of(result, options.top)
        measured, journal = _measure(best, problem, result, options, folder, progress)
        if options.feedback:
            target, archs = problem.targets[0], [row.architecture() for row in best]
            new_lut = store.write(with_feedback(target.lut, target.pin.sha256, journal, REFERENCE, archs))
    elif measured is not None:
        progress(
            Note("note: these networks were measured earlier, which counts; add --device to measure again")
        )
    winner = winner_of(result, measured)
    weights = _write_winner(problem, result, winner, measured, options, folder.path, progress)
    return FoundNetwork(result, winner, measured, new_lut, files, folder.path, weights)


def _targets(options: SearchCommand, store: LutStore, progress: Progress) -> list[LatencyTarget]:
    """Return the latency targets, the first for the device that is measured on."""
    first, *further = options.targets.open(store)
    device = options.measured_on.device
    if not device:
        return [first, *further]
    first = first.for_device(device, store, progress)
    if first.proxy and options.feedback:
        raise UsageError(
            f"{first.ref} is not of {device}, so measurements there cannot become part of it; "
            "leave --feedback out, or adapt the LUT with bench lut adapt",
            code="proxy_feedback",
        )
    return [first, *further]


def _without(options: SearchCommand, targets: Sequence[LatencyTarget]) -> _Problem:
    """Return a search without a supernet: by MACs, or by an objective of the user's own."""
    name = options.objective or MACS
    objective = move_objective(open_objective(name), options.on)
    return _Problem(
        targets,
        searchable_space(targets, covered_space(targets[0].lut)),
        options.limits.of(targets),
        options.settings.of(name),
        name,
        objective,
        options.on if isinstance(objective, MovableObjective) else "cpu",
        None,
    )


def _with_supernet(options: SearchCommand, targets: Sequence[LatencyTarget], progress: Progress) -> _Problem:
    """Return a search by a supernet, within its scope unless `outside`."""
    from orchestrator.tasks.supernets import open_evaluator  # imports torch

    supernet = options.supernet
    assert supernet is not None
    head = next((target.head for target in targets if target.head), "")
    name = options.objective or (BACKBONE_ACCURACY if head else INHERITED_ACCURACY)
    if head and name in (INHERITED_ACCURACY, BACKBONE_ACCURACY):
        name = BACKBONE_ACCURACY
        progress(Note(f"note: {PROXY}"))
    inherited = open_evaluator(supernet, options.data, progress=progress)
    if inherited.info.recipe.arch is not None:
        raise UsageError(
            f"{supernet} is a single network, so there is nothing to search; give a supernet, which bench train "
            "makes without --arch, or evaluate the network with bench eval",
            code="not_a_supernet",
        )
    classes = inherited.data.classes
    base, whole = inherited.supernet.space, inherited.supernet.space
    if head:
        whole = get_space(f"{base.name}.{head}") if targets[0].head else base
        if targets[0].lut.meta.space != whole.name:
            raise UsageError(
                f"{targets[0].ref} is of {targets[0].lut.meta.space}, the supernet of {base.name}; "
                "use a LUT of that space with a head",
                code="wrong_space",
            )
    else:
        targets = [target.for_classes(classes, progress) for target in targets]
    space, constraints = searchable_space(targets, whole), options.limits.of(targets)
    scope = inherited.info.scope
    if scope is not None and not options.outside:
        space, constraints = (
            scope.restrict(space),
            within_scope(constraints, scope, classes if head else None),
        )
    inherited.move_to("cpu" if options.cluster else options.on)
    objective: Objective = inherited
    if name == BACKBONE_ACCURACY:
        objective = BackboneAccuracy(inherited, classes)
    elif name != INHERITED_ACCURACY:
        objective = open_objective(name, supernet, options.data)
    fixed = options.on == "auto" and not isinstance(objective, MovableObjective)
    on = "cpu" if fixed else inherited.device.type
    objective = move_objective(objective, on)
    settings = options.settings.of(name)
    return _Problem(targets, space, constraints, settings, name, objective, on, inherited)


def within_scope(constraints: Constraints, scope: Scope, classes: int | None = None) -> Constraints:
    """Return constraints that also hold a supernet's scope.

    Args:
        constraints: Those of the search.
        scope: Of the supernet, in parameters of its classifiers.
        classes: Classes of those classifiers, if the networks have another task's head.
    """
    if scope.params is None:
        return constraints
    least, most = max(1, scope.params[0]), scope.params[1]
    if classes is not None:
        as_classifier = ClassifierParams(classes=classes, least_params=least, params=most)
        return constraints.model_copy(update={"as_classifier": as_classifier})
    params = most if constraints.params is None else min(most, constraints.params)
    return constraints.model_copy(update={"params": params, "least_params": least})


def _default_folder(inputs: SearchInputs) -> Path:
    """Return the folder of a search without `--output`, the same for the same inputs."""
    digest = hashlib.sha256(inputs.model_dump_json().encode()).hexdigest()[:8]
    return runs_root() / f"search-{inputs.space}-{digest}"


@contextmanager
def _evaluator(
    problem: _Problem, options: SearchCommand, folder: Path, progress: Progress
) -> Iterator[tuple[Evaluator, OnStart | None]]:
    """Yield the evaluator, with workers that open the objective as this process did, and a cache."""
    if problem.name == MACS:
        yield InProcess(problem.objective), None
        return
    path, shared, workers = folder / ACCURACIES_FILE, None, options.workers or usable_cores()
    source = options.data
    if problem.inherited is not None:
        from orchestrator.tasks.supernets import Notes
        from search.supernet.model.supernet import workers_on

        info = problem.inherited.info
        assert options.supernet is not None
        notes = Notes.of(options.supernet, info.weights_sha256, (ACCURACIES_FILE,), progress)
        path, shared = notes.file(ACCURACIES_FILE), notes.shared_file(ACCURACIES_FILE)
        workers = options.workers or workers_on(problem.on, usable_cores())
        source = _absolute(options.data or info.source)
    supernet = options.supernet.resolve() if options.supernet else None
    opener = ObjectiveOpener(problem.name, supernet, source, problem.on)
    on_start, on_result = _reporting(progress)
    with _open_pool(opener, problem.objective, workers, options.cluster) as pool:
        yield CachedEvaluator(pool, path, on_result, shared), on_start


def _open_pool(
    opener: ObjectiveOpener, objective: Objective, workers: int, cluster: bool
) -> ProcessPool | RayPool:
    """Return workers that open the objective as this process did."""
    return (RayPool if cluster else ProcessPool)(opener, objective.fingerprint, workers)


def _absolute(source: str) -> str:
    """Return an image source with an absolute path, for a worker in another working directory."""
    kind, colon, path = source.partition(":")
    return f"{kind}:{Path(path).resolve()}" if colon else source


def _reporting(progress: Progress) -> tuple[OnStart, OnResult]:
    """Return callbacks that report the feasible fraction, the best value so far and the evaluations left."""
    highest, done, total, feasible = 0.0, 0, 0, ""

    def on_start(share: float, evaluations: int) -> None:
        nonlocal total, feasible
        total = evaluations
        feasible = f"{100 * share:.3g} % of the space is feasible"
        progress(Step(f"searching: {feasible}", done, total))

    def on_result(_: Arch, accuracy: float) -> None:
        nonlocal highest, done
        highest, done = max(highest, accuracy), done + 1
        progress(Step(f"searching: {feasible}, best {100 * highest:.2f} %", done, total))

    return on_start, on_result


def _measure(
    best: Sequence[Evaluated],
    problem: _Problem,
    result: SearchResult,
    options: SearchCommand,
    folder: ResultFolder,
    progress: Progress,
) -> tuple[MeasuredBest, Path]:
    """Measure the best next to the LUT's reference and choose the winner; also return the journal."""
    target, device_options = problem.targets[0], options.measured_on
    archs = [row.architecture() for row in best]
    trained = problem.inherited if problem.name != BACKBONE_ACCURACY else None
    if trained is None:
        progress(Note(RANDOM_WEIGHTS))
    specs = {
        model_id(arch.keys()): weighted_spec(
            target.variant, arch, save_weights(trained, arch, folder.path / "weights")
        )
        if trained
        else target.variant.export_spec(arch.keys())
        for arch in archs
    }
    with resolve(device_options.device, device_options.access) as device, lock_device(device):
        measurement, run = measure_with_lut(
            device,
            target.variant,
            target.lut,
            specs,
            MeasureOptions(budget_s=options.budget_s, seed=result.settings.seed, workers=options.workers),
            progress=progress,
        )
    compared = target.compare(archs, measurement)
    limit_ms = result.constraints.latency_ms
    name, variant = device_options.device, target.lut.meta.variant
    measured = MeasuredBest.choose(name, variant, best, compared, limit_ms)
    run.finish(str(folder.save_measured(measured)))
    return measured, run.journal


def _write_winner(
    problem: _Problem,
    result: SearchResult,
    winner: Evaluated,
    measured: MeasuredBest | None,
    options: SearchCommand,
    folder: Path,
    progress: Progress,
) -> Path | None:
    """Write the winner's architecture and, with a supernet, its weights, exported models and card."""
    arch, inherited = winner.architecture(), problem.inherited
    if inherited is None or problem.name == BACKBONE_ACCURACY:
        write_json(folder / "winner.json", arch.to_document())
        if inherited is None:
            return None
        classifier = without_task(arch).with_classes(inherited.data.classes)
        return save_weights(inherited, classifier, folder / "weights")
    target = problem.targets[0]
    weights = save_weights(inherited, arch, folder / "weights")
    specs = {v.name: weighted_spec(v, arch, weights) for v in winner_variants(target.variant)}
    artifacts = export_all(specs, options.workers, progress)
    card = Card(result, winner, target.lut, inherited.info, measured)
    write_winner(folder, card, weights, artifacts.values())
    return weights

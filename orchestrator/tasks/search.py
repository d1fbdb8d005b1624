"""Search for the best network within a latency: evaluate, measure the best, choose, export, feed back.

What "best" means is the objective: inherited accuracy with a supernet, its proxy for a backbone with another task's
head, or MACs without a supernet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luts.format.errors import UsageError
from luts.format.files import check_folder, exclusive_folder, write_json
from luts.format.provenance import code_version
from luts.format.store import LutStore
from orchestrator.agent.device import usable_cores
from orchestrator.devices.discover import resolve
from orchestrator.devices.lock import lock_device
from orchestrator.export import ExportSpec
from orchestrator.export.artifacts.spec import Variant
from orchestrator.journal.runs import runs_root
from orchestrator.plan.plan import model_id
from orchestrator.tasks.latency_target import LatencyTarget, searchable_space
from orchestrator.tasks.measured import REFERENCE, measure_with_lut
from orchestrator.tasks.models import export_all
from orchestrator.tasks.options import MeasureOptions
from orchestrator.tasks.progress import Note, Progress, Step, silent
from orchestrator.tasks.search_options import SearchCommand
from orchestrator.winner.card import save_weights, weighted, winner_variants, write_network, write_winner
from orchestrator.winner.feedback import with_feedback
from orchestrator.winner.result import PROXY, FoundNetwork
from orchestrator.winner.winner import MeasuredBest, ResultFolder
from search.algorithms import (
    CachedEvaluator,
    Constraints,
    Evaluated,
    Evaluator,
    InProcess,
    Objective,
    ObjectiveOpener,
    OnStart,
    SearchResult,
    SearchSettings,
    open_objective,
    search,
)
from search.algorithms.adaptive import CascadeLimits
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
from search.spaces.registry import arch_from_json, without_task
from search.spaces.scope import Scope, covered_space

if TYPE_CHECKING:
    from search.supernet.inherit import InheritedAccuracy

ACCURACIES_FILE = "accuracies.jsonl"
"""In the supernet's folder, so that every search with it uses what others have evaluated."""

RANDOM_WEIGHTS = "note: measured with random weights, which take as long as trained ones"


@dataclass(frozen=True)
class _Problem:
    """What is searched, and how architectures are evaluated.

    Attributes:
        space: The part of the space that is searched.
        constraints: Those of the options and the supernet's scope.
        name: Name of the objective.
        on: Device of the evaluation.
        inherited: Evaluates the trained supernet; None without one.
        adaptive: Limits of a cascade; then `constraints` hold its worst case. None for one network.
    """

    targets: Sequence[LatencyTarget]
    space: Space
    constraints: Constraints
    settings: SearchSettings
    name: str
    objective: Objective
    on: str
    inherited: InheritedAccuracy | None
    adaptive: CascadeLimits | None = None

    @property
    def inputs(self) -> SearchInputs:
        """What the result folder must agree with."""
        return SearchInputs(
            space=self.space.name,
            space_digest=self.space.digest,
            evaluator=self.objective.fingerprint,
            price=fingerprint([target.price for target in self.targets]),
            constraints=self.constraints,
            settings=self.settings,
            adaptive=self.adaptive,
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

    If the first LUT is not of the device that is measured on, it is used as a proxy: predictions and bounds are
    widened.

    Raises:
        InfeasibleError: nothing meets the constraints; the message names the smallest possible latency.
        UsageError: LUTs and supernet do not go together, the supernet is a single network, the folder has another
            search, or the measurements cannot become part of the LUT.
        StorageError: the folder is not writable; raised before anything is evaluated.
        FolderBusyError: another process writes to the folder.
    """
    options.check()
    if options.output is not None:
        check_folder(options.output)
    store = options.open_store(progress, create=options.feedback)
    targets = _targets(options, store, progress)
    adaptive = options.cascade_limits(targets[0], store)
    if adaptive is not None:
        targets = [replace(targets[0], latency_ms=adaptive.worst_ms)]
    problem = (
        _with_supernet(options, targets, progress)
        if options.supernet
        else _without(options, targets, progress)
    )
    problem = replace(problem, adaptive=adaptive)
    folder = ResultFolder(options.output or _default_folder(problem.inputs))
    if options.output is None:
        check_folder(folder.path)
        progress(Note(f"result folder: {folder.path}"))
    with exclusive_folder(folder.path):
        folder.check(problem.inputs, [target.pin for target in targets])
        return _find_in(folder, problem, options, store, progress)


def _find_in(
    folder: ResultFolder, problem: _Problem, options: SearchCommand, store: LutStore, progress: Progress
) -> FoundNetwork:
    """Search, measure and train in a folder that no other process writes to."""
    if problem.adaptive is not None:
        return _find_cascade(folder, problem, problem.adaptive, options, progress)
    trainings = None
    if options.finals and any(target.head for target in problem.targets):
        raise UsageError(
            "--finals trains classifiers, and these networks have another head; leave it out, and train the winner "
            "with bench train detection or segmentation",
            code="finals_of_head",
        )
    if options.finals:
        from orchestrator.tasks.finals import FinalTrainings, run_finals  # imports torch

        trainings = FinalTrainings.open(options, folder.path, problem.inherited, problem.settings.seed)
    with _evaluator(problem, options, folder.path, progress) as (evaluator, on_start):
        prices = [target.price for target in problem.targets]
        result = search(problem.space, prices, evaluator, problem.constraints, problem.settings, on_start)
    result = result.model_copy(update={"provenance": problem.provenance})
    files = folder.save(result)
    measured, new_lut = folder.measured(), None
    if options.measured_on.device:
        best = candidates_to_measure(result, max(options.top, 2 * options.finals), options.finals)
        measured, journal = _measure(best, problem, result, options, folder, progress)
        if options.feedback:
            target, archs = problem.targets[0], [row.architecture() for row in best]
            new_lut = store.write(with_feedback(target.lut, target.pin.sha256, journal, REFERENCE, archs))
    elif measured is not None:
        progress(
            Note("note: these networks were measured earlier, which counts; add --device to measure again")
        )
    finals = None
    if trainings is not None:
        allowed = measured.within(problem.constraints.latency_ms) if measured else None
        finals = run_finals(result, options, trainings, allowed, folder.path, progress)
    found = FoundNetwork(
        result,
        measured,
        files,
        folder.path,
        new_lut,
        finals=finals,
        top1=_inherited_top1(problem, result, measured),
    )
    final = None
    if trainings is not None and finals is not None:
        final = trainings.first.evaluator(found.winner.architecture())
    return replace(found, weights=_write_winner(problem, found, final, options, progress))


def _find_cascade(
    folder: ResultFolder, problem: _Problem, limits: CascadeLimits, options: SearchCommand, progress: Progress
) -> FoundNetwork:
    """Search single networks, choose a cascade of them and export its stages."""
    from orchestrator.tasks.cascade import choose_cascade, largest_within  # imports torch

    inherited, price, variant = problem.inherited, problem.targets[0].price, problem.targets[0].variant
    assert inherited is not None
    largest = largest_within(problem.space, price, problem.constraints, limits, len(inherited.held_out))
    with _evaluator(problem, options, folder.path, progress) as (evaluator, on_start):
        result = search(problem.space, price, evaluator, problem.constraints, problem.settings, on_start)
    found = choose_cascade(result, largest, limits, problem.space, price, inherited, folder.path, progress)
    more = {"provenance": problem.provenance, "adaptive": limits, "cascade": found}
    files = folder.save(result := result.model_copy(update=more))
    first, second = (arch_from_json(stage.arch) for stage in found.cascade.stages)
    cut = first if limits.kind == "exits" else None
    for name, arch, after in (("stage1", first, None), ("stage2", second, cut)):
        weights = save_weights(inherited, arch, folder.path / "weights", after)
        specs = _specs(variant, arch, weights)
        if cut is not None:
            blocks = tuple(block.key for block in arch.after_exit(cut)) if after else arch.keys()
            segment = "tail" if after else "prefix"
            specs = {each: replace(spec, blocks=blocks, segment=segment) for each, spec in specs.items()}
        artifacts = export_all(specs, options.workers, progress)
        write_network(folder.path, name, arch, weights, artifacts.values())
    return FoundNetwork(result, None, files, folder.path)


def _inherited_top1(
    problem: _Problem, result: SearchResult, measured: MeasuredBest | None
) -> dict[str, float]:
    """Return inherited top-1 of the pick, the largest and the deepest network, where the objective is another."""
    if problem.inherited is None or problem.name in (INHERITED_ACCURACY, BACKBONE_ACCURACY):
        return {}
    rows = [result.winner, result.largest, result.deepest]
    archs = {row.arch for row in rows if row} | ({measured.winner} if measured else set())
    return {arch: problem.inherited.accuracy(arch_from_json(arch)) for arch in sorted(archs)}


def candidates_to_measure(result: SearchResult, count: int, finals: int) -> list[Evaluated]:
    """Return the best networks of a search and, for finals, the largest and the deepest after them."""
    best = result.best(count)
    rules = [row for row in (result.largest, result.deepest) if row] if finals else []
    return [*best, *(row for row in dict.fromkeys(rules) if row not in best)]


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


def _without(options: SearchCommand, targets: Sequence[LatencyTarget], progress: Progress) -> _Problem:
    """Return a search without a supernet: by MACs, or by an objective of the user's own."""
    name = options.objective or MACS
    objective = move_objective(open_objective(name, data=options.data), options.on)
    if options.data:
        from search.supernet.data.sources import open_source  # imports torch

        classes = len(open_source(options.data).classes)
        targets = [target.for_classes(classes, progress) for target in targets]
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
    setting = options.settings
    if options.adaptive and setting.strategy is None:
        setting = replace(setting, strategy="pareto")  # a cascade needs small networks as well as large ones
    name = options.objective or (BACKBONE_ACCURACY if head else setting.usual_objective)
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
    classes, scope = inherited.data.classes, inherited.info.scope
    base, whole = inherited.supernet.space, inherited.supernet.space
    trained = scope.restrict(base) if scope is not None and not options.outside else base
    targets = [target.for_space(trained, options.workers, progress) for target in targets]
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
    settings = setting.of(name)
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
    pool_class = RayPool if options.cluster else ProcessPool
    with pool_class(opener, problem.objective.fingerprint, workers) as pool:
        yield CachedEvaluator(pool, path, on_result, shared), on_start


def _absolute(source: str) -> str:
    """Return an image source with an absolute path, for a worker in another working directory."""
    kind, colon, path = source.partition(":")
    return f"{kind}:{Path(path).resolve()}" if colon else source


def _reporting(progress: Progress) -> tuple[OnStart, OnResult]:
    """Return callbacks that report the feasible fraction, the best value so far and the evaluations left."""
    highest, total, feasible, seen = 0.0, 0, "", set[Arch]()

    def on_start(share: float, evaluations: int) -> None:
        nonlocal total, feasible
        total = evaluations
        feasible = f"{100 * share:.3g} % of the space is feasible"
        progress(Step(f"searching: {feasible}", len(seen), total))

    def on_result(arch: Arch, accuracy: float) -> None:
        nonlocal highest
        highest = max(highest, accuracy)
        seen.add(arch)  # a random network may be requested for the additive model and again by the strategy
        progress(Step(f"searching: {feasible}, best {100 * highest:.2f} %", len(seen), total))

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
    specs = {}
    for arch in archs:
        spec = target.variant.export_spec(arch.keys())
        if trained is not None:
            spec = weighted(spec, save_weights(trained, arch, folder.path / "weights"))
        specs[model_id(arch.keys())] = spec
    with resolve(device_options.device, device_options.access) as device, lock_device(device):
        device.check_ready()
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
    found: FoundNetwork,
    final: InheritedAccuracy | None,
    options: SearchCommand,
    progress: Progress,
) -> Path | None:
    """Write the winner's architecture and, with weights, these, its exported models and its card.

    The weights are those of its `final` training, or inherited ones.
    """
    arch, trained = found.winner.architecture(), final or problem.inherited
    if trained is None or problem.name == BACKBONE_ACCURACY:
        write_json(found.folder / "winner.json", arch.to_document())
        if trained is None:
            return None
        arch = without_task(arch).with_classes(trained.data.classes)
        return save_weights(trained, arch, found.folder / "weights")
    target = problem.targets[0]
    weights = save_weights(trained, arch, found.folder / ("weights" if final is None else "finals"))
    artifacts = export_all(_specs(target.variant, arch, weights), options.workers, progress)
    write_winner(found, target.lut, trained.info, weights, artifacts.values())
    return weights


def _specs(variant: Variant, arch: Arch, weights: Path) -> dict[str, ExportSpec]:
    """Return what a network with weights is exported as."""
    variants = winner_variants(variant)
    return {each.name: weighted(each.export_spec(arch.keys()), weights) for each in variants}

"""The best network of a supernet within a latency: searched, measured, chosen again, written out, fed back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from luts.format.errors import UsageError
from luts.format.files import check_folder
from luts.format.provenance import code_version
from luts.format.store import LutStore
from orchestrator.agent.device import usable_cores
from orchestrator.devices.discover import resolve
from orchestrator.devices.lock import lock_device
from orchestrator.plan.plan import model_id
from orchestrator.tasks.evaluate import Notes, open_evaluator
from orchestrator.tasks.measured import REFERENCE, measure_with_lut
from orchestrator.tasks.models import export_all
from orchestrator.tasks.options import MeasureOptions
from orchestrator.tasks.phones import Phone, budget_of, meant_phones, searchable, within_scope
from orchestrator.tasks.progress import Note, Progress, Step, silent
from orchestrator.tasks.trial import Trial
from orchestrator.winner.card import Card, save_weights, weighted_spec, winner_variants, write_winner
from orchestrator.winner.feedback import fed_back
from orchestrator.winner.winner import MeasuredBest, ResultFolder, best_of, winner_of
from search.algorithms import (
    INHERITED_ACCURACY,
    Begun,
    Budget,
    CachedEvaluator,
    Evaluated,
    Executor,
    Objective,
    ObjectiveOpener,
    SearchResult,
    SearchSettings,
    open_objective,
    search,
)
from search.algorithms.cost import fingerprint
from search.algorithms.evaluation import Watch
from search.algorithms.objectives import Movable, moved
from search.algorithms.record import Provenance, SearchInputs
from search.spaces import Arch
from search.supernet.inherit import InheritedAccuracy
from search.supernet.model.supernet import workers_on

ACCURACIES_FILE = "accuracies.jsonl"
"""Among the supernet's notes, so that every search with it knows what the others have evaluated."""


@dataclass(frozen=True)
class FoundNetwork:
    """A finished search.

    Attributes:
        winner: May be another than the search's own, if measurements chose it.
        measured: None without a trial.
        lut_name: Of the first phone's.
        new_lut: The LUT's next version.
        front: Files of the architectures that no other beats in all the settings' objectives, best in the first
            one first, and what is known of each.
    """

    result: SearchResult
    winner: Evaluated
    measured: MeasuredBest | None
    lut_name: str
    new_lut: Path | None
    front: Mapping[Path, Evaluated] = field(default_factory=dict)


def find_network(
    supernet: Path,
    phones: Sequence[Phone],
    output: Path,
    *,
    budget: Budget | None = None,
    settings: SearchSettings | None = None,
    objective: str = INHERITED_ACCURACY,
    trial: Trial | None = None,
    data: str | None = None,
    outside: bool = False,
    on: str = "auto",
    workers: int | None = None,
    cluster: bool = False,
    store: LutStore | None = None,
    progress: Progress = silent,
) -> FoundNetwork:
    """The most accurate architecture within a latency; a search that was killed goes on when repeated.

    Args:
        supernet: Folder of a trained supernet; where it can't be written, accuracies are kept in the cache.
        phones: That the network is for; the first one's LUT is what it is measured and exported like.
        output: Folder of the result, and of no other search.
        budget: What more than the phones' latencies must hold, as `budget_of` makes it.
        settings: How to search.
        objective: Name of a registered one, by which architectures are judged.
        trial: How the best are measured; None leaves it at predictions. Where the first LUT is not of its device,
            predictions and what is held to the budget are widened (`Phone.meant_for`).
        data: Where the images lie now, if elsewhere than the checkpoint says.
        outside: Propose networks too that the supernet was not trained on.
        on: `auto`, `cpu`, `cuda` or `mps`: where networks are judged.
        workers: Evaluating and exporting processes; all cores, or for evaluating one a GPU.
        cluster: Evaluate on the Ray cluster of `$RAY_ADDRESS`, or one started here.
        store: LUTs of the devices that are known; the user's and the package's by default.
        progress: Told of every evaluation, export and pass of measuring.

    Raises:
        InfeasibleError: nothing meets the budget; says the smallest latency that can be reached.
        UsageError: LUTs and supernet don't fit together, what was trained is one network alone, `output` holds
            another search, or nothing is new to the LUT that is to be fed, or it is another device's.
        StorageError: nothing can be written into `output`, which is found before anything is evaluated.
    """
    check_folder(output)
    settings = settings or SearchSettings()
    phones = meant_phones(phones, trial, store, progress)
    evaluator = open_evaluator(supernet, data, progress=progress)
    if evaluator.info.recipe.arch is not None:
        raise UsageError(
            f"{supernet} holds one network that was trained alone, so there is nothing to search; give a supernet, "
            "which bench train makes without --arch, or judge the network with bench eval"
        )
    phones = [phone.for_classes(evaluator.data.classes, progress) for phone in phones]
    space = searchable(phones, evaluator.supernet.space)
    budget = budget or budget_of(phones)
    if not outside and (scope := evaluator.info.scope) is not None:
        space, budget = scope.restrict(space), within_scope(budget, scope)
    notes = Notes.of(supernet, evaluator.info.weights_sha256, (ACCURACIES_FILE,), progress)
    begun, watch = _tellers(progress)
    if cluster and on not in ("auto", "cpu"):
        raise UsageError(f"--cluster evaluates on CPUs; leave --on {on} out")
    evaluator.move_to("cpu" if cluster else on)
    own: Objective = evaluator
    if objective != INHERITED_ACCURACY:
        own = open_objective(objective, supernet, data)
    computes = "cpu" if on == "auto" and not isinstance(own, Movable) else evaluator.device.type
    own = moved(own, computes)
    images = _from_anywhere(data or evaluator.info.source)
    opener = ObjectiveOpener(objective, supernet.resolve(), images, computes)
    evaluating = workers or workers_on(computes, usable_cores())
    prices = [phone.price for phone in phones]
    folder = ResultFolder(output)
    folder.check(
        SearchInputs(
            space=space.name,
            space_digest=space.digest,
            evaluator=own.fingerprint,
            price=fingerprint(prices),
            budget=budget,
            settings=settings,
        ),
        [phone.pin for phone in phones],
    )
    with _executor(opener, own, evaluating, cluster) as executor:
        cached = CachedEvaluator(
            executor, notes.file(ACCURACIES_FILE), watch, notes.shared_file(ACCURACIES_FILE)
        )
        result = search(space, prices, cached, budget, settings, begun)
    result = result.model_copy(update={"provenance": _provenance(phones, evaluator, objective)})
    front = folder.save(result)
    phone, measured, new_lut = phones[0], folder.measured(), None
    if trial is not None:
        best = best_of(result, trial.count)
        measured, journal = _measure(best, phone, trial, result, evaluator, folder, workers, progress)
    elif measured is not None:
        progress(Note("note: these networks were measured before, which counts; --device measures anew"))
    winner = winner_of(result, measured)
    arch = winner.architecture()
    weights = save_weights(evaluator, arch, output / "weights")
    specs = {v.name: weighted_spec(v, arch, weights) for v in winner_variants(phone.variant)}
    artifacts = export_all(specs, workers, progress)
    card = Card(result, winner, phone.pin.name, phone.lut, evaluator.info, measured)
    write_winner(output, card, weights, artifacts.values())
    if trial is not None and trial.feed_into is not None:
        archs = [row.architecture() for row in best]
        new_lut = trial.feed_into.write(fed_back(phone.lut, phone.pin.sha256, journal, REFERENCE, archs))
    return FoundNetwork(result, winner, measured, phone.pin.name, new_lut, front)


def _measure(
    best: Sequence[Evaluated],
    phone: Phone,
    trial: Trial,
    result: SearchResult,
    evaluator: InheritedAccuracy,
    folder: ResultFolder,
    workers: int | None,
    progress: Progress,
) -> tuple[MeasuredBest, Path]:
    """Measure the best beside the LUT's reference and choose again; also the journal."""
    specs = {}
    for arch in (row.architecture() for row in best):
        weights = save_weights(evaluator, arch, folder.path / "weights")
        specs[model_id(arch.keys())] = weighted_spec(phone.variant, arch, weights)
    with resolve(trial.device, trial.access) as device, lock_device(device):
        measurement, run = measure_with_lut(
            device,
            phone.variant,
            phone.lut,
            specs,
            MeasureOptions(budget_s=trial.budget_s, seed=result.settings.seed, workers=workers),
            progress=progress,
        )
    compared = phone.compared([row.architecture() for row in best], measurement)
    variant, budget_ms = phone.lut.meta.variant, result.budget.latency_ms
    measured = MeasuredBest.choose(trial.device, variant, best, compared, budget_ms)
    run.finish(str(folder.save_measured(measured)))
    return measured, run.journal


@contextmanager
def _executor(opener: ObjectiveOpener, own: Objective, workers: int, cluster: bool) -> Iterator[Executor]:
    """Workers that open the objective as this process did."""
    if cluster:
        from search.algorithms.evaluation import RayPool

        with RayPool(opener, own.fingerprint, workers) as ray_pool:
            yield ray_pool
    else:
        from search.algorithms.evaluation import ProcessPool

        with ProcessPool(opener, own.fingerprint, workers) as pool:
            yield pool


def _from_anywhere(source: str) -> str:
    """The same images for a worker in another working directory."""
    kind, colon, where = source.partition(":")
    return f"{kind}:{Path(where).resolve()}" if colon else source


def _tellers(progress: Progress) -> tuple[Begun, Watch]:
    """Tell the share within the budget, the best accuracy so far and how many evaluations are left."""
    highest, seen, total, within = 0.0, 0, 0, ""

    def begun(share: float, evaluations: int) -> None:
        nonlocal total, within
        total = evaluations
        within = f"{100 * share:.3g} % of the space within the budget"
        progress(Step(f"searching: {within}", seen, total))

    def watch(_: Arch, accuracy: float) -> None:
        nonlocal highest, seen
        highest, seen = max(highest, accuracy), seen + 1
        progress(Step(f"searching: {within}, best {100 * highest:.2f} %", seen, total))

    return begun, watch


def _provenance(phones: Sequence[Phone], evaluator: InheritedAccuracy, objective: str) -> Provenance:
    data = evaluator.data
    return Provenance(
        luts=tuple(phone.pin for phone in phones),
        checkpoint=evaluator.info.weights_sha256,
        data=data.source.name,
        data_digest=data.source.digest,
        split=evaluator.split_name,
        split_seed=data.seed,
        split_fraction=data.fraction,
        code=code_version(),
        objective=objective,
    )

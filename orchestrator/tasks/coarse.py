"""The largest networks within a latency: a search with nothing trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from luts.format.errors import UsageError
from luts.format.files import check_folder, write_json
from luts.format.store import LutStore
from orchestrator.devices.discover import resolve
from orchestrator.devices.lock import lock_device
from orchestrator.measure.validate import LatencyComparison
from orchestrator.plan.plan import model_id
from orchestrator.tasks.measured import measure_with_lut
from orchestrator.tasks.options import MeasureOptions
from orchestrator.tasks.phones import Phone, budget_of, meant_phones, searchable
from orchestrator.tasks.progress import Note, Progress, silent
from orchestrator.tasks.trial import Trial
from orchestrator.winner.winner import LARGEST_FILE, REMEDY, RESULT_FILE
from search.algorithms.record import Budget, CoarseInputs, CoarseResult, Sized
from search.algorithms.study import largest_within
from search.spaces import Arch
from search.spaces.scope import covered_space

RANDOM_WEIGHTS = "note: measured with random weights, which take as long as trained ones"


@dataclass(frozen=True)
class LargestNetworks:
    """The largest networks within a budget; nothing is known of their accuracy.

    Attributes:
        files: Files of the architectures, and what each costs, the largest first.
        measured: The first of them beside the LUT's reference, with random weights; none without a trial.
    """

    result: CoarseResult
    files: Mapping[Path, Sized]
    measured: tuple[LatencyComparison, ...] = ()


def find_largest(
    phones: Sequence[Phone],
    output: Path,
    *,
    budget: Budget | None = None,
    count: int = 25,
    draws: int = 10_000,
    seed: int = 0,
    trial: Trial | None = None,
    workers: int | None = None,
    store: LutStore | None = None,
    progress: Progress = silent,
) -> LargestNetworks:
    """The coarse stage of Algorithm 2 alone: the networks within a latency with the most MACs, then parameters.

    Args:
        phones: That the networks are for; the first one's LUT says the space and how they are measured.
        output: Folder of the result, and of no other search.
        budget: What more than the phones' latencies must hold, as `budget_of` makes it.
        count: K, how many networks are kept.
        draws: Candidates drawn from within the budget; all of them, where there are no more.
        seed: Of the draws.
        trial: How the first are measured, with random weights; None leaves it at predictions. Where the first LUT
            is not of its device, predictions and what is held to the budget are widened (`Phone.meant_for`).
        workers: Exporting processes; all cores.
        store: LUTs of the devices that are known; the user's and the package's by default.
        progress: Told of every export and pass of measuring.

    Raises:
        InfeasibleError: nothing meets the budget; says the smallest latency that can be reached.
        UsageError: the LUTs are of different spaces, or `output` holds another search.
        StorageError: nothing can be written into `output`.
    """
    check_folder(output)
    phones = meant_phones(phones, trial, store, progress)
    phone = phones[0]
    space = searchable(phones, covered_space(phone.lut))
    prices = [phone.price for phone in phones]
    result = largest_within(space, prices, budget or budget_of(phones), count, draws, seed)
    result = result.model_copy(update={"luts": tuple(phone.pin for phone in phones)})
    _check(output, result)
    result.save(output / LARGEST_FILE)
    files = {
        output / "networks" / f"{rank:03}.json": row for rank, row in enumerate(result.networks, start=1)
    }
    for file, row in files.items():
        write_json(file, row.architecture().to_document())
    if trial is None:
        return LargestNetworks(result, files)
    progress(Note(RANDOM_WEIGHTS))
    archs = [row.architecture() for row in result.networks[: trial.count]]
    return LargestNetworks(result, files, _measured(archs, phone, trial, seed, workers, progress))


def _check(output: Path, result: CoarseResult) -> None:
    """`UsageError` where a folder holds another search."""
    largest = output / LARGEST_FILE
    if (output / RESULT_FILE).exists():
        raise UsageError(f"{output} holds a search with a supernet; {REMEDY}")
    if largest.exists():
        names = CoarseInputs.model_fields
        before, now = (
            each.model_dump(include=set(names)) for each in (CoarseResult.load(largest, REMEDY), result)
        )
        if differing := [name for name in names if before[name] != now[name]]:
            raise UsageError(f"{output} holds a search with another {differing[0]}; {REMEDY}")


def _measured(
    archs: Sequence[Arch], phone: Phone, trial: Trial, seed: int, workers: int | None, progress: Progress
) -> tuple[LatencyComparison, ...]:
    specs = {model_id(arch.keys()): phone.variant.export_spec(arch.keys()) for arch in archs}
    with resolve(trial.device, trial.access) as device, lock_device(device):
        measurement, run = measure_with_lut(
            device,
            phone.variant,
            phone.lut,
            specs,
            MeasureOptions(budget_s=trial.budget_s, seed=seed, workers=workers),
            progress=progress,
        )
    run.finish("measured")
    return tuple(phone.compared(archs, measurement))

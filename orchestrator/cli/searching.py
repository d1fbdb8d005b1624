"""`bench search`: the best network within a latency, exported, measured and described."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from luts.errors import UsageError
from luts.files import META_FILE
from luts.lut import Lut
from luts.model import LatencyModel
from luts.store import LutRef
from orchestrator.cli.found import Found, feed_back, measure_best, report_search, write_winner
from orchestrator.cli.options import BudgetOption, parse_count, parse_latency
from orchestrator.cli.output import JsonOption, progress_bar
from orchestrator.cli.training import DataOption, SupernetOption, open_evaluator
from orchestrator.coverage import covered_space
from orchestrator.export.cache import digest
from orchestrator.paths import lut_store
from search.algorithms import Budget, CachedEvaluator, LutPrice, SearchSettings, search
from search.algorithms.cache import Judge, Watch
from search.algorithms.record import LutPin, Provenance
from search.code_version import code_version
from search.spaces import Arch, Space

if TYPE_CHECKING:
    from search.supernet.evaluate import InheritedAccuracy

ACCURACIES_FILE = "accuracies.jsonl"
"""In the supernet's folder, so that every search with it knows what the others have evaluated."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("search")(search_command)


def search_command(
    lut: Annotated[str, typer.Option(help="LUT of the phone that the network is for.")],
    supernet: SupernetOption,
    latency: Annotated[str, typer.Option(help="Budget: 10ms, or 80% of the LUT's reference model.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the result.")],
    params: Annotated[str | None, typer.Option(help="At most so many parameters, e.g. 1.8M.")] = None,
    point: Annotated[
        bool, typer.Option("--point", help="Hold the prediction to the budget, not its interval's upper end.")
    ] = False,
    data: DataOption = None,
    device: Annotated[str | None, typer.Option(help="Measure the best on this device.")] = None,
    top_count: Annotated[int, typer.Option("--top", min=1, help="How many are measured.")] = 3,
    feedback: Annotated[
        bool, typer.Option("--feedback", help="Write a new version of the LUT with these measurements in it.")
    ] = False,
    budget: BudgetOption = "2m",
    seed: Annotated[int, typer.Option(help="Of the search.")] = 0,
    population: Annotated[int, typer.Option(min=1)] = 50,
    generations: Annotated[int, typer.Option(min=0)] = 20,
    parents: Annotated[int, typer.Option(min=1)] = 10,
    crossovers: Annotated[int, typer.Option(min=0)] = 25,
    mutations: Annotated[int, typer.Option(min=0)] = 25,
    luts: Annotated[Path | None, typer.Option("--luts", help="A further folder of LUTs.")] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Evaluating and exporting processes; all cores.")
    ] = None,
    cluster: Annotated[
        bool,
        typer.Option("--cluster", help="Evaluate on the Ray cluster of $RAY_ADDRESS, or one started here."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Most accurate architecture within a latency (Algorithm 2); a killed search goes on when repeated."""
    if feedback and device is None:
        raise UsageError("--feedback needs measurements; add --device")
    store = lut_store(luts)
    ref = store.resolve(lut)
    table = store.load(ref.path)
    evaluator = open_evaluator(supernet, data)
    space = _searchable(table, evaluator)
    asked = Budget(
        latency_ms=_latency_budget(latency, table),
        params=int(parse_count(params, "--params")) if params else None,
        cautious=not point,
    )
    settings = SearchSettings(
        seed=seed,
        population=population,
        generations=generations,
        parents=parents,
        crossovers=crossovers,
        mutations=mutations,
    )
    price = LutPrice(LatencyModel.from_lut(table), _lut_digest(ref))
    with _judge(evaluator, supernet, data, workers, cluster) as judge, _watched(settings) as watch:
        cached = CachedEvaluator(judge, supernet / ACCURACIES_FILE, watch)
        result = search(space, price, cached, asked, settings)
    result = result.model_copy(update={"provenance": _provenance(ref, evaluator)})
    result.save(output / "result.json")
    found = Found(result, evaluator, table, str(ref), output, workers)
    measured = measure_best(found, device, top_count, budget, seed) if device else None
    write_winner(found, measured)
    further = feed_back(found, measured, store) if feedback and measured else None
    report_search(found, measured, further, as_json)


@contextlib.contextmanager
def _judge(
    evaluator: InheritedAccuracy, supernet: Path, data: str | None, workers: int | None, cluster: bool
) -> Iterator[Judge]:
    """Workers that open checkpoint and images as this process did."""
    from search.supernet.evaluate import InheritedOpener

    opener = InheritedOpener(supernet.resolve(), data)
    count = workers or len(os.sched_getaffinity(0))
    if cluster:
        from search.algorithms.cluster import RayPool

        with RayPool(opener, evaluator.fingerprint, count) as ray_pool:
            yield ray_pool
    else:
        from search.algorithms.pool import ProcessPool

        with ProcessPool(opener, evaluator.fingerprint, count) as pool:
            yield pool


@contextlib.contextmanager
def _watched(settings: SearchSettings) -> Iterator[Watch]:
    """A bar with the best accuracy so far and how many evaluations are left."""
    highest, seen = 0.0, 0
    with progress_bar() as progress:

        def watch(_: Arch, accuracy: float) -> None:
            nonlocal highest, seen
            highest, seen = max(highest, accuracy), seen + 1
            progress(f"searching: best {100 * highest:.2f} %", seen, settings.evaluations)

        yield watch


def _searchable(lut: Lut, evaluator: InheritedAccuracy) -> Space:
    """The part of the supernet's space whose latency the LUT knows."""
    space = evaluator.supernet.space
    if lut.meta.space != space.name:
        raise UsageError(
            f"the LUT is of space {lut.meta.space}, the supernet of {space.name}; use a matching pair"
        )
    return covered_space(lut, space.default_classes)


def _latency_budget(text: str, lut: Lut) -> float:
    if text.endswith("%"):
        return lut.meta.reference_ms * parse_latency(text[:-1]) / 100
    return parse_latency(text)


def _lut_digest(ref: LutRef) -> str:
    return digest(ref.path / META_FILE)[0]


def _provenance(ref: LutRef, evaluator: InheritedAccuracy) -> Provenance:
    data = evaluator.data
    return Provenance(
        luts=(LutPin(name=str(ref), sha256=_lut_digest(ref)),),
        checkpoint=evaluator.info.weights_sha256,
        data=data.source.name,
        data_digest=data.source.digest,
        split=evaluator.split_name,
        split_seed=data.seed,
        split_fraction=data.fraction,
        code=code_version(),
    )

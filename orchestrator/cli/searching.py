"""`bench search`: the best network within a latency, exported, measured and described."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from luts.errors import UsageError
from orchestrator.cli.found import Found, feed_back, measure_best, report_search, write_winner
from orchestrator.cli.options import (
    AgentOption,
    AllowOption,
    AppOption,
    BudgetOption,
    parse_access,
    parse_count,
)
from orchestrator.cli.output import JsonOption, progress_bar
from orchestrator.cli.phones import Phone, open_phones, searchable
from orchestrator.cli.training import DataOption, SupernetOption, open_evaluator
from orchestrator.cores import usable_cores
from orchestrator.paths import lut_store
from search.algorithms import Budget, CachedEvaluator, SearchSettings, search
from search.algorithms.cache import Judge, Watch
from search.algorithms.record import Objective, Provenance, Strategy
from search.algorithms.strategies import Begun
from search.code_version import code_version
from search.spaces import Arch

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
    also: Annotated[
        list[str] | None, typer.Option(help="LUT=LATENCY of a further phone that must meet its own budget.")
    ] = None,
    params: Annotated[str | None, typer.Option(help="At most so many parameters, e.g. 1.8M.")] = None,
    macs: Annotated[str | None, typer.Option(help="At most so many conv+linear MACs, e.g. 300M.")] = None,
    memory: Annotated[str | None, typer.Option(help="At most so many bytes of fp32 activations.")] = None,
    confidence: Annotated[
        float, typer.Option(min=0.5, max=0.999, help="Chance that a measured latency is within the budget.")
    ] = 0.95,
    point: Annotated[
        bool, typer.Option("--point", help="Hold the prediction itself to the budget, whatever the chance.")
    ] = False,
    strategy: Annotated[Strategy, typer.Option(help="How architectures are proposed.")] = "coarse-to-fine",
    objectives: Annotated[
        str, typer.Option(help="What `pareto` trades, of accuracy, latency, params, macs, memory.")
    ] = "accuracy,latency",
    loss_per_ms: Annotated[
        float, typer.Option(min=0, help="Share of wrong answers that a millisecond is worth.")
    ] = 0.0,
    data: DataOption = None,
    device: Annotated[str | None, typer.Option(help="Measure the best on this device.")] = None,
    agent: AgentOption = "python",
    allow: AllowOption = None,
    app: AppOption = None,
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
    phones = open_phones(store, lut, latency, also or ())
    evaluator = open_evaluator(supernet, data)
    space = searchable(phones, evaluator.supernet.space)
    asked = Budget(
        latency_ms=phones[0].latency_ms,
        further_latency_ms=tuple(phone.latency_ms for phone in phones[1:]),
        params=int(parse_count(params, "--params")) if params else None,
        macs=int(parse_count(macs, "--macs")) if macs else None,
        memory_bytes=int(parse_count(memory, "--memory")) if memory else None,
        cautious=not point,
        confidence=confidence,
    )
    settings = SearchSettings(
        strategy=strategy,
        objectives=_objectives(objectives),
        loss_per_ms=loss_per_ms,
        seed=seed,
        population=population,
        generations=generations,
        parents=parents,
        crossovers=crossovers,
        mutations=mutations,
    )
    prices = [phone.price for phone in phones]
    with _judge(evaluator, supernet, data, workers, cluster) as judge, _watched(settings) as watched:
        begun, watch = watched
        cached = CachedEvaluator(judge, supernet / ACCURACIES_FILE, watch)
        result = search(space, prices, cached, asked, settings, begun)
    result = result.model_copy(update={"provenance": _provenance(phones, evaluator)})
    result.save(output / "result.json")
    found = Found(result, evaluator, phones[0].lut, phones[0].pin, output, workers)
    measured = None
    if device:
        measured = measure_best(found, device, parse_access(agent, allow, app), top_count, budget, seed)
    write_winner(found, measured)
    further = feed_back(found, measured, store) if feedback and measured else None
    report_search(found, measured, further, as_json)


@contextlib.contextmanager
def _judge(
    evaluator: InheritedAccuracy, supernet: Path, data: str | None, workers: int | None, cluster: bool
) -> Iterator[Judge]:
    """Workers that open checkpoint and images as this process did."""
    from search.supernet.evaluate import InheritedOpener

    opener = InheritedOpener(supernet.resolve(), _from_anywhere(data or evaluator.info.source))
    count = workers or usable_cores()
    if cluster:
        from search.algorithms.cluster import RayPool

        with RayPool(opener, evaluator.fingerprint, count) as ray_pool:
            yield ray_pool
    else:
        from search.algorithms.pool import ProcessPool

        with ProcessPool(opener, evaluator.fingerprint, count) as pool:
            yield pool


def _from_anywhere(source: str) -> str:
    """The same images for a worker in another working directory."""
    kind, colon, where = source.partition(":")
    return f"{kind}:{Path(where).resolve()}" if colon else source


@contextlib.contextmanager
def _watched(settings: SearchSettings) -> Iterator[tuple[Begun, Watch]]:
    """A bar with the share within the budget, the best accuracy so far and how many evaluations are left."""
    highest, seen, within = 0.0, 0, ""
    with progress_bar() as progress:

        def begun(share: float) -> None:
            nonlocal within
            within = f"{100 * share:.3g} % of the space within the budget"
            progress(f"searching: {within}", seen, settings.evaluations)

        def watch(_: Arch, accuracy: float) -> None:
            nonlocal highest, seen
            highest, seen = max(highest, accuracy), seen + 1
            progress(f"searching: {within}, best {100 * highest:.2f} %", seen, settings.evaluations)

        yield begun, watch


def _objectives(text: str) -> tuple[Objective, ...]:
    known = get_args(Objective)
    if unknown := [name for name in text.split(",") if name not in known]:
        raise UsageError(f"--objectives: no {unknown[0]!r}; there are {', '.join(known)}")
    return tuple(name for name in known if name in text.split(","))


def _provenance(phones: Sequence[Phone], evaluator: InheritedAccuracy) -> Provenance:
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
    )

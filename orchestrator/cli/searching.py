"""`bench search`: the best network within a latency, exported and measured."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from luts.errors import BlocktimeError, UsageError
from luts.files import META_FILE
from luts.lut import Lut
from luts.model import LatencyModel
from orchestrator.cli.exports import export_all
from orchestrator.cli.measuring import measure_beside
from orchestrator.cli.options import BudgetOption, WorkersOption, parse_count, parse_latency
from orchestrator.cli.output import Column, JsonOption, emit_facts, emit_json, emit_rows, progress_bar
from orchestrator.cli.training import DataOption, SupernetOption, open_evaluator
from orchestrator.coverage import covered_space
from orchestrator.devices.discover import resolve
from orchestrator.export import ExportSpec
from orchestrator.export.cache import digest
from orchestrator.measure.plan import model_id
from orchestrator.paths import lut_store
from orchestrator.variant import Variant
from orchestrator.winner import (
    MeasuredArch,
    beside_prediction,
    save_weights,
    top,
    weighted_spec,
    write_json,
    write_measured,
)
from search.algorithms import Budget, CachedEvaluator, LutPrice, SearchResult, SearchSettings, search
from search.algorithms.record import Evaluated
from search.spaces import Space, get_space

if TYPE_CHECKING:
    from search.supernet.evaluate import InheritedAccuracy


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
    budget: BudgetOption = "2m",
    seed: Annotated[int, typer.Option(help="Of the search.")] = 0,
    population: Annotated[int, typer.Option(min=1)] = 50,
    generations: Annotated[int, typer.Option(min=0)] = 20,
    parents: Annotated[int, typer.Option(min=1)] = 10,
    crossovers: Annotated[int, typer.Option(min=0)] = 25,
    mutations: Annotated[int, typer.Option(min=0)] = 25,
    luts: Annotated[Path | None, typer.Option("--luts", help="A further folder of LUTs.")] = None,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Most accurate architecture within a latency (Algorithm 2); a killed search goes on when repeated."""
    ref = lut_store(luts).resolve(lut)
    table = lut_store(luts).load(ref.path)
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
    price = LutPrice(LatencyModel.from_lut(table), digest(ref.path / META_FILE)[0])
    evaluations = population + generations * (crossovers + mutations)
    highest = 0.0
    with progress_bar() as progress:

        def watch(found: Evaluated, count: int) -> None:
            nonlocal highest
            highest = max(highest, found.accuracy)
            progress(f"searching: best {100 * highest:.2f} %", count, evaluations)

        cached = CachedEvaluator(evaluator, output / "accuracies.jsonl")
        result = search(space, price, cached, asked, settings, watch)
    result.save(output / "result.json")
    best = top(result, top_count)
    specs = _export_best(best, evaluator, Variant.parse(table.meta.variant), output, workers)
    measured = _measure_best(best, specs, table, device, output, budget, seed, workers) if device else []
    _report(result, measured, str(ref), as_json)


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


def _export_best(
    best: Sequence[Evaluated],
    evaluator: InheritedAccuracy,
    variant: Variant,
    output: Path,
    workers: int | None,
) -> dict[str, ExportSpec]:
    """Write the winner as JSON, weights and model; the others' weights too. How each is exported, by model id."""
    specs = {}
    for evaluated in best:
        arch = evaluated.architecture()
        weights = output / "weights" / f"{model_id(arch.keys())}.safetensors"
        save_weights(evaluator, arch, weights)
        specs[model_id(arch.keys())] = weighted_spec(variant, arch, weights)
    artifacts = export_all(specs, workers)
    winner = best[0].architecture()
    name = model_id(winner.keys())
    write_json(output / "winner.json", get_space(winner.space).to_document(winner))
    try:
        shutil.copyfile(artifacts[name].path, output / f"winner{artifacts[name].path.suffix}")
        shutil.copyfile(output / "weights" / f"{name}.safetensors", output / "winner.safetensors")
    except OSError as error:
        raise BlocktimeError(
            f"cannot write to {output}: {error.strerror}; free some space and repeat"
        ) from error
    return specs


def _measure_best(
    best: Sequence[Evaluated],
    specs: Mapping[str, ExportSpec],
    lut: Lut,
    device: str,
    output: Path,
    budget: str,
    seed: int,
    workers: int | None,
) -> list[MeasuredArch]:
    """Measure the exported models beside the LUT's reference."""
    variant = Variant.parse(lut.meta.variant)
    with resolve(device) as found:
        measurement, run = measure_beside(found, variant, lut, specs, budget, seed, workers)
    rows = beside_prediction(lut, best, measurement)
    path = output / "measured.json"
    write_measured(path, rows, {"device": device, "variant": variant.name})
    run.finish(str(path))
    return rows


def _report(result: SearchResult, measured: Sequence[MeasuredArch], lut: str, as_json: bool) -> None:
    winner = result.winner
    if as_json:
        document = result.model_dump(include={"space", "budget", "settings", "coarse", "history", "winner"})
        emit_json(document | {"lut": lut, "measured": [vars(row) for row in measured]})
        return
    counts = f"{result.coarse.feasible:,} of {result.coarse.priced:,} priced architectures within the budget"
    facts = {
        "lut": lut,
        "budget": f"{result.budget.latency_ms:.3f} ms"
        + (f", {result.budget.params:,} parameters" if result.budget.params else "")
        + (", held by the interval's upper end" if result.budget.cautious else ""),
        "coarse": f"{counts}; the fastest has {result.coarse.smallest_ms:.3f} ms",
        "evaluated": f"{len(result.evaluated)} architectures in {len(result.history)} generations",
        "winner": winner.arch,
        "accuracy": f"{100 * winner.accuracy:.2f} % on the search split, with inherited weights",
        "predicted": f"{winner.latency_ms:.3f} ms (up to {winner.latency_high_ms:.3f})",
        "parameters": f"{winner.params:,}",
    }
    emit_facts("", facts, False)
    if measured:
        rows = [
            {**vars(row), "rank": rank, "error": row.predicted_ms / row.measured_ms - 1}
            for rank, row in enumerate(measured, start=1)
        ]
        columns = [
            Column("rank", "rank"),
            Column("accuracy", "accuracy", 2, percent=True),
            Column("predicted_ms", "predicted ms", 3),
            Column("predicted_low", "low", 3),
            Column("predicted_high", "high", 3),
            Column("measured_ms", "measured ms", 3),
            Column("measured_low", "low", 3),
            Column("measured_high", "high", 3),
            Column("error", "error", 2, percent=True),
        ]
        emit_rows("the best, measured", columns, rows, False)

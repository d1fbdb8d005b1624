"""`bench search`: the best network within a latency, exported, measured and described."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from luts.format.errors import UsageError
from luts.format.table import Column
from orchestrator.cli.eval import DataOption, OnOption, OutsideOption
from orchestrator.cli.lut_store import LutsOption, open_store
from orchestrator.cli.options import AccessOptions, BudgetOption, with_options
from orchestrator.cli.output import JsonOption, emit_facts, emit_json, emit_rows, say
from orchestrator.cli.progress import shown_progress
from orchestrator.cli.search_coarse import check_settings, show_largest
from orchestrator.cli.search_options import LimitOptions, PhoneOptions, SettingOptions
from orchestrator.tasks.coarse import find_largest
from orchestrator.tasks.parsing import parse_budget
from orchestrator.tasks.phones import Phone, budget_of, is_priced_with_head
from orchestrator.tasks.trial import Trial
from orchestrator.winner.card import budget_text, by_lut, lut_text
from orchestrator.winner.winner import MeasuredBest
from search.algorithms import INHERITED_ACCURACY, Budget, SearchSettings

if TYPE_CHECKING:
    from orchestrator.tasks.search import FoundNetwork


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("search")(with_options(search_command))


def search_command(
    phones: PhoneOptions,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the result.")],
    *,
    supernet: Annotated[
        Path | None,
        typer.Option(
            "--supernet", help="Folder of a trained supernet; without it the largest networks are listed."
        ),
    ] = None,
    limits: LimitOptions,
    settings: SettingOptions,
    objective: Annotated[
        str,
        typer.Option(
            help="What they are judged by: inherited-accuracy, inherited-likelihood, or one of your own."
        ),
    ] = INHERITED_ACCURACY,
    data: DataOption = None,
    outside: OutsideOption = False,
    on: OnOption = "auto",
    device: Annotated[str | None, typer.Option(help="Measure the best on this device.")] = None,
    access: AccessOptions,
    top_count: Annotated[int, typer.Option("--top", min=1, help="How many are measured.")] = 3,
    feedback: Annotated[
        bool, typer.Option("--feedback", help="Write a new version of the LUT with these measurements in it.")
    ] = False,
    budget: BudgetOption = "2m",
    luts: LutsOption = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Evaluating and exporting processes; all cores.")
    ] = None,
    cluster: Annotated[
        bool,
        typer.Option("--cluster", help="Evaluate on the Ray cluster of $RAY_ADDRESS, or one started here."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Most accurate architecture within a latency (Algorithm 2); a killed search goes on when repeated.

    Without --supernet the coarse stage alone: the networks within the budget that are largest.
    """
    if feedback and device is None:
        raise UsageError("--feedback needs measurements; add --device")
    store = open_store(luts, made=feedback)
    opened, chosen = phones.parse(store), settings.parse()
    trial = None
    if device is not None:
        into = store if feedback else None
        trial = Trial(device, access.parse(), top_count, parse_budget(budget), into)
    if supernet is None:
        check_settings(chosen)
        if objective != INHERITED_ACCURACY or data or outside or feedback or cluster or on != "auto":
            raise UsageError(
                "--objective, --data, --outside, --on, --feedback and --cluster are for a supernet; add --supernet"
            )
        with shown_progress() as progress:
            found = find_largest(
                opened,
                output,
                budget=budget_of(opened, **limits.parse()),
                count=chosen.skeletons,
                draws=chosen.draws,
                seed=chosen.seed,
                trial=trial,
                workers=workers,
                store=store,
                progress=progress,
            )
        show_largest(found, output, as_json)
        return
    if any(is_priced_with_head(phone) for phone in opened):
        if (
            objective != INHERITED_ACCURACY
            or chosen.additive
            or outside
            or device
            or cluster
            or len(opened) > 1
        ):
            raise UsageError(
                "a search by a LUT of backbones with a head takes no other; leave --objective, --additive, "
                "--outside, --device and --cluster out"
            )
        budget_there = budget_of(opened, **limits.parse())
        _search_backbone(supernet, opened[0], output, budget_there, chosen, data, on, as_json)
        return
    from orchestrator.tasks.search import find_network  # brings torch

    with shown_progress() as progress:
        network = find_network(
            supernet,
            opened,
            output,
            budget=budget_of(opened, **limits.parse()),
            settings=chosen,
            objective=objective,
            trial=trial,
            data=data,
            outside=outside,
            on=on,
            workers=workers,
            cluster=cluster,
            store=store,
            progress=progress,
        )
    if as_json:
        emit_json(_document(network))
    else:
        _show(network, output)


def _search_backbone(
    supernet: Path,
    phone: Phone,
    output: Path,
    within: Budget,
    settings: SearchSettings,
    data: str | None,
    on: str,
    as_json: bool,
) -> None:
    from orchestrator.tasks.search_backbone import PROXY, find_backbone  # brings torch

    with shown_progress() as progress:
        found = find_backbone(
            supernet, phone, output, budget=within, settings=settings, data=data, on=on, progress=progress
        )
    winner = found.result.winner
    facts = {
        "lut": str(phone.ref),
        "arch": str(found.arch),
        "weights": str(found.weights),
        "top1": winner.accuracy,
        "latency_ms": winner.latencies[0][0],
        "latency_high_ms": winner.latencies[0][1],
        "note": PROXY,
    }
    emit_facts("", facts, as_json, percent=("top1",))


def _document(network: FoundNetwork) -> dict[str, Any]:
    result, measured = network.result, network.measured
    return {
        **result.model_dump(include={"space", "budget", "settings", "coarse", "history"}),
        "winner": network.winner.model_dump(),
        "lut": network.lut_name,
        "luts": [pin.model_dump() for pin in result.provenance.luts] if result.provenance else [],
        "measured": measured.model_dump()["models"] if measured else [],
        "meets_budget": measured.meets_budget if measured else None,
        "new_lut": str(network.new_lut) if network.new_lut else None,
        "front": [{**row.model_dump(), "file": str(file)} for file, row in network.front.items()],
    }


def _show(network: FoundNetwork, output: Path) -> None:
    result, measured = network.result, network.measured
    emit_facts("", facts_of(network), False)
    if result.settings.strategy == "pareto":
        rows = [{**row.model_dump(), "file": file.name} for file, row in network.front.items()]
        title = f"front of {', '.join(result.settings.objectives)}: architectures in {output / 'front'}"
        emit_rows(title, _FRONT_COLUMNS, rows, False)
    if measured is not None:
        emit_rows("the best, measured", _COLUMNS, _rows(measured), False)
        say(_verdict(measured, result.budget.latency_ms))
    if network.new_lut is not None:
        say(f"the LUT with these measurements: {network.new_lut}")
    say(f"winner.json, .safetensors, .pte, .mlpackage and model card winner.md in {output}")


def facts_of(network: FoundNetwork) -> dict[str, str]:
    """What a table of the result says above it."""
    result, winner, coarse = network.result, network.winner, network.result.coarse
    judged = f"{100 * winner.accuracy:.2f} % on the search split, with inherited weights"
    if own := result.own_objective:
        judged = f"{winner.accuracy:.4g} by the objective {own}, also where a heading says accuracy"
    predicted = [f"{ms:.3f} ms (up to {high_ms:.3f})" for ms, high_ms in winner.latencies]
    return {
        "lut": " and ".join(map(lut_text, result.provenance.luts) if result.provenance else result.lut_names),
        "budget": budget_text(result),
        "within it": f"{100 * coarse.feasible_share:.3g} % of the space; "
        f"the fastest has {coarse.smallest_ms:.3f} ms",
        "evaluated": f"{len(result.evaluated)} architectures in {len(result.history)} generations",
        "winner": winner.arch,
        "objective" if result.own_objective else "accuracy": judged,
        "predicted": "; ".join(by_lut(predicted, result.lut_names)),
        "parameters": f"{winner.params:,}",
    }


_COLUMNS = [
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
]

_FRONT_COLUMNS = [
    Column("file", "architecture"),
    Column("accuracy", "accuracy", 2, percent=True),
    Column("latency_ms", "predicted ms", 3),
    Column("params", "parameters", counted=True, spare=1),
    Column("macs", "conv+linear MACs", counted=True, spare=2),
    Column("memory_bytes", "activation bytes", counted=True, spare=3),
]


def _rows(measured: MeasuredBest) -> list[dict[str, Any]]:
    chosen = measured.rank if measured.meets_budget else None
    return [
        model.model_dump()
        | {"rank": rank + 1, "error": model.error, "chosen": "chosen" if rank == chosen else ""}
        for rank, model in enumerate(measured.models)
    ]


def _verdict(measured: MeasuredBest, budget_ms: float) -> str:
    within = f"within {budget_ms:.3f} ms"
    if not measured.meets_budget:
        return (
            f"none of these is {within} as measured, the upper end of the interval counting; the winner "
            "stays the search's own: measure more with --top, or search with a smaller --latency"
        )
    if measured.rank == 0:
        return f"the search's winner is {within} as measured"
    return f"the winner changed: rank {measured.rank + 1} is the most accurate {within} as measured"

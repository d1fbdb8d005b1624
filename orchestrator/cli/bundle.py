"""`bench bundle`, `bench import`: a profile that a device makes alone, and the LUT of what comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from orchestrator.bundle.archive import DeviceKind
from orchestrator.cli.lut_store import open_store
from orchestrator.cli.lut_table import provenance
from orchestrator.cli.options import BudgetOption, PaceOption, VariantOptions, WorkersOption, with_options
from orchestrator.cli.output import JsonOption, emit_facts, emit_json, say
from orchestrator.cli.plan_options import PlanOptions
from orchestrator.cli.profile import why_it_ended
from orchestrator.cli.progress import shown_progress
from orchestrator.tasks.bundle import bundle, variant_for
from orchestrator.tasks.imported import Imported, import_journals
from orchestrator.tasks.parsing import parse_budget, parse_name, parse_pace


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("bundle")(with_options(bundle_command))
    app.command("import")(import_command)


def bundle_command(
    device_kind: Annotated[
        str, typer.Option("--device-kind", help="android, iphone or linux: whose app or agent runs it.")
    ],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle's file.")],
    space: Annotated[str, typer.Option(help="Search space to profile.")] = "autovit-xxs",
    variant: VariantOptions,
    budget: BudgetOption = "15m",
    plan: PlanOptions,
    luts: Annotated[Path | None, typer.Option("--luts", help="Where the LUT of --like lies.")] = None,
    pace: PaceOption = None,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a profile as one file that a device runs without a computer.

    It leaves a journal, of which `bench import` makes a LUT.
    """
    chosen = variant_for(
        device_kind,
        variant.runtime,
        variant.backend,
        variant.precision,
        variant.threads,
        variant.cores or "",
    )
    budget_s, pace_us = parse_budget(budget), parse_pace(pace)
    with shown_progress() as progress:
        made = bundle(
            space,
            cast(DeviceKind, device_kind),
            output,
            chosen,
            plan.choice,
            budget_s=budget_s,
            pace_us=pace_us,
            store=open_store(luts),
            workers=workers,
            progress=progress,
        )
    facts = {
        "digest": made.digest,
        "device kind": made.device_kind,
        "variant": made.variant,
        "models": made.models,
        "batches at most": made.batches,
        "MiB": round(made.size_bytes / 2**20, 1),
    }
    emit_facts(str(made.path), facts, as_json)


def import_command(
    journals: Annotated[
        list[Path], typer.Argument(help="Files that devices left, FILE.journal.jsonl.", show_default=False)
    ],
    name: Annotated[
        str | None, typer.Option(help="Of the device in the LUT, where its own would not tell it apart.")
    ] = None,
    luts: Annotated[Path | None, typer.Option("--luts", help="Where the LUT is written.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a LUT of the journal that a device left when it ran a bundle, after the checks of a live run."""
    store = open_store(luts, made=True)
    if name is not None:
        parse_name(name)
    imported = import_journals(journals, name=name, store=store)
    if as_json:
        emit_json({"luts": [{"path": str(one.path), "meta": one.lut.meta.model_dump()} for one in imported]})
        return
    for one in imported:
        _show(one)


def _show(one: Imported) -> None:
    measured = one.measurement
    say(f"{one.journal}: {measured.batches_kept} batches kept, {measured.batches_rejected} do not count")
    say(why_it_ended(measured, one.policy))
    for model, reason in measured.failures.items():
        say(f"left out {model}: {reason}")
    emit_facts(str(one.path), dict(provenance(one.lut)), False)

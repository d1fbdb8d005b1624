"""`bench fleet`: a space profiled on many phones at once, on many hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.amounts import parse_budget, parse_pace, parse_percent
from orchestrator.cli.lut_store import open_store
from orchestrator.cli.lut_table import provenance
from orchestrator.cli.options import (
    AccessOptions,
    BudgetOption,
    PaceOption,
    SelfTestOption,
    VariantOptions,
    WorkersOption,
    target_of,
    with_blocks,
)
from orchestrator.cli.output import JsonOption, emit_facts, emit_json, shown_progress
from orchestrator.cli.plan_options import PlanOptions
from orchestrator.cli.profile import say_how
from orchestrator.fleet.classes import parse_classes
from orchestrator.fleet.crew import Limits
from orchestrator.fleet.stf import Farm
from orchestrator.tasks.fleet import FleetProfile, profile_fleet


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("fleet")(with_blocks(fleet_command))


def fleet_command(
    devices: Annotated[
        str,
        typer.Option(
            "--devices",
            help="Classes with their units, pixel8=3,iphone13=1 (also host, host:kotlin, simulated), or a .json "
            "file of them.",
        ),
    ],
    *,
    stf: Annotated[
        str | None,
        typer.Option(
            "--stf", help="Lease phones of the DeviceFarmer STF at this address; token in STF_TOKEN."
        ),
    ] = None,
    lease: Annotated[
        str, typer.Option("--lease", help="Longest time for a batch; then another unit goes on with it.")
    ] = "15m",
    space: Annotated[str, typer.Option(help="Search space to profile.")] = "autovit-xxs",
    variant: VariantOptions,
    budget: BudgetOption = "15m",
    plan: PlanOptions,
    narrow: Annotated[str | None, typer.Option(help="Stop at predictions within this; 1.5%.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew where a run was not finished.")] = False,
    reuse: Annotated[
        bool, typer.Option("--reuse", help="Keep the LUTs of equal runs that were finished.")
    ] = False,
    luts: Annotated[Path | None, typer.Option("--luts", help="Where LUTs are written.")] = None,
    access: AccessOptions,
    self_test: SelfTestOption = True,
    pace: PaceOption = None,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Profile a space on many phones at once: one LUT for each class of them.

    Hosts join with `ray start --address=... --resources='{"pixel8": 2}'`; without RAY_ADDRESS all units are on this
    machine. Lost units cost time, not the run; a run that was cut off goes on: give the same command again.
    """
    classes, limits = parse_classes(devices), Limits(lease_s=parse_budget(lease, "--lease"))
    farm = Farm.of(stf, limits.lease_s) if stf else None
    store = open_store(luts, made=True)
    width = None if narrow is None else parse_percent(narrow, "--narrow") / 100
    with shown_progress() as progress:
        profiled = profile_fleet(
            space,
            classes,
            plan.choice,
            target=target_of("", variant, access),
            farm=farm,
            limits=limits,
            budget_s=parse_budget(budget),
            narrow=width,
            self_test=self_test,
            pace_us=parse_pace(pace),
            fresh=fresh,
            reuse=reuse,
            store=store,
            workers=workers,
            progress=progress,
        )
    _show(profiled, as_json)


def _show(profiled: list[FleetProfile], as_json: bool) -> None:
    for one in profiled:
        say_how(one.profile)
    if as_json:
        emit_json(
            [
                {
                    "class": one.name,
                    "path": str(one.profile.path),
                    "batches": dict(one.batches),
                    "meta": one.profile.lut.meta.model_dump(),
                }
                for one in profiled
            ]
        )
        return
    for one in profiled:
        batches = ", ".join(f"{serial} {count}" for serial, count in sorted(one.batches.items()))
        facts = {"class": one.name, "batches": batches, **provenance(one.profile.lut)}
        emit_facts(str(one.profile.path), facts, False)

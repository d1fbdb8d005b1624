"""`bench fleet`: a space profiled on many phones at once, on many hosts."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.lut_table import provenance
from orchestrator.cli.options import AccessOptions, VariantOptions, target_of, with_options
from orchestrator.cli.output import JsonOption, emit_facts, emit_json
from orchestrator.cli.plan_options import PlanOptions
from orchestrator.cli.profile import say_how
from orchestrator.cli.progress import shown_progress
from orchestrator.cli.run_options import ProfilingOptions
from orchestrator.fleet.executor import FleetLimits
from orchestrator.fleet.units import parse_classes
from orchestrator.tasks.fleet import profile_fleet
from orchestrator.tasks.fleet_class import FleetProfile
from orchestrator.tasks.parsing import parse_budget


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("fleet")(with_options(fleet_command))


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
    lease: Annotated[
        str, typer.Option("--lease", help="Longest time for a batch; then another unit goes on with it.")
    ] = "15m",
    space: Annotated[str, typer.Option(help="Search space to profile.")] = "autovit-xxs",
    variant: VariantOptions,
    plan: PlanOptions,
    profiling: ProfilingOptions,
    access: AccessOptions,
    as_json: JsonOption = False,
) -> None:
    """Profile a space on many phones at once: one LUT for each class of them.

    Hosts join with `ray start --address=... --resources='{"pixel8": 2}'`; without RAY_ADDRESS all units are on this
    machine. Lost units cost time, not the run; a run that was cut off goes on: give the same command again.
    """
    classes, limits = parse_classes(devices), FleetLimits(lease_s=parse_budget(lease, "--lease"))
    target = target_of("", variant, access)
    with shown_progress() as progress:
        profiled = profile_fleet(
            space,
            classes,
            plan.choice,
            target=target,
            limits=limits,
            **profiling.parse(),
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

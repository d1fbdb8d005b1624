"""Commands that make and check LUTs: `bench profile`, `fleet`, `bundle`, `import`, `predict` and `validate`."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.options import add_command, example, with_options
from orchestrator.cli.output import JsonOption, emit_json, print_report, show
from orchestrator.cli.progress import shown_progress
from orchestrator.tasks.breakdown import PICTURES
from orchestrator.tasks.bundle import ImportCommand, bundle, import_journals
from orchestrator.tasks.fleet import profile_fleet
from orchestrator.tasks.options import OUTPUT
from orchestrator.tasks.plan import ProfileCommand, plan_profile
from orchestrator.tasks.predict import predict_latencies
from orchestrator.tasks.profile import profile
from orchestrator.tasks.validate import validate


def register(app: typer.Typer) -> None:
    """Add the commands."""
    examples = example(
        "bench profile --device pixel8 --space autovit-xxs",
        "bench profile --device simulated --space autovit-nano --plan-only",
    )
    app.command("profile", help=ProfileCommand.__doc__, epilog=examples)(with_options(_profile))
    add_command(app, "fleet", profile_fleet, "bench fleet --devices pixel8=3,iphone13=1 --space autovit-xxs")
    add_command(app, "bundle", bundle, "bench bundle --device-kind android --space autovit-xxs -o xxs.bundle")
    app.command(
        "import", help=ImportCommand.__doc__, epilog=example("bench import xxs.bundle.journal.jsonl")
    )(with_options(_import))
    add_command(
        app,
        "predict",
        predict_latencies,
        "bench predict autovit-nano-0 --lut pixel8/autovit-nano",
        "bench predict timm:ghostnet_100 net.pte my.py:build --lut pixel8/operators -o prices.png",
        pictures=PICTURES,
    )
    add_command(app, "validate", validate, "bench validate --lut pixel8/autovit-nano --device pixel8")


def _profile(
    options: ProfileCommand,
    plan_only: Annotated[
        bool,
        typer.Option("--plan-only", help="Print what would be measured, and stop.", rich_help_panel=OUTPUT),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    with shown_progress() as progress:
        result = plan_profile(options, progress) if plan_only else profile(options, progress)
    show(result, as_json)


def _import(options: ImportCommand, as_json: JsonOption = False) -> None:
    with shown_progress() as progress:
        imported = import_journals(options, progress)
    if as_json:
        emit_json({"luts": [one.to_dict() for one in imported]})
    for one in () if as_json else imported:
        print_report(one.report())

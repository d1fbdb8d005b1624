"""`bench doctor`: what is installed, and what to do about the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from luts.format.errors import UsageError
from luts.format.table import Column
from orchestrator.cli.output import JsonOption, ask, emit_rows, say
from orchestrator.devices.common.device import Access
from orchestrator.tasks.bug_report import write_bug_report
from orchestrator.tasks.doctor import Need, doctor


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor")(doctor_command)


def doctor_command(
    device: Annotated[str | None, typer.Option("--device", help="With --bundle: whose report it is.")] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="For a bug report: write versions, the device's state and log, and its newest journal into this "
            ".zip, without tokens, serial numbers and home folders."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Packages, tools and agents, what each is needed for, and what keeps phones from being seen."""
    if (device is None) != (bundle is None):
        raise UsageError(
            "--device and --bundle go together: bench doctor --device pixel8 --bundle report.zip"
        )
    if device and bundle:
        _write_bundle(device, bundle, as_json)
        return
    columns = [
        Column("name", "name"),
        Column("found", "found"),
        Column("for", "needed for"),
        Column("next_step", "what to do"),
    ]
    emit_rows("", columns, [_row(need) for need in doctor()], as_json)


def _write_bundle(device: str, bundle: Path, as_json: bool) -> None:
    written = write_bug_report(device, bundle, Access(say=say, ask=ask))
    if written.unreachable:
        say(f"{device} was not asked: {written.unreachable}")
    rows = [{"file": file, "bytes": size} for file, size in written.files.items()]
    emit_rows(str(bundle), [Column("file", "file"), Column("bytes", "bytes")], rows, as_json)


def _row(need: Need) -> dict[str, str]:
    return {
        "name": need.name,
        "found": need.present or "missing",
        "for": need.use,
        "next_step": "" if need.present else need.remedy,
    }

"""`bench devices`: attached devices, and what to do about missing ones."""

from __future__ import annotations

import typer

from luts.format.table import Column
from orchestrator.cli.output import JsonOption, emit_rows
from orchestrator.devices.discover import list_attached


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("devices")(devices_command)


def devices_command(as_json: JsonOption = False) -> None:
    """List attached devices, and what to do if one is missing."""
    listing = list_attached()
    rows = [
        {
            "device": device.name or "-",
            "title": device.title,
            "type": device.product_type,
            "serial": device.serial,
            "next_step": device.next_step or "ready",
        }
        for device in listing.attached
    ]
    rows += [
        {
            "device": "-",
            "title": gap.kind,
            "type": "",
            "serial": "",
            "next_step": f"{gap.reason}: {gap.next_step}",
        }
        for gap in listing.unavailable
    ]
    columns = [
        Column("device", "--device"),
        Column("title", "what"),
        Column("type", "product type"),
        Column("serial", "serial"),
        Column("next_step", "state"),
    ]
    emit_rows("", columns, rows, as_json)

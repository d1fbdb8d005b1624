"""`bench devices` and `bench doctor`: what is attached, what is installed, what to do about the rest."""

from __future__ import annotations

import shutil
from importlib.metadata import PackageNotFoundError, version

import typer

from orchestrator.cli.output import Column, JsonOption, emit_rows
from orchestrator.devices.discover import list_attached

_PACKAGES = {
    "torch": "building and training networks",
    "executorch": "export to .pte and the host agent",
    "coremltools": "export to .mlpackage",
    "timm": "published networks and teachers",
    "adbutils": "Android phones (extra `android`)",
    "pymobiledevice3": "iPhones (extra `ios`)",
    "ray": "many workers (extra `cluster`)",
}
_TOOLS = {
    "adb": "Android phones",
    "kotlinc": "building the Kotlin agent",
    "swift": "building the Swift agent",
}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("devices")(devices_command)
    app.command("doctor")(doctor_command)


def devices_command(as_json: JsonOption = False) -> None:
    """What is attached now, and what to do where something is missing."""
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
        for gap in listing.gaps
    ]
    columns = [
        Column("device", "--device"),
        Column("title", "what"),
        Column("type", "product type"),
        Column("serial", "serial"),
        Column("next_step", "state"),
    ]
    emit_rows("", columns, rows, as_json)


def doctor_command(as_json: JsonOption = False) -> None:
    """Packages and tools, and what each is needed for."""
    rows = [{"name": name, "found": _version(name), "for": use} for name, use in _PACKAGES.items()]
    rows += [
        {"name": name, "found": shutil.which(name) or "missing", "for": use} for name, use in _TOOLS.items()
    ]
    emit_rows(
        "", [Column("name", "name"), Column("found", "found"), Column("for", "needed for")], rows, as_json
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"

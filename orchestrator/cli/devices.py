"""`bench devices` and `bench doctor`: what is attached, what is installed, what to do about the rest."""

from __future__ import annotations

import shutil
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import typer

from luts.errors import DeviceError
from orchestrator.cli.output import Column, JsonOption, emit_rows
from orchestrator.devices.discover import list_attached
from orchestrator.devices.programs import AGENTS, agent_program

_PACKAGES = {
    "torch": ("building and training networks", ""),
    "executorch": ("export to .pte and the host agent", ""),
    "coremltools": ("export to .mlpackage", ""),
    "timm": ("published networks and teachers", ""),
    "adb_shell": ("Android phones", "android"),
    "adbutils": ("Android phones that an adb server holds", "android"),
    "pymobiledevice3": ("iPhones", "ios"),
    "ray": ("many workers", "cluster"),
}
_TOOLS = {
    "adb": "optional: an adb server that holds Android phones",
    "java": "the Kotlin agent on this machine",
    "g++": "native calls of the Python agent, and building the other two",
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
    """Packages, tools and agents, what each is needed for, and what keeps phones from being seen."""
    rows = [_package(name, use, extra) for name, (use, extra) in _PACKAGES.items()]
    rows += [_row(name, shutil.which(name) or "", use, f"install {name}") for name, use in _TOOLS.items()]
    rows += [_agent(language) for language in AGENTS]
    rows.append(_native_calls())
    rows += [_row(gap.kind, "", f"{gap.kind}: {gap.reason}", gap.next_step) for gap in list_attached().gaps]
    columns = [
        Column("name", "name"),
        Column("found", "found"),
        Column("for", "needed for"),
        Column("next_step", "what to do"),
    ]
    emit_rows("", columns, rows, as_json)


def _row(name: str, found: str, use: str, next_step: str) -> dict[str, str]:
    return {"name": name, "found": found or "missing", "for": use, "next_step": "" if found else next_step}


def _package(name: str, use: str, extra: str) -> dict[str, str]:
    try:
        found = version(name)
    except PackageNotFoundError:
        found = ""
    return _row(name, found, use, f"pip install 'blocktime[{extra}]'" if extra else f"pip install {name}")


def _native_calls() -> dict[str, str]:
    """What the Python agent times through; without it through ExecuTorch's Python binding."""
    use = "the Python agent's timing with no interpreter in it"
    if find_spec("executorch") is None:
        return _row("native calls", "", use, "pip install executorch")
    from orchestrator.agent.etshim import ShimMissing, find_shim

    try:
        return _row("native calls", f"ExecuTorch {find_shim().runtime_version()}", use, "")
    except ShimMissing as error:
        return _row("native calls", "", use, str(error))


def _agent(language: str) -> dict[str, str]:
    use = f"--agent {language}"
    try:
        return _row(f"{language} agent", agent_program(language).command[0], use, "")
    except DeviceError:
        return _row(f"{language} agent", "", use, "make agents")

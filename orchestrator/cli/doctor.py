"""Commands that set up: `bench doctor` and its modes, `bench devices`, and the host's agent, `bench agent`."""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import typer

from luts.format.table import Column, Table
from orchestrator.cli.options import add_command, with_options
from orchestrator.cli.output import JsonOption, say, show
from orchestrator.devices.discover import list_attached
from orchestrator.tasks.doctor import cache, check_machine
from orchestrator.tasks.native import build_native
from orchestrator.tasks.options import option


def register(app: typer.Typer) -> None:
    """Add the commands."""
    add_command(app, "doctor", check_machine)
    app.command("doctor native")(native_command)
    add_command(app, "doctor cache", cache)
    app.command("devices")(devices_command)
    app.command("agent")(with_options(agent_command))


def native_command() -> None:
    """Build the native functions with which the Python agent times calls; needs g++, takes up to a minute."""
    say("building, up to a minute")
    print(build_native())


COLUMNS = (
    Column("device", "--device"),
    Column("title", "what"),
    Column("type", "product type"),
    Column("serial", "serial"),
    Column("next_step", "state"),
)


def devices_command(as_json: JsonOption = False) -> None:
    """List attached devices, and what to do if one is missing."""
    listing = list_attached()
    cells = [
        (device.name or "-", device.title, device.product_type, device.serial, device.next_step or "ready")
        for device in listing.attached
    ]
    cells += [("-", gap.kind, "", "", f"{gap.reason}: {gap.next_step}") for gap in listing.unavailable]
    names = [column.name for column in COLUMNS]
    show(Table("", COLUMNS, [dict(zip(names, row, strict=True)) for row in cells]), as_json)


@dataclass(frozen=True, kw_only=True)
class AgentOptions:
    """Options of `bench agent`."""

    port: int = option(0, "Port on the loopback.", minimum=0, maximum=65535, shown="any free one")
    store: Path | None = option(None, "Folder of the model store.")


def agent_command(options: AgentOptions) -> None:
    """Run the host's measuring agent on the loopback until Ctrl-C; --device host starts one by itself.

    The token is read from BLOCKTIME_TOKEN, or generated and printed.
    """
    from orchestrator.agent.agent import TOKEN_VARIABLE
    from orchestrator.agent.host import serve_with_restarts
    from orchestrator.agent.store import ModelStore
    from orchestrator.devices.host import default_store_dir

    models = ModelStore(options.store or default_store_dir("host"))
    token = os.environ.get(TOKEN_VARIABLE) or secrets.token_hex(16)
    if TOKEN_VARIABLE not in os.environ:
        say(f"token {token}")
    with contextlib.suppress(KeyboardInterrupt):
        serve_with_restarts(
            options.port,
            token,
            models,
            lambda number: say(f"listening on port {number}"),
            lambda crash: say(f"a model crashed the agent ({crash}); its client knows which one; restarted"),
        )
    say("the agent has ended")

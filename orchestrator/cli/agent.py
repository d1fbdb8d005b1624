"""`bench agent`: the host agent in the foreground, for clients on this machine."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.output import say


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("agent")(agent_command)


def agent_command(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on the loopback; 0 for any free one.")
    ] = 0,
    store: Annotated[Path | None, typer.Option(help="Folder of the model store.")] = None,
) -> None:
    """Run the host's measuring agent on the loopback until Ctrl-C; --device host starts one by itself.

    The token is read from BLOCKTIME_TOKEN, or generated and printed.
    """
    from orchestrator.agent.agent import TOKEN_VARIABLE
    from orchestrator.agent.host import serve_with_restarts
    from orchestrator.agent.store import ModelStore
    from orchestrator.devices.host import default_store_dir

    models = ModelStore(store or default_store_dir("host"))
    token = os.environ.get(TOKEN_VARIABLE) or secrets.token_hex(16)
    if TOKEN_VARIABLE not in os.environ:
        say(f"token {token}")
    with contextlib.suppress(KeyboardInterrupt):
        serve_with_restarts(
            port,
            token,
            models,
            lambda number: say(f"listening on port {number}"),
            lambda crash: say(f"a model crashed the agent ({crash}); its client knows which one; restarted"),
        )
    say("the agent has ended")

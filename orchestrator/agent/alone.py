"""An agent that runs a bundle in the place of a client's requests."""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from orchestrator.agent.agent import Agent
from orchestrator.agent.contract import LOOPBACK
from orchestrator.agent.server import Server, listen
from orchestrator.bundle.archive import open_bundle
from orchestrator.bundle.journal import BundleJournal
from orchestrator.bundle.loopback import Loopback
from orchestrator.bundle.player import Player


def journal_beside(bundle: Path) -> Path:
    """Where the journal of a bundle lies if nobody says otherwise."""
    return bundle.with_name(bundle.name + ".journal.jsonl")


def run_bundle(
    path: Path, journal: Path | None, make_agent: Callable[[str], Agent], tell: Callable[[str], None]
) -> Path:
    """Run a bundle, going on where its journal ends; the journal.

    Raises:
        InvalidArtifactError: bundle or journal is damaged, of another version, or of another bundle.
        DeviceError: the device did not get ready in time.
    """
    bundle = open_bundle(path)
    with BundleJournal(journal or journal_beside(path), bundle.digest) as written, listen(0) as listener:
        token = secrets.token_hex(16)
        server = Server(make_agent(token), listener)
        serving = threading.Thread(target=server.serve, name="agent", daemon=True)
        serving.start()
        agent = Loopback(socket.create_connection((LOOPBACK, listener.getsockname()[1])))
        try:
            Player(bundle, written, agent, token, tell).run()
        finally:
            agent.close()
            server.stop()
            serving.join()
    return written.path

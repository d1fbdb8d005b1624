"""The host agent in a process of its own, started again where a model takes it down; its port stays open."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from multiprocessing.synchronize import Event

from luts.format.processes import end_with_parent, start_worker, worker_context
from orchestrator.agent.server import Server, listen
from orchestrator.agent.store import ModelStore
from orchestrator.wire.errors import DeviceError


def keep_serving(
    port: int,
    token: str,
    store: ModelStore,
    on_listening: Callable[[int], None],
    on_death: Callable[[str], None],
) -> None:
    """Serves on the loopback until interrupted; for a program's main thread.

    Args:
        on_listening: Called with the port once it is open.
        on_death: Called with the signal's name where a crash took the agent down, and it is started again.

    Raises:
        DeviceError: the port is in use, or the agent can't start.
    """
    context = worker_context()
    with listen(port) as listener:
        on_listening(listener.getsockname()[1])
        while True:
            started = context.Event()
            process = context.Process(target=_serve, args=(listener, token, store, started), daemon=True)
            start_worker(process)
            process.join()
            code = process.exitcode or 0
            if code >= 0 or not started.is_set():
                raise DeviceError(
                    f"the agent can't be started (it ended with {code}); see what it said above"
                )
            on_death(signal.Signals(-code).name)


def _serve(listener: socket.socket, token: str, store: ModelStore, started: Event) -> None:
    from orchestrator.agent.host import host_agent

    end_with_parent()
    server = Server(host_agent(token, store), listener)
    started.set()
    server.serve()

"""The agent that measures this machine with ExecuTorch, and ONNX Runtime and LiteRT if they are installed."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from multiprocessing.synchronize import Event

from luts.format.processes import end_with_parent, start_worker, worker_context
from orchestrator.agent.agent import Agent
from orchestrator.agent.device import agent_info, describe_host
from orchestrator.agent.executorch import ExecutorchRuntime, find_loader
from orchestrator.agent.interpreters import installed_runtimes
from orchestrator.agent.server import Server, listen
from orchestrator.agent.store import ModelStore
from orchestrator.wire.errors import DeviceError


def host_agent(token: str, store: ModelStore) -> Agent:
    """Return the agent of this machine."""
    loader = find_loader()
    return Agent(
        token=token,
        store=store,
        runtimes={"executorch": ExecutorchRuntime(loader), **installed_runtimes()},
        info=agent_info(settings=loader.version.encode(), calls=loader.version.partition(" ")[0]),
        device=describe_host(),
    )


def serve_with_restarts(
    port: int,
    token: str,
    store: ModelStore,
    on_listening: Callable[[int], None],
    on_death: Callable[[str], None],
) -> None:
    """Serve on the loopback until interrupted, from a process of its own that is restarted if a model crashes it.

    `on_listening` is called with the port (0: a free one) once it is open, `on_death` with the signal's name
    after a crash.

    Raises:
        DeviceError: The port is in use, or the agent can't start.
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
                    f"the agent can't be started (exit code {code}); see its messages above",
                    code="agent_failed",
                )
            on_death(signal.Signals(-code).name)


def _serve(listener: socket.socket, token: str, store: ModelStore, started: Event) -> None:
    end_with_parent()
    server = Server(host_agent(token, store), listener)
    started.set()
    server.serve()

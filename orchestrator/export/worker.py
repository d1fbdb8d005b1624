"""The exporting process: takes specs from a connection, answers with an artifact or one line of error."""

from __future__ import annotations

import gc
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from luts.format.errors import BlocktimeError, StorageError, UsageError
from orchestrator.export.lower.quiet import quiet
from search.spaces.plugins import load_plugins

with quiet():  # imported once, before workers fork
    import executorch.exir
    import executorch.extension.pybindings.portable_lib  # noqa: F401

    import orchestrator.export.reuse.lowering  # noqa: F401
    from orchestrator.export.artifacts.artifact import ArtifactCache
    from orchestrator.export.build import export_spec
    from orchestrator.export.lower.executorch import first_line


def serve(connection: Connection, root: Path, tolerance: float, plugins: tuple[str, ...]) -> None:
    """Export until the other side closes; Ctrl-C is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The runtime's native code reports on the processor's files there, line by line.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    torch.set_num_threads(1)
    # What the libraries hold never dies; scanning it again and again costs a fifth of an export.
    gc.freeze()
    cache = ArtifactCache(root)
    while True:
        try:
            spec = connection.recv()
        except (EOFError, ConnectionResetError):
            return
        try:
            load_plugins(plugins)
            connection.send(export_spec(spec, cache, tolerance))
        except UsageError as error:
            connection.send(UsageError(str(error)))
        except StorageError as error:
            connection.send(StorageError(str(error)))
        except BlocktimeError as error:
            connection.send(str(error))
        except Exception as error:
            connection.send(f"unexpected {first_line(error)}")

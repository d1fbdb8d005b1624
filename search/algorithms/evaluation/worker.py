"""What a worker of a pool does: open the objective as the caller did, then judge one architecture after another."""

from __future__ import annotations

import contextlib
import signal
from multiprocessing.connection import Connection
from typing import Protocol

from luts.format.errors import OUT_OF_MEMORY, BlocktimeError, InvalidArtifactError, is_out_of_memory
from search.algorithms.interfaces.objective import Objective
from search.spaces.plugins import Carried


class Opener(Protocol):
    """Says how a worker makes its objective; goes to it by pickle, so a small value of a module's top level."""

    def open(self, worker: int = 0) -> Objective:
        """Load everything, once for each worker, which are numbered from 0."""


class WorkerError(BlocktimeError):
    """A worker ended before its answer; the answers of the others are kept."""


def serve(connection: Connection, opener: Carried, fingerprint: str, worker: int = 0) -> None:
    """A worker's life; Ctrl-C is the parent's to handle, whose end closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            objective = open_checked(opener.value(), fingerprint, worker)
            while True:
                connection.send(float(objective.accuracy(connection.recv())))
        except BlocktimeError as error:
            connection.send(error)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except Exception as error:
            connection.send(BlocktimeError(why_failed(error)))


def why_failed(error: BaseException) -> str:
    """What is said of an evaluation that failed as nobody expected; one line."""
    if is_out_of_memory(error):
        return OUT_OF_MEMORY
    first = (str(error) or "no message").splitlines()[0]
    return f"evaluation failed with {type(error).__name__}: {first}; report it"


def open_checked(opener: Opener, fingerprint: str, worker: int = 0) -> Objective:
    """What the opener gives; InvalidArtifactError where checkpoint or images are others than the caller's."""
    objective = opener.open(worker)
    if objective.fingerprint != fingerprint:
        raise InvalidArtifactError(
            "a worker has another checkpoint or other images than the search began with; repeat the search"
        )
    return objective

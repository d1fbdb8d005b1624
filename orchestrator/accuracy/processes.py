"""Tasks in processes of their own, so that a runtime that crashes ends as an error; answers in order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from luts.format.errors import BlocktimeError, InvalidArtifactError
from luts.format.workers import start_worker, worker_context


def in_processes(
    serve: Callable[..., None], arguments: tuple[Any, ...], tasks: Sequence[Any], workers: int
) -> Iterator[Any]:
    """What `serve` answers to each of the tasks, in their order.

    Args:
        serve: Called in a fresh process with a connection and `arguments`; answers every task that it receives.
            An answer that is a BlocktimeError is raised here.
        tasks: Sent one at a time.
        workers: Processes at most.

    Raises:
        InvalidArtifactError: a process died.
    """
    context = worker_context(serve.__module__)
    processes: dict[Connection, BaseProcess] = {}
    busy: dict[Connection, int] = {}
    answers: dict[int, Any] = {}
    waiting = list(reversed(range(len(tasks))))
    try:
        for _ in range(min(workers, len(tasks))):
            ours, theirs = context.Pipe()
            processes[ours] = context.Process(target=serve, args=(theirs, *arguments), daemon=True)
            start_worker(processes[ours])
            theirs.close()
            busy[ours] = waiting.pop()
            _send(ours, tasks[busy[ours]])
        given = 0
        while busy:
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection)
                answers[busy.pop(ready)] = _answer(ready, processes[ready])
                if waiting:
                    busy[ready] = waiting.pop()
                    _send(ready, tasks[busy[ready]])
            while given in answers:
                yield answers.pop(given)
                given += 1
    finally:
        for connection, process in processes.items():
            connection.close()
            process.kill()
            process.join()


def _send(connection: Connection, task: Any) -> None:
    with contextlib.suppress(BrokenPipeError):  # a dead process is noticed where its answer is awaited
        connection.send(task)


def _answer(connection: Connection, process: BaseProcess) -> Any:
    try:
        answer = connection.recv()
    except (EOFError, ConnectionResetError):
        process.join()
        raise InvalidArtifactError(
            f"the runtime crashed on the program (exit code {process.exitcode}); export it again"
        ) from None
    if isinstance(answer, BlocktimeError):
        raise answer
    return answer

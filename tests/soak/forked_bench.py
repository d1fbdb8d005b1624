"""`bench` forked from a process that has imported its modules already: importing torch takes seconds each time.

A run is a process like any other: of its own session, with its own environment and files.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.bench import module_environment


class ForkServer:
    """A process that forks one `bench` at a time; it ends with this process."""

    def __init__(self) -> None:
        variables = module_environment(OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.forked_bench"],
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def start(self, arguments: Sequence[object], variables: Mapping[str, str], home: Path) -> ForkedBench:
        """Start `bench` in the folder `home`, where `said.txt` gets what it writes to stderr."""
        assert self._process.stdin is not None
        print(json.dumps([list(map(str, arguments)), dict(variables), str(home)]), file=self._process.stdin)
        return ForkedBench(self, int(self.read_line()))

    def read_line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def has_line(self) -> bool:
        """Whether the forked process has ended."""
        return bool(select.select([self._process.stdout], [], [], 0)[0])


class ForkedBench:
    """What `subprocess.Popen` is for other processes."""

    def __init__(self, server: ForkServer, pid: int) -> None:
        self.pid, self._server = pid, server
        self._code: int | None = None

    def poll(self) -> int | None:
        return self.wait() if self._code is None and self._server.has_line() else self._code

    def wait(self) -> int:
        if self._code is None:
            self._code = int(self._server.read_line())
        return self._code

    def kill(self) -> None:
        if self._code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


@functools.cache
def fork_server() -> ForkServer:
    """The server of this process."""
    return ForkServer()


def _serve() -> None:
    """Fork a process for each line of stdin; write its id, and its exit code once it has ended."""
    from orchestrator.cli.entry import main
    from orchestrator.cli.main import app  # noqa: F401
    from orchestrator.tasks import bundle, profile, search, train  # noqa: F401

    for line in sys.stdin:
        arguments, variables, home = json.loads(line)
        sys.stdout.flush()
        if (pid := os.fork()) == 0:
            os.setsid()
            os.chdir(home)
            nothing, said = os.open(os.devnull, os.O_RDWR), os.open("said.txt", os.O_WRONLY)
            for target, source in ((0, nothing), (1, nothing), (2, said)):
                os.dup2(source, target)
            os.environ.clear()
            os.environ.update(variables)
            sys.argv = ["bench", *arguments]
            main()
            return
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve()

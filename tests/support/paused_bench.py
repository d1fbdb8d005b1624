"""`bench` that says `paused` where a function of it first begins, and goes on once its stdin gives a line.

As a program:

    python -m tests.support.paused_bench MODULE:FUNCTION ARGUMENTS...
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from orchestrator.cli.entry import main
from tests.support.bench import module_environment


class PausedBench:
    """A process of its own that has reached the function."""

    def __init__(self, function: str, *arguments: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.paused_bench", function, *map(str, arguments)],
            env=module_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.pid = self._process.pid
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "paused\n":
            raise AssertionError(f"it did not reach {function}: {self._process.communicate()}")

    def release(self) -> None:
        """Let it run, without waiting for it."""
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)

    def go_on(self) -> subprocess.CompletedProcess[str]:
        """Let it run to its end."""
        out, err = self._process.communicate("\n", timeout=300)
        return subprocess.CompletedProcess(self._process.args, self._process.returncode, out, err)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.communicate()


@contextlib.contextmanager
def paused_at(function: str, *arguments: object) -> Iterator[PausedBench]:
    """`bench` that waits at the beginning of a function, and is dead at the end."""
    paused = PausedBench(function, *arguments)
    try:
        yield paused
    finally:
        paused.kill()


def _pause_at(function: str) -> None:
    module, _, path = function.partition(":")
    *owners, name = path.split(".")
    owner: Any = functools.reduce(getattr, owners, importlib.import_module(module))
    real = getattr(owner, name)

    @functools.wraps(real)
    def pausing(*arguments: Any, **options: Any) -> Any:
        setattr(owner, name, real)
        print("paused", flush=True)
        sys.stdin.readline()
        return real(*arguments, **options)

    setattr(owner, name, pausing)


if __name__ == "__main__":
    _pause_at(sys.argv.pop(1))
    main()

"""`bench`, in this process where the process is not what is tested: importing its parts takes seconds."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

from typer.testing import CliRunner, Result

from orchestrator.cli.main import app, run

BENCH = Path(sys.executable).parent / "bench"


def invoke(*arguments: object) -> Result:
    """In this process; an expected error is raised as it is."""
    return CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    """In this process, with the line and the exit code that an error ends with."""
    command = ["bench", *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", [*command]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            run()
            exit_code = 0
        except SystemExit as end:
            exit_code = int(end.code or 0)
    return subprocess.CompletedProcess(command, exit_code, out.getvalue(), err.getvalue())


def answer(*arguments: object) -> str:
    """What `bench` says on stdout where it succeeds, in this process."""
    done = bench(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(done: subprocess.CompletedProcess[str], exit_code: int, *words: str) -> None:
    """The last line says why, with these words, there is no traceback, and the exit code is the agreed one."""
    assert done.returncode == exit_code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("bench: ") == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("bench: ")
    assert all(word in last for word in words), last


def program(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The installed script in a process of its own."""
    command = [str(BENCH), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def stopping(signal_name: str, what: str, *counts: int) -> list[str]:
    """How a command begins that is `bench` and stops by itself, as `tests.support.stopped_bench` says."""
    module = [sys.executable, "-m", "tests.support.stopped_bench"]
    return [*module, signal_name, what, ",".join(map(str, counts))]


def module_environment(**changes: str) -> dict[str, str]:
    """That of this process, for a program in Python that imports what this one can."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **changes}


def stopped(signal_name: str, what: str, count: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`bench` in a process of its own that gets a signal in its middle."""
    return subprocess.run(
        [*stopping(signal_name, what, count), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=module_environment(),
        start_new_session=True,
    )

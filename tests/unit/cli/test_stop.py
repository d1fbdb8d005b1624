"""Ctrl-C and SIGTERM before `bench` has begun, while it runs, and while it already ends."""

import signal
import subprocess
import sys

import pytest

from tests.support.bench import module_environment

SENDS = """
import importlib.abc, os, signal, sys
from orchestrator.cli.entry import main

name = sys.argv.pop(1)

class Impatient(importlib.abc.MetaPathFinder):
    def find_spec(self, module, path, target=None):
        if module == "orchestrator.cli.main":
            os.kill(os.getpid(), getattr(signal, name))

{ignoring}
sys.meta_path.insert(0, Impatient())
main()
"""

RUNS = """
import os, signal, sys, types
from orchestrator.cli import entry

def run():
    try:
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
        signal.pause()
    except KeyboardInterrupt:
        {handling}

{ignoring}
sys.modules["orchestrator.cli.main"] = types.SimpleNamespace(run=run)
entry.main()
"""

ENDING = """ending = entry.stop_message
        def ending_under_signals():
            result = ending()
            for number in (signal.SIGINT, signal.SIGTERM):
                os.kill(os.getpid(), number)
            return result
        entry.stop_message = ending_under_signals
        sys.exit(entry.INTERRUPTED)"""


def ended(program, name, handling="", ignoring=""):
    text = program.format(handling=handling, ignoring=ignoring)
    return subprocess.run(
        [sys.executable, "-c", text, name, "--version"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=module_environment(),
        start_new_session=True,
    )


@pytest.mark.parametrize(
    ("name", "code", "word"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")]
)
def test_a_signal_during_start_up_ends_with_one_line(name, code, word):
    done = ended(SENDS, name)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr == f"bench: {word} before it began; run the same command again\n"


@pytest.mark.parametrize(
    ("name", "code", "word"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")]
)
def test_a_signal_while_it_runs_ends_with_one_whole_line(name, code, word):
    done = ended(RUNS, name, ENDING)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr == f"bench: {word}; results so far are saved, run the same command to resume\n"


def test_sigterm_uses_a_command_s_own_handler_of_ctrl_c():
    """As training has it, which writes its checkpoint first."""
    own = "signal.signal(signal.SIGINT, lambda number, frame: sys.exit(f'own {number}'))"
    again = f"{own}; os.kill(os.getpid(), signal.SIGTERM)"
    done = ended(RUNS, "SIGINT", again)
    assert (done.returncode, done.stderr) == (1, f"own {signal.SIGINT:d}\n")


@pytest.mark.parametrize("program", [SENDS, RUNS])
def test_signals_that_the_caller_ignores_stay_ignored(program):
    """As nohup and a shell's background have it."""
    ignoring = "signal.signal(signal.SIGINT, signal.SIG_IGN)"
    program = program.replace("signal.pause()", "print('on')")
    done = ended(program, "SIGINT", "pass", ignoring)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("bench ", "on"))

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

ENDING = """words, code = entry.stop_message()
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        print(words)
        sys.exit(code)"""


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
def test_while_it_imports_one_line_says_that_it_had_not_begun(name, code, word):
    done = ended(SENDS, name)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr == f"bench: {word} before it began; run the same command again\n"


@pytest.mark.parametrize(
    ("name", "code", "word"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")]
)
def test_while_it_runs_both_are_ctrl_c_and_no_further_one_tears_the_last_line(name, code, word):
    done = ended(RUNS, name, ENDING)
    assert (done.returncode, done.stderr) == (code, "")
    assert done.stdout == f"{word}; results so far are saved, run the same command to resume\n"


def test_where_ctrl_c_is_a_command_s_own_sigterm_is_too():
    """As training has it, which writes its checkpoint first."""
    own = "signal.signal(signal.SIGINT, lambda number, frame: sys.exit(f'own {number}'))"
    again = f"{own}; os.kill(os.getpid(), signal.SIGTERM)"
    done = ended(RUNS, "SIGINT", again)
    assert (done.returncode, done.stderr) == (1, f"own {signal.SIGINT:d}\n")


@pytest.mark.parametrize("program", [SENDS, RUNS])
def test_what_the_caller_ignores_stays_ignored(program):
    """As nohup and a shell's background have it."""
    ignoring = "signal.signal(signal.SIGINT, signal.SIG_IGN)"
    program = program.replace("signal.pause()", "print('on')")
    done = ended(program, "SIGINT", "pass", ignoring)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("bench ", "on"))

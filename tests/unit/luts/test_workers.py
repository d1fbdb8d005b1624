"""Workers leave nothing on the terminal at Ctrl-C and SIGTERM, and none outlives the process that started it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from luts.format.errors import BlocktimeError, UsageError
from luts.format.processes import WorkerCrashError, WorkerPool
from tests.support.bench import module_environment
from tests.support.errors import raises

PROGRAM = """
import os, signal, sys, time
from luts.format.processes import start_worker, worker_context

def work(ours):
    ours.send("at work")
    ours.poll(60)  # until the parent has gone

if __name__ == "__main__":
    context = worker_context(*sys.argv[2:])
    ours, theirs = context.Pipe()
    lock = context.Lock()
    process = context.Process(target=work, args=(theirs,), daemon=True)
    try:
        start_worker(process)
        theirs.close()
        ours.recv()
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
        time.sleep(60)
    except KeyboardInterrupt:
        sys.exit(130)
"""


def ended(tmp_path, *arguments):
    (tmp_path / "program.py").write_text(PROGRAM)
    return subprocess.run(
        [sys.executable, tmp_path / "program.py", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=module_environment(PYTHONPATH=f"{tmp_path}:" + ":".join(sys.path)),
        start_new_session=True,
    )


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no server to fork from")
def test_ctrl_c_during_import(tmp_path):
    """What is imported sends Ctrl-C to all as a terminal does, just then."""
    (tmp_path / "slow.py").write_text("import os, signal\nos.killpg(0, signal.SIGINT)\n")
    done = ended(tmp_path, "SIGINT", "slow")
    assert (done.returncode, done.stderr) == (130, "")


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", -15), ("SIGINT", 130)])
def test_resources_are_removed_silently(tmp_path, name, code):
    """A lock of a context without fork is a semaphore that Python's tracker removes."""
    done = ended(tmp_path, name)
    assert (done.returncode, done.stderr) == (code, "")


BUSY = """
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor
from luts.format.processes import end_with_parent

def work(_):
    print(os.getpid(), flush=True)
    time.sleep(600)

if __name__ == "__main__":
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), end_with_parent) as pool:
        pool.submit(work, 0).result()
"""


def runs(process):
    """A zombie has no command line."""
    try:
        return bool((process / "cmdline").read_bytes())
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_worker_ends_with_its_parent(tmp_path):
    program = tmp_path / "busy.py"
    program.write_text(BUSY)
    with subprocess.Popen(
        [sys.executable, program],
        stdout=subprocess.PIPE,
        text=True,
        env=module_environment(PYTHONPATH=":".join(sys.path)),
    ) as parent:
        worker = Path("/proc") / parent.stdout.readline().strip()
        assert runs(worker)
        parent.kill()
    deadline = time.monotonic() + 60
    while runs(worker):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def start_worker_of_test(number, factor):
    def answer(task):
        if task == "crash":
            os._exit(3)
        if task == "refuse":
            raise UsageError("no", code="refused")
        if task == "fail":
            raise ZeroDivisionError("by zero")
        time.sleep(0.05 * (task % 2))
        return task * factor

    if factor < 0:
        raise UsageError("negative factor", code="bad_factor")
    return answer


def test_answers_come_in_order():
    with WorkerPool(start_worker_of_test, (10,), 2) as pool:
        assert list(pool.map(range(6))) == [0, 10, 20, 30, 40, 50]
        assert list(pool.map([1, 1, 2])) == [10, 10, 20], "a pool may be used again"


def test_crashed_worker_is_replaced():
    with WorkerPool(start_worker_of_test, (10,), 1) as pool:
        answers = dict(pool.stream([1, "crash", 2, "refuse", "fail", 3], keep_going=True))
    assert (answers[1], answers[2], answers[3]) == (10, 20, 30)
    assert isinstance(answers["crash"], WorkerCrashError)
    assert answers["crash"].cause == "exit code 3"
    assert (type(answers["refuse"]), answers["refuse"].code) == (UsageError, "refused")
    assert (type(answers["fail"]), answers["fail"].code) == (BlocktimeError, "unexpected_error")


@pytest.mark.parametrize(
    ("task", "code"), [("crash", "worker_crashed"), ("refuse", "refused"), ("fail", "unexpected_error")]
)
def test_error_ends_the_stream(task, code):
    answers = []
    with WorkerPool(start_worker_of_test, (10,), 2) as pool, raises(code):
        answers.extend(pool.stream([task, 1, *range(100, 200)]))
    assert len(answers) < 50


def test_worker_that_cannot_start():
    with WorkerPool(start_worker_of_test, (-1,), 2) as pool, raises("bad_factor"):
        list(pool.map(range(4)))

"""Read mutated inputs in this process: `python -m tests.soak.read_inputs`, started by `tests.soak.inputs`.

The project is imported late, so that atheris can watch which of its lines are reached.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]

LIMIT_S = 20.0
"""An input that takes longer hangs; readers take milliseconds, and this machine may be busy."""

MEMORY_BYTES = 512 << 20
"""Growth of resident memory that no input of at most 1 MiB may cause; of address space, twice as much."""

MAX_MESSAGE = 2_000
"""Longest message of an error that is still a line for people."""


class HangError(BaseException):
    """Raised in a reader that takes longer than `LIMIT_S`."""


def generator(reader: str, seed: int, index: int) -> random.Random:
    """Return the generator of an input's damage."""
    return random.Random(f"{reader}/{seed}/{index}")


def problem_with(read: Callable[[bytes], str], data: bytes, start_bytes: int) -> tuple[str, str]:
    """Read an input; return `wrong` or `hung` and why, or two empty strings.

    `start_bytes` is the peak of resident memory before.
    """
    from luts.format.errors import BlocktimeError

    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    start_s = time.monotonic()
    try:
        kind, why = "wrong", read(data)
    except BlocktimeError as error:
        text = str(error)
        kind, why = (
            "wrong",
            "" if text and "\n" not in text and len(text) <= MAX_MESSAGE else f"message {text[:200]!r}",
        )
    except HangError:
        kind, why = "hung", f"more than {LIMIT_S:.0f} s"
    except BaseException as error:
        kind, why = "wrong", f"{type(error).__name__}: {str(error)[:200]} ({_where(error)})"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if not why and time.monotonic() - start_s > LIMIT_S:
        kind, why = "hung", f"more than {LIMIT_S:.0f} s outside of Python"
    if not why and peak_bytes() - start_bytes > MEMORY_BYTES:
        why = f"{peak_bytes() - start_bytes >> 20} MiB of memory"
    return (kind, why) if why else ("", "")


def _where(error: BaseException) -> str:
    """Return the last line of the project that an error went through."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if file.is_relative_to(ROOT) and ".venv" not in file.parts:
            place = f"{file.relative_to(ROOT)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def peak_bytes() -> int:
    """Return the largest resident memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


class Report:
    """What is told of a seed: how many inputs were read, and what was wrong with which."""

    def __init__(self, folder: Path) -> None:
        """Write to two files in a folder."""
        self._count = os.open(folder / "count", os.O_RDWR | os.O_CREAT)
        self._problems = (folder / "problems.jsonl").open("a")

    def read(self, reader: Any, index: int, data: bytes, start_bytes: int) -> None:
        """Read an input; it is counted before, for it may end the process."""
        os.pwrite(self._count, index.to_bytes(8, "little"), 0)
        kind, why = problem_with(reader.read, data, start_bytes)
        if kind:
            problem = {"kind": kind, "index": index, "why": why, "hex": data[:64].hex()}
            self._problems.write(json.dumps(problem) + "\n")
            self._problems.flush()


def read_seeded(reader: Any, name: str, seed: int, inputs: range, report: Report) -> None:
    """Read mutated inputs; an input follows from the reader's name, the seed and its number."""
    start_bytes = peak_bytes()
    for number in inputs:
        rng = generator(name, seed, number)
        report.read(reader, number + 1, reader.mutate(rng.choice(reader.corpus), rng), start_bytes)


def read_guided(reader: Any, name: str, seed: int, inputs: range, report: Report, folder: Path) -> None:
    """Read inputs that libFuzzer chooses by coverage of the project's lines, which ends the process.

    Half of the changes are the reader's own.
    """
    import atheris

    start_bytes, numbers = peak_bytes(), iter(range(inputs.start + 1, sys.maxsize))
    (folder / "examples").mkdir(exist_ok=True)
    for number, data in enumerate(reader.corpus):
        (folder / "examples" / str(number)).write_bytes(data)

    def mutated(data: bytes, max_size: int, number: int) -> bytes:
        if number % 2:
            return bytes(reader.mutate(data, generator(name, seed, number))[:max_size])
        return bytes(atheris.Mutate(data, max_size))

    options = [
        f"-seed={seed + inputs.start + 1}",
        f"-runs={len(inputs)}",
        f"-max_len={1 << 20}",
        "-len_control=0",
    ]
    options += ["-rss_limit_mb=0", "-timeout=0", f"-artifact_prefix={folder}/", "-verbosity=0"]
    atheris.Setup(
        [sys.argv[0], *options, str(folder / "examples")],
        lambda data: report.read(reader, next(numbers), data, start_bytes),
        custom_mutator=mutated,
    )
    atheris.Fuzz()


def main() -> None:
    """Read the inputs of a seed; the last line of defence is a limit of this process's address space."""
    parser = argparse.ArgumentParser()
    for name in ("reader", "seed", "first", "inputs", "folder", "kept"):
        parser.add_argument(name)
    parser.add_argument("--guided", action="store_true")
    options = parser.parse_args()
    folder, seed = Path(options.folder), int(options.seed)
    own = folder / f"reader-{options.first}"
    own.mkdir()
    with watched() if options.guided else contextlib.nullcontext():
        from tests.soak.readers import READERS

        reader = READERS[options.reader](own, Path(options.kept))
        for data in reader.corpus[: 1 if reader.first_alone_is_read else None]:
            if problem := reader.read(data):
                raise AssertionError(f"a valid input: {problem}")
    signal.signal(signal.SIGALRM, hang)
    mapped_bytes = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (mapped_bytes + 2 * MEMORY_BYTES, resource.RLIM_INFINITY))
    inputs, report = range(int(options.first), int(options.inputs)), Report(folder)
    if options.guided:
        read_guided(reader, options.reader, seed, inputs, report, folder)
    else:
        read_seeded(reader, options.reader, seed, inputs, report)


def watched() -> contextlib.AbstractContextManager[object]:
    """Let atheris watch the lines of those modules of the project that are imported in this context."""
    import atheris

    context: contextlib.AbstractContextManager[object] = atheris.instrument_imports(
        include=["luts", "orchestrator", "search"]
    )
    return context


def hang(*_: object) -> None:
    """Interrupt a reader, where it runs Python."""
    raise HangError


if __name__ == "__main__":
    main()

"""Mutated inputs for every reader of untrusted data.

Readers in Python run in a process of their own, because an input may end it; every other seed is guided by coverage
where atheris is installed (`pip install atheris`). Agents are sent mutated frames over their sockets.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from orchestrator.agent.programs import agent_program
from orchestrator.wire.frames import read_frame
from tests.soak.faults import Fault, Outcome
from tests.soak.read_inputs import LIMIT_S, MEMORY_BYTES, ROOT, generator
from tests.soak.strangers import missing as agent_missing
from tests.support.agent_programs import BUILT, Running, started

INPUTS = 1_000_000
"""Inputs of each reader in a complete soak."""

QUICK, SLOW = 20_000, 5_000
"""Inputs of a seed: 5 to 150 s; each begins by importing for seconds."""

SHOWN = 5
"""Most problems of a seed that are told."""

CHILD = [sys.executable, "-W", "ignore", "-m", "tests.soak.read_inputs"]

SLOW_READERS = ("shared LUTs", "journals of bundles")
READER_NAMES = (
    "frames", "replies to the client", "LUT files", "shared LUTs", "journals", "journals of bundles", "checkpoints",
    "weights", "architectures", "recipes", "programs", "zips",
)  # fmt: skip
"""Names in `tests.soak.readers`, which imports torch and is left to the child process."""


def read_report(folder: Path) -> tuple[int, list[dict[str, Any]]]:
    """Return the number of the last input that was begun, counted from 1, and the problems."""
    count, problems = folder / "count", folder / "problems.jsonl"
    number = int.from_bytes(count.read_bytes(), "little") if count.exists() else 0
    lines = problems.read_text().splitlines() if problems.exists() else []
    return number, [json.loads(line) for line in lines]


@functools.cache
def kept_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a folder for valid inputs that take long to make, of this process."""
    return tempfile.TemporaryDirectory(prefix="soak-inputs-")


def is_guided(seed: int) -> bool:
    """Return whether a seed's inputs follow coverage."""
    return seed % 2 == 1 and importlib.util.find_spec("atheris") is not None


def read_mutated(reader: str, inputs: int, seed: int, folder: Path) -> Outcome:
    """Read mutated inputs in a child process; after an input that ends it, another continues with the next."""
    guided, crashes, hangs = is_guided(seed), [], 0
    while (number := read_report(folder)[0]) < inputs:
        command = [*CHILD, reader, str(seed), str(number), str(inputs)]
        command += [str(folder), kept_folder().name, *(["--guided"] if guided else [])]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", ""))),
        }
        with (folder / "output").open("wb") as output:
            try:
                done = subprocess.run(
                    command,
                    cwd=ROOT,
                    env=environment,
                    stdout=output,
                    stderr=output,
                    timeout=3600,
                    check=False,
                )
                code: int | str = done.returncode
            except subprocess.TimeoutExpired:
                code, hangs = "no end", hangs + 1
        ended = read_report(folder)[0]
        if code == 0 and ended >= inputs:
            break
        said = (folder / "output").read_bytes()[-300:].decode(errors="replace")
        crashes.append(f"input {ended} ended the process ({code}): {' '.join(said.split())}")
        if ended == number or len(crashes) >= SHOWN:
            break  # it does not begin, or hardly any input is read
    ended, problems = read_report(folder)
    hung = sum(problem["kind"] == "hung" for problem in problems) + hangs
    wrong = sum(problem["kind"] == "wrong" for problem in problems) + len(crashes) - hangs
    told = [f"input {problem['index']}: {problem['why']}" for problem in _each_once(problems)][:SHOWN]
    return Outcome(tries=ended, wrong=wrong, hung=hung, detail="; ".join([*crashes, *told]))


def _each_once(problems: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the first of problems that differ in nothing but their input."""
    seen = set()
    for problem in problems:
        if problem["why"] not in seen:
            seen.add(problem["why"])
            yield problem


def reader_fault(reader: str) -> Fault:
    """Return the fault of one reader."""
    inputs = SLOW if reader in SLOW_READERS else QUICK
    return Fault(f"inputs: {reader}", functools.partial(read_mutated, reader, inputs), INPUTS // inputs)


FRAMES_SENT = 16
"""Requests of a connection, of which half are damaged."""

CODES = {
    "header_too_large", "payload_too_large", "bad_header", "truncated", "timeout", "unauthorized",
    "protocol_version", "bad_request",
    "unknown_op", "hash_mismatch", "storage_full", "unknown_model", "unknown_runtime", "bad_option",
    "options_conflict", "bad_model", "out_of_memory", "unknown_handle", "bad_input", "not_ready", "done", "reset",
}  # fmt: skip
"""Codes that an agent without a loaded model may answer damaged requests with; `internal` and `busy` are not."""


def converse(agent: Running, stream: bytes) -> list[str]:
    """Send a stream, and return the codes of its answers up to the end of the connection."""
    codes = []
    with agent.socket() as sock, sock.makefile("rb") as answers:
        sock.settimeout(LIMIT_S)
        try:
            sock.sendall(stream)
            sock.shutdown(socket.SHUT_WR)
            while (frame := read_frame(answers)) is not None:
                frame[1].drain()
                codes.append(str(frame[0].get("error", {"code": "done"})["code"]))
        except ConnectionError:
            codes.append("reset")  # it has refused a frame and closed while more was sent
    return codes


def send_mutated(language: str, inputs: int, seed: int, folder: Path) -> Outcome:
    """Send an agent damaged requests over many connections; it must answer, live and serve the next client."""
    from tests.soak.frame_readers import REQUEST_HEADERS, mutate_frames, stream_of
    from tests.soak.mutations import mutate_bytes

    sent, hung, problems = 0, 0, []
    with started(agent_program(language), folder / "store", "--store-bytes", "2000000") as agent:
        hello = stream_of([({"id": 1, "op": "hello", "protocol": 1, "token": agent.token}, b"")])
        requests = [stream_of([request]) for request in REQUEST_HEADERS[1:]]
        process = psutil.Process(agent.process.pid)
        codes: set[str] = set()
        while sent < inputs and len(problems) < SHOWN:
            rng = generator(f"{language} agent", seed, sent)
            frames = [rng.choice(requests) for _ in range(FRAMES_SENT)]
            frames = [mutate_frames(frame, rng) if rng.random() < 0.5 else frame for frame in frames]
            frames[-1] = mutate_bytes(frames[-1], rng, requests)
            first = mutate_bytes(mutate_frames(hello, rng), rng) if rng.random() < 0.1 else hello
            try:
                answered = converse(agent, first + b"".join(frames))
            except TimeoutError:
                hung += 1
                problems.append(f"connection of input {sent}: no answer within {LIMIT_S:.0f} s")
                answered = []
            except Exception as error:
                problems.append(f"connection of input {sent}: {type(error).__name__}: {error}"[:200])
                answered = []
            codes.update(answered)
            if sent == 0:
                start_bytes = process.memory_info().rss
            sent += FRAMES_SENT
            if agent.process.poll() is not None:
                problems.append(f"the agent ended after input {sent}")
                break
        if agent.process.poll() is None:
            if unexpected := codes - CODES:
                problems.append(f"answers {sorted(unexpected)}")
            if (grown := process.memory_info().rss - start_bytes) > MEMORY_BYTES:
                problems.append(f"{grown >> 20} MiB of memory")
            with agent.raw() as client:
                if client.code({"id": 2, "op": "state"}) != "done":
                    problems.append("the next client is not served")
    return Outcome(tries=sent, wrong=len(problems) - hung, hung=hung, detail="; ".join(problems[:SHOWN]))


def agent_fault(language: str) -> Fault:
    """Return the fault of one agent."""
    run = functools.partial(send_mutated, language, QUICK)
    return Fault(
        f"inputs: {language} agent", run, INPUTS // QUICK, functools.partial(agent_missing, language)
    )


FAULTS: list[Fault] = [
    *(reader_fault(reader) for reader in READER_NAMES),
    *(agent_fault(language) for language in ("python", *BUILT)),
]

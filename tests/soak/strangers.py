"""A thousand connections without the token, to each agent: the client that has it is served, and as fast."""

from __future__ import annotations

import contextlib
import functools
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from orchestrator.agent.programs import agent_program
from orchestrator.wire.frames import encode_header
from tests.soak.faults import Fault, Outcome
from tests.support.agent_programs import BUILT, Raw, Running, require_built, started

STRANGERS = 1_000

BETWEEN = 400
"""Connections between a client's own and its hello: fewer than the 512 of PROTOCOL.md that wait."""

PAIRS = 9
"""Clients of a seed that come while strangers stand, each next to one that comes while none does."""

HELLO = {"id": 1, "op": "hello", "protocol": 1, "token": "guessed"}
WAYS = {
    "connected": b"",
    "half a length": b"\0\0",
    "half a hello": encode_header(HELLO)[:-5],
    "wrong token": encode_header(HELLO),
    "not a frame": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
}
"""What a stranger sends, and then nothing more."""

FLOOD = "flood"
"""Another way: strangers come without a pause, as fast as one process connects."""

FLOODER = """
import collections, socket, sys, time
last, end = collections.deque(maxlen=600), time.monotonic() + 300
print("ready", flush=True)
while time.monotonic() < end:
    try:
        last.append(socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=5))
    except OSError:
        pass
"""

LIMIT_S = 60.0
"""A client that waits longer for its first reply is not served; the agent's own limit is 2 s."""


@contextlib.contextmanager
def descriptors() -> Iterator[None]:
    """Let this process open a socket for each stranger."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 3 * STRANGERS)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def standing(agent: Running, way: str, count: int) -> Iterator[None]:
    """Connect strangers, one after the other, and leave them there; the agent may drop them."""
    if way == FLOOD:
        command = [sys.executable, "-c", FLOODER, str(agent.port)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as flooder:
            assert flooder.stdout is not None
            flooder.stdout.readline()
            try:
                yield
            finally:
                flooder.kill()
        return
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            sock = stack.enter_context(agent.socket())
            with contextlib.suppress(OSError):
                sock.sendall(WAYS[way])
        yield


def first_reply_s(agent: Running, pause_s: float = 0.0, between: str = "") -> float:
    """Return the seconds from connecting to the reply to hello, less `pause_s` before it is sent.

    `between` is the way of strangers that come in that pause. Raises OSError or AssertionError: the client is not
    served.
    """
    start_s = time.monotonic()
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(agent.socket())
        sock.settimeout(LIMIT_S)
        client = stack.enter_context(Raw(sock))
        time.sleep(pause_s)
        if between:
            stack.enter_context(standing(agent, between, BETWEEN))
        reply = client.ask(HELLO | {"token": agent.token})
        took_s = time.monotonic() - start_s - pause_s
        assert "error" not in reply, reply
        assert client.code({"id": 2, "op": "bye"}) == "done"
    return took_s


def disturb(language: str, seed: int, folder: Path) -> Outcome:
    """Serve clients with and without strangers of the seed's way, and some whom strangers overtake, in turn."""
    rng = random.Random(seed)
    way = (*WAYS, FLOOD)[seed % (len(WAYS) + 1)]
    # Over USB, a hello comes some milliseconds after its connection.
    pause_s = rng.choice((0.0, 0.001, 0.005))
    alone, disturbed, refused = [], [], []
    with descriptors(), started(agent_program(language), folder / "store") as agent:
        first_reply_s(agent)
        for _ in range(PAIRS):
            try:
                alone.append(first_reply_s(agent, pause_s))
                with standing(agent, way, STRANGERS):
                    first_reply_s(agent)  # behind all of them
                    disturbed.append(first_reply_s(agent, pause_s))
                if way != FLOOD:
                    first_reply_s(agent, pause_s, between=way)
                first_reply_s(agent)  # the agent has noticed by then that the strangers have left
            except (OSError, AssertionError) as error:
                refused.append(f"{type(error).__name__}: {error}"[:200])
    if not alone or not disturbed:
        return Outcome(tries=PAIRS, lost=PAIRS, detail=f"{way}: {refused[:2]}")
    with_s, without_s = statistics.median(disturbed), statistics.median(alone)
    times = f"{1e3 * with_s:.2f} ms with strangers, {1e3 * without_s:.2f} ms without"
    ratio = f"{way}: {times}, {with_s / without_s:.2f} times"
    return Outcome(tries=5 * PAIRS, lost=len(refused), detail="; ".join([ratio, *refused[:2]]))


def missing(language: str) -> str:
    """Return why the agent of a language can't be disturbed here, or an empty string; it is built if need be."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 3 * STRANGERS:
        return "too few files may be open"
    if language in BUILT and not BUILT[language][0].exists():
        return f"no {language}; run tools/toolchains/{language}.sh"
    require_built(language)
    return ""


FAULTS: list[Fault] = [
    Fault(
        f"strangers: {language} agent",
        functools.partial(disturb, language),
        60,
        functools.cache(functools.partial(missing, language)),
    )
    for language in ("python", *BUILT)
]

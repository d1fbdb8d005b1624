"""Runs of `bench` that are killed at a random moment: the whole command or one of the processes that it started."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.soak.forked_bench import ForkedBench, fork_server
from tests.support.bench import module_environment

Process = subprocess.Popen[bytes] | ForkedBench

POLL_S = 0.01
"""Between two looks at the files; a step of a training or a batch of a profile takes longer."""

LOOK_S = 0.2
"""Between two looks at the processes of a run that is left alone, which cost more."""

LIMIT_S = 600.0
"""A run takes 30 s on a core of its own, and some minutes on a busy machine; one of ten minutes hangs."""

ORPHAN_S = 120.0
"""Time for what a killed command has started to end: Ray's processes, or the trainings of a killed torchrun."""

BEFORE_SHARE = 0.1
"""Fraction of kills before the first sign of progress, while modules are imported and models are exported."""

CHILD_SHARE = 0.4
"""Fraction of kills that hit one of the processes that the command has started."""

_SERVICES = ("gcs_server", "raylet", "log_monitor", "dashboard", "runtime_env")
"""In command lines of Ray's own processes, which no kernel picks and no user kills one by one."""


def environment(home: Path, cache: Path, **changes: str) -> dict[str, str]:
    """That of a run whose every file is below `home`, apart from exported models, which are in `cache`."""
    places = {"RUNS": "runs", "LUTS": "luts", "LOCKS": "locks"}
    own = {f"BLOCKTIME_{name}": str(home / folder) for name, folder in places.items()}
    own |= {
        "BLOCKTIME_CACHE": str(cache),
        "XDG_CACHE_HOME": str(home / "user-cache"),
        "XDG_DATA_HOME": str(home / "user-data"),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    users = {name: value for name, value in module_environment().items() if not name.startswith("BLOCKTIME_")}
    users.pop("RAY_ADDRESS", None)
    return users | own | changes


@dataclass(frozen=True)
class Timeline:
    """Progress of an undisturbed run: (seconds since its start, bytes of progress) at each change, and its end."""

    changes: tuple[tuple[float, int], ...]
    end_s: float

    def draw(self, rng: random.Random, done: int) -> Moment:
        """Return a random moment after `done` bytes of progress, uniform in time."""
        left = [(at, size) for at, size in self.changes if size > done] or [(self.end_s, done)]
        if rng.random() < BEFORE_SHARE:
            return Moment(0, rng.uniform(0, left[0][0]))
        at = rng.uniform(left[0][0], self.end_s)
        reached_s, size = max([change for change in left if change[0] <= at], default=left[0])
        return Moment(size, at - reached_s)


@dataclass(frozen=True)
class Moment:
    """`delay_s` after the run has made so many bytes of progress."""

    progress: int
    delay_s: float


@dataclass(frozen=True)
class Ended:
    """A run that has ended: `killed` if this module killed it or one of its processes; `orphans` did not end."""

    code: int
    said: str
    killed: bool
    orphans: tuple[str, ...] = ()
    hung: bool = False


class Run:
    """`bench` that runs, with what it writes to stderr in `said.txt`."""

    def __init__(
        self, arguments: Sequence[object], variables: Mapping[str, str], home: Path, processes: int = 1
    ) -> None:
        """Start it in the folder `home`; several `processes` are started by torchrun."""
        self._said = home / "said.txt"
        self._seen: dict[int, psutil.Process] = {}
        with self._said.open("w") as said:
            if processes == 1:
                self._process: Process = fork_server().start(arguments, variables, home)
            else:
                torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
                command = [sys.executable, "-c", "from orchestrator.cli.entry import main; main()"]
                self._process = subprocess.Popen(
                    [sys.executable, *torchrun, "--no-python", *command, *map(str, arguments)],
                    env=dict(variables),
                    cwd=home,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                    start_new_session=True,
                )
        self._started_s = time.monotonic()

    def timeline(self, progress: Callable[[], int]) -> tuple[Timeline, Ended]:
        """Let it run to its end, and note its progress."""
        changes: list[tuple[float, int]] = []
        while self._process.poll() is None and self._seconds() < LIMIT_S:
            size = progress()
            if size > (changes[-1][1] if changes else 0):
                changes.append((self._seconds(), size))
            time.sleep(POLL_S)
        return Timeline(tuple(changes), self._seconds()), self.end()

    def kill(self, moment: Moment, progress: Callable[[], int], rng: random.Random) -> Ended:
        """Send SIGKILL at a moment to the command or to one of its processes, and wait until all have ended."""
        child, place = rng.random() < CHILD_SHARE, rng.random()
        while self._runs() and progress() < moment.progress:
            time.sleep(POLL_S)
        reached_s = time.monotonic()
        while self._runs() and time.monotonic() < reached_s + moment.delay_s:
            time.sleep(POLL_S)
        if not self._runs():
            return self.end()
        children = [one for one in self._descendants() if _may_be_killed(one)]
        if child and children:
            with contextlib.suppress(psutil.NoSuchProcess):
                children[int(place * len(children))].kill()
        else:
            self._process.kill()
        return self.end(killed=True)

    def end(self, killed: bool = False) -> Ended:
        """Wait until it and everything that it started have ended; what does not is killed."""
        while self._runs():
            self._descendants()
            time.sleep(LOOK_S)
        hung = self._process.poll() is None
        _, left = psutil.wait_procs(list(self._seen.values()), 0 if hung else ORPHAN_S)
        orphans = tuple(_command_line(one)[-100:] for one in left)
        for one in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self._process.kill()
        code = self._process.wait()
        return Ended(code, self._said.read_text(errors="replace"), killed, () if hung else orphans, hung)

    def _runs(self) -> bool:
        return self._process.poll() is None and self._seconds() < LIMIT_S

    def _seconds(self) -> float:
        return time.monotonic() - self._started_s

    def _descendants(self) -> list[psutil.Process]:
        """The processes that it has started, those of them too, in the order of their start."""
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self._process.pid).children(recursive=True)
            self._seen |= {one.pid: one for one in children}
            return sorted(children, key=lambda one: one.pid)
        return []


def _command_line(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _may_be_killed(process: psutil.Process) -> bool:
    command = _command_line(process).lower()  # Ray renames some: ray::DashboardAgent
    return not any(service in command for service in _SERVICES)


def was_refused(ended: Ended) -> bool:
    """Whether a run says in one line why it failed, as after the loss of one of its processes."""
    lines = [line for line in ended.said.splitlines() if line.startswith("bench: ")]
    return ended.code not in (0, -signal.SIGKILL) and len(lines) == 1 and "Traceback" not in ended.said

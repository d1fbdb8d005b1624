"""A small `bench profile` in a process of its own, which tests disturb."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from luts.format.lut import Lut
from luts.format.store import LutStore
from luts.verify import verify_lut
from orchestrator.journal.log import read_log
from tests.support.bench import module_environment, stopping
from tests.support.sample_places import sample_places
from tests.support.waiting import until

# All tests profile this one plan, so that its models are exported once.
PLAN = ("--space", "autovit-nano", "--removals", "none", "--design", "3", "--heldout", "2", "--from", "none")
SMALL = (*PLAN, "--threads", "1", "--budget", "1s", "--no-self-test")
"""Without a self-test, which may refuse a machine that is busy."""

# Twice in the middle: there are three passes at least, and a batch has two chunks at least.
HOLDS = (0, 4)


class Profiling:
    """Starts at once; run, LUTs and what it writes are below `folder`.

    It holds still, while it measures, shortly after each of `holds`: numbers of chunks of samples in the journal
    before that one.
    """

    def __init__(
        self,
        device: str,
        folder: Path,
        environment: Mapping[str, str],
        *options: str,
        holds: Sequence[int] = (),
    ) -> None:
        self._device = device
        self._luts = folder / "luts"
        self._said = folder / "said.txt"
        self.journal = folder / "run" / "journal.jsonl"
        what = ("profile", "--device", device, *SMALL, *options, "--run", folder / "run")
        with self._said.open("w") as said:
            self.process = subprocess.Popen(
                [*stopping("SIGSTOP", "chunks", *holds), *map(str, what)],
                env=module_environment(BLOCKTIME_LUTS=str(self._luts), **environment),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                text=True,
            )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Once it holds still; it goes on afterwards."""
        status = psutil.Process(self.process.pid).status
        until(lambda: self._runs() and status() == psutil.STATUS_STOPPED, timeout_s=900)
        yield
        self.process.send_signal(signal.SIGCONT)

    def wait_for_words(self, words: str) -> None:
        """Until it has said them on stderr."""
        until(lambda: words in self._said.read_text() or not self._runs(), timeout_s=300)

    def _runs(self) -> bool:
        """True; fails, with what it said, where it has ended."""
        assert self.process.poll() is None, f"it ended before: {self._said.read_text()}"
        return True

    def finish(self) -> str:
        """What it said on stderr."""
        self.process.wait(timeout=900)
        said = self._said.read_text()
        assert self.process.returncode == 0, said
        return said

    def kill(self) -> None:
        """Ends it where it still runs."""
        self.process.kill()
        self.process.wait()

    def lut(self, name: str = "") -> Lut:
        """The LUT that it wrote, verified, no sample of which was taken twice; `name` where not the device's."""
        places = sample_places(read_log(self.journal))
        assert len(places) == len(set(places))
        where = f"{name or self._device}/autovit-nano/executorch-xnnpack-fp32-t1/v1"
        return verify_lut(LutStore([self._luts]).resolve(where).path)

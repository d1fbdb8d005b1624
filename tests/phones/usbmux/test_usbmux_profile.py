"""`bench profile` on an iPhone 13, all the way: fake usbmuxd, the Swift agent, ExecuTorch, and a cable pulled."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fake_phone import FakePhone
from fake_usbmuxd import FakeUsbmuxd
from phone_apps import ProgramApp

from luts.store import LutStore
from luts.verify import verify_lut
from orchestrator.measure.log import read_log
from orchestrator.measure.samples import samples_table

ROOT = Path(__file__).resolve().parents[3]
AGENT = ROOT / "build/swift/blocktime-agent"
COMMAND = [
    *(str(Path(sys.executable).parent / "bench"), "profile"),
    *("--device", "iphone13", "--space", "autovit-nano", "--threads", "1", "--budget", "1s"),
    *("--removals", "none", "--design", "2", "--heldout", "2"),
]


@pytest.fixture(scope="session")
def swift_agent() -> Path:
    """The agent's program, built now if it is not."""
    if not (ROOT / ".toolchains/swift").is_dir():
        pytest.skip("needs the Swift toolchain: make toolchains")
    done = subprocess.run([ROOT / "tools/build_swift.sh"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return AGENT


@pytest.fixture
def iphone(usbmuxd: FakeUsbmuxd, swift_agent: Path, tmp_path: Path) -> Iterator[FakePhone]:
    """An attached iPhone 13 whose app is the Swift agent."""
    command = [str(swift_agent), "--simulate", "iPhone14,5", "--store", str(tmp_path / "store")]
    phone = FakePhone(ProgramApp(command, tmp_path / "agent.log"))
    phone.install_app()
    usbmuxd.plug_in(phone)
    yield phone
    phone.quit_app()


@dataclass
class Profiling:
    """A running `bench profile`."""

    process: subprocess.Popen[str]
    journal: Path

    def wait_for_journal(self, size_bytes: int) -> None:
        """Until that much was measured."""
        while not (self.journal.exists() and self.journal.stat().st_size >= size_bytes):
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.02)

    def finish(self) -> str:
        """What it said on stderr."""
        _, errors = self.process.communicate(timeout=300)
        assert self.process.returncode == 0, errors
        return errors


@pytest.fixture
def profile(tmp_path: Path) -> Iterator[Callable[[], Profiling]]:
    """Starts `bench profile` with caches of its own."""
    environment = os.environ | {
        "BLOCKTIME_LUTS": str(tmp_path / "luts"),
        "BLOCKTIME_CACHE": str(tmp_path / "cache"),
    }
    started: list[Profiling] = []

    def start() -> Profiling:
        process = subprocess.Popen(
            [*COMMAND, "--run", tmp_path / "run"],
            env=environment,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(Profiling(process, tmp_path / "run" / "journal.jsonl"))
        return started[-1]

    yield start
    for profiling in started:
        profiling.process.kill()
        profiling.process.wait()


def test_profile_of_an_iphone_survives_a_pulled_cable_and_a_lost_app(
    usbmuxd: FakeUsbmuxd, iphone: FakePhone, profile: Callable[[], Profiling], tmp_path: Path
) -> None:
    profiling = profile()
    profiling.wait_for_journal(10_000)
    usbmuxd.unplug(iphone)
    time.sleep(1.0)
    usbmuxd.plug_in(iphone)
    profiling.wait_for_journal(profiling.journal.stat().st_size + 20_000)
    assert len(iphone.launches) == 1, "the agent that ran on is the one that is used again"
    iphone.quit_app()
    said = profiling.finish()
    assert said.count("iPhone 13 is not attached: waiting up to 10 min for its cable") == 1
    assert len(iphone.launches) == 2
    assert not iphone.pid, "the app that was started from here was ended"
    path = LutStore([tmp_path / "luts"]).resolve("iphone13/autovit-nano/executorch-xnnpack-fp32-t1/v1").path
    meta = verify_lut(path).meta
    assert (meta.measured, meta.device.model) == ("simulated", "iPhone14,5")
    table = samples_table(read_log(profiling.journal))
    names = ("batch", "segment", "round", "position")
    places = list(zip(*(table.column(name).to_pylist() for name in names), strict=True))
    assert len(places) == len(set(places)), "no sample twice"

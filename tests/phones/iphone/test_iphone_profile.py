"""`bench profile` on an iPhone 13 with the Swift agent, ExecuTorch, and faults on the way."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bench import answer
from tests.support.fake_iphone import FakeIphone
from tests.support.fake_usbmuxd import FakeUsbmuxd
from tests.support.phone_apps import ProgramApp
from tests.support.profiling import HOLDS, Profiling

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def swift_agent() -> Path:
    """The agent's program, built now if it is not."""
    if not (ROOT / ".toolchains/swift").is_dir():
        pytest.skip("needs the Swift toolchain: make toolchains")
    done = subprocess.run([ROOT / "tools/build_swift.sh"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return ROOT / "build/swift/blocktime-agent"


@pytest.fixture
def iphone(usbmuxd: FakeUsbmuxd, swift_agent: Path, tmp_path: Path) -> Iterator[FakeIphone]:
    """An attached iPhone 13 whose app is the Swift agent."""
    command = [str(swift_agent), "--simulate", "iPhone14,5", "--store", str(tmp_path / "store")]
    phone = FakeIphone(ProgramApp(command, tmp_path / "agent.log"))
    phone.install_app()
    usbmuxd.plug_in(phone)
    yield phone
    phone.quit_app()


@pytest.fixture
def profiling(iphone: FakeIphone, tmp_path: Path, export_cache: Path) -> Iterator[Profiling]:
    """A run that has just begun, of what the Swift agent runs on this machine too: ExecuTorch."""
    cache = {"BLOCKTIME_CACHE": str(export_cache)}
    run = Profiling("iphone13", tmp_path, cache, "--runtime", "executorch", holds=HOLDS)
    yield run
    run.kill()


def test_profile_survives_a_pulled_cable_and_a_killed_app(
    usbmuxd: FakeUsbmuxd, iphone: FakeIphone, profiling: Profiling
) -> None:
    with profiling.held():
        usbmuxd.unplug(iphone)
    profiling.wait_for_words("waiting up to 10 min for its cable")
    usbmuxd.plug_in(iphone)
    with profiling.held():
        assert len(iphone.launches) == 1, "the agent that ran on is the one that is used again"
        iphone.quit_app()
    said = profiling.finish()
    assert said.count("iPhone 13 is not attached: waiting up to 10 min for its cable") == 1
    assert len(iphone.launches) == 2
    assert not iphone.pid, "the app that was started from here was ended"
    meta = profiling.lut().meta
    assert (meta.measured, meta.device.model) == ("simulated", "iPhone14,5")


def test_a_tiny_network_goes_through_the_whole_chain(
    iphone: FakeIphone, export_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLOCKTIME_CACHE", str(export_cache))
    smoke = ("doctor", "--device", "iphone13", "--smoke", "--runtime", "executorch", "--json")
    results = {row["step"]: row["result"] for row in json.loads(answer(*smoke))}
    assert results["connected"].startswith("iPhone14,5, ")
    assert float(results["checked"].split()[1]) < 1e-4
    assert results["timed"].endswith(" ms")
    assert len(iphone.launches) == 1

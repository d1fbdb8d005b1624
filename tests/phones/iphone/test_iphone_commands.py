"""Commands for an iPhone as the documentation shows them: `bench profile --device iphone13` and others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from luts.format.store import LutStore
from luts.verify import verify_lut
from tests.support.bench import bench
from tests.support.fake_iphone import FakeIphone
from tests.support.fake_usbmuxd import FakeUsbmuxd
from tests.support.phone_apps import ThreadApp
from tests.support.readme import examples, like
from tests.support.simulated_phone import SimulatedAgents, shorten

CARD = ("profile", "--device", "iphone13")


@pytest.fixture(autouse=True)
def places(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders of the test's own."""
    for name in ("LUTS", "RUNS", "CACHE"):
        monkeypatch.setenv(f"BLOCKTIME_{name}", str(home / name.lower()))
    return home


@pytest.fixture
def iphone(usbmuxd: FakeUsbmuxd, tmp_path: Path) -> Iterator[FakeIphone]:
    """An attached iPhone 13 whose app has Core ML with simulated latencies."""
    agents = SimulatedAgents("coreml", "iPhone14,5", tmp_path / "store", lambda: phone.in_front)
    phone = FakeIphone(ThreadApp(tmp_path / "unused", agents.start))
    phone.install_app()
    usbmuxd.plug_in(phone)
    yield phone
    phone.quit_app()


def test_profile_makes_a_lut(iphone: FakeIphone, places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running = []
    shorten(monkeypatch, places / "cache", lambda: running.append(iphone.pid))
    done = bench(*CARD)
    assert done.returncode == 0, done.stderr
    assert running == [0], "models are exported before the app is started"
    lut = verify_lut(LutStore([places / "luts"]).resolve("iphone13/autovit-xxs/coreml-fp16-all/v1").path)
    assert (lut.meta.device.model, lut.meta.measured) == ("iPhone14,5", "simulated")


def test_nothing_is_exported_for_a_phone_that_is_not_ready(
    iphone: FakeIphone, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch, places / "cache", lambda: pytest.fail("exported"))
    iphone.media_bytes = 1_000_000
    done = bench(*CARD)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        3,
        "bench: iPhone 13 has 1 MB free, models take 500: free some of it",
    )
    assert not iphone.launches


def test_profile_without_the_phone(usbmuxd: FakeUsbmuxd) -> None:
    done = bench(*CARD)
    assert (done.returncode, done.stderr) == (
        3,
        "bench: no iPhone 13 (iPhone14,5) found; attached: no phone; connect it by cable, unlock it and trust this "
        "computer, then see `bench devices`\n",
    )


def test_threads_are_not_for_core_ml() -> None:
    done = bench(*CARD, "--threads", "4")
    assert done.returncode == 2
    assert "--threads is for --runtime executorch" in done.stderr


def test_first_command_of_the_page(iphone: FakeIphone, places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shorten(monkeypatch, places / "cache")
    page = (Path(__file__).parents[3] / "docs/iphone.md").read_text(encoding="utf-8")
    (smoke,) = [example for example in examples(page) if example.output]
    done = bench(*smoke.command.split()[1:])
    assert done.returncode == 0, done.stderr
    like(smoke.output, done.stdout, done.stderr)

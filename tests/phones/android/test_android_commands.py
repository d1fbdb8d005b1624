"""Commands for an Android phone as the documentation shows them: `bench profile --device pixel8` and others."""

import itertools
from pathlib import Path

import pytest

from luts.format.store import LutStore
from luts.verify import verify_lut
from orchestrator.measure import readiness
from tests.support.bench import bench
from tests.support.fake_android import EMULATED, FakeAndroid
from tests.support.phone_apps import ThreadApp
from tests.support.readme import examples, like
from tests.support.simulated_phone import SimulatedAgents, shorten

PROFILE = ("profile", "--device", "pixel8")
DARK_AT = 21
"""How often the app is asked whether it is in front before the screen goes dark, in the middle of measuring."""


@pytest.fixture
def pixel(home, server):
    """An attached Pixel 8 with the app, whose ExecuTorch has simulated latencies; nobody touches its screen."""
    moments = itertools.count()

    def in_front():
        if next(moments) == DARK_AT:
            phone.go_dark()
        return phone.in_front

    agents = SimulatedAgents("executorch", "Pixel 8", home / "store", in_front)
    phone = FakeAndroid(ThreadApp(home / "unused", agents.start), apk=b"an app")
    server.phones.append(phone)
    return phone


def test_profile_survives_a_screen_that_goes_dark(pixel, home, monkeypatch):
    sleeps, running = [], []
    monkeypatch.setattr(readiness, "_sleep", sleeps.append)
    monkeypatch.setattr(readiness, "_clock", lambda: sum(sleeps))

    def exporting():
        running.append(pixel.is_running)
        pixel.go_dark()

    shorten(monkeypatch, home / "cache", exporting)
    done = bench(*PROFILE)
    assert done.returncode == 0, done.stderr
    assert running == [False], "models are exported before the app is started"
    assert "waiting, " in done.stderr
    assert sleeps == [readiness._SHOW_S]
    (ref,) = LutStore([home / "luts"]).list()
    assert (ref.device, ref.space) == ("pixel8", "autovit-xxs")
    assert ref.variant.startswith("executorch-xnnpack-fp32-t")
    lut = verify_lut(ref.path)
    assert (lut.meta.device.model, lut.meta.measured) == ("Pixel 8", "simulated")


def test_profile_of_an_emulator_is_not_a_phones(pixel, home, monkeypatch):
    shorten(monkeypatch, home / "cache")
    pixel.properties |= EMULATED
    refused = bench(*PROFILE)
    assert refused.returncode == 3
    assert "no Pixel 8 found; attached: Android emulator, not a phone (Pixel 8)" in refused.stderr
    command = ("profile", "--device", "emulator")
    assert bench(*command, "--name", "pixel8").returncode == 2
    done = bench(*command)
    assert done.returncode == 0, done.stderr
    (ref,) = LutStore([home / "luts"]).list()
    assert ref.device == verify_lut(ref.path).meta.device.name == "emulator"
    assert "Pixel 8" not in done.stderr


def test_nothing_is_exported_for_a_phone_that_is_not_ready(pixel, home, monkeypatch):
    shorten(monkeypatch, home / "cache", lambda: pytest.fail("exported"))
    pixel.apk = None
    done = bench(*PROFILE)
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith("bench: the blocktime app is not on 37281FDJH0042")
    assert not pixel.starts


def test_profile_without_the_phone(home, server):
    done = bench(*PROFILE)
    assert (done.returncode, done.stderr) == (
        3,
        "bench: no Pixel 8 found; attached: no phone; connect it by cable, switch on USB debugging and allow this "
        "computer, then see `bench devices`\n",
    )


def test_first_command_of_the_page(pixel, home, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shorten(monkeypatch, home / "cache")
    page = (Path(__file__).parents[3] / "docs/android.md").read_text(encoding="utf-8")
    shown = [example for example in examples(page) if example.output]
    (example,) = [example for example in shown if example.command.startswith("bench measure ")]
    done = bench(*example.command.split()[1:])
    assert done.returncode == 0, done.stderr
    like(example.output, done.stdout, done.stderr)

"""The command of the card for an Android phone, as it stands: `bench profile --device pixel8`."""

import itertools
import socket
from pathlib import Path

import pytest

from luts.format.store import LutStore
from luts.verify import verify_lut
from orchestrator.measure import readiness
from tests.support.bench import bench
from tests.support.fakephone.phone import FakePhone
from tests.support.fakephone.phone_state import EMULATED, PhoneState
from tests.support.fakephone.thread_app import AgentThread
from tests.support.made_up_agent import MadeUpAgents, shorten
from tests.support.readme import examples, like

CARD = ("profile", "--device", "pixel8")
DARK_AT = 21
"""How often the app is asked whether it is in front before the screen goes dark, in the middle of measuring."""


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """Folders of the test's own, and no adb server."""
    for name in ("LUTS", "RUNS", "CACHE"):
        monkeypatch.setenv(f"BLOCKTIME_{name}", str(tmp_path / name.lower()))
    monkeypatch.setenv("HOME", str(tmp_path))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(taken.getsockname()[1]))
        yield tmp_path


@pytest.fixture
def pixel(places, make_apk, monkeypatch):
    """A Pixel 8 in the network with the app, which has ExecuTorch with made-up time; nobody touches its screen."""
    state = PhoneState()
    moments = itertools.count()

    def in_front():
        if next(moments) == DARK_AT:
            state.go_dark()
        return state.in_front

    agents = MadeUpAgents("executorch", "Pixel 8", places / "store", in_front)
    with FakePhone(AgentThread(agents.start), state) as phone:
        phone.packages.install(make_apk())
        monkeypatch.setenv("BLOCKTIME_ADB_ADDRESSES", phone.serial)
        yield phone
    assert not phone.defects


def test_it_makes_a_lut_though_the_screen_goes_dark_during_the_export_and_later(pixel, places, monkeypatch):
    naps, running = [], []
    monkeypatch.setattr(readiness, "_sleep", naps.append)
    monkeypatch.setattr(readiness, "_clock", lambda: sum(naps))

    def exporting():
        running.append(pixel.app.pid)
        pixel.state.go_dark()

    shorten(monkeypatch, places / "cache", exporting)
    done = bench(*CARD)
    assert done.returncode == 0, done.stderr
    assert running == [None], "models are exported before the app is started"
    assert "waiting, " in done.stderr
    assert naps == [readiness._SHOW_S]
    (ref,) = LutStore([places / "luts"]).list()
    assert (ref.device, ref.space) == ("pixel8", "autovit-xxs")
    assert ref.variant.startswith("executorch-xnnpack-fp32-t")
    lut = verify_lut(ref.path)
    assert (lut.meta.device.model, lut.meta.measured) == ("Pixel 8", "simulated")


def test_an_emulator_of_it_makes_a_lut_of_an_emulator(pixel, places, monkeypatch):
    shorten(monkeypatch, places / "cache")
    pixel.state.properties.update(EMULATED)
    refused = bench(*CARD)
    assert refused.returncode == 3
    assert "no Pixel 8 found; attached: Android emulator, not a phone (Pixel 8)" in refused.stderr
    command = ("profile", "--device", "emulator")
    called = bench(*command, "--name", "pixel8")
    assert (called.returncode, called.stderr.splitlines()[-1]) == (
        2,
        "bench: --name pixel8: this is an emulator, not a Pixel 8; leave --name out",
    )
    done = bench(*command)
    assert done.returncode == 0, done.stderr
    (ref,) = LutStore([places / "luts"]).list()
    assert ref.device == verify_lut(ref.path).meta.device.name == "emulator"
    assert "Pixel 8" not in done.stderr


def test_without_the_phone_one_line_says_what_is_there_and_what_to_do():
    done = bench(*CARD)
    assert (done.returncode, done.stderr) == (
        3,
        "bench: no Pixel 8 found; attached: no phone; connect it by cable, switch on USB debugging and allow this "
        "computer, then see `bench devices`\n",
    )


def test_the_smoke_command_prints_what_the_page_shows(pixel, places, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shorten(monkeypatch, places / "cache")
    page = (Path(__file__).parents[3] / "docs/android.md").read_text(encoding="utf-8")
    (smoke,) = [example for example in examples(page) if example.output]
    done = bench(*smoke.command.split()[1:])
    assert done.returncode == 0, done.stderr
    like(smoke.output, done.stdout, done.stderr)

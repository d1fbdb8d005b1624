"""`bench doctor --device pixel8 --bundle F.zip`: what is in it, and what is not."""

import json
import zipfile
from pathlib import Path

import pytest

from orchestrator.tasks import bug_report
from tests.support.bench import bench
from tests.support.fakephone.phone import FakePhone
from tests.support.fakephone.phone_state import PhoneState
from tests.support.fakephone.thread_app import AgentThread
from tests.support.made_up_agent import MadeUpAgents

TOKEN = "0123456789abcdef" * 2


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """Folders of the test's own under a home whose name nobody is to learn, and no adb server."""
    home = tmp_path / "home" / "mister-secret"
    home.mkdir(parents=True)
    for name in ("LUTS", "RUNS", "CACHE"):
        monkeypatch.setenv(f"BLOCKTIME_{name}", str(home / name.lower()))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "1")
    return home


@pytest.fixture
def pixel(places, make_apk, monkeypatch):
    """A Pixel 8 with the app, whose log holds what it should not, and a run of it."""
    agents = MadeUpAgents("executorch", "Pixel 8", places / "store")
    run = places / "runs" / "pixel8-autovit-xxs-executorch-xnnpack-fp32-t4-00000000-1"
    run.mkdir(parents=True)
    with FakePhone(AgentThread(agents.start), PhoneState()) as phone:
        phone.packages.install(make_apk())
        phone.app._log.write(f"took {TOKEN} of {phone.serial} at /Users/somebody/x\n".encode())
        phone.app._log.flush()
        (run / "journal.jsonl").write_text("".join(f'{{"n": {i}, "at": "{run}"}}\n' for i in range(40_000)))
        monkeypatch.setenv("BLOCKTIME_ADB_ADDRESSES", phone.serial)
        yield phone


def read(path: Path) -> dict[str, str]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def test_it_holds_what_is_needed_and_nothing_secret(pixel, places, tmp_path):
    done = bench("doctor", "--device", "pixel8", "--bundle", tmp_path / "report.zip")
    assert done.returncode == 0, done.stderr
    files = read(tmp_path / "report.zip")
    told = json.loads(files["device.json"])
    assert (told["hello"]["device"]["model"], told["unreachable"]) == ("Pixel 8", "")
    assert told["state"]["foreground"] is True
    assert json.loads(files["versions.json"])["executorch"]
    assert "took <token> of <serial 1> at ~/x" in files["device.log"]
    assert files["run/journal.jsonl"].startswith('{"n": 0, "at": "~/runs/pixel8-')
    assert files["run/journal.jsonl"].endswith('-1"}\n')
    for name, text in files.items():
        assert len(text.encode()) <= bug_report.MAX_FILE_BYTES, name
        for secret in (TOKEN, pixel.serial, "mister-secret", "somebody", pixel.app.token or TOKEN):
            assert secret not in text, name


def test_a_phone_that_is_not_there_is_no_obstacle(tmp_path):
    done = bench("doctor", "--device", "pixel8", "--bundle", tmp_path / "report.zip")
    assert done.returncode == 0
    assert "pixel8 was not asked: no Pixel 8 found" in done.stderr
    assert "no Pixel 8 found" in json.loads(read(tmp_path / "report.zip")["device.json"])["unreachable"]


def test_a_bundle_is_of_a_device(tmp_path):
    assert bench("doctor", "--bundle", tmp_path / "report.zip").returncode == 2

"""The bug report of `bench doctor --device pixel8 --bundle F.zip`."""

import json
import zipfile
from pathlib import Path

import pytest

from orchestrator.tasks.doctor import MAX_FILE_BYTES
from tests.support.bench import bench
from tests.support.fake_android import FakeAndroid
from tests.support.phone_apps import ThreadApp
from tests.support.simulated_phone import SimulatedAgents

TOKEN = "0123456789abcdef" * 2


@pytest.fixture
def pixel(home, server):
    """A Pixel 8 whose log holds secrets, and a run on it."""
    agents = SimulatedAgents("executorch", "Pixel 8", home / "store")
    phone = FakeAndroid(ThreadApp(home / "unused", agents.start), apk=b"an app")
    phone.log += f"took {TOKEN} of {phone.serial} at /Users/somebody/x\n"
    server.phones.append(phone)
    run = home / "runs" / "pixel8-autovit-xxs-executorch-xnnpack-fp32-t4-00000000-1"
    run.mkdir(parents=True)
    (run / "journal.jsonl").write_text("".join(f'{{"n": {i}, "at": "{run}"}}\n' for i in range(40_000)))
    return phone


def read(path: Path) -> dict[str, str]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def test_it_holds_what_is_needed_and_no_secret(pixel, home, tmp_path):
    done = bench("doctor", "--device", "pixel8", "--bundle", tmp_path / "report.zip")
    assert done.returncode == 0, done.stderr
    files = read(tmp_path / "report.zip")
    device = json.loads(files["device.json"])
    assert (device["hello"]["device"]["model"], device["unreachable"]) == ("Pixel 8", "")
    assert device["state"]["foreground"] is True
    assert json.loads(files["versions.json"])["executorch"]
    assert "took <token> of <serial 1> at ~/x" in files["device.log"]
    assert files["run/journal.jsonl"].startswith('{"n": 0, "at": "~/runs/pixel8-')
    assert files["run/journal.jsonl"].endswith('-1"}\n')
    for name, text in files.items():
        assert len(text.encode()) <= MAX_FILE_BYTES, name
        for secret in (TOKEN, pixel.serial, "mister-secret", "somebody"):
            assert secret not in text, name


def test_a_phone_that_is_not_attached_is_reported(home, server, tmp_path):
    done = bench("doctor", "--device", "pixel8", "--bundle", tmp_path / "report.zip")
    assert done.returncode == 0
    assert "pixel8 did not answer: no Pixel 8 found" in done.stderr
    assert "no Pixel 8 found" in json.loads(read(tmp_path / "report.zip")["device.json"])["unreachable"]


def test_a_bundle_needs_a_device(tmp_path):
    assert bench("doctor", "--bundle", tmp_path / "report.zip").returncode == 2

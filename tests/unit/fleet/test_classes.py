"""The option --devices of `bench fleet`."""

import json

import pytest

from orchestrator.fleet.units import DeviceClass, parse_classes
from tests.support.bench import bench
from tests.support.errors import raises


def test_classes_and_their_units():
    assert parse_classes("pixel8=3, iphone13") == (DeviceClass("pixel8", 3), DeviceClass("iphone13", 1))
    kotlin, noisy = parse_classes("host:kotlin,simulated:noisy=2")
    assert (kotlin.device, kotlin.agent, noisy.device, noisy.agent) == (
        "host",
        "kotlin",
        "simulated:noisy",
        "python",
    )


def test_file_of_classes(tmp_path):
    path = tmp_path / "fleet.json"
    path.write_text(json.dumps({"pixel8": 2, "rack": ["10.0.0.4:5555", "R5CT"]}))
    pixels, rack = parse_classes(str(path))
    assert pixels == DeviceClass("pixel8", 2)
    assert rack == DeviceClass("rack", 2, ("10.0.0.4:5555", "R5CT"))
    assert rack.device == "10.0.0.4:5555"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "bad_devices"),
        ("pixel8=0", "bad_devices"),
        ("pixel8=x", "bad_devices"),
        ("pixel8,pixel8=2", "bad_devices"),
        ("host=2", "bad_devices"),
        ("simulated:none=2", "unknown_scenario"),
        ("Pixel-?=2", "unknown_device"),
        ("gone.json", "unreadable_file"),
    ],
)
def test_refused_classes(text, code):
    with raises(code) as caught:
        parse_classes(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("[]", "invalid_file"),
        ('{"pixel8": 0}', "invalid_file"),
        ('{"pixel8": []}', "bad_devices"),
        ('{"pixel8": ["a", "a"]}', "bad_devices"),
        ("{", "invalid_file"),
    ],
)
def test_refused_files(tmp_path, content, code):
    path = tmp_path / "fleet.json"
    path.write_text(content)
    with raises(code):
        parse_classes(str(path))


def test_fleet_command_checks_classes_first():
    done = bench("fleet", "--devices", "pixle8=2")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "unknown device 'pixle8'" in done.stderr
    done = bench("fleet", "--devices", "host:cobol")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr

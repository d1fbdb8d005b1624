"""What --devices may say."""

import json

import pytest

from luts.format.errors import BlocktimeError, InvalidArtifactError, UsageError
from orchestrator.fleet.units import DeviceClass, parse_classes
from orchestrator.wire.errors import DeviceError
from tests.support.bench import bench


def test_classes_and_their_units():
    assert parse_classes("pixel8=3, iphone13") == (DeviceClass("pixel8", 3), DeviceClass("iphone13", 1))
    kotlin, noisy = parse_classes("host:kotlin,simulated:noisy=2")
    assert (kotlin.device, kotlin.agent, noisy.device, noisy.agent) == (
        "host",
        "kotlin",
        "simulated:noisy",
        "python",
    )


def test_a_file_names_units_by_serial_or_counts_them(tmp_path):
    path = tmp_path / "fleet.json"
    path.write_text(json.dumps({"pixel8": 2, "rack": ["10.0.0.4:5555", "R5CT"]}))
    pixels, rack = parse_classes(str(path))
    assert pixels == DeviceClass("pixel8", 2)
    assert rack == DeviceClass("rack", 2, ("10.0.0.4:5555", "R5CT"))
    assert rack.device == "10.0.0.4:5555"


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("", UsageError, "names no device"),
        ("pixel8=0", UsageError, "1 to 256 units"),
        ("pixel8=x", UsageError, "1 to 256 units"),
        ("pixel8,pixel8=2", UsageError, "a class twice"),
        ("host=2", UsageError, "a machine is one unit"),
        ("simulated:none=2", UsageError, "no scenario 'none'"),
        ("Pixel-?=2", DeviceError, "unknown device"),
        ("gone.json", InvalidArtifactError, "write pixel8=3,iphone13=1"),
    ],
)
def test_what_it_may_not_say_is_one_line_with_the_next_step(text, error, words):
    with pytest.raises(error, match=words) as caught:
        parse_classes(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["[]", '{"pixel8": 0}', '{"pixel8": []}', '{"pixel8": ["a", "a"]}', "{"])
def test_a_wrong_file_is_one_line(tmp_path, content):
    path = tmp_path / "fleet.json"
    path.write_text(content)
    with pytest.raises(BlocktimeError, match="pixel8") as caught:
        parse_classes(str(path))
    assert "\n" not in str(caught.value)


def test_the_command_says_what_is_wrong_before_it_starts_anything():
    done = bench("fleet", "--devices", "pixle8=2")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "unknown device 'pixle8'" in done.stderr
    done = bench("fleet", "--devices", "host:cobol")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr

"""The order of the suite: files that are there, longest first, all else as it was."""

from pathlib import Path

from tests.support.order import LONGEST_FIRST, longest_first

ROOT = Path(__file__).resolve().parents[2]


def test_every_file_of_it_is_there() -> None:
    assert [name for name in LONGEST_FIRST if not (ROOT / name).is_file()] == []
    assert len(set(LONGEST_FIRST)) == len(LONGEST_FIRST)


def test_others_come_after_them_as_they_were() -> None:
    first, second = LONGEST_FIRST[:2]
    tests = ["b.py::1", f"{second}::2", "a.py::3", f"{first}::4", "b.py::5", f"{second}::1"]
    assert longest_first(tests, lambda test: test.partition("::")[0]) == [
        f"{first}::4",
        f"{second}::2",
        f"{second}::1",
        "b.py::1",
        "a.py::3",
        "b.py::5",
    ]

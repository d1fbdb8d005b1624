"""The order of the suite: files that are there, longest first, all else as it was; and its last lines."""

import subprocess
import sys
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


def test_a_run_closes_with_what_was_skipped_and_why(tmp_path: Path) -> None:
    (tmp_path / "test_skips.py").write_text(
        "import pytest\n"
        "@pytest.mark.skipif(True, reason='no Swift')\n"
        "@pytest.mark.parametrize('number', [1, 2])\n"
        "def test_swift(number): pass\n"
        "def test_net(): pytest.skip('no network')\n"
        "def test_passes(): pass\n"
    )
    plain = ["-p", "no:cacheprovider", "-p", "tests.conftest", "--rootdir", str(tmp_path), "-n", "2"]
    command = [sys.executable, "-m", "pytest", *plain, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    *_, last, counts = done.stdout.splitlines()
    assert last == "skipped 3 tests (2: no Swift; 1: no network)"
    assert "1 passed, 3 skipped" in counts

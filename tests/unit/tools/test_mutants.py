"""The script that makes mistakes, in a tree of one function and its test."""

import subprocess
import sys
import tomllib
from typing import Any

import pytest

from luts.format.provenance import ROOT
from tools import mutants

LIST = """
[[mutant]]
file = "half.py"
old = "n // 2"
new = "n * 2"
tests = ["test_half.py"]

[[mutant]]
file = "half.py"
old = "n // 2"
new = "n / 2"
tests = ["test_half.py"]
"""


@pytest.fixture
def tree(tmp_path, monkeypatch):
    (tmp_path / "half.py").write_text("def half(n):\n    return n // 2\n")
    (tmp_path / "test_half.py").write_text(
        "from half import half\n\n\ndef test_half():\n    assert half(4) == 2\n"
    )
    (tmp_path / "list.toml").write_text(LIST)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mutants, "PRELOADED", ())
    monkeypatch.setattr(sys, "argv", ["mutants", "--list", "list.toml", "--results", "results.json"])
    return tmp_path


def test_killed_and_surviving_mistakes_are_counted_once(tree, monkeypatch, capsys):
    source = (tree / "half.py").read_text()
    mutants.main()
    first = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in first] == ["killed", "survived", "1"]
    assert first[-1] == "1 of 2 killed (50%)"
    assert (tree / "half.py").read_text() == source, "only the copy has mistakes"
    runs: list[Any] = []

    def passes(_: Any, tests: Any) -> bool:
        runs.append(tests)
        return True

    monkeypatch.setattr(mutants, "passes", passes)
    mutants.main()
    assert capsys.readouterr().out.splitlines() == first
    assert len(runs) == 1, "the tests without any mistake"


def test_a_mistake_that_is_not_in_its_file_is_named(tree):
    (tree / "list.toml").write_text(LIST.replace("n // 2", "n // 3"))
    with pytest.raises(SystemExit, match="half.py has 0 times 'n // 3'"):
        mutants.main()


def test_each_mistake_of_the_list_has_its_place_once():
    """Code moves on; a mistake that is nowhere would stop a run of hours."""
    listed = tomllib.loads((ROOT / "tools" / "mutants.toml").read_text())["mutant"]
    times = {(one["file"], one["old"]): (ROOT / one["file"]).read_text().count(one["old"]) for one in listed}
    assert {place: count for place, count in times.items() if count != 1} == {}

"""Outcomes are read again, so that a stopped soak resumes."""

from pathlib import Path

from tests.soak.__main__ import read_results, soak
from tests.soak.faults import Fault, Outcome


def test_a_stopped_soak_resumes_with_the_seeds_that_are_left(tmp_path: Path) -> None:
    ran: list[int] = []

    def run(seed: int, folder: Path) -> Outcome:
        ran.append(seed)
        return Outcome(tries=2, detail="seen")

    faults, path = [Fault("a", run, 3)], tmp_path / "soak.jsonl"
    soak(faults, 1.0, path)
    path.write_text(path.read_text() + '{"fault": "a", "se')
    first = read_results(path)
    assert first == {"a": dict.fromkeys(range(3), Outcome(tries=2, detail="seen"))}
    soak([Fault("a", run, 4)], 1.0, path)
    assert ran == [0, 1, 2, 3]

"""The benchmark of minutes to a LUT: time goes to what it was spent on, and a missed target is told first."""

from types import SimpleNamespace

import pytest

from luts.format.store import LutStore
from orchestrator.tasks.plan import PlanChoice
from orchestrator.tasks.profile import profile
from orchestrator.tasks.progress import Note, Step
from tests.support.simulated_profiles import alike
from tools.benchmarks.lut_minutes import EXPORTS, LUT, MEASURING, PLAN, Clock, inside, section

TOLD: dict[str, str | int] = {
    "source": "a/b/c",
    "space": "b",
    "fitted": 10,
    "heldout": 3,
    "cores": 2,
}


def test_time_goes_to_what_it_was_spent_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 1.0, 4.0, 6.0, 7.0, 20.0, 22.0])
    monkeypatch.setattr("tools.benchmarks.lut_minutes.time", SimpleNamespace(monotonic=lambda: next(now)))
    clock = Clock()
    clock(Note("14 models for 117 blocks of autovit-xxs"))
    clock(Step("exported 0123", 1, 14))
    clock(Note("14 of 14 models exported in 5 s"))
    clock(Note("run /somewhere"))
    clock(Step("pass 1", 1, 9))
    clock.add(LUT)
    assert clock.seconds == {PLAN: 1.0, EXPORTS: 6.0, MEASURING: 13.0, LUT: 2.0}


def test_a_missed_target_is_told_first() -> None:
    seconds = {PLAN: 1.0, EXPORTS: 60.0, MEASURING: 100.0, LUT: 2.0}
    assert "\nTarget missed: 5.1 minutes, of at most 5" in section(seconds, 306.0, TOLD)
    told = section(seconds, 170.0, TOLD)
    assert "\n2.8 minutes, of at most 5" in told
    assert "| exports | 60 |" in told


def test_a_profile_is_timed_as_a_user_runs_it(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("BLOCKTIME_RUNS", str(tmp_path / "runs"))
    choice = PlanChoice(design=8, heldout=3, removals="none")
    monkeypatch.setenv("BLOCKTIME_LUTS", str(tmp_path / "mine"))
    store = LutStore([tmp_path / "mine"])
    profile("autovit-nano", alike(tmp_path, 1, 1.0), choice, self_test=False, store=store)
    told = inside(tmp_path, alike(tmp_path, 2, 2.0), "simulated-alike1", 3)
    assert (told["fitted"], told["heldout"], told["space"]) == (3, 1, "autovit-nano")
    seconds = told["seconds"]
    assert isinstance(seconds, dict)
    assert {PLAN, MEASURING, LUT} <= seconds.keys()

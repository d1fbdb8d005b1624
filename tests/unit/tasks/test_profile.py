"""A profile where some models of its plan can't be exported, and what `--plan-only` says of one."""

from dataclasses import replace
from pathlib import Path

import pytest

from luts.format.store import LutStore
from luts.verify import verify_lut
from orchestrator.journal.runs import Run
from orchestrator.tasks import exported_plan
from orchestrator.tasks.models import exportable_files
from orchestrator.tasks.plan import PlanOptions, ProfileCommand, plan_profile
from orchestrator.tasks.profile import profile
from orchestrator.tasks.progress import Note
from orchestrator.tasks.target import Target
from tests.support.errors import raises

REASON = "xnnpack cannot lower this model: no operator aten.roll"


@pytest.fixture
def profiled(tmp_path, monkeypatch):
    """Profiles a simulated device; `refused` says which models, in order, can't be exported."""
    for name in ("BLOCKTIME_RUNS", "BLOCKTIME_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    messages = []

    def run(refused, **how):
        seen = []

        def exporting(variant, specs, workers, progress):
            seen.extend(specs)
            bad = {name: REASON for name in specs if refused(seen.index(name))}
            able = {name: spec for name, spec in specs.items() if name not in bad}
            files, lowered, _ = exportable_files(variant, able, workers, progress)
            return files, lowered, bad

        monkeypatch.setattr(exported_plan, "exportable_files", exporting)
        done = profile(
            ProfileCommand(
                space="autovit-nano",
                target=Target("simulated:quiet"),
                plan=PlanOptions(design=5, heldout=2, removals="none"),
                budget_s=0.1,
                store=LutStore([tmp_path / "luts"]),
                **how,
            ),
            messages.append,
        )
        return seen, done, [str(event) for event in messages if isinstance(event, Note)]

    return run


def test_models_that_cannot_be_exported_are_left_out_named_and_replaced(profiled) -> None:
    seen, done, messages = profiled(lambda index: index in (0, 2, 7))
    lut = verify_lut(done.path)
    assert lut.meta.failures == {seen[index]: REASON for index in (0, 2, 7)}
    assert lut.meta.reference_id == seen[1], "the plan's reference was the first that failed"
    measured = {model.model_id for model in lut.models}
    assert measured == set(seen) - lut.meta.failures.keys()
    assert [model.split for model in lut.models].count("heldout") == 2
    assert len(measured) == 8, "as many as were planned"
    assert f"{seen[2]} (design) is left out, it can't be exported: {REASON}" in messages
    assert f"{seen[7]} (heldout) is left out, it can't be exported: {REASON}" in messages
    assert "3 other models are taken instead" in messages


def test_where_nothing_can_be_exported_one_line_gives_the_first_reason(profiled) -> None:
    with raises("too_few_models"):
        profiled(lambda index: True)


def test_a_profile_killed_before_its_end_gives_the_same_version(profiled, tmp_path, monkeypatch) -> None:
    def killed(run, result):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Run, "finish", killed)
        profiled(lambda index: False)
    (written,) = LutStore([tmp_path / "luts"]).list()
    _, resumed, _ = profiled(lambda index: False)
    assert resumed.path == written.path
    assert LutStore([tmp_path / "luts"]).list() == [written]


def test_a_finished_run_at_another_pace_is_not_reused(profiled) -> None:
    def never(index: int) -> bool:
        return False

    _, plain, _ = profiled(never)
    _, paced, _ = profiled(never, pace_us=1000, reuse=True)
    _, again, _ = profiled(never, reuse=True)
    assert paced.lut.meta.policy["pace_us"] == 1000
    assert again.path == plain.path


def test_compiling_has_minutes_where_earlier_runs_saw_some(tmp_path: Path) -> None:
    plain = plan_profile(
        ProfileCommand(
            space="autovit-nano",
            target=Target("simulated"),
            plan=PlanOptions(models=12),
            store=LutStore([tmp_path]),
        )
    )
    assert "first loads" not in plain.facts()
    unknown = replace(plain, compiled=12).facts()["first loads"]
    assert unknown.startswith(
        "12 models are compiled for the neural engine on the device, once each: seconds to"
    )
    known = replace(plain, compiled=12, compile_s=480.0, first_loads=3).facts()["first loads"]
    assert known.endswith("about 8.0 minutes in addition to measuring, by 3 first loads of earlier runs")


@pytest.mark.parametrize(
    "option",
    [{"fresh": True}, {"reuse": True}, {"name": "phone"}, {"run_folder": Path("run")}],
)
def test_an_option_of_the_measurement_is_refused(option, tmp_path: Path) -> None:
    with raises("nothing_measured"):
        plan_profile(ProfileCommand(target=Target("simulated"), store=LutStore([tmp_path]), **option))

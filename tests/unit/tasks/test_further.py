"""Networks that a profile chooses while it measures, by the sources that fit, until predictions are narrow.

A resumed run chooses the same ones.
"""

from dataclasses import replace

import pytest

from luts.estimate.design import TYPICAL_DEVICE
from luts.format.errors import InvalidArtifactError
from luts.format.store import LutStore
from luts.verify import verify_lut
from orchestrator.export.artifacts.spec import Variant
from orchestrator.journal.log import read_log
from orchestrator.journal.records import ChoiceRecord, ChosenModel
from orchestrator.plan.build import SEED_NETWORKS, make_plan, next_networks, seed_design
from orchestrator.tasks.exported_plan import ExportedPlan, GrowingPlan
from orchestrator.tasks.plan import PlanOptions, ProfileCommand
from orchestrator.tasks.profile import profile
from orchestrator.tasks.target import Target
from search.spaces import get_space
from tests.support.errors import raises
from tests.support.simulated_profiles import alike

PLAN = make_plan(get_space("autovit-nano"), design=9, heldout=3, removals="none")


class InterruptedRunError(Exception):
    """The run is cut off here."""


def choices(run) -> list[ChoiceRecord]:
    return [record for record in read_log(run / "journal.jsonl") if isinstance(record, ChoiceRecord)]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A LUT to learn from."""
    folder = tmp_path_factory.mktemp("source")
    store = LutStore([folder / "luts"])
    profile(
        ProfileCommand(
            space="autovit-nano",
            target=Target(alike(folder, 1, 1.0)),
            plan=PlanOptions(design=10, heldout=2, removals="none"),
            self_test=False,
            store=store,
            budget_s=0.1,
            run_folder=folder / "run",
        )
    )
    return store


@pytest.fixture
def world(store, tmp_path):
    """How another device is profiled with it."""

    def run(folder, narrow, progress=lambda _: None):
        command = ProfileCommand(
            space="autovit-nano",
            target=Target(alike(tmp_path, 2, 3.0)),
            plan=PlanOptions(design=9, heldout=3, removals="none"),
            sources="simulated-alike1",
            narrow=narrow,
            self_test=False,
            store=store,
            run_folder=tmp_path / folder,
        )
        return profile(command, progress)

    return run


def test_networks_are_chosen_until_the_plan_is_full_and_a_run_cut_off_takes_the_same(world, tmp_path) -> None:
    done = world("whole", 1e-6)
    chosen = [one.model for choice in choices(tmp_path / "whole") for one in choice.models]
    assert len(chosen) == len(set(chosen)) == 9 - SEED_NETWORKS
    assert all("by simulated-alike1/" in choice.reason for choice in choices(tmp_path / "whole"))
    roles = {model.model_id: (model.role, model.split) for model in done.lut.models}
    assert {roles[model] for model in chosen} == {("design", "fit")}
    assert len(roles) == 1 + 9 + 3
    assert {model.loads for model in done.lut.models if model.model_id in chosen} <= {3, 4, 5, 6, 7, 8}
    assert verify_lut(done.path) == done.lut

    def cut(event) -> None:
        if "pass 5" in str(event):
            raise InterruptedRunError

    with pytest.raises(InterruptedRunError):
        world("cut", 1e-6, cut)
    before = choices(tmp_path / "cut")
    assert before, "cut off after networks were chosen"
    again = world("cut", 1e-6)
    assert choices(tmp_path / "cut")[: len(before)] == before
    assert {model.model_id for model in again.lut.models} >= {one.model for c in before for one in c.models}
    assert len(again.lut.models) == 1 + 9 + 3


def test_none_is_chosen_once_predictions_are_narrow(world, tmp_path) -> None:
    done = world("narrow", 0.9)
    assert choices(tmp_path / "narrow") == []
    assert len(done.lut.models) == 1 + SEED_NETWORKS + 3


def test_what_is_chosen_is_new_and_never_held_out() -> None:
    at_first, room = seed_design(PLAN)
    assert room == 9 - SEED_NETWORKS
    assert [model.role for model in at_first.models].count("design") == SEED_NETWORKS
    assert seed_design(at_first) == (at_first, 0)
    networks = next_networks(at_first, TYPICAL_DEVICE, (), 5)
    assert len({model.model_id for model in networks} | {model.model_id for model in at_first.models}) == (
        5 + len(at_first.models)
    )
    assert networks == next_networks(at_first, TYPICAL_DEVICE, (), 5)


def test_a_journal_can_not_bring_in_a_held_out_or_a_foreign_network() -> None:
    at_first, room = seed_design(PLAN)
    files = {model.model_id: None for model in at_first.models}
    growing = GrowingPlan(
        ExportedPlan(at_first, files),
        room,
        Variant("simulated", "", threads=1),
        TYPICAL_DEVICE,
        1,
        print,
    )
    heldout = next(model for model in at_first.models if model.role == "heldout")
    for wrong in (heldout, replace(heldout, model_id="0" * 12)):
        one = ChosenModel(model=wrong.model_id, arch=wrong.arch, artifact="0" * 64)
        with raises("bad_choice", InvalidArtifactError):
            growing.take(ChoiceRecord(pass_index=3, models=[one], reason=""))


def test_a_plan_of_no_networks_is_one_line(store, tmp_path) -> None:
    command = ProfileCommand(
        space="autovit-nano",
        target=Target(alike(tmp_path, 2, 3.0)),
        plan=PlanOptions(design=0, heldout=0, removals="none"),
        sources="simulated-alike1",
        store=store,
        run_folder=tmp_path / "run",
    )
    with raises("small_plan"):
        profile(command)

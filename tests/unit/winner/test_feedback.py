"""Measurements of a search's best in the next version of the LUT, and when they have no place there."""

import dataclasses

import pytest

from luts.format.schema import LutInputs
from luts.format.store import LutStore
from luts.verify import verify_lut
from orchestrator.journal.log import Journal
from orchestrator.journal.records import DecisionRecord
from orchestrator.plan.plan import Policy, model_id
from orchestrator.winner.feedback import with_feedback
from tests.support.errors import raises
from tests.support.winner_world import fresh_archs, make_lut, true_ms, write_journal

DIGEST = "ab" * 32


@pytest.fixture(scope="module")
def archs():
    return fresh_archs(3)


@pytest.fixture(scope="module")
def extended(archs, tmp_path_factory):
    journal = write_journal(tmp_path_factory.mktemp("run") / "journal.jsonl", archs)
    return with_feedback(make_lut(), DIGEST, journal, "reference", archs)


def test_the_next_version_verifies_and_names_its_origin(extended, tmp_path):
    path = LutStore([tmp_path]).write(extended)
    assert verify_lut(path).meta == extended.meta
    before = make_lut().meta
    assert extended.meta.policy == {**before.policy, "fed_from": DIGEST}
    assert extended.meta.created == "2026-02-03T04:05:06+00:00"
    assert (extended.meta.caveats, extended.meta.qos) == (("power_save",), ("utility",))
    same = set(LutInputs.model_fields) - {"policy", "created", "caveats", "qos"}
    assert all(getattr(extended.meta, name) == getattr(before, name) for name in same)


def test_new_models_are_fitted_rows_with_their_own_samples(extended, archs):
    before = {model.model_id: model for model in make_lut().models}
    after = {model.model_id: model for model in extended.models}
    assert after.keys() - before.keys() == {model_id(arch.keys()) for arch in archs}
    for arch in archs:
        row = after[model_id(arch.keys())]
        assert (row.role, row.split, row.arch, row.loads) == ("design", "fit", arch.to_json(), 3)
        assert row.ms / extended.meta.reference_ms == pytest.approx(
            true_ms(arch.keys()) / true_ms(after[extended.meta.reference_id].blocks), rel=0.01
        )
    old, new = make_lut().samples, extended.samples
    assert new.num_rows == old.num_rows + 3 * 20 * (2 + len(archs))
    last = max(old.column("batch").to_pylist())
    assert sorted(set(new.column("batch").to_pylist()) - set(old.column("batch").to_pylist())) == [
        last + 1,
        last + 2,
        last + 3,
    ]
    assert {entry.key for entry in extended.entries} == {entry.key for entry in make_lut().entries}


def test_held_out_models_stay_held_out(extended):
    def heldout(lut):
        return {model.model_id for model in lut.models if model.split == "heldout"}

    assert heldout(extended) == heldout(make_lut())
    assert extended.meta.heldout_error.models == make_lut().meta.heldout_error.models


def test_only_new_models_are_added(extended, archs, tmp_path):
    further = fresh_archs(5)
    twice = with_feedback(extended, DIGEST, write_journal(tmp_path / "j", further), "reference", further)
    assert len(twice.models) == len(extended.models) + 2
    with raises("nothing_to_feed_back"):
        with_feedback(extended, DIGEST, write_journal(tmp_path / "k", archs), "reference", archs)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"device_model": "Other 1"}, "device"),
        ({"soc": "Other"}, "SoC"),
        ({"os": "Other"}, "OS"),
        ({"os_build": "Other"}, "OS build"),
        ({"agent": "blocktime-host 2"}, "agent"),
        ({"runtime": "executorch 9"}, "runtime"),
        ({"variant": "executorch-xnnpack-fp32-t1"}, "variant"),
        ({"fixed_performance": True}, "fixed performance mode"),
        ({"policy": {"warmup": 1}}, "policy"),
        ({"artifacts": {"reference": "f" * 64}}, "reference's bytes"),
        ({"simulated": False}, "kind of numbers"),
    ],
)
def test_measurements_under_other_conditions_are_refused(archs, tmp_path, changes, words):
    journal = write_journal(tmp_path / "journal.jsonl", archs, **changes)
    with raises("other_conditions") as caught:
        with_feedback(make_lut(), DIGEST, journal, "reference", archs)
    assert f"other {words}" in str(caught.value)


def test_another_end_of_the_profile_is_accepted(archs, tmp_path):
    """`bench profile --narrow` decides when measuring ends, not how it is done."""
    policy = Policy(heldout_half_width=0.03).to_dict()
    journal = write_journal(tmp_path / "journal.jsonl", archs, policy=policy)
    assert with_feedback(make_lut(), DIGEST, journal, "reference", archs).meta.policy["fed_from"] == DIGEST


def test_self_test_decisions_may_differ(archs, tmp_path):
    """Both measurements ran a self-test, which decides the settle runs; without one the policies must agree."""
    lut = make_lut()
    tested = lut.meta.model_copy(update={"policy": {**lut.meta.policy, "company": "one settles"}})
    path = write_journal(tmp_path / "journal.jsonl", archs)
    with Journal(path) as journal:
        journal.append(DecisionRecord(settle_runs=2, batch_models=1, reason="two settle").model_dump())
    fed = with_feedback(dataclasses.replace(lut, meta=tested), DIGEST, path, "reference", archs)
    assert fed.meta.policy["settle_runs"] == Policy().settle_runs
    with raises("other_conditions"):
        with_feedback(lut, DIGEST, path, "reference", archs)

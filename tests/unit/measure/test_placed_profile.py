"""From placements and states in a journal to the LUT that says so."""

import pytest
from fakes import QUIET, FakeClient, FakeDevice

from luts.store import LutStore
from luts.verify import verify_lut
from orchestrator.cli.lut import show_command
from orchestrator.export import Artifact, ArtifactCache, ExportSpec
from orchestrator.export.artifact import Report
from orchestrator.measure.conditions import described
from orchestrator.measure.log import placements, read_log
from orchestrator.measure.plan import make_plan
from orchestrator.measure.policy import Policy
from orchestrator.measure.profile import lut_of, subject_of
from orchestrator.measure.records import PlacementRecord
from orchestrator.measure.runs import Run
from orchestrator.measure.session import measure
from orchestrator.variant import Variant
from orchestrator.wire.messages import PlacedOperation, Placement
from search.spaces import get_space

POLICY = Policy(batch_models=12, min_rounds=10, max_rounds=10, min_passes=1, max_passes=1, cooling_s=0.0)
PLAN = make_plan(get_space("autovit-nano"), design=2, heldout=2, removals="reference", seed=1)
REMOVALS = [model for model in PLAN.models if model.role == "removal"]
WARM = QUIET | {"qos": "user_interactive", "keep_warm": True, "caveats": ["low_battery"]}


class PlacingClient(FakeClient):
    def load(self, sha256, runtime, options=None):
        loaded = super().load(sha256, runtime, options)
        operations = self.device.placed.get(sha256)
        if operations is not None:
            counts = {
                unit: [u for _, u in operations].count(unit) for unit in ("cpu", "gpu", "neural_engine")
            }
            listed = [
                PlacedOperation(name=f"{kind}_{i}", type=kind, unit=unit)
                for i, (kind, unit) in enumerate(operations)
            ]
            object.__setattr__(loaded, "placement", Placement(**counts, operations=listed))
        return loaded


class PlacingDevice(FakeDevice):
    """`placed`: operations by sha256."""

    def connect(self):
        self.agent_starts += self.agent_dead
        self.agent_dead = False
        return PlacingClient(self)


def artifacts(cache):
    report = Report(
        delegates=1, operators=(), max_abs_error=None, max_relative_error=None, tolerance=1, export_s=1
    )

    def one(model) -> Artifact:
        def write(path):
            path.write_text(model.model_id)
            return report

        return cache.put(ExportSpec(model.blocks), write)

    return {model.model_id: one(model) for model in PLAN.models}


def profile(tmp_path, placed_of, states=None):
    """A LUT of the plan on a fake device; `placed_of` gives a model's operations."""
    made = artifacts(ArtifactCache(tmp_path / "cache"))
    device = PlacingDevice(
        {a.sha256: 1.0 + len(m.blocks) / 10 for m, a in zip(PLAN.models, made.values(), strict=True)}
    )
    device.placed = {made[model.model_id].sha256: placed_of(model) for model in PLAN.models}
    device.states = states
    run = Run(tmp_path / "run")
    subject = subject_of(PLAN, made)
    variant = Variant("executorch", "xnnpack", "fp32", 1)
    measurement = measure(device, variant, subject, run.journal, POLICY, budget_s=0, progress=lambda *_: None)
    return lut_of(PLAN, made, measurement, run, "fake"), run


def stays(model):
    return [(block.split("(")[0], "neural_engine") for block in model.blocks]


def test_a_removal_that_moves_others_is_flagged_and_not_fitted(tmp_path, capsys):
    culprit = REMOVALS[0]

    def placed(model):
        return [(kind, "cpu" if model is culprit else unit) for kind, unit in stays(model)]

    lut, run = profile(tmp_path, placed)
    entries = {entry.key: entry for entry in lut.entries}
    assert entries[culprit.removed_key].moved == len(culprit.blocks)
    assert entries[culprit.removed_key].removal_ms is not None
    assert {entries[model.removed_key].moved for model in REMOVALS[1:]} == {0}
    assert {entry.moved for entry in lut.entries if entry.removal_ms is None} == {None}
    assert [model.model_id for model in lut.models if model.split == "fit" and not model.fitted] == [
        culprit.model_id
    ]
    records = read_log(run.journal)
    assert len(placements(records)) == len(PLAN.models)
    assert sum(isinstance(record, PlacementRecord) for record in records) == len(PLAN.models)
    path = LutStore([tmp_path / "luts"]).write(lut)
    assert verify_lut(path) == lut
    show_command(str(path))
    shown = capsys.readouterr().out
    assert "1 removals left out that moved operations" in shown
    assert "1 removals moved operations of other blocks to another compute unit" in shown


@pytest.mark.parametrize("told", [True, False])
def test_placements_that_agree_or_are_unknown_change_no_number(tmp_path, told):
    lut, _ = profile(tmp_path / "told", stays if told else lambda model: None)
    plain, _ = profile(tmp_path / "plain", lambda model: None)
    assert [entry.model_copy(update={"moved": None}) for entry in lut.entries] == list(plain.entries)
    assert {entry.moved for entry in lut.entries} == ({0, None} if told else {None})


def test_what_the_device_was_told_to_ignore_stands_in_the_lut(tmp_path):
    lut, _ = profile(tmp_path, stays, [WARM] * 10_000)
    assert (lut.meta.caveats, lut.meta.qos, lut.meta.keep_warm) == (
        ("low_battery",),
        ("user_interactive",),
        "on",
    )
    assert described(lut.meta) == {
        "measured although": "low battery",
        "QoS class": "user_interactive",
        "keep-warm load": "on",
    }
    quiet, _ = profile(tmp_path / "quiet", stays)
    assert described(quiet.meta) == {}


def test_only_kept_batches_count(tmp_path):
    hot = WARM | {"thermal_state": "critical", "keep_warm": False}
    lut, _ = profile(tmp_path, stays, [hot, hot] + [WARM] * 10_000)
    assert lut.meta.keep_warm == "on"

"""From placements and states in a journal to the LUT that says so."""

import pytest
from typer.testing import CliRunner

from luts.format.store import LutStore
from luts.verify import verify_lut
from orchestrator.cli.main import app
from orchestrator.export import ArtifactCache, ExportSpec
from orchestrator.export.artifacts.artifact import Report
from orchestrator.journal.conditions import describe_conditions
from orchestrator.journal.log import placements, read_log
from orchestrator.journal.records import PlacementRecord
from orchestrator.journal.runs import Run
from orchestrator.plan.build import make_plan
from orchestrator.plan.plan import Policy
from orchestrator.tasks.exported_plan import ExportedPlan
from orchestrator.wire.client import ModelFile
from orchestrator.wire.messages import PlacedOperation, Placement
from search.spaces import get_space
from tests.support.fake_device import QUIET, FakeClient, FakeDevice
from tests.support.fake_device import run as measure_on

POLICY = Policy(batch_models=12, min_rounds=10, max_rounds=10, min_passes=1, max_passes=1, cooling_s=0.0)
PLAN = make_plan(get_space("autovit-nano"), design=2, heldout=2, removals="reference", seed=1)
REMOVALS = [model for model in PLAN.models if model.role == "removal"]
WARM = QUIET | {
    "qos": "user_interactive",
    "keep_warm": True,
    "sustained_performance": True,
    "caveats": ["low_battery"],
    "cores": "4-8",
}


class PlacingClient(FakeClient):
    def load(self, sha256, runtime, options=None, waited=None):
        loaded = super().load(sha256, runtime, options)
        loaded = loaded.model_copy(update={"input_buffers": self.device.input_buffers})
        operations = self.device.placed.get(sha256)
        if operations is not None:
            counts = {
                unit: [u for _, u in operations].count(unit) for unit in ("cpu", "gpu", "neural_engine")
            }
            listed = [
                PlacedOperation(name=f"{kind}_{i}", type=kind, unit=unit)
                for i, (kind, unit) in enumerate(operations)
            ]
            placement = Placement(**counts, operations=listed)
            return loaded.model_copy(update={"placement": placement})
        return loaded


class PlacingDevice(FakeDevice):
    placed: dict[str, list[tuple[str, str]]]
    """Operations by sha256."""
    input_buffers: str | None = None

    def connect(self):
        self.agent_starts += self.agent_dead
        self.agent_dead = False
        return PlacingClient(self)


def files(cache):
    report = Report(
        delegates=1, operators=(), max_abs_error=None, max_relative_error=None, tolerance=1, export_s=1
    )

    def one(model) -> ModelFile:
        def write(path):
            path.write_text(model.model_id)
            return report

        artifact = cache.put(ExportSpec(model.blocks), write)
        return ModelFile(artifact.path, artifact.sha256)

    return {model.model_id: one(model) for model in PLAN.models}


def profile(tmp_path, placed_of, states=None):
    """A LUT of the plan on a fake device; `placed_of` gives a model's operations."""
    made = files(ArtifactCache(tmp_path / "cache"))
    device = PlacingDevice(
        {a.sha256: 1.0 + len(m.blocks) / 10 for m, a in zip(PLAN.models, made.values(), strict=True)}
    )
    device.placed = {made[model.model_id].sha256: placed_of(model) for model in PLAN.models}
    device.states = states
    run = Run(tmp_path / "run")
    exported = ExportedPlan(PLAN, made)
    measurement = measure_on(run.folder, device, POLICY, budget_s=0, models=exported.model_set)
    return exported.lut(measurement, "fake"), run


def stays(model):
    return [(block.split("(")[0], "neural_engine") for block in model.blocks]


def test_migrating_removal_is_flagged(tmp_path):
    culprit = REMOVALS[0]

    def placed(model):
        return [(kind, "cpu" if model is culprit else unit) for kind, unit in stays(model)]

    lut, run = profile(tmp_path, placed)
    entries = {entry.key: entry for entry in lut.entries}
    assert entries[culprit.removed_key].migrated_operations == len(culprit.blocks)
    assert entries[culprit.removed_key].removal_ms is not None
    assert {entries[model.removed_key].migrated_operations for model in REMOVALS[1:]} == {0}
    assert {entry.migrated_operations for entry in lut.entries if entry.removal_ms is None} == {None}
    assert [model.model_id for model in lut.models if model.split == "fit" and not model.fitted] == [
        culprit.model_id
    ]
    records = read_log(run.journal)
    assert len(placements(records)) == len(PLAN.models)
    assert sum(isinstance(record, PlacementRecord) for record in records) == len(PLAN.models)
    path = LutStore([tmp_path / "luts"]).write(lut)
    assert verify_lut(path) == lut
    shown = CliRunner().invoke(app, ["lut", "show", str(path)], catch_exceptions=False).output
    assert "1 removals left out because other operations moved" in shown
    assert "1 removals moved operations of other blocks to another compute unit" in shown


@pytest.mark.parametrize("expected", [True, False])
def test_equal_placements_change_nothing(tmp_path, expected):
    lut, _ = profile(tmp_path / "expected", stays if expected else lambda model: None)
    plain, _ = profile(tmp_path / "plain", lambda model: None)
    assert [entry.model_copy(update={"migrated_operations": None}) for entry in lut.entries] == list(
        plain.entries
    )
    assert {entry.migrated_operations for entry in lut.entries} == ({0, None} if expected else {None})


def test_conditions_are_in_the_lut(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(PlacingDevice, "input_buffers", "iosurface")
        patch.setattr(FakeDevice, "fixed_performance", True)
        lut, _ = profile(tmp_path, stays, [WARM] * 10_000)
    meta = lut.meta
    assert (meta.caveats, meta.qos, meta.cores) == (("low_battery",), ("user_interactive",), ("4-8",))
    assert (meta.keep_warm, meta.sustained_performance) == ("on", "on")
    assert (meta.input_buffers, meta.fixed_performance) == (("iosurface",), True)
    assert describe_conditions(meta) == {
        "measured despite": "low battery",
        "QoS class": "user_interactive",
        "cores that ran": "4-8",
        "input buffers": "iosurface",
        "keep-warm load": "on",
        "fixed performance": "on",
        "sustained performance": "on",
    }
    quiet, _ = profile(tmp_path / "quiet", stays)
    assert describe_conditions(quiet.meta) == {}
    assert (quiet.meta.fixed_performance, quiet.meta.sustained_performance) == (False, None)


def test_only_kept_batches_count(tmp_path):
    hot = WARM | {"thermal_state": "critical", "keep_warm": False}
    lut, _ = profile(tmp_path, stays, [hot, hot] + [WARM] * 10_000)
    assert lut.meta.keep_warm == "on"

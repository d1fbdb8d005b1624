"""Networks measured side by side: which is the reference, what is left out, how they were lowered."""

import hashlib
from pathlib import Path

import pytest

from luts.format.errors import InvalidArtifactError
from orchestrator.export import Artifact, ExportFailure
from orchestrator.export.artifacts.artifact import Report, pack
from orchestrator.measure.readiness import ReferenceFailedError
from orchestrator.plan.plan import Policy
from orchestrator.tasks import models, target
from orchestrator.tasks.measure import MeasureCommand, measure_networks, parse_batches
from orchestrator.tasks.networks import by_name
from orchestrator.tasks.progress import Note, silent
from tests.support.errors import raises
from tests.support.fake_device import POLICY, FakeClient, FakeDevice

NAMES = ["autovit-xxs-paper", "mobilevit-xs", "autovit-xs-paper", "mobilevit-xxs"]
OUTSIDE = {"aten.mean.dim": 2, "aten.native_layer_norm.default": 9}


class World:
    """Networks exported to files that a fake device runs, each in its own milliseconds."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.unexportable: set[str] = set()
        self.plain = ""
        self.device = FakeDevice({})

    def sha256(self, name: str, batch: int = 1) -> str:
        return f"{NAMES.index(name) + 100 * (batch - 1):064x}"

    def export(self, specs, *, workers=None, progress=None):
        keys = {network(name).keys(): name for name in NAMES}
        results = [self._exported(spec, keys[spec.blocks]) for spec in specs]
        for count, result in enumerate(results):
            progress(count + 1, len(results), result)
        return results

    def _exported(self, spec, name):
        if name in self.unexportable:
            return ExportFailure(spec, "xnnpack cannot lower this model: aten.roll")
        self.device.true_ms[self.sha256(name, spec.batch)] = (1.0 + NAMES.index(name)) * spec.batch**0.5
        report = Report(
            delegates=3,
            operators=tuple(OUTSIDE.items()),
            max_abs_error=0,
            max_relative_error=0,
            tolerance=1,
            export_s=1,
        )
        if name == self.plain:
            report = report.model_copy(update={"made": "plain", "plain_because": "it differs by 1.3"})
        return Artifact(
            path=self.folder / "model.pte",
            sha256=self.sha256(name, spec.batch),
            payload_bytes=1,
            spec=spec,
            cache_key=spec.cache_key,
            report=report,
        )


def network(name):
    return by_name(name)[name]


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setenv("BLOCKTIME_RUNS", str(tmp_path / "runs"))
    made = World(tmp_path)
    monkeypatch.setattr(models, "export_each", made.export)
    monkeypatch.setattr(target, "resolve", lambda *_: made.device)
    monkeypatch.setattr(target, "kind_of", lambda *_: "host")
    monkeypatch.setattr(Policy, "of", classmethod(lambda *_: POLICY))
    return made


def measured(names=NAMES, budget_s=1e9, progress=silent, **options):
    device = target.Target("fake", runtime="executorch")
    return measure_networks(
        MeasureCommand(networks=names, target=device, budget_s=budget_s, **options), progress
    )


def test_what_can_not_be_exported_is_left_out_and_named(world) -> None:
    world.unexportable = {NAMES[0], NAMES[2]}
    result = measured()
    assert [row.model for row in result.networks] == [NAMES[1], NAMES[3]]
    assert result.reference == NAMES[1]
    assert result.failures == dict.fromkeys(
        [NAMES[0], NAMES[2]], "xnnpack cannot lower this model: aten.roll"
    )
    assert result.networks[1].ratio == pytest.approx(4 / 2, rel=0.02)
    assert result.to_dict()["failures"] == result.failures
    messages = result.networks[1].percentiles
    assert messages.calls == result.networks[1].rounds
    assert 4.0 / 1.3 < messages.p50.ms < 4.0 * 1.3
    assert result.to_dict()["models"][1]["p50_ms"] == messages.p50.ms
    assert messages.calls >= 368
    assert messages.p99 is not None
    assert result.to_dict()["models"][1]["p99_ms"] == messages.p99.ms


def test_each_network_is_measured_at_every_batch_size(world) -> None:
    """The fake device takes sqrt(batch) times as long: 4 and 6 ms for 4 images of the networks of 2 and 3 ms."""
    result = measured(NAMES[1:3], batches=(1, 4))
    rows = {(row.model, row.batch): row for row in result.networks}
    assert list(rows) == [(NAMES[1], 1), (NAMES[2], 1), (NAMES[1], 4), (NAMES[2], 4)]
    slow = rows[NAMES[2], 4]
    assert slow.ratio == pytest.approx(3 * 2 / 2, rel=0.02)
    per_s, low, high = slow.images_s
    assert per_s == pytest.approx(4e3 / slow.ms)
    assert low == pytest.approx(4e3 / slow.ci_high)
    assert low < per_s < high
    assert slow.params == rows[NAMES[2], 1].params
    assert slow.conv_linear_macs == rows[NAMES[2], 1].conv_linear_macs
    written = result.to_dict()["models"][3]
    assert (written["model"], written["batch"], written["images_s"]) == (
        NAMES[2],
        4,
        per_s,
    )


def test_a_file_and_a_simulated_device_have_no_other_batch(world, exported) -> None:
    with raises("fixed_batch"):
        measured(NAMES[:1], files=[exported.path], batches=(1, 8))
    with raises("fixed_batch"):
        measure_networks(MeasureCommand(networks=NAMES[:1], target=target.Target("simulated"), batches=(8,)))


def test_batches_as_people_write_them() -> None:
    assert parse_batches("32,1,8,8") == (1, 8, 32)
    for text in ("0", "1,x", "257", "1.5", "-1"):
        with raises("bad_batch"):
            parse_batches(text)


def test_without_time_there_are_the_calls_that_the_passes_gave(world) -> None:
    result = measured(NAMES[:2], budget_s=0)
    assert [(row.percentiles.calls < 368, row.percentiles.p99) for row in result.networks] == 2 * [
        (True, None)
    ]


def test_the_next_network_is_the_reference_where_the_device_refuses_the_first(world) -> None:
    world.device.refused = {world.sha256(NAMES[0]), world.sha256(NAMES[2])}
    messages: list[str] = []
    result = measured(progress=lambda event: messages.append(str(event)) if isinstance(event, Note) else None)
    assert [row.model for row in result.networks] == [NAMES[1], NAMES[3]]
    assert (result.reference, result.to_dict()["reference"]) == (NAMES[1], NAMES[1])
    assert set(result.failures) == {NAMES[0], NAMES[2]}
    assert any(NAMES[0] in line and "the next network is the reference" in line for line in messages)


def test_nothing_left_to_measure(world) -> None:
    world.unexportable = set(NAMES)
    with raises("nothing_exported"):
        measured()
    world.unexportable = set()
    world.device.refused = {world.sha256(name) for name in NAMES}
    with pytest.raises(ReferenceFailedError, match="can't be measured on fake"):
        measured()


def test_a_network_that_there_is_not_ends_all_before_anything_is_measured(world, monkeypatch) -> None:
    def one_unknown(specs, progress, **how):
        results = world.export(specs[:-1], progress=progress, **how)
        missing = ExportFailure(specs[-1], "unknown timm model 'x'; did you mean y?", unknown=True)
        progress(len(specs), len(specs), missing)
        return [*results, missing]

    monkeypatch.setattr(models, "export_each", one_unknown)
    with raises("unknown_model"):
        measured([*NAMES[:2], "timm:x"])
    assert world.device.loads == []


def test_how_each_was_lowered_is_reported(world, exported) -> None:
    world.plain = NAMES[1]
    world.device.true_ms[exported.sha256] = 9.0
    messages: list[str] = []
    result = measured(NAMES[:2], files=[exported.path], progress=lambda event: messages.append(str(event)))
    assert [(row.delegates, row.outside) for row in result.networks] == [(3, OUTSIDE), (3, OUTSIDE), (1, {})]
    assert f"{NAMES[1]} is lowered without graph rewrites: with them, it differs by 1.3" in messages


def test_a_core_ml_package_is_packed_as_the_exporter_does(world, tmp_path, monkeypatch) -> None:
    sent = set()
    monkeypatch.setattr(FakeClient, "ensure", lambda _, path, *__: sent.add(path.read_bytes()))
    package = tmp_path / "mine.mlpackage"
    (package / "Data").mkdir(parents=True)
    (package / "Data" / "weight.bin").write_bytes(bytes(1000))
    with pytest.raises(InvalidArtifactError, match=r"mine.mlpackage is a folder but not an .mlpackage"):
        measured((), files=[package])
    (package / "Manifest.json").write_text("{}")
    pack(package, tmp_path / "packed.zip")
    packed = (tmp_path / "packed.zip").read_bytes()
    sha256 = hashlib.sha256(packed).hexdigest()
    world.device.true_ms[sha256] = 3.0
    (row,) = measured((), files=[package]).networks
    assert (row.model, row.sha256) == (str(package), sha256)
    assert sent == {packed}

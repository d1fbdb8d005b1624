"""A small network's latency by kind, traced and by removal, on this machine."""

import subprocess
import sys

import pytest

from orchestrator.breakdown.attribution import WHOLE
from orchestrator.breakdown.tracing import trace_network, untraceable_reason
from orchestrator.devices.host import HostDevice
from orchestrator.export.artifacts.artifact import ArtifactCache
from orchestrator.export.artifacts.spec import ExportSpec, Variant
from orchestrator.export.build import export_spec
from orchestrator.journal.log import read_records
from orchestrator.tasks.breakdown import count_parts, measure_removals, removal_specs
from orchestrator.tasks.options import ScheduleOptions
from orchestrator.wire.client import ModelFile
from tests.support.bench import module_environment

KEYS = ("conv(in=3,out=16,k=3,s=2)@64", "mbconv(in=16,out=24,k=3,e=2,s=2)@32", "head.fc(in=24,classes=10)@16")
SPEC = ExportSpec(KEYS)
VARIANT = Variant("executorch", "xnnpack", "fp32", 1)


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    folder = tmp_path_factory.mktemp("agent")
    with HostDevice(store_dir=folder / "store", log_path=folder / "log") as host:
        yield host


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    cache = ArtifactCache(tmp_path_factory.mktemp("cache"))
    wanted = removal_specs(SPEC, count_parts(SPEC))
    return {name: export_spec(wanted[name], cache) for name in (WHOLE, "convolution")}


def test_the_tracer_names_the_kinds_of_every_operation(device, artifacts):
    with device.connect() as client:
        assert untraceable_reason(client.hello(), VARIANT) == ""
    found = trace_network(device, VARIANT, artifacts[WHOLE])
    assert found.shares["convolution"].ms > 0
    assert {"convolution", "activation", "reshape", "other"} <= set(found.shares)
    assert "attention" not in found.shares
    assert not any("names alone" in note for note in found.notes)
    assert sum(share.ms for share in found.shares.values()) + found.unexplained_ms == pytest.approx(
        found.whole_ms
    )


@pytest.mark.slow
def test_removals_go_on_where_they_were_interrupted(device, artifacts, tmp_path, monkeypatch):
    monkeypatch.setenv("BLOCKTIME_RUNS", str(tmp_path))
    files = {name: ModelFile(artifact.path, artifact.sha256) for name, artifact in artifacts.items()}

    def measured(progress):
        options = ScheduleOptions(budget_s=0.1)
        return measure_removals(device, VARIANT, files, count_parts(SPEC), {}, options, progress)

    def interrupt(event):
        if getattr(event, "what", "") == "pass 2: measuring":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measured(interrupt)
    (journal,) = tmp_path.rglob("journal.jsonl")
    kept = read_records(journal)
    assert any(record.get("kind") == "end" or "kept" in record for record in kept)
    found = measured(lambda _: None)
    assert [journal] == list(tmp_path.rglob("journal.jsonl"))
    records = read_records(journal)
    assert records[: len(kept)] == kept
    share = found.shares["convolution"]
    assert share.low < share.ms < share.high
    assert set(found.shares) == {"convolution"}


@pytest.mark.slow
def test_no_library_talks_on_the_terminal_where_it_is_loaded():
    """In a process of its own, since a library speaks when it is loaded for the first time."""
    program = "from orchestrator.tasks.breakdown import tracing; tracing().trace_network"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=module_environment(),
    )
    assert (done.returncode, done.stderr) == (0, "")

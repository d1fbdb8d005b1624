"""What `bench export` says of a model, as JSON and as a table."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.cli import networks as command
from orchestrator.cli.main import app
from orchestrator.export import Artifact, ExportSpec
from orchestrator.export.artifacts.artifact import Report

OPERATORS = {"aten.mean.dim": 2, "aten.sum.dim_IntList": 9}


@pytest.fixture(params=["executorch", "coreml"])
def exported(request, monkeypatch) -> Artifact:
    """A model that was exported to a path longer than any terminal is wide."""
    spec = ExportSpec(("head.fc(in=16,classes=10)@4",), runtime=request.param)
    on_host = request.param == "executorch"
    report = Report(
        delegates=1,
        operators=tuple(OPERATORS.items()),
        max_abs_error=2.5e-6 if on_host else None,
        max_relative_error=1.25e-6 if on_host else None,
        tolerance=1e-4,
        export_s=2,
    )
    artifact = Artifact(
        path=Path("/out") / ("long" * 40) / "net.pte",
        sha256="0" * 64,
        payload_bytes=4096,
        spec=spec,
        cache_key=spec.cache_key,
        report=report,
    )
    monkeypatch.setattr(command, "export_networks", lambda *_, **__: {"net": artifact})
    return artifact


def bench(*options: str) -> str:
    done = CliRunner().invoke(app, ["export", "net", *options])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_json_has_numbers(exported) -> None:
    (row,) = json.loads(bench("--json"))
    if exported.spec.runtime == "executorch":
        assert (row["max_abs_error"], row["max_relative_error"]) == (2.5e-6, 1.25e-6)
        assert (row["delegates"], row["outside"]) == (1, OPERATORS)
    else:
        assert (row["max_abs_error"], row["max_relative_error"]) == (None, None)
        assert (row["delegates"], row["outside"]) == (None, None)
    assert row["path"] == str(exported.path)


def test_the_file_stands_on_a_line_of_its_own(exported) -> None:
    text = bench()
    assert f"net: {exported.path}\n" in text
    assert ("sum.dim_IntList" in text) == (exported.spec.runtime == "executorch")

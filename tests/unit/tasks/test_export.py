"""Several networks in one export, and where their files go."""

import pytest

from orchestrator.export import Artifact
from orchestrator.export.artifacts.artifact import Report
from orchestrator.tasks import export
from orchestrator.tasks.export import (
    ExportBlocksCommand,
    ExportCommand,
    Lowering,
    export_blocks,
    export_networks,
)
from search.spaces import get_arch
from tests.support.errors import raises


@pytest.fixture
def lowered(monkeypatch, tmp_path):
    """Names of what was lowered, each to a file that holds its name."""
    calls: list[list[str]] = []

    def lower(specs, _workers, _progress):
        calls.append(list(specs))
        return {name: artifact(name, spec) for name, spec in specs.items()}

    def artifact(name, spec):
        path = tmp_path / f"{spec.cache_key}.pte"
        path.write_text(name)
        report = Report(
            delegates=1, operators=(), max_abs_error=0, max_relative_error=0, tolerance=1, export_s=1
        )
        digest = "0" * 64
        return Artifact(
            path=path, sha256=digest, payload_bytes=1, spec=spec, cache_key=spec.cache_key, report=report
        )

    monkeypatch.setattr(export, "export_all", lower)
    return calls


def test_one_network_becomes_the_file_that_is_named(lowered, tmp_path) -> None:
    artifacts = export_networks(
        ExportCommand(networks="autovit-xxs-paper", output=tmp_path / "out" / "mine.pte")
    )
    assert artifacts["autovit-xxs-paper"].path == tmp_path / "out" / "mine.pte"
    assert (tmp_path / "out" / "mine.pte").read_text() == "autovit-xxs-paper"


def test_several_networks_are_lowered_together_and_fill_a_folder(lowered, tmp_path) -> None:
    path = tmp_path / "my.net.json"
    path.write_text(get_arch("autovit-xs-paper").to_json())
    names = ["autovit-xxs-paper", "timm:mobilenetv3_small_100", str(path)]
    artifacts = export_networks(ExportCommand(networks=names, resolution=192, output=tmp_path / "out"))
    assert lowered == [names]
    assert list(artifacts) == names
    assert {file.name: file.read_text() for file in (tmp_path / "out").iterdir()} == {
        "autovit-xxs-paper.pte": names[0],
        "mobilenetv3_small_100.pte": names[1],
        "my.net.pte": names[2],
    }
    assert artifacts[names[2]].path == tmp_path / "out" / "my.net.pte"
    assert artifacts[names[1]].spec.module == "timm:mobilenetv3_small_100@192"


def test_without_an_output_models_stay_in_the_cache(lowered, tmp_path) -> None:
    artifacts = export_networks(ExportCommand(networks=["autovit-xxs-paper", "autovit-xs-paper"]))
    assert all(artifact.path.parent == tmp_path for artifact in artifacts.values())


def test_blocks_are_named_after_their_keys(lowered, tmp_path) -> None:
    export_blocks(ExportBlocksCommand(space="autovit-nano", resolutions=(32,), output=tmp_path / "blocks"))
    (names,) = lowered
    assert len(names) > 10
    assert {file.stem for file in (tmp_path / "blocks").iterdir()} == set(names)


TWO = ["autovit-xxs-paper", "autovit-xs-paper"]
SAME_NAME = {"x/a.json": get_arch("autovit-xxs-paper"), "y/a.json": get_arch("autovit-xxs-paper")}


@pytest.mark.parametrize(
    ("networks", "runtime", "output", "code"),
    [
        ("autovit-xxs-paper", "coreml", "n.pte", "output_suffix"),
        ("autovit-xxs-paper", "executorch", "n.onnx", "output_suffix"),
        ("autovit-xxs-paper", "executorch", "n.mlpackage", "output_suffix"),
        ("autovit-xxs-paper", "executorch", "n", "output_suffix"),
        ("autovit-xxs-paper", "tflite", "n.tflite", "unknown_runtime"),
        (TWO, "executorch", "both.pte", "output_is_a_file"),
        (TWO, "executorch", "both.mlpackage", "output_is_a_file"),
        (TWO, "executorch", "a-file", "output_is_a_file"),
        (SAME_NAME, "executorch", "out", "same_file_name"),
    ],
)
def test_what_is_refused_before_anything_is_lowered(
    lowered, tmp_path, networks, runtime, output, code
) -> None:
    (tmp_path / "a-file").touch()
    with raises(code):
        export_networks(
            ExportCommand(networks=networks, lowering=Lowering(runtime), output=tmp_path / output)
        )
    assert not lowered

"""Run folders: open ones are found again, finished ones stay."""

import pytest

from luts.format.errors import UsageError
from orchestrator.export.artifacts.spec import Variant
from orchestrator.journal.runs import find_run


def test_find_run(tmp_path):
    first = find_run(tmp_path, "host-nano")
    first.folder.mkdir()
    assert find_run(tmp_path, "host-nano") == first
    assert find_run(tmp_path, "host-nano", fresh=True) != first
    first.finish("some/lut")
    assert first.result == "some/lut"
    second = find_run(tmp_path, "host-nano")
    assert second != first
    assert find_run(tmp_path, "host-nano", reuse=True) == first
    second.folder.mkdir()
    assert find_run(tmp_path, "host-nano") == second


def test_labels_with_a_common_prefix_are_separate(tmp_path):
    (tmp_path / "host-nano-t2-1").mkdir()
    assert find_run(tmp_path, "host-nano").folder.name == "host-nano-1"


@pytest.mark.parametrize(
    "name",
    [
        "executorch-xnnpack-fp32-t2",
        "executorch-portable-fp32-t0",
        "executorch-xnnpack-int8-t1",
        "executorch-xnnpack-fp32-t5-c4-8",
        "executorch-xnnpack-fp32-t2-c0.6-7",
        "executorch-xnnpack-fp32-t2-c0.6-7-sustained",
        "executorch-xnnpack-fp32-t2-sustained",
        "coreml-fp16-all",
    ],
)
def test_variants_read_back_from_their_names(name):
    assert Variant.parse(name).name == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "executorch",
        "executorch-xnnpack-fp32-t99",
        "executorch-cuda-fp32-t1",
        "executorch-xnnpack-fp32-t2-c",
        "executorch-xnnpack-fp32-t2-c8-4",
        "executorch-xnnpack-fp32-t2-c4",
        "executorch-xnnpack-fp32-t2-sustained-c4-8",
        "onnx-cpu-fp32-t2-sustained",
        "coreml-fp16-gpu",
    ],
)
def test_unknown_variants_are_refused(name):
    with pytest.raises(UsageError):
        Variant.parse(name)

"""`bench arch show --operators`: operators of networks and of files, each once with its count, and sums."""

import json
from pathlib import Path
from typing import Any

import pytest

from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.table import Table
from orchestrator.tasks import space
from orchestrator.tasks.space import ArchView, OperatorList, ShowArchOptions, show_arch
from tests.support.errors import raises
from tests.support.tiny_model import Exported


def test_a_file_lists_its_operators_with_sums(exported: Exported) -> None:
    """A convolution of 3 to 8 channels at 32 px, SiLU and a mean: 16 x 16 x 8 x 27 MACs."""
    found = show_arch(ShowArchOptions(arch=str(exported.path), operators=True))
    assert isinstance(found, OperatorList)
    document = json.loads(json.dumps(found.to_dict()))
    rows = {row["key"]: row for row in document["operators"]}
    conv = rows["conv(h=16,w=16,in=3,out=8,kh=3,kw=3,sh=2,sw=2)"]
    assert (conv["count"], conv["macs"], conv["params"]) == (1, 16 * 16 * 8 * 27, 8 * 27)
    assert {"sigmoid(n=2048)", "multiply(n=2048)", "globalavgpooling(m=256,c=8)"} <= rows.keys()
    assert document["macs"] == conv["macs"]
    assert document["count"] == len(found.operators) == sum(row["count"] for row in rows.values())
    assert document["operators"][0] == conv
    table, line = found.report()
    assert isinstance(table, Table)
    assert "in 1 delegates and 0 outside" in str(line)


def test_a_network_is_exported_for_its_operators(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the same cache as every export, in fp32 for XNNPACK."""
    specs: dict[str, Any] = {}

    class Cached:
        path = exported.path

    def export_all(asked: dict[str, object], progress: object) -> dict[str, Cached]:
        specs.update(asked)
        return dict.fromkeys(asked, Cached())

    monkeypatch.setattr(space, "export_all", export_all)
    for name in ("timm:resnet18@64", "autovit-xxs-paper"):
        found = show_arch(ShowArchOptions(arch=name, operators=True))
        assert isinstance(found, OperatorList)
        assert found.name == name
    assert specs["timm:resnet18@64"].module == "timm:resnet18@64"
    assert (specs["autovit-xxs-paper"].backend, specs["autovit-xxs-paper"].precision) == ("xnnpack", "fp32")


def test_a_file_has_operators_alone(exported: Exported, tmp_path: Path) -> None:
    with raises("operators_only", UsageError):
        show_arch(ShowArchOptions(arch=str(exported.path)))
    with raises("unreadable_program", InvalidArtifactError):
        show_arch(ShowArchOptions(arch=str(tmp_path / "absent.pte"), operators=True))
    assert isinstance(show_arch(ShowArchOptions(arch="autovit-xxs-paper")), ArchView)

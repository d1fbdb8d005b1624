"""The study of detection on next to nothing, with latencies made up here: side by side, exported, gone on with."""

import pytest

from tools.studies import __main__ as command
from tools.studies import detection

pytest.importorskip("pycocotools", reason="pycocotools is not installed (extra `dense`)")
pytest.importorskip("torchmetrics", reason="torchmetrics is not installed (extra `dense`)")

NETWORKS = "autovit-nano, smallest", "autovit-nano, largest", "timm:mobilenetv3_small_050@128"


def row(ms):
    return {"ms": ms, "ci_low": ms - 0.1, "ci_high": ms + 0.1}


ROWS = {
    f"{name}{head}": row(ms + more)
    for ms, name in enumerate(NETWORKS, 1)
    for more, head in enumerate(("", ", detection", ", segmentation"))
}


def test_the_rival_is_the_nearest_detector():
    rows = {f"{name}, detection": row(ms) for name, ms in (("a", 1), ("b", 3), ("slow", 9), ("near", 2.4))}
    assert detection._rival(rows, ["a", "b"], ["slow", "near", "unmeasured"]) == "near"


@pytest.mark.soak
def test_it_trains_exports_and_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BLOCKTIME_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("BLOCKTIME_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(detection, "_measured", lambda *_: ROWS)
    monkeypatch.setattr(detection, "TASKS", ("segmentation",))
    arguments = ["detection", "--quick", "--seeds", "2", "--epochs", "1", "--jobs", "2"]
    command.main(arguments)
    first = capsys.readouterr().out
    assert "sha256 of the set" in first
    assert "SYNTHETIC" in first
    assert first.count("| segmentation |") == 3
    differences = [float(line.split("|")[-2]) for line in first.splitlines() if "| segmentation |" in line]
    assert all(0 <= difference < 1e-3 for difference in differences)
    command.main(arguments)
    again = capsys.readouterr().out
    assert "sha256 of the set" not in again
    assert again[again.index("###") :] == first[first.index("###") :]

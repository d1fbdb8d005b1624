"""What the studies of runtimes and of int8 write, from made-up measurements."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from orchestrator.tasks.networks import by_name
from orchestrator.tasks.runtimes import InRuntime, MeasuredRuntimes, rank_correlations
from tools.studies import int8, runtimes
from tools.studies.__main__ import main


def test_runtimes_stand_side_by_side_with_tau_between_them() -> None:
    latencies = {"executorch": [1.0, 2.0, 3.0], "onnx": [2.0, 1.0, 3.0], "litert": [1.5, 2.5, 3.5]}
    rows = tuple(
        InRuntime(f"n{i}", runtime, ms, ms - 0.1, ms + 0.1, ms / latencies["executorch"][i], 1e-6, 1, 1)
        for i in range(3)
        for runtime, all_ms in latencies.items()
        for ms in [all_ms[i]]
    )
    measured = MeasuredRuntimes(
        None, dict.fromkeys(latencies, "1.0"), rows, rank_correlations(rows), {"odd": "onnx: no aten.roll"}
    )
    text = runtimes.section(measured)
    assert "| `n0` | 1.00 (0.90 to 1.10) | 2.00 (1.90 to 2.10) | 2.00 | 1e-06 | 1.50 (1.40 to 1.60) |" in text
    assert "executorch and onnx 0.333; executorch and litert 1.000; onnx and litert 0.333" in text
    assert "Left out: odd (onnx: no aten.roll)." in text


def test_all_twelve_networks_are_some() -> None:
    assert len(set(runtimes.NETWORKS)) == 12
    assert list(by_name(runtimes.NETWORKS)) == list(runtimes.NETWORKS)


def test_differences_are_paired_image_by_image() -> None:
    before = np.array([True] * 90 + [False] * 10)
    now = before.copy()
    now[:4] = False
    now[90] = True
    mean, low, high = int8.paired_difference(now, before)
    # 4 lost, 1 won of 100: mean -0.03, mean square 0.05
    spread = 1.959964 * math.sqrt((0.05 - 0.0009) * 100 / 99 / 100)
    assert (mean, low, high) == pytest.approx((-0.03, -0.03 - spread, -0.03 + spread))
    judged = {"fp32": int8.Judged(before, Path("a"), 9), "int8": int8.Judged(now, Path("b"), 4)}
    text = int8.section(judged, {"int8": (0.25, 0.2475, 0.2525)}, "cifar10:DIR", "host")
    assert "| fp32 | 90.00 (82.56 to 94.48) |  |  | 9 |" in text
    assert "| int8 | 87.00" in text
    assert "| -3.00 (-7.36 to +1.36) | 0.2500 (0.2475 to 0.2525) | 4 |" in text
    assert "No block had to stay fp32" in text
    mixed = int8.section(judged, {}, "cifar10:DIR", "host", ("0", "4"))
    assert (
        "The mix keeps blocks 0, 4 in fp32, the fewest with which it loses no more than 0.5 points" in mixed
    )


def test_int8_needs_a_network_and_its_images(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["int8", "--quick"])
    assert ended.value.code == 2
    assert "give --supernet DIR and --data" in capsys.readouterr().err

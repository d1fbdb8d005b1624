"""What tools/results.py writes into docs/results.md."""

import json
from pathlib import Path

import pytest

from tools import results

SUITE = {
    "variant": "executorch-xnnpack-fp32-t1",
    "noise_floor": 0.012,
    "kendall_tau": 0.5,
    "kendall_tau_networks": 2,
    "networks": [
        {
            "row": name,
            "params": params,
            "conv_linear_macs": 3e8,
            "all_macs": 4e8,
            "ms": ms,
            "ci_low": low,
            "ci_high": high,
            "rank": rank,
            "shared_rank": rank,
            "failure": failure,
            "delegates": 1,
            "outside": outside,
            "published_ms": 4.9,
            "published_rank": 1,
            "published_top1_percent": 71.3,
        }
        for name, params, ms, low, high, rank, failure, outside in (
            ("Slow", 2_000_000, 9.0, 8.9, 9.1, 2, "", {"aten.topk": 2, "aten.gather": 1}),
            ("Broken", 3_000_000, None, None, None, None, "the runtime has no aten::lgamma.out", None),
            ("Fast", 1_000_000, 5.0, 4.9, 5.1, 1, "", {}),
        )
    ],
}

BREAKDOWN = {
    "variant": "executorch-xnnpack-fp32-t1",
    "simulated": True,
    "networks": [
        {
            "model": "small",
            "by": {
                "removal": {
                    "whole_ms": 2.0,
                    "unexplained_ms": -0.1,
                    "shares": {"attention": {"ms": 2.1, "ci_low": 2.0, "ci_high": 2.2}},
                }
            },
        }
    ],
}


def written(tmp_path: Path, section: str, document: object) -> str:
    given, out = tmp_path / "found.json", tmp_path / "results.md"
    given.write_text(json.dumps(document), encoding="utf-8")
    results.main([section, str(given), "--command", "bench …", "--document", str(out)])
    return out.read_text(encoding="utf-8")


def test_networks_come_by_latency_and_one_without_says_why(tmp_path: Path) -> None:
    rows = [line for line in written(tmp_path, "suite", SUITE).splitlines() if line.startswith("| ")]
    assert [row.split("|")[1].strip() for row in rows] == ["network", "---", "Fast", "Slow", "Broken"]
    assert "| 5.00 (4.90 to 5.10) | 1 | 1 | 4.9 | 1 | 71.3 | 1 | 0 |" in rows[2]
    assert rows[3].endswith("| 1 | 3 |")
    assert "the runtime has no aten::lgamma.out" in rows[4]


def test_a_kind_that_is_not_there_is_a_dash_and_a_simulated_device_is_named(tmp_path: Path) -> None:
    text = written(tmp_path, "breakdown", BREAKDOWN)
    assert "| small | removal | 2.000 | 2.100 (2.000 to 2.200) | - |" in text
    assert "| -0.100 (-5%) |" in text
    assert "SIMULATED" in text


def test_a_section_is_replaced_where_it_stands(tmp_path: Path) -> None:
    first = written(tmp_path, "suite", SUITE)
    assert written(tmp_path, "suite", SUITE) == first
    assert first.count("<!-- begin suite -->") == 1


def test_an_unknown_section_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        results.main(["nothing", "F", "--command", "x"])

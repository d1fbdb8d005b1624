"""The front of NAS-Bench-Macro, by a made-up table and LUT."""

import json
import re

from search.spaces.nasbench_macro import key_of
from tests.support.search_world import make_price
from tools.studies import _macro, front
from tools.studies._options import Options


def test_the_last_row_is_the_best_of_all(tmp_path, monkeypatch):
    costs = _macro.Priced.by(make_price(_macro.SPACE), "made-up", True)
    monkeypatch.setattr(front, "priced", lambda _: costs)
    keys = [key_of(arch) for arch in costs.archs]
    best = keys[17]
    table = tmp_path / "table.json"
    accuracies = {key: 95.0 if key == best else 50 + 40 * n / len(keys) for n, key in enumerate(keys)}
    table.write_text(
        json.dumps({k: {"test_acc": [a], "params": 1, "flops": 10**6} for k, a in accuracies.items()})
    )
    section = front.main(Options(None, True, 1, 1, 1, "host", 1.0, tmp_path, truth=table))
    last = re.findall(r"^\| 100% \| ([0-9.]+) \| ([0-9.]+) \| 1\.0 \| `([0-2]+)`", section, re.M)
    assert [(float(ms), float(top1), key) for ms, top1, key in last] == [
        (round(float(costs.latency_ms[17]), 3), 95.0, best)
    ]
    assert "SIMULATED latencies" in section
    assert (tmp_path / "front.png").exists()

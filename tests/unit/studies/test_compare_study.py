"""The study of fine-tuned networks: what is trained from what, searched within which latency, and its table."""

import random
from pathlib import Path
from types import SimpleNamespace

import pytest

from luts.format.errors import UsageError
from orchestrator.tasks.compare import Compared
from search.spaces import get_space, load_arch
from tools.studies import compare
from tools.studies._options import Options

FAST, ACCURATE = (get_space("autovit-cifar").with_classes(10).sample(random.Random(seed)) for seed in (0, 1))


def options(folder, **changes):
    given = {
        "data": "cifar10:FILE.npz",
        "quick": True,
        "seeds": 1,
        "epochs": 2,
        "jobs": 1,
        "device": "host",
        "budget_s": 9.0,
        "pictures": folder / "pictures",
        "lut": "host/autovit-cifar",
    }
    return Options(**(given | changes))


def row(model, top1, ms, best):
    return {
        "model": model,
        "top1": top1,
        "top1_low": top1 - 0.01,
        "top1_high": top1 + 0.01,
        "pytorch_top1": top1,
        "agreement": 0.999,
        "ms": ms,
        "ci_low": 0.9 * ms,
        "ci_high": 1.1 * ms,
        "p90_ms": None,
        "load_ms": 3.0,
        "file_bytes": 2**20,
        "peak_memory_bytes": 3 * 2**19,
        "params": 1_500_000,
        "conv_linear_macs": 2_000_000,
        "pareto": best,
    }


def test_networks_are_fine_tuned_and_compared_in_one_table(tmp_path, monkeypatch):
    monkeypatch.setenv("BLOCKTIME_RUNS", str(tmp_path))
    trained, searched, asked = [], [], []

    def train(space, data, output, recipe, *, init=None, classes=None, on, progress):
        trained.append((space, output.name, recipe.epochs, recipe.arch is not None, init, classes))

    def find(supernet, phones, output, *, budget, settings, on, progress):
        searched.append((supernet.name, phones, budget))
        arch = FAST if phones[0] == 40 else ACCURATE
        return SimpleNamespace(winner=SimpleNamespace(architecture=lambda: arch))

    def compared(networks, question, timing, *, folder, progress):
        asked.append((networks, question, timing))
        rows = [
            row(networks[0], 0.91, 2.0, True),
            row(networks[3], 0.8, 0.5, True),
            row(networks[4], 0.79, 0.6, False),
        ]
        data = {"images": 100, "split": "validation"}
        return Compared(
            tuple(rows), data, {"variant": "v", "device": {"simulated": False}}, {"x": "too large"}
        )

    monkeypatch.setattr(compare, "train_supernet", train)
    monkeypatch.setattr(compare, "find_network", find)
    monkeypatch.setattr(compare, "compare_networks", compared)
    monkeypatch.setattr(compare, "open_phone", lambda lut, reference_percent: reference_percent)
    monkeypatch.setattr(compare, "budget_of", tuple)
    text = compare.main(options(tmp_path))
    assert [job[4:] for job in trained[:3]] == [(f"timm:tf_efficientnet_lite{n}", 10) for n in range(3)]
    assert [job[0] for job in trained] == [None, None, None, "autovit-cifar", None, None]
    supernet = tmp_path / "studies" / "compare-quick" / "supernet-2"
    assert [job[4:] for job in trained[4:]] == [(f"supernet:{supernet}", None)] * 2
    assert searched == [("supernet-2", [40], (40,)), ("supernet-2", [80], (80,))]
    ((networks, question, timing),) = asked
    assert networks[0].startswith("timm:tf_efficientnet_lite0@64:/")
    described = networks[3].rpartition(":")[0]
    assert load_arch(described) == FAST
    assert (question.data, question.images, timing.target.threads) == ("cifar10:FILE.npz", 100, 1)
    assert (
        "| tf_efficientnet_lite0@64 | 91.00 (90.00 to 92.00) | 91.00 | 99.90 | 2.000 (1.800 to 2.200) | - | 3.0 | "
        "1.0 | 1.5 | 1.50 M | 2.0 M | yes |"
    ) in text
    assert f"| {Path(described).stem} | 80.00" in text
    assert "x is missing: too large" in text
    assert (tmp_path / "pictures" / "compare.png").stat().st_size > 10_000


def test_it_needs_images(tmp_path):
    with pytest.raises(UsageError, match="give --data"):
        compare.main(options(tmp_path, data=None))

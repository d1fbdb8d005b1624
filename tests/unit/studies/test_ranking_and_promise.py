"""Supernets of NAS-Bench-Macro's space: what they rank, what a search in them finds, by a made-up truth."""

import dataclasses
import json

import pytest
import torch

from search.spaces.nasbench_macro import arch_of, key_of
from search.supernet.model.supernet import Supernet
from tests.support.search_world import make_price
from tools.studies import _macro, _macro_supernets, promise, ranking
from tools.studies._options import Options
from tools.studies._ranks import tau

KEYS = [key_of(arch) for arch in _macro.SPACE]


@pytest.fixture
def options(tmp_path, monkeypatch):
    monkeypatch.setenv("BLOCKTIME_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(_macro_supernets, "QUICK_IMAGES", 16)
    monkeypatch.setattr(_macro_supernets, "REPORT_STEPS", 1)
    monkeypatch.setattr(ranking, "RESAMPLES", 20)
    table = tmp_path / "table.json"
    rows = {key: {"test_acc": [50.0 + sum(map(int, key))], "flops": 10, "params": 1} for key in KEYS}
    table.write_text(json.dumps(rows))
    return Options(
        data="digits",
        quick=True,
        seeds=1,
        epochs=2,
        jobs=1,
        device="host",
        budget_s=1.0,
        pictures=tmp_path,
        truth=table,
    )


@pytest.fixture
def costs():
    return _macro.Priced.by(make_price(_macro.SPACE), "made-up", True)


def test_the_separate_space_has_the_same_networks_with_weights_of_their_own():
    small, large = arch_of("11111111"), arch_of("22222222")
    both, apart = Supernet(_macro.SPACE), Supernet(_macro_supernets.SEPARATE)
    for arch in (small, large):
        same = _macro_supernets.same_in(_macro_supernets.SEPARATE, arch)
        assert same.keys() == arch.keys()
        assert both.extract(arch)(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    used = [
        {part.source for part in net.slices(_macro_supernets.same_in(net.space, arch))}
        for net, arch in ((both, small), (both, large), (apart, small), (apart, large))
    ]
    assert used[0] == used[1], "entangled: the smaller operation is a part of the larger"
    shared = used[2] & used[3]
    assert shared
    assert all(".stem" in name or ".head" in name for name in shared)


def test_tau_and_its_interval():
    assert tau([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(2 / 3)
    low, high = ranking.interval(list(range(40)), list(range(40)))
    assert low == pytest.approx(1.0)
    assert high == pytest.approx(1.0)
    low, high = ranking.interval(list(range(40)), list(range(40)), less=list(range(39, -1, -1)))
    assert low == pytest.approx(2.0)
    assert high == pytest.approx(2.0)


def test_supernets_of_several_lengths_are_judged_and_trained_once(options, capsys):
    options = dataclasses.replace(options, epochs=4)
    text = ranking.main(options)
    rows = [line.split(" | ")[:2] for line in text.splitlines() if line[:3] in ("| 2", "| 4")]
    assert rows == [[epochs, name] for epochs in ("| 2", "| 4") for name in ("entangled", "separate")]
    assert "the worst first" in text
    assert "Above MACs: " in text
    assert (options.pictures / "ranking.png").stat().st_size > 5_000
    assert ": step " in capsys.readouterr().out
    runs = [_macro_supernets.supernets(options, "nasbench-macro", epochs)[0] for epochs in (2, 4)]
    short, long = (run.judge("cpu") for run in runs)
    assert short.accuracy.fingerprint != long.accuracy.fingerprint, "other weights"
    assert short.accuracy.fingerprint != short.likelihood.fingerprint
    assert ranking.main(options) == text
    assert ": step " not in capsys.readouterr().out, "trained again"


def test_half_of_what_a_network_is_ranked_by_comes_from_the_other_networks():
    archs = ranking.networks(60)
    worth = [sum(map(int, key_of(arch))) / 20 for arch in archs]
    assert ranking.smoothed(archs, worth) == pytest.approx(worth, abs=1e-3), "a sum already"
    odd = list(worth)
    odd[7] += 0.4
    smoothed = ranking.smoothed(archs, odd)
    assert smoothed[7] == pytest.approx(worth[7] + 0.2, abs=0.01), "its own model has not seen it"


@pytest.mark.parametrize(("longest", "lengths"), [(16, [2, 4, 8, 16]), (12, [3, 6, 12]), (1, [1])])
def test_lengths_are_halves_of_the_longest(longest, lengths):
    assert ranking.lengths(longest) == lengths


def test_a_search_holds_its_budgets_and_its_picks_are_judged_by_the_table(options, costs):
    truth = _macro.open_truth(options.truth)
    (run,) = _macro_supernets.supernets(options, "nasbench-macro", options.epochs)
    found = promise.picks(costs, run, "cpu", 0)
    ms = dict(zip(costs.archs, costs.latency_ms, strict=True))
    for share in _macro.BUDGETS:
        assert ms[found[f"{share:.0%}"]] <= costs.budget_ms(share)
    measured = promise.Measured({key_of(arch): costs.budget_ms(0.6) for arch in found.values()}, 1.05)
    text = promise.section([found], truth, costs, measured, options)
    assert "measured over the budget" in text, "those of 20 and 40 %"
    assert "took 1.05 times as long" in text
    rows = [line for line in text.splitlines() if line.startswith(("| 20%", "| 80%"))]
    assert rows[0].endswith("| 0 of 1 |")
    assert rows[1].endswith("| 1 of 1 |")


def test_rivals_are_the_best_of_what_is_within(options, costs):
    truth = _macro.open_truth(options.truth)
    whole = promise.rivals(truth, costs, float(costs.bound_ms.max()))
    assert whole.best == pytest.approx(0.50 + 0.16)
    assert whole.rules["most parameters"] == pytest.approx(0.66), "the largest network is 22222222"
    assert 0.60 < whole.nearby["most parameters"] < 0.66, "not within half of the budgets near"
    arch = arch_of("22222222")
    near = promise.of_same_latency(truth, costs, arch)
    longest = dict(zip(costs.archs, costs.latency_ms, strict=True))[arch]
    by_hand = [
        truth.accuracy(other)
        for other, ms in zip(costs.archs, costs.latency_ms, strict=True)
        if 0.97 * longest <= ms <= 1.03 * longest
    ]
    assert sorted(near) == sorted(by_hand)

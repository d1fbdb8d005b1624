"""What a search finds against random networks of the same latency, on next to nothing."""

import re
import statistics
from dataclasses import replace

import pytest

from search.spaces import get_space
from tests.support.search_world import make_price
from tools.studies import _supernets, winners
from tools.studies._options import Options


@pytest.fixture
def options(tmp_path, monkeypatch):
    monkeypatch.setenv("BLOCKTIME_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(_supernets, "REPORT_STEPS", 1)
    return Options(
        data="digits", quick=True, seeds=2, epochs=1, jobs=1, device="host", budget_s=1.0, pictures=tmp_path
    )


def test_winners_and_random_networks_of_their_latency_are_trained_alone(options, monkeypatch, capsys):
    price = make_price(get_space("autovit-nano").with_classes(10))
    monkeypatch.setattr(winners, "_priced", lambda space, _: winners.Priced(space, price, "made-up", ""))
    text = winners.main(options)
    found, sure, same, largest = (
        [list(map(float, line.split("|")[2:6])) for line in text.splitlines() if line.startswith(f"| {kind}")]
        for kind in ("found at the budget", "found with 95 % confidence", "random", "largest")
    )
    assert (len(found), len(sure), len(same), len(largest)) == (2, 2, winners.QUICK_RANDOM, 1)
    assert all(share <= 1 for _, _, share, _ in (*found, *sure, *largest))
    assert all(1 - winners.NEAR <= share <= 1 for _, _, share, _ in same)
    assert all(macs <= largest[0][1] for _, macs, _, _ in same)
    accuracies = [row[-1] for row in same]
    for kind, rows in (
        ("Found at the budget", found),
        ("Found with 95 % confidence", sure),
        ("Largest", largest),
    ):
        gain = statistics.fmean(row[-1] - statistics.fmean(accuracies) for row in rows)
        said = float(re.search(rf"{kind}: ([+-]\d+\.\d+)", text)[1])
        assert said == pytest.approx(gain, abs=0.02)
    assert ": step " in capsys.readouterr().out
    assert winners.main(options) == text
    assert ": step " not in capsys.readouterr().out, "trained again"


def test_networks_alone_may_be_trained_for_another_length(options):
    setup = _supernets.Supernets(options)
    arch = setup.archs[0]
    assert setup.alone_setting() == "1 epochs"
    longer = _supernets.Supernets(replace(options, alone_epochs=2))
    assert longer.alone_setting() == "2 epochs where a supernet has 1"
    (trained,) = setup.inherited([setup.run("none", 0, arch=arch.to_json(), epochs=2)])
    assert longer.alone([arch]) == [trained[arch]]
    assert longer.run("none", 0) == setup.run("none", 0), "supernets are not"

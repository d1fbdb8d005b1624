"""What a search finds against random networks of the same latency, on next to nothing."""

import re
import statistics
from dataclasses import replace

import pytest

from search.spaces import get_space
from tests.support.search_world import make_price
from tools.studies import _supernets, winners
from tools.studies._options import Options

KINDS = [f"{which} {held}" for which in ("found", "largest") for held in winners.HELD]


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
    found, sure, same, largest, least = (
        [numbers(line) for line in text.splitlines() if line.startswith(f"| {kind}")]
        for kind in (*KINDS[:2], "random", *KINDS[2:])
    )
    assert [*map(len, (found, sure, same, largest, least))] == [2, 2, winners.QUICK_RANDOM, 1, 1]
    assert all(share <= 1 for _, _, share, _ in (*found, *sure, *largest, *least))
    assert all(1 - winners.NEAR <= share <= 1 for _, _, share, _ in same)
    assert all(macs <= largest[0][1] for _, macs, _, _ in (*found, *same))
    assert least[0][2] < largest[0][2], "what holds the budget with confidence is faster"
    accuracies = [row[-1] for row in same]
    for kind, rows in zip(KINDS, (found, sure, largest, least), strict=True):
        gain = statistics.fmean(row[-1] - statistics.fmean(accuracies) for row in rows)
        said = float(re.search(rf"{kind.capitalize()}: ([+-]\d+\.\d+)", text)[1])
        assert said == pytest.approx(gain, abs=0.02)
    assert ": step " in capsys.readouterr().out
    assert winners.main(options) == text
    assert ": step " not in capsys.readouterr().out, "trained again"


def numbers(line):
    """Parameters, MACs, latency and accuracy of a row."""
    cells = line.split("|")
    assert all(0 < float(said) < 1 for said in cells[5].split(","))
    return [float(cells[at]) for at in (2, 3, 4, 6)]


def test_networks_alone_may_be_trained_for_another_length(options):
    setup = _supernets.Supernets(options)
    arch = setup.archs[0]
    assert setup.alone_setting() == "1 epochs"
    longer = _supernets.Supernets(replace(options, alone_epochs=2))
    assert longer.alone_setting() == "2 epochs where a supernet has 1"
    (trained,) = setup.inherited([setup.run("none", 0, arch=arch.to_json(), epochs=2)])
    assert longer.alone([arch]) == [trained[arch]]
    assert longer.run("none", 0) == setup.run("none", 0), "supernets are not"

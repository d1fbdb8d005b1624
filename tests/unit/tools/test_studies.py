"""Figures of the studies against ones worked out by hand, and every kind of table printed."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from luts.format.latency import EntryCost, LatencyModel
from luts.format.schema import MeasuredModel
from luts.format.store import load_lut
from search.algorithms.finals import Rule
from search.blocks import count
from search.spaces import Arch, get_space
from search.spaces.nasbench_macro import key_of
from search.spaces.registry import arch_from_json
from search.supernet.model.supernet import Supernet
from tests.support.errors import raises
from tests.support.search_world import arch_of, make_price
from tools.benchmarks.__main__ import BENCHMARKS
from tools.studies import (
    __main__,
    attention,
    boundaries,
    int8,
    kinds,
    macro,
    macro_search,
    macro_winners,
    objectives,
    supernets,
)
from tools.studies.shared import Options
from tools.tables import Interval, entry_point, mean_and_range, resampled, show, tau

KEYS = [key_of(arch) for arch in macro.SPACE]
BEST = "21012012"
CONV = "mbconv(in=16,out=16,k=3,e=1,s=1)@16"
LAYER = "mvit.layer(d=16,heads=1,head_dim=16,ratio=2,patch=2)@16"
COSTS_MS = {CONV: 0.1, LAYER: 0.3}


@pytest.fixture
def table(tmp_path):
    """A truth in which every operation that a network shares with BEST is worth five points."""
    path = tmp_path / "table.json"
    equal = {key: sum(a == b for a, b in zip(key, BEST, strict=True)) for key in KEYS}
    rows = {key: {"test_acc": [49.0 + 5 * n, 51.0 + 5 * n], "flops": 10} for key, n in equal.items()}
    path.write_text(json.dumps(rows))
    return path


@pytest.fixture
def priced():
    return macro.PricedSpace.of(make_price(macro.SPACE))


def test_tables_are_printed_in_markdown_and_json(capsys):
    tables = {"One": [{"n": 12_345, "top-1": Interval(70.25, 69.5, 71.0), "p": None, "ms": 0.0728}]}
    show(tables, as_json=False)
    assert "| 12,345 | 70.25 (69.5 to 71) | - | 0.0728 |" in capsys.readouterr().out
    show(tables, as_json=True)
    assert json.loads(capsys.readouterr().out)["One"][0]["top-1"] == [70.25, 69.5, 71.0]


def test_statistics_by_hand():
    assert mean_and_range([0.1, 0.3], 100) == pytest.approx((20, 10, 30))
    assert tau([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(2 / 3)
    assert resampled(tau, range(40), range(40), resamples=20) == pytest.approx((1, 1, 1))
    correct, before = np.array([1, 1, 1, 0], dtype=bool), np.array([1, 0, 0, 0], dtype=bool)
    mean, low, high = int8.paired_difference(correct, before)
    half = 1.96 * 100 * np.std([0, 1, 1, 0], ddof=1) / 2
    assert (mean, low, high) == pytest.approx((50, 50 - half, 50 + half), rel=1e-3)
    never = np.full(40, np.inf)
    assert macro_search.fewer(np.arange(40, dtype=np.float64), never) == (1, 1, 1)
    assert macro_search.fewer(never, never) == (0.5, 0.5, 0.5)


def test_truth_is_the_mean_of_trainings_and_complete(table, tmp_path):
    truth = macro.read_truth(table)
    assert truth.accuracy(arch_of(BEST)) == pytest.approx(0.90)
    assert truth.accuracy(arch_of("00000000")) == pytest.approx(0.60)
    rows = json.loads(table.read_text())
    del rows[KEYS[0]]
    for text in (json.dumps(rows), "[1]"):
        (tmp_path / "broken.json").write_text(text)
        with raises("invalid_truth"):
            macro.read_truth(tmp_path / "broken.json")


def test_budgets_are_met_by_their_fraction_of_the_networks(priced):
    for fraction in macro.BUDGETS:
        within = (priced.latency_ms <= priced.budget_ms(fraction)).mean()
        assert within == pytest.approx(fraction, abs=2 / 6561)


@pytest.mark.parametrize("strategy", ["random", "autovit"])
def test_evaluations_until_a_network_is_near_enough(table, priced, strategy):
    """With two wrong operations still near, one draw in fifty is near enough."""
    goal = macro_search.SearchGoal(macro.read_truth(table), priced, float(priced.latency_ms.max()), 0.80, 3)
    near, nearer = macro_search.evaluations(goal, (strategy, 3))
    assert 1 <= near == nearer <= 200
    assert np.isinf(macro_search.evaluations(replace(goal, best=1.5, generations=1), (strategy, 3))).all()


def test_smoothing_keeps_what_two_trainings_share():
    """Additive values with independent noise: their sum of single effects remains, the noise nearly vanishes."""
    rng = np.random.default_rng(0)
    effects = rng.normal(0, 1, (4, 3))
    signal = sum(effects[axis].reshape([3 if axis == at else 1 for at in range(4)]) for axis in range(4))
    trainings = [signal + rng.normal(0, 0.5, (3,) * 4) for _ in range(2)]
    smooth = macro.smooth_interactions(trainings)
    assert np.abs(smooth - signal).mean() < 0.5 * np.abs(np.mean(trainings, axis=0) - signal).mean()
    assert macro.smooth_interactions([signal, signal]) == pytest.approx(signal)


def test_simple_rules_and_finals_pick_within_the_budget(table, priced):
    world = macro_winners.MacroWorld(macro.read_truth(table), priced, None)
    within = world.within(0.4)
    assert all(priced.bound_ms[priced.archs.index(arch)] <= priced.budget_ms(0.4) for arch in within[::200])
    rules = world.rules(within, score=False)
    assert rules["largest"] == within[0]
    operations = [sum(digit != "0" for digit in key_of(arch)) for arch in within]
    assert sum(digit != "0" for digit in key_of(rules["deepest"])) == max(operations), "no identities"
    best = max(within, key=world.accuracy)
    assert world.regret(0.4, best) == 0
    chosen: dict[str, Rule] = {within[0].to_json(): "largest", best.to_json(): "search"}
    assert world._held(chosen, 0, confirm=1) == best
    assert world.by_gaussian_process(within, 6, 0) in within


def test_separate_weights_are_not_shared_between_operations():
    sources = []
    for space in (macro.SPACE, macro.SEPARATE):
        network = Supernet(space)
        for key in ("11111111", "22222222"):
            arch = arch_of(key)
            same = Arch(space, arch.resolution, arch.head, arch.classes, arch.stages)
            sources.append({part.source for part in network.slices(same)})
    assert sources[0] == sources[1]
    assert all(".stem" in name or ".head" in name for name in sources[2] & sources[3])


def test_smoothing_predicts_a_network_from_the_others():
    archs = macro.sample_networks(60)
    worth = [sum(map(int, key_of(arch))) / 20 for arch in archs]
    assert macro.smoothed(archs, worth) == pytest.approx(worth, abs=1e-3)
    odd = [*worth[:7], worth[7] + 0.4, *worth[8:]]
    assert macro.smoothed(archs, odd)[7] == pytest.approx(worth[7] + 0.2, abs=0.01)


@pytest.mark.parametrize(("longest", "lengths"), [(16, [2, 4, 8, 16]), (12, [3, 6, 12]), (1, [1])])
def test_lengths_are_halves_of_the_longest(longest, lengths):
    assert macro.lengths(longest) == lengths


def test_attention_has_the_parameters_of_its_formula():
    """48 channels, 4 heads, q, k, v of 12: 4 (48 + 2) 36, convolutions 4 (9 + 2) 12, biases 4 x 64, projection."""
    params = attention.attention("full", 48, 8, 12).params()
    assert params == 7200 + 528 + 256 + (48 * 48 + 2 * 48)


def test_compared_networks_are_equally_large():
    assert attention.spread_evenly(2, 6) == (False, True, False, False, True, False)
    groups = [[attention.heads_network(sees).blocks() for sees in attention.HEADS]]
    for sees, kind in attention.HEADS.items():
        made = attention.equally_large(sees, (0, 4, 10), 192, 224)
        groups.append(list(made.values()))
        for number, blocks in made.items():
            assert [block.kind for block in blocks].count(kind) == number
    for networks in groups:
        sizes = [count(blocks)[0] for blocks in networks]
        assert max(sizes) <= 1.02 * min(sizes)


def test_the_width_nearest_in_speed_is_chosen():
    speeds = {(0, 96): 100.0, (4, 40): 150.0, (4, 48): 110.0, (4, 56): 80.0}
    assert attention.equally_fast(speeds, 96) == {0: 96, 4: 48}


def test_layer_outputs_of_a_stage():
    space = get_space("autovit-nano")
    names = supernets.layer_outputs(Supernet(space), ".transformer1_")
    assert names
    assert len(names) < len(supernets.layer_outputs(Supernet(space)))
    assert not supernets.layer_outputs(torch.nn.Linear(2, 2))


def lut_of_chains(chains, ms_per_mib):
    """A LUT with true entries, of networks that pay for every change between the two kinds of blocks."""
    random, models = np.random.default_rng(3), []
    for number, blocks in enumerate(chains):
        handed = boundaries.handed_mib(blocks).items()
        changes = sum(mib for kinds, mib in handed if len(set(kinds.split(" > "))) > 1)
        ms = sum(COSTS_MS[key] for key in blocks) + ms_per_mib * changes
        ms *= 1 + 0.002 * random.standard_normal()
        fitted = number % 4 > 0
        models.append(
            MeasuredModel(
                model_id=f"{number:012x}", arch="", blocks=blocks, boundary_bytes=0, artifact_sha256="0" * 64,
                split="fit" if fitted else "heldout", role="design" if fitted else "heldout",
                ms=ms, ci_low=ms, ci_high=ms, loads=1, rounds=10,
            )
        )  # fmt: skip
    lut = replace(load_lut("linux-x86-64/autovit-nano/executorch-xnnpack-int8-t1"), models=tuple(models))
    costs = {key: EntryCost(ms, 0.0, False) for key, ms in COSTS_MS.items()}
    lut.__dict__["latency_model"] = LatencyModel(0.0, 0.0, costs, None, None)
    return lut


def test_prices_of_boundaries_help_where_order_decides_and_costs():
    random = np.random.default_rng(7)
    mixed = [tuple(random.choice(list(COSTS_MS), size=8)) for _ in range(80)]
    priced, free = (boundaries.boundary_test(lut_of_chains(mixed, price)) for price in (2.0, 0.0))
    assert priced["rank gained"] > 0
    assert priced["with"] < priced["MAPE without"] / 2
    assert priced["p"] < 0.05
    assert free["with"] > 0.9 * free["MAPE without"]
    ordered = [(CONV,) * n + (LAYER,) * m for n in range(1, 8) for m in range(1, 7)]
    assert boundaries.boundary_test(lut_of_chains(ordered, 2.0))["rank gained"] == 0


@pytest.mark.parametrize(
    ("package", "names"), [("tools.studies", __main__.STUDIES), ("tools.benchmarks", BENCHMARKS)]
)
def test_every_name_has_a_function(package, names):
    assert all(callable(entry_point(package, name)) for name in names.values())


def test_a_study_without_images_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        __main__.main(["ranges"])
    assert ended.value.code == 2
    with raises("no_data"):
        assert Options().images


def test_objectives_are_compared_seed_by_seed():
    """Differences 1 and 3: 2 +- 12.706 * sqrt(2) / sqrt(2). Residuals +-1/2 of 2 x 2 values: s^2 = 1, one degree.

    The pooled half-width is 12.706 * sqrt(2 * 1 / 2).
    """
    rows = objectives.compare({"soft": [50.0, 60.0], "DKD": [51.0, 63.0]})
    assert [row["objective"] for row in rows] == ["DKD", "soft"]
    assert rows[0]["top-1"] == (57, 51, 63)
    assert rows[0]["against soft, paired"] == pytest.approx((2, 2 - 12.706, 2 + 12.706), rel=1e-4)
    assert rows[0]["against soft, pooled"] == pytest.approx((2, 2 - 12.706, 2 + 12.706), rel=1e-4)
    assert rows[0]["told apart"] == "no"
    assert rows[1]["against soft, paired"] is None
    clear = objectives.compare({"soft": [50.0, 60.0], "DKD": [60.0, 70.1], "NKD": [50.0, 60.2]})
    assert {row["objective"]: row["told apart"] for row in clear} == {
        "DKD": "paired and pooled",
        "NKD": "no",
        "soft": "no",
    }


@pytest.mark.parametrize("fields", [{"only": "DKD,NKD"}, {"only": "soft,DK"}, {"seeds": 1}])
def test_objectives_that_can_not_be_compared_are_refused(fields):
    with raises("unknown_objective"):
        objectives.main(Options(quick=True, **fields))


def test_networks_of_kinds_differ_in_the_kind_alone(monkeypatch):
    found = {}
    monkeypatch.setattr(kinds, "_compare", lambda column, archs, _options: found.setdefault(column, archs))
    for study in (kinds.compare_positions, kinds.compare_mixers, kinds.compare_reductions):
        study(Options())
    assert {column: len(archs) for column, archs in found.items()} == {
        "positions": 7,
        "mixer": len(kinds.MIXERS),
        "reduction": 1 + 7 * len(kinds.RATES),
    }
    mixers = found["mixer"]
    assert mixers["mha"].params() - mixers["pool"].params() == 2 * sum(4 * c * c + 4 * c for c in (32, 64))
    reductions = found["reduction"]
    assert reductions["tome 0.5"].params() == reductions["none"].params()
    assert reductions["tome 0.5"].macs().total < 0.5 * reductions["none"].macs().total


def test_a_kind_that_a_study_lacks_is_refused():
    with raises("unknown_row") as refused:
        kinds.compare_mixers(Options(quick=True, only="pool,mah"))
    assert "no 'mah'; --only takes: pool, shift" in str(refused.value)


def test_lengths_of_training_are_compared_over_the_same_networks(monkeypatch):
    smooth = {key_of(arch): place for place, arch in enumerate(macro.SPACE)}
    monkeypatch.setattr(macro, "read_truth", lambda _path: SimpleNamespace(smoothed=smooth))

    def train(_top1, trainings, _jobs):  # four epochs rank perfectly, two the wrong way round, but for seed 1
        recipes = [training.recipe for training in trainings]
        values = [smooth[key_of(arch_from_json(recipe.arch))] / len(smooth) for recipe in recipes]
        right = [recipe.epochs == 4 or recipe.seed == 1 for recipe in recipes]
        return [value if good else 1 - value for value, good in zip(values, right, strict=True)]

    monkeypatch.setattr(macro, "run_parallel", train)
    (rows,) = macro.compare_lengths(Options(data="digits", epochs=4, seeds=2)).values()
    assert [row["epochs"] for row in rows] == [2, 4]
    assert [row["tau over seeds"] for row in rows] == [Interval(0.0, -1.0, 1.0), Interval(1.0, 1.0, 1.0)]
    assert [row["tau over networks, seed 0"].value for row in rows] == [-1, 1]

"""Which network measurements choose, and what its card says."""

import dataclasses

import pytest
from winner_world import SPACE, fresh_archs, make_lut

from orchestrator.card import Card, model_card
from orchestrator.variant import Variant
from orchestrator.winner import MeasuredArch, budget_text, choose, top, winner_variants
from search.algorithms import Budget, SearchResult, SearchSettings
from search.algorithms.record import Coarse, Evaluated, Generation, LutPin, Provenance
from search.code_version import CodeVersion
from search.supernet.checkpoint import CheckpointInfo


def row(measured_high, accuracy=0.5):
    return MeasuredArch(
        "{}", 1.0, 0.9, 1.1, 0.98 * measured_high, 0.97 * measured_high, measured_high, accuracy=accuracy
    )


def evaluated(arch, accuracy, latency_ms):
    return Evaluated(
        arch=arch.to_json(),
        accuracy=accuracy,
        latency_ms=latency_ms,
        latency_high_ms=1.1 * latency_ms,
        params=arch.params(),
        macs=arch.macs().conv_linear,
        generation=0,
    )


@pytest.fixture
def result():
    archs = fresh_archs(3)
    found = tuple(
        evaluated(arch, *values) for arch, values in zip(archs, ((0.5, 1), (0.9, 3), (0.8, 2)), strict=True)
    )
    return SearchResult(
        space=SPACE.name,
        space_digest=SPACE.digest,
        evaluator="a" * 64,
        price="b" * 64,
        budget=Budget(latency_ms=3.5),
        settings=SearchSettings(seed=7),
        coarse=Coarse(priced=9, feasible=3, skeletons=1, smallest_ms=1),
        history=(Generation(index=0, new=3, best=0.9, mean=0.7),),
        evaluated=found,
        winner=found[1],
        provenance=Provenance(
            luts=(LutPin(name="phone/autovit-nano/x/v3", sha256="b" * 64),),
            checkpoint="c" * 64,
            data="npz:images.npz",
            data_digest="d" * 64,
            split="search",
            split_seed=0,
            split_fraction=0.1,
            code=CodeVersion(package="0.1.0", commit="1" * 40, sources="e" * 64),
        ),
    )


def test_the_first_within_the_budget_as_measured_is_chosen():
    rows = [row(1.3), row(1.1), row(0.5)]
    assert choose(rows, 2.0) is rows[0]
    assert choose(rows, 1.1) is rows[1]
    assert choose(rows, 0.4) is None


def test_the_best_are_ranked_as_the_search_ranked_them(result):
    assert [found.accuracy for found in top(result, 2)] == [0.9, 0.8]
    dear = result.model_copy(update={"settings": SearchSettings(loss_per_ms=0.4)})
    assert [found.accuracy for found in top(dear, 3)] == [0.5, 0.8, 0.9]


def test_a_budget_reads_as_what_it_holds():
    budget = Budget(latency_ms=2, further_latency_ms=(3,), params=10_000, macs=5, memory_bytes=6)
    assert budget_text(budget) == (
        "2.000 ms and 3.000 ms, 10,000 parameters, 5 conv+linear MACs, 6 bytes of activations, "
        "latency held with 95 % confidence"
    )
    assert budget_text(Budget(latency_ms=2, cautious=False)) == "2.000 ms, by prediction"


@pytest.mark.parametrize("name", ["executorch-vulkan-fp16-t2", "coreml-fp16-cpuonly"])
def test_a_winner_is_exported_for_both_runtimes_in_the_luts_own_variant(name):
    variants = winner_variants(Variant.parse(name))
    assert [variant.runtime for variant in variants] == ["executorch", "coreml"]
    assert name in [variant.name for variant in variants]


@pytest.fixture
def card(result):
    info = CheckpointInfo(
        space=SPACE.name,
        space_digest=SPACE.digest,
        classes=tuple(f"c{number}" for number in range(15)),
        recipe={"name": "tiny", "epochs": 2, "batch_size": 4, "learning_rate": 0.01, "seed": 5},
        step=3,
        steps_per_epoch=10,
        loss=1.5,
        source="npz:images.npz",
        data_digest="d" * 64,
        split_seed=0,
        split_fraction=0.1,
        image_side=32,
        teacher="timm:resnet18",
        weights_sha256="c" * 64,
        tensors=f"supernet-{'0' * 16}.safetensors",
        tensors_sha256="1" * 64,
    )
    return Card(
        result,
        result.winner,
        "phone/autovit-nano/x/v3",
        make_lut(),
        info,
        None,
        None,
        {"winner.safetensors": "f" * 64},
    )


def test_a_card_says_what_is_known_and_what_is_not(card):
    text = model_card(card)
    for fact in (
        card.winner.arch,
        "90.00 % top-1 on the search split",
        "3.000 ms, at most 3.300 ms with that confidence",
        "c0, c1",
        "and 3 more",
        "b" * 64,
        "c" * 64,
        "d" * 64,
        "e" * 64,
        "1" * 40,
        "seed 5",
        "seed 7",
        "NOT trained to its end",
        "timm:resnet18",
        "winner.safetensors | sha256 `" + "f" * 64,
        "Apache-2.0",
        "The LUT's numbers are simulated",
    ):
        assert fact in text
    unknown = text.partition("## Not measured")[2].partition("##")[0]
    assert "the latency" in unknown
    assert "validation split" in unknown


def test_a_measured_card_gives_the_measurement_and_the_verdict(card):
    measured = dataclasses.replace(card, measured=row(3.4), meets_budget=True)
    assert "3.332 ms, 95 % interval 3.298 to 3.400 ms, within the budget" in model_card(measured)
    assert "the latency: what stands above is predicted" not in model_card(measured)
    assert "NOT within the budget" in model_card(dataclasses.replace(measured, meets_budget=False))

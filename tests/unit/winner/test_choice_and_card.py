"""The choice of the winner by measurements, and its model card."""

import pytest

from orchestrator.export.artifacts.spec import Variant
from orchestrator.measure.validate import LatencyComparison
from orchestrator.winner.card import model_card, winner_variants
from orchestrator.winner.result import FoundNetwork, constraints_text
from orchestrator.winner.winner import MeasuredArch, MeasuredBest
from search.algorithms import Constraints, SearchResult, SearchSettings
from search.algorithms.record import LutPin
from search.supernet.recipe.recipe import Recipe
from search.supernet.train.checkpoint import CheckpointInfo
from tests.support.report_world import make_checkpoint
from tests.support.winner_world import make_lut

FILES = {"winner.safetensors": "f" * 64}


def row(measured_high, accuracy=0.5, arch="{}"):
    return MeasuredArch(
        arch=arch,
        predicted_ms=1.0,
        predicted_low=0.9,
        predicted_high=1.1,
        measured_ms=0.98 * measured_high,
        measured_low=0.97 * measured_high,
        measured_high=measured_high,
        accuracy=accuracy,
    )


def measured_of(*rows, winner, meets_budget=True):
    return MeasuredBest(
        device="phone", variant="coreml-fp16-all", winner=winner, meets_budget=meets_budget, models=rows
    )


@pytest.mark.parametrize(("limit_ms", "rank", "meets"), [(5.0, 0, True), (3.0, 1, True), (0.4, 0, False)])
def test_the_first_network_within_the_limit_as_measured_is_chosen(result, limit_ms, rank, meets):
    best = result.best(3)
    compared = [row(high, arch=found.arch) for high, found in zip((4.0, 3.0, 2.0), best, strict=True)]
    fields = [LatencyComparison(**each.model_dump(exclude={"accuracy"})) for each in compared]
    measured = MeasuredBest.choose("phone", "x", best, fields, limit_ms)
    assert (measured.rank, measured.meets_budget) == (rank, meets)


def test_measurements_choose_the_winner(result):
    first, second, _ = (found.arch for found in result.best(3))
    measured = measured_of(row(4.0, arch=first), row(2.0, arch=second), winner=second)
    assert (measured.rank, measured.chosen.measured_high) == (1, 2.0)
    assert FoundNetwork(result, measured, {}, None).winner.accuracy == 0.8
    assert FoundNetwork(result, None, {}, None).winner == result.winner
    with pytest.raises(ValueError, match="the winner was not measured"):
        measured_of(row(2.0, arch=first), winner=second)


def test_measurements_survive_their_file(tmp_path):
    measured = measured_of(row(1.3, 0.25), winner="{}", meets_budget=False)
    measured.save(tmp_path / "search" / "measured.json")
    assert MeasuredBest.load(tmp_path / "search" / "measured.json") == measured


def test_the_best_are_ranked_by_the_searchs_loss(result):
    assert [found.accuracy for found in result.best(2)] == [0.9, 0.8]
    dear = result.model_copy(update={"settings": SearchSettings(loss_per_ms=0.4)})
    assert [found.accuracy for found in dear.best(3)] == [0.5, 0.8, 0.9]
    same = result.model_copy(update={"settings": SearchSettings(ms_per_loss=2.5)})
    assert [found.accuracy for found in same.best(3)] == [0.5, 0.8, 0.9]


@pytest.fixture
def of_two(result):
    """The same search for two devices; the second takes twice as long."""
    budget = Constraints(latency_ms=2, further_latency_ms=(3,), params=10_000, macs=5, memory_bytes=6)
    luts = (*result.provenance.luts, LutPin(name="other/autovit-nano/x/v1", sha256="d" * 64))
    rows = tuple(
        row.model_copy(
            update={
                "further_latency_ms": (2 * row.latency_ms,),
                "further_latency_high_ms": (2.5 * row.latency_ms,),
            }
        )
        for row in result.evaluated
    )
    return result.model_copy(
        update={
            "constraints": budget,
            "provenance": result.provenance.model_copy(update={"luts": luts}),
            "evaluated": rows,
            "winner": rows[1],
        }
    )


def test_constraints_as_text(result, of_two):
    assert constraints_text(of_two) == (
        "2.000 ms by phone/autovit-nano/x/v3 and 3.000 ms by other/autovit-nano/x/v1, 10,000 parameters, "
        "5 conv+linear MACs, 6 bytes of activations, latency with 95 % confidence"
    )
    alone = result.model_copy(update={"constraints": Constraints(latency_ms=2, cautious=False)})
    assert constraints_text(alone) == "2.000 ms, by prediction"
    nameless = of_two.model_copy(update={"provenance": None})
    assert constraints_text(nameless).startswith("2.000 ms by LUT 1 and 3.000 ms by LUT 2, ")


def test_the_card_shows_each_devices_prediction(card, of_two):
    text = card(of_two)
    assert (
        "| predicted | 3.000 ms, at most 3.300 ms with that confidence by phone/autovit-nano/x/v3; "
        "6.000 ms, at most 7.500 ms with that confidence by other/autovit-nano/x/v1 |"
    ) in text
    assert "on the others (other/autovit-nano/x/v1) nothing was measured" in text
    assert "nothing was measured" not in card()


@pytest.mark.parametrize("name", ["executorch-vulkan-fp16-t2", "coreml-fp16-cpuonly"])
def test_a_winner_is_exported_for_two_runtimes(name):
    variants = winner_variants(Variant.parse(name))
    assert [variant.runtime for variant in variants] == ["executorch", "coreml"]
    assert name in [variant.name for variant in variants]


@pytest.fixture
def card(result):
    """Return the card of a search, by default that of `result`, and its measurements."""
    recipe = Recipe(name="tiny", epochs=2, batch_size=4, learning_rate=0.01, seed=5)
    classes = tuple(f"c{number}" for number in range(15))
    changes = {"classes": classes, "recipe": recipe, "teacher": "timm:resnet18", "weights_sha256": "c" * 64}
    info = CheckpointInfo(**make_checkpoint() | changes | {"data_digest": "d" * 64, "step": 3})

    def text(search=result, measured=None):
        return model_card(FoundNetwork(search, measured, {}, None), make_lut(), info, FILES)

    return text


def test_the_card_states_what_is_known_and_unknown(result, card):
    text = card()
    for fact in (
        result.winner.arch,
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


def test_the_card_of_a_measured_winner(result, card):
    arch = result.winner.arch
    within, beyond = (
        measured_of(row(3.4, arch=arch), winner=arch, meets_budget=meets) for meets in (True, False)
    )
    text = card(measured=within)
    assert "3.332 ms, 95 % interval 3.298 to 3.400 ms, within the latency limit" in text
    assert "the latency: it is predicted" not in text
    assert "NOT within the latency limit" in card(measured=beyond)


def test_values_of_other_objectives_are_not_called_accuracy(result, card, tmp_path):
    own = result.provenance.model_copy(update={"objective": "small"})
    search = result.model_copy(update={"provenance": own})
    text = card(search)
    assert "0.9 by the objective `small`" in text
    assert "top-1" in card()
    assert "top-1" not in text
    search.save(tmp_path / "result.json")
    assert SearchResult.load(tmp_path / "result.json").own_objective == "small"
    before = search.model_dump(mode="json")
    del before["provenance"]["objective"]
    assert SearchResult.model_validate(before).own_objective == ""

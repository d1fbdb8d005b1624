"""Latency targets of a search, and the latencies that a space can reach by a LUT."""

import dataclasses
import json

import pytest
from typer.testing import CliRunner

from luts.format.lut import Lut
from luts.format.store import LutStore
from orchestrator.cli.main import app
from orchestrator.tasks.latency_target import LatencyTarget, searchable_space
from orchestrator.tasks.search_options import ConstraintOptions, TargetOptions
from search.algorithms import CompiledSpace, Constraints, latency_bounds
from search.spaces import get_space
from tests.support.errors import raises
from tests.support.winner_world import SPACE, make_lut


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = LutStore([tmp_path_factory.mktemp("luts")])
    store.write(make_lut())
    store.write(make_lut())
    return store


@pytest.fixture(scope="module")
def target(store):
    return LatencyTarget.open("host", "5ms", store)


def _changed(target, **changes):
    lut = target.lut
    meta = lut.meta.model_copy(update=changes)
    return dataclasses.replace(target, lut=Lut(meta, lut.entries, lut.models, lut.samples))


def test_a_latency_is_in_ms_or_percent_of_the_reference(store, target):
    half = LatencyTarget.open("host", "50%", store)
    assert (target.latency_ms, half.latency_ms) == (5, make_lut().meta.reference_ms / 2)
    assert target.pin == half.pin
    assert target.price.fingerprint == target.pin.sha256
    assert target.price.model.heldout_errors
    assert ConstraintOptions(params=9).of([target, half]).latencies == (5, half.latency_ms)


def test_further_targets_are_given_as_lut_and_latency(store):
    name = "host/autovit-nano/executorch-xnnpack-fp32-t2"
    options = TargetOptions(lut=f"{name}/v1", latency="50%", also=(f"{name}/v2=12ms", f"{name}/v1=80%"))
    targets = options.open(store)
    reference_ms = make_lut().meta.reference_ms
    assert [each.latency_ms for each in targets] == pytest.approx([reference_ms / 2, 12, 0.8 * reference_ms])
    assert [each.pin.name.rpartition("/")[2] for each in targets] == ["v1", "v2", "v1"]


@pytest.mark.parametrize("text", ["host", "=12ms"])
def test_a_further_target_needs_both(store, text):
    with raises("invalid_value"):
        TargetOptions(lut="host", latency="5ms", also=(text,)).open(store)


def test_the_searchable_space_is_covered_by_all_luts(target):
    ten = SPACE.with_classes(10)
    assert searchable_space([target, target], ten) == ten
    with raises("wrong_space"):
        searchable_space([target], get_space("autovit-xxs"))
    for wrong, space in (
        (_changed(target, space_hash="0" * 64), SPACE),
        (target, SPACE.with_classes(7)),
    ):
        with pytest.raises(Exception, match=f"^{target.ref}: the LUT"):
            searchable_space([target, wrong], space)


def test_a_target_is_priced_for_a_supernet_of_other_classes(target):
    notes = []
    part = searchable_space([target.for_classes(7, notes.append)], SPACE.with_classes(7))
    assert part.default_classes == 7
    assert len(notes) == 1


def test_luts_without_a_shared_resolution_are_refused(target, monkeypatch):
    wide = dataclasses.replace(SPACE, resolutions=(32, 64))
    parts = iter([wide.restricted((32,)), wide.restricted((64,))])
    monkeypatch.setattr("orchestrator.tasks.latency_target.covered_space", lambda lut, classes: next(parts))
    with raises("no_shared_resolution"):
        searchable_space([target, target], wide)


@pytest.fixture
def show(store, monkeypatch):
    monkeypatch.setenv("BLOCKTIME_LUTS", str(store.roots[0]))

    def run(*arguments):
        return CliRunner().invoke(app, ["space", "show", *arguments], catch_exceptions=False).stdout

    return run


def test_space_show_prints_reachable_latencies(show, target):
    rows = json.loads(show("autovit-nano", "--lut", "host", "--json"))["reach"]
    bounds = latency_bounds(SPACE, target.price, Constraints(latency_ms=1, cautious=False))
    assert rows[0]["latency_ms"] == pytest.approx(bounds.smallest.latency_ms)
    assert rows[-1]["latency_ms"] == pytest.approx(bounds.largest.latency_ms)
    latencies = [row["latency_ms"] for row in rows]
    assert latencies == sorted(latencies)
    compiled = CompiledSpace(SPACE, target.price)
    arch = SPACE.from_document(json.loads(rows[2]["arch"]))
    assert compiled.priced(compiled.encode([arch]))[0].macs == rows[2]["macs"]
    assert "most MACs for its latency" in show("autovit-nano", "--lut", "host")


def test_space_show_without_a_lut_shows_no_latency(show):
    assert "reach" not in json.loads(show("autovit-nano", "--json"))


def test_space_show_refuses_a_lut_of_another_space(show):
    with raises("wrong_space"):
        show("autovit-xxs", "--lut", "host")

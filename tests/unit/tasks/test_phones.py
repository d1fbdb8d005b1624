"""The phones of a search, and what a space can reach on one."""

import dataclasses
import json

import pytest
from typer.testing import CliRunner

from luts.format.errors import UsageError
from luts.format.lut import Lut
from luts.format.store import LutStore
from orchestrator.cli.main import app
from orchestrator.tasks.phones import budget_of, open_phone, searchable
from search.algorithms import Budget, CompiledSpace, reachable
from search.spaces import get_space
from tests.support.winner_world import SPACE, make_lut


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = LutStore([tmp_path_factory.mktemp("luts")])
    store.write(make_lut())
    store.write(make_lut())
    return store


@pytest.fixture(scope="module")
def phone(store):
    return open_phone("host", latency_ms=5, store=store)


def _changed(phone, **changes):
    lut = phone.lut
    return dataclasses.replace(
        phone, lut=Lut(lut.meta.model_copy(update=changes), lut.entries, lut.models, lut.samples)
    )


def test_a_phones_latency_is_given_or_a_share_of_its_references(store, phone):
    half = open_phone("host", reference_percent=50, store=store)
    assert (phone.latency_ms, half.latency_ms) == (5, make_lut().meta.reference_ms / 2)
    assert phone.pin == half.pin
    assert phone.price.fingerprint == phone.pin.sha256
    assert phone.price.model.heldout_errors
    assert budget_of([phone, half], params=9).further_latency_ms == (half.latency_ms,)


def test_what_is_searched_is_what_all_luts_know(phone):
    assert searchable([phone, phone], SPACE.with_classes(10)) == SPACE.with_classes(10)
    with pytest.raises(UsageError, match=r"is of space autovit-nano, the supernet of autovit-xxs"):
        searchable([phone], get_space("autovit-xxs"))
    with pytest.raises(UsageError, match="another version"):
        searchable([phone, _changed(phone, space_hash="0" * 64)], SPACE)
    with pytest.raises(UsageError, match="lacks 4 blocks"):
        searchable([phone], SPACE.with_classes(7))


def test_luts_at_different_resolutions_share_none(phone, monkeypatch):
    wide = dataclasses.replace(SPACE, resolutions=(32, 64))
    parts = iter([wide.restricted((32,)), wide.restricted((64,))])
    monkeypatch.setattr("orchestrator.tasks.phones.covered_space", lambda lut, classes: next(parts))
    with pytest.raises(UsageError, match="share no resolution"):
        searchable([phone, phone], wide)


@pytest.fixture
def show(store, monkeypatch):
    monkeypatch.setenv("BLOCKTIME_LUTS", str(store.roots[0]))

    def run(*arguments):
        return CliRunner().invoke(app, ["space", "show", *arguments], catch_exceptions=False).stdout

    return run


def test_space_show_prints_what_can_be_reached(show, phone):
    rows = json.loads(show("autovit-nano", "--lut", "host", "--json"))["reach"]
    reach = reachable(SPACE, phone.price, Budget(latency_ms=1, cautious=False))
    assert rows[0]["latency_ms"] == pytest.approx(reach.smallest.priced.latency_ms)
    assert rows[-1]["latency_ms"] == pytest.approx(reach.largest.priced.latency_ms)
    latencies = [row["latency_ms"] for row in rows]
    assert latencies == sorted(latencies)
    compiled = CompiledSpace(SPACE, phone.price)
    arch = SPACE.from_document(json.loads(rows[2]["arch"]))
    assert compiled.price(compiled.encode([arch]))[0].macs == rows[2]["macs"]
    assert "most MACs for its latency" in show("autovit-nano", "--lut", "host")


def test_space_show_without_a_lut_says_nothing_of_latency(show):
    assert "reach" not in json.loads(show("autovit-nano", "--json"))


def test_space_show_refuses_a_foreign_lut(show):
    with pytest.raises(UsageError, match="not of autovit-xxs"):
        show("autovit-xxs", "--lut", "host")

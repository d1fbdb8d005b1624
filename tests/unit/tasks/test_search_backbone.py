"""Searching a backbone for a detector: priced with its head, judged as a classifier."""

import json
from types import SimpleNamespace

import pytest

from luts.format.errors import UsageError
from orchestrator.tasks import search_backbone
from orchestrator.tasks.phones import is_priced_with_head
from orchestrator.tasks.progress import Note
from orchestrator.tasks.search_backbone import BackboneProxy, find_backbone
from orchestrator.tasks.train import train_supernet
from search.algorithms import Budget, SearchSettings, search
from search.algorithms.record import LutPin
from search.networks import build_network
from search.networks.network import load_backbone
from search.spaces import arch_from_json, get_space
from search.supernet.model.weights_file import read_weights
from search.supernet.recipe.recipe import changed, get_recipe
from tests.support.search_world import Accuracy, make_price

SPACE = get_space("autovit-nano.ssdlite")
FEW = SearchSettings(population=4, generations=1, draws=200)


class OfClassifiers(Accuracy):
    def accuracy(self, arch):
        assert (arch.space, arch.classes) == ("autovit-nano", 7)
        self.calls.append(arch)
        return self.truth(arch)


def phone_of(space=SPACE, latency_ms=1e6):
    meta = SimpleNamespace(space=space.name)
    return SimpleNamespace(
        ref=f"host/{space.name}/v1",
        lut=SimpleNamespace(meta=meta),
        latency_ms=latency_ms,
        price=make_price(space),
        pin=LutPin(name="host", sha256="b" * 64),
    )


def test_backbone_and_head_are_priced_together():
    inner = OfClassifiers()
    result = search(SPACE, [make_price(SPACE)], BackboneProxy(inner, 7), Budget(latency_ms=1e6), FEW)
    best = result.winner.architecture()
    assert best.head == "ssdlite"
    assert result.winner.latencies[0][0] == pytest.approx(
        make_price(SPACE).model.predict(best.keys(), best.boundary_bytes()).ms
    )
    assert result.winner.accuracy == max(inner.truth(arch) for arch in inner.calls)
    assert all(key in make_price(SPACE).model.costs for key in best.keys() if key.startswith("ssd"))


def test_a_search_writes_a_network_and_the_weights_of_its_backbone(tmp_path, monkeypatch):
    monkeypatch.setattr(search_backbone, "searchable", lambda phones, space: space)
    recipe = changed(get_recipe("finetune"), {"epochs": 1, "batch_size": 512}, {})
    train_supernet("autovit-nano", "digits", tmp_path / "net", recipe, on="cpu")
    told = []
    few = SearchSettings(population=2, generations=0, draws=50)
    found = find_backbone(
        tmp_path / "net", phone_of(), tmp_path / "out", settings=few, on="cpu", progress=told.append
    )
    arch = arch_from_json(found.arch.read_text())
    assert arch == found.result.winner.architecture()
    assert json.loads(found.arch.read_text())["head"] == "ssdlite"
    assert load_backbone(build_network(arch.blocks()), read_weights(found.weights)).loaded
    assert any("proxy" in note.text for note in told if isinstance(note, Note))
    with pytest.raises(UsageError, match="use a LUT of that space with a head"):
        find_backbone(tmp_path / "net", phone_of(get_space("autovit-cifar")), tmp_path / "other", on="cpu")


def test_which_luts_have_heads():
    assert is_priced_with_head(phone_of())
    assert not is_priced_with_head(phone_of(get_space("autovit-nano")))

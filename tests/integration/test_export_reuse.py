from pathlib import Path

import pytest

from orchestrator.export import ArtifactCache, ExportSpec
from orchestrator.export.build import export_spec
from orchestrator.export.lower.executorch import lower_to_executorch
from orchestrator.export.lower.source import build_module, stamp_program
from orchestrator.export.reuse.fragment import FragmentStore, units_of
from search.blocks import parse_keys

STEM = "conv(in=3,out=8,k=3,s=2)@32"
PLAIN, WIDER = "mbconv(in=8,out=8,k=3,e=1,s=1)@16", "mbconv(in=8,out=8,k=5,e=2,s=1)@16"
DOWN = "mbconv(in=8,out=16,k=3,e=1,s=2)@16"
SHELL = "mvit.shell(c=16,d=16,patch=2)@8"
LAYER = "mvit.layer(d=16,heads=2,head_dim=8,ratio=2,patch=2)@8"
HEAD = "head.fc(in=16,classes=10)@8"

KNOWN = ExportSpec((STEM, PLAIN, DOWN, SHELL, LAYER, HEAD))
NEW = ExportSpec((STEM, WIDER, PLAIN, PLAIN, DOWN, SHELL, LAYER, LAYER, HEAD), weights="seed:5")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> ArtifactCache:
    """With one network, lowered whole."""
    cache = ArtifactCache(tmp_path_factory.mktemp("cache"))
    assert export_spec(KNOWN, cache).report.made == "lowered"
    return cache


@pytest.fixture(scope="module")
def lowered() -> bytes:
    return stamp_program(lower_to_executorch(*build_module(NEW)).data, NEW.weights_label)


def fragment_path(cache: ArtifactCache, key: str) -> Path:
    (unit,) = (u for u in dict.fromkeys(units_of(parse_keys(NEW.blocks))) if u.key == key)
    return cache.fragments / f"{unit.identity}.json"


def test_a_spliced_network_is_the_lowered_one_byte_for_byte(cache: ArtifactCache, lowered: bytes) -> None:
    assert not fragment_path(cache, WIDER).exists()
    artifact = export_spec(NEW, cache)
    assert artifact.report.made == "spliced"
    assert artifact.path.read_bytes() == lowered
    assert fragment_path(cache, WIDER).exists()


def test_a_damaged_fragment_is_made_again(cache: ArtifactCache) -> None:
    path = fragment_path(cache, WIDER)
    before = path.read_bytes()
    path.write_bytes(before[:-1])
    artifact = export_spec(ExportSpec(NEW.blocks, weights="seed:6"), cache)
    assert artifact.report.made == "spliced"
    assert path.read_bytes() == before


def test_a_wrong_fragment_is_found_and_mended(cache: ArtifactCache) -> None:
    store, path = FragmentStore(cache.fragments), fragment_path(cache, STEM)
    right = store.get(path.stem)
    assert right is not None
    nodes = [
        node.model_copy(update={"kind": "XNNTanh"} if node.kind == "XNNSigmoid" else {})
        for node in right.nodes
    ]
    store.put(path.stem, right.model_copy(update={"nodes": tuple(nodes)}))
    spec = ExportSpec(KNOWN.blocks, weights="seed:7")
    assert export_spec(spec, cache).report.made == "lowered"
    assert store.get(path.stem) == right

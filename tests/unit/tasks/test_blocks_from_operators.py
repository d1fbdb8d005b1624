"""Blocks of a space priced by the operators of a LUT: as a source of a profile, and for a search."""

import math
import random
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from luts.build import build_lut
from luts.estimate.sources import SourceEntries
from luts.format.lut import Lut
from luts.format.operators import Operator
from luts.format.store import LutStore, digest_of
from luts.verify import check_sources
from orchestrator.tasks import sources as module
from orchestrator.tasks.latency_target import LatencyTarget, searchable_space
from orchestrator.tasks.sources import covering, find_sources, price_blocks
from search.spaces import get_space
from tests.support.errors import raises
from tests.support.lut_world import make_study, make_world
from tests.support.operator_world import operator_study

CONV = "conv(in=3,out=8,k=3,s=2)@32"
VARIANT = "executorch-xnnpack-fp32-t1"
OF_14 = "conv(in=3,out=8,k=3,s=2)@14", "head.fc(in=8,classes=10)@14"
SPACE = get_space("nasbench-macro")


@pytest.fixture(scope="module")
def operators() -> Lut:
    lut = operator_study().lut()
    device = lut.meta.device.model_copy(update={"name": "phone"})
    changes = {"measured": "measured", "device": device, "variant": VARIANT}
    return replace(lut, meta=lut.meta.model_copy(update=changes))


@pytest.fixture
def store(operators, tmp_path) -> LutStore:
    store = LutStore([tmp_path])
    store.write(operators)
    return store


@pytest.fixture
def exported(monkeypatch) -> list[str]:
    """Every block becomes one product of a matrix, of its key's length, except those of 14 pixels."""
    asked: list[str] = []

    def export(specs, *_) -> tuple[dict[str, SimpleNamespace], dict[str, str]]:
        asked.extend(specs)
        return {key: SimpleNamespace(path=key) for key in specs if not key.endswith("@14")}, {}

    monkeypatch.setattr(module, "export_possible", export)
    monkeypatch.setattr(module, "read_operators", lambda key: [operator_of(key)])
    return asked


def operator_of(key: str) -> Operator:
    return Operator.build("gemm", {"m": 49, "k": 8 * len(key), "n": 64})


def test_a_block_is_what_is_inside_of_it(operators):
    """Exported for real: a convolution with SiLU, without border and the changes of layout at both ends."""
    priced = price_blocks("phone", operators, [CONV], 1, lambda _: None)
    inside = ["conv(h=16,w=16,in=3,out=8,kh=3,kw=3,sh=2,sw=2)", "sigmoid(n=2048)", "multiply(n=2048)"]
    found = operators.predict(inside)
    assert priced.entry_ms[CONV] == pytest.approx(found.ms)
    assert priced.entry_se[CONV] == pytest.approx(found.ms * found.log_sd)


def test_operators_are_a_source_of_any_space(store, operators, exported):
    one, two, *lost = ("conv(in=3,out=8,k=3,s=2)@8", "conv(in=3,out=16,k=3,s=2)@8", *OF_14)
    found = find_sources(store, "phone", space="toy", device="other", variant=VARIANT, simulated=False)
    assert found.priors() == (), "nothing is priced before the plan is known"
    (source,) = covering(found, [one, two, *lost]).priors()
    assert source.entry_ms == {
        key: pytest.approx(operators.predict([operator_of(key).key]).ms) for key in (one, two)
    }
    with raises("source_lacks_blocks"):
        covering(found, [one, *lost])


def test_a_lut_learned_from_operators_verifies_beside_them(store, monkeypatch):
    world = make_world(np.random.default_rng(0), slots=6, choices=3)
    study = make_study(np.random.default_rng(1), world, designs=6, heldout=4, segments=2, rounds=6)
    priced = SourceEntries("phone", dict.fromkeys(study.features, 0.1))
    monkeypatch.setattr(module, "price_blocks", lambda *_: priced)
    found = find_sources(store, "phone", space="toy", device="other", variant=VARIANT, simulated=False)
    kept = covering(found, study.features).stored_for(study.features)
    inputs = study.inputs.model_copy(update={"measured": "measured", "sources": kept})
    lut = build_lut(inputs, study.models, study.estimation, study.features)
    (check,) = check_sources(lut, store)
    (ref,) = store.list()
    assert (check.digest, check.here) == (digest_of(ref), str(ref))


def test_a_search_prices_its_space_by_operators(store, operators, exported):
    target = LatencyTarget.open("phone", "5ms", store)
    priced = target.for_space(SPACE, 1, lambda _: None)
    assert searchable_space([priced], SPACE).block_specs() == SPACE.block_specs()
    assert sorted(exported) == sorted(block.key for block in SPACE.block_specs())
    arch = SPACE.sample(random.Random(0))
    found = priced.lut.predict(arch)
    one_by_one = [operators.predict([operator_of(key).key]).ms for key in arch.keys()]
    assert found.ms == pytest.approx(math.fsum(one_by_one))
    assert set(found.weak_keys) == set(arch.keys()), "no block was measured"
    assert priced.pin == target.pin
    assert priced.for_space(SPACE, 1, lambda _: None) is priced


def test_a_block_that_cannot_be_exported_stops_a_search(store, exported, monkeypatch):
    monkeypatch.setattr(module, "export_possible", lambda *_: ({}, {}))
    with raises("not_priceable"):
        LatencyTarget.open("phone", "5ms", store).for_space(SPACE, 1, lambda _: None)

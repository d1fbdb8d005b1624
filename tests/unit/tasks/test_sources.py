"""Source LUTs of a profile: named ones are checked, `best` is that of the space and runtime.

Their entries are stored with the LUT and verified.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from luts.build import build_lut
from luts.estimate.joint import fit_entries
from luts.estimate.likelihood import FitData
from luts.format.lut import Lut, decode, encode
from luts.format.schema import TransferSource
from luts.format.store import LutStore
from luts.published import PublishedLut, read_table, write_published
from luts.verify import verify_lut, verify_values
from orchestrator.cli.main import exit_code
from orchestrator.tasks.luts import provenance
from orchestrator.tasks.sources import Sources, covering, find_sources
from tests.support.errors import raises
from tests.support.lut_world import World, make_study, make_world

WORLD = make_world(np.random.default_rng(0), slots=6, choices=3)
FAST = "executorch-xnnpack-fp32-t1"


def made(
    world: World = WORLD,
    seed: int = 1,
    sources: tuple[TransferSource, ...] = (),
    designs: int = 14,
    name: str = "host",
    **meta: str,
) -> Lut:
    study = make_study(np.random.default_rng(seed), world, designs=designs, heldout=4, segments=2, rounds=6)
    device = study.inputs.device.model_copy(update={"name": name})
    changes = {"variant": FAST, "measured": "measured", "device": device, "sources": sources} | meta
    return build_lut(study.inputs.model_copy(update=changes), study.models, study.estimation, study.features)


def slower(world: World, factor: float) -> World:
    own = np.random.default_rng(9)
    entry_ms = {key: factor * ms * float(np.exp(own.normal(0, 0.02))) for key, ms in world.entry_ms.items()}
    return replace(world, entry_ms=entry_ms)


@pytest.fixture(scope="module")
def lut() -> Lut:
    return made(name="pixel")


@pytest.fixture
def store(lut: Lut, tmp_path: Path) -> LutStore:
    store = LutStore([tmp_path / "luts"])
    store.write(lut)
    return store


PUBLISHED = ",".join(2 * ["published/pixel6/nn-meter-hybrid/tflite-cpu"])


def publish(store: LutStore) -> PublishedLut:
    """A table of twelve blocks."""
    file = store.roots[0] / "table.json"
    keys = [f"transffn_{side}_{dim}_2_hard_swish_ln" for side in (7, 14, 28) for dim in (64, 96, 128, 256)]
    file.write_text(json.dumps({key: 0.1 * (at + 1) for at, key in enumerate(keys)}))
    published = read_table(file, "pixel6", "a paper", "MIT", "nn-meter-hybrid", "tflite-cpu")
    write_published(published, store.roots[0])
    return published


def find(store: LutStore, named: str | None, **options) -> Sources:
    known = {"space": "toy", "device": "xiaomi", "variant": FAST, "simulated": False}
    return find_sources(store, named, **{**known, **options})


def devices(sources: Sources) -> list[str]:
    return [name.split("/")[0] for name in sources.names]


def test_learned_lut_stores_its_sources_and_verifies(store: LutStore, lut: Lut) -> None:
    sources = find(store, "pixel")
    kept = sources.stored_for([entry.key for entry in lut.entries])
    learned = made(slower(WORLD, 3.0), 2, kept, designs=4, name="xiaomi")
    assert learned.meta.dropped_sources == {}
    assert learned.latency_model.basis == "posterior"
    assert learned.predict(learned.models[0].blocks, 0).level == 0.95
    shares = [entry.measured_share for entry in learned.entries]
    assert all(share is not None and 0 <= share <= 1 for share in shares)
    assert verify_lut(store.write(learned)) == learned, "without the LUT that it was learned from"
    others = made(slower(WORLD, 3.0), 2, designs=4, name="xiaomi")
    assert others.latency_model.basis == "entries"
    assert {entry.measured_share for entry in others.entries} == {None}


def test_an_edited_source_does_not_verify(store: LutStore, lut: Lut) -> None:
    kept = find(store, "pixel").stored_for([entry.key for entry in lut.entries])
    learned = made(slower(WORLD, 3.0), 2, kept, designs=4, name="xiaomi")
    first, *rest = kept[0].entry_ms
    assert first is not None
    wrong = kept[0].model_copy(update={"entry_ms": (2 * first, *rest)})
    edited = replace(learned, meta=learned.meta.model_copy(update={"sources": (wrong,)}))
    with raises("not_from_samples"):
        verify_values(decode(encode(edited)))
    short = kept[0].model_copy(update={"entry_ms": tuple(rest)})
    with raises("invalid_source"):
        verify_values(replace(learned, meta=learned.meta.model_copy(update={"sources": (short,)})))


def test_sources_and_those_that_were_dropped_are_named(lut: Lut, store: LutStore) -> None:
    kept = find(store, "pixel").stored_for([entry.key for entry in lut.entries])
    shuffled = np.random.default_rng(3).permutation([ms or 0.0 for ms in kept[0].entry_ms]).tolist()
    wrong = kept[0].model_copy(update={"name": "wrong", "entry_ms": tuple(shuffled)})
    learned = made(slower(WORLD, 3.0), 2, (kept[0], wrong), designs=10, name="xiaomi")
    assert list(learned.meta.dropped_sources) == ["wrong"]
    lines = provenance(learned)
    assert lines["learned from"] == f"pixel/toy/{FAST}/v1 ({kept[0].digest[:12]}, measured)"
    assert lines["dropped"].startswith("wrong contradicts the measurements, which are e^")
    assert lines["measured here"].endswith("% of the uncertainty that other LUTs leave, mean over entries")
    assert "from the posterior, calibrated" in lines["predictions"]
    assert "learned from" not in provenance(lut)
    meta = learned.meta.model_copy(update={"dropped_sources": {"wrong": -0.4}})
    assert provenance(replace(learned, meta=meta))["dropped"] == (
        "wrong has no clear support: the measurements are only e^0.4 times likelier with it"
    )


@pytest.mark.parametrize(
    ("named", "options", "code"),
    [
        ("pixel", {"space": "autovit-xxs"}, "wrong_space"),
        ("pixel,pixel", {}, "duplicate_source"),
        ("made-up", {}, "simulated_source"),
        ("learned", {"device": "pixel"}, "circular_source"),
        ("grandchild", {"device": "pixel"}, "circular_source"),
        ("published/pixel6/nn-meter-hybrid/tflite-cpu", {}, "wrong_space"),
        (PUBLISHED, {"space": "nn-meter-hybrid"}, "duplicate_source"),
    ],
)
def test_unsuitable_sources_are_refused(store, lut, named, options, code) -> None:
    kept = find(store, "pixel").stored_for([entry.key for entry in lut.entries])
    store.write(made(name="learned", sources=kept))
    again = find(store, "learned", device="other").stored_for([entry.key for entry in lut.entries])
    store.write(made(name="grandchild", sources=again))
    publish(store)
    store.write(made(name="made-up", measured="simulated"))
    with raises(code) as caught:
        find(store, named, **options)
    assert exit_code(caught.value) == 6
    assert "\n" not in str(caught.value)


def test_best_source_of_space_and_runtime(store: LutStore) -> None:
    assert find(store, "none") == Sources()
    assert find(store, None) == find(store, "best"), "by default"
    assert devices(find(store, "best")) == ["pixel"]
    assert not find(store, "best").named
    assert not find(store, "best", device="pixel").each, "its own LUT is not another's"
    assert not find(store, "best", variant="coreml-fp16-all").each
    assert not find(store, "best", simulated=True).each, "a made-up device learns from those that are named"
    store.write(made(name="xiaomi", variant="executorch-xnnpack-fp32-t2"))
    assert devices(find(store, "best")) == ["xiaomi"], "other threads of the same device"
    with raises("unknown_lut"):
        find(store, "nowhere")


def test_unnamed_source_of_other_blocks_is_left_out(store: LutStore) -> None:
    found = find(store, "best")
    assert not covering(found, ["a", "b"]).each
    with raises("source_lacks_blocks"):
        covering(find(store, "pixel"), ["a", "b"])


def test_source_standard_errors(store: LutStore, lut: Lut) -> None:
    """Half of a 95 % interval is 1.96 standard errors; the LUT keeps them, so that it can be recomputed."""
    entry = lut.entries[0]
    source = find(store, "pixel").priors()[0]
    assert source.entry_se[entry.key] == pytest.approx((entry.ci_high - entry.ms) / 1.959964, rel=1e-6)
    kept = find(store, "pixel").stored_for([entry.key for entry in lut.entries])
    assert kept[0].entry_se[0] == source.entry_se[entry.key]
    learned = made(slower(WORLD, 3.0), 2, kept, designs=4, name="xiaomi")
    exact = (kept[0].model_copy(update={"entry_se": ()}),)
    surer = made(slower(WORLD, 3.0), 2, exact, designs=4, name="xiaomi")
    widths = [sum(e.ci_high - e.ms for e in one.entries) for one in (learned, surer)]
    assert widths[0] > 1.05 * widths[1]
    short = (kept[0].model_copy(update={"entry_se": kept[0].entry_se[1:]}),)
    with raises("invalid_source"):
        made(sources=short)


def test_published_table_is_a_source(store: LutStore) -> None:
    published = publish(store)
    sources = find(store, "published/pixel6/nn-meter-hybrid/tflite-cpu", space="nn-meter-hybrid")
    assert sources.named
    assert sources.names == ("published/pixel6/nn-meter-hybrid/tflite-cpu",)
    kept = sources.stored_for(published.features)
    assert (kept[0].measured, kept[0].digest, kept[0].entry_se) == ("published", published.digest, ())
    assert kept[0].entry_ms == tuple(published.entry_ms[key] for key in sorted(published.features))
    blocks = [tuple(sorted(published.features)[at : at + 5]) for at in range(8)]
    ms = np.array([2 * sum(published.entry_ms[key] for key in one) for one in blocks])
    rows = FitData(ms, 1e-6 * np.eye(8), tuple(blocks), np.zeros(8))
    fit = fit_entries(rows, published.features, sources.priors())
    np.testing.assert_allclose(fit.ms, [2 * published.entry_ms[key] for key in fit.keys], rtol=0.05)
    with raises("unknown_published_lut"):
        find(store, "published/nowhere")

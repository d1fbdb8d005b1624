"""What people read of a LUT that was learned from others."""

import dataclasses

import numpy as np

from luts.format.store import LutStore
from orchestrator.tasks.luts import provenance
from orchestrator.tasks.sources import find_sources
from tests.unit.tasks.test_sources import FAST, WORLD, made, slower


def test_sources_and_those_that_were_dropped_are_named(tmp_path) -> None:
    store, lut = LutStore([tmp_path]), made(name="pixel")
    store.write(lut)
    found = find_sources(store, "pixel", space="toy", device="xiaomi", variant=FAST, simulated=False)
    kept = found.stored_for([entry.key for entry in lut.entries])
    shuffled = np.random.default_rng(3).permutation([ms or 0.0 for ms in kept[0].entry_ms]).tolist()
    wrong = kept[0].model_copy(update={"name": "wrong", "entry_ms": tuple(shuffled)})
    learned = made(slower(WORLD, 3.0), 2, (kept[0], wrong), designs=10, name="xiaomi")
    lines = provenance(learned)
    assert lines["learned from"] == f"pixel/toy/{FAST}/v1 ({kept[0].digest[:12]}, measured)"
    assert lines["dropped"].startswith("wrong contradicts the measurements, which are e^")
    assert lines["measured here"].endswith("% of the uncertainty that other LUTs leave, mean over entries")
    assert "from the posterior, calibrated" in lines["predictions"]
    assert "learned from" not in provenance(lut)
    meta = learned.meta.model_copy(update={"dropped_sources": {"wrong": -0.4}})
    assert provenance(dataclasses.replace(learned, meta=meta))["dropped"] == (
        "wrong has no clear support: the measurements are only e^0.4 times likelier with it"
    )

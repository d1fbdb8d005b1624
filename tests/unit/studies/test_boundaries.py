"""The verdict on prices of boundaries, where it is known what blocks and boundaries cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from luts.format.errors import UsageError
from luts.format.latency import EntryCost, LatencyModel
from luts.format.lut import Lut
from luts.format.schema import MeasuredModel
from luts.format.store import load_lut
from tools.studies import boundaries
from tools.studies._options import Options

PACKED = "linux-x86-64/autovit-nano/executorch-xnnpack-int8-t1"
CONV = "mbconv(in=16,out=16,k=3,e=1,s=1)@16"
WIDE = "mbconv(in=16,out=16,k=5,e=1,s=1)@16"
LAYER = "mvit.layer(d=16,heads=1,head_dim=16,ratio=2,patch=2)@16"
COSTS_MS = {CONV: 0.1, WIDE: 0.2, LAYER: 0.3}


def made_up(orders, ms_per_mib: float) -> Lut:
    """A LUT whose entries are true, of networks that pay for every change between the two kinds of blocks."""
    random = np.random.default_rng(3)
    models = []
    for number, blocks in enumerate(orders):
        changes = sum(
            mib for (a, b), mib in boundaries.handed_mib(blocks).items() if a != b and ms_per_mib > 0
        )
        ms = sum(COSTS_MS[key] for key in blocks) + ms_per_mib * changes
        ms *= 1 + 0.002 * random.standard_normal()
        heldout = number % 4 == 0
        models.append(
            MeasuredModel(
                model_id=f"{number:012x}", arch="", blocks=blocks, boundary_bytes=0, artifact_sha256="0" * 64,
                split="heldout" if heldout else "fit", role="heldout" if heldout else "design",
                ms=ms, ci_low=ms, ci_high=ms, loads=1, rounds=10,
            )
        )  # fmt: skip
    costs = {key: EntryCost(ms, 0.0, False) for key, ms in COSTS_MS.items()}
    lut = replace(load_lut(PACKED), models=tuple(models))
    lut.__dict__["latency_model"] = LatencyModel(0.0, 0.0, costs, None, None)
    return lut


def shuffled() -> list[tuple[str, ...]]:
    """Blocks of one shape in any order: how often kinds change is no matter of which blocks there are."""
    random = np.random.default_rng(7)
    return [tuple(random.choice(list(COSTS_MS), size=8)) for _ in range(80)]


def test_a_price_is_kept_where_order_decides_and_costs():
    verdict = boundaries.verdict_of(made_up(shuffled(), ms_per_mib=2.0))
    assert verdict.gained > 0
    assert ("mbconv", "mvit.layer") in verdict.identified
    assert verdict.given.mean() < verdict.without.mean() / 2
    assert verdict.better


def test_it_is_not_kept_where_handing_over_costs_nothing():
    verdict = boundaries.verdict_of(made_up(shuffled(), ms_per_mib=0.0))
    assert verdict.gained > 0
    assert not verdict.better


def test_nor_where_the_blocks_decide_what_is_handed_over():
    """Convolutions first, transformers after: a network of n and m blocks has n - 1, 1 and m - 1 boundaries."""
    chains = [(CONV,) * n + (LAYER,) * m for n in range(1, 8) for m in range(1, 7)]
    verdict = boundaries.verdict_of(made_up(chains, ms_per_mib=2.0))
    assert verdict.gained == 0
    assert verdict.identified == ()
    assert not verdict.better


def test_too_few_held_out_networks_decide_nothing():
    with pytest.raises(UsageError, match="2 held-out networks"):
        boundaries.verdict_of(made_up(shuffled()[:8], ms_per_mib=2.0))


def test_the_section_says_which_luts_keep_it():
    options = Options(
        data=None, quick=True, seeds=1, epochs=1, jobs=1, device="host", budget_s=1, pictures=Path(), lut=PACKED
    )  # fmt: skip
    section = boundaries.main(options)
    assert "No LUT here keeps the term" in section
    assert f"| `{PACKED}` | 12 | 7 | 0 |" in section

"""What the estimation knows of a block before anything is measured."""

from __future__ import annotations

from collections.abc import Sequence

from luts.schema import KeyFeatures
from search.blocks import BlockSpec
from search.blocks.sequence import BYTES_PER_ELEMENT


def features_of(specs: Sequence[BlockSpec]) -> dict[str, KeyFeatures]:
    """What the estimation knows of each block: kind, MACs with attention's products, activation traffic."""
    return {
        spec.key: KeyFeatures(
            kind=spec.kind,
            macs=spec.macs().total,
            traffic_bytes=spec.traffic_elements() * BYTES_PER_ELEMENT,
        )
        for spec in specs
    }

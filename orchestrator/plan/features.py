"""What the estimation knows of a block before anything is measured."""

from __future__ import annotations

from collections.abc import Sequence

from luts.format.schema import KeyFeatures
from search.blocks import BlockSpec
from search.blocks.sequence import BYTES_PER_ELEMENT


def features_of(specs: Sequence[BlockSpec]) -> dict[str, KeyFeatures]:
    """Kind, MACs with attention's products and those of depthwise convolutions, activation traffic, parameters."""
    return {
        spec.key: KeyFeatures(
            kind=spec.kind,
            macs=spec.macs().total,
            traffic_bytes=spec.traffic_elements() * BYTES_PER_ELEMENT,
            params=spec.params(),
            depthwise_macs=spec.depthwise_macs(),
        )
        for spec in specs
    }

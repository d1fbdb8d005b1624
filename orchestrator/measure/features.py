"""What the estimation knows of a block before anything is measured."""

from __future__ import annotations

from collections.abc import Sequence

from luts.schema import KeyFeatures
from search.blocks import BlockSpec
from search.blocks.mbconv import MBConv
from search.blocks.sequence import BYTES_PER_ELEMENT


def features_of(specs: Sequence[BlockSpec]) -> dict[str, KeyFeatures]:
    """Kind, MACs with attention's products and those of depthwise convolutions, activation traffic, parameters."""
    return {
        spec.key: KeyFeatures(
            kind=spec.kind,
            macs=spec.macs().total,
            traffic_bytes=spec.traffic_elements() * BYTES_PER_ELEMENT,
            params=spec.params(),
            depthwise_macs=_depthwise_macs(spec),
        )
        for spec in specs
    }


def _depthwise_macs(spec: BlockSpec) -> int:
    """MBConv's k x k convolution is the only depthwise one of any kind."""
    if not isinstance(spec, MBConv):
        return 0
    return spec.middle * spec.kernel**2 * spec.out_resolution**2

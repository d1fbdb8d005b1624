"""What the estimation knows of a block before anything is measured."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

from luts.format.schema import KeyFeatures
from orchestrator.plan.plan import Plan
from search.blocks import BlockSpec, parse_keys
from search.blocks.sequence import BYTES_PER_ELEMENT
from search.spaces import get_space


def features_of_plan(plan: Plan) -> dict[str, KeyFeatures]:
    """Of all that a LUT of a plan knows: the blocks of its space, and what else its models hold."""
    features = dict(_space_features(plan.space, plan.classes, plan.resolutions))
    more = {key for model in plan.models for key in model.blocks} - features.keys()
    return features | features_of(parse_keys(sorted(more)))


@functools.lru_cache(maxsize=8)
def _space_features(space: str, classes: int, resolutions: tuple[int, ...]) -> Mapping[str, KeyFeatures]:
    return features_of(get_space(space).with_classes(classes).block_specs(resolutions))


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

"""Block latencies of real phones, published by microsoft/nn-Meter (branch dev/hybrid-transformer, MIT).

Three tables of 12,116 blocks, without intervals. What a key says of its block is read here; what it does not say
(kernel of a `transds`, width of an attention's keys) is assumed. Physics with prices by kind leaves 1 to 16 %.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from luts.format.provenance import ROOT
from luts.format.schema import KeyFeatures

FOLDER = ROOT.parent / "shared" / "data" / "phone-luts"
ELEMENT_BYTES = 4


def phone_tables(folder: Path = FOLDER) -> dict[str, dict[str, float]]:
    """Milliseconds by key, by phone; none where the folder is not there."""
    return {
        path.stem.removeprefix("lut_"): json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("lut_*.json"))
    }


def features_of_keys(keys: list[str]) -> Mapping[str, KeyFeatures]:
    """Kind, MACs, traffic and parameters by key."""
    return {key: _feature(key) for key in keys}


def _feature(key: str) -> KeyFeatures:
    kind, *fields = key.split("_")
    numbers = [int(field) for field in fields if field.isdigit()]
    if kind == "firstconv":
        side, wide_in, wide, stride, kernel = numbers
        macs = (side // stride) ** 2 * wide_in * wide * kernel**2
        elements = side**2 * wide_in + (side // stride) ** 2 * wide
        return _of(kind, macs, elements, wide_in * wide * kernel**2)
    if kind == "conv":
        side, wide_in, wide, expansion, stride, kernel = numbers
        return _mbconv(kind, side, wide_in, wide, expansion, stride, kernel, squeeze=fields[-1] == "se")
    if kind == "transds":
        side, wide_in, wide, stride, expansion = numbers
        return _mbconv(kind, side, wide_in, wide, expansion, stride, 3, squeeze=False)
    if kind == "transattn":
        side, wide, ratio = numbers
        tokens, params = side**2, wide * wide * (2 + 2 * ratio)
        macs = tokens * params + tokens**2 * wide * (1 + ratio)
        return _of(kind, macs, tokens * wide * (4 + 2 * ratio) + 2 * tokens**2 * (wide // 16), params)
    if kind == "transffn":
        side, wide, ratio = numbers
        params = 2 * wide * wide * ratio
        return _of(kind, side**2 * params, side**2 * 2 * wide * (1 + ratio), params)
    side, wide_in, wide, expansion = numbers
    middle = wide_in * expansion
    macs = side**2 * wide_in * middle + middle * wide
    return _of(kind, macs, side**2 * (wide_in + middle) + middle + wide, wide_in * middle + middle * wide)


def _mbconv(
    kind: str, side: int, wide_in: int, wide: int, expansion: int, stride: int, kernel: int, *, squeeze: bool
) -> KeyFeatures:
    middle, pixels = wide_in * expansion, side**2
    reduced = (-(-side // stride)) ** 2
    expand = wide_in * middle if expansion > 1 else 0
    gate = 2 * middle * (middle // 4) if squeeze else 0
    depthwise = reduced * middle * kernel**2
    elements = pixels * (wide_in + (2 * middle if expansion > 1 else 0)) + reduced * (2 * middle + wide)
    elements += 2 * reduced * middle if squeeze else 0
    params = expand + middle * kernel**2 + middle * wide + gate
    macs = pixels * expand + depthwise + reduced * middle * wide + gate
    return _of(kind, macs, elements, params, depthwise)


def _of(kind: str, macs: int, elements: int, params: int, depthwise_macs: int = 0) -> KeyFeatures:
    return KeyFeatures(
        kind=kind,
        macs=macs,
        traffic_bytes=ELEMENT_BYTES * elements,
        params=params,
        depthwise_macs=depthwise_macs,
    )

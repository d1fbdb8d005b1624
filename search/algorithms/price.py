"""Prices from a LUT's latency model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from search.algorithms.interfaces import Priced
from search.blocks import BlockSpec, boundary_bytes, count
from search.spaces import Arch


class Predicted(Protocol):
    """The part of `luts.model.Prediction` that prices use."""

    @property
    def ms(self) -> float: ...

    @property
    def high(self) -> float: ...


class LatencyPredictor(Protocol):
    """The part of `luts.model.LatencyModel` that prices use: additive in blocks and bytes."""

    def predict(self, blocks: Sequence[str], boundary_bytes: int) -> Predicted: ...


class LutPrice:
    """Prices architectures by a latency model; `fingerprint` is the LUT's digest."""

    def __init__(self, model: LatencyPredictor, fingerprint: str):
        self._model = model
        self._fingerprint = fingerprint
        self._base_ms = model.predict((), 0).ms

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    @property
    def base_ms(self) -> float:
        return self._base_ms

    def price(self, arch: Arch) -> Priced:
        blocks = arch.blocks()
        predicted = self._model.predict([block.key for block in blocks], boundary_bytes(blocks))
        params, macs = count(blocks)
        return Priced(predicted.ms, predicted.high, params, macs.conv_linear)

    def blocks_ms(self, blocks: Sequence[BlockSpec], boundary_bytes: int) -> float:
        return self._model.predict([block.key for block in blocks], boundary_bytes).ms - self._base_ms

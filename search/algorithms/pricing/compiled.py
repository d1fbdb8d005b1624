"""Prices of millions of architectures a second: architectures as rows of small integers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from luts.format.errors import UsageError
from luts.format.numbers import Floats, Integers
from search.algorithms.pricing.costs import Latency, Priced
from search.algorithms.pricing.price import Prices, as_prices, fingerprint
from search.algorithms.pricing.tables import StageTable, build_tables
from search.spaces import Arch, Space

Codes = NDArray[np.int16]
"""(N, 1 + stages): index of resolution and head together, then of each stage its option, the number of options
standing for "the network ended before". In column order (`order="F"`) it is priced fastest."""

CHUNK = 8192
"""Rows priced at a time: the buffers stay in the cache of a core."""


@dataclass(frozen=True)
class Batch:
    """Prices of N architectures; `latency_ms` and `latency_high_ms` are (LUTs, N), the others (N,)."""

    latency_ms: Floats
    latency_high_ms: Floats
    params: Integers
    macs: Integers
    memory_bytes: Integers

    def __len__(self) -> int:
        return len(self.params)

    def __getitem__(self, index: int) -> Priced:
        latencies = [
            Latency(float(ms), float(high))
            for ms, high in zip(self.latency_ms[:, index], self.latency_high_ms[:, index], strict=True)
        ]
        return Priced(
            latency_ms=latencies[0].ms,
            latency_high_ms=latencies[0].high_ms,
            params=int(self.params[index]),
            macs=int(self.macs[index]),
            memory_bytes=int(self.memory_bytes[index]),
            further=tuple(latencies[1:]),
        )


class CompiledSpace:
    """A space with its prices as arrays.

    Channels are what adds up over stages: of LUT l the latency (2 l) and its bound (2 l + 1), then parameters,
    then conv+linear MACs, last the parameters' negative, by which there may be too few of them; peak memory is the
    largest over stages.

    Attributes:
        lut_names: What messages call the LUTs.
    """

    def __init__(self, space: Space, prices: Prices, confidence: float = 0.95):
        """Compile; `confidence` is that of the latency's upper bound.

        Raises:
            UsageError: a LUT lacks blocks of the space; names them.
        """
        self.space = space
        lut_prices = as_prices(prices)
        self.fingerprint = fingerprint(lut_prices)
        self.luts = len(lut_prices)
        self.lut_names = tuple(price.name or f"LUT {n}" for n, price in enumerate(lut_prices, start=1))
        self.combos = [(resolution, head) for resolution in space.resolutions for head in space.heads]
        self.tables: tuple[StageTable, ...] = build_tables(
            space, [price.model for price in lut_prices], confidence
        )
        self.stages = space.stages[: len(self.tables)]

    @property
    def params_channel(self) -> int:
        return 2 * self.luts

    @property
    def macs_channel(self) -> int:
        return 2 * self.luts + 1

    @property
    def fewness_channel(self) -> int:
        return 2 * self.luts + 2

    @cached_property
    def _option_index(self) -> list[dict[tuple[int | float, ...], int]]:
        return [{values: index for index, values in enumerate(stage.options)} for stage in self.stages]

    def encode(self, archs: Sequence[Arch]) -> Codes:
        """Architectures as rows. Raises UsageError for one that is not of this space."""
        codes = np.empty((len(archs), 1 + len(self.stages)), np.int16, order="F")
        for row, arch in enumerate(archs):
            try:
                if (arch.space, arch.classes) != (self.space.name, self.space.default_classes):
                    raise KeyError
                codes[row, 0] = self.combos.index((arch.resolution, arch.head))
                for column, options in enumerate(self._option_index):
                    used = column < len(arch.stages)
                    codes[row, 1 + column] = options[arch.stages[column]] if used else len(options)
            except (KeyError, ValueError) as error:
                raise UsageError(
                    f"{arch} is not of the part of {self.space.name} that is searched"
                ) from error
        return codes

    def decode(self, codes: Codes) -> list[Arch]:
        """Rows as architectures; the inverse of `encode`."""
        archs = []
        for combo, *chosen in codes.tolist():
            resolution, head = self.combos[combo]
            rows = tuple(
                stage.options[option]
                for stage, option in zip(self.stages, chosen, strict=True)
                if option < len(stage.options)
            )
            archs.append(Arch(self.space, resolution, head, self.space.default_classes, rows))
        return archs

    def price(self, codes: Codes) -> Batch:
        """All costs of rows; NaN latencies and nonsense counts where a row is not an architecture of the space."""
        totals, memory = self.totals(codes)
        with np.errstate(invalid="ignore"):
            counts = np.rint(totals[self.params_channel :]).astype(np.int64)
        latencies = totals[: self.params_channel]
        return Batch(latencies[0::2], latencies[1::2], counts[0], counts[1], memory.astype(np.int64))

    def totals(self, codes: Codes) -> tuple[Floats, Floats]:
        """All channels but the last (channels, N), which `total` makes of them, and peak bytes (N,)."""
        totals = np.zeros((self.fewness_channel, len(codes)))
        memory = np.zeros(len(codes))
        for rows, table, index in self._walk(codes):
            for channel, costs in enumerate(table.costs[: self.fewness_channel]):
                totals[channel, rows] += costs.reshape(-1).take(index)
            np.maximum(memory[rows], table.memory_bytes.reshape(-1).take(index), out=memory[rows])
        return totals, memory

    def total(self, totals: Floats, channel: int) -> Floats:
        """Any channel of what `totals` gives (N,)."""
        total: Floats = -totals[self.params_channel] if channel == self.fewness_channel else totals[channel]
        return total

    def channel(self, codes: Codes, channel: int = 0) -> Floats:
        """One channel (N,), by default the first LUT's latency in ms."""
        total = np.zeros(len(codes))
        for rows, table, index in self._walk(codes):
            total[rows] += table.costs[channel].reshape(-1).take(index)
        return total

    def _walk(self, codes: Codes) -> Iterator[tuple[slice, StageTable, NDArray[np.intp]]]:
        """(rows, table, index into its flattened (combos, states, options)), chunk by chunk, stage by stage."""
        self._check(codes)
        steps = [table.following * _next_options(self.tables, at) for at, table in enumerate(self.tables)]
        for start in range(0, len(codes), CHUNK):
            rows = slice(start, start + CHUNK)
            combo = codes[rows, 0].astype(np.intp)
            before = np.zeros(len(combo), np.intp)
            for column, table in enumerate(self.tables, start=1):
                before += codes[rows, column]
                index = combo * table.valid.size
                index += before
                yield rows, table, index
                before = steps[column - 1].reshape(-1).take(before)

    def _check(self, codes: Codes) -> None:
        sizes = [len(self.combos), *(table.valid.shape[1] for table in self.tables)]
        if codes.ndim != 2 or codes.shape[1] != len(sizes):
            raise UsageError(f"codes of shape {codes.shape}; expected (N, {len(sizes)})")
        if len(codes) and any(
            codes[:, column].min() < 0 or codes[:, column].max() >= size for column, size in enumerate(sizes)
        ):
            raise UsageError(f"codes out of range; columns go up to {[size - 1 for size in sizes]}")


def _next_options(tables: Sequence[StageTable], at: int) -> int:
    return tables[at + 1].valid.shape[1] if at + 1 < len(tables) else 0

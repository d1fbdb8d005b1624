"""Samples as matrices: one session per (batch, segment), its rows loads, its columns rounds."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Session:
    """All loads that ran interleaved in one segment of a batch.

    `log_ns` has shape (loads, rounds); NaN where a load was not visited in a round; several samples of one
    visit are averaged in the logarithm. `models[i]`, `copies[i]` name row i.
    """

    batch: int
    segment: int
    models: tuple[str, ...]
    copies: tuple[int, ...]
    log_ns: Floats

    def rows(self, model: str) -> list[int]:
        """Row numbers of a model's loads, copy 0 first."""
        return [row for row, name in enumerate(self.models) if name == model]

    def location(self, model: str) -> Floats:
        """Log latency (rounds,) of a model: the mean over its copies that ran in a round, NaN without any."""
        values = self.log_ns[self.rows(model)]
        seen = np.isfinite(values)
        counts = seen.sum(axis=0)
        sums = np.where(seen, values, 0.0).sum(axis=0)
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)

    def copies_of(self, model: str) -> Floats:
        """Log latency (copies, rounds) of a model; the others' mean where a copy did not run in a round."""
        values = self.log_ns[self.rows(model)]
        return np.where(np.isfinite(values), values, self.location(model))


def sessions(samples: pa.Table) -> list[Session]:
    """Sessions in order of batch and segment; rows in order of model and copy. The caller filters `kept`."""
    encoded = samples.column("model").combine_chunks()
    if not isinstance(encoded, pa.DictionaryArray):
        encoded = encoded.dictionary_encode()
    names = encoded.dictionary.to_pylist()
    rank = np.argsort(np.argsort(np.array(names, dtype=str)))
    code = rank[encoded.indices.to_numpy(zero_copy_only=False)]
    ordered_names = sorted(names)
    batch, segment, round_number, copy, ns = (
        samples.column(name).to_numpy() for name in ("batch", "segment", "round", "copy", "ns")
    )
    order = np.lexsort((round_number, copy, code, segment, batch))
    batch, segment, round_number, copy, code = (
        column[order] for column in (batch, segment, round_number, copy, code)
    )
    log_ns = np.log(ns[order].astype(np.float64))
    changes = np.flatnonzero((np.diff(batch) != 0) | (np.diff(segment) != 0)) + 1
    bounds = [0, *changes.tolist(), len(order)]
    found = []
    for start, stop in pairwise(bounds):
        if start == stop:
            continue
        part = slice(start, stop)
        loads, row = np.unique(code[part] * 2 + copy[part], return_inverse=True)
        visits, column = np.unique(round_number[part], return_inverse=True)
        sums = np.zeros((len(loads), len(visits)))
        counts = np.zeros_like(sums)
        np.add.at(sums, (row, column), log_ns[part])
        np.add.at(counts, (row, column), 1.0)
        found.append(
            Session(
                batch=int(batch[start]),
                segment=int(segment[start]),
                models=tuple(ordered_names[load // 2] for load in loads),
                copies=tuple(int(load % 2) for load in loads),
                log_ns=np.where(counts > 0, sums / np.maximum(counts, 1.0), np.nan),
            )
        )
    return found

"""Samples as matrices: one session per (batch, segment), its rows loads, its columns rounds; and what one tells.

All values are natural logarithms of ratios within a round, so drift that lasts longer than a round cancels. A load
is compared with each copy of the reference by itself and the results averaged: interference only adds time, and
a ratio to the copies' mean would have it on one side more often than on the other, which no robust location of its
rounds undoes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pyarrow as pa

from luts.estimate.location import MIN_ROUNDS, location_and_se
from luts.estimate.ratios import AaDifference, LoadRatio
from luts.format.errors import InvalidArtifactError
from luts.format.numbers import Floats


@dataclass(frozen=True, eq=False)
class Session:
    """All loads that ran interleaved in one segment of a batch.

    `log_ns` has shape (loads, rounds); NaN where a load was not visited in a round; several samples of one
    visit are averaged in the logarithm. `models[i]`, `copies[i]` name row i. `kept` is False where the batch was
    rejected. What a session tells is computed once, when it is first asked for.
    """

    batch: int
    segment: int
    models: tuple[str, ...]
    copies: tuple[int, ...]
    log_ns: Floats
    kept: bool = True
    _copies: dict[str, Floats] = field(default_factory=dict, repr=False)
    _differences: dict[str, AaDifference | None] = field(default_factory=dict, repr=False)
    _ratios: dict[tuple[int, str], LoadRatio | None] = field(default_factory=dict, repr=False)

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

    def median_ms(self, model: str) -> float | None:
        """Median latency of a model; None where it did not run."""
        location = self.location(model)
        return float(np.exp(np.nanmedian(location))) / 1e6 if np.isfinite(location).any() else None

    def copies_of(self, model: str) -> Floats:
        """Log latency (copies, rounds) of a model; the others' mean where a copy did not run in a round."""
        if model not in self._copies:
            values = self.log_ns[self.rows(model)]
            self._copies[model] = np.where(np.isfinite(values), values, self.location(model))
        return self._copies[model]

    def aa_difference(self, reference_id: str) -> AaDifference | None:
        """Of the reference's two copies; None unless both ran in at least MIN_ROUNDS common rounds."""
        if reference_id not in self._differences:
            self._differences[reference_id] = self._aa_difference(reference_id)
        return self._differences[reference_id]

    def load_ratios(self, denominator: str, model: str = "") -> list[LoadRatio]:
        """Loads of a model (of all others) to another one's; those with at least MIN_ROUNDS common rounds."""
        rows = [row for row, name in enumerate(self.models) if name != denominator and model in ("", name)]
        for row in rows:
            if (row, denominator) not in self._ratios:
                self._ratios[row, denominator] = self._load_ratio(row, denominator)
        ratios = (self._ratios[row, denominator] for row in rows)
        return [ratio for ratio in ratios if ratio is not None]

    def _aa_difference(self, reference_id: str) -> AaDifference | None:
        rows = self.rows(reference_id)
        if len(rows) != 2:
            return None
        difference = self.log_ns[rows[1]] - self.log_ns[rows[0]]
        difference = difference[np.isfinite(difference)]
        if len(difference) < MIN_ROUNDS:
            return None
        value, se = location_and_se(difference)
        return AaDifference(self.batch, self.segment, value, se, len(difference))

    def _load_ratio(self, row: int, denominator: str) -> LoadRatio | None:
        base = self.copies_of(denominator)
        if not len(base):
            return None
        values = self.log_ns[row] - base
        values = values[:, np.isfinite(values).all(axis=0)]
        if values.shape[1] < MIN_ROUNDS:
            return None
        location, se = location_and_se(values)
        between = self.aa_difference(denominator)
        return LoadRatio(
            model=self.models[row],
            batch=self.batch,
            segment=self.segment,
            log_ratio=location,
            se=se,
            rounds=values.shape[1],
            loads_each=1.0 + 1.0 / len(base),
            shared_variance=between.se**2 / 4 if between else 0.0,
        )


def sessions(samples: pa.Table) -> list[Session]:
    """Sessions in order of batch and segment; rows in order of model and copy.

    Raises:
        InvalidArtifactError: samples of one batch are both kept and rejected.
    """
    encoded = samples.column("model").combine_chunks()
    if not isinstance(encoded, pa.DictionaryArray):
        encoded = encoded.dictionary_encode()
    names = encoded.dictionary.to_pylist()
    rank = np.argsort(np.argsort(np.array(names, dtype=str)))
    code = rank[encoded.indices.to_numpy(zero_copy_only=False)]
    ordered_names = sorted(names)
    batch, segment, round_number, copy, ns, kept = (
        samples.column(name).to_numpy() for name in ("batch", "segment", "round", "copy", "ns", "kept")
    )
    order = np.lexsort((round_number, copy, code, segment, batch))
    batch, segment, round_number, copy, code, kept = (
        column[order] for column in (batch, segment, round_number, copy, code, kept)
    )
    log_ns = np.log(ns[order].astype(np.float64))
    changes = np.flatnonzero((np.diff(batch) != 0) | (np.diff(segment) != 0)) + 1
    result = []
    for start, stop in pairwise([0, *changes.tolist(), len(order)]):
        if start == stop:
            continue
        part = slice(start, stop)
        if kept[part].any() != kept[part].all():
            raise InvalidArtifactError(
                f"samples of batch {batch[start]} are both kept and rejected; a batch is one or the other"
            )
        loads, row = np.unique(code[part] * 2 + copy[part], return_inverse=True)
        visits, column = np.unique(round_number[part], return_inverse=True)
        sums = np.zeros((len(loads), len(visits)))
        counts = np.zeros_like(sums)
        np.add.at(sums, (row, column), log_ns[part])
        np.add.at(counts, (row, column), 1.0)
        result.append(
            Session(
                batch=int(batch[start]),
                segment=int(segment[start]),
                models=tuple(ordered_names[load // 2] for load in loads),
                copies=tuple(int(load % 2) for load in loads),
                log_ns=np.where(counts > 0, sums / np.maximum(counts, 1.0), np.nan),
                kept=bool(kept[start]),
            )
        )
    return result

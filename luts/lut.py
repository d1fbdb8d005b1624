"""A LUT in memory."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from luts.schema import Entry, LutMeta, MeasuredModel


@dataclass(frozen=True)
class Lut:
    """Entries in order of key, models in order of id, samples as `luts.samples.normalise_samples` leaves
    them."""

    meta: LutMeta
    entries: tuple[Entry, ...]
    models: tuple[MeasuredModel, ...]
    samples: pa.Table

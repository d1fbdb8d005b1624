"""A LUT in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol

import pyarrow as pa

from luts.format.errors import UsageError
from luts.format.latency import LatencyModel, Prediction
from luts.format.schema import Entry, LutMeta, MeasuredModel
from luts.format.values import Value

if TYPE_CHECKING:
    import pandas as pd


class Network(Protocol):
    """Whatever a LUT can price, such as `search.spaces.Arch`."""

    def keys(self) -> Sequence[str]:
        """Its blocks."""
        ...

    def boundary_bytes(self) -> int:
        """Data handed on between them."""
        ...


@dataclass(frozen=True)
class Lut:
    """Entries in order of key, models in order of id, samples as `luts.format.samples.normalise_samples` leaves
    them."""

    meta: LutMeta
    entries: tuple[Entry, ...]
    models: tuple[MeasuredModel, ...]
    samples: pa.Table

    @cached_property
    def reference(self) -> MeasuredModel:
        """The model that all were measured beside."""
        return next(model for model in self.models if model.model_id == self.meta.reference_id)

    @cached_property
    def latency_model(self) -> LatencyModel:
        """What prices networks."""
        return LatencyModel.of(self.meta, self.entries, self.models)

    def predict(self, network: Network | Sequence[str], boundary_bytes: int | None = None) -> Prediction:
        """Latency of a network in milliseconds, with its interval.

        Args:
            network: An architecture, or the keys of its blocks in any order.
            boundary_bytes: What blocks given by their keys hand on to each other; an architecture knows.

        Raises:
            UsageError: a block has no entry, or `boundary_bytes` is missing where the LUT has a price for them.
        """
        if not isinstance(network, Sequence):
            return self.latency_model.predict(network.keys(), network.boundary_bytes())
        if isinstance(network, str):
            raise UsageError(f"{network[:80]!r} is one text; give an architecture, or a list of block keys")
        if boundary_bytes is None and self.meta.transfer_ms_per_mib:
            raise UsageError(
                "this LUT prices data handed on between blocks; give boundary_bytes with the keys"
            )
        return self.latency_model.predict(network, boundary_bytes or 0)

    def to_pandas(self, table: Literal["entries", "models", "samples"] = "entries") -> pd.DataFrame:
        """One of its tables as a data frame, with the columns of the LUT's file."""
        import pandas as pd

        if table == "samples":
            samples: pd.DataFrame = self.samples.to_pandas()
            return samples
        rows: Sequence[Value] = self.entries if table == "entries" else self.models
        columns = (Entry if table == "entries" else MeasuredModel).model_fields
        frame = pd.DataFrame([row.model_dump() for row in rows], columns=list(columns))
        return frame.astype({"migrated_operations": "Int64"})

"""What values are made of: bounded numbers, names and texts, and a base that is frozen."""

from __future__ import annotations

import datetime
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

MAX_BLOCKS = 512
MAX_MODELS = 20_000
MAX_REASON = 4096
MAX_ENTRIES = 20_000
MAX_SOURCES = 8
MAX_SAMPLES = 20_000_000
MAX_COUNT = 2**53
"""Largest integer that JSON readers in other languages keep exact."""


def _iso_date(text: str) -> str:
    datetime.datetime.fromisoformat(text)
    return text


Key = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,160}$")]
"""A block key: printable ASCII without spaces."""
ModelId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
"""A device, space or variant; safe as a folder name."""
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{0,256}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
IsoDate = Annotated[str, StringConstraints(max_length=40), AfterValidator(_iso_date)]
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Ms = Annotated[float, Field(ge=0, le=1e7)]
PositiveMs = Annotated[float, Field(gt=0, le=1e7)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Value(BaseModel):
    """Frozen, closed to unknown fields, finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def of(cls, wider: Value) -> Self:
        """The part of a value that has all fields of this class, and more."""
        return cls(**{name: getattr(wider, name) for name in cls.model_fields})

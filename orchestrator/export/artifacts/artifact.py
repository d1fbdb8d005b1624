"""An exported model and what is known of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.export.artifacts.spec import ExportSpec

RELATIVE_TOLERANCE = 1e-4
"""Sums in another order make our fp32 networks differ by under 1e-6 of the output's scale; timm's may be deeper."""

_COARSENESS = {"fp32": 1.0, "fp16": 100.0, "int8": 5000.0, "mixed": 5000.0}
"""How many times the tolerance of fp32 a precision may take. Rounding to fp16 keeps 11 bits, to int8 seven, of each
weight and activation, and errors add up over tens of layers; a wrong graph is off by about the output's scale."""


def allowed_error(precision: str, tolerance: float = RELATIVE_TOLERANCE) -> float:
    """Largest relative error of an export whose fp32 form may have `tolerance`."""
    return tolerance * _COARSENESS[precision]


MAX_OPERATORS = 4096
"""More kinds of operators than this in a record mean that the file is not a record."""

MAX_REASON = 4096
"""Longest reason in a record, in characters."""

OpCounts = Annotated[tuple[tuple[str, int], ...], Field(max_length=MAX_OPERATORS)]


class Report(BaseModel):
    """What lowering and checking said of a model.

    Attributes:
        delegates: Subgraphs handed to a delegate (0 for portable, ONNX and LiteRT; 1 for a Core ML package).
        operators: Operators outside the delegates and their counts; for a Core ML package, all of its
            operators, since the placement is known only on the device.
        max_abs_error: Largest difference to PyTorch eager; None where the model cannot run on the host. A Core
            ML package does not run there but is evaluated (`orchestrator.export.lower.mil`), unless it has
            operators that the evaluation does not know.
        max_relative_error: The same relative to the output's largest absolute value.
        tolerance: The relative error above which the export is refused.
        export_s: Seconds of capturing, lowering and checking.
        made: `lowered` whole, `spliced` from fragments of other lowerings (`orchestrator.export.reuse`), or
            lowered `plain`: without our rewrites, with which it could not be exported.
        plain_because: Of a plain one, what was wrong with the rewritten one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    delegates: int = Field(ge=0)
    operators: OpCounts
    max_abs_error: float | None = Field(ge=0)
    max_relative_error: float | None = Field(ge=0)
    tolerance: float = Field(gt=0)
    export_s: float = Field(ge=0)
    made: Literal["lowered", "spliced", "plain"] = "lowered"
    plain_because: Annotated[str, Field(max_length=MAX_REASON)] = ""


class Artifact(BaseModel):
    """A model in the cache with the sha256 and bytes of its file, for Core ML a zip of one `.mlpackage`.

    `path` is another one where it was delivered, for Core ML the unpacked folder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    payload_bytes: int = Field(gt=0)
    spec: ExportSpec
    cache_key: str = Field(pattern=r"^[0-9a-f]{64}$")
    report: Report

    def within(self, tolerance: float) -> bool:
        """Whether its error, where it is known, is one that `tolerance` allows."""
        return (self.report.max_relative_error or 0.0) <= allowed_error(self.spec.precision, tolerance)

    @property
    def delegates(self) -> int | None:
        """Subgraphs handed to a delegate; None for other runtimes than ExecuTorch, which decide that at load."""
        return self.report.delegates if self.spec.runtime == "executorch" else None

    @property
    def outside(self) -> dict[str, int] | None:
        """Operators outside the delegates with their counts; None for other runtimes than ExecuTorch."""
        return dict(self.report.operators) if self.spec.runtime == "executorch" else None

    @property
    def suffix(self) -> str:
        """Of the model's name once it is delivered to people: `.pte`, or `.mlpackage` for a folder."""
        return ".mlpackage" if self.spec.runtime == "coreml" else self.path.suffix

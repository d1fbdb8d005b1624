"""What a runtime must offer so that the agent can load and time models with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from orchestrator.wire.fields import OptionValue, TensorSpec
from orchestrator.wire.replies import Delegate, Placement, RuntimeInfo, TracedOperation


class Model(Protocol):
    """A loaded model. `execute` is not a method, so that a runtime binds its own call with nothing around it."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def options(self) -> Mapping[str, OptionValue]:
        """The load options in effect, defaults included."""

    @property
    def delegates(self) -> tuple[Delegate, ...] | None: ...

    @property
    def placement(self) -> Placement | None: ...

    @property
    def execute(self) -> Callable[[], object]: ...

    def prepare(self, arrays: Sequence[np.ndarray]) -> Callable[[], object]:
        """A call that sets `arrays` as the next execution's inputs; conversion is done once, here.

        What an earlier call of this gave may then set these arrays too.

        Raises OpError `bad_input` where they are not what the model takes.
        """

    def get_outputs(self) -> list[np.ndarray]:
        """Copies of the outputs of the last execution."""

    def close(self) -> None:
        """Frees the model; it can't be used any more."""


@runtime_checkable
class Traceable(Protocol):
    """A model whose runtime can tell the time of each operation."""

    def take_operations(self, skip: int) -> list[TracedOperation]:
        """Operations of one execution in their order, of those since this was last asked, the first `skip` left
        out; empty where the model was not loaded to be traced."""


@runtime_checkable
class TimesVisits(Protocol):
    """A model whose runtime times executions itself, so that the interpreter's work lies between no two of them."""

    @staticmethod
    def time_visits(models: Sequence[Any]) -> np.ndarray:
        """Visits prepared models of this class in turn: sets the inputs and executes; nanoseconds of the latter.

        Raises RuntimeError where the runtime fails.
        """


class Runtime(Protocol):
    """A way to execute model files."""

    def describe(self) -> RuntimeInfo:
        """Version, backends and load options."""

    def load(self, path: Path, options: Mapping[str, OptionValue]) -> Model:
        """Loads `path` afresh, sharing nothing with earlier loads of it.

        Raises OpError `bad_option`, `options_conflict`, `out_of_memory` or `bad_model`.
        """

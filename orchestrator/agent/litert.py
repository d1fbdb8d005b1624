"""LiteRT (TensorFlow Lite) behind the agent's Runtime interface: its interpreter with XNNPACK, the default."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.agent.runtime import Model, checked_threads, require_inputs, require_memory, threads_option
from orchestrator.wire.errors import OpError
from orchestrator.wire.messages import OptionValue, RuntimeInfo, TensorSpec

_COPIES_OF_WEIGHTS = 2
"""The mapped file, and what XNNPACK packs."""


class LiteRtModel:
    """An interpreter with its tensors allocated; implements the agent's Model."""

    placement = None
    delegates = None

    def __init__(self, path: Path, options: Mapping[str, OptionValue]) -> None:
        """Load a model; raises RuntimeError or ValueError."""
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter: Any = Interpreter(os.fspath(path), num_threads=int(options["threads"]))
        self._interpreter.allocate_tensors()
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self.inputs, self.outputs = tuple(map(_spec, inputs)), tuple(map(_spec, outputs))
        self.options = options
        self._input_ids = [tensor["index"] for tensor in inputs]
        self._output_ids = [tensor["index"] for tensor in outputs]
        self.execute: Callable[[], object] = self._interpreter.invoke

    def prepare(self, arrays: Sequence[np.ndarray]) -> Callable[[], object]:
        """Return a call that sets the inputs of the next execution."""
        require_inputs(self.inputs, arrays)
        contiguous = [np.array(array, order="C") for array in arrays]

        def set_inputs() -> None:
            for index, array in zip(self._input_ids, contiguous, strict=True):
                self._interpreter.set_tensor(index, array)

        return set_inputs

    def get_outputs(self) -> list[np.ndarray]:
        """Return copies of the last execution's outputs."""
        return [self._interpreter.get_tensor(index) for index in self._output_ids]

    def close(self) -> None:
        """Free the model."""
        del self.execute, self._interpreter


class LiteRtRuntime:
    """Loads .tflite files; implements the agent's Runtime."""

    def __init__(self, version: str) -> None:
        """Describe the installed `version`."""
        self._version, self._threads = version, threads_option()

    def describe(self) -> RuntimeInfo:
        """Return version, backends and load options."""
        return RuntimeInfo(version=self._version, backends=["cpu"], options={"threads": self._threads})

    def load(self, path: Path, options: Mapping[str, OptionValue]) -> Model:
        """Load a model file; raises OpError."""
        checked = checked_threads("litert", options, self._threads)
        require_memory(_COPIES_OF_WEIGHTS * path.stat().st_size)
        try:
            return LiteRtModel(path, checked)
        except (RuntimeError, ValueError) as error:
            raise OpError(
                "bad_model",
                f"LiteRT {self._version} can't load the model ({' '.join(str(error).split())[:200]}); "
                "export it again",
            ) from None


def _spec(tensor: Mapping[str, Any]) -> TensorSpec:
    shape = [int(side) for side in tensor["shape"]]
    return TensorSpec.model_validate({"dtype": np.dtype(tensor["dtype"]).name, "shape": shape})

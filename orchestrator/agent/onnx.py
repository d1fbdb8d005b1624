"""ONNX Runtime behind the agent's Runtime interface: its CPU provider, for comparison with ExecuTorch.

Inputs and outputs are bound to memory of their own before the timed call, as a latency-critical app would do.
Threads of a session stop spinning after its run (`session.force_spinning_stop`); they would take cores from
the next model.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.agent.runtime import Model, checked_threads, require_inputs, require_memory, threads_option
from orchestrator.wire.errors import OpError
from orchestrator.wire.messages import OptionValue, RuntimeInfo, TensorSpec

_COPIES_OF_WEIGHTS = 2
"""The file's own, and those that kernels pack."""

_PROVIDER = "CPUExecutionProvider"

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


class OnnxModel:
    """A session; implements the agent's Model."""

    placement = None
    delegates = None

    def __init__(self, path: Path, options: Mapping[str, OptionValue]) -> None:
        """Load a model; raises an exception of ONNX Runtime."""
        import onnxruntime

        how = onnxruntime.SessionOptions()
        how.intra_op_num_threads, how.inter_op_num_threads = int(options["threads"]), 1
        how.add_session_config_entry("session.force_spinning_stop", "1")
        how.log_severity_level = 3
        session = onnxruntime.InferenceSession(os.fspath(path), how, providers=[_PROVIDER])
        self.inputs = tuple(_spec(value) for value in session.get_inputs())
        self.outputs = tuple(_spec(value) for value in session.get_outputs())
        self.options = options
        self._names = [value.name for value in session.get_inputs()]
        self._binding: Any = session.io_binding()
        self._to_value = onnxruntime.OrtValue.ortvalue_from_numpy
        self._results = [np.empty(spec.shape, spec.dtype) for spec in self.outputs]
        for value, array in zip(session.get_outputs(), self._results, strict=True):
            self._binding.bind_ortvalue_output(value.name, self._to_value(array))
        self.execute: Callable[[], object] = partial(session.run_with_iobinding, self._binding)

    def prepare(self, arrays: Sequence[np.ndarray]) -> Callable[[], object]:
        """Return a call that sets the inputs of the next execution."""
        require_inputs(self.inputs, arrays)
        values = [self._to_value(np.array(array, order="C")) for array in arrays]

        def set_inputs() -> None:
            for name, value in zip(self._names, values, strict=True):
                self._binding.bind_ortvalue_input(name, value)

        return set_inputs

    def get_outputs(self) -> list[np.ndarray]:
        """Return copies of the last execution's outputs."""
        return [value.numpy().copy() for value in self._binding.get_outputs()]

    def close(self) -> None:
        """Free the model."""
        del self.execute, self._binding, self._results


class OnnxRuntime:
    """Loads .onnx files; implements the agent's Runtime."""

    def __init__(self, version: str) -> None:
        """Describe the installed `version`."""
        self._version, self._threads = version, threads_option()

    def describe(self) -> RuntimeInfo:
        """Return version, backends and load options."""
        return RuntimeInfo(version=self._version, backends=["cpu"], options={"threads": self._threads})

    def load(self, path: Path, options: Mapping[str, OptionValue]) -> Model:
        """Load a model file; raises OpError."""
        checked = checked_threads("onnx", options, self._threads)
        require_memory(_COPIES_OF_WEIGHTS * path.stat().st_size)
        try:
            return OnnxModel(path, checked)
        # ONNX Runtime's errors have no common base class but Exception
        except Exception as error:
            raise OpError(
                "bad_model",
                f"ONNX Runtime {self._version} can't load the model ({' '.join(str(error).split())[:200]}); "
                "export it again",
            ) from None


def _spec(value: Any) -> TensorSpec:
    """Return an input's or output's spec; raises ValueError if a dimension is not fixed."""
    if value.type not in _DTYPES or not all(isinstance(side, int) for side in value.shape):
        raise ValueError(f"{value.name} is a {value.type}{value.shape}, not a tensor of fixed shape")
    return TensorSpec.model_validate({"dtype": _DTYPES[value.type], "shape": value.shape})

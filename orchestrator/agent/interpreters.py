"""ONNX Runtime (its CPU provider) and LiteRT (with XNNPACK), for comparison with ExecuTorch."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.agent.runtime import (
    Model,
    Runtime,
    checked_options,
    load_error,
    require_memory,
    threads_option,
)
from orchestrator.wire.messages import OptionInfo, OptionValue, RuntimeInfo, TensorSpec

_COPIES_OF_WEIGHTS = 2
"""The file's own, and those that kernels pack."""

_ONNX_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


class OnnxModel(Model):
    """A session of ONNX Runtime.

    Inputs and outputs are bound to memory of their own before the timed call, as a latency-critical app would
    do. Threads of a session stop spinning after its run; they would take cores from the next model.
    """

    def __init__(self, path: Path, threads: int) -> None:
        """Load a model; raises an exception of ONNX Runtime."""
        import onnxruntime

        how = onnxruntime.SessionOptions()
        how.intra_op_num_threads, how.inter_op_num_threads = threads, 1
        how.add_session_config_entry("session.force_spinning_stop", "1")
        how.log_severity_level = 3
        session = onnxruntime.InferenceSession(os.fspath(path), how, providers=["CPUExecutionProvider"])
        self.inputs = tuple(_onnx_spec(value) for value in session.get_inputs())
        self.outputs = tuple(_onnx_spec(value) for value in session.get_outputs())
        self._names = [value.name for value in session.get_inputs()]
        self._binding: Any = session.io_binding()
        self._to_value = onnxruntime.OrtValue.ortvalue_from_numpy
        self._results = [np.empty(spec.shape, spec.dtype) for spec in self.outputs]
        for value, array in zip(session.get_outputs(), self._results, strict=True):
            self._binding.bind_ortvalue_output(value.name, self._to_value(array))
        self.execute = partial(session.run_with_iobinding, self._binding)

    def bind(self, arrays: Sequence[np.ndarray]) -> Callable[[], object]:
        """Return a call that sets the inputs of the next execution."""
        values = [self._to_value(array) for array in arrays]

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
        super().close()


def _onnx_spec(value: Any) -> TensorSpec:
    """Return an input's or output's spec; raises ValueError if a dimension is not fixed."""
    if value.type not in _ONNX_DTYPES or not all(isinstance(side, int) for side in value.shape):
        raise ValueError(f"{value.name} is a {value.type}{value.shape}, not a tensor of fixed shape")
    return TensorSpec.model_validate({"dtype": _ONNX_DTYPES[value.type], "shape": value.shape})


class LiteRtModel(Model):
    """An interpreter of LiteRT with its tensors allocated."""

    def __init__(self, path: Path, threads: int) -> None:
        """Load a model; raises RuntimeError or ValueError."""
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter: Any = Interpreter(os.fspath(path), num_threads=threads)
        self._interpreter.allocate_tensors()
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self.inputs, self.outputs = tuple(map(_litert_spec, inputs)), tuple(map(_litert_spec, outputs))
        self._input_ids = [tensor["index"] for tensor in inputs]
        self._output_ids = [tensor["index"] for tensor in outputs]
        self.execute = self._interpreter.invoke

    def bind(self, arrays: Sequence[np.ndarray]) -> Callable[[], object]:
        """Return a call that sets the inputs of the next execution."""

        def set_inputs() -> None:
            for index, array in zip(self._input_ids, arrays, strict=True):
                self._interpreter.set_tensor(index, array)

        return set_inputs

    def get_outputs(self) -> list[np.ndarray]:
        """Return copies of the last execution's outputs."""
        return [self._interpreter.get_tensor(index) for index in self._output_ids]

    def close(self) -> None:
        """Free the model."""
        del self.execute, self._interpreter
        super().close()


def _litert_spec(tensor: Mapping[str, Any]) -> TensorSpec:
    shape = [int(side) for side in tensor["shape"]]
    return TensorSpec.model_validate({"dtype": np.dtype(tensor["dtype"]).name, "shape": shape})


@dataclass(frozen=True)
class InterpreterRuntime:
    """A runtime whose only option is `threads`; imported by the first load.

    Attributes:
        name: Its name in the protocol.
        title: Its name in messages.
        package: The package that has it.
        model: Loads a file with a number of threads.
        failures: What that raises; ONNX Runtime's errors have no common base class but Exception.
    """

    name: str
    title: str
    package: str
    model: Callable[[Path, int], Model]
    failures: tuple[type[Exception], ...]

    @property
    def version(self) -> str:
        """Its version; raises PackageNotFoundError if it is not installed."""
        return version(self.package)

    @cached_property
    def options(self) -> dict[str, OptionInfo]:
        """Its load options, as for the first hello: ExecuTorch's `cores` may later pin this process."""
        return {"threads": threads_option()}

    def describe(self) -> RuntimeInfo:
        """Return version, backends and load options."""
        return RuntimeInfo(version=self.version, backends=["cpu"], options=self.options)

    def load(self, path: Path, options: Mapping[str, OptionValue]) -> Model:
        """Load a model file; raises AgentError."""
        checked = checked_options(self.name, options, self.options)
        require_memory(_COPIES_OF_WEIGHTS * path.stat().st_size)
        try:
            model = self.model(path, int(checked["threads"]))
        except self.failures as error:
            raise load_error(f"{self.title} {self.version}", error) from None
        model.options = checked
        return model


_RUNTIMES = (
    InterpreterRuntime("onnx", "ONNX Runtime", "onnxruntime", OnnxModel, (Exception,)),
    InterpreterRuntime("litert", "LiteRT", "ai-edge-litert", LiteRtModel, (RuntimeError, ValueError)),
)


def installed_runtimes() -> dict[str, Runtime]:
    """Return the installed runtimes by name."""
    found: dict[str, Runtime] = {}
    for runtime in _RUNTIMES:
        with contextlib.suppress(PackageNotFoundError):
            version(runtime.package)
            found[runtime.name] = runtime
    return found

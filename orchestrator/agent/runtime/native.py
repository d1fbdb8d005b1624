"""ExecuTorch called natively: executions, and the clock around them, are in C."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.agent.runtime.etshim import Shim, ShimError, SpecStruct
from orchestrator.agent.runtime.loader import LoadError, Loading, require_inputs
from orchestrator.wire.fields import TensorSpec

# runtime/core/error.h: MemoryAllocationFailed, OutOfResources, DelegateMemoryAllocationFailed
_MEMORY_ERRORS = (0x21, 0x25, 0x31)


class NativeModel:
    """A loaded method `forward`; implements the agent's Model and TimesVisits."""

    placement = None

    def __init__(self, shim: Shim, path: Path, loading: Loading) -> None:
        self._c: Any = shim.c
        self._pointer = shim.open(path)
        try:
            self._c.et_load(self._pointer)
            self.inputs = self._specs("input")
            self.outputs = self._specs("output")
        except Exception:
            self._c.et_close(self._pointer)
            raise
        self.options = loading.options
        self.delegates = loading.delegates
        self.execute: Callable[[], object] = partial(self._c.et_execute, self._pointer)
        self._on_close = loading.on_close
        self._bound: list[np.ndarray] = []

    def prepare(self, arrays: Sequence[np.ndarray]) -> Callable[[], object]:
        require_inputs(self.inputs, arrays)
        bound = [np.array(array, order="C") for array in arrays]
        for index, array in enumerate(bound):
            self._c.et_bind_input(self._pointer, index, array.ctypes.data, array.nbytes)
        self._bound = bound
        return partial(self._c.et_set_inputs, self._pointer)

    @staticmethod
    def time_visits(models: Sequence[NativeModel]) -> np.ndarray:
        latencies_ns = np.zeros(len(models), np.uint64)
        if models:
            pointers = (ctypes.c_void_p * len(models))(*(model._pointer.value for model in models))
            models[0]._c.et_time_visits(pointers, len(models), latencies_ns.ctypes.data)
        return latencies_ns

    def get_outputs(self) -> list[np.ndarray]:
        outputs = [np.empty(spec.shape, spec.dtype) for spec in self.outputs]
        for index, array in enumerate(outputs):
            self._c.et_read_output(self._pointer, index, array.ctypes.data, array.nbytes)
        return outputs

    def close(self) -> None:
        self._c.et_close(self._pointer)
        del self.execute, self._pointer, self._bound
        self._on_close()

    def _specs(self, kind: str) -> tuple[TensorSpec, ...]:
        read = getattr(self._c, f"et_{kind}_spec")
        specs = []
        for index in range(getattr(self._c, f"et_num_{kind}s")(self._pointer)):
            spec = SpecStruct()
            read(self._pointer, index, ctypes.byref(spec))
            specs.append(TensorSpec(dtype=spec.dtype.decode(), shape=list(spec.shape[: spec.rank])))
        return tuple(specs)


class NativeLoader:
    """libetshim.so."""

    def __init__(self, shim: Shim) -> None:
        self._shim = shim
        self.version = f"native {shim.version()}"

    def backends(self) -> list[str]:
        return self._shim.backends()

    def set_threads(self, threads: int) -> None:
        self._shim.c.et_set_threads(threads)

    def load(self, path: Path, loading: Loading) -> NativeModel:
        try:
            return NativeModel(self._shim, path, loading)
        except ShimError as error:
            raise LoadError(str(error), error.code in _MEMORY_ERRORS) from None
